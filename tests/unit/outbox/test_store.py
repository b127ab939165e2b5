"""Whatever happens in whatever order: no sink misses a record, and the numbers in memory are the file's."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from dxad.outbox import segments, tables
from dxad.outbox.limits import Limits
from dxad.outbox.segments import Bulk
from dxad.outbox.serving import _count_between
from dxad.outbox.store import Store
from dxad.runtime.clock import SteppedClock
from dxad.types import Boot, Lane, Record

SINKS = {"all": frozenset(Lane), "urgent": frozenset({Lane.CRITICAL})}

append = st.lists(st.sampled_from(Lane), min_size=1, max_size=5)
sink = st.sampled_from(sorted(SINKS))
steps = st.lists(
    st.one_of(
        st.tuples(st.just("append"), append),
        st.tuples(st.just("append bulk"), append, st.integers(1, 5)),
        st.tuples(st.just("take"), sink, st.integers(1, 4)),
        st.tuples(st.just("refuse"), sink, st.integers(1, 4)),
        st.tuples(st.just("take refused"), sink, st.integers(1, 4)),
        st.tuples(st.just("reopen")),
    ),
    max_size=30,
)


def assert_numbers_are_the_files(store: Store) -> None:
    connection = store._connection
    status = store.status()
    stored = Counter({lane: n for lane, (n, _) in tables.totals(connection).items()})
    stored[Lane.BULK] += segments.totals(connection).records
    assert +Counter(status.stored) == +stored
    for name, place in store._serving.places.items():
        waiting = sum(_count_between(connection, *each) for each in place.passed.items())
        assert status.sinks[name].pending == waiting + len(place.refused)


@settings(max_examples=150, deadline=None)
@given(steps)
def test_every_sink_gets_every_record_of_its_lanes_in_order(steps):
    boot = Boot("boot", 0, clock_ok=True)
    store = Store(None, max_bytes=2**24, clock=SteppedClock(), boot=boot, limits=Limits())
    ordinal = 0
    store.commit([])
    for name, lanes in SINKS.items():
        store.subscribe(name, lanes)
    appended: list[Record] = []
    had: dict[str, list[Record]] = {name: [] for name in SINKS}
    put_by: dict[str, list[Record]] = {name: [] for name in SINKS}
    for step in steps:
        match step:
            case "append", lanes:
                new = [Record(f"{len(appended) + n}", lane, b"body") for n, lane in enumerate(lanes)]
                store.commit(new)
                appended += new
            case "append bulk", lanes, n:
                new = [Record(f"{len(appended) + n}", lane, b"body") for n, lane in enumerate(lanes)]
                bodies = [b"%d" % each for each in range(n)]
                store.commit(new, Bulk("run", ordinal, bodies, [1] * n))
                appended += new
                appended += [
                    Record(f"run-{each}", Lane.BULK, body) for each, body in enumerate(bodies, ordinal)
                ]
                ordinal += n
            case "take", name, n:
                records = store.fetch(name, n)
                store.ack(name, records)
                had[name] += records
            case "refuse", name, n:
                records = store.fetch(name, n)
                store.refuse(name, records[-1:], "no", 100)
                store.ack(name, records[:-1])
                had[name] += records[:-1]
                put_by[name] += records[-1:]
            case "take refused", name, n:
                records = store.refused(name, n)
                assert records == put_by[name][:n]
                store.ack(name, records)
                had[name] += records
                del put_by[name][:n]
            case _:
                store.commit([])
                store._load(store._connection)
        store.commit([])
        assert_numbers_are_the_files(store)
    for name, lanes in SINKS.items():
        rest = store.fetch(name, 1000)
        due = [each for each in appended if each.lane in lanes]
        assert Counter(had[name] + put_by[name] + rest) == Counter(due)
        for lane in lanes:
            in_order = [each.seq for each in rest if each.lane is lane]
            assert in_order == sorted(in_order)
    store.close()
