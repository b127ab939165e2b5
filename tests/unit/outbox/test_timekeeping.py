"""Whoever sets the wall clock, and however far: an event is read with its right time, or corrected."""

from typing import Any, Self

import pytest

from dxad.event import STEP_NS, Event, Told, decode, rfc3339, to_record, utc_ns
from dxad.outbox import Outbox
from dxad.outbox.limits import LaneLimits, Limits
from dxad.runtime.clock import SteppedClock
from dxad.runtime.health import Health
from dxad.runtime.metrics import Metrics
from dxad.timekeeping import Timekeeping
from dxad.types import NS_PER_S, Document, Lane

YEARS = 10 * 365 * 24 * 3600 * NS_PER_S
START = 1_000_000_000_000
RIGHT = 1_700_000_000_000_000_000
"""The offset of a clock that is right."""


class Gateway:
    """A timekeeping over an outbox in a file, with one sink."""

    def __init__(self, path, clock: SteppedClock, boot: str = "b1", **more: Any) -> None:
        self.clock = clock
        self.box = Outbox(
            path, max_bytes=2**24, commit_window_s=0.0, health=Health(clock), metrics=Metrics(), clock=clock,
            boot=boot, **more,
        )  # fmt: skip
        self.told: list[Event] = []
        self.keeping = Timekeeping(self.box, gateway="gw", clock=clock, tell=self.told.append)
        self._events = 0

    async def __aenter__(self) -> Self:
        await self.box.open()
        await self.box.subscribe("sink", frozenset(Lane))
        await self.keeping.look()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.box.close()

    async def tell(self, *, data: Document | None = None, attributes: dict[str, str] | None = None) -> int:
        """An event happens now; returns its stream time."""
        at, self._events = self.clock.now(), self._events + 1
        event = Event(
            f"{at}-{self._events}", "dxad.test", "/gw", self.clock.utc(at), data or {}, at=at,
            attributes=attributes or {}, lane=Lane.CRITICAL,
        )  # fmt: skip
        await self.box.append(to_record(event, Told(self.box.boot.id, self.clock.synchronised)))
        self.clock.advance(at + NS_PER_S)
        return at

    async def read(self) -> list[Document]:
        return [decode(each) for each in await self.box.fetch("sink", 100)]

    async def times(self) -> list[str]:
        return [each["time"] for each in await self.read()]

    async def deliver(self) -> None:
        await self.box.ack("sink", await self.box.fetch("sink", 100))


def wrong(**more) -> SteppedClock:
    """A clock of a machine without a battery, ten years back."""
    return SteppedClock(start=START, utc_offset=RIGHT - YEARS, synchronised=False, **more)


async def test_an_event_says_by_whose_clock_it_is_dated(path):
    async with Gateway(path, wrong()) as gateway:
        at = await gateway.tell()
        (event,) = await gateway.read()
    assert (event["bootid"], event["boottime"], event["clockok"]) == ("b1", str(at), False)
    assert event["time"] == rfc3339(RIGHT - YEARS + at)


async def test_what_waits_when_the_clock_is_right_at_last_leaves_with_its_right_time(path):
    async with Gateway(path, wrong()) as gateway:
        at = await gateway.tell(data={"onset_utc_ns": gateway.clock.utc(7), "value": 7})
        gateway.clock.step_utc(YEARS, synchronised=True)
        await gateway.keeping.look()
        later = await gateway.tell()
        first, second = await gateway.read()
    assert [first["time"], second["time"]] == [rfc3339(RIGHT + at), rfc3339(RIGHT + later)]
    assert first["clockok"]
    assert first["data"] == {"onset_utc_ns": RIGHT + 7, "value": 7}


async def test_when_a_heartbeat_expires_moves_with_its_time(path):
    async with Gateway(path, wrong()) as gateway:
        expires = gateway.clock.utc(gateway.clock.now() + 10 * NS_PER_S)
        at = await gateway.tell(attributes={"expiresat": rfc3339(expires)})
        gateway.clock.step_utc(YEARS, synchronised=True)
        await gateway.keeping.look()
        (event,) = await gateway.read()
    assert utc_ns(event["expiresat"]) == RIGHT + at + 10 * NS_PER_S


async def test_what_waited_in_memory_while_the_disk_failed_is_dated_anew_as_well(path):
    async with Gateway(path, wrong()) as gateway:
        gateway.box._commits.degrade("a test says so")
        at = gateway.clock.now()
        event = Event("e", "dxad.test", "/gw", gateway.clock.utc(at), {}, at=at)
        gateway.box.append(to_record(event, Told("b1", clock_ok=False)))
        gateway.clock.step_utc(YEARS, synchronised=True)
        await gateway.keeping.look()
        assert (await gateway.times())[-1] == rfc3339(RIGHT + at)


async def test_receivers_of_a_wrong_time_hear_of_it_once(path):
    async with Gateway(path, wrong()) as gateway:
        await gateway.tell()
        await gateway.deliver()
        gateway.clock.step_utc(YEARS, synchronised=True)
        for _ in range(3):
            await gateway.keeping.look()
    (event,) = gateway.told
    assert (event.type, event.lane) == ("dxad.clock.corrected", Lane.CRITICAL)
    assert event.data == {
        "boot": "b1",
        "cause": "synchronised",
        "step_s": YEARS / NS_PER_S,
        "offset_before_ns": RIGHT - YEARS,
        "offset_after_ns": RIGHT,
        "from_boottime": "0",
        "until_boottime": str(START + NS_PER_S),
        "clock_ok": True,
    }
    assert event.time_utc == RIGHT + START + NS_PER_S


@pytest.mark.parametrize("delivered", [True, False])
async def test_a_small_correction_is_told_only_to_those_who_have_had_a_guess(path, delivered):
    async with Gateway(path, wrong()) as gateway:
        await gateway.tell()
        if delivered:
            await gateway.deliver()
        gateway.clock.step_utc(STEP_NS // 2, synchronised=True)
        await gateway.keeping.look()
    assert len(gateway.told) == delivered


@pytest.mark.parametrize("step", [-YEARS, YEARS])
async def test_a_clock_that_was_right_is_believed_over_one_that_somebody_has_set_since(path, step):
    async with Gateway(path, SteppedClock(start=START, utc_offset=RIGHT)) as gateway:
        before = await gateway.tell()
        gateway.clock.step_utc(step, synchronised=False)
        await gateway.keeping.look()
        after = await gateway.tell()
        assert await gateway.times() == [rfc3339(RIGHT + before), rfc3339(RIGHT + after)]
        assert not gateway.told
        gateway.clock.step_utc(-step, synchronised=True)
        await gateway.keeping.look()
        assert not gateway.told


async def test_a_right_clock_that_was_wrong_after_all_dates_its_boot_anew(path):
    async with Gateway(path, SteppedClock(start=START, utc_offset=RIGHT - YEARS)) as gateway:
        at = await gateway.tell()
        gateway.clock.step_utc(YEARS)
        await gateway.keeping.look()
        assert await gateway.times() == [rfc3339(RIGHT + at)]
        assert [each.data["cause"] for each in gateway.told] == ["stepped"]


async def test_a_leap_second_dates_nothing_anew(path):
    async with Gateway(path, SteppedClock(start=START, utc_offset=RIGHT)) as gateway:
        at = await gateway.tell()
        gateway.clock.step_utc(-NS_PER_S)
        await gateway.keeping.look()
        later = await gateway.tell()
        assert await gateway.times() == [rfc3339(RIGHT + at), rfc3339(RIGHT - NS_PER_S + later)]
        assert not gateway.told


async def test_without_anybody_to_keep_it_right_a_clock_that_is_set_by_hand_is_believed(path):
    async with Gateway(path, wrong()) as gateway:
        at = await gateway.tell()
        gateway.clock.step_utc(YEARS)
        await gateway.keeping.look()
        (event,) = await gateway.read()
        assert (event["time"], event["clockok"]) == (rfc3339(RIGHT + at), False)
        assert [each.data["clock_ok"] for each in gateway.told] == [False]


async def test_what_a_killed_daemon_has_left_is_dated_by_what_the_next_one_knows(path):
    clock = wrong()
    gateway = Gateway(path, clock)
    await gateway.__aenter__()
    at = await gateway.tell()
    await gateway.deliver()
    again = await gateway.tell()
    await gateway.box.close()  # and everything in memory is gone
    clock.step_utc(YEARS, synchronised=True)
    async with Gateway(path, clock) as gateway:
        assert await gateway.times() == [rfc3339(RIGHT + again)]
        assert [each.data["offset_before_ns"] for each in gateway.told] == [RIGHT - YEARS]
    assert at < again


async def test_a_restart_while_nobody_keeps_the_clock_right_goes_on_with_what_was(path):
    clock = SteppedClock(start=START, utc_offset=RIGHT)
    async with Gateway(path, clock) as gateway:
        at = await gateway.tell()
    clock.step_utc(-YEARS, synchronised=False)
    async with Gateway(path, clock) as gateway:
        assert gateway.box.boot.offset_ns == RIGHT
        assert gateway.box.boot.clock_ok
        later = await gateway.tell()
        assert await gateway.times() == [rfc3339(RIGHT + each) for each in (at, later)]


async def test_another_boot_s_events_keep_the_time_they_have(path):
    async with Gateway(path, wrong(), boot="b0") as gateway:
        at = await gateway.tell()
    async with Gateway(path, SteppedClock(start=5, utc_offset=RIGHT)) as gateway:
        later = await gateway.tell()
        first, second = await gateway.read()
    assert (first["time"], first["clockok"]) == (rfc3339(RIGHT - YEARS + at), False)
    assert (second["time"], second["clockok"]) == (rfc3339(RIGHT + later), True)


@pytest.mark.parametrize("utc", [-(10**20), -1, 0, 1_700_000_000_123_456_000, 10**21])
def test_any_time_can_be_written_and_what_is_no_year_of_four_digits_is_cut(utc):
    text = rfc3339(utc)
    assert len(text) == len("2023-11-14T22:13:20.123456Z")
    assert rfc3339(utc_ns(text)) == text


class TestAges:
    """No quota by age believes a clock that somebody has set."""

    DAY = Limits(lanes={Lane.CRITICAL: LaneLimits(max_age_ns=86_400 * NS_PER_S)}, keep_ns=86_400 * NS_PER_S)

    async def left(self, gateway: Gateway) -> int:
        await gateway.box._tidy()
        return len(await gateway.read())

    @pytest.mark.parametrize("step", [-YEARS, YEARS])
    @pytest.mark.parametrize("right", [True, False])
    async def test_a_step_of_ten_years_makes_nothing_too_old_or_too_young(self, path, step, right):
        clock = SteppedClock(start=START, utc_offset=RIGHT, synchronised=False)
        async with Gateway(path, clock, limits=self.DAY) as gateway:
            await gateway.tell()
            clock.step_utc(step, synchronised=right)
            assert await self.left(gateway) == 1
            await gateway.keeping.look()
            assert await self.left(gateway) == 1
            assert 1 <= gateway.box.snapshot()["sinks"]["sink"]["oldest_s"] < 3
            clock.advance(START + 86_402 * NS_PER_S)
            assert await self.left(gateway) == 0

    @pytest.mark.parametrize(("was_right", "is_right"), [(False, True), (True, False), (False, False)])
    async def test_what_another_boot_left_is_no_older_than_is_known(self, path, was_right, is_right):
        before = SteppedClock(start=START, utc_offset=RIGHT - YEARS, synchronised=was_right)
        async with Gateway(path, before, boot="b0", limits=self.DAY) as gateway:
            await gateway.tell()
        clock = SteppedClock(start=5, utc_offset=RIGHT, synchronised=is_right)
        async with Gateway(path, clock, limits=self.DAY) as gateway:
            assert await self.left(gateway) == 1
            clock.advance(86_402 * NS_PER_S)
            assert await self.left(gateway) == 0

    async def test_what_another_boot_left_is_too_old_by_a_clock_that_was_right_and_is(self, path):
        async with Gateway(
            path, SteppedClock(start=5, utc_offset=RIGHT), boot="b0", limits=self.DAY
        ) as gateway:
            await gateway.tell()
        clock = SteppedClock(start=5, utc_offset=RIGHT + 90_000 * NS_PER_S)
        async with Gateway(path, clock, limits=self.DAY) as gateway:
            assert await self.left(gateway) == 0
