"""The OPC-UA source through every fault of the simulator's server: what it makes of it, and well again after.

Time goes faster: the plant has a tenth of a second in ten milliseconds, and a session proves itself alive
every tenth of a second.
"""

import asyncio
import contextlib
import gc
import os
from pathlib import Path

import pytest
import pytest_asyncio
from asyncua.server.uaprocessor import UaProcessor

from dxad.errors import ConfigError, NotConnected
from dxad.runtime.clock import SystemClock
from dxad.sources.opcua import watching
from dxad.types import NS_PER_S, Quality, Reason
from hw_sim.opcua.faults import FAULTS
from tests.patience import PATIENCE_S
from tests.unit.hw_sim.opcua_bed import bed
from tests.unit.opcua_rig import COUNT, connected, newest, source, until

pytestmark = pytest.mark.asyncio(loop_scope="module")
ALL = "".join(
    (Path(__file__).parent / f"test_source_opcua_{each}.py").read_text() for each in ("faults", "security")
)
TICK_S = 0.1


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served():
    async with bed() as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module", autouse=True)
async def _goes_on(served, monkeypatch):
    """The plant goes on by itself."""
    monkeypatch.setattr(watching, "TICK_NS", int(TICK_S * NS_PER_S))
    monkeypatch.setattr(watching, "_RETRY_NS", NS_PER_S // 5)

    # asyncua's server forgets to end it where a second session comes over the same channel.
    monkeypatch.setattr(UaProcessor, "_session_watchdog_loop", nothing)

    async def go():
        while True:
            await asyncio.sleep(0.01)
            served.step(20)

    task = asyncio.create_task(go())
    yield
    task.cancel()
    await asyncio.wait([task])
    await served.switch()


async def nothing(_self) -> None:
    pass


async def lost(made, within_s: float = PATIENCE_S) -> str:
    with pytest.raises(NotConnected) as told:
        await until(made, 0, lambda _: False, within_s=within_s)
    return str(told.value)


async def good(made, within_s: float = PATIENCE_S) -> None:
    await until(made, 0, lambda each: each["quality"] == Quality.GOOD, within_s=within_s)


async def alive(made) -> bool:
    """Whether it is proved alive for another while, though nothing may have changed."""
    with contextlib.suppress(TimeoutError):
        await until(made, 0, lambda _: False, within_s=5 * TICK_S)
    return made.alive_until > SystemClock().now()


async def test_stop_is_noticed_at_once_and_a_restart_is_found(served):
    async with connected(served) as made:
        await good(made)
        await served.switch("opcua.stop")
        assert "the session is lost" in await lost(made, 0.3)
        await made.close()
        with pytest.raises(NotConnected, match="Connection refused"):
            await made.connect()
        await served.switch()
        await made.connect()
        await good(made)
        assert made.faults == {"had a new client": 1}


async def test_half_open_is_noticed_by_the_age_of_data(served):
    async with connected(served, timeout="200ms") as made:
        await good(made)
        await served.switch("opcua.half_open")
        told = await lost(made, 1.0)
        assert "the server has shown no life for 0.2 s; no answer within 0.2 s" in told
        assert made.alive_until < SystemClock().now() + TICK_S * NS_PER_S
        await made.close()
        with pytest.raises(NotConnected, match="no answer"):
            await made.connect()
        await served.switch()
        await made.connect()
        await good(made)
    for task in asyncio.all_tasks():  # asyncua's server ends a session twice, and its subscription then never
        if "_subscription_loop" in repr(task):
            task.cancel()


async def test_slow_is_slow_and_no_more(served):
    async with connected(served) as made:
        await good(made)
        await served.switch("opcua.slow", delay="120ms")
        for _ in range(3):
            await until(made, 0, lambda _: True, within_s=0.6)
        assert await alive(made)
        assert "had a new session" not in made.faults


async def test_frozen_values_leave_the_session_alive(served):
    async with connected(served) as made:
        await good(made)
        await served.switch("opcua.frozen")
        assert await alive(made)
        assert made.faults == {}


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("BadSensorFailure", Reason.DEVICE),
        ("BadNoCommunication", Reason.TIMEOUT),
        ("BadOutOfRange", Reason.RANGE),
        ("BadWaitingForInitialData", Reason.TYPE),
    ],
)
async def test_bad_status_is_bad_for_a_reason_and_named(served, code, reason):
    async with connected(served) as made:
        await good(made)
        await served.switch("opcua.bad_status", code=code)
        found = await until(made, 0, lambda each: each["quality"] == Quality.BAD)
        assert found["reason"] == reason
        assert made.faults[f"s=Pump.Count: {code}"] >= 1
        await served.switch()
        await good(made)


async def test_uncertain_status_keeps_the_value(served):
    async with connected(served) as made:
        await good(made)
        await served.switch("opcua.uncertain_status", code="UncertainEngineeringUnitsExceeded")
        found = await until(made, 0, lambda each: each["quality"] == Quality.UNCERTAIN)
        assert found["reason"] == Reason.RANGE
        assert found["value"] > 0
        await served.switch()
        await good(made)


async def test_wrong_type_is_bad(served):
    async with connected(served) as made:
        await good(made)
        await served.switch("opcua.wrong_type", kind="String")
        found = await until(made, 0, lambda each: each["quality"] == Quality.BAD)
        assert found["reason"] == Reason.TYPE
        await served.switch("opcua.wrong_type", kind="Int32")
        await good(made)


async def test_a_node_that_was_removed_is_asked_for_again_and_found_when_it_is_back(served):
    async with connected(served) as made:
        await good(made)
        await served.switch("opcua.node_removed", channel="count")
        await until(made, 0, lambda each: each["quality"] == Quality.BAD)
        await asyncio.sleep(0.3)
        assert made.faults["s=Pump.Count: BadNodeIdUnknown"] >= 2
        await served.switch()
        await good(made)
        assert not any(name.startswith("had") for name in made.faults)


@pytest.mark.parametrize("mode", [{}, {"mode": "poll", "period": "20ms"}])
async def test_a_shifted_namespace_is_found_by_its_uri(served, mode):
    async with connected(served, **mode) as made:
        await good(made)
        await served.switch("opcua.namespace")
        await lost(made)
        await made.close()
        await made.connect()
        await good(made)
        assert made.faults == {"had a new client": 1}


@pytest.mark.parametrize("by", [-3600, 7200])
async def test_wrong_timestamps_are_kept_as_they_are(served, by):
    async with connected(served) as made:
        await good(made)
        await served.switch("opcua.wrong_timestamps", by=str(by))
        wanted = 1_800_000_000 + served.bench.at_s + by
        await until(made, 0, lambda each: abs(each["stamp"] / 1e9 - wanted) < 5)


async def test_without_timestamps_there_is_none(served):
    async with connected(served) as made:
        await served.switch("opcua.no_timestamps")
        await until(made, 0, lambda each: each["stamp"] == 0)


async def test_a_stopped_clock_is_told_and_the_session_is_proved_by_answers(served):
    async with connected(served) as made:
        await good(made)
        await served.switch("opcua.stopped_clock", "opcua.frozen")
        assert await alive(made)
        assert made.faults == {"the server's clock stands": 1}
        assert await alive(made)
        await served.switch()
        assert await alive(made)
        await good(made)
        assert made.faults == {"the server's clock stands": 1}


async def test_a_subscription_that_the_server_has_dropped_is_made_anew(served):
    async with connected(served) as made:
        await good(made)
        client = made._connection.client
        await served.wire._sessions.end_subscriptions()
        await asyncio.sleep(0.05)
        made._inbox._stage.take()
        await good(made, 1.0)
        assert made.faults == {"resubscribed": 1}
        assert made._connection.client is client
        assert made.recovering_until == 0


async def test_a_session_that_the_server_has_closed_is_made_anew(served):
    async with connected(served) as made:
        await good(made)
        client = made._connection.client
        await served.wire._sessions.end_sessions()
        await asyncio.sleep(0.05)
        made._inbox._stage.take()
        await good(made, 1.5)
        assert made.faults["had a new session"] == 1
        assert made._connection.client is client


async def test_refused_subscriptions_lead_from_stage_to_stage_and_all_are_told(served):
    async with connected(served) as made:
        await good(made)
        await served.switch("opcua.no_subscriptions")
        told = await lost(made)
        assert "resubscribed; " in told
        assert "had a new session; " in told
        assert "BadTooManySubscriptions" in told
        assert told.endswith("a new client is needed")
        assert (made.faults["resubscribed"], made.faults["had a new session"]) == (1, 1)
        await made.close()
        with pytest.raises(NotConnected, match="BadTooManySubscriptions"):
            await made.connect()
        await served.switch()
        await made.connect()
        await good(made)


@pytest.mark.parametrize(
    ("fault", "kind", "says"),
    [
        ("opcua.no_sessions", NotConnected, "BadTooManySessions"),
        ("opcua.no_login", ConfigError, "the server refuses the login"),
    ],
)
async def test_a_door_that_is_shut_to_newcomers_does_not_hurt_who_is_in(served, fault, kind, says):
    async with connected(served) as made:
        await good(made)
        await served.switch(fault)
        await good(made)
        other = source(served.wire.url)
        with pytest.raises(kind, match=says):
            await other.connect()
        await other.close()
        await served.switch()
        assert made.faults == {}


async def test_two_hundred_connections_leave_nothing_behind(served):
    def held() -> tuple[int, int]:
        gc.collect()
        return len(list(Path("/proc/self/fd").iterdir())), len(asyncio.all_tasks())

    async with connected(served, channels={"count": COUNT}) as made:
        await newest(made, 1)
        await made.close()
        await served.wire._sessions.end_sessions()
        await served.quiet()
        before, first_kb = held(), _resident_kb()
        for _ in range(200):
            await made.connect()
            await newest(made, 1)
            await made.close()
        await served.wire._sessions.end_sessions()
        await served.quiet()
        assert held() == before
        assert _resident_kb() - first_kb < 4_000


def _resident_kb() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") // 1024


async def test_every_fault_of_the_catalogue_is_walked_through():
    assert [kind.name for kind in FAULTS if f'"{kind.name}"' not in ALL] == []
