"""Server-Sent Events as a client reads them.

Source: the WHATWG HTML standard, §9.2.6 "Interpreting an event stream", https://html.spec.whatwg.org/.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

__all__ = ["Parser", "ServerSent"]

_END: Final = re.compile(rb"\r\n|\n|\r")
_MARK: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class ServerSent:
    """One of the things a server says."""

    data: str = ""
    type: str = ""
    comment: str = ""
    """What a comment says, which is no event; the others are empty then."""


class Parser:
    """Makes events of bytes, however those are cut."""

    def __init__(self) -> None:
        self.last_id: str | None = None
        """The last id that was dispatched; None before any."""
        self.retry_ms: int | None = None
        self._buffer = b""
        self._begun = False
        self._data: list[str] = []
        self._type = ""
        self._id: str | None = None

    def feed(self, chunk: bytes) -> Iterator[ServerSent]:
        """What has become whole with these bytes."""
        self._buffer += chunk
        if not self._begun:
            if _MARK.startswith(self._buffer[:3]) and len(self._buffer) < len(_MARK):
                return
            self._begun = True
            self._buffer = self._buffer.removeprefix(_MARK)
        start = 0
        for end in _END.finditer(self._buffer):
            if end[0] == b"\r" and end.end() == len(self._buffer):
                break  # the rest of the line's end may be under way
            found = self._line(self._buffer[start : end.start()].decode(errors="replace"))
            start = end.end()
            if found is not None:
                yield found
        self._buffer = self._buffer[start:]

    def _line(self, line: str) -> ServerSent | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "":
                return ServerSent(comment=value)
            case "data":
                self._data.append(value)
            case "event":
                self._type = value
            case "id" if "\0" not in value:
                self._id = value
            case "retry" if value.isascii() and value.isdigit():
                self.retry_ms = int(value)
        return None

    def _dispatch(self) -> ServerSent | None:
        self.last_id = self._id
        found = ServerSent("\n".join(self._data), self._type) if self._data else None
        self._data, self._type = [], ""
        return found
