"""Services run for life: restarted when they fail, given up when they fail too often, stopped in order."""

import asyncio
import logging

import pytest

from dxad.errors import EndOfStream
from dxad.runtime import supervisor
from dxad.runtime.clock import SteppedClock
from dxad.runtime.health import Health
from dxad.runtime.supervisor import RestartPolicy, Supervisor
from dxad.types import NS_PER_S

POLICY = RestartPolicy(most=3, within_s=100.0, first_wait_s=1.0, most_wait_s=4.0)


class Service:
    """Fails as often as it is told to, then runs."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.runs = 0
        self.cancelled = False

    async def run(self) -> None:
        self.runs += 1
        if self.errors:
            raise self.errors.pop(0)
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled = True


class Rig:
    def __init__(self, policy: RestartPolicy = POLICY) -> None:
        self.clock = SteppedClock()
        self.health = Health(self.clock)
        self.supervisor = Supervisor(self.clock, self.health, policy=policy)

    async def step(self, seconds: float) -> None:
        await self.clock.step(round(seconds * NS_PER_S))

    @property
    def conditions(self) -> list[tuple[str, str, str]]:
        return [(each.code, each.subject, each.detail) for each in self.health.active]


@pytest.fixture
def rig() -> Rig:
    return Rig()


async def test_a_service_that_fails_is_started_again_after_a_wait(rig):
    service = Service(ValueError("a bug"), ValueError("a bug"))
    async with rig.supervisor:
        rig.supervisor.start("s", service.run)
        await rig.step(0)
        assert service.runs == 1
        await rig.step(1)
        assert service.runs == 2
        await rig.step(2)
        assert service.runs == 3
        await rig.step(1000)
        assert (service.runs, rig.supervisor.running) == (3, ("s",))
    assert rig.conditions == []


async def test_a_bug_is_logged_with_its_traceback_once(rig, caplog):
    service = Service(ValueError("a bug"), ValueError("a bug"))
    async with rig.supervisor:
        rig.supervisor.start("s", service.run)
        await rig.step(10)
    records = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [record.getMessage() for record in records] == ["s failed: ValueError: a bug"] * 2
    assert [record.exc_info is not None for record in records] == [True, False]


async def test_a_service_that_fails_too_often_is_given_up_and_the_others_go_on(rig):
    bad, good = Service(*[ValueError("a bug")] * 10), Service()
    async with rig.supervisor:
        rig.supervisor.start("bad", bad.run)
        rig.supervisor.start("good", good.run)
        await rig.step(1000)
        assert bad.runs == 3
        assert rig.supervisor.running == ("good",)
        assert rig.conditions == [("service.failed", "bad", "ValueError: a bug")]
        await rig.supervisor.stop("bad")
        assert rig.conditions == []


async def test_failures_that_are_far_apart_are_forgiven_and_each_waits_no_longer_than_the_first():
    rig = Rig(RestartPolicy(most=3, within_s=100.0, first_wait_s=1.0, most_wait_s=300.0))

    class Sometimes(Service):
        async def run(self) -> None:
            self.runs += 1
            await rig.clock.sleep_until(rig.clock.now() + 200 * NS_PER_S)
            raise ValueError("now and then")

    service = Sometimes()
    async with rig.supervisor:
        rig.supervisor.start("s", service.run)
        await rig.step(4020)
        assert rig.supervisor.running == ("s",)
        assert service.runs >= 20, "201 seconds from one to the next"


@pytest.mark.parametrize("error", [EndOfStream("all read"), None], ids=["end of stream", "return"])
async def test_a_service_that_ends_well_is_not_started_again(rig, error):
    runs = 0

    async def run() -> None:
        nonlocal runs
        runs += 1
        if error is not None:
            raise error

    async with rig.supervisor:
        rig.supervisor.start("s", run)
        await rig.step(100)
        assert (runs, rig.supervisor.running, rig.conditions) == (1, (), [])


async def test_services_are_stopped_in_reverse_order_and_each_is_waited_for(rig):
    ended = []

    async def run(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(name)

    async with rig.supervisor:
        for name in "abc":
            rig.supervisor.start(name, lambda name=name: run(name))
        await rig.step(0)
    assert ended == ["c", "b", "a"]
    assert rig.supervisor.running == ()


async def test_a_stop_while_it_waits_to_restart_ends_it(rig):
    service = Service(*[ValueError("a bug")] * 10)
    async with rig.supervisor:
        rig.supervisor.start("s", service.run)
        await rig.step(0)
        await rig.supervisor.stop("s", "one that never was")
        await rig.step(100)
    assert service.runs == 1


async def test_a_service_that_fails_while_it_stops_does_not_keep_the_others_from_stopping(rig):
    async def run() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise RuntimeError("cannot let go")

    other = Service()
    async with rig.supervisor:
        rig.supervisor.start("other", other.run)
        rig.supervisor.start("stubborn", run)
        await rig.step(0)
        stop = asyncio.create_task(rig.supervisor.stop("stubborn", "other"))
        await rig.step(100)
        assert stop.done()
    assert other.cancelled


async def test_a_name_is_in_use_once(rig):
    async with rig.supervisor:
        rig.supervisor.start("s", Service().run)
        with pytest.raises(ValueError, match="a service 's' runs already"):
            rig.supervisor.start("s", Service().run)
        await rig.supervisor.stop("s")
        rig.supervisor.start("s", Service().run)
        assert rig.supervisor.running == ("s",)


async def test_a_service_that_is_started_while_the_others_are_stopped_is_stopped_too(rig):
    ended = []

    async def reloading():
        try:
            await asyncio.Event().wait()
        finally:
            rig.supervisor.start("came", Service().run)
            ended.append("reloading")

    async with rig.supervisor as running:
        running.start("reloading", reloading)
        await asyncio.sleep(0)
    assert ended == ["reloading"]
    assert rig.supervisor.names == ()


async def test_tasks_have_the_names_of_their_services(rig):
    async with rig.supervisor:
        rig.supervisor.start("ingest.plc", Service().run)
        assert "ingest.plc" in {task.get_name() for task in asyncio.all_tasks()}


async def test_a_service_that_swallows_its_cancellation_is_cancelled_again(rig, monkeypatch):
    monkeypatch.setattr(supervisor, "_CANCEL_AGAIN_S", 0.02)
    swallowed = []

    async def stubborn():
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                swallowed.append(1)
                if len(swallowed) == 2:
                    raise

    async with rig.supervisor as running:
        running.start("stubborn", stubborn)
        await asyncio.sleep(0)
    assert len(swallowed) == 2


async def test_those_of_a_kind_are_stopped_at_the_same_time_and_other_kinds_one_after_the_other(
    rig, monkeypatch
):
    monkeypatch.setattr(supervisor, "_CANCEL_AGAIN_S", 0.1)
    ended = []

    def slow(name):
        async def run():
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(f"{name} begins to end")
                await asyncio.sleep(0.02)
                ended.append(name)

        return run

    async with rig.supervisor:
        for name in ("deliver.s", "ticker", "ingest.a", "ingest.b", "ingest.c"):
            rig.supervisor.start(name, slow(name))
        await rig.step(0)
    assert [each.partition(" ")[0] for each in ended[:3]] == ["ingest.c", "ingest.b", "ingest.a"]
    assert ended[3:6] == ["ingest.c", "ingest.b", "ingest.a"]
    assert ended[6:] == ["ticker begins to end", "ticker", "deliver.s begins to end", "deliver.s"]
