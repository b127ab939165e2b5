"""A condition is told when it begins and when it ends, whatever happens in between."""

import logging

import pytest

from dxad.runtime.clock import SteppedClock
from dxad.runtime.health import CONDITIONS, Health


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock(start=1_000_000_000)


@pytest.fixture
def health(clock, caplog) -> Health:
    caplog.set_level(logging.INFO)
    return Health(clock)


def told(caplog) -> list[tuple[str, str]]:
    return [(record.levelname, record.getMessage()) for record in caplog.records]


async def test_it_is_logged_once_when_it_begins_and_once_when_it_ends(health, clock, caplog):
    health.raise_condition("source.down", "plc", "refused")
    await clock.step(1_500_000_000)
    health.raise_condition("source.down", "plc", "reset by peer")
    await clock.step(1_000_000_000)
    health.clear("source.down", "plc", "25 rows without data")
    health.clear("source.down", "plc", "25 rows without data")
    assert told(caplog) == [
        ("ERROR", "source.down plc: refused"),
        ("INFO", "source.down plc: over after 2.5 s, 25 rows without data"),
    ]


async def test_it_keeps_its_beginning_and_shows_its_latest_detail(health, clock):
    health.raise_condition("source.down", "plc", "refused")
    await clock.step(3_000_000_000)
    health.raise_condition("source.down", "plc", "reset by peer")
    (shown,) = health.snapshot()
    assert shown == {
        "code": "source.down",
        "severity": "error",
        "subject": "plc",
        "detail": "reset by peer",
        "meaning": CONDITIONS["source.down"].meaning,
        "for_s": 3.0,
    }


async def test_conditions_are_told_apart_by_code_and_subject_the_oldest_first(health, clock):
    for code, subject in (("source.down", "b"), ("source.down", "a"), ("sink.down", "a")):
        health.raise_condition(code, subject, "")
        await clock.step(1)
    assert [(each.code, each.subject) for each in health.active] == [
        ("source.down", "b"), ("source.down", "a"), ("sink.down", "a"),
    ]  # fmt: skip
    health.clear("source.down", "a")
    assert [(each.code, each.subject) for each in health.active] == [("source.down", "b"), ("sink.down", "a")]


def test_a_warning_is_logged_as_one(health, caplog):
    health.raise_condition("sink.down", "reasoning", "refused")
    assert told(caplog) == [("WARNING", "sink.down reasoning: refused")]


def test_a_condition_that_is_not_in_the_table_is_a_bug(health):
    with pytest.raises(KeyError):
        health.raise_condition("source.on_fire", "plc", "")


def test_what_was_seen_of_them_does_not_change_later(health):
    health.raise_condition("source.down", "plc", "refused")
    seen = health.active
    health.clear("source.down", "plc")
    assert len(seen) == 1


def test_what_a_node_has_left_is_over_when_it_is_gone_and_nothing_else(health, caplog):
    for code, subject in (
        ("source.down", "a"),
        ("source.late", "a"),
        ("source.down", "b"),
        ("sink.down", "a"),
    ):
        health.raise_condition(code, subject, "")
    caplog.set_level("INFO")
    health.dismiss("source", "a")
    assert {(each.code, each.subject) for each in health.active} == {("source.down", "b"), ("sink.down", "a")}
    assert "source.late a: over after 0.0 s, it is there no more" in caplog.text


async def test_one_that_comes_and_goes_is_told_three_times_and_then_summed_up(health, clock, caplog):
    for _ in range(600):
        health.raise_condition("source.late", "plc", "too slow")
        await clock.step(500_000_000, settle=1)
        health.clear("source.late", "plc", cost={"rows": 2, "samples": 0})
        await clock.step(500_000_000, settle=1)
        health.tick(clock.now())
    assert len(told(caplog)) == 7
    await clock.step(301_000_000_000)
    health.tick(clock.now())
    assert told(caplog)[-1] == (
        "ERROR", "source.late plc: began 597 times more in 15 min, and held 298.5 s of them, 1194 rows",
    )  # fmt: skip
    await clock.step(601_000_000_000)
    health.tick(clock.now())
    assert len(told(caplog)) == 8
    assert not health._rounds
    assert not health._hushed


async def test_one_that_is_not_told_is_when_it_lasts(health, clock, caplog):
    for _ in range(4):
        health.clear("source.down", "plc")
        health.raise_condition("source.down", "plc", "refused")
    assert told(caplog)[-1][1] == "source.down plc: comes and goes, and is summed up from now on"
    await clock.step(31_000_000_000)
    health.tick(clock.now())
    health.clear("source.down", "plc")
    assert [text for _, text in told(caplog)[-2:]] == [
        "source.down plc: refused, for 31 s now", "source.down plc: over after 31.0 s",
    ]  # fmt: skip


async def test_without_anybody_who_looks_one_that_comes_seldom_is_told_each_time(health, clock, caplog):
    for _ in range(9):
        health.raise_condition("source.down", "plc", "refused")
        health.clear("source.down", "plc")
        await clock.step(300_000_000_000)
    assert len(told(caplog)) == 18
