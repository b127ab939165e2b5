"""One source into its ring: what is counted, what is told, and what happens when the link breaks."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import numpy as np
import pytest

from dxad.errors import Backoff as BackoffAsked
from dxad.errors import ConfigError, DecodeError, EndOfStream, NotConnected
from dxad.ingest import Ingest
from dxad.ringbuffer import RingBuffer
from dxad.runtime.backoff import Backoff
from dxad.runtime.clock import SteppedClock
from dxad.runtime.health import Health
from dxad.runtime.metrics import Metrics
from dxad.runtime.ticker import Ticker
from dxad.sources.memory import Config
from dxad.stage import Stage
from dxad.types import NS_PER_S, Block, Quality, Reason, State

PERIOD = NS_PER_S // 10
START = 1000 * PERIOD
NAN = float("nan")

HANG = object()
"""In a script: nothing comes, ever."""


class Scripted:
    """A source that does what the test says; when the script is over, nothing more comes."""

    def __init__(self, clock: SteppedClock) -> None:
        self.clock = clock
        self.stage = Stage(1000)
        self.connecting: list[Any] = []
        """One for each attempt; None connects."""
        self.reading: asyncio.Queue[Any] = asyncio.Queue()
        self.connects = 0
        self.closes = 0
        self.attempts: list[float] = []
        """When each attempt to connect was made, in seconds from the start."""

    async def connect(self) -> None:
        self.connects += 1
        self.attempts.append((self.clock.now() - START) / NS_PER_S)
        await self._do(self.connecting.pop(0) if self.connecting else None)

    async def read(self) -> Block:
        found = await self.reading.get()
        await self._do(found)
        return found

    async def _do(self, step: Any) -> None:
        if step is HANG:
            await asyncio.Event().wait()
        if isinstance(step, Exception):
            raise step

    async def close(self) -> None:
        self.closes += 1

    def then(self, *steps: Any) -> None:
        for step in steps:
            self.reading.put_nowait(step)

    def block(
        self, *values: float, column: int = 0, ago: int = 0, quality=Quality.GOOD, through: int | None = None
    ) -> Block:
        """One message per value, that arrived so many nanoseconds ago."""
        for value in values:
            self.stage.begin(self.clock.now() - ago)
            reason = Reason.DEVICE if quality is Quality.BAD else Reason.NONE
            self.stage.put(column, value, quality, reason)
        return Block(self.stage.take(), through=through)


class Rig:
    """An ingest with a scripted source, on a clock that is stepped; it ticks every 50 ms."""

    def __init__(self, channels: dict[str, Any] | None = None, **section: Any) -> None:
        self.clock = SteppedClock(start=START)
        self.health = Health(self.clock)
        self.metrics = Metrics()
        self.source = Scripted(self.clock)
        self.woken = 0
        section = {"period": "100ms", "max_silence": "1h"} | section
        channels = channels or {"a": {}, "b": {}}
        self.section = Config.model_validate({"type": "memory", "channels": channels, **section})
        period = self.section.period or 1
        self.ring = RingBuffer(
            self.section.declared("s"),
            period=period,
            slots=200,
            start=START // period if self.section.period else 0,
        )
        self.ingest = Ingest(
            "s", self.source, self.section, self.ring, clock=self.clock, health=self.health,
            metrics=self.metrics, backoff=Backoff(first_s=1.0, most_s=8.0, rng=HalfWay()), on_rows=self.wake,
        )  # fmt: skip
        self.ticker = Ticker(self.clock, period=PERIOD // 2, calls=[self.ingest.tick])

    def wake(self) -> None:
        self.woken += 1

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self.ingest.run()), asyncio.create_task(self.ticker.run())]
        await self.settle()
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    async def settle(self) -> None:
        await self.clock.step(0)

    async def step(self, seconds: float) -> None:
        await self.clock.step(round(seconds * NS_PER_S))

    async def deliver(self, *steps: Any) -> None:
        """Hand steps to the source and let the ingest take them."""
        self.source.then(*steps)
        await self.settle()

    def count(self, name: str, **labels: str) -> int:
        return self.metrics.total(f"dxad_{name}_total", source="s", **labels)

    def column(self, column: int = 0) -> tuple[list[float], list[State]]:
        reading = self.ring.read(self.ring.oldest, self.ring.sealed)
        states = [State(state) for state in reading.states[:, column]]
        return np.round(reading.values[:, column], 6).tolist(), states

    @property
    def conditions(self) -> dict[str, str]:
        return {each.code: each.detail for each in self.health.active}


class HalfWay:
    """A dice that always falls in the middle."""

    def uniform(self, low: float, high: float) -> float:
        return (low + high) / 2


def told(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("dxad")]


@pytest.fixture(autouse=True)
def _listening(caplog):
    caplog.set_level(logging.INFO)


@pytest.fixture
def rig() -> Rig:
    return Rig()


# Samples.


async def test_slots_are_sealed_one_period_after_they_ended_also_when_nothing_comes(rig):
    async with rig.running():
        await rig.step(0.15)
        assert rig.ring.sealed == START // PERIOD
        await rig.step(0.05)
        assert rig.ring.sealed == START // PERIOD + 1
        await rig.step(1.0)
        assert rig.ring.sealed == START // PERIOD + 11
    assert rig.count("rows_sealed") == 11
    assert set(rig.column()[1]) == {State.EMPTY}


async def test_a_sample_stands_in_the_slot_of_its_arrival_and_is_held_for_two_more(rig):
    async with rig.running():
        await rig.step(0.12)
        await rig.deliver(rig.source.block(5.0))
        await rig.step(1.0)
    values, states = rig.column()
    assert states[:5] == [State.EMPTY, State.GOOD, State.HELD, State.HELD, State.EMPTY]
    assert values[1:4] == [5.0, 5.0, 5.0]


async def test_every_sample_is_in_a_cell_or_counted(rig):
    rng = np.random.default_rng(0)
    sent = 0
    async with rig.running():
        for _ in range(200):
            await rig.step(float(rng.choice([0.001, 0.01, 0.07])))
            n = int(rng.integers(1, 5))
            ago = int(rng.choice([0, 0, 0, 150, 400])) * 1_000_000
            quality = Quality(int(rng.choice([0, 0, 1, 2])))
            column = int(rng.integers(0, 2))
            await rig.deliver(rig.source.block(*rng.normal(size=n), column=column, ago=ago, quality=quality))
            sent += n
        await rig.step(1.0)
    states = rig.ring.read(rig.ring.start, rig.ring.sealed).states
    filled = int(np.isin(states, (State.GOOD, State.UNCERTAIN, State.BAD)).sum())
    assert rig.ring.sealed - rig.ring.start < rig.ring.slots
    assert rig.count("samples_received") == sent
    assert sent == filled + rig.count("samples_folded") + rig.count("samples_late")
    assert rig.count("samples_late") > 0
    assert rig.count("rows_sealed") == rig.ring.sealed - rig.ring.start


@pytest.mark.parametrize(
    ("value", "reason"),
    [(-0.1, "range"), (400.1, "range"), (NAN, "type"), (float("inf"), "type"), (float("-inf"), "type")],
)
async def test_a_value_that_cannot_be_is_bad_and_counted_by_its_reason(value, reason):
    rig = Rig({"a": {"range": [0, 400]}, "b": {}})
    async with rig.running():
        await rig.deliver(rig.source.block(value), rig.source.block(400.0, column=1))
        await rig.step(0.2)
        assert rig.ring.reasons_at(rig.ring.sealed - 1)[0] == Reason[reason.upper()]
    values, states = rig.column()
    assert (np.isnan(values[0]), states[0]) == (True, State.BAD)
    assert rig.column(1) == ([400.0], [State.GOOD])
    assert rig.count("samples_rejected", reason=reason) == 1
    assert rig.ingest.snapshot()["rejected"] == {reason: 1}


@pytest.mark.parametrize("value", [NAN, float("inf"), float("-inf")])
async def test_a_number_that_is_not_finite_is_bad_without_a_range_too(rig, value):
    async with rig.running():
        await rig.deliver(rig.source.block(value))
        await rig.step(0.2)
    assert rig.column()[1] == [State.BAD]
    assert rig.count("samples_rejected", reason="type") == 1


async def test_what_the_device_calls_bad_is_counted_as_its_own_reason(rig):
    async with rig.running():
        await rig.deliver(rig.source.block(3.0, quality=Quality.BAD))
        await rig.step(0.2)
    assert rig.ingest.snapshot()["rejected"] == {"device": 1}


async def test_samples_of_a_sealed_slot_are_late_and_change_nothing(rig):
    async with rig.running():
        await rig.step(0.5)
        await rig.deliver(rig.source.block(9.0, ago=3 * PERIOD))
        await rig.step(0.5)
    assert rig.count("samples_late") == 1
    assert set(rig.column()[1]) == {State.EMPTY}


async def test_several_samples_of_a_slot_are_folded_as_the_channel_says():
    rig = Rig({"a": {"fold": "mean"}, "b": {}})
    async with rig.running():
        await rig.deliver(rig.source.block(1.0, 2.0, 6.0), rig.source.block(1.0, 2.0, 6.0, column=1))
        await rig.step(0.2)
    assert (rig.column(0)[0], rig.column(1)[0]) == ([3.0], [6.0])
    assert rig.count("samples_folded") == 4


async def test_a_block_of_a_finished_poll_seals_its_slot_at_once(rig):
    async with rig.running():
        await rig.step(0.01)
        through = START + PERIOD
        await rig.deliver(rig.source.block(5.0, through=through))
        assert rig.ring.sealed == START // PERIOD + 1
    assert rig.column() == ([5.0], [State.GOOD])


@pytest.mark.parametrize("period_s", [0.1, 5.0])
async def test_a_slot_waits_a_period_but_a_second_at_most_for_a_poll_that_is_under_way(monkeypatch, period_s):
    monkeypatch.setattr(Config, "polled", True)
    rig = Rig(period=f"{period_s * 1000:g}ms")
    wait_s = min(period_s, 1.0)
    async with rig.running():
        await rig.step(period_s + wait_s - 0.05)
        through = START + round(period_s * NS_PER_S)
        await rig.deliver(rig.source.block(5.0, ago=round(wait_s * NS_PER_S), through=through))
        assert rig.column() == ([5.0], [State.GOOD])
        await rig.step(period_s + 0.05)
    assert rig.count("samples_late") == 0
    assert rig.ring.sealed == START // rig.ring.period + 2


async def test_an_even_stream_is_timed_by_counting():
    rig = Rig(period="10ms", clock="counted", lateness="40ms")
    async with rig.running():
        for n in range(25):
            await rig.step(0.04)
            await rig.deliver(rig.source.block(*range(4 * n, 4 * n + 4)))
        await rig.step(0.2)
    values, states = rig.column()
    known = [value for value, state in zip(values, states, strict=True) if state is State.GOOD]
    assert known == list(range(100)), "four at a time, and each has a slot of its own"
    assert (rig.count("samples_folded"), rig.count("samples_late")) == (0, 0)


async def test_without_a_period_every_message_is_a_row_and_wakes_who_waits_for_it():
    rig = Rig(period=None)
    async with rig.running():
        await rig.deliver(rig.source.block(1.0))
        assert rig.ring.sealed == 1
        await rig.deliver(rig.source.block(2.0, 3.0))
        assert rig.woken == 2
        await rig.step(60)
    assert rig.column() == ([1.0, 2.0, 3.0], [State.GOOD] * 3)
    assert rig.count("rows_sealed") == 3
    assert rig.ingest.snapshot()["period_ms"] is None


# The link.


async def test_a_link_that_breaks_is_told_once_and_once_when_it_heals(rig, caplog):
    rig.source.connecting = [NotConnected("refused"), None, NotConnected("refused"), None]
    async with rig.running():
        await rig.step(10)
        await rig.deliver(NotConnected("reset by peer"))
        await rig.step(10)
        assert rig.conditions == {"source.down": "refused"}
        await rig.deliver(rig.source.block(1.0))
        assert rig.conditions == {}
        assert rig.ingest.connected
    assert told(caplog) == [
        "source.down s: refused",
        "source.down s: over after 20.0 s, 200 rows without data",
    ]
    assert (rig.count("connects"), rig.count("disconnects")) == (2, 3)


async def test_attempts_grow_apart_and_begin_anew_after_data(rig):
    rig.source.connecting = [NotConnected("refused")] * 6
    async with rig.running():
        await rig.step(60)
        assert np.diff(rig.source.attempts).tolist() == [0.75, 1.5, 3.0, 6.0, 6.0, 6.0]
        await rig.deliver(rig.source.block(1.0), NotConnected("gone"))
        await rig.step(5)
        assert rig.source.attempts[7:] == [60.75]


async def test_a_connection_without_data_does_not_reset_the_waits(rig):
    rig.source.then(*[NotConnected("gone")] * 4)
    async with rig.running():
        await rig.step(60)
    assert np.diff(rig.source.attempts).tolist() == [0.75, 1.5, 3.0, 6.0]


async def test_a_peer_that_asks_to_be_left_alone_is_left_alone_for_so_long(rig):
    rig.source.connecting = [BackoffAsked(42.0, "too many connections")]
    async with rig.running():
        assert rig.conditions == {"source.down": "too many connections"}
        await rig.step(60)
    assert rig.source.attempts == [0.0, 42.0]


async def test_the_source_is_closed_before_each_new_attempt_and_at_the_end(rig):
    rig.source.connecting = [NotConnected("refused"), NotConnected("refused")]
    async with rig.running():
        await rig.step(10)
        assert (rig.source.connects, rig.source.closes) == (3, 2)
    assert rig.source.closes == 3
    assert not rig.ingest.connected


async def test_a_source_that_hangs_while_connecting_is_given_up(rig, monkeypatch):
    monkeypatch.setattr("dxad.ingest._CONNECT_TIMEOUT_S", 0.01)
    rig.source.connecting = [HANG]
    async with rig.running():
        async with asyncio.timeout(5):
            while not rig.conditions:
                await asyncio.to_thread(lambda: None)
        assert rig.conditions == {"source.down": "no connection within 0.01 s"}
        await rig.step(1)
        assert rig.ingest.connected


async def silent(rig: Rig) -> None:
    """Until the source has been silent for longer than it may."""
    async with asyncio.timeout(5):
        while not rig.conditions:
            await asyncio.to_thread(lambda: None)


async def test_a_source_that_falls_silent_is_connected_anew():
    rig = Rig(max_silence="20ms")
    rig.source.then(HANG)
    async with rig.running():
        await silent(rig)
        assert rig.conditions == {"source.down": "no data for 0.02 s"}
        await rig.step(1)
        assert rig.source.connects == 2


async def test_a_quiet_source_is_left_alone_while_its_session_is_proved_alive():
    rig = Rig(max_silence=None)
    rig.ingest._silence_ns = NS_PER_S // 50
    rig.source.alive_until = START + 5 * NS_PER_S
    waits = 0
    ask = rig.source.read

    async def counted() -> Block:
        nonlocal waits
        waits += 1
        return await ask()

    rig.source.read = counted
    async with rig.running():
        async with asyncio.timeout(5):
            while waits < 3:
                await asyncio.to_thread(lambda: None)
        assert (rig.source.connects, rig.conditions) == (1, {})
        await rig.step(6)
        await silent(rig)
        assert rig.conditions == {"source.down": "no data for 0.02 s"}


async def test_held_by_session_is_what_the_source_proves():
    rig = Rig({"a": {"hold": "session"}, "b": {}})
    rig.source.alive_until = START + NS_PER_S // 2
    async with rig.running():
        await rig.deliver(rig.source.block(7.0))
        await rig.step(1)
    assert rig.column()[1] == [State.GOOD] + [State.HELD] * 5 + [State.EMPTY] * 3


# Messages.


async def test_bad_messages_are_counted_told_once_and_over_after_ten_quiet_seconds(rig, caplog):
    async with rig.running():
        await rig.deliver(DecodeError("not JSON", rejected=3), DecodeError("a list"), rig.source.block(1.0))
        assert rig.count("messages_rejected") == 4
        assert rig.conditions == {"source.rejecting": "a list"}
        await rig.step(9)
        await rig.deliver(DecodeError("not JSON"))
        await rig.step(10)
        assert rig.conditions == {"source.rejecting": "not JSON"}
        await rig.step(0.1)
        assert rig.conditions == {}
        assert (rig.count("disconnects"), rig.source.connects) == (0, 1)
    assert told(caplog) == ["source.rejecting s: not JSON", "source.rejecting s: over after 19.1 s"]


# The end.


async def test_what_is_configured_wrong_may_heal(rig):
    rig.source.connecting = [ConfigError("the password's file is not there")]
    async with rig.running():
        assert rig.conditions == {"source.down": "the password's file is not there"}
        await rig.step(1)
        await rig.deliver(rig.source.block(1.0))
        assert rig.conditions == {}


async def test_a_source_whose_samples_all_come_late_says_so(rig):
    async with rig.running():
        await rig.step(2)
        for _ in range(10):
            await rig.deliver(rig.source.block(1.0, ago=NS_PER_S))
        assert set(rig.conditions) == {"source.late"}
        await rig.deliver(rig.source.block(1.0))
        assert rig.conditions == {}


def test_a_value_that_is_held_for_long_may_take_as_long_to_come():
    assert Rig(max_silence=None, hold="30min").ingest._silence_ns == 1800 * NS_PER_S


@pytest.mark.parametrize("error", [EndOfStream("that was all"), ZeroDivisionError()])
async def test_what_it_does_not_know_how_to_handle_ends_the_service_with_the_source_closed(rig, error):
    rig.source.then(error)
    with pytest.raises(type(error)):
        await rig.ingest.run()
    assert rig.source.closes == 1
    assert not rig.ingest.connected


@pytest.mark.parametrize("steps", [[], [HANG], [NotConnected("gone")]], ids=["reading", "hanging", "waiting"])
async def test_a_cancel_closes_the_source_wherever_it_is(rig, steps: Sequence[Any]):
    rig.source.then(*steps)
    task = asyncio.create_task(rig.ingest.run())
    await rig.settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert rig.source.closes >= 1
    assert not rig.ingest.connected


async def test_a_snapshot_says_what_there_is_to_know(rig):
    assert rig.ingest.snapshot()["age_s"] is None
    async with rig.running():
        await rig.step(0.1)
        await rig.deliver(rig.source.block(1.0, 2.0))
        await rig.step(0.25)
        shown = rig.ingest.snapshot()
    assert shown == {
        "connected": True,
        "age_s": 0.25,
        "channels": ["s.a", "s.b"],
        "period_ms": 100.0,
        "rows": 2,
        "samples": 2,
        "folded": 1,
        "late": 0,
        "rejected": {},
        "messages_rejected": 0,
        "overflowed": 0,
        "skipped": 0,
        "slips": 0,
        "faults": {},
        "connects": 1,
        "disconnects": 0,
    }
