"""Records that are not durable yet: for a moment, or for as long as the disk fails."""

import asyncio
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Final

from dxad.outbox.segments import Bulk
from dxad.types import Boot, Lane, Record

__all__ = ["Batch", "Held", "Unsaved"]


_NOBODY: Final[frozenset[str]] = frozenset()


@dataclass(slots=True, eq=False)
class Held:
    """One record, and who waits for it."""

    record: Record
    futures: list[asyncio.Future[int]]
    replaces: str = ""
    """How the ids begin of which only the newest is wanted; empty where all are."""
    before: int = 0
    """The ordinal of the next record that would come in bulk: batches from there on came later."""
    taken_by: frozenset[str] = _NOBODY
    """The sinks that have had it from memory."""
    refused_by: frozenset[str] = _NOBODY
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


@dataclass(slots=True, eq=False)
class Batch:
    """Bulk records that came together, and who waits for them."""

    ordinal: int
    bodies: Sequence[bytes]
    at_ns: Sequence[int]
    future: asyncio.Future[int]
    body_bytes: int
    under_way: bool = False
    """Whether a commit has it."""

    def resolve(self, seq: int) -> None:
        """They are durable; `seq` is the last one's."""
        if not self.future.done():
            self.future.set_result(seq)

    def fail(self, error: BaseException) -> None:
        """They will not be stored."""
        if not self.future.done():
            self.future.set_exception(error)
            self.future.exception()


class _Whole:
    """Tells whoever waits for a batch what became of its records, one by one."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._left = len(batch.bodies)
        self._seq = 0

    def note(self, done: asyncio.Future[int], *, last: bool) -> None:
        """One more is durable, or lost; the place of the batch is that of its last record."""
        self._left -= 1
        error = done.exception()
        if error is not None:
            self._batch.fail(error)
            return
        if last:
            self._seq = done.result()
        if not self._left:
            self._batch.resolve(self._seq)


class Unsaved:
    """The records by lane, in the order they came; those that came in bulk, in batches."""

    def __init__(self, stream: str) -> None:
        """Name bulk records STREAM-ORDINAL."""
        self.body_bytes = 0
        self.batches: list[Batch] = []
        self._stream = stream
        self._ordinal = 0
        self._lanes: dict[Lane, dict[str, Held]] = {lane: {} for lane in Lane}

    def __len__(self) -> int:
        singles = sum(map(len, self._lanes.values()))
        return singles + sum(len(each.bodies) for each in self.batches) if self.batches else singles

    def __iter__(self) -> Iterator[Held]:
        for lane in self._lanes.values():
            yield from lane.values()

    def add(self, record: Record, future: asyncio.Future[int], *, replaces: str = "") -> None:
        """Hold a record; one of the same id is held once."""
        lane = self._lanes[record.lane]
        held = lane.get(record.id)
        if held is None:
            lane[record.id] = Held(record, [future], replaces, self._ordinal)
            self.body_bytes += len(record.body)
        else:
            held.futures.append(future)

    def date(self, boot: Boot) -> None:
        """This is known now of the boot they come from."""
        for each in self:
            each.record = replace(each.record, boot=boot)

    def add_batch(self, bodies: Sequence[bytes], at_ns: Sequence[int], future: asyncio.Future[int]) -> None:
        """Hold bulk records."""
        size = sum(map(len, bodies))
        self.batches.append(Batch(self._ordinal, bodies, at_ns, future, size))
        self._ordinal += len(bodies)
        self.body_bytes += size

    def bulk(self, batches: Sequence[Batch]) -> Bulk | None:
        """Batches that follow each other, as one segment; None if there are none."""
        if not batches:
            return None
        return Bulk(
            self._stream,
            batches[0].ordinal,
            [body for each in batches for body in each.bodies],
            [at_ns for each in batches for at_ns in each.at_ns],
        )

    def remove_batch(self, batch: Batch) -> None:
        """Hold it no more."""
        self.batches.remove(batch)
        self.body_bytes -= batch.body_bytes

    def take_apart(self, boot: Boot) -> None:
        """Hold the records of batches one by one, since sinks may be served from here for long."""
        for batch in [each for each in self.batches if not each.under_way]:
            self.remove_batch(batch)
            whole = _Whole(batch)
            later = [each for each in self._lanes[Lane.BULK].values() if each.before > batch.ordinal]
            end = batch.ordinal + len(batch.bodies)
            for n, (body, at_ns) in enumerate(zip(batch.bodies, batch.at_ns, strict=True), batch.ordinal + 1):
                one: asyncio.Future[int] = batch.future.get_loop().create_future()
                one.add_done_callback(partial(whole.note, last=n == end))
                record = Record(f"{self._stream}-{n - 1}", Lane.BULK, body, 0, boot, at_ns)
                self._lanes[Lane.BULK][record.id] = Held(record, [one], before=n)
                self.body_bytes += len(body)
            for each in later:  # of the same lane, and behind it as before
                self._lanes[Lane.BULK][each.record.id] = self._lanes[Lane.BULK].pop(each.record.id)

    def in_order(self, singles: Sequence[Held]) -> tuple[Sequence[Held], Sequence[Batch]]:
        """Of what one commit might take of each, what it may.

        It stores bulk records that came alone before those that came together. So it takes none that came
        behind a batch, and no batch that came behind one that it does not take.
        """
        alone = self._lanes[Lane.BULK]
        if not alone or not self.batches:
            return singles, self.batches
        first = self.batches[0].ordinal
        singles = [each for each in singles if each.record.lane is not Lane.BULK or each.before <= first]
        taken = sum(each.record.lane is Lane.BULK for each in singles)
        left = next(islice(alone.values(), taken, None), None)
        if left is None:
            return singles, self.batches
        return singles, [each for each in self.batches if each.ordinal < left.before]

    def remove(self, held: Held) -> None:
        """Hold it no more."""
        record = held.record
        if self._lanes[record.lane].pop(record.id, None) is not None:
            self.body_bytes -= len(record.body)

    def drop_replaced(self, by: Record, start: str) -> None:
        """Hold no more what a record makes void: those before it in its lane whose ids begin so."""
        for each in list(self._lanes[by.lane].values()):
            if each.replaces == start and each.record.id != by.id:
                self.remove(each)
                each.resolve(0)

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
            if each.record.lane in lanes and sink not in each.taken_by | each.refused_by:
                yield each.record
