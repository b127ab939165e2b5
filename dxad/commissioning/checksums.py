"""Which checksum the frames of a line have, by trying those that there are. Pure.

A checksum counts as found where nearly all frames prove it, and so many of them differ that chance cannot.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from dxad.errors import DecodeError
from dxad.sources.serial.framing import ChecksumSection

__all__ = ["KINDS", "checksum_of", "proven"]

KINDS: Final = (
    "xor", "sum8", "lrc", "crc8", "crc8-maxim", "crc16-modbus", "crc16-ccitt", "crc16-xmodem", "crc16-kermit",
    "crc16", "crc16-x25", "sum16", "fletcher16", "fletcher8-256", "crc32", "crc32c", "adler32",
)  # fmt: skip
"""Those that devices have, the usual ones first."""
_SIZES: Final = {
    "xor": 1,
    "sum8": 1,
    "lrc": 1,
    "crc8": 1,
    "crc8-maxim": 1,
    "crc32": 4,
    "crc32c": 4,
    "adler32": 4,
}
_FRAMES: Final = 24
"""That are tried."""
_LEAST: Final = 4
_PROVEN: Final = 0.85
_DIGITS: Final = re.compile(rb"([^0-9A-Za-z\s,.]?)([0-9A-Fa-f]{2}|[0-9A-Fa-f]{4}|[0-9A-Fa-f]{8})$")
_BITS: Final = 16
"""That the checksums of all different frames must have together, for chance not to do."""


def size_of(kind: str) -> int:
    """Bytes of its value."""
    return _SIZES.get(kind, 2)


def checksum_of(
    frames: Sequence[bytes], *, text: bool, start: bytes = b"", fronts: Sequence[bytes] | None = None
) -> dict[str, Any] | None:
    """What a configuration says of the checksum of these frames; None where none is found.

    Args:
        frames: their content, the checksum included.
        text: whether digits are usual, as in lines.
        start: what marks a frame's start, and is not in `frames`.
        fronts: by frame, what stands between that and the content, such as a length.
    """
    if len(frames) < _LEAST:
        return None
    fronts = fronts or [b""] * len(frames)
    chosen = list(dict.fromkeys(zip(frames, fronts, strict=True)))[-_FRAMES:]
    for settings in (*(_written(frames) if text else ()), *_packed()):
        expected = settings["written"] == "hex" and settings["mark"] == "*"  # which most of such lines have
        if len(chosen) * size_of(settings["kind"]) * 8 + 8 * expected < _BITS:
            continue
        if proven(settings, chosen, text=text, start=start) >= _PROVEN:
            return {
                key: value
                for key, value in settings.items()
                if not _is_usual(key, value, settings, text=text)
            }
    return None


def _is_usual(key: str, value: Any, settings: Mapping[str, Any], *, text: bool) -> bool:
    """Whether a configuration need not say it."""
    little = settings["kind"] == "crc16-modbus"
    usual = {
        "mark": "*",
        "over": "payload",
        "written": "hex" if text else "bytes",
        "endian": "little" if little else "big",
    }
    return key != "kind" and usual.get(key) == value


def proven(
    settings: Mapping[str, Any], frames: Iterable[tuple[bytes, bytes]], *, text: bool, start: bytes
) -> float:
    """The share of frames, with what stands in front of their content, that have this checksum."""
    check = ChecksumSection.model_validate(dict(settings)).made(text=text)
    assert check is not None
    good = total = 0
    for frame, front in frames:
        total += 1
        try:
            check.stripped(frame, start=start, front=front)
        except DecodeError:
            if total - good > 4 and good == 0:
                return 0.0
            continue
        good += 1
    return good / max(1, total)


def _written(frames: Sequence[bytes]) -> Iterator[dict[str, Any]]:
    """As digits, behind a mark."""
    found = [digits for each in frames[-_FRAMES:] if (digits := _DIGITS.search(each)) is not None]
    if len(found) < _PROVEN * len(frames[-_FRAMES:]):
        return
    widths = {len(each[2]) for each in found}
    marks = {each[1] for each in found}
    for kind in KINDS:
        for mark in {"*", *(each.decode("latin1") for each in marks)} if marks else {"*"}:
            for endian in ("big", "little") if size_of(kind) > 1 else ("big",):
                if 2 * size_of(kind) in widths or mark == "*":
                    yield {"kind": kind, "written": "hex", "mark": mark, "endian": endian, "over": "payload"}


def _packed() -> Iterator[dict[str, Any]]:
    """As bytes, at the end."""
    for over in ("payload", "frame", "after_start"):
        for kind in KINDS:
            for endian in ("big", "little") if size_of(kind) > 1 else ("big",):
                yield {"kind": kind, "written": "bytes", "endian": endian, "over": over}
