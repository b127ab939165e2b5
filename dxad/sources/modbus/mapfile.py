"""A register map as a CSV file, as a vendor's manual or a spreadsheet has it.

    name,     register, encoding, order, scale, offset, unit, low, high
    current,  30001,    float32,  CDAB,  ,      ,       A,    0,   400

The first line that is not empty says what the columns are; commas, semicolons or tabs stand between them;
where semicolons do, a comma may stand before the fraction of a number. Lines that begin with # are passed
over, and so are columns of other names, such as remarks.

    name        of the channel
    register    holding:12, 40013 or 400013, see register.py; or, in place of it:
    address     from 0, as it is on the wire, also 0x hex; with
    table       coil, discrete, input or holding; also 0x to 4x, or the function that reads it, 1 to 4
    encoding    as in a configuration, or a PLC's word: INT, UINT, DINT, REAL, WORD, BOOL …
    order       ABCD, BADC, CDAB or DCBA; also big, little, word swap, byte swap
    low, high   the values that are physically possible
    scale, offset, unit, bit, width, length, absent, hold, fold     as in a configuration
    values      of a string: RUN=1 STOP=0
"""

import csv
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from dxad.fields import Identifier
from dxad.sources.modbus.register import TABLES
from dxad.sources.modbus.section import ModbusChannel

__all__ = ["read"]

_HEADERS: Final[dict[str, tuple[str, ...]]] = {
    "name": ("name", "channel", "tag", "tagname", "variable", "id"),
    "register": ("register", "reg", "registernumber", "modicon"),
    "address": ("address", "addr", "protocoladdress", "offsetaddress"),
    "table": ("table", "space", "area", "registertype", "objecttype", "function", "functioncode", "fc"),
    "encoding": ("encoding", "datatype", "type", "format"),
    "order": ("order", "byteorder", "wordorder", "endian", "endianness"),
    "scale": ("scale", "factor", "multiplier", "gain", "scaling"),
    "offset": ("offset",),
    "unit": ("unit", "units", "uom", "engineeringunit"),
    "low": ("low", "min", "minimum", "lowlimit"),
    "high": ("high", "max", "maximum", "highlimit"),
    "bit": ("bit",), "width": ("width", "bits"), "length": ("length", "registers"), "absent": ("absent",),
    "hold": ("hold",), "fold": ("fold",), "values": ("values",),
}  # fmt: skip
_KEYS: Final = {header: key for key, headers in _HEADERS.items() for header in headers}
_ENCODINGS: Final[dict[str, str]] = {
    "int": "int16", "s16": "int16", "i16": "int16", "short": "int16", "sint16": "int16", "uint": "uint16",
    "u16": "uint16", "word": "uint16", "ushort": "uint16", "dint": "int32", "s32": "int32", "i32": "int32",
    "long": "int32", "sint32": "int32", "udint": "uint32", "u32": "uint32", "dword": "uint32",
    "ulong": "uint32", "lint": "int64", "s64": "int64", "i64": "int64", "ulint": "uint64", "u64": "uint64",
    "lword": "uint64", "real": "float32", "float": "float32", "f32": "float32", "single": "float32",
    "lreal": "float64", "double": "float64", "f64": "float64", "half": "float16", "f16": "float16",
    "sint": "int8", "s8": "int8", "usint": "uint8", "u8": "uint8", "byte": "uint8", "boolean": "bool",
    "bcd": "bcd16", "text": "string", "ascii": "string",
}  # fmt: skip
"""IEC 61131-3's words, and others that manuals use."""
_ORDERS: Final[dict[str, str]] = {
    "big": "ABCD", "bigendian": "ABCD", "be": "ABCD", "1234": "ABCD", "little": "DCBA",
    "littleendian": "DCBA", "le": "DCBA", "4321": "DCBA", "wordswap": "CDAB", "wordswapped": "CDAB",
    "3412": "CDAB",
    "byteswap": "BADC", "byteswapped": "BADC", "2143": "BADC",
}  # fmt: skip
_SPACES: Final[dict[str, str]] = {
    **{space: space for space in TABLES.values()}, **{f"{digit}x": space for digit, space in TABLES.items()},
    "coils": "coil", "discreteinput": "discrete", "discreteinputs": "discrete", "inputregister": "input",
    "inputregisters": "input", "holdingregister": "holding", "holdingregisters": "holding",
    **{
        f"{prefix}{code}": space
        for code, space in enumerate(("coil", "discrete", "holding", "input"), 1)
        for prefix in ("", "0", "fc", "fc0", "0x", "0x0")
    },
}  # fmt: skip
_FIRST_REGISTER: Final = 10_000
_SIZE_MAX: Final = 8 * 2**20
_ROWS_MAX: Final = 65_536
_PROBLEMS_MOST: Final = 50
_NUMBER: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_name: Final = TypeAdapter(Identifier)


class _Mistake(Exception):  # noqa: N818 - told, not raised further
    """What is wrong with the cell of one key."""

    def __init__(self, key: str, text: str) -> None:
        self.key = key
        self.text = text
        super().__init__(text)


def read(path: Path, inline: Mapping[str, Any]) -> dict[str, Any]:
    """The channels of a file, as a configuration would have them, and over them those that stand in it.

    Args:
        path: the file.
        inline: the table `channels`; what it says of a channel that the file has goes before what that says.

    Raises:
        ValidationError: with every mistake, each with file, line and column.
    """
    mistakes: list[str] = []
    found: dict[str, Any] = {}
    lines: dict[str, int] = {}
    for line, columns, row in _rows(path, mistakes):
        try:
            name, merged = _merged(row, inline, lines)
        except _Mistake as mistake:
            place = columns.get(mistake.key, columns.get("name", 1))
            mistakes.append(f"{path}:{line}:{place}: {mistake.text}")
            if len(mistakes) >= _PROBLEMS_MOST:
                break
        else:
            found[name], lines[name] = merged, line
    if not mistakes and not found:
        mistakes.append(f"{path}: has no channels")
    if mistakes:
        raise ValidationError.from_exception_data("map", [_error(each) for each in mistakes])
    return {**found, **{name: each for name, each in inline.items() if name not in found}}


def _merged(
    row: Mapping[str, str], inline: Mapping[str, Any], lines: Mapping[str, int]
) -> tuple[str, dict[str, Any]]:
    """A row's channel, with what the configuration says of it."""
    name, channel = _channel(row)
    if name in lines:
        raise _Mistake("name", f"{name!r} stands in line {lines[name]}, too")
    own = inline.get(name)
    own = own if isinstance(own, Mapping) else {}
    merged = {**channel, **own}
    _check(merged, set(own))
    return name, merged


def _error(text: str) -> InitErrorDetails:
    return {"type": PydanticCustomError("config", "{text}", {"text": text}), "loc": ("map",), "input": text}


def _text(path: Path) -> str:
    """The file's characters: UTF-8, or what spreadsheets write in place of it."""
    if path.stat().st_size > _SIZE_MAX:
        raise OSError(0, f"is larger than {_SIZE_MAX >> 20} MiB")
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


def _rows(path: Path, mistakes: list[str]) -> Iterator[tuple[int, dict[str, int], dict[str, str]]]:
    """Each row's line, the column of each key (from 1), and its cells by key, those that are not empty."""
    try:
        text = _text(path)
    except OSError as error:
        mistakes.append(f"{path}: {error.strerror}")
        return
    head = next((each for each in text.splitlines() if each.strip(" ,;\t") and each[0] != "#"), "")
    separator = max(";\t,", key=head.count)
    reader = csv.reader(text.splitlines(), delimiter=separator, skipinitialspace=True)
    columns: dict[str, int] | None = None
    for row in reader:
        if not any(cell.strip() for cell in row) or row[0].startswith("#"):
            continue
        if columns is None:
            columns = _columns(path, reader.line_num, row, mistakes)
            if mistakes:
                return
            continue
        if reader.line_num > _ROWS_MAX:
            mistakes.append(f"{path}:{reader.line_num}: has more than {_ROWS_MAX} lines")
            return
        cells = {key: row[at - 1].strip() for key, at in columns.items() if at <= len(row)}
        if separator == ";":
            cells = {key: _with_point(cell) for key, cell in cells.items()}
        yield reader.line_num, columns, {key: cell for key, cell in cells.items() if cell}


def _with_point(cell: str) -> str:
    return cell.replace(",", ".") if re.fullmatch(r"[+-]?\d*,\d+", cell) else cell


def _columns(path: Path, line: int, row: list[str], mistakes: list[str]) -> dict[str, int]:
    """Where each key stands."""
    found: dict[str, int] = {}
    for at, header in enumerate(row, 1):
        key = _KEYS.get(re.sub(r"[^a-z]", "", header.lower()))
        if key is not None and key in found:
            mistakes.append(f"{path}:{line}:{at}: {header.strip()!r} is a second column of {key}")
        elif key is not None:
            found[key] = at
    missing = [] if "name" in found else ["name"]
    if "register" not in found and not {"address", "table"} <= set(found):
        missing.append("register, or address and table")
    if missing:
        mistakes.append(
            f"{path}:{line}:1: no column {', no column '.join(missing)}; there are: {', '.join(row)}"
        )
    return found


def _channel(row: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
    """One row, as a configuration would have it."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", row.get("name", "")).strip("_")
    try:
        _name.validate_python(name)
    except ValidationError as error:
        raise _Mistake("name", f"{row.get('name', '')!r} is no name of a channel") from error
    channel: dict[str, Any] = {"register": _register(row)}
    for key, converted in _CONVERTED.items():
        if key in row:
            channel[key] = converted(key, row[key])
    if ("low" in row) != ("high" in row):
        raise _Mistake("low" if "low" in row else "high", "low and high belong together")
    if "low" in row:
        low, high = _number("low", row["low"]), _number("high", row["high"])
        if low >= high:
            raise _Mistake("low", f"{row['low']} is not below {row['high']}")
        channel["range"] = [low, high]
    if channel.get("encoding") == "bool" and not channel["register"].startswith(
        ("coil", "discrete", "0", "1")
    ):
        del channel["encoding"]
        channel.setdefault("bit", 0)
    if "bit" in channel:
        channel["encoding"] = "bits"
    return name, channel


def _register(row: Mapping[str, str]) -> str:
    if "register" in row:
        text = row["register"].replace(" ", "")
        if text.isdecimal() and (len(text) > 6 or int(text) < _FIRST_REGISTER) and text[0] != "0":
            raise _Mistake(
                "register",
                f"{text} does not say in which table: write 4{text.zfill(4)} (from 1) "
                f"or holding:{text} (from 0)",
            )
        return text
    if "table" not in row or "address" not in row:
        raise _Mistake("address", "a row needs a register, or an address and a table")
    space = _SPACES.get(re.sub(r"[^a-z0-9]", "", row["table"].lower()))
    if space is None:
        raise _Mistake("table", f"{row['table']!r} is none of coil, discrete, input and holding")
    address, _, bits = row["address"].partition(".")
    if not re.fullmatch(r"\d{1,5}|0[xX][0-9A-Fa-f]{1,4}", address):
        raise _Mistake("address", f"{row['address']!r} is no address: 0 to 65535, or 0x hex")
    return f"{space}:{address}" + (f".{bits}" if bits else "")


def _number(key: str, text: str) -> float:
    if not _NUMBER.fullmatch(text):
        raise _Mistake(key, f"{text!r} is no number")
    return float(text)


def _whole(key: str, text: str) -> int:
    if not text.isdecimal():
        raise _Mistake(key, f"{text!r} is no whole number")
    return int(text)


def _absent(key: str, text: str) -> str | list[float]:
    if text == "sunspec":
        return text
    return [
        float(int(each, 16)) if re.fullmatch("0[xX][0-9A-Fa-f]{1,16}", each) else _number(key, each)
        for each in text.split()
    ]


def _values(key: str, text: str) -> dict[str, float]:
    pairs = [each.rpartition("=") for each in text.split()]
    if not all(name for name, _, _ in pairs):
        raise _Mistake(key, f"{text!r} is not RUN=1 STOP=0")
    return {name: _number(key, number) for name, _, number in pairs}


def _as_it_is(_key: str, text: str) -> str:
    return text


def _word(words: Mapping[str, str]) -> Callable[[str, str], str]:
    return lambda _, text: words.get(re.sub(r"[^a-z0-9]", "", text.lower()), text)


_CONVERTED: Final[dict[str, Callable[[str, str], Any]]] = {
    "encoding": lambda key, text: _word(_ENCODINGS)(key, text.lower()),
    "order": lambda key, text: _word(_ORDERS)(key, text.upper() if len(text) == 4 else text),
    "scale": _number, "offset": _number, "bit": _whole, "width": _whole, "length": _whole, "absent": _absent,
    "values": _values, "unit": _as_it_is, "hold": _as_it_is, "fold": _as_it_is,
}  # fmt: skip


def _check(channel: Mapping[str, Any], inline: set[str]) -> None:
    """Refuse it here, where the cell is known; what the configuration says itself is refused there."""
    try:
        ModbusChannel.model_validate(channel)
    except ValidationError as error:
        for each in error.errors(include_url=False):
            key = str(each["loc"][0]) if each["loc"] else "register"
            if key not in inline:
                key = "address" if key == "register" and ":" in str(channel.get("register")) else key
                raise _Mistake(key, each["msg"].removeprefix("Value error, ")) from error
