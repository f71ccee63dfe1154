"""Script templates, through a real shell: a value comes out as it went in, and is never taken for anything but a value."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fsqdo.errors import InputError, TemplateError
from fsqdo.task import command_from
from fsqdo.template import expand

HOSTILE = [
    "",
    " ",
    "a b",
    "'",
    '"',
    "''",
    "'; touch pwned; '",
    '"; touch pwned; "',
    "$(touch pwned)",
    "`touch pwned`",
    "\\",
    "\\'; touch pwned; #",
    "\n",
    "x\ntouch pwned\n",
    "; touch pwned",
    "&& touch pwned",
    "| touch pwned",
    "> pwned",
    "$HOME",
    "${HOME}",
    "*",
    "~",
    "!!",
    "#x",
    "-n",
    "%s",
    "{a}",
    "{{",
    "}}",
    "{a.__class__}",
    "é日本\U0001f600",
    "\t\v\x01\x7f",
    "x" * 5000,
    "EOF\ntouch pwned\nEOF",
    "a[$(touch pwned)]",
    "*)touch pwned;;",
]
texts = st.sampled_from(HOSTILE) | st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=40)
values = st.dictionaries(st.from_regex(r"[a-z_]{1,6}", fullmatch=True), texts, min_size=1, max_size=5)


def run(script: str, cwd: Path) -> bytes:
    """What a script prints."""
    return subprocess.run(
        ["/bin/sh", "-c", script], cwd=cwd, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, check=True
    ).stdout


@given(values)
def test_values_come_out_of_the_shell_as_they_went_in(tmp_path: Path, given_: dict[str, str]) -> None:
    script = "printf '%s\\000' " + " ".join(f"{{{key}}}" for key in given_)
    out = run(expand(script, given_), tmp_path)
    assert out == b"".join(value.encode() + b"\0" for value in given_.values())
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize(
    "script", ["printf %s x{a}y", "printf %s --name={a}", 'x={a}; printf %s "x${{x}}y" ', "printf %s $(printf %s x{a}y)"]
)
def test_hostile_values_in_words(tmp_path: Path, script: str, value: str) -> None:
    out = run(expand(script, {"a": value}), tmp_path).decode()
    if "$(printf" not in script:  # an unquoted substitution splits into words and drops newlines, as it does for everything
        assert out in (f"x{value}y", f"--name={value}")
    assert [p.name for p in tmp_path.iterdir() if p.name == "pwned"] == []


PIECES = st.sampled_from(
    [
        "{a}",
        "{b}",
        "'",
        '"',
        "`",
        "\\",
        "$",
        "$(",
        ")",
        "((",
        "))",
        "${{x:-",
        "}}",
        "#",
        " # ",
        "\n",
        " ",
        "<<EOF\n",
        "EOF\n",
        ";",
        "|",
        "&&",
        "echo ",
        "printf %s ",
        "x=",
        "[",
        "]",
        "case ",
        " in ",
        "*) ",
        ";;",
        "esac",
        "{{ ",
        ";}}",
        "if ",
        "then ",
        "fi",
        "~",
        "!",
        "-",
        ":",
    ],
)


@settings(max_examples=600)
@given(st.lists(PIECES, min_size=1, max_size=9).map("".join), st.sampled_from(HOSTILE), st.sampled_from(HOSTILE))
@example('echo "{a}"', "$(touch pwned)", "")
@example("echo '{a}'", "'; touch pwned; '", "")
@example("echo `echo {a}`", "`touch pwned`", "")
@example("echo # {a}", "x\ntouch pwned\n", "")
@example("cat <<EOF\n{a}\nEOF\n", "$(touch pwned)", "")
@example("echo \\{a}", "; touch pwned", "")
@example("echo ${a}", "\\'; touch pwned; #", "")
@example('echo "$(echo "{a}")"', "$(touch pwned)", "")
@example("echo $(( {a} ))", "a[$(touch pwned)]", "")
@example("echo {a}{b}", "'", "$(touch pwned)")
def test_no_place_in_any_script_lets_a_value_run(tmp_path: Path, script: str, a: str, b: str) -> None:
    try:
        command = expand(script, {"a": a, "b": b})
    except TemplateError:
        return
    subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=20,
        check=False,
    )
    assert not (tmp_path / "pwned").exists(), command


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("analyze -a {a} -b {b}", "analyze -a 1 -b 'x y'"),
        ("awk '{{print $1}}' {b}", "awk '{print $1}' 'x y'"),
        ("plain", "plain"),
        ("", ""),
        ("{d}", "'{\"e\": [1, null]}'"),
        ("{t} {n} {f}", "true null 1.5"),
        ("{dotted.key}", "v"),
        ('echo "it\'s" {a}', 'echo "it\'s" 1'),
        ("echo \\\\ {a} # done", "echo \\\\ 1 # done"),
        ("# first\necho {a}", "# first\necho 1"),
        ("echo a#{a}", "echo a#1"),
    ],
)
def test_expansion(script: str, expected: str) -> None:
    values = {"a": 1, "b": "x y", "d": {"e": [1, None]}, "t": True, "n": None, "f": 1.5, "dotted.key": "v"}
    assert expand(script, values) == expected


@pytest.mark.parametrize(
    "script",
    [
        "{a.__class__}",
        "{a[0]}",
        "{a!r}",
        "{a!s}",
        "{a:>1000000000}",
        "{a:{b}}",
        "{}",
        "{0}",
        "{a",
        "a}",
        "{ a }",
        "{a.b.c}",
        "{a!}",
        "{{{a}}",
        "{a.__init__.__globals__}",
        "{:}",
        "{!r}",
        "{self}",
    ],
)
def test_format_tricks_are_refused(script: str) -> None:
    with pytest.raises(TemplateError):
        expand(script, {"a": "x", "b": "3"})


@pytest.mark.parametrize(
    "script",
    [
        '"{a}"',
        "'{a}'",
        "`{a}`",
        "\\{a}",
        "${a}",
        "# {a}",
        "<<E\n{a}\nE",
        "$(( {a} ))",
        '"$(f "{a}")"',
        "${{x:-{a}}}",
        "x '",
    ],
)
def test_places_without_protection_are_refused(script: str) -> None:
    if "{a}" in script:
        with pytest.raises(TemplateError, match=r"\{a\}"):
            expand(script, {"a": "x"})
    else:
        assert expand(script, {"a": "x"}) == script


def test_missing_key_lists_the_keys_there_are() -> None:
    with pytest.raises(TemplateError, match=r"\{c\}.*has a, b"):
        expand("x {c}", {"b": 1, "a": 2})
    with pytest.raises(TemplateError, match="no keys"):
        expand("x {c}", {})


@pytest.mark.parametrize("value", ["a\0b", "\ud800"])
def test_what_no_command_can_be_given(value: str) -> None:
    with pytest.raises(TemplateError):
        expand("{a}", {"a": value})


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5), st.lists, max_leaves=5
    )
)
def test_other_values_are_json(value: Any) -> None:
    if not isinstance(value, str):
        assert json.loads(subprocess_words(expand("{a}", {"a": value}))[0]) == value


def subprocess_words(text: str) -> list[str]:
    """The words of a command line, as the shell would split it."""
    import shlex

    return shlex.split(text)


def test_command_from_each_kind_of_task() -> None:
    assert command_from("blat.dat x", "./run.sh") == "./run.sh blat.dat x"
    assert command_from({"a": "it's"}, "f {a}") == """f 'it'"'"'s'"""
    assert command_from([1, "a b"], "f") == "f '[1, \"a b\"]'"
    assert command_from(17, "f") == "f 17"


def test_errors_are_no_input_errors() -> None:
    """A template that does not fit a task fails that task, not the worker's command line."""
    assert not issubclass(TemplateError, InputError)
