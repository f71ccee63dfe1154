"""How many tasks the names of a directory stand for: whole listings at once, since a status is little more than those. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import lru_cache

from fsqdo.names import parse_marker, parse_shard, parse_task

# Whole directories at once, each name between two slashes, which cannot be in them. There is but one way in which a name can
# match, so one that does not costs no more.
_ENTRIES = re.compile(
    r"(?:/[0-9]{9,18}(?:\.(?:[rfispm][0-9]{1,9})+)?(?:\.json|@(?!\.json/)[A-Za-z0-9_.-]+)/"
    r"|/[0-9]{9,18}-[0-9]{9,18}(?:[.@][^/]*)?\.pack/)*"
)
_MARKERS = re.compile(r"(?<![^/])([0-9]{9})-([0-9]{9})\.pack(?=/)")
_COUNTS = re.compile(r"(?<![^/])[0-9]{6,15}\.p[0-9]{1,9}\.n([0-9]{1,9})\.jsonl(?=/)")

_FEW = 16
_KINDS = 6  # of names in a directory: the tasks of each worker are one
_SAME_DIGIT = {ord(digit): "0" for digit in "123456789"}


def size_of(files: Collection[str], spent: str = "") -> int:
    """Number of tasks that the names of a directory stand for, as `parse_entry` reads them; but for the marker `spent`.

    Where all are as they usually are, a few expressions see so at once: a status is little more than its listings.
    """
    # Each name between two slashes, which no name has in it: so what is looked for is nothing but a whole name.
    text = f"/{'//'.join(files)}/"
    tasks, others = _count_alike(text)
    if ".json/" in others:  # too many kinds of names
        others = text
        if _ENTRIES.fullmatch(text) is not None:
            tasks = text.count(".json/")
        else:
            tasks = sum(parse_task(file) is not None for file in files if file.endswith(".json"))
    if not others:
        return tasks
    few = others.count(".pack/") < _FEW
    markers = _ending_in_pack(text) if few else [file for file in files if file.endswith(".pack")]
    plain = _MARKERS.findall("/".join(markers) + "/")
    if len(plain) == len(markers) and spent not in markers and all(first <= last for first, last in plain):
        return tasks + sum(int(last) - int(first) + 1 for first, last in plain)
    return tasks + sum(pack.size for file in markers if file != spent and (pack := parse_marker(file)) is not None)


def _count_alike(text: str) -> tuple[int, str]:
    """Number of names of tasks' files, where these are alike but for their digits; and what is left of the text without them.

    Which digit it is makes no difference to whether a name is one, so a kind is read once and its names are only counted.
    Where there are too many kinds, some are left.
    """
    text = text.translate(_SAME_DIGIT)
    tasks = 0
    for _ in range(_KINDS):
        end = text.find(".json/")
        if end < 0:
            break
        kind = text[text.rfind("/", 0, end) : end + len(".json/")]
        others = text.replace(kind, "")
        if _is_task(kind[1:-1]):
            tasks += (len(text) - len(others)) // len(kind)
        text = others
    return tasks, text


@lru_cache(maxsize=64)
def _is_task(name: str) -> bool:
    return parse_task(name) is not None


def _ending_in_pack(text: str) -> list[str]:
    """Those of some names, each between two slashes, that end in .pack: there are few."""
    found, end = [], text.find(".pack/")
    while end >= 0:
        found.append(text[text.rfind("/", 0, end) + 1 : end + len(".pack")])
        end = text.find(".pack/", end + 1)
    return found


def size_of_packed(files: Collection[str]) -> tuple[int, list[str]]:
    """Number of tasks in the packed shards among the names of a final state; and the other names."""
    packed = [file for file in files if file.endswith(".jsonl")]
    counts = _COUNTS.findall("/".join(packed) + "/")
    if len(counts) == len(packed):
        return sum(map(int, counts)), [file for file in files if not file.endswith(".jsonl")]
    known = [(file, parse_shard(file)) for file in files]
    total = sum(parsed.tasks for _, parsed in known if parsed is not None and parsed.tasks is not None)
    return total, [file for file, parsed in known if parsed is None or parsed.tasks is None]
