"""The configuration: YAML files read into one frozen `Config`; all that is wrong with them is reported at once.

Three files are read, each if it is there: `/etc/fsqdo/config.yaml` (the site's), `~/.config/fsqdo/config.yaml` (the user's,
under XDG_CONFIG_HOME where that is set), and the one that `FSQDO_CONFIG` names, which must be there. Of two values for one
key the later one counts; mappings (`profiles`, a profile, its `variables`) are merged key by key.

```yaml
dir: $SCRATCH/queues          # where the queues are; the variable FSQDO_DIR comes before it
default_profile: node
profiles:
  node:
    system: slurm
    cores_per_node: 128
    max_walltime: 24:00:00
    account: m1234
  threads:
    extends: node
    variables: {OMP_NUM_THREADS: 4}
```

`docs/config.md` has every key.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from fsqdo.configfile import PLACE, PROFILE_KEYS, File, Value, did_you_mean, listed, read_text
from fsqdo.errors import BatchError, ConfigError, InputError
from fsqdo.places import DEFAULT_DIR, config_files, dir_of_environment
from fsqdo.walltime import format_walltime

SYSTEMS = ("local", "slurm", "pbs", "torque", "sge", "lsf", "htcondor", "flux")
DEFAULT_PROFILE = "local"

_BUILT_IN = "built in"
_VARIABLE = re.compile(r"\$(?:\w+|\{[^}]*\})")
_OWN = (PLACE, "extends")  # what says where a profile comes from, and is no part of it
# Key of a profile in the files -> attribute of `Profile`, where the two differ.
_ATTRIBUTES = {"mem_per_node": "mem_per_node_mb", "max_walltime": "max_walltime_s", "env": "keep_env", "variables": "env"}


@dataclass(frozen=True)
class Profile:
    """A named way of starting workers.

    Attributes
    ----------
    system
        The batch system, one of `SYSTEMS`.
    env
        Environment variables that its workers get (`variables` in the files, where `env` says `keep_env`).
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
        Where each value comes from, by its dotted key (`dir`, `profiles.local.variables.PATH`): `file:line`, the name of an
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
                f"the profiles are {listed(self.profiles)}{did_you_mean(wanted, self.profiles)}",
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
    merged: dict[str, Any] = {"profiles": {DEFAULT_PROFILE: {"system": Value("local", _BUILT_IN)}}}
    sources = []
    readable = True
    for path, must_exist in config_files():
        content = read_text(path, must_exist, problems)
        if content is not None:
            sources.append(path)
            parsed = File(path, SYSTEMS, problems).parse(content)
            readable = readable and parsed is not None
            merged = _merge(merged, parsed or {})
    if not readable:
        raise _refusal(problems)  # what the files mean together cannot be told while one is missing
    profiles = dict(_profiles(merged["profiles"], problems))
    directory = _directory(merged.get("dir"), problems)
    default = merged.get("default_profile", Value(DEFAULT_PROFILE, _BUILT_IN))
    if default.value not in merged["profiles"]:
        names = merged["profiles"]
        problems.append(
            f"{default.where}: default_profile is {default.value!r}, which is none of the profiles "
            f"{listed(names)}{did_you_mean(default.value, names)}"
        )
    if problems:
        raise _refusal(problems)
    origins = {"dir": directory.where, "default_profile": default.where}
    origins |= _origins("profiles", {name: dict(_inherited(name, merged["profiles"])) for name in profiles})
    return Config(directory.value, default.value, profiles, tuple(sources), origins)


def _refusal(problems: list[str]) -> ConfigError:
    return ConfigError("the configuration cannot be used:", list(dict.fromkeys(problems)))


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
                f"{listed(raw)}{did_you_mean(extends.value, raw)}"
            )
        if extends.value in chain:
            loop = chain[chain.index(extends.value) :]
            raise _ExtendsError(f"{raw[min(loop)]['extends'].where}: these profiles extend each other: {listed(sorted(loop))}")
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
            problems.append(f"{values[PLACE].where}: the profile {name!r} has no `system`; the systems are {listed(SYSTEMS)}")
            continue
        if values["system"].value is None:
            continue
        if "script" in values:
            problems += _unknown_variables(values["script"], values["system"].value)
        yield name, Profile(name, **{_ATTRIBUTES.get(key, key): _plain(values[key]) for key in values if key not in _OWN})


def _unknown_variables(script: Value, system: str) -> Iterator[str]:
    """The variables of a profile's script that its batch system has not, each as a problem with its line."""
    from fsqdo.batch import JobSpec, get_system

    spec = JobSpec(name="job", queue_dir="/q", command=("worker",), output_path="/q/log", directory="/q", template=script.value)
    try:
        get_system(system).script(spec)
    except ConfigError as error:
        path, _, first = script.text_at.rpartition(":")
        for problem in error.problems:
            line, _, what = problem.removeprefix("line ").partition(": ")
            yield f"{path}:{int(first) + int(line)}: in script: {what}"
    except (BatchError, InputError):
        return  # what this job has not that others have is no matter of the script


def shown_profile(profile: Profile) -> Iterator[tuple[str, Any]]:
    """What a profile says, by the keys that it has in the files."""
    for key in PROFILE_KEYS:
        if key in _OWN:
            continue
        value = getattr(profile, _ATTRIBUTES.get(key, key))
        if key == "max_walltime" and value is not None:
            value = format_walltime(value)
        elif key == "env":
            value = "keep" if value else "clean"
        yield key, dict(value) if key == "variables" else value


def _plain(value: Any) -> Any:
    return {key: inner.value for key, inner in value.items()} if isinstance(value, dict) else value.value


def _origins(prefix: str, tree: Mapping[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            found |= _origins(f"{prefix}.{key}", value)
        elif key != PLACE:
            found[f"{prefix}.{key}"] = value.where
    return found


def _directory(given: Value | None, problems: list[str]) -> Value:
    """Where the queues are; the value in the file is only looked at when the environment says nothing."""
    from_environment = dir_of_environment()
    if from_environment:
        return Value(from_environment, "FSQDO_DIR")
    value = given or Value(DEFAULT_DIR, _BUILT_IN)
    path = os.path.expanduser(os.path.expandvars(value.value))
    unset = _VARIABLE.search(path)
    if unset:
        problems.append(f"{value.where}: dir is {value.value!r}, but {unset[0]} is not set in the environment")
    elif not os.path.isabs(path):
        problems.append(f"{value.where}: dir is {value.value!r}, but must be an absolute path (or set FSQDO_DIR)")
    return Value(os.path.normpath(path), value.where)
