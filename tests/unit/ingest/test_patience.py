"""Nothing that a source does is waited for without end, and whatever ends it is told and counted."""

import asyncio

import pytest

from dxad.errors import NotConnected
from dxad.runtime.deadline import within
from dxad.types import NS_PER_S
from tests.patience import PATIENCE_S
from tests.unit.ingest.rig import HANG, START, STUBBORN, Rig, told

pytestmark = pytest.mark.one_loop


@pytest.fixture
def impatient(monkeypatch):
    """All patience is 10 ms, and that of the steps behind it as short."""
    for name in ("_CONNECT_TIMEOUT_S", "_CLOSE_TIMEOUT_S", "_LAST_CLOSE_TIMEOUT_S"):
        monkeypatch.setattr(f"dxad.ingest.{name}", 0.01)
    monkeypatch.setattr("dxad.runtime.deadline._MERCY_S", 0.01)


async def until(holds) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not holds():
            await asyncio.to_thread(lambda: None)


@pytest.mark.parametrize("how", [HANG, STUBBORN])
async def test_a_connect_that_hangs_is_given_up_and_tried_again(rig, impatient, how):
    rig.source.connecting = [how]
    async with rig.running():
        await until(lambda: rig.conditions)
        assert rig.conditions == {"source.down": "no connection within 0.01 s"}
        await rig.step(1)
        assert rig.ingest.connected
        rig.source.let_go.set()
    assert (rig.count("timeouts"), rig.count("connects")) == (1, 1)


@pytest.mark.parametrize("how", [HANG, STUBBORN])
async def test_a_close_that_hangs_is_left_behind(rig, impatient, how):
    rig.source.closing = [how]
    rig.source.then(NotConnected("reset by peer"))
    async with rig.running():
        await until(lambda: rig.count("timeouts"))
        assert rig.conditions == {"source.down": "closing it took longer than 0.01 s"}
        await rig.step(1)
        await rig.deliver(rig.source.block(1.0))
        assert rig.conditions == {}
        rig.source.let_go.set()
    assert rig.source.closes == 2


@pytest.mark.parametrize("how", [HANG, STUBBORN])
async def test_a_close_that_hangs_does_not_keep_the_service_from_ending(rig, impatient, how):
    async with rig.running():
        rig.source.closing = [how]
    assert rig.source.closes == 1
    rig.source.let_go.set()


@pytest.mark.parametrize("how", [HANG, STUBBORN])
async def test_a_read_that_hangs_is_given_up_also_if_it_swallows_its_cancellation(how):
    rig = Rig(max_silence="10ms")
    rig.source.then(how)
    async with rig.running():
        if how is STUBBORN:
            await asyncio.sleep(0.05)
            assert rig.source.connects == 1
            await rig.step(6)
        await until(lambda: rig.count("timeouts"))
        assert rig.conditions == {"source.down": "no data for 0.01 s"}
        await rig.step(1)
        assert rig.source.connects == 2
        await rig.deliver(rig.source.block(1.0))
        assert rig.conditions == {}


async def test_whoever_is_cancelled_while_a_read_is_overdue_ends():
    rig = Rig(max_silence="10ms")
    rig.source.then(STUBBORN)
    async with rig.running():
        await asyncio.sleep(0.03)
        await rig.step(6)
        rig.source.let_go.set()
    assert rig.source.closes >= 1


async def test_a_source_that_mends_its_own_session_is_left_alone_meanwhile_but_not_for_ever():
    rig = Rig(max_silence="5s")
    rig.ingest._silence_ns = NS_PER_S // 100
    rig.source.recovering_until = START + 200 * NS_PER_S
    async with rig.running():
        await rig.deliver(rig.source.block(1.0))
        await asyncio.sleep(0.05)
        assert (rig.source.connects, rig.conditions) == (1, {})
        await rig.clock.step(61 * NS_PER_S)
        await until(lambda: rig.count("timeouts"))
        await rig.settle()
    assert rig.conditions == {"source.down": "no data for 0.01 s"}


async def test_a_quiet_session_that_is_proved_alive_has_healed_as_data_would_have_healed_it(caplog):
    rig = Rig(max_silence=None)
    rig.ingest._silence_ns = NS_PER_S // 100
    rig.source.alive_until = START + 100 * NS_PER_S
    rig.source.connecting = [NotConnected("refused")]
    async with rig.running():
        await rig.step(1)
        await until(lambda: not rig.conditions)
    assert told(caplog)[-1].startswith("source.down s: over after")


# Channels that promise a rate.


async def test_a_dead_channel_of_a_live_link_is_told_by_name_and_is_no_reason_to_connect_anew():
    rig = Rig({"a": {"expect_every": "1s"}, "b": {}})
    async with rig.running():
        for _ in range(40):
            await rig.deliver(rig.source.block(1.0, column=1))
            await rig.step(0.1)
        assert rig.conditions == {"source.silent": "nothing comes of s.a for 4 s"}
        assert rig.source.connects == 1
        await rig.deliver(rig.source.block(1.0))
        await rig.step(0.1)
        assert rig.conditions == {}


async def test_what_a_device_calls_bad_is_no_value(rig):
    from dxad.types import Quality

    rig = Rig(expect_every="1s")
    async with rig.running():
        for _ in range(40):
            await rig.deliver(rig.source.block(1.0, quality=Quality.BAD), rig.source.block(1.0, column=1))
            await rig.step(0.1)
        assert set(rig.conditions) == {"source.silent"}


async def test_a_link_that_is_down_is_told_once_and_its_channels_are_not():
    rig = Rig(expect_every="1s")
    async with rig.running():
        await rig.deliver(rig.source.block(1.0), rig.source.block(1.0, column=1))
        await rig.step(4)
        assert set(rig.conditions) == {"source.silent"}
        rig.source.connecting = [NotConnected("refused")] * 50
        await rig.deliver(NotConnected("gone"))
        await rig.step(20)
        assert set(rig.conditions) == {"source.down"}


async def test_silence_of_all_that_promise_a_rate_outweighs_a_session_that_seems_alive():
    rig = Rig({"a": {"expect_every": "1s"}, "b": {}}, max_silence=None)
    rig.ingest._silence_ns = NS_PER_S // 100
    rig.source.alive_until = START + 1000 * NS_PER_S
    async with rig.running():
        await rig.deliver(rig.source.block(1.0))
        await rig.step(2)
        await asyncio.sleep(0.05)
        assert rig.source.connects == 1
        await rig.step(2)
        await until(lambda: rig.count("disconnects"))
    assert rig.conditions["source.down"] == "no data for 0.01 s"


def test_of_very_many_dead_channels_five_are_named():
    rig = Rig({f"c{n}": {} for n in range(9)}, expect_every="1s")
    rig.ingest.connected = True
    rig.ingest.tick(rig.clock.now() + 10 * NS_PER_S)
    told = rig.conditions["source.silent"]
    assert told.startswith("nothing comes of s.c0 for")
    assert told.endswith("and 4 more")


# The wait itself.


async def test_what_ends_in_time_has_ended_and_its_error_is_raised():
    ended = []

    async def work() -> None:
        await asyncio.sleep(0)
        ended.append(True)

    async def fails() -> None:
        raise ZeroDivisionError

    await within(5, work(), name="work")
    assert ended
    with pytest.raises(ZeroDivisionError):
        await within(5, fails(), name="fails")


async def test_whoever_waits_and_is_cancelled_takes_the_work_with_it():
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    waiting = asyncio.create_task(within(5, work(), name="work"))
    await begun.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert cancelled.is_set()
