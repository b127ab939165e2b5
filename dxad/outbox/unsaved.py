"""Records that are not durable yet: for a moment, or for as long as the disk fails."""

import asyncio
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from dxad.outbox.tables import Row
from dxad.types import Lane, Record

__all__ = ["Held", "Unsaved"]


@dataclass(slots=True, eq=False)
class Held:
    """One record, and who waits for it."""

    row: Row
    futures: list[asyncio.Future[int]] = field(default_factory=list)
    taken_by: set[str] = field(default_factory=set)
    """The sinks that have had it from memory."""
    refused_by: set[str] = field(default_factory=set)
    """Those that will be offered it again when it is on disk."""

    def resolve(self, seq: int) -> None:
        """It is durable, or it needs to be no more."""
        for each in self.futures:
            if not each.done():
                each.set_result(seq)

    def fail(self, error: BaseException) -> None:
        """It will not be stored. Whoever did not keep the future need not hear of it: it is counted."""
        for each in self.futures:
            if not each.done():
                each.set_exception(error)
                each.exception()


class Unsaved:
    """The records by lane, in the order they came."""

    def __init__(self) -> None:
        self.body_bytes = 0
        self._lanes: dict[Lane, dict[str, Held]] = {lane: {} for lane in Lane}

    def __len__(self) -> int:
        return sum(map(len, self._lanes.values()))

    def __iter__(self) -> Iterator[Held]:
        for lane in self._lanes.values():
            yield from lane.values()

    def add(self, record: Record, stored_utc: int, future: asyncio.Future[int]) -> None:
        """Hold a record; one of the same id is held once."""
        lane = self._lanes[record.lane]
        if record.id not in lane:
            lane[record.id] = Held(Row(record, stored_utc))
            self.body_bytes += len(record.body)
        lane[record.id].futures.append(future)

    def remove(self, held: Held) -> None:
        """Hold it no more."""
        record = held.row.record
        if self._lanes[record.lane].pop(record.id, None) is not None:
            self.body_bytes -= len(record.body)

    def find(self, record: Record) -> Held | None:
        """What is held under the record's id."""
        return self._lanes[record.lane].get(record.id)

    def oldest_of_the_least(self) -> Held:
        """What the quota takes first; there must be something."""
        lane = next(lane for lane in reversed(self._lanes.values()) if lane)
        return next(iter(lane.values()))

    def owed(self, sink: str, lanes: Collection[Lane]) -> Iterator[Record]:
        """What a sink that carries these lanes has not been offered from here."""
        for each in self:
            if each.row.record.lane in lanes and sink not in each.taken_by | each.refused_by:
                yield each.row.record
