"""Where readings come from: one file per type, and what their callbacks and `read` meet in.

callback ── put, reject, lose ──▶ Inbox ── block ──▶ read
              ▲
payloads ── Intake, by a decoder
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from dxad.decode import ABSENT, Bulk, Decoder, Partial, Picking, Sampled, stamp
from dxad.errors import FOREIGN_FAULTS, DecodeError, NotConnected
from dxad.fields import SourceSection
from dxad.ring.stage import Stage
from dxad.types import F8, Block, Quality, Reason

__all__ = ["Inbox", "Intake"]

_NAN: Final = float("nan")
_NUMBERS: Final = frozenset({float, int})
"""The types of what decoders find; true and false are of none of them."""
_UNPICKED: Final = (DecodeError, *FOREIGN_FAULTS)
_GATHERED_MOST: Final = 5_000
"""Values that may wait to be looked at together; with more it costs no less."""
_TOLD_MOST: Final = 200
"""Characters of what is said of a malformed message: it may quote the message."""


@dataclass(slots=True)
class Gathered:
    """Messages that came together, to be decoded together."""

    messages: "list[tuple[Intake, int, bytes]]" = field(default_factory=list)
    """With the stream time at which each came."""
    width: int = 0
    """How many values they will make."""


class Inbox:
    """What a link brings until `read` fetches it: samples, then malformed messages, then its loss.

    In this order, so that neither a malformed message nor a loss takes good samples with it.
    """

    def __init__(self, section: SourceSection, *, hold: Callable[[bool], None] | None = None) -> None:
        """Hold as many samples as the section's `queue` says.

        With `overflow = "block"`, `hold` is called with True when half of the room is taken, so that what is
        on its way still fits, and with False when all has been read.
        """
        self._stage = Stage(section.queue, section.overflow)
        self._hold = hold if section.overflow == "block" else None
        self._capacity = section.queue
        self._half = section.queue // 2
        self._holding = False
        self._news = asyncio.Event()
        self._lost: str | None = "not connected"
        self._rejected = 0
        self._first_rejected = ""
        self._remark = ""
        self.gathered = Gathered()
        self.patience_s = 0.0
        """How long a first sample waits for others, so that all are read at once, while there is room."""
        self._due: asyncio.TimerHandle | None = None

    @property
    def overflowed(self) -> int:
        """Samples dropped because nobody read them."""
        return self._stage.overflowed

    @property
    def came(self) -> int:
        """How many messages came: good ones, malformed ones, and those that found no room."""
        return self._stage.messages + len(self.gathered.messages)

    @property
    def room(self) -> float:
        """The share of it that is free."""
        return self._stage.room / self._capacity

    @property
    def idle(self) -> bool:
        """Whether there is nothing to read."""
        nothing_wrong = not self._rejected and not self._remark
        return not len(self._stage) and nothing_wrong and not self.gathered.messages

    @property
    def blocks(self) -> bool:
        """Whether what comes is to wait as soon as there is half as much as may be."""
        return self._hold is not None

    def open(self) -> None:
        """There is a link from now on, and nothing holds it back."""
        self._lost = None
        self._holding = False

    def begin(self, arrival: int, *, stamp: int = 0) -> None:
        """Start a message that arrived at this stream time; `stamp` is the device's own, UTC ns, or 0."""
        self.commit()
        self._stage.begin(arrival, stamp=stamp)

    def put(
        self, column: int, value: float | None, quality: Quality = Quality.GOOD, reason: Reason = Reason.NONE
    ) -> None:
        """Add one sample of the message that was begun last; a value that is None makes it BAD."""
        if value is not None:
            self._stage.put(column, value, quality, reason)
        else:
            self._stage.put(column, _NAN, Quality.BAD, reason or Reason.TYPE)
        self._tell()

    def message(
        self,
        arrival: int,
        columns: Iterable[int],
        values: Sequence[float | None],
        *,
        stamp: int = 0,
        quality: Quality = Quality.GOOD,
        reason: Reason = Reason.NONE,
    ) -> None:
        """Add a decoded message; a value that is None makes a BAD sample, the others are of this quality."""
        self.commit()
        stage = self._stage
        stage.begin(arrival, stamp=stamp)
        for column, value in zip(columns, values, strict=True):
            if value is not None:
                stage.put(column, value, quality, reason)
            else:
                stage.put(column, _NAN, Quality.BAD, Reason.TYPE)
        self._tell()

    def messages(self, arrival: int, values: F8) -> bool:
        """Add rows of all columns, a message each; NaN makes a BAD sample. False: they find no room."""
        self.commit()
        if not self._stage.put_many(arrival, values):
            return False
        self._tell()
        return True

    def commit(self) -> None:
        """Add what was gathered, before anything else is; what is no finite number makes a BAD sample."""
        messages = self.gathered.messages
        if not messages:
            return
        self.gathered = Gathered()
        while messages:
            values, stamps, good = _found(messages)
            if good and not self._put_gathered(messages[:good], values, stamps):
                for intake, arrival, payload in messages[:good]:  # not all find room: its policy says which
                    intake.take(arrival, payload)
            for intake, arrival, payload in messages[good : good + 1]:  # its decoder says what is wrong
                intake.take(arrival, payload)
            messages = messages[good + 1 :]

    def _put_gathered(
        self, messages: "Sequence[tuple[Intake, int, bytes]]", found: list[Any], stamps: Sequence[int]
    ) -> bool:
        if not _NUMBERS.issuperset(map(type, found)):
            found = [each if type(each) in _NUMBERS else _NAN for each in found]
        values = np.array(found, np.float64)
        finite = np.isfinite(values)
        wrong = None
        if not finite.all():
            wrong = ~finite
            values[wrong] = _NAN
        columns = np.frombuffer(b"".join([intake.packed for intake, _, _ in messages]), np.int32)
        widths = [intake.width for intake, _, _ in messages]
        arrivals = [arrival for _, arrival, _ in messages]
        return self._stage.put_gathered(arrivals, values, columns, widths, stamps, wrong=wrong)

    def note_gathered(self) -> None:
        """There is more to read: what was gathered."""
        if self.gathered.width > min(_GATHERED_MOST, self._stage.room):
            self.commit()
        self._tell()

    def hurry(self) -> None:
        """Let what came be read now."""
        if self._due is not None:
            self._due.cancel()
        self._ripe()

    def _ripe(self) -> None:
        self._due = None
        self._news.set()

    def _tell(self) -> None:
        """There is something to read, and perhaps enough."""
        if not self.patience_s or self._stage.room <= self._half:
            self.hurry()
        elif self._due is None and not self._news.is_set():
            self._due = asyncio.get_running_loop().call_later(self.patience_s, self._ripe)
        if self._hold is not None and not self._holding and self._stage.room <= self._half:
            self._holding = True
            self._hold(True)

    def reject(self, arrival: int, error: DecodeError | str) -> None:
        """Count a malformed message; it took its place in an evenly sampled stream all the same."""
        self.commit()
        self._stage.begin(arrival)
        self._rejected += 1
        self._first_rejected = self._first_rejected or str(error)[:_TOLD_MOST]
        self._tell()

    def remark(self, what: str) -> None:
        """Tell, at the next read, what is wrong with no message that came."""
        self._remark = what
        self._tell()

    def lose(self, reason: str) -> None:
        """The link is gone; the first reason stands until the next `open`."""
        self._lost = self._lost or reason
        self.hurry()

    async def block(self) -> Block:
        """All samples that came since the last call, at least one.

        Raises:
            DecodeError: messages were malformed; the good ones among them have been read. Or something was
                remarked, and none was.
            NotConnected: the link is gone, and all that came before has been read.
        """
        while self._due is not None or not self._waiting():
            if self._due is None:
                if self._remark:
                    remark, self._remark = self._remark, ""
                    raise DecodeError(remark, rejected=0)
                if self._rejected:
                    count, first = self._rejected, self._first_rejected
                    self._rejected, self._first_rejected = 0, ""
                    raise DecodeError(f"{count} messages rejected, the first: {first}", rejected=count)
                if self._lost is not None:
                    raise NotConnected(self._lost)
                self._news.clear()
            await self._news.wait()
        self._news.clear()
        samples = self._stage.take()
        if self._holding and self._hold is not None:
            self._holding = False
            self._hold(False)
        return Block(samples)

    def _waiting(self) -> int:
        """How many samples can be read."""
        self.commit()
        return len(self._stage)


class Intake:
    """Decodes payloads of one kind into an inbox."""

    def __init__(
        self, inbox: Inbox, decoder: Decoder, columns: Sequence[int], *, timed: bool, all_columns: bool
    ) -> None:
        """Decode by `decoder`, whose values are those of `columns`.

        Args:
            inbox: where they go.
            decoder: of the payloads.
            columns: which channels they are.
            timed: the decoder's last value is the sample's own time.
            all_columns: `columns` are all channels of the source, in their order.
        """
        self._inbox = inbox
        self._decoder = decoder
        self._columns = columns
        self.width = len(columns)
        """How many values a message has."""
        self.packed = np.array(columns, np.int32).tobytes()
        """The columns of its values, as they stand in samples."""
        self.timed = timed
        self._sampled = decoder if isinstance(decoder, Sampled) else None
        self._partial = isinstance(decoder, Partial) and decoder.partial
        plain = self._sampled is None and not self._partial and not inbox.blocks
        self._gathered_most = -1
        """Bytes; no larger payloads are gathered."""
        self.load: Callable[[bytes], Any] = bytes
        self.find: Callable[[Any], Sequence[Any]] = list
        if plain and isinstance(decoder, Picking):
            self._gathered_most, self.load, self.find = decoder.max_payload, decoder.load, decoder.find
        self._bulk = decoder if all_columns and not timed and isinstance(decoder, Bulk) else None

    def take(
        self, now: int, payload: bytes, quality: Quality = Quality.GOOD, reason: Reason = Reason.NONE
    ) -> None:
        """Add what a payload holds, or count it as malformed."""
        try:
            if self._sampled is not None:
                for each in self._sampled.decode_samples(payload):
                    self._put(now, each, quality, reason)
                return
            values = self._decoder.decode(payload)
        except DecodeError as error:
            self._inbox.reject(now, error)
            return
        except FOREIGN_FAULTS as error:  # it may be somebody else's; the next message may be a better one
            self._inbox.reject(now, f"its decoder fails: {type(error).__name__}: {error}")
            return
        self._put(now, values, quality, reason)

    def gather(self, now: int, payload: bytes) -> bool:
        """Put a message aside to be decoded with others; False: it wants to be taken by itself."""
        if len(payload) > self._gathered_most:
            return False
        gathered = self._inbox.gathered
        gathered.messages.append((self, now, payload))
        gathered.width += self.width
        return True

    def take_all(self, now: int, payloads: Sequence[bytes]) -> bool:
        """Add many payloads at once; False: it cannot be done, and nothing was added."""
        if self._bulk is None:
            return False
        values = self._bulk.decode_many(payloads)
        return values is not None and self._inbox.messages(now, values)

    def _put(self, now: int, values: Sequence[float | None], quality: Quality, reason: Reason) -> None:
        at = 0
        if self.timed and values:
            *values, time = values
            at = stamp(time)
        if not self._partial:
            self._inbox.message(now, self._columns, values, stamp=at, quality=quality, reason=reason)
        elif values:
            self._inbox.begin(now, stamp=at)
            for column, value in zip(self._columns, values, strict=True):
                if value is not ABSENT:
                    self._inbox.put(column, value, quality if value is not None else Quality.BAD, reason)


def _found(messages: Sequence[tuple[Intake, int, bytes]]) -> tuple[list[Any], list[int], int]:
    """What the messages hold, up to the first that is not as it should be.

    Returns:
        all values, number or not; the time of each message, where they have one; of how many messages.
    """
    values: list[Any] = []
    stamps: list[int] = []
    good = 0
    try:
        for intake, _, payload in messages:
            found = intake.find(intake.load(payload))
            if intake.timed:
                *found, at = found
                if type(at) not in _NUMBERS:
                    break
                stamps.append(stamp(float(at)))  # as `decode` gives it
            values += found
            good += 1
    except _UNPICKED:
        pass
    return values, stamps, good
