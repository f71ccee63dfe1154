"""How time and values are written in every JSON file."""

from __future__ import annotations

import json
import time
from functools import lru_cache
from json.encoder import encode_basestring_ascii as quote_json

from fsqdo.errors import InputError, short

__all__ = ["encode_json", "quote_json", "utc_now", "utc_text"]


def utc_now() -> str:
    """This instant, ISO 8601 UTC to the second, as it stands in every JSON file."""
    return utc_text(int(time.time()))


@lru_cache(maxsize=2)
def utc_text(second: int) -> str:
    """A second since 1970, likewise; a thousand tasks a second share the text."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(second))


def encode_json(value: object) -> str:
    """JSON on one line.

    Raises
    ------
    InputError
        When the value has no JSON form.
    """
    try:
        return json.dumps(value, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{short(value)} is not JSON-able: {error}") from None
