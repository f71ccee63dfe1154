"""One file of the configuration, read along its YAML nodes, which know their lines; whatever is wrong in it is a problem, told.

YAML is imported only when there is a file to read: start-up is most of what a short command costs.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fsqdo.errors import InputError
from fsqdo.walltime import parse_walltime

if TYPE_CHECKING:
    import yaml

TOP_KEYS = ("dir", "default_profile", "profiles")
PLACE = ""  # where a profile itself stands, kept beside its keys

_PROFILE_NAME = re.compile(r"\w[\w.-]*\Z")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z", re.ASCII)
_COUNT = re.compile(r"[0-9]{1,9}\Z", re.ASCII)
_MEMORY = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)\s*(?:([MGT])(?:i?B)?)?\Z", re.ASCII | re.IGNORECASE)
_UNITS_MB = {"M": 1, "G": 1024, "T": 1024 * 1024}
_QUICK_CHARACTERS = 10_000
_TEXT = "tag:yaml.org,2002:str"
_LIST = "tag:yaml.org,2002:seq"
_MAP = "tag:yaml.org,2002:map"
_NULL = "tag:yaml.org,2002:null"
_YES_NO = "tag:yaml.org,2002:bool"


def did_you_mean(word: str, valid: Iterable[str]) -> str:
    """`; did you mean 'x'?` with the nearest of the valid words, or nothing."""
    from difflib import get_close_matches

    near = get_close_matches(word.lower(), list(valid), 1)
    return f"; did you mean {near[0]!r}?" if near else ""


def listed(words: Iterable[str]) -> str:
    """The words with commas between them."""
    return ", ".join(words)


def parse_memory_mb(text: str | int) -> int | None:
    """MiB from `96000`, `128G`, `1.5 TiB`; None when it is no amount of memory.

    The units are powers of 1024 however they are written, as batch systems have them.
    """
    match = None if isinstance(text, bool) else _MEMORY.match(str(text).strip())
    return (int(float(match[1]) * _UNITS_MB[(match[2] or "M").upper()]) or None) if match else None


# ---------------------------------------------------------------- files
def read_text(path: str, must_exist: bool, problems: list[str]) -> str | None:
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
class Value:
    """A checked value, where its key stands, and before which line the value itself begins: a text below it has lines."""

    value: Any
    where: str
    text_at: str = ""


class File:
    """One file, read along its syntax nodes, which know their lines. A wrong value is a problem and is left out."""

    def __init__(self, path: str, systems: tuple[str, ...], problems: list[str]) -> None:
        self._path = path
        self._systems = systems
        self._problems = problems

    def parse(self, text: str) -> dict[str, Any] | None:
        """The checked content: nested dicts, with a `Value` at each leaf; None when it is not YAML at all."""
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
        for key, where, value in self._items(loader, node, "the file", TOP_KEYS):
            if key == "profiles":
                found[key] = self._profiles(loader, value)
            elif key in TOP_KEYS:
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
        found: dict[str, Any] = {PLACE: Value(None, at)}
        for key, where, value in self._items(loader, node, f"the profile {name!r}", PROFILE_KEYS):
            if key == "variables":
                found[key] = self._variables(loader, value)
            elif key == "system":
                found[key] = Value(self._word(value, key, self._systems), where)  # None: refused, which is not absent
            elif key in PROFILE_KEYS:
                self._keep(found, key, _READERS[key](self, value, key), where, self._text_at(value))
        return found

    def _variables(self, loader: yaml.SafeLoader, node: yaml.Node) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, where, value in self._items(loader, node, "variables"):
            if not _ENV_NAME.match(name):
                self._problems.append(f"{where}: {name!r} cannot be the name of an environment variable")
            elif value.tag in (_NULL, _YES_NO):
                # YAML reads yes, on and y in ways that nobody expects in a shell
                self._problems.append(f"{where}: the value of {name} is {value.value!r}: put it in quotes")
            elif self._is_scalar(value) and "\0" not in value.value:
                found[name] = Value(value.value, where)  # as it was written: 0.10 stays 0.10
            else:
                self._problems.append(f"{where}: the value of {name} must be text (without NUL bytes)")
        return found

    # ------------------------------------------------------------ values: each None, and a problem, when it is wrong
    def _env(self, node: yaml.Node, key: str) -> bool | None:
        """Whether a job keeps the environment."""
        if node.tag == _MAP:
            self._problem(node, "env is keep or clean; environment variables stand under `variables:`, as NAME: value")
            return None
        word = self._word(node, key, ("keep", "clean"))
        return None if word is None else word == "keep"

    def _count(self, node: yaml.Node, key: str) -> int | None:
        lowest = 0 if key == "gpus_per_node" else 1
        if self._is_scalar(node) and _COUNT.match(node.value) and int(node.value) >= lowest:
            return int(node.value)
        self._problem(node, f"{key} is {self._shown(node)}, but must be a number of at least {lowest}")
        return None

    def _memory(self, node: yaml.Node, key: str) -> int | None:
        amount = parse_memory_mb(node.value) if self._is_scalar(node) else None
        if amount is not None:
            return amount
        self._problem(node, f'{key} is {self._shown(node)}, but must be memory: 96000 (MiB), "128G", "512 GiB"')
        return None

    def _walltime(self, node: yaml.Node, key: str) -> int | None:
        try:
            # As it was written: YAML itself reads 24:00:00 as a number.
            return parse_walltime(node.value if self._is_scalar(node) else "")
        except InputError as error:
            self._problem(node, f"{key} is {self._shown(node)}, but must be a walltime: {error.hint}")
            return None

    def _lines(self, node: yaml.Node, key: str) -> tuple[str, ...] | None:
        """Shell lines: a list of them, or one block of text."""
        if node.tag == _TEXT:
            items = [node]
        elif node.tag == _LIST and all(self._is_scalar(item) for item in node.value):
            items = node.value
        else:
            self._problem(node, f"{key} must be a list of shell lines")
            return None
        if any(item.tag != _TEXT or "\0" in item.value for item in items):
            self._problem(node, f"each line of {key} must be text: put it in quotes")
            return None
        return tuple(line for item in items for line in item.value.rstrip("\n").split("\n"))

    def _directives(self, node: yaml.Node, key: str) -> tuple[str, ...] | None:
        """Lines for the batch system; a line break in one would begin a line of the script."""
        if node.tag != _LIST:
            self._problem(node, f"{key} must be a list of lines")
            return None
        lines = [self._text(item, f"a line of {key}") for item in node.value]
        return None if None in lines else tuple(line for line in lines if line is not None)

    def _words(self, node: yaml.Node, key: str) -> tuple[str, ...] | None:
        """Words of a command: text, which is split as a shell does it, or a list."""
        if node.tag == _LIST:
            plain = [self._is_scalar(item) and item.tag not in (_NULL, _YES_NO) for item in node.value]
            wrong = [item for item, ok in zip(node.value, plain, strict=True) if not ok or "\0" in item.value]
            for item in wrong:
                self._problem(item, f"a word of {key} is {self._shown(item)}, but must be text: put it in quotes")
            return None if wrong else tuple(item.value for item in node.value)
        text = self._text(node, key)
        try:
            return None if text is None else tuple(shlex.split(text))
        except ValueError as error:
            self._problem(node, f"{key} is {text!r}, which is no words of a shell: {error}")
            return None

    def _script(self, node: yaml.Node, key: str) -> str | None:
        """The whole text of a job's script; whether its variables are known, only its system can tell."""
        if node.tag != _TEXT or not node.value.strip() or "\0" in node.value:
            self._problem(node, f"{key} is {self._shown(node)}, but must be the text of a job's script")
            return None
        return str(node.value)

    def _word(self, node: yaml.Node, key: str, valid: tuple[str, ...]) -> str | None:
        text = self._text(node, key)
        if text is None or text in valid:
            return text
        self._problem(node, f"{key} is {text!r}, but must be one of {listed(valid)}{did_you_mean(text, valid)}")
        return None

    def _text(self, node: yaml.Node, key: str) -> str | None:
        if node.tag == _TEXT and node.value and node.value.isprintable():
            return str(node.value)
        self._problem(node, f"{key} is {self._shown(node)}, but must be text on one line")
        return None

    def _name(self, node: yaml.Node, key: str) -> str | None:
        """Text, or a number as it was written: accounts are often numbers."""
        if self._is_scalar(node) and node.tag not in (_NULL, _YES_NO) and node.value and node.value.isprintable():
            return str(node.value)
        self._problem(node, f"{key} is {self._shown(node)}, but must be text on one line")
        return None

    # ------------------------------------------------------------ nodes
    def _problem(self, node: yaml.Node, text: str) -> None:
        self._problems.append(f"{self._where(node)}: {text}")

    def _shown(self, node: yaml.Node) -> str:
        return repr(node.value) if self._is_scalar(node) else "a list or a mapping"

    def _items(
        self, loader: yaml.SafeLoader, node: yaml.Node | None, what: str, valid: tuple[str, ...] = ()
    ) -> Iterator[tuple[str, str, yaml.Node]]:
        """Yield (key, where, value) of a mapping; null is an empty one.

        Where the valid keys are given, a null value is as if its key were left out.
        """
        if node is None or node.tag == _NULL:
            return
        if node.tag != _MAP:
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
                    f"{where}: {what} has no key {text!r}; the keys are {listed(valid)}{did_you_mean(text, valid)}"
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
    def _keep(found: dict[str, Any], key: str, value: object, where: str, text_at: str = "") -> None:
        if value is not None:
            found[key] = Value(value, where, text_at)

    def _text_at(self, node: yaml.Node) -> str:
        """The line before the first one of a value's text, which in a block is the line of its key."""
        return f"{self._path}:{node.start_mark.line + (1 if getattr(node, 'style', None) in ('|', '>') else 0)}"

    def _where(self, node: yaml.Node) -> str:
        return f"{self._path}:{node.start_mark.line + 1}"


_READERS: dict[str, Callable[[File, Any, str], object]] = {
    "extends": File._text,
    "cores_per_node": File._count,
    "gpus_per_node": File._count,
    "mem_per_node": File._memory,
    "max_walltime": File._walltime,
    "max_nodes": File._count,
    "max_jobs": File._count,
    "account": File._name,
    "queue": File._name,
    "constraint": File._name,
    "directives": File._directives,
    "prologue": File._lines,
    "epilogue": File._lines,
    "wrap": File._words,
    "mpirun": File._words,
    "env": File._env,
    "script": File._script,
}
PROFILE_KEYS = ("system", *_READERS, "variables")
