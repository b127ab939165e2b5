"""The line of every key of a TOML text, which `tomllib` does not tell.

The scanner may assume what `tomllib` has accepted: it only has to find its way, not to judge.
Source of the grammar: https://toml.io/en/v1.0.0.
"""

import bisect
import re
import tomllib
from typing import Any

__all__ = ["Key", "assignment", "locate"]

Key = tuple[str | int, ...]
"""A path into the document: names of tables and keys, and places in arrays."""

_PART = r"""(?:[A-Za-z0-9_-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*')"""
_KEY = re.compile(rf"{_PART}(?:[ \t]*\.[ \t]*{_PART})*")
_BLANK = re.compile(r"(?:\s|#[^\n]*)*")
_STRING = re.compile(
    r'''"""(?:[^\\]|\\.)*?"{3,5}|\'\'\'.*?'{3,5}|"(?:[^"\\\n]|\\.)*"|'[^'\n]*\'''', re.DOTALL
)
_SCALAR = re.compile(r"[^\s,\]}#]+(?:[ ]\d\d:[^\s,\]}#]+)?")  # a date may have one space in it


def locate(text: str) -> dict[Key, int]:
    """The line, from 1, of every table, key and array element of a text that `tomllib` has accepted."""
    return _Scanner(text).document()


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._breaks = [found.start() for found in re.finditer("\n", text)]
        self._lines: dict[Key, int] = {}
        self._arrays: dict[Key, int] = {}
        """The place of the newest element of each array of tables."""

    def document(self) -> dict[Key, int]:
        table: Key = ()
        self._skip_blank()
        while self._at < len(self._text):
            if self._text[self._at] == "[":
                table = self._header()
            else:
                self._pair(table)
            self._skip_blank()
        return self._lines

    def _header(self) -> Key:
        start, double = self._at, self._text.startswith("[[", self._at)
        self._at += 2 if double else 1
        self._skip_blank()
        raw = self._key()
        end, self._at = self._at, start
        if double:
            array = (*self._resolve(raw[:-1]), raw[-1])
            self._note(array)
            self._arrays[array] = self._arrays.get(array, -1) + 1
            table: Key = (*array, self._arrays[array])
        else:
            table = self._resolve(raw)
        self._note(table)
        self._at = self._text.index("]", end) + (2 if double else 1)
        return table

    def _resolve(self, key: Key) -> Key:
        """Where an array of tables stands on the way, its newest element is meant."""
        resolved: Key = ()
        for part in key:
            resolved = (*resolved, part)
            if resolved in self._arrays:
                resolved = (*resolved, self._arrays[resolved])
        return resolved

    def _pair(self, table: Key) -> None:
        start = self._at
        key = (*table, *self._key())
        end, self._at = self._at, start
        self._note(key)
        self._at = end
        self._skip_blank()
        self._at += 1  # the "="
        self._skip_blank()
        self._value(key)

    def _value(self, key: Key) -> None:
        self._lines.setdefault(key, self._line())
        opening = self._text[self._at]
        if opening in "[{":
            self._collection(key, "]" if opening == "[" else "}")
            return
        found = _STRING.match(self._text, self._at) or _SCALAR.match(self._text, self._at)
        assert found is not None
        self._at = found.end()

    def _collection(self, key: Key, closing: str) -> None:
        place = 0
        self._at += 1
        self._skip_blank()
        while self._text[self._at] != closing:
            if closing == "]":
                self._value((*key, place))
            else:
                self._pair(key)
            place += 1
            self._skip_blank()
            if self._text[self._at] == ",":
                self._at += 1
                self._skip_blank()
        self._at += 1

    def _key(self) -> Key:
        found = _KEY.match(self._text, self._at)
        assert found is not None
        self._at = found.end()
        node: Any = tomllib.loads(f"{found[0]} = 0")  # quotes and escapes are tomllib's business
        parts: list[str] = []
        while isinstance(node, dict):
            name, node = next(iter(node.items()))
            parts.append(name)
        return tuple(parts)

    def _note(self, key: Key) -> None:
        for length in range(1, len(key) + 1):
            self._lines.setdefault(key[:length], self._line())

    def _line(self) -> int:
        return bisect.bisect_left(self._breaks, self._at) + 1

    def _skip_blank(self) -> None:
        found = _BLANK.match(self._text, self._at)
        assert found is not None
        self._at = found.end()


def assignment(text: str) -> tuple[tuple[str, ...], Any]:
    """The path and the value of `dotted.key=value`, TOML but for strings, which may stand without quotes.

    Raises:
        ValueError: it is none.
    """
    key, sign, value = text.partition("=")
    if not sign or not key.strip():
        raise ValueError("wants KEY=VALUE")
    path: list[str] = []
    found: Any = tomllib.loads(f"{key.strip()} = 0")
    while isinstance(found, dict):
        name, found = next(iter(found.items()))
        path.append(name)
    try:
        read = tomllib.loads(f"value = {value.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        read = value.strip()
    return tuple(path), read
