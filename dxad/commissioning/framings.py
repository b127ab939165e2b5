"""Where messages begin and end in the bytes of a line, and what proves them whole. Pure.

    bytes ─▶ ways to cut them, by what each would leave behind ─▶ cut by the source's own framers ─▶ the best

What ends a frame      a byte that comes again and again: lines, delimiters, COBS, SLIP
What has a length      a chain of lengths that leads from frame to frame
What has a fixed size  bytes that come again after so many

A checksum that proves the frames outweighs everything; then text that a decoder reads; then structure.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter

from dxad.commissioning.checksums import KINDS, checksum_of, proven, size_of
from dxad.commissioning.payloads import Payload, payload_of
from dxad.errors import DecodeError
from dxad.links.framing import Broken, uncobs, unslip
from dxad.octets import octets_written
from dxad.sources.serial.framing import ChecksumSection, Framing, FramingSection

__all__ = ["Cut", "best_cut"]

_LOOKED_AT: Final = 16_384
"""Bytes, the newest."""
_LEAST: Final = 3
"""Frames."""
_WHOLE: Final = 0.8
"""The share of the bytes that must be in frames."""
_ENDS: Final = (b"\x03", b"\x04", b"\x1e", b"\x1f", b"\x17", b"\r", b"\0", b";", b"|", b">", b"#", b"\x0c")
"""What ends messages of text, other than lines."""
_SENSE: Final = 0.35
"""Less than this, chance does."""
_PROVEN: Final = 0.65
_LONGEST: Final = 1024
_PERIODS: Final = range(2, 257)
_LINKS: Final = 5
_OVERHEAD: Final = 12
_BEGINS: Final = 600
"""Bytes in which the first frame must begin."""
_FRAMING: Final[TypeAdapter[FramingSection]] = TypeAdapter(Framing)


@dataclass(slots=True)
class Cut:
    """A way to cut the bytes."""

    framing: dict[str, Any]
    checksum: dict[str, Any] | None
    payloads: list[bytes] = field(default_factory=list)
    share: float = 0.0
    """Of the bytes that are in frames."""
    worth: float = 0.0
    """0 to 1: how sure it is."""
    payload: Payload = field(default_factory=lambda: Payload("unknown"))

    @property
    def proven(self) -> bool:
        """Whether it is more than a guess: a checksum or text that is read says so."""
        return self.worth >= _PROVEN

    @property
    def settings(self) -> dict[str, Any]:
        """What a configuration says of it."""
        made: dict[str, Any] = {}
        if self.framing != {"kind": "line"}:
            made["framing"] = self.framing
        if self.checksum is not None:
            just_its_kind = set(self.checksum) == {"kind"}
            made["checksum"] = self.checksum["kind"] if just_its_kind else self.checksum
        if self.payload.decode:
            made["decode"] = self.payload.decode
        return made


def best_cut(data: bytes) -> Cut | None:
    """The way that makes most sense of the bytes; None where none makes any."""
    data = data[-_LOOKED_AT:]
    found: list[Cut] = []
    for ways in (_ended, _stuffed, _chained, _fixed):
        found += [
            cut for framing, checksum in ways(data) if (cut := _tried(framing, checksum, data)) is not None
        ]
        if any(cut.checksum is not None and cut.worth > 0.9 for cut in found):
            break
    return max(found, key=lambda cut: cut.worth, default=None)


def _tried(framing: dict[str, Any], checksum: dict[str, Any] | None, data: bytes) -> Cut | None:
    """Cut as the source would."""
    section = _FRAMING.validate_python(framing)
    check = ChecksumSection.model_validate(checksum or {"kind": "none"}).made(text=section.ended)
    framer = section.made(check, None)
    frames = framer.frames(data)
    payloads = [each for each in frames if not isinstance(each, Broken)]
    if len(payloads) < _LEAST:
        return None
    share = 1 - framer.dropped / max(1, len(data))
    good = len(payloads) / len(frames)
    if share < _WHOLE or good < _WHOLE:
        return None
    cut = Cut(framing, checksum, payloads, share, payload=payload_of(payloads[-50:]))
    if section.ended and cut.payload.kind in {"binary", "msgpack", "unknown", "empty"}:
        return None  # its bytes may look like the end
    cut.worth = share * good * _sense(cut)
    return cut if cut.worth >= _SENSE else None


def _sense(cut: Cut) -> float:
    """0 to 1: how much it says that the frames are so."""
    readable = {"json": 0.9, "nmea": 0.98, "key_value": 0.9, "csv": 0.88, "number": 0.8, "regex": 0.7}
    worth = readable.get(cut.payload.kind, 0.2)
    if cut.payload.kind in {"binary", "msgpack"}:
        worth = 0.45 if cut.payload.kind == "binary" else 0.6
        worth += 0.1 * bool(cut.framing.get("sync")) + 0.1 * (
            cut.framing["kind"] in {"cobs", "slip", "length"}
        )
    if cut.payload.kind == "text":
        worth = 0.4
    if cut.checksum is not None:
        worth = max(0.95, worth + 0.1) if cut.payload.kind != "unknown" else 0.92
    elif cut.framing["kind"] in {"line", "slip"}:
        worth += 0.02
    if set(cut.framing.get("sync", "1")) <= set("0x"):
        worth -= 0.02  # zeros in front are rather the upper bytes of a length
    return min(1.0, worth)


# --- what something ends -----------------------------------------------------------------------------------


def _ended(data: bytes) -> Iterator[tuple[dict[str, Any], dict[str, Any] | None]]:
    for end, start in _marks(data):
        pieces = [each for each in data.split(end)[1:-1] if each]
        if end == b"\n":
            pieces = [each.rstrip(b"\r") for each in pieces]
            framing: dict[str, Any] = {"kind": "line"}
        else:
            framing = {"kind": "delimiter", "delimiter": octets_written(end)}
        if start:
            framing["start"] = octets_written(start)
            pieces = [each.rpartition(start)[2] for each in pieces]
        if len(pieces) < _LEAST or max(map(len, pieces)) > _LONGEST:
            continue
        sentences = sum(each[:1] in {b"$", b"!"} and b"*" in each[-3:] for each in pieces)
        if sentences < len(pieces) / 2:  # the decoder of sentences proves them itself
            checksum = checksum_of(pieces, text=True, start=start)
            if checksum is not None:
                yield framing, checksum
        yield framing, None


def _marks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """What may end frames, and what may begin them."""
    if data.count(b"\n") >= _LEAST:
        yield b"\n", b""
        return
    for end in _ENDS:
        if data.count(end) >= _LEAST:
            firsts = Counter(each[:1] for each in data.split(end)[1:-1] if each)
            first, often = firsts.most_common(1)[0] if firsts else (b"", 0)
            begins = often >= _WHOLE * sum(firsts.values()) and first < b" " and first != end
            yield end, first if begins else b""


def _stuffed(data: bytes) -> Iterator[tuple[dict[str, Any], dict[str, Any] | None]]:
    for kind, end, undo in (("slip", b"\xc0", unslip), ("cobs", b"\0", uncobs)):
        if data.count(end) < _LEAST:
            continue
        plain = []
        pieces = [each for each in data.split(end)[1:-1] if each]
        for each in pieces:
            try:
                plain.append(undo(each))
            except DecodeError:
                continue
        if len(plain) < max(_LEAST, _WHOLE * len(pieces)) or max(map(len, plain), default=0) < 2:
            continue
        checksum = checksum_of(plain, text=False)
        yield {"kind": kind}, checksum


# --- what has a length -------------------------------------------------------------------------------------


def _chained(data: bytes) -> Iterator[tuple[dict[str, Any], dict[str, Any] | None]]:
    for size in (1, 2, 4):
        for endian in ("big", "little") if size > 1 else ("big",):
            for overhead in range(size, size + _OVERHEAD):
                places = _chain(data, size, endian, overhead)
                if places is not None:
                    yield from _lengths(data, size, endian, overhead, places)


def _chain(data: bytes, size: int, endian: Any, overhead: int) -> list[int] | None:
    """Where lengths stand, if each leads to the next, to the end of the bytes."""
    for begin in range(min(_BEGINS, len(data) // 2)):
        at, places = begin, []
        while at + size <= len(data):
            length = int.from_bytes(data[at : at + size], endian)
            if not 1 <= length <= _LONGEST:
                break
            places.append(at)
            at += length + overhead
        else:
            if len(places) >= _LINKS:
                return places
    return None


def _lengths(
    data: bytes, size: int, endian: str, overhead: int, places: Sequence[int]
) -> Iterator[tuple[dict[str, Any], dict[str, Any] | None]]:
    """What a chain may be: how much of what is around the payload is a mark in front, how much a checksum."""
    sync = _constant_before(data, places)
    for itself in (False, True):
        for counts_checksum in (False, True):
            for check_size in (0, 1, 2, 4):
                front = overhead - size - check_size + itself * size + counts_checksum * check_size
                if front != len(sync) and not (0 <= front <= len(sync)):
                    continue
                mark = sync[len(sync) - front :]
                framing: dict[str, Any] = {"kind": "length"}
                framing |= {"size": size} if size != 1 else {}
                framing |= {"endian": endian} if endian != "big" else {}
                framing |= {"counts_itself": True} if itself else {}
                framing |= {"sync": octets_written(mark)} if mark else {}
                if not check_size:
                    if not counts_checksum:
                        yield framing, None
                    continue
                framing |= {"counts_checksum": True} if counts_checksum else {}
                around = size if itself else 0
                contents, fronts = [], []
                for at, after in pairwise(places):
                    length = int.from_bytes(data[at : at + size], "big" if endian == "big" else "little")
                    counted = length - around + (0 if counts_checksum else check_size)
                    if at + size + counted <= after:
                        contents.append(data[at + size : at + size + counted])
                        fronts.append(data[at : at + size])
                checksum = checksum_of(contents, text=False, start=mark, fronts=fronts) if contents else None
                if checksum is not None and size_of(checksum["kind"]) == check_size:
                    yield framing, checksum


def _constant_before(data: bytes, places: Sequence[int]) -> bytes:
    """The bytes before each place that are the same everywhere."""
    places = [each for each in places if each >= 8] or list(places[1:])
    length = 0
    while length < 8 and all(each > length for each in places):
        if len({data[each - length - 1] for each in places}) > 1:
            break
        length += 1
    return data[places[-1] - length : places[-1]] if places else b""


# --- what has a fixed size ---------------------------------------------------------------------------------


def _fixed(data: bytes) -> Iterator[tuple[dict[str, Any], dict[str, Any] | None]]:
    raw = np.frombuffer(data, np.uint8)
    for period in _periods(raw):
        rows = raw[: len(raw) // period * period].reshape(-1, period)
        constant = [int(place) for place in np.flatnonzero((rows == rows[0]).mean(axis=0) > 0.95)]
        sync_at, sync = _sync(rows, constant)
        for begin in range(period):
            frames = [
                bytes(each)
                for each in raw[begin : begin + (len(raw) - begin) // period * period].reshape(-1, period)
            ]
            found = _checked(frames)
            if found is not None:
                yield {"kind": "fixed", "size": period}, found
        if sync:
            begin = sync_at
            whole = raw[begin : begin + (len(raw) - begin) // period * period].reshape(-1, period)
            frames = [bytes(each)[len(sync) :] for each in whole]
            framing = {"kind": "fixed", "size": period, "sync": octets_written(sync)}
            checksum = checksum_of(frames, text=False, start=sync)
            yield framing, checksum


def _checked(frames: Sequence[bytes]) -> dict[str, Any] | None:
    """A checksum of whole frames, if they have one at their end; the first few must prove it at once."""
    few = [(each, b"") for each in frames[:6]]
    for kind in KINDS:
        for endian in ("big", "little") if size_of(kind) > 1 else ("big",):
            settings = {"kind": kind, "written": "bytes", "endian": endian}
            if len(frames[0]) > size_of(kind) and proven(settings, few, text=False, start=b"") > 0.6:
                return checksum_of(frames, text=False)
    return None


def _periods(raw: npt.NDArray[np.uint8]) -> list[int]:
    """After how many bytes things come again, the likeliest first; multiples of one are left out."""
    if len(raw) < 4 * _PERIODS.start:
        return []
    alike = {
        period: float((raw[period:] == raw[:-period]).mean())
        for period in _PERIODS
        if len(raw) >= _LINKS * period
    }
    if not alike:
        return []
    usual = float(np.median(list(alike.values())))
    best = max(alike.values())
    if best < usual + 0.03:
        return []
    near = [period for period, share in alike.items() if share >= usual + 0.6 * (best - usual)]
    chosen: list[int] = []
    for period in near:
        if not any(period % smaller == 0 for smaller in chosen):
            chosen.append(period)
    return chosen[:4]


def _sync(rows: npt.NDArray[np.uint8], constant: Sequence[int]) -> tuple[int, bytes]:
    """The longest run of bytes that are always the same, round the end too; zeros alone are none."""
    period = rows.shape[1]
    best: tuple[int, bytes] = (0, b"")
    for begin in constant:
        length = 0
        while length < period and (begin + length) % period in constant:
            length += 1
        found = bytes(int(np.median(rows[:, (begin + step) % period])) for step in range(min(length, 4)))
        if any(found) and length < period and len(found) > len(best[1]):
            best = begin, found
    return best
