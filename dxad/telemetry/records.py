"""From the contents of telemetry records to the outbox, and what became of them."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgpack

from dxad.errors import NotConnected
from dxad.event import Told, rfc3339
from dxad.outbox import Outbox
from dxad.runtime.clock import Clock
from dxad.runtime.metrics import Metrics
from dxad.types import Document

__all__ = ["About", "Records"]


@dataclass(frozen=True, slots=True)
class About:
    """What one or several records are about."""

    kind: str
    """The end of the event's type."""
    subject: str
    at: int
    """The stream time of row 0, or of all of it."""


class Records:
    """Writes the records of one section of telemetry, and counts them."""

    def __init__(self, name: str, *, gateway: str, outbox: Outbox, clock: Clock, metrics: Metrics) -> None:
        """Write them as telemetry `name` of the gateway."""
        self.name = name
        self.waiting = 0
        """Bytes that are not on the disk yet."""
        self._gateway = gateway
        self._outbox = outbox
        self._clock = clock
        self._stored = metrics.counter("dxad_telemetry_records_total", telemetry=name)
        self._bytes = metrics.counter("dxad_telemetry_bytes_total", telemetry=name)
        self._lost = metrics.counter("dxad_telemetry_records_lost_total", telemetry=name)

    def write(
        self, about: About, contents: Sequence[Document], on_settled: Callable[[], None] | None = None
    ) -> None:
        """Have records stored, one of each of the `contents`, at least one.

        `on_settled` is called when nobody need keep what they are made of any more: they are on the disk, or
        lost and counted. It is not if the outbox was closed before.
        """
        told = Told(self._outbox.boot.id, self._clock.synchronised)
        envelope = {
            "specversion": "1.0",
            "type": f"dxad.telemetry.{about.kind}",
            "source": f"/{self._gateway}/telemetry/{self.name}",
            "subject": about.subject,
            "time": rfc3339(self._clock.utc(about.at)),
            "datacontenttype": "application/json",
            **told.attributes(about.at),
        }
        bodies = [msgpack.packb({**envelope, "data": data}) for data in contents]
        size = sum(map(len, bodies))
        self.waiting += size
        stored = self._outbox.append_bulk(bodies, at_ns=[about.at] * len(bodies))

        def settle(stored: asyncio.Future[Any]) -> None:
            self.waiting -= size
            error = None if stored.cancelled() else stored.exception()
            if error is None and not stored.cancelled():
                self._stored.add(len(bodies))
                self._bytes.add(size)
            else:
                self._lost.add(len(bodies))
            if on_settled is not None and not stored.cancelled() and not isinstance(error, NotConnected):
                on_settled()

        stored.add_done_callback(settle)

    def snapshot(self) -> Document:
        """What became of them, as a JSON object."""
        return {
            "records": self._stored.value,
            "bytes": self._bytes.value,
            "waiting_bytes": self.waiting,
            "records_lost": self._lost.value,
        }
