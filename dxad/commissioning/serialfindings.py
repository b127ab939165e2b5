"""What was heard on a serial line is told as: a document, and the configuration that reads it. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from dxad.commissioning.bauds import LineSetting
from dxad.commissioning.fragment import fragment
from dxad.commissioning.framings import Cut
from dxad.commissioning.topics import period_text, usual_period_s
from dxad.types import Document

__all__ = ["Line", "line_document", "serial_fragment", "shown"]

_CHANNELS: Final = 64
_SLOW_S: Final = 0.5
"""From here on, what arrives is not held back by more than a few percent of its period."""
_SHOWN: Final = 100


@dataclass(frozen=True, slots=True)
class Line:
    """A line, and what was heard on it."""

    port: str
    setting: LineSetting
    pseudo: bool
    """Whether no bits are sent there, so that the rate means nothing."""
    cut: Cut | None
    size: int
    """Bytes that came."""
    period_s: float | None
    """From message to message."""
    head: bytes
    """The first of what came."""


def period_of(arrivals: Sequence[tuple[float, int]], messages: int) -> float | None:
    """From message to message, by how long it took for so many to come.

    What came first had waited, and the message that was under way then counts as half a one.
    """
    if messages < 3 or len(arrivals) < 2:
        return None
    (begin, waited), (end, total) = arrivals[0], arrivals[-1]
    since = (messages + 0.5) * (total - waited) / total
    return usual_period_s((end - begin) / since) if end > begin and since else None


def serial_fragment(name: str, line: Line) -> str:
    """The configuration that reads the line; a remark where nothing makes sense of it."""
    cut = line.cut
    if cut is None or not cut.payload.decode:
        return f"# {line.size} bytes came on {line.port}, and no message that can be read\n"
    settings: dict[str, Any] = {"type": "serial", "port": line.port}
    remarks: dict[str, str] = {}
    if not line.pseudo:
        settings["baudrate"] = line.setting.baudrate
        settings |= {"bytesize": 7} if line.setting.bytesize == 7 else {}
        settings |= {"parity": line.setting.parity} if line.setting.parity != "none" else {}
    settings["period"] = period_text(line.period_s or 1.0)
    if line.period_s is None:
        remarks["period"] = "a guess: too few messages came"
    if (line.period_s or 1.0) >= _SLOW_S and cut.payload.kind != "nmea" and cut.payload.samples == 1:
        settings["clock"] = "arrival"
    settings |= cut.settings
    if cut.payload.kind == "binary":
        remarks["decode"] = "a guess: compare the numbers with what the device shows"
    if cut.payload.note:
        remarks["decode"] = cut.payload.note
    if cut.payload.time is not None:
        remarks["period"] = f'clock = "device" with time = "{cut.payload.time}" would take the device\'s time'
    doubt = "nothing proves that messages are so: a wrong rate may look like it\n" if not cut.proven else ""
    channels = cut.payload.channels(_CHANNELS)
    for channel, found in zip(channels, cut.payload.numbers, strict=False):
        remarks[channel] = f"{found.low:.6g} to {found.high:.6g}"
    return fragment(name, settings, channels, remarks=remarks, head=doubt)


def shown(data: bytes) -> str:
    """Bytes as a line for people: text as it is, all else by its numbers."""
    text = "".join(chr(each) if 0x20 <= each < 0x7F else f"\\x{each:02x}" for each in data[:_SHOWN])
    return text.replace("\\x0d\\x0a", "").replace("\\x0a", "")


def line_document(line: Line) -> Document:
    """All of it, for programs."""
    cut = line.cut
    return {
        "port": line.port,
        "pseudo_terminal": line.pseudo,
        "baudrate": None if line.pseudo else line.setting.baudrate,
        "bytesize": line.setting.bytesize,
        "parity": line.setting.parity,
        "bytes": line.size,
        "head": line.head.hex(),
        "period_s": line.period_s,
        "messages": 0 if cut is None else len(cut.payloads),
        "proven": cut is not None and cut.proven,
        "sure": 0.0 if cut is None else round(cut.worth, 3),
        "framing": None if cut is None else cut.framing,
        "checksum": None if cut is None else cut.checksum,
        "kind": None if cut is None else cut.payload.kind,
        "decode": None if cut is None else cut.payload.decode,
        "fields": []
        if cut is None
        else [
            {"path": each.path, "kind": each.kind, "low": each.low, "high": each.high, "last": each.last}
            for each in cut.payload.fields
        ],
    }
