"""An instrument that speaks only when it is asked: polled on the source's grid.

The requests are those of the configuration, and nothing else is ever sent. Which question an answer belongs
to is known by its time alone. So there is one question at a time, what came before it is thrown away, and
after one that got no answer the line rests until a late one must have come.

Several instruments on one line (RS-485) are channels with a question each, such as one with an address in it.
One that is dead is asked more and more rarely, so that it does not cost the others their time.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from dxad.decode import ABSENT, stamp
from dxad.errors import DecodeError, NotConnected
from dxad.links.framing import Broken
from dxad.links.serial import SerialLink
from dxad.ring.schedule import Schedule
from dxad.ring.stage import Stage
from dxad.runtime.clock import Clock
from dxad.sources.serial.section import Config, Question
from dxad.types import NS_PER_S, Block, Channel, Quality, Reason

__all__ = ["AskedSerial"]

_SILENT_MOST: Final = 3
"""Polls in a row without any answer, after which the port is opened anew."""
_FRAMES_MOST: Final = 16
"""Frames that are kept for each question: a device may talk without being asked."""
_AGAIN_LEAST: Final = NS_PER_S
_AGAIN_MOST: Final = 60 * NS_PER_S
_SHARE: Final = 10
"""Of the line's time, a question that nobody answers takes one part in so many."""
_NAN: Final = float("nan")


@dataclass(frozen=True, slots=True)
class _Answer:
    values: Sequence[float | None]
    """Of the question's columns, and the time where there is one; none without a sound answer."""
    fault: str = ""
    """Why there is none; nothing where nothing came at all."""
    kind: str = "timeout"
    """What such faults are counted as."""


class _Turn:
    """A question, and how long it has been without an answer."""

    def __init__(self, question: Question) -> None:
        self.question = question
        self.misses = 0
        """Times in a row."""
        self.ask_at = 0
        """The stream time before which it is not asked."""

    def answered(self) -> None:
        """Somebody is there."""
        self.misses, self.ask_at = 0, 0

    def missed(self, now: int, cost: int) -> None:
        """Nobody was, which has taken the line for so many nanoseconds."""
        self.misses += 1
        if self.misses >= _SILENT_MOST:
            wait = max(_AGAIN_LEAST, _SHARE * cost)
            self.ask_at = now + min(wait << min(self.misses - _SILENT_MOST, 10), max(wait, _AGAIN_MOST))


class AskedSerial:
    """Asks all questions, one after the other, once per slot."""

    def __init__(self, name: str, config: Config, *, clock: Clock) -> None:
        self.channels: Sequence[Channel] = config.declared(name)
        self._wrong: Counter[str] = Counter()
        self._asked = {"asked": 0, "answered": 0}
        self._config = config
        self._clock = clock
        period = config.period or NS_PER_S
        self._schedule = Schedule(period=period, lateness=config.slot_lateness(period), clock=clock)
        self._quiet = config.timeout if config.quiet is None else config.quiet
        self._turns = [_Turn(each) for each in config.questions()]
        self._framer = config.framer()
        self._stage = Stage(len(self.channels))
        self._link: SerialLink | None = None
        self._lost = "not connected"
        self._came: list[bytes | Broken] = []
        self._news = asyncio.Event()
        self._rests_until = 0
        self._silent = 0
        """Polls in a row without any answer."""
        self._malformed: list[str] = []
        """Of the last poll; told before the next."""

    @property
    def skipped(self) -> int:
        """Slots in which no poll could begin because the one before took too long."""
        return self._schedule.skipped

    @property
    def faults(self) -> Mapping[str, int]:
        """What came instead of an answer, and how often."""
        return self._wrong

    @property
    def traffic(self) -> Mapping[str, int]:
        """Questions that were asked, and those with a sound answer; the others are among the faults."""
        return self._asked

    async def connect(self) -> None:
        """Open the port anew.

        Raises:
            NotConnected: it is not there, or somebody else has it.
            ConfigError: it cannot be set so.
        """
        await self.close()
        self._schedule.restart()
        self._silent, self._rests_until = 0, 0
        self._malformed.clear()
        for turn in self._turns:
            turn.answered()
        link = SerialLink(self._config.where, on_data=self._received, on_lost=self._lose)
        link.open()
        self._link, self._lost = link, ""

    def _received(self, data: bytes) -> None:
        self._came += self._framer.frames(data)
        del self._came[: -_FRAMES_MOST * len(self._turns)]
        self._news.set()

    def _lose(self, reason: str) -> None:
        self._lost = self._lost or reason
        self._link = None
        self._news.set()

    async def read(self) -> Block:
        """Wait for the next slot, ask everything, and seal it.

        Raises:
            NotConnected: the device hung up, or has not answered for three polls.
            DecodeError: answers of the poll before were malformed; its samples have been read.
        """
        if self._malformed:
            told, self._malformed = self._malformed, []
            raise DecodeError(f"{len(told)} answers rejected, the first: {told[0]}", rejected=len(told))
        self._link_or_raise()
        # A late answer to the poll before would have come by then.
        slot = await self._schedule.next_slot(not_before=self._rests_until)
        self._stage.take()  # what a cancelled poll has left
        malformed: list[str] = []
        heard = False
        for turn in self._turns:
            answer = await self._taken(turn)
            heard |= bool(answer.values or answer.fault)
            if answer.fault:
                malformed.append(answer.fault)
            self._put(turn.question, answer, self._schedule.arrival(slot))
        self._silent = 0 if heard else self._silent + 1
        if self._silent >= _SILENT_MOST:
            waited = self._config.timeout / NS_PER_S
            raise NotConnected(f"{self._config.port}: no answer within {waited:g} s, {self._silent} times")
        self._malformed = malformed
        return Block(self._stage.take(), through=self._schedule.end(slot))

    def _link_or_raise(self) -> SerialLink:
        if self._link is None:
            raise NotConnected(self._lost)
        return self._link

    async def _taken(self, turn: _Turn) -> _Answer:
        """The answer to a question, if it is its turn."""
        if self._clock.now() < turn.ask_at:
            return _Answer(())
        answer = await self._ask(turn.question)
        if answer.values or answer.fault:
            turn.answered()
        else:
            turn.missed(self._clock.now(), self._config.timeout + self._quiet)
        if answer.values:
            self._asked["answered"] += 1
        else:
            self._wrong[answer.kind] += 1
        return answer

    async def _ask(self, question: Question) -> _Answer:
        """Send a request, and wait for the first answer that is sound."""
        await self._clock.sleep_until(self._rests_until)
        link = self._link_or_raise()
        self._framer.join(at_begin=True)
        self._came.clear()
        wrong = _Answer(())
        answered = False
        try:
            async with asyncio.timeout(self._config.timeout / NS_PER_S):
                link.ask(question.request)
                self._asked["asked"] += 1
                while True:
                    answer = self._understood(question, await self._next_frame())
                    if answer.values:
                        answered = True
                        return answer
                    if answer.fault and not wrong.fault:
                        wrong = answer
        except TimeoutError:
            return wrong
        finally:
            if not answered:  # cancelled reads too: the answer may still come
                self._rests_until = self._clock.now() + self._quiet

    def _understood(self, question: Question, frame: bytes | Broken) -> _Answer:
        if isinstance(frame, Broken):
            return _Answer((), frame.reason, frame.kind)
        if frame.strip() == question.request.strip():  # two-wire adapters hear themselves
            return _Answer(())
        try:
            return _Answer(question.decoder.decode(frame))
        except DecodeError as error:
            return _Answer((), str(error), "malformed")

    async def _next_frame(self) -> bytes | Broken:
        while not self._came:
            self._link_or_raise()
            self._news.clear()
            await self._news.wait()
        return self._came.pop(0)

    def _put(self, question: Question, answer: _Answer, arrival: int) -> None:
        values, at = answer.values, 0
        if self._config.time is not None and values:
            *values, time = values
            at = stamp(time)
        self._stage.begin(arrival, stamp=at)
        if not values:
            reason = Reason.TYPE if answer.fault else Reason.TIMEOUT
            for column in question.columns:
                self._stage.put(column, _NAN, Quality.BAD, reason)
            return
        for column, value in zip(question.columns, values, strict=True):
            if value is None or value is ABSENT:
                self._stage.put(column, _NAN, Quality.BAD, Reason.TYPE)
            else:
                self._stage.put(column, value)

    async def close(self) -> None:
        """Close the port; safe twice, and without `connect`."""
        link, self._link = self._link, None
        if link is not None:
            link.close()
            self._lost = self._lost or "closed"
            self._news.set()
