"""What leaves the gateway, as CloudEvents.

Source: CloudEvents 1.0.2, https://github.com/cloudevents/spec (context attributes §3, JSON format). An
event's id is deterministic, so that a receiver can drop what it has seen: dxad delivers at least once.

Extension attributes say how far its `time` can be trusted: `bootid` and `boottime` (nanoseconds since that
boot, in decimal: a clock that nobody can set), and `clockok`, whether the wall clock was kept right. An event
whose `time` was a guess is dated anew once the clock is right, if it has not left by then (`decode`).
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgpack

from dxad.types import Document, Lane, Record

__all__ = [
    "CONTENT_TYPE_BATCH",
    "STEP_NS",
    "Event",
    "Told",
    "decode",
    "identity",
    "rfc3339",
    "to_record",
    "utc_ns",
]

CONTENT_TYPE_BATCH: Final = "application/cloudevents-batch+json"

STEP_NS: Final = 1_500_000_000
"""A wall clock that moves by more was set: what was told has a wrong date. A leap second is no such step."""
_ALIKE_NS: Final = 1_000_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_US: Final = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)
_LAST_US: Final = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened."""

    id: str
    type: str
    """Reverse-less DNS name as dxad's own: `dxad.incident.opened`."""
    source: str
    """Where it happened: `/gateway/pipelines/name`."""
    time_utc: int
    """Nanoseconds."""
    data: Document
    subject: str = ""
    """What it is about, the same for all events of one incident."""
    lane: Lane = Lane.NORMAL
    at: int | None = None
    """The stream time at which it happened; None where nobody knows: then `time_utc` is all there is."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    """Further extension attributes; a name has lower case letters and digits."""
    replaces: str = ""
    """How the ids of events begin of which only the newest is worth delivering; empty where all are."""

    def document(self, told: "Told | None" = None) -> Document:
        """The event in the JSON format's structure."""
        return {
            "specversion": "1.0",
            "id": self.id,
            "type": self.type,
            "source": self.source,
            "time": rfc3339(self.time_utc),
            **({"subject": self.subject} if self.subject else {}),
            "datacontenttype": "application/json",
            **({} if told is None or self.at is None else told.attributes(self.at)),
            **self.attributes,
            "data": self.data,
        }


@dataclass(frozen=True, slots=True)
class Told:
    """The circumstances under which events are told."""

    boot: str
    """Of which stream times are."""
    clock_ok: bool
    """Whether the wall clock is kept right, so that UTC is no guess."""

    def attributes(self, at: int) -> dict[str, Any]:
        """As extension attributes of an event that happened at the stream time `at`."""
        return {"bootid": self.boot, "boottime": str(at), "clockok": self.clock_ok}


def to_record(event: Event, told: Told | None = None) -> Record:
    """The event as the outbox stores it."""
    return Record(event.id, event.lane, msgpack.packb(event.document(told)), at_ns=event.at or 0)


def decode(record: Record) -> Document:
    """The stored event as a JSON object; what was stored in bulk has its id from the outbox.

    It is dated by what is known now of the boot in which it happened.
    """
    document: Any = msgpack.unpackb(record.body)
    assert isinstance(document, dict)
    document.setdefault("id", record.id)
    return _dated(document, record)


def _dated(document: Document, record: Record) -> Document:
    """The event with its right time, if it was told a wrong one.

    What was told while the clock was not kept right has the boot's offset as it is known now; what was told
    while it was, only if the clock turned out to be wrong. Every UTC in the event moves by as much.
    """
    boot = record.boot
    if not boot.id or document.get("bootid") != boot.id:
        return document
    told = utc_ns(document["time"])
    off = record.utc_ns - told
    if abs(off) > (STEP_NS if document["clockok"] else _ALIKE_NS):
        document["time"] = rfc3339(told + off)
        if "expiresat" in document:
            document["expiresat"] = rfc3339(utc_ns(document["expiresat"]) + off)
        data = document["data"]
        for name, value in data.items():
            if name.endswith("_utc_ns") and isinstance(value, int):
                data[name] = value + off
    document["clockok"] = document["clockok"] or boot.clock_ok
    return document


def identity(*parts: object) -> str:
    """32 hex digits that depend on nothing but the parts: the same fact has the same id after a restart."""
    return hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=16).hexdigest()


def rfc3339(utc: int) -> str:
    """A UTC time in nanoseconds, as RFC 3339 writes it, with microseconds.

    It has words for the years 1 to 9999, and a wall clock may be set to anything: what is beyond is cut.
    """
    moment = _EPOCH + timedelta(microseconds=min(max(utc // 1000, _FIRST_US), _LAST_US))
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def utc_ns(text: str) -> int:
    """What `rfc3339` has written, in nanoseconds; exact to the microsecond.

    Raises:
        ValueError: it is no such time.
    """
    return (datetime.fromisoformat(text) - _EPOCH) // timedelta(microseconds=1) * 1000
