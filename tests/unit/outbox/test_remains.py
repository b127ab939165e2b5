"""Damaged files that were set aside: none is lost before it is taken over, none stays for ever."""

import logging

import pytest

from dxad.outbox import remains
from tests.patience import until
from tests.unit.outbox.records import overwrite, record

DAY = 86_400 * 10**9
NOW = 1_700_000_000 * 10**9
NEVER = 10**18


@pytest.fixture
def aside(path):
    def aside(days_ago: int, *, taken_over: bool = True, size: int = 4096):
        path.write_bytes(bytes(size))
        path.with_name(path.name + "-wal").write_bytes(b"log")
        made = remains.set_aside(path, NOW - days_ago * DAY)
        if taken_over:
            remains.mark(made)
        return made

    return aside


def clear(path, *, keep_ns=NEVER, most_bytes=NEVER):
    return [each for each, _ in remains.clear(path, keep_ns=keep_ns, most_bytes=most_bytes, now_utc=NOW)]


def files(path):
    return len(list(path.parent.glob("outbox.db.damaged*")))


def test_two_of_one_second_are_two(path, aside):
    first, second = aside(1), aside(1)
    assert first != second
    assert remains.left(path) == []
    assert files(path) == 6


def test_the_old_ones_go_with_all_that_belongs_to_them(path, aside):
    old, _new = aside(31), aside(29)
    assert clear(path, keep_ns=30 * DAY) == [old]
    assert files(path) == 3


def test_what_is_not_taken_over_stays(path, aside):
    waits = aside(400, taken_over=False, size=100_000)
    assert clear(path, keep_ns=0, most_bytes=0) == []
    assert remains.left(path) == [waits]


def test_what_was_dated_by_a_clock_that_was_not_set_has_no_age(path, aside):
    aside(19_000)
    assert clear(path, keep_ns=30 * DAY) == []


def test_the_oldest_go_where_all_take_too_much(path, aside):
    made = [aside(days, size=100_000) for days in (4, 3, 2, 1)]
    assert clear(path, most_bytes=250_000) == made[1::-1]
    assert clear(path, most_bytes=0) == [made[2]]  # the newest stays
    more = [aside(0) for _ in range(9)]
    assert clear(path) == [more[0], made[3]]


@pytest.fixture
def often(monkeypatch):
    monkeypatch.setattr("dxad.outbox.front._HOUSEKEEPING_S", 0.02)


@pytest.mark.usefixtures("often")
async def test_the_outbox_does_it_and_says_so(make, path, aside, clock, caplog):
    caplog.set_level(logging.WARNING)
    content = path.read_bytes()
    old = aside((clock.utc(clock.now()) - NOW) // DAY * -1 + 31)
    path.write_bytes(content)
    async with make() as box:
        await box.append(record("a"))
        await until(lambda: f"{old} is deleted" in caplog.text)
    overwrite(path, 0, bytes(100))
    async with make() as box:
        await until(lambda: box.snapshot()["salvaged"] == 1)
    assert files(path) >= 2  # it is new
