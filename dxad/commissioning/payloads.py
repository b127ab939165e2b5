"""What messages are made of: their format, as `decode` says it, and what numbers are in them. Pure.

document   JSON or MessagePack     paths, arrays of samples, times
text       number, NMEA, key_value, csv, or numbers in any text, by a regular expression
packed     numbers of C            see packed.py
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgpack
import orjson

from dxad import plugin
from dxad.commissioning.fragment import name_for
from dxad.commissioning.packed import layout_of
from dxad.decode import DecodeSection, decoder
from dxad.decode.key_value import Config as KeyValueConfig
from dxad.errors import ConfigError, DecodeError

__all__ = ["Found", "Payload", "number_like", "payload_of"]

_MOST_FIELDS: Final = 256
_LONGEST_ARRAY: Final = 8
"""Elements that may be values of their own; more are samples."""
_FITS: Final = 0.8
"""The share of messages that a format must fit."""
_NUMBER: Final = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_NAME: Final = re.compile(r"[A-Za-z][\w .\-/]*")
_SEPARATORS: Final = (
    (";", ","), (",", "."), (";", "."), ("\t", "."), ("\t", ","), ("|", "."), (" ", "."),
)  # fmt: skip
"""Of columns, and what stands before a fraction then."""
_NMEA: Final = re.compile(r"[$!]([A-Z0-9]{2,16}),(.*?)(\*[0-9A-Fa-f]{2})?\s*")
_TIMES: Final = {"t", "ts", "time", "timestamp", "date", "datetime", "utc", "at"}
_EPOCHS: Final = ((1e9, 5e9), (1e12, 5e12), (1e15, 5e15), (1e18, 5e18))
"""Seconds, ms, us and ns since 1970, of the years 2001 to 2128."""
_PATTERN_MOST: Final = 480
_GROUPS_MOST: Final = 16
_NOT_TEXT: Final = 0.01
"""The share of unprintable bytes above which messages are no text."""


@dataclass(slots=True)
class Found:
    """One value in the messages."""

    path: str
    """Where the format has it."""
    kind: str
    """number, bool or text."""
    seen: int = 0
    low: float = math.inf
    high: float = -math.inf
    last: Any = None

    def note(self, value: Any) -> None:
        """It was this, once more."""
        self.seen += 1
        self.last = value if isinstance(value, bool | int | float) else str(value)[:40]
        if self.kind == "number" and math.isfinite(value):
            self.low, self.high = min(self.low, value), max(self.high, value)


@dataclass(slots=True)
class Payload:
    """What messages of one kind are made of."""

    kind: str
    """Of the decoder; text or empty where there is none for them."""
    decode: dict[str, Any] = field(default_factory=dict)
    """The table `decode`; nothing where there is none."""
    fields: list[Found] = field(default_factory=list)
    time: str | None = None
    """The path of a time since 1970."""
    samples: int = 1
    """In one message."""
    share: float = 1.0
    """Of the messages that are so."""
    note: str = ""
    """What whoever takes it over must know."""

    @property
    def numbers(self) -> list[Found]:
        """What can be a channel."""
        return [each for each in self.fields if each.kind == "number" and each.path != self.time]

    def channels(self, limit: int) -> dict[str, dict[str, Any]]:
        """Channels by name, with their paths where these are other than the names."""
        made: dict[str, dict[str, Any]] = {}
        for each in self.numbers[:limit]:
            name = name_for(each.path if each.path != "." else "value", made)
            made[name] = {} if each.path == name else {"path": each.path}
        return made


def payload_of(payloads: Sequence[bytes]) -> Payload:
    """What these messages, of one sender, are made of."""
    whole = [each for each in payloads if each.strip()]
    if not whole:
        return Payload("empty")
    attempts: tuple[Callable[[Sequence[bytes]], Payload | None], ...] = (
        _json, _number, _nmea, _key_value, _csv, _msgpack, _any_text, _packed,
    )  # fmt: skip
    for attempt in attempts:
        found = attempt(whole)
        if found is not None:
            return found
    return Payload("text" if _is_text(whole) else "unknown")


def number_like(text: str) -> float | None:
    """The number that a text is, if it is one."""
    if not _NUMBER.fullmatch(text.strip()):
        return None
    found = float(text)
    return found if math.isfinite(found) else None


# --- documents -------------------------------------------------------------------------------------------


def _json(payloads: Sequence[bytes]) -> Payload | None:
    documents = []
    for each in payloads:
        try:
            documents.append(orjson.loads(each))
        except orjson.JSONDecodeError:
            continue
    return _document("json", documents, len(payloads))


def _msgpack(payloads: Sequence[bytes]) -> Payload | None:
    documents = []
    for each in payloads:
        try:
            documents.append(msgpack.unpackb(each, strict_map_key=False))
        except (ValueError, TypeError, msgpack.UnpackException):  # a map for a key is a TypeError
            continue
    return _document("msgpack", documents, len(payloads))


def _document(kind: str, documents: Sequence[Any], total: int) -> Payload | None:
    usable = [each for each in documents if isinstance(each, dict | list) and each]
    if len(usable) < _FITS * total:
        return None
    made = Payload(kind, {"kind": kind}, share=len(usable) / total)
    arrays = Counter(path for each in usable for path in _sample_arrays(each))
    rows: list[Any] = usable
    if arrays:
        (path, count), *_ = arrays.most_common(1)
        if count > len(usable) / 2:
            lists = [found for each in usable if isinstance(found := _at(each, path), list)]
            made.decode["samples"] = path
            made.samples = max(1, round(sum(map(len, lists)) / len(lists)))
            rows = [row for each in lists for row in each]
    fields: dict[str, Found] = {}
    for row in rows:
        for path, value in _leaves(row, ""):
            _note(fields, path, value)
    made.fields = [each for each in fields.values() if each.seen]
    made.time = next((each.path for each in made.fields if _is_time(each)), None)
    if "samples" in made.decode and made.time is None and _are_named(rows):
        made.decode = {}  # a list of values, each with its name: no samples of the same
    return made


def _are_named(rows: Sequence[Any]) -> bool:
    """Whether elements of an array are told apart by a text in them, as in SenML (RFC 8428)."""
    if not all(isinstance(each, dict) for each in rows):
        return False
    texts = {key for key, value in rows[0].items() if isinstance(value, str)}
    return any(len({str(each.get(key)) for each in rows}) > 1 for key in texts)


def _sample_arrays(node: Any, path: str = "", depth: int = 0) -> Iterator[str]:
    """The paths of arrays that are samples: the whole, what has times of its own, or what is too long."""
    if isinstance(node, list):
        timed = node and isinstance(node[0], dict) and bool(_TIMES & {str(key).lower() for key in node[0]})
        if timed or (not path and node) or len(node) > _LONGEST_ARRAY:
            yield path or "."
    elif isinstance(node, dict) and depth < 4:
        for key, value in node.items():
            if _plain_key(key):
                yield from _sample_arrays(value, f"{path}.{key}" if path else key, depth + 1)


def _at(node: Any, path: str) -> Any:
    for step in () if path == "." else path.split("."):
        node = node.get(step) if isinstance(node, dict) else None
    return node


def _leaves(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    """What stands in a document, with its path."""
    if isinstance(node, dict):
        for key, value in node.items():
            if _plain_key(key):
                yield from _leaves(value, f"{path}.{key}" if path else key)
    elif isinstance(node, list):
        for place, value in enumerate(node[:_LONGEST_ARRAY]):
            yield from _leaves(value, f"{path}[{place}]")
    elif node is not None:
        yield path or ".", node


def _plain_key(key: Any) -> bool:
    """Whether a path can name it."""
    return isinstance(key, str) and bool(key) and not set(key) & set(".[]")


def _note(fields: dict[str, Found], path: str, value: Any) -> None:
    kind = "bool" if isinstance(value, bool) else "number" if isinstance(value, int | float) else "text"
    found = fields.get(path)
    if found is None:
        if len(fields) >= _MOST_FIELDS:
            return
        found = fields[path] = Found(path, kind)
    if found.kind == kind:
        found.note(value)


def _is_time(found: Found) -> bool:
    name = re.split(r"[.\[]", found.path)[-1].lower()
    near = any(low <= found.low and found.high <= high for low, high in _EPOCHS)
    return found.kind == "number" and near and (name in _TIMES or name.endswith(("time", "stamp", "_ts")))


# --- texts -----------------------------------------------------------------------------------------------


def _is_text(payloads: Sequence[bytes]) -> bool:
    data = b"".join(payloads)
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return sum(byte < 0x20 and byte not in b"\t\r\n\x02\x03" for byte in data) <= _NOT_TEXT * len(data)


def _texts(payloads: Sequence[bytes]) -> list[str]:
    return [each.decode(errors="replace").strip() for each in payloads]


def _number(payloads: Sequence[bytes]) -> Payload | None:
    values = [found for each in _texts(payloads) if (found := number_like(each)) is not None]
    if len(values) < _FITS * len(payloads):
        return None
    fields: dict[str, Found] = {}
    for value in values:
        _note(fields, ".", value)
    return Payload("number", {"kind": "number"}, list(fields.values()), share=len(values) / len(payloads))


def _nmea(payloads: Sequence[bytes]) -> Payload | None:
    sentences = [found for each in _texts(payloads) if (found := _NMEA.fullmatch(each))]
    if len(sentences) < _FITS * len(payloads):
        return None
    fields: dict[str, Found] = {}
    for sentence in sentences:
        address = sentence[1]
        short = address[2:] if len(address) == 5 and not address.startswith("P") else address
        for place, text in enumerate(sentence[2].split(","), 1):
            value = number_like(text)
            if text and place <= 99:
                _note(fields, f"{short}.{place}", text if value is None else value)
    numbers = [each for each in fields.values() if each.kind == "number"]
    if not numbers:
        return None
    places = {name_for(each.path): each.path for each in numbers}
    made = Payload("nmea", {"kind": "nmea", "fields": places}, share=len(sentences) / len(payloads))
    made.fields = list(fields.values())
    for each in made.fields:
        each.path = name_for(each.path)
    return made


def _key_value(payloads: Sequence[bytes]) -> Payload | None:
    texts = _texts(payloads)
    best: Payload | None = None
    for assign in ("=", ":"):
        for separator in (",", ";", "|", "&", " "):
            made = _pairs(texts, separator, assign)
            if made is not None and (best is None or len(made.numbers) > len(best.numbers)):
                best = made
    return best


def _pairs(texts: Sequence[str], separator: str, assign: str) -> Payload | None:
    fields: dict[str, Found] = {}
    good = 0
    for text in texts:
        pairs = [each.partition(assign) for each in text.split(None if separator == " " else separator)]
        names = [name.strip() for name, _, _ in pairs]
        if not all(sign for _, sign, _ in pairs) or not all(map(_NAME.fullmatch, names)):
            continue
        if len(set(names)) < len(names):
            continue
        good += 1
        for name, (_, _, value) in zip(names, pairs, strict=True):
            number = number_like(value)
            _note(fields, name, value.strip() if number is None else number)
    if good < _FITS * len(texts) or not any(each.kind == "number" for each in fields.values()):
        return None
    settings: dict[str, Any] = {"kind": "key_value"}
    defaults = KeyValueConfig()
    settings |= {"separator": separator} if separator != defaults.separator else {}
    settings |= {"assign": assign} if assign != defaults.assign else {}
    return Payload("key_value", settings, list(fields.values()), share=good / len(texts))


def _csv(payloads: Sequence[bytes]) -> Payload | None:
    texts = _texts(payloads)
    for separator, decimal in _SEPARATORS:
        rows = [each.split(separator) for each in texts]
        (count, often), *_ = Counter(map(len, rows)).most_common(1)
        if count < 2 or often < _FITS * len(texts):
            continue
        made = _columns([row for row in rows if len(row) == count], separator, decimal)
        if made is not None:
            made.share = often / len(texts)
            return made
    return None


def _columns(rows: Sequence[Sequence[str]], separator: str, decimal: str) -> Payload | None:
    """Rows of as many numbers each; an empty field is a number that is missing."""
    names = [f"c{place}" for place in range(1, len(rows[0]) + 1)]
    fields = {name: Found(name, "number") for name in names}
    good = 0
    used = False
    for row in rows:
        texts = [each.strip() for each in row]
        if decimal == "," and any("." in each for each in texts):
            return None
        used |= any("," in each for each in texts)
        values = [number_like(each.replace(decimal, ".")) for each in texts]
        if any(value is None and text for value, text in zip(values, texts, strict=True)):
            continue
        good += 1
        for name, value in zip(names, values, strict=True):
            if value is not None:
                fields[name].note(value)
    if good < _FITS * len(rows) or (decimal == "," and not used):
        return None
    settings: dict[str, Any] = {"kind": "csv", "columns": names}
    settings |= {"separator": separator} if separator != "," else {}
    settings |= {"decimal": decimal} if decimal != "." else {}
    return Payload("csv", settings, list(fields.values()))


def _any_text(payloads: Sequence[bytes]) -> Payload | None:
    """Numbers in text: what stands between them becomes the pattern."""
    if not _is_text(payloads):
        return None
    texts = _texts(payloads)
    splits = [_NUMBER.split(each) for each in texts]
    (count, often), *_ = Counter(map(len, splits)).most_common(1)
    if count < 2 or count - 1 > _GROUPS_MOST or often < _FITS * len(texts):
        return None
    usual = [split for split in splits if len(split) == count]
    literals = [{split[place] for split in usual} for place in range(count)]
    parts = [_literal(each, edge=place in {0, count - 1}) for place, each in enumerate(literals)]
    names = _names(usual, count)
    pattern = parts[0] + "".join(
        rf"(?P<{name}>[-+]?[\d.]+(?:[eE][-+]?\d+)?){part}"
        for name, part in zip(names, parts[1:], strict=True)
    )
    settings = {"kind": "regex", "pattern": pattern}
    try:
        made = _decoded("regex", settings, names, payloads)
    except (ConfigError, ValueError):
        return None
    if made is None or len(pattern) > _PATTERN_MOST:
        return None
    if any(re.search(r"[-+]\s+$", each) for one in literals for each in one):
        made.note = "a sign stands apart from its number, and is not read"
    return made


def _literal(found: set[str], *, edge: bool) -> str:
    """What matches all of these, which stand between two numbers."""
    if len(found) == 1:
        return r"\s*".join(re.escape(each) for each in re.split(r"\s+", next(iter(found)))).replace(
            r"\ ", " "
        )
    return "" if edge else r"[^\d]*?" if "" in found else r"[^\d]+?"


def _names(usual: Sequence[Sequence[str]], count: int) -> list[str]:
    """By what stands before each number."""
    names: list[str] = []
    for place in range(count - 1):
        words = re.findall(r"[A-Za-z]\w*", usual[0][place])
        name = name_for(words[-1] if words else f"n{place + 1}", names).replace("-", "_")
        names.append(name)
    return names


def _decoded(
    kind: str, settings: Mapping[str, Any], names: Sequence[str], payloads: Sequence[bytes]
) -> Payload | None:
    """What a decoder of dxad's own finds in the messages, if it finds something in most."""
    section = plugin.load("decode", kind).config.model_validate(settings)
    assert isinstance(section, DecodeSection)
    made = decoder(section, names)
    fields = {name: Found(name, "number") for name in names}
    good = 0
    for each in payloads:
        try:
            values = made.decode(each)
        except DecodeError:
            continue
        good += 1
        for name, value in zip(names, values, strict=True):
            if value is not None:
                fields[name].note(value)
    if good < _FITS * len(payloads):
        return None
    return Payload(kind, dict(settings), list(fields.values()), share=good / len(payloads))


# --- packed numbers --------------------------------------------------------------------------------------


def _packed(payloads: Sequence[bytes]) -> Payload | None:
    if _is_text(payloads):
        return None
    (size, often), *_ = Counter(map(len, payloads)).most_common(1)
    if often < _FITS * len(payloads):
        return None
    layout = layout_of([each for each in payloads if len(each) == size])
    names = [f"f{place}" for place in range(1, layout.numbers + 1)]
    return _decoded("binary", {"kind": "binary", "format": layout.format, "fields": names}, names, payloads)
