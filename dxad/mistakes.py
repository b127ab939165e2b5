"""What is wrong with a value of a configuration or of a request, and what is right, in words."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from dxad.quantity import bounded

__all__ = ["CHANNEL", "CHANNELS", "IDENTIFIER", "explained"]

_NAME: Final = r"(?:[A-Za-z0-9_*?\[\]!-]|\{each\})+"
IDENTIFIER: Final = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"
CHANNEL: Final = r"^[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9][A-Za-z0-9_-]*)+$"
CHANNELS: Final = rf"^{_NAME}(\.{_NAME})+$"
_RIGHT: Final[Mapping[str, str]] = {
    IDENTIFIER: "a name has letters, digits, _ and -, 64 at most",
    CHANNEL: "a channel is source.name",
    CHANNELS: "a channel is source.name, where * and ? stand for others",
}
"""What each pattern means, for who has written something else."""
_BOUNDS: Final = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}


def explained(
    error: ValidationError, fields: Mapping[str, FieldInfo], value: Any
) -> Iterator[InitErrorDetails]:
    """The mistakes that were found in `value`, which should have had `fields`."""
    for each in error.errors(include_url=False):
        written = _at(value, each["loc"])
        if each["type"] == "too_short" and len(written or ()) >= each["ctx"]["min_length"]:
            continue  # what is missing is what is told to be wrong
        yield {
            "type": PydanticCustomError("config", "{text}", {"text": _text(each, fields, written)}),
            "loc": each["loc"],
            "input": each["input"],
        }


def _text(error: ErrorDetails, fields: Mapping[str, FieldInfo], written: Any) -> str:
    kind, place = error["type"], error["loc"]
    text: str | None = None
    if kind in _BOUNDS and isinstance(written, str):
        key, words = _BOUNDS[kind]
        bound = bounded(written, int(error["ctx"][key]))
        text = f"{written!r} is not {words} {bound}" if bound else None
    elif kind == "string_pattern_mismatch":
        right = _RIGHT.get(error["ctx"]["pattern"])
        if right is None and len(place) == 1 and str(place[0]) in fields:
            right = fields[str(place[0])].description
        text = f"{error['input']!r} is not right: {right}" if right else None
    elif kind == "too_short":
        least = error["ctx"]["min_length"]
        text = f"wants at least {least} item{'s' if least > 1 else ''}"
    elif kind == "extra_forbidden" and len(place) == 1:
        close = difflib.get_close_matches(str(place[0]), fields, 1)
        instead = f", did you mean {close[0]!r}?" if close else f"; known here: {', '.join(fields)}"
        text = f"unknown key{instead}"
    elif kind == "missing":
        text = "is missing"
    return text or error["msg"].removeprefix("Value error, ")


def _at(value: Any, keys: Sequence[int | str]) -> Any:
    """What was written at a place; None if there is nothing, or it cannot be told."""
    for key in keys:
        try:
            value = value[key]
        except (TypeError, LookupError):
            return None
    return value
