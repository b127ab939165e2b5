"""What becomes of the link: tried for life, told once when it breaks and once when it heals."""

import asyncio
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from dxad.errors import Backoff as BackoffAsked
from dxad.errors import ConfigError, DecodeError, EndOfStream, NotConnected
from dxad.runtime.backoff import Backoff
from dxad.runtime.ticker import Ticker
from dxad.types import NS_PER_S, Block, State
from tests.patience import PATIENCE_S
from tests.unit.ingest.rig import HANG, START, HalfWay, Rig, told


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


async def test_a_device_that_answers_out_of_step_is_told_until_it_is_over(rig, caplog):
    async with rig.running():
        rig.source.misanswers = "device 1 answers twice"
        await rig.step(1)
        assert rig.conditions == {"source.out_of_step": "device 1 answers twice"}
        rig.source.misanswers = ""
        await rig.step(1)
        assert rig.conditions == {}
    assert told(caplog)[0] == "source.out_of_step s: device 1 answers twice"


async def test_attempts_grow_apart_and_begin_anew_after_data(rig):
    rig.source.connecting = [NotConnected("refused")] * 6
    async with rig.running():
        await rig.step(60)
        assert np.diff(rig.source.attempts).tolist() == [0.75, 1.5, 3.0, 6.0, 6.0, 6.0]
        await rig.deliver(rig.source.block(1.0))
        await rig.step(10)
        await rig.deliver(rig.source.block(1.0), NotConnected("gone"))
        await rig.step(5)
        assert rig.source.attempts[7:] == [70.75]


async def test_data_that_does_not_last_does_not_bring_the_attempts_together_again(rig):
    async with rig.running():
        for wait in (0.75, 1.5, 3.0, 6.0, 6.0):
            await rig.deliver(rig.source.block(1.0))
            await rig.step(9)
            await rig.deliver(rig.source.block(1.0), NotConnected("gone"))
            broke = rig.clock.now()
            await rig.step(8)
            assert START + round(rig.source.attempts[-1] * NS_PER_S) - broke == round(wait * NS_PER_S)


async def test_a_link_that_flaps_each_second_is_told_a_few_times_and_summed_up_with_what_it_cost(rig, caplog):
    rig.ingest._backoff = Backoff(first_s=0.5, most_s=0.5, rng=HalfWay())
    rig.ticker = Ticker(rig.clock, period=NS_PER_S, calls=[rig.ingest.tick, rig.health.tick])
    async with rig.running():
        for _ in range(700):
            await rig.deliver(rig.source.block(1.0), NotConnected("reset by peer"))
            await rig.step(1.0)
        lines = told(caplog)
        assert lines[:7] == [
            "source.down s: reset by peer", "source.down s: over after 1.0 s, 10 rows without data",
            "source.down s: reset by peer", "source.down s: over after 1.0 s, 10 rows without data",
            "source.down s: reset by peer", "source.down s: over after 1.0 s, 10 rows without data",
            "source.down s: comes and goes, and is summed up from now on",
        ]  # fmt: skip
        summed = r"began 59\d times more in 10 min, and held 59\d.0 s of them, 59\d0 rows without data"
        assert len(lines) == 8
        assert re.fullmatch(f"source.down s: {summed}", lines[7])
        assert rig.count("disconnects") == 700
        await rig.step(60)
        assert told(caplog)[-1].startswith("source.down s: reset by peer, for 3"), "what lasts is told"
        for _ in range(130):
            await rig.deliver(rig.source.block(1.0))
            await rig.step(10.0)
        assert told(caplog)[len(lines) + 1].startswith("source.down s: over after 6")
        await rig.deliver(NotConnected("gone"))
        assert told(caplog)[-1] == "source.down s: gone", "after ten quiet minutes it is told in full again"


async def test_an_hour_without_the_broker_is_two_lines_and_costs_next_to_nothing(rig, caplog):
    rig.source.connecting = [NotConnected("refused")] * 10_000
    rig.ingest._backoff = Backoff(rng=HalfWay())
    rig.ticker = Ticker(rig.clock, period=NS_PER_S, calls=[rig.ingest.tick, rig.health.tick])
    async with rig.running():
        await rig.step(3600)
        assert 150 < rig.source.connects < 170, "thirty seconds apart at most, by half"
        rig.source.connecting = []
        await rig.step(30)
        await rig.deliver(rig.source.block(1.0))
    assert [line.partition(": ")[2] for line in told(caplog)] == [
        "refused", f"over after {(rig.clock.now() - START) / NS_PER_S:.1f} s, 36300 rows without data",
    ]  # fmt: skip
    assert rig.ring.sealed > START // rig.ring.period + 36_000, "the grid goes on, empty"


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
        async with asyncio.timeout(PATIENCE_S):
            while not rig.conditions:
                await asyncio.to_thread(lambda: None)
        assert rig.conditions == {"source.down": "no connection within 0.01 s"}
        await rig.step(1)
        assert rig.ingest.connected


async def silent(rig: Rig) -> None:
    """Until the source has been silent for longer than it may."""
    async with asyncio.timeout(PATIENCE_S):
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
        async with asyncio.timeout(PATIENCE_S):
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
        "stored": 1,
        "folded": 1,
        "duplicate": 0,
        "pending": 0,
        "late": 0,
        "backfilled": 0,
        "lost": {},
        "overwritten": 0,
        "rejected": {},
        "doubted": {},
        "messages_rejected": 0,
        "overflowed": 0,
        "skipped": 0,
        "slips": 0,
        "faults": {},
        "wire": {},
        "connects": 1,
        "disconnects": 0,
        "timeouts": 0,
    }
