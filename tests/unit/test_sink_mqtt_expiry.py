"""How long a broker has to keep an event that counts for a while."""

import pytest

from dxad.event import rfc3339
from dxad.runtime.clock import SteppedClock
from dxad.sinks.mqtt.expiry import expiry_s
from dxad.types import NS_PER_S, Boot, Lane, Record

S = NS_PER_S


def told(clock: SteppedClock, lives_s: float | None, boot: str = "this") -> tuple[Record, dict]:
    at = clock.now()
    record = Record("a", Lane.NORMAL, b"", boot=Boot(boot, clock.utc(0), clock_ok=True), at_ns=at)
    document = {"id": "a", "time": rfc3339(clock.utc(at))}
    if lives_s is not None:
        document["expiresat"] = rfc3339(clock.utc(at) + int(lives_s * S))
    return record, document


async def test_it_is_what_is_left_and_a_second_when_it_is_over():
    clock = SteppedClock()
    event = told(clock, 750)
    assert expiry_s(*event, clock, "this") == 750
    await clock.step(100 * S + 1)
    assert expiry_s(*event, clock, "this") == 650
    await clock.step(9999 * S)
    assert expiry_s(*event, clock, "this") == 1


async def test_nobody_who_sets_the_wall_clock_changes_it():
    clock = SteppedClock()
    event = told(clock, 750)
    clock.step_utc(-(10**9) * S)
    await clock.step(50 * S)
    assert expiry_s(*event, clock, "this") == 700


async def test_of_an_event_of_an_earlier_boot_the_wall_clock_says_how_old_it_is():
    clock = SteppedClock()
    event = told(clock, 750, boot="before")
    clock.step_utc(600 * S)
    assert expiry_s(*event, clock, "this") == 150


@pytest.mark.parametrize("text", [None, "never", 7])
def test_what_says_nothing_that_can_be_read_counts_for_ever(text):
    clock = SteppedClock()
    record, document = told(clock, None)
    if text is not None:
        document["expiresat"] = text
    assert expiry_s(record, document, clock, "this") is None


def test_a_broker_counts_to_2_to_the_32():
    clock = SteppedClock()
    assert expiry_s(*told(clock, 2**33), clock, "this") == 2**32 - 1
