"""What a scenario may say of a serial wire.

    [wires.scale]
    type = "serial"
    link = "/tmp/scale"
    baudrate = 19200                                         # default: as fast as the terminal takes it
    [wires.scale.devices.scale]
    period = "100ms"                                         # default: one frame a step of the bench
    framing = { kind = "delimiter", delimiter = "0x1e" }
    checksum = { kind = "crc16-modbus", written = "hex" }    # or just its kind
    payload = "key_value"                                    # csv, json, key_value or struct
    decimals = 2
    sequence = "n"
    fields = { kg = "tank.weight" }

Bytes are written as text, or as hexadecimal digits after 0x.
"""

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from hw_sim.section import Duration, Name, Section, WireSection
from hw_sim.serial.checksum import Check, Endian, algorithm
from hw_sim.serial.framing import Cobs, Ended, Fixed, Framing, Length, Slip
from hw_sim.serial.payload import Parts, Payload, TimeUnit, letters, made

__all__ = ["Device", "Settings"]

_LARGE: Final = -123456.0
"""A reading to try a payload on."""
_LITTLE: Final = {"crc16-modbus"}
"""Whose standard puts the low byte first."""


def _bytes(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError(  # noqa: TRY004 - the error that pydantic collects
            'bytes are written as text, or as "0x" and hexadecimal digits'
        )
    if not value.startswith("0x"):
        return value.encode()
    try:
        return bytes.fromhex(value[2:])
    except ValueError as error:
        raise ValueError(f"{value!r} is no even number of hexadecimal digits after 0x") from error


Bytes = Annotated[bytes, BeforeValidator(_bytes, json_schema_input_type=str)]
"""Bytes, written as text or as hexadecimal digits after 0x."""
Some = Annotated[Bytes, Field(min_length=1)]


class LineFraming(Section):
    """Text that ends as lines do."""

    kind: Literal["line"] = "line"
    ending: Some = b"\r\n"

    def made(self, check: Check | None, _packed: int | None) -> Framing:
        """What makes its frames."""
        return Ended(check=check, ending=self.ending)


class DelimiterFraming(Section):
    """Something else stands at the end."""

    kind: Literal["delimiter"]
    delimiter: Some
    start: Bytes = b""
    """Stands in front, such as 0x02; no checksum counts it."""

    def made(self, check: Check | None, _packed: int | None) -> Framing:
        """What makes its frames."""
        return Ended(check=check, ending=self.delimiter, start=self.start)


class FixedFraming(Section):
    """Frames that are all as long."""

    kind: Literal["fixed"]
    size: int | None = Field(default=None, ge=1, le=65536)
    """In bytes, with sync and checksum; a struct has its own. Text is filled up with blanks."""
    sync: Bytes = b""
    """Stands in front."""

    def around(self, check: Check | None) -> int:
        """How many bytes of a frame are not its payload."""
        return len(self.sync) + (check.written_size if check else 0)

    def made(self, check: Check | None, packed: int | None) -> Framing:
        """What makes its frames; `packed` is the size of a struct."""
        size = self.size or self.around(check) + (packed or 0)
        return Fixed(check=check, size=size, sync=self.sync, filler=b" " if packed is None else b"\0")


class LengthFraming(Section):
    """The length stands in front."""

    kind: Literal["length"]
    size: Literal[1, 2, 4] = 1
    """Of the length, in bytes."""
    endian: Endian = "big"
    counts_itself: bool = False
    """Whether the length counts its own bytes."""
    counts_checksum: bool = False
    """Whether the length counts the checksum's."""
    sync: Bytes = b""
    """Stands in front of the length, which never counts it."""

    def made(self, check: Check | None, _packed: int | None) -> Framing:
        """What makes its frames."""
        return Length(
            check=check,
            size=self.size,
            endian=self.endian,
            sync=self.sync,
            counts_itself=self.counts_itself,
            counts_checksum=self.counts_checksum,
        )


class CobsFraming(Section):
    """Consistent overhead byte stuffing; a zero byte at the end."""

    kind: Literal["cobs"]

    def made(self, check: Check | None, _packed: int | None) -> Framing:
        """What makes its frames."""
        return Cobs(check=check)


class SlipFraming(Section):
    """RFC 1055."""

    kind: Literal["slip"]
    start: bool = True
    """Whether END stands in front as well."""

    def made(self, check: Check | None, _packed: int | None) -> Framing:
        """What makes its frames."""
        return Slip(check=check, start=b"\xc0" if self.start else b"")


class NmeaFraming(Section):
    """NMEA 0183: `$TALKER,…*HH`, CR, LF."""

    kind: Literal["nmea"]
    talker: str = Field(pattern=r"^[A-Z0-9]{2,16}$")
    """Who talks and what, such as WIMWV."""

    def made(self, check: Check | None, _packed: int | None) -> Framing:
        """What makes its frames."""
        return Ended(check=check, ending=b"\r\n", start=b"$", lead=f"{self.talker},".encode())


AnyFraming = Annotated[
    LineFraming | DelimiterFraming | FixedFraming | LengthFraming | CobsFraming | SlipFraming | NmeaFraming,
    Field(discriminator="kind"),
]


class Checksum(Section):
    """Which checksum, and how it is written."""

    kind: str
    """`none`, or a name of `checksum.py`."""
    written: Literal["hex", "bytes"] | None = None
    """Default: hexadecimal digits after text in `line`, `delimiter` and `nmea`, else bytes."""
    mark: Bytes = b"*"
    """What stands before hexadecimal digits."""
    endian: Endian | None = None
    """Default: big, but little for crc16-modbus."""
    over: Literal["payload", "frame"] = "payload"
    """Whether what stands in front of the payload, sync and length, is counted as well."""

    @field_validator("kind")
    @classmethod
    def _known(cls, kind: str) -> str:
        if kind != "none":
            algorithm(kind)
        return kind

    def made(self, *, text: bool) -> Check | None:
        """The checksum of a frame, of text or of bytes."""
        if self.kind == "none":
            return None
        value, size = algorithm(self.kind)
        digits = self.written == "hex" if self.written else text
        endian = self.endian or ("little" if self.kind in _LITTLE else "big")
        return Check(value, size, endian, self.mark if digits else None, front=self.over == "frame")


class Device(Section):
    """What speaks on the line."""

    fields: Mapping[str, Annotated[str, Field(min_length=1)]] = Field(min_length=1)
    """Names of what it says, and the channels that they show."""
    period: Duration | None = Field(default=None, gt=0)
    """Between two frames; default: the step of the bench, which is the shortest it can be."""
    phase: Duration = Field(default=0.0, ge=0)
    """When the first frame is; devices of one period and several phases send in turn."""
    framing: AnyFraming = LineFraming()
    checksum: Checksum | None = None
    """Default: none; in `nmea`, `xor`."""
    payload: Literal["csv", "json", "key_value", "struct"] = "csv"
    decimals: int = Field(default=4, ge=0, le=17)
    """Of each number in a text."""
    separator: str = Field(default=",", min_length=1)
    """Between two values of `csv` and `key_value`."""
    format: str = ""
    """Of a `struct`, as Python's module has it: < or >, and a letter for each value."""
    scale: float | Mapping[str, float] = 1.0
    """What one count stands for: what is sent is the reading over this. For all fields, or by field."""
    time: str = ""
    """The name of the time of the reading, which comes first; none by default."""
    time_unit: TimeUnit = "s"
    """Unix time in seconds, or in milliseconds."""
    sequence: str = ""
    """The name of a number that counts the frames, which comes after the time; none by default."""
    query: Bytes = b""
    """What it must be asked, if it only speaks then."""
    error: Bytes = b""
    """What it answers anything else; nothing by default."""

    @field_validator("checksum", mode="before")
    @classmethod
    def _just_its_kind(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        self._check_scale()
        self._check_struct()
        self._check_query()
        if self.framing.kind == "nmea":
            if self.payload != "csv":
                raise ValueError("the payload of nmea framing is csv")
            if self.checksum is not None and self.checksum.kind not in {"xor", "none"}:
                raise ValueError("the checksum of nmea framing is xor, or none")
        if self.framing.kind in {"line", "delimiter", "nmea"}:
            self._check_ended()
        if self.framing.kind == "fixed":
            self._check_fixed(self.framing)
        if isinstance(self.framing, LengthFraming):
            self._check_length(self.framing)
        return self

    def _check_scale(self) -> None:
        scales = self.scale if isinstance(self.scale, Mapping) else {"all": self.scale}
        for field, scale in scales.items():
            if scale == 0:
                raise ValueError("no reading can be divided by a scale of 0")
            if isinstance(self.scale, Mapping) and field not in self.fields:
                raise ValueError(f"scale: no field {field!r}; there are {', '.join(self.fields)}")

    def _check_struct(self) -> None:
        if self.payload != "struct":
            if self.format:
                raise ValueError('a format is for payload = "struct"')
            return
        if not self.format:
            raise ValueError("a struct needs a format, such as <hhh")
        numbers, names = letters(self.format), self._parts.names
        if len(numbers) != len(names):
            values = f"{len(names)} values: {', '.join(names)}"
            raise ValueError(f"the format {self.format!r} has {len(numbers)} numbers for {values}")
        if self.framing.kind in {"line", "delimiter", "nmea"}:
            raise ValueError(
                f"the bytes of a struct may look like the end of a {self.framing.kind} frame; "
                "take fixed, length, cobs or slip"
            )

    def _check_query(self) -> None:
        if self.error and not self.query:
            raise ValueError("an error is the answer of a device that is asked, which needs a query")
        if self.query and self.query[-1:] in self.query[:-1]:
            raise ValueError("the last byte of a query ends it, so it may not stand elsewhere in it")
        if self.query and self.period is not None:
            raise ValueError("a device speaks when it is asked, or once a period; not both")

    def _check_ended(self) -> None:
        framing, sample = self.framed, self._sample
        if self.checksum is not None and self.checksum.written == "bytes" and framing.check is not None:
            raise ValueError(
                f"the bytes of a checksum may look like the end of a {self.framing.kind} frame; "
                'take written = "hex"'
            )
        inside = framing.frame(sample).removesuffix(framing.ending)
        if any(bytes([byte]) in framing.ending for byte in b"0123456789ABCDEF-.") or framing.ending in inside:
            raise ValueError(f"the ending {framing.ending!r} may stand within a frame such as {inside!r}")

    def _check_fixed(self, framing: FixedFraming) -> None:
        around = framing.around(self._check)
        if self.payload == "struct":
            whole = around + struct.calcsize(self.format)
            if framing.size not in {None, whole}:
                raise ValueError(f"frames of {self.format!r} take {whole} bytes, not {framing.size}")
        elif framing.size is None:
            raise ValueError("fixed framing of a text needs its size")
        elif framing.size < around + len(self._parts.names):
            raise ValueError(
                f"nothing fits into {framing.size} bytes of which {around} are sync and checksum"
            )

    def _check_length(self, framing: LengthFraming) -> None:
        most = (1 << 8 * framing.size) - 1
        if len(self._sample) > most - framing.size - 16:
            raise ValueError(f"a length of {framing.size} bytes is too small for {len(self._sample)} bytes")

    @property
    def _parts(self) -> Parts:
        scale = self.scale
        each = [scale.get(field, 1.0) if isinstance(scale, Mapping) else scale for field in self.fields]
        return Parts(
            fields=tuple(self.fields),
            scales=tuple(each),
            decimals=self.decimals,
            time=self.time,
            time_unit=self.time_unit,
            sequence=self.sequence,
        )

    @property
    def says(self) -> Payload:
        """What makes its payloads."""
        return made(self.payload, self._parts, separator=self.separator, layout=self.format)

    @property
    def _sample(self) -> bytes:
        return self.says(1.7e9, 1 << 31, [_LARGE] * len(self.fields))

    @property
    def _check(self) -> Check | None:
        kind = self.framing.kind
        checksum = self.checksum or Checksum(kind="xor" if kind == "nmea" else "none")
        return checksum.made(text=self.payload != "struct" and kind in {"line", "delimiter", "nmea"})

    @property
    def framed(self) -> Framing:
        """How its frames are made."""
        return self.framing.made(self._check, struct.calcsize(self.format) if self.format else None)

    @property
    def about(self) -> str:
        """What a client finds, in a line."""
        kind = self.checksum.kind if self.checksum else "xor" if self.framing.kind == "nmea" else "none"
        check = "" if kind == "none" else f" with {kind}"
        when = " when asked" if self.query else "" if self.period is None else f" every {self.period:g} s"
        names = ", ".join(self._parts.names)
        return f"{self.framing.kind} frames of {self.payload}{check}: {names}{when}"


class Settings(WireSection):
    """A tty with the devices on it."""

    type: Literal["serial"] = "serial"
    link: Path
    """Where the terminal is found: a symbolic link, made atomically and never followed."""
    baudrate: int | None = Field(default=None, ge=50)
    """Bits a second, ten to a byte; by default as many as the terminal takes."""
    devices: Mapping[Name, Device] = Field(min_length=1)
    """What speaks on it; the frames of several follow one another as they come."""

    @field_validator("link")
    @classmethod
    def _absolute(cls, link: Path) -> Path:
        if not link.is_absolute():
            raise ValueError(f"{link} is no path from the root")
        return link

    @property
    def fields(self) -> Mapping[str, Mapping[str, str]]:
        """By device, the plant's channel of each of its fields."""
        return {name: device.fields for name, device in self.devices.items()}
