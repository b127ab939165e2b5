"""How many messages a broker sends unacknowledged shows in its silence, and in what ends it."""

from dxad.sources.mqtt.inflight import InFlight


def test_it_is_what_it_was_told_or_what_is_usual():
    assert InFlight(1000, told=True).limit == 1000
    assert InFlight(1000, told=False).limit == 20
    assert InFlight(5, told=False).limit == 5


def silent_at(seen: InFlight, count: int, at: float) -> None:
    """So many come, then none for long; then it is told, and as many come at once."""
    seen.look(at, count)
    seen.look(at + 1.0, count)
    seen.tell(at + 1.0, 0)
    seen.look(at + 1.02, count)


def test_one_that_goes_on_as_soon_as_it_is_told_had_come_to_its_maximum():
    seen = InFlight(1000, told=True)
    silent_at(seen, 32, 100.0)
    assert seen.limit == 32
    seen.look(101.5, 33)
    assert seen.limit == 33, "it sends a little more than that"


def test_one_that_sends_more_than_is_usual_has_no_such_maximum():
    seen = InFlight(1000, told=False)
    seen.look(100.0, 21)
    assert seen.limit == 1000


def test_it_may_be_told_of_some_of_them_and_send_bit_by_bit():
    seen = InFlight(1000, told=True)
    seen.look(100.0, 10)
    seen.tell(101.0, 4)
    for came in (5, 6):
        seen.look(101.04, came)
        assert seen.limit == 1000
    seen.look(101.06, 7)
    assert seen.limit == 10


def test_one_that_had_just_sent_or_goes_on_later_had_not():
    seen = InFlight(1000, told=True)
    seen.look(100.0, 32)
    seen.tell(100.1, 0)
    seen.look(100.12, 32)
    assert seen.limit == 1000
    seen.tell(101.0, 0)
    seen.look(101.5, 32)
    assert seen.limit == 1000


def test_it_is_seen_anew_after_an_hour():
    seen = InFlight(1000, told=True)
    silent_at(seen, 32, 100.0)
    seen.tell(4000.0, 0)
    seen.look(4000.5, 1)
    assert seen.limit == 1000
