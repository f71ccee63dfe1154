"""The command `config`: what the configuration says, and which file and line said it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from fsqdo.cli.options import command, json_option
from fsqdo.cli.output import json_line, printable, write_lines

if TYPE_CHECKING:
    from fsqdo.config import Config


@command(
    "config",
    """
fsqdo config
fsqdo config --json
""",
)
@json_option
def config_command(as_json: bool) -> None:
    """Show the configuration, and where each value comes from.

    It is what /etc/fsqdo/config.yaml, ~/.config/fsqdo/config.yaml and the file in $FSQDO_CONFIG say together, the later ones
    before the earlier ones. Profiles are shown with all that they extend. Everything wrong in any file is reported at once.
    """
    from fsqdo.config import load_config

    config = load_config()
    if as_json:
        profiles = {name: asdict(profile) for name, profile in config.profiles.items()}
        shown = {"dir": config.dir, "default_profile": config.default_profile, "profiles": profiles}
        print(json_line({**shown, "sources": config.sources, "origins": config.origins}))
        return
    write_lines(_lines(config))


def _lines(config: Config) -> Iterator[str]:
    """YAML that says the same as all files together."""
    from fsqdo.config import shown_profile

    for path in config.sources:
        yield f"# {printable(path)}"
    for key in ("dir", "default_profile"):
        yield _line(key, getattr(config, key), config.origins[key])
    yield "profiles:"
    for name, profile in config.profiles.items():
        yield f"  {_scalar(name)}:"
        for key, value in shown_profile(profile):
            place = f"profiles.{name}.{key}"
            if isinstance(value, dict):
                lines = [_line(f"      {_scalar(var)}", text, config.origins[f"{place}.{var}"]) for var, text in value.items()]
                yield from [f"    {key}:", *lines] if lines else ()
            elif place in config.origins:
                yield _line(f"    {key}", value, config.origins[place])


def _line(key: str, value: Any, origin: str) -> str:
    return f"{key}: {_scalar(value)}  # {printable(origin)}"


def _scalar(value: Any) -> str:
    """A value as YAML on one line."""
    import yaml

    if isinstance(value, str) and not value.isprintable():
        return json_line(value)  # a text of several lines; JSON's strings are YAML's
    plain = list(value) if isinstance(value, tuple) else value
    text: str = yaml.safe_dump(plain, default_flow_style=True, width=float("inf"), allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")
