"""Frames: where the bytes of one message begin and end on a line that knows only bytes.

line, delimiter   payload, check, ending
nmea              $, talker and comma, payload, *HH, CR LF                          NMEA 0183, section 5.3
fixed             sync, payload, check: always as many bytes as said
length            sync, length, payload, check
cobs              payload and check without zero bytes, then a zero byte            S. Cheshire and M. Baker,
                  "Consistent Overhead Byte Stuffing", IEEE/ACM Trans. Networking 7, 1999
slip              END, payload and check with END and ESC escaped, END              RFC 1055
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Final

from cobs import cobs

from hw_sim.serial.checksum import Check, Endian

__all__ = ["Cobs", "Ended", "Fixed", "Framing", "Length", "Slip"]

_END: Final = b"\xc0"
_ESC: Final = b"\xdb"


@dataclass(frozen=True, slots=True, kw_only=True)
class Framing(ABC):
    """How a device frames its payloads."""

    check: Check | None = None
    ending: bytes = b""
    """What tells a reader that the frame is over; nothing where it counts bytes."""

    @abstractmethod
    def frame(self, payload: bytes, wrong: int = 0) -> bytes:
        """The frame of a payload; the bits of `wrong` are flipped in its checksum."""

    def unended(self, frame: bytes) -> bytes:
        """A frame without what separates it from the next."""
        return frame.removesuffix(self.ending)

    def stretched(self, payload: bytes, more: bytes, wrong: int = 0) -> bytes:
        """A frame that has more in it than it should."""
        return self.frame(payload + more, wrong)

    @property
    def checked(self) -> int:
        """How many bytes the checksum takes."""
        return self.check.written_size if self.check else 0

    def _checked(self, front: bytes, payload: bytes, wrong: int) -> bytes:
        """What stands in front, the payload and the checksum."""
        check = self.check
        if check is None:
            return front + payload
        return front + payload + check.written(front + payload if check.front else payload, wrong)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended(Framing):
    """Something stands at the end that no payload has in it: `line`, `delimiter` and `nmea`."""

    start: bytes = b""
    """What stands at the beginning, which no checksum counts."""
    lead: bytes = b""
    """The part of each payload that never changes."""

    def frame(self, payload: bytes, wrong: int = 0) -> bytes:
        """Start, lead, payload, checksum and ending."""
        return self.start + self._checked(b"", self.lead + payload, wrong) + self.ending


@dataclass(frozen=True, slots=True, kw_only=True)
class Fixed(Framing):
    """All frames are of one size, checksum included; without `sync`, only counting tells them apart."""

    size: int
    sync: bytes = b""
    filler: bytes = b"\0"
    """What fills up a short payload."""
    overflow: bytes = b"*"
    """What stands all over a payload that does not fit, as on a display that is too small."""

    def frame(self, payload: bytes, wrong: int = 0) -> bytes:
        """Sync, payload and checksum."""
        room = self.size - len(self.sync) - self.checked
        fits = payload.ljust(room, self.filler) if len(payload) <= room else self.overflow * room
        return self._checked(self.sync, fits, wrong)

    def stretched(self, payload: bytes, more: bytes, wrong: int = 0) -> bytes:
        """A frame, and more."""
        return self.frame(payload, wrong) + more

    def unended(self, frame: bytes) -> bytes:
        """A frame without its sync, or else without its last byte."""
        return frame.removeprefix(self.sync) if self.sync else frame[:-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Length(Framing):
    """The length stands in front; one that is too long for its bytes wraps, as in firmware."""

    size: int
    """Of the length, in bytes."""
    endian: Endian = "big"
    sync: bytes = b""
    counts_itself: bool = False
    counts_checksum: bool = False

    def frame(self, payload: bytes, wrong: int = 0) -> bytes:
        """Sync, length, payload and checksum."""
        counted = len(payload) + self.size * self.counts_itself + self.checked * self.counts_checksum
        length = (counted % (1 << 8 * self.size)).to_bytes(self.size, self.endian)
        return self._checked(self.sync + length, payload, wrong)

    def unended(self, frame: bytes) -> bytes:
        """A frame without its sync and length."""
        return frame[len(self.sync) + self.size :]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cobs(Framing):
    """No byte of a frame is zero but the last."""

    ending: bytes = b"\0"

    def frame(self, payload: bytes, wrong: int = 0) -> bytes:
        """The stuffed payload and checksum, and a zero byte."""
        stuffed: bytes = cobs.encode(self._checked(b"", payload, wrong))
        return stuffed + self.ending


@dataclass(frozen=True, slots=True, kw_only=True)
class Slip(Framing):
    """END stands at the end, and nowhere inside."""

    ending: bytes = _END
    start: bytes = _END
    """END as well, which ends what noise there was on the line; or nothing."""

    def frame(self, payload: bytes, wrong: int = 0) -> bytes:
        """The escaped payload and checksum between two END."""
        plain = self._checked(b"", payload, wrong)
        return self.start + plain.replace(_ESC, b"\xdb\xdd").replace(_END, b"\xdb\xdc") + self.ending

    def unended(self, frame: bytes) -> bytes:
        """A frame without its END, neither in front nor behind."""
        return frame.removeprefix(self.start).removesuffix(self.ending)
