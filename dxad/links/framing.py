"""Where the bytes of one message begin and end on a line that knows only bytes. No I/O: bytes in, frames out.

Ended    something stands at the end that is nowhere else: lines, delimiters, COBS, SLIP
Counted  each frame tells its size, or all have the same: a mark in front and a checksum tell where they are

Whatever comes in, what is kept for later is bounded, and each byte is part of a frame or counted as dropped.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from dxad.errors import DecodeError
from dxad.links.checksum import Check, Endian

__all__ = ["Broken", "Counted", "Ended", "Fixed", "Framer", "Kind", "Length", "uncobs", "unslip"]

_ESC: Final = b"\xdb"
_ESCAPED: Final = {0xDC: b"\xc0", 0xDD: b"\xdb"}
"""RFC 1055: what stands behind ESC for END and for ESC itself."""
_COBS_FULL: Final = 255

Kind = Literal["checksum", "overlong", "start", "stuffing", "noise"]
"""What is wrong: the checksum, the size, what marks the start, an escape; or nothing there is a frame."""


@dataclass(frozen=True, slots=True)
class Broken:
    """In place of a frame: bytes that are none, and why."""

    kind: Kind
    reason: str


Frames = list[bytes | Broken]


class Framer(ABC):
    """Finds frames in a stream of bytes that may be joined anywhere."""

    def __init__(self, check: Check | None) -> None:
        self.resyncs = 0
        """How often the start of the next frame had to be searched for."""
        self.faults: dict[str, int] = {}
        """What was found in place of frames, by its `Kind`, and how often."""
        self.dropped = 0
        """Bytes that were part of no frame; those of one that was under way when we came do not count."""
        self._check = check
        self._rest = b""
        """What may be the begin of a frame."""
        self._joined = False
        """Whether it is known where frames begin."""

    @property
    def waiting(self) -> int:
        """Bytes that are kept for later."""
        return len(self._rest)

    def join(self, *, at_begin: bool = False) -> None:
        """Begin a new stream, perhaps in the middle of a frame; `at_begin`: not so."""
        self._rest, self._joined = b"", at_begin

    def _broken(self, kind: Kind, reason: str) -> Broken:
        self.faults[kind] = self.faults.get(kind, 0) + 1
        return Broken(kind, reason)

    @abstractmethod
    def frames(self, data: bytes) -> Frames:
        """The payloads of all frames that are whole now, without their checksums, in their order."""


class Ended(Framer):
    """Frames that something ends which is nowhere in them."""

    def __init__(
        self,
        end: bytes,
        *,
        most: int,
        start: bytes = b"",
        strip: bytes = b"",
        undo: Callable[[bytes], bytes] | None = None,
        check: Check | None = None,
    ) -> None:
        """Split at `end`.

        Args:
            end: what ends a frame.
            most: bytes of a frame at most.
            start: what marks its start; what comes before is dropped.
            strip: bytes to be taken off its end.
            undo: takes out what was put in, so that `end` is nowhere in it; raises DecodeError.
            check: of its checksum.
        """
        super().__init__(check)
        self._end = end
        self._most = most
        self._start = start
        self._strip = strip
        self._undo = undo
        self._behind = check.written_size if check is not None and check.at == "behind" else 0
        self._plain = not (start or undo or check)
        self._skipping = False
        """Whether the frame that is under way is too long already."""

    def join(self, *, at_begin: bool = False) -> None:
        """Begin a new stream, perhaps in the middle of a frame; `at_begin`: not so."""
        super().join(at_begin=at_begin)
        self._skipping = False

    def frames(self, data: bytes) -> Frames:
        """The payloads of all frames that are whole now, without their checksums, in their order."""
        data = self._rest + data
        crlf = data.count(b"\r\n") if self._strip == b"\r" else 0
        stripped = bool(crlf) and crlf == data.count(b"\n") == data.count(b"\r")
        pieces = data.split(b"\r\n") if stripped else self._pieces(data)
        self._rest = pieces.pop()
        found: Frames = []
        if pieces and not self._joined:
            under_way = pieces.pop(0)
            if self._skipping:
                self.dropped += len(under_way)
            self._joined, self._skipping = True, False
        if self._strip and not stripped:
            pieces = [piece.rstrip(self._strip) for piece in pieces]
        if self._plain and pieces and max(map(len, pieces)) <= self._most:
            found += pieces if all(pieces) else filter(None, pieces)
        else:
            for piece in filter(None, pieces):
                self._take(piece, found)
        if len(self._rest) > self._most + self._behind:
            self._overlong(found)
        return found

    def _pieces(self, data: bytes) -> list[bytes]:
        if not self._behind:
            return data.split(self._end)
        pieces: list[bytes] = []
        begin = 0
        while (end := data.find(self._end, begin)) >= 0 and end + len(self._end) + self._behind <= len(data):
            after = end + len(self._end)
            pieces.append(data[begin:end] + data[after : after + self._behind])
            begin = after + self._behind
        return [*pieces, data[begin:]]

    def _overlong(self, found: Frames) -> None:
        """There is no end where one must be."""
        kept = len(self._end) - 1
        size = len(self._rest) - kept
        self.dropped += size
        if not self._skipping:
            self.resyncs += 1
        found.append(self._broken("overlong", f"no end of a frame in {size} bytes"))
        self._rest = self._rest[size:]
        self._joined, self._skipping = False, True

    def _take(self, piece: bytes, found: Frames) -> None:
        """Add what stands in front of an end: a frame's payload, or why it is none."""
        if self._start:
            before, start, content = piece.rpartition(self._start)
            if start and before:  # half a frame, or somebody's chatter
                self.resyncs += 1
                self.dropped += len(before)
                found.append(self._broken("start", f"{len(before)} bytes before the start of a frame"))
            elif not start:
                self.dropped += len(piece)
                found.append(self._broken("start", "no start of the frame"))
                return
            piece = content
        payload = self._payload(piece)
        if isinstance(payload, Broken):
            self.dropped += len(self._start) + len(piece)
        found.append(payload)

    def _payload(self, piece: bytes) -> bytes | Broken:
        if len(piece) > self._most + self._behind:
            return self._broken("overlong", f"a frame of {len(piece)} bytes")
        try:
            if self._undo is not None:
                piece = self._undo(piece)
        except DecodeError as error:
            return self._broken("stuffing", str(error))
        if self._check is None:
            return piece
        try:
            return self._check.stripped(piece, start=self._start, end=self._end if self._behind else b"")
        except DecodeError as error:
            return self._broken("checksum", str(error))


class Counted(Framer):
    """Frames whose size is known in front: a mark and a checksum tell whether there is one.

    Where there is none, the search goes on a byte later, so that a frame that has lost bytes takes no other
    with it. Without a checksum, a frame counts if nothing comes after it, or the mark of the next.
    """

    def __init__(self, *, sync: bytes, most: int, check: Check | None) -> None:
        """Look for `sync`; a frame has `most` bytes, the mark included, at most."""
        super().__init__(check)
        self._sync = sync
        self._most = most
        self._run = 0
        """Bytes dropped since the last frame, or since that was told."""
        self._why: tuple[Kind, str] | None = None
        """The first reason among those."""
        self._found: Frames = []

    def join(self, *, at_begin: bool = False) -> None:
        """Begin a new stream, perhaps in the middle of a frame; `at_begin`: not so."""
        super().join(at_begin=at_begin)
        self._run, self._why = 0, None

    @abstractmethod
    def _size(self, data: bytes, at: int) -> int | None:
        """Of the frame that begins there with its mark, in bytes; None if more must come to know it.

        Raises:
            DecodeError: none can begin there.
        """

    @abstractmethod
    def _payload(self, frame: bytes) -> bytes:
        """Without the mark, and whatever else is around it.

        Raises:
            DecodeError: its checksum is wrong.
        """

    def frames(self, data: bytes) -> Frames:
        """The payloads of all frames that are whole now, without their checksums, in their order."""
        self._found = []
        data = self._rest + data
        at = 0
        while at < len(data):
            begin = self._begin(data, at)
            self._drop(begin - at, "noise", "no start of a frame")
            at = begin
            try:
                size = self._size(data, at)
            except DecodeError as error:
                self._drop(1, "overlong", str(error))
                at += 1
                continue
            if size is None or at + size > len(data):
                break
            try:
                payload = self._payload(data[at : at + size])
            except DecodeError as error:
                self._drop(1, "checksum", str(error))
                at += 1
                continue
            if not self._followed(data, at + size):
                self._drop(1, "start", "no start of the next frame behind a frame")
                at += 1
                continue
            self._good(payload)
            at += size
        self._rest = data[at:]
        return self._found

    def _begin(self, data: bytes, at: int) -> int:
        """Where the next frame may begin: at a mark, or where one may have begun at the end."""
        found = data.find(self._sync, at)
        if found >= 0:
            return found
        for kept in range(min(len(self._sync) - 1, len(data) - at), 0, -1):
            if data.endswith(self._sync[:kept]):
                return len(data) - kept
        return len(data)

    def _followed(self, data: bytes, end: int) -> bool:
        """Whether the next frame's mark comes next, or what does matters not: the checksum was right."""
        after = data[end : end + len(self._sync)]
        return self._check is not None or self._sync.startswith(after)

    def _drop(self, size: int, kind: Kind, why: str) -> None:
        if not size:
            return
        self._run += size
        self._why = self._why or (kind, why)
        if self._joined:
            self.dropped += size
        if self._run > self._most:
            self._tell()

    def _tell(self) -> None:
        """Say what was dropped; no more than a frame is, if the stream was joined in the middle of it."""
        if self._joined or self._run > self._most:
            if not self._joined:
                self.dropped += self._run
            self._joined = True
            self.resyncs += 1
            kind, why = self._why or ("noise", "no start of a frame")
            self._found.append(self._broken(kind, f"{self._run} bytes that are no frame: {why}"))
        self._run, self._why = 0, None

    def _good(self, payload: bytes) -> None:
        if self._run:
            self._tell()
        self._joined = True
        self._found.append(payload)


class Fixed(Counted):
    """Sync, payload, checksum: as many bytes as said."""

    def __init__(self, size: int, *, sync: bytes = b"", check: Check | None = None) -> None:
        """Frames of `size` bytes, mark and checksum included."""
        super().__init__(sync=sync, most=size, check=check)
        self._whole = size

    def _size(self, data: bytes, at: int) -> int | None:  # noqa: ARG002 - it is the same everywhere
        return self._whole

    def _payload(self, frame: bytes) -> bytes:
        body = frame[len(self._sync) :]
        return body if self._check is None else self._check.stripped(body, start=self._sync)


class Length(Counted):
    """Sync, length, payload, checksum."""

    def __init__(
        self,
        size: int,
        *,
        most: int,
        endian: Endian = "big",
        sync: bytes = b"",
        counts_itself: bool = False,
        counts_checksum: bool = False,
        check: Check | None = None,
    ) -> None:
        """A length of `size` bytes.

        Args:
            size: of the length, in bytes.
            most: bytes of a payload at most; a greater length is none.
            endian: which of its bytes comes first.
            sync: what stands in front of the length, which never counts it.
            counts_itself: whether the length counts its own bytes.
            counts_checksum: whether the length counts the checksum's.
            check: of the checksum.
        """
        checked = check.written_size if check is not None else 0
        super().__init__(sync=sync, most=len(sync) + size + most + checked, check=check)
        self._length = size
        self._payload_most = most
        self._endian = endian
        self._checked = checked
        self._counted = size * counts_itself + checked * counts_checksum

    def _size(self, data: bytes, at: int) -> int | None:
        begin = at + len(self._sync)
        end = begin + self._length
        if end > len(data):
            return None
        length = int.from_bytes(data[begin:end], self._endian) - self._counted
        if not 0 <= length <= self._payload_most:
            raise DecodeError(f"a length of {length} bytes")
        return len(self._sync) + self._length + length + self._checked

    def _payload(self, frame: bytes) -> bytes:
        front, body = len(self._sync), len(self._sync) + self._length
        if self._check is None:
            return frame[body:]
        return self._check.stripped(frame[body:], start=frame[:front], front=frame[front:body])


def uncobs(data: bytes) -> bytes:
    """Take the stuffing out of a frame (S. Cheshire and M. Baker, IEEE/ACM Trans. Networking 7, 1999).

    Raises:
        DecodeError: a block ends beyond it.
    """
    out = bytearray()
    at = 0
    while at < len(data):
        end = at + data[at]
        if end > len(data) or end == at:
            raise DecodeError(f"a COBS block ends {end - len(data)} bytes beyond its frame")
        out += data[at + 1 : end]
        if data[at] < _COBS_FULL and end < len(data):
            out.append(0)
        at = end
    return bytes(out)


def unslip(data: bytes) -> bytes:
    """Take the escapes out of a frame (RFC 1055).

    Raises:
        DecodeError: something else than END and ESC is escaped.
    """
    first, *escaped = data.split(_ESC)
    return first + b"".join(map(_unescaped, escaped))


def _unescaped(piece: bytes) -> bytes:
    if not piece or piece[0] not in _ESCAPED:
        raise DecodeError("a SLIP escape of neither END nor ESC")
    return _ESCAPED[piece[0]] + piece[1:]
