"""What leaves the gateway, as CloudEvents.

Source: CloudEvents 1.0.2, https://github.com/cloudevents/spec (context attributes §3, JSON format). An
event's id is deterministic, so that a receiver can drop what it has seen: dxad delivers at least once.

Extension attributes say how far its `time` can be trusted: `bootid` and `boottime` (nanoseconds since that
boot, in decimal: a clock that nobody can set), and `clockok`, whether the wall clock was kept right. An event
whose `time` was a guess is dated anew once the clock is right, if it has not left by then (`outbox/dating.py`).
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
"""A wall clock that moves by more was set, and times that were told are wrong; a leap second is no such step."""
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
    return Record(event.id, event.lane, msgpack.packb(event.document(told)))


def decode(record: Record) -> Document:
    """The stored event as a JSON object; what was stored in bulk has its id from the outbox."""
    document: Any = msgpack.unpackb(record.body)
    assert isinstance(document, dict)
    document.setdefault("id", record.id)
    return document


def identity(*parts: object) -> str:
    """32 hex digits that depend on nothing but the parts: the same fact has the same id after a restart."""
    return hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=16).hexdigest()


def rfc3339(utc: int) -> str:
    """A UTC time in nanoseconds with microseconds, as RFC 3339 writes it; what it has no words for, at its ends.

    It can write the years 1 to 9999: a wall clock may be set to anything.
    """
    moment = _EPOCH + timedelta(microseconds=min(max(utc // 1000, _FIRST_US), _LAST_US))
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def utc_ns(text: str) -> int:
    """What `rfc3339` has written, in nanoseconds; exact to the microsecond.

    Raises:
        ValueError: it is no such time.
    """
    return (datetime.fromisoformat(text) - _EPOCH) // timedelta(microseconds=1) * 1000
