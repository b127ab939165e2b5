"""What leaves the gateway, as CloudEvents.

Source: CloudEvents 1.0.2, https://github.com/cloudevents/spec (context attributes §3, JSON format). An
event's id is deterministic, so that a receiver can drop what it has seen: dxad delivers at least once.
"""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgpack

from dxad.types import Document, Lane, Record

__all__ = ["CONTENT_TYPE_BATCH", "Event", "decode", "identity", "rfc3339", "to_record"]

CONTENT_TYPE_BATCH: Final = "application/cloudevents-batch+json"

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


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

    def document(self) -> Document:
        """The event in the JSON format's structure."""
        return {
            "specversion": "1.0",
            "id": self.id,
            "type": self.type,
            "source": self.source,
            "time": rfc3339(self.time_utc),
            **({"subject": self.subject} if self.subject else {}),
            "datacontenttype": "application/json",
            "data": self.data,
        }


def to_record(event: Event) -> Record:
    """The event as the outbox stores it."""
    return Record(event.id, event.lane, msgpack.packb(event.document()))


def decode(record: Record) -> Document:
    """The stored event as a JSON object; what was stored in bulk has its id from the outbox."""
    document: Any = msgpack.unpackb(record.body)
    assert isinstance(document, dict)
    document.setdefault("id", record.id)
    return document


def identity(*parts: object) -> str:
    """32 hex digits that depend on nothing but the parts: the same fact has the same id after a restart."""
    return hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=16).hexdigest()


def rfc3339(utc_ns: int) -> str:
    """A UTC time with microseconds, as RFC 3339 writes it."""
    moment = _EPOCH + timedelta(microseconds=utc_ns // 1000)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
