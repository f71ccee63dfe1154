"""Reading what is to be loaded: many lines at once, as if each were read by itself."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fsqdo
from fsqdo.errors import InputError
from fsqdo.inputs import Commands, Lines, flat

LINES = st.lists(st.sampled_from(["", " ", "a", "# no", " b ", "c #d", "\x0be\x85f", "g\x1ch", "\ufeffi", "é", "j\r", "k\0"]))


def one_by_one(text: str) -> list[str]:
    """What the lines of a text are, the plain way."""
    lines = (line.strip() for line in text.removeprefix("\ufeff").split("\n"))
    return [line for line in lines if line and not line.startswith("#")]


@given(LINES, st.booleans(), st.sampled_from([1, 3, 1 << 18]))
def test_commands_are_the_lines_of_a_text(lines: list[str], newline: bool, together: int) -> None:
    text = "\n".join(lines) + "\n" * newline
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fsqdo.inputs._BYTES", together)
        patch.setattr("fsqdo.inputs._LINES", together)
        assert list(flat(Lines(BytesIO(text.encode()), "text"))) == one_by_one(text)
        assert list(flat(Lines([line.encode() for line in text.split("\n")], "text"))) == one_by_one(text)


@given(LINES, st.sampled_from([1, 3, 1 << 18]))
def test_each_task_is_found_again_by_its_line(lines: list[str], together: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fsqdo.inputs._BYTES", together)
        read = Lines(BytesIO("\n".join(lines).encode()), "text")
        tasks = list(flat(read))
    places = [int(read.where(number).removeprefix("text, line ")) for number in range(1, len(tasks) + 1)]
    assert [lines[place - 1].removeprefix("\ufeff" * (place == 1)).strip() for place in places] == tasks
    assert places == sorted(set(places))


def test_what_is_checked_together_has_no_nul() -> None:
    assert [type(found) for found in Lines(BytesIO(b"a\nb\n"), "text")] == [Commands]
    assert list(Lines(BytesIO(b"a\nb\0\n"), "text")) == ["a", "b\0"]


@pytest.mark.parametrize("bad", [1, 2, 1000, 70_000])
def test_a_line_that_is_not_utf8_is_named(bad: int) -> None:
    lines = [b"analyze\n"] * 80_000
    lines[bad - 1] = b"x\xff\n"
    with pytest.raises(InputError, match=f"^text, line {bad} is not UTF-8: invalid start byte at byte 2; convert it"):
        list(Lines(BytesIO(b"".join(lines)), "text"))


def test_a_bad_command_among_many_is_named_and_nothing_is_loaded(root: Path) -> None:
    queue = fsqdo.create("Q")
    with pytest.raises(InputError, match=r"^the input, line 3003: the command .b.*has a NUL byte"):
        queue.loadfile(BytesIO(b"# many\n\n" + b"a\n" * 3000 + b"b\0\n" + b"c\n" * 3000))
    assert queue.status()["ntasks"]["Pending"] == 0


def test_dedupe_and_lists_of_requirements_see_each_command(root: Path) -> None:
    queue = fsqdo.create("Q")
    first = queue.loadfile(BytesIO(b"a\nb\na\n"), dedupe=True)
    assert [task.task for task in queue.tasks()] == ["a", "b"]
    assert len(queue.loadfile(BytesIO(b"b\nc\n"), dedupe=True)) == 1
    more = queue.loadfile(BytesIO(b"d\ne\n"), requires=[[first[0]], [first[1]]])
    assert [list(queue.task(task_id).requires) for task_id in more] == [[first[0]], [first[1]]]
