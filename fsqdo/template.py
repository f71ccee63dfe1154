"""Script templates: `analyze -a {a} -b {b}` filled in from an object task, every value quoted for the shell. Pure."""

from __future__ import annotations

import json
import shlex
import string
from collections.abc import Mapping
from typing import Any

from fsqdo.errors import TemplateError


def expand(script: str, values: Mapping[str, Any]) -> str:
    """Fill in `{key}`; `{{` and `}}` stand for braces.

    Strings are put in as they are, everything else as JSON, each quoted as one word (or part of one) of the shell.

    Raises
    ------
    TemplateError
        When a key is missing, a field is anything but a plain key, or it stands where quotes do not protect: in quotes
        of the script's own, a comment, a here-document, an arithmetic expression.
    """
    try:
        pieces = list(string.Formatter().parse(script))
    except ValueError as error:
        raise TemplateError(f"the script {script!r} is not a template: {error}", "write {{ and }} for plain braces") from None
    text = before = ""
    for literal, key, form, conversion in pieces:
        text += literal
        before += literal
        if key is None:
            continue
        if form or conversion or not key or (key not in values and any(c in key for c in ".[]")):
            raise TemplateError(
                f"{{{key}{'!' + conversion if conversion else ''}{':' + form if form else ''}}} in the script is not allowed",
                "only plain keys are: {key}; write {{ and }} for plain braces",
            )
        if key not in values:
            raise TemplateError(f"the script needs {{{key}}}, which this task does not have; it has {_keys(values)}")
        place = _unsafe_place(before)
        if place:
            raise TemplateError(
                f"{{{key}}} in the script stands {place}, where no value can be quoted safely",
                "values are quoted already: leave away the quotes around it, or hand it over as an argument",
            )
        before += "x"
        value = values[key]
        text += shlex.quote(value if isinstance(value, str) else json.dumps(value))
    if "\0" in text:
        raise TemplateError("a value of this task has a NUL byte in it, which no command can be given")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise TemplateError("a value of this task is not text that UTF-8 can hold, and no command can be given it") from None
    return text


def _unsafe_place(before: str) -> str:
    """What is wrong with putting a single-quoted value after this beginning of a shell script; empty when nothing is."""
    quote, at, word_begins = "", 0, True
    while at < len(before):
        char = before[at]
        two = before[at : at + 2]
        if char == "\\" and quote != "'":
            at += 1
            if at == len(before):
                return "after a backslash"
        elif quote == '"' and (two == "$(" or char == "`"):
            return "after a command substitution in quotes"
        elif quote:
            quote = "" if char == quote else quote
        elif char in "'\"`":
            quote = char
        elif char == "#" and word_begins:
            end = before.find("\n", at)
            if end < 0:
                return "in a comment"
            at = end
        elif two in ("<<", "${"):
            return f"after {two}"
        word_begins = before[at : at + 1] in (" ", "\t", "\n", ";", "&", "|", "(", ")", "<", ">")
        at += 1
    if quote:
        return f"inside {quote}"
    if before.endswith("$"):
        return "after $"
    return "in an arithmetic expression" if before.rfind("$((") > before.rfind("))") else ""


def _keys(values: Mapping[str, Any]) -> str:
    return ", ".join(sorted(map(str, values))) or "no keys"
