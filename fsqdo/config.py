"""The configuration: YAML files read into one frozen `Config`; all that is wrong with them is reported at once.

`FSQDO_CONFIG` names the one file to read. Without it there are two, each read if it is there: `/etc/fsqdo/config.yaml` (the
site's) and `~/.config/fsqdo/config.yaml` (the user's, under XDG_CONFIG_HOME where that is set). Of two values for one key
the later one counts; mappings (`profiles`, a profile, its `env`) are merged key by key.

```yaml
dir: $SCRATCH/queues          # where the queues are; the variable FSQDO_DIR comes before it
default_profile: local
profiles:
  local:                      # the built-in one, to which this adds
    prologue: [ulimit -c 0]
  threads:
    extends: local
    env: {OMP_NUM_THREADS: 4}
```

YAML is imported only when there is a file to read: start-up is most of what a short command costs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fsqdo.errors import ConfigError, InputError
from fsqdo.places import DEFAULT_DIR, config_files, dir_of_environment

if TYPE_CHECKING:
    import yaml

SYSTEMS = ("local", "slurm", "pbs", "torque", "sge", "lsf", "htcondor", "flux")
DEFAULT_PROFILE = "local"

_BUILT_IN = "built in"
_TOP_KEYS = ("dir", "default_profile", "profiles")
_PROFILE_KEYS = ("system", "extends", "env", "prologue")
_PROFILE_NAME = re.compile(r"\w[\w.-]*\Z")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z", re.ASCII)
_VARIABLE = re.compile(r"\$(?:\w+|\{[^}]*\})")
_QUICK_CHARACTERS = 10_000
_PLACE = ""  # where a profile itself stands, kept beside its keys
_TEXT = "tag:yaml.org,2002:str"
_NULL = "tag:yaml.org,2002:null"
_YES_NO = "tag:yaml.org,2002:bool"


@dataclass(frozen=True)
class Profile:
    """A named way of starting workers.

    Attributes
    ----------
    system
        The batch system, one of `SYSTEMS`.
    env
        Environment variables that its workers get.
    prologue, epilogue
        Lines of shell that a job runs before and after the workers, as they were written.
    cores_per_node, gpus_per_node, mem_per_node_mb, max_walltime_s, max_nodes, max_jobs
        Limits, of one job but for the last; None: not known.
    account, queue, constraint, directives
        What the batch system is told: `JobSpec` says how.
    wrap, mpirun
        Words before the worker's command, and what starts several workers in one job; None: the system's own.
    keep_env
        Whether a job sees the environment of the one who launches.
    script
        The whole text of the job's script; None: the built-in one.
    """

    name: str
    system: str
    env: Mapping[str, str] = field(default_factory=dict)
    prologue: tuple[str, ...] = ()
    epilogue: tuple[str, ...] = ()
    cores_per_node: int | None = None
    gpus_per_node: int | None = None
    mem_per_node_mb: int | None = None
    max_walltime_s: int | None = None
    max_nodes: int | None = None
    max_jobs: int | None = None
    account: str | None = None
    queue: str | None = None
    constraint: str | None = None
    directives: tuple[str, ...] = ()
    wrap: tuple[str, ...] = ()
    mpirun: tuple[str, ...] | None = None
    keep_env: bool = True
    script: str | None = None


@dataclass(frozen=True)
class Config:
    """What the configuration says, complete and checked.

    Attributes
    ----------
    dir
        Absolute path of the directory that holds the queues.
    default_profile
        The profile that is meant when none is named.
    profiles
        By name; the built-in `local` is always among them.
    sources
        The files that were read, in their order.
    origins
        Where each value comes from, by its dotted key (`dir`, `profiles.local.env.PATH`): `file:line`, the name of an
        environment variable, or "built in".
    """

    dir: str
    default_profile: str
    profiles: Mapping[str, Profile]
    sources: tuple[str, ...] = ()
    origins: Mapping[str, str] = field(default_factory=dict)

    def profile(self, name: str | None = None) -> Profile:
        """The profile of this name, or the default one.

        Raises
        ------
        InputError
            When there is none, with the names there are.
        """
        wanted = self.default_profile if name is None else name
        if wanted not in self.profiles:
            raise InputError(
                f"there is no profile {wanted!r}",
                f"the profiles are {_listed(self.profiles)}{did_you_mean(wanted, self.profiles)}",
            )
        return self.profiles[wanted]


def load_config() -> Config:
    """Read the configuration.

    Raises
    ------
    ConfigError
        With everything that is wrong in all files, a line each: `file:line: what, the valid names, the nearest one`.
    """
    problems: list[str] = []
    merged: dict[str, Any] = {"profiles": {DEFAULT_PROFILE: {"system": _Value("local", _BUILT_IN)}}}
    sources = []
    readable = True
    for path, must_exist in config_files():
        content = _read(path, must_exist, problems)
        if content is not None:
            sources.append(path)
            parsed = _File(path, problems).parse(content)
            readable = readable and parsed is not None
            merged = _merge(merged, parsed or {})
    if not readable:
        raise _refusal(problems)  # what the files mean together cannot be told while one is missing
    profiles = dict(_profiles(merged["profiles"], problems))
    directory = _directory(merged.get("dir"), problems)
    default = merged.get("default_profile", _Value(DEFAULT_PROFILE, _BUILT_IN))
    if default.value not in merged["profiles"]:
        names = merged["profiles"]
        problems.append(
            f"{default.where}: default_profile is {default.value!r}, which is none of the profiles "
            f"{_listed(names)}{did_you_mean(default.value, names)}"
        )
    if problems:
        raise _refusal(problems)
    origins = {"dir": directory.where, "default_profile": default.where}
    origins |= _origins("profiles", {name: dict(_inherited(name, merged["profiles"])) for name in profiles})
    return Config(directory.value, default.value, profiles, tuple(sources), origins)


def _refusal(problems: list[str]) -> ConfigError:
    return ConfigError("the configuration cannot be used:", list(dict.fromkeys(problems)))


def did_you_mean(word: str, valid: Iterable[str]) -> str:
    """`; did you mean 'x'?` with the nearest of the valid words, or nothing."""
    from difflib import get_close_matches

    near = get_close_matches(word.lower(), list(valid), 1)
    return f"; did you mean {near[0]!r}?" if near else ""


# ---------------------------------------------------------------- files
def _read(path: str, must_exist: bool, problems: list[str]) -> str | None:
    """The text of a file; None when it is not there, or when it is and cannot be read (a problem, then)."""
    try:
        with open(path, "rb") as file:
            content = file.read()
    except (FileNotFoundError, NotADirectoryError):
        if must_exist:
            problems.append(f"{path}: there is no such file, but FSQDO_CONFIG names it")
        return None
    except OSError as error:
        problems.append(f"{path}: cannot be read: {error.strerror or error}")
        return None
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        problems.append(f"{path}:{line}: byte {content[error.start]:#04x} is not UTF-8")
        return None


@dataclass(frozen=True)
class _Value:
    """A checked value and where it stands."""

    value: Any
    where: str


class _File:
    """One file, read along its syntax nodes, which know their lines. A wrong value is a problem and is left out."""

    def __init__(self, path: str, problems: list[str]) -> None:
        self._path = path
        self._problems = problems

    def parse(self, text: str) -> dict[str, Any] | None:
        """The checked content: nested dicts, with a `_Value` at each leaf; None when it is not YAML at all."""
        import yaml

        # libyaml's loader ends the process when brackets are nested some ten thousand deep; the other one raises.
        quick = len(text) <= _QUICK_CHARACTERS and getattr(yaml, "CSafeLoader", None)
        try:
            loader: yaml.SafeLoader = (quick or yaml.SafeLoader)(text)
            try:
                return self._top(loader, loader.get_single_node())
            finally:
                loader.dispose()
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            where = f"{self._path}:{mark.line + 1}" if mark else self._path
            self._problems.append(f"{where}: not YAML: {error.problem or error.context}")
        except yaml.YAMLError as error:
            self._problems.append(f"{self._path}: not YAML: {' '.join(str(error).split())}")
        except RecursionError:
            self._problems.append(f"{self._path}: nested too deeply, or within itself")
        return None

    def _top(self, loader: yaml.SafeLoader, node: yaml.Node | None) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, where, value in self._items(loader, node, "the file", _TOP_KEYS):
            if key == "profiles":
                found[key] = self._profiles(loader, value)
            elif key in _TOP_KEYS:
                self._keep(found, key, self._text(value, key), where)
        return found

    def _profiles(self, loader: yaml.SafeLoader, node: yaml.Node) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, where, value in self._items(loader, node, "profiles"):
            if not _PROFILE_NAME.match(name):
                self._problems.append(f"{where}: {name!r} cannot be the name of a profile: use letters, digits, _ . -")
                continue
            found[name] = self._profile(loader, value, name, where)
        return found

    def _profile(self, loader: yaml.SafeLoader, node: yaml.Node, name: str, at: str) -> dict[str, Any]:
        found: dict[str, Any] = {_PLACE: _Value(None, at)}
        for key, where, value in self._items(loader, node, f"the profile {name!r}", _PROFILE_KEYS):
            if key == "env":
                found[key] = self._env(loader, value)
            elif key == "prologue":
                self._keep(found, key, self._lines(value), where)
            elif key == "system":
                found[key] = _Value(self._word(value, key, SYSTEMS), where)  # None: refused, which is not the same as absent
            elif key == "extends":
                self._keep(found, key, self._text(value, key), where)
        return found

    def _env(self, loader: yaml.SafeLoader, node: yaml.Node) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, where, value in self._items(loader, node, "env"):
            if not _ENV_NAME.match(name):
                self._problems.append(f"{where}: {name!r} cannot be the name of an environment variable")
            elif value.tag in (_NULL, _YES_NO):
                # YAML reads yes, on and y in ways that nobody expects in a shell
                self._problems.append(f"{where}: the value of {name} is {value.value!r}: put it in quotes")
            elif self._is_scalar(value) and "\0" not in value.value:
                found[name] = _Value(value.value, where)  # as it was written: 0.10 stays 0.10
            else:
                self._problems.append(f"{where}: the value of {name} must be text (without NUL bytes)")
        return found

    def _lines(self, node: yaml.Node) -> tuple[str, ...] | None:
        """Shell lines: a list of them, or one block of text."""
        if node.tag == _TEXT:
            items = [node]
        elif node.tag == "tag:yaml.org,2002:seq" and all(isinstance(item.value, str) for item in node.value):
            items = node.value
        else:
            self._problems.append(f"{self._where(node)}: prologue must be a list of shell lines")
            return None
        if any(item.tag != _TEXT or "\0" in item.value for item in items):
            self._problems.append(f"{self._where(node)}: each line of prologue must be text: put it in quotes")
            return None
        return tuple(line for item in items for line in item.value.rstrip("\n").split("\n"))

    def _word(self, node: yaml.Node, key: str, valid: tuple[str, ...]) -> str | None:
        text = self._text(node, key)
        if text is None or text in valid:
            return text
        self._problems.append(
            f"{self._where(node)}: {key} is {text!r}, but must be one of {_listed(valid)}{did_you_mean(text, valid)}"
        )
        return None

    def _text(self, node: yaml.Node, key: str) -> str | None:
        if node.tag == _TEXT and node.value and node.value.isprintable():
            return str(node.value)
        shown = repr(node.value) if self._is_scalar(node) else "a list or a mapping"
        self._problems.append(f"{self._where(node)}: {key} is {shown}, but must be text on one line")
        return None

    def _items(
        self, loader: yaml.SafeLoader, node: yaml.Node | None, what: str, valid: tuple[str, ...] = ()
    ) -> Iterator[tuple[str, str, yaml.Node]]:
        """Yield (key, where, value) of a mapping; null is an empty one.

        Where the valid keys are given, a null value is as if its key were left out.
        """
        if node is None or node.tag == _NULL:
            return
        if node.tag != "tag:yaml.org,2002:map":
            self._problems.append(f"{self._where(node)}: {what} must be a mapping (`key: value`)")
            return
        self._check_twice(node)
        loader.flatten_mapping(node)  # type: ignore[arg-type]  # `<<: *anchor`; what the mapping has itself comes after
        own: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        for key, value in node.value:
            if self._is_scalar(key):
                own[key.value] = (key, value)
            else:
                self._problems.append(f"{self._where(key)}: a key of {what} is a list or a mapping, but must be a word")
        for text, (key, value) in own.items():
            where = self._where(key)
            if valid and text not in valid:
                self._problems.append(
                    f"{where}: {what} has no key {text!r}; the keys are {_listed(valid)}{did_you_mean(text, valid)}"
                )
            elif value.tag != _NULL or not valid:
                yield text, where, value

    def _check_twice(self, node: yaml.Node) -> None:
        seen: dict[str, int] = {}
        for key, _ in node.value:
            if not self._is_scalar(key):
                continue
            if key.value in seen and key.value != "<<":
                self._problems.append(f"{self._where(key)}: {key.value!r} stands here twice, first on line {seen[key.value]}")
            seen.setdefault(key.value, key.start_mark.line + 1)

    @staticmethod
    def _is_scalar(node: yaml.Node) -> bool:
        return isinstance(node.value, str)

    @staticmethod
    def _keep(found: dict[str, Any], key: str, value: object, where: str) -> None:
        if value is not None:
            found[key] = _Value(value, where)

    def _where(self, node: yaml.Node) -> str:
        return f"{self._path}:{node.start_mark.line + 1}"


# ---------------------------------------------------------------- values
def _merge(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Both, the second one's values before the first one's; mappings key by key."""
    merged = dict(first)
    for key, value in second.items():
        before = merged.get(key)
        merged[key] = _merge(before, value) if isinstance(value, dict) and isinstance(before, dict) else value
    return merged


def _inherited(name: str, raw: Mapping[str, Any]) -> dict[str, Any]:
    """A profile with what it extends; raises _ExtendsError."""
    chain = [name]
    while (extends := raw[chain[-1]].get("extends")) is not None:
        if extends.value not in raw:
            raise _ExtendsError(
                f"{extends.where}: the profile {chain[-1]!r} extends {extends.value!r}, which is none of "
                f"{_listed(raw)}{did_you_mean(extends.value, raw)}"
            )
        if extends.value in chain:
            loop = chain[chain.index(extends.value) :]
            raise _ExtendsError(f"{raw[min(loop)]['extends'].where}: these profiles extend each other: {_listed(sorted(loop))}")
        chain.append(extends.value)
    merged: dict[str, Any] = {}
    for ancestor in reversed(chain):
        merged = _merge(merged, raw[ancestor])
    return merged


class _ExtendsError(Exception):
    """A profile extends what it cannot; the text is the problem."""


def _profiles(raw: Mapping[str, Any], problems: list[str]) -> Iterator[tuple[str, Profile]]:
    for name in raw:
        try:
            values = _inherited(name, raw)
        except _ExtendsError as error:
            problems.append(str(error))
            continue
        if "system" not in values:
            problems.append(f"{values[_PLACE].where}: the profile {name!r} has no `system`; the systems are {_listed(SYSTEMS)}")
            continue
        if values["system"].value is None:
            continue
        env = {key: value.value for key, value in values.get("env", {}).items()}
        prologue = values["prologue"].value if "prologue" in values else ()
        yield name, Profile(name, values["system"].value, env, prologue)


def _origins(prefix: str, tree: Mapping[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            found |= _origins(f"{prefix}.{key}", value)
        elif key != _PLACE:
            found[f"{prefix}.{key}"] = value.where
    return found


def _directory(given: _Value | None, problems: list[str]) -> _Value:
    """Where the queues are; the value in the file is only looked at when the environment says nothing."""
    from_environment = dir_of_environment()
    if from_environment:
        return _Value(from_environment, "FSQDO_DIR")
    value = given or _Value(DEFAULT_DIR, _BUILT_IN)
    path = os.path.expanduser(os.path.expandvars(value.value))
    unset = _VARIABLE.search(path)
    if unset:
        problems.append(f"{value.where}: dir is {value.value!r}, but {unset[0]} is not set in the environment")
    elif not os.path.isabs(path):
        problems.append(f"{value.where}: dir is {value.value!r}, but must be an absolute path (or set FSQDO_DIR)")
    return _Value(os.path.normpath(path), value.where)


def _listed(words: Iterable[str]) -> str:
    return ", ".join(words)
