"""The SQL source: which rows are new, what their cells and times mean, and whose mistakes are whose."""

import asyncio
import sqlite3
from contextlib import asynccontextmanager, closing

import pytest
from pydantic import ValidationError

from dxad.errors import ConfigError, NotConnected
from dxad.runtime.clock import SteppedClock, SystemClock
from dxad.sources.sql import Config, Sql
from dxad.sources.sql.overlap import Overlap
from dxad.types import NS_PER_S, Quality, Reason
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.one_loop

QUERY = "SELECT id, at, ph, salt FROM samples"


@pytest.fixture
def table(tmp_path):
    """A laboratory's table; call it to add rows of (at, ph, salt)."""
    path = tmp_path / "lims.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE samples (id INTEGER PRIMARY KEY, at, ph, salt)")

        def add(*rows):
            with database:
                database.executemany("INSERT INTO samples (at, ph, salt) VALUES (?, ?, ?)", rows)

        add.path, add.database = path, database
        yield add


def config(path, **settings):
    document = {
        "type": "sql", "url": f"sqlite://{path}", "query": QUERY, "cursor": "id", "period": "10ms",
        "channels": {"ph": {}, "salinity": {"column": "salt"}},
    }  # fmt: skip
    return Config.model_validate({**document, **settings})


@asynccontextmanager
async def connected(path, **settings):
    source = Sql("lims", config(path, **settings), clock=SystemClock())
    try:
        await source.connect()
        yield source
    finally:
        await source.close()


async def values(source, count):
    """By row, the first so many."""
    cells = []
    async with asyncio.timeout(PATIENCE_S):
        while len(cells) < 2 * count:
            cells += (await source.read()).samples["value"].tolist()
    return [tuple(cells[at : at + 2]) for at in range(0, len(cells), 2)]


async def test_what_is_there_already_is_left_alone_and_what_comes_is_read_once(table):
    table((0, 1.0, 2.0))
    async with connected(table.path) as source:
        table((0, 3.0, 4.0), (0, 5.0, 6.0))
        assert await values(source, 2) == [(3.0, 4.0), (5.0, 6.0)]
        table((0, 7.0, 8.0))
        assert await values(source, 1) == [(7.0, 8.0)]


async def test_it_may_begin_at_the_first_row_and_goes_on_where_it_was_after_a_loss(table):
    table((0, 1.0, 2.0))
    async with connected(table.path, start="begin") as source:
        assert await values(source, 1) == [(1.0, 2.0)]
        await source.close()
        table((0, 3.0, 4.0))
        await source.connect()
        assert await values(source, 1) == [(3.0, 4.0)]


async def test_where_it_was_is_kept_over_a_restart_but_not_for_another_query(table, tmp_path):
    def made(**settings):
        return Sql("lims", config(table.path, **settings), clock=SystemClock(), state_dir=tmp_path / "state")

    source = made()
    await source.connect()
    table((0, 1.0, 2.0))
    assert await values(source, 1) == [(1.0, 2.0)]
    await source.close()
    table((0, 3.0, 4.0))
    source = made()
    await source.connect()
    assert await values(source, 1) == [(3.0, 4.0)]
    await source.close()
    source = made(query=f"{QUERY} WHERE ph > 0", start="begin")
    await source.connect()
    assert await values(source, 2) == [(1.0, 2.0), (3.0, 4.0)]
    await source.close()


async def test_a_table_that_was_made_anew_is_read_from_its_begin(table):
    table(*[(0, 0.0, 0.0)] * 5)
    async with connected(table.path) as source:
        await source.close()
        with table.database:
            table.database.execute("DELETE FROM samples")
        table((0, 9.0, 9.5))
        await source.connect()
        assert await values(source, 1) == [(9.0, 9.5)]


async def test_more_rows_than_one_query_fetches_come_one_after_the_other(table):
    async with connected(table.path, rows=3, period="10s") as source:
        source._due = 0
        table(*[(0, float(number), 0.0) for number in range(10)])
        assert [ph for ph, _ in await values(source, 9)] == [float(number) for number in range(9)]


async def test_a_cell_that_is_no_number_is_bad_and_its_neighbour_is_not(table):
    async with connected(table.path) as source:
        table((0, "acid", 2.0), (0, None, float("inf")))
        samples = (await source.read()).samples
    assert [(Quality(each["quality"]), Reason(each["reason"])) for each in samples] == [
        (Quality.BAD, Reason.TYPE), (Quality.GOOD, Reason.NONE),
        (Quality.BAD, Reason.TYPE), (Quality.BAD, Reason.TYPE),
    ]  # fmt: skip


@pytest.mark.parametrize("at", ["2026-03-01T12:00:00+00:00", 1_772_366_400, "2026-03-01 13:00:00+01:00"])
async def test_a_row_may_bring_its_own_time(table, at):
    async with connected(table.path, time="at", clock="device") as source:
        table((at, 1.0, 2.0))
        samples = (await source.read()).samples
    assert set(samples["stamp"]) == {1_772_366_400 * NS_PER_S}


async def test_a_time_that_is_none_leaves_the_row_to_its_arrival(table):
    async with connected(table.path, time="at", clock="device") as source:
        table((1_772_366_400, 1.0, 2.0), ("yesterday", 3.0, 4.0))
        assert (await source.read()).samples["stamp"].tolist()[2:] == [0, 0]


async def test_nothing_can_be_written(table):
    async with connected(table.path) as source:
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            await source._worker.run(lambda: source._table._database.execute("DELETE FROM samples"))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"query": "SELEKT id, ph, salt FROM samples"}, "syntax error; the query is: SELEKT id, ph, salt"),
        ({"query": "SELECT id, pH2 FROM samples"}, "no such column: pH2"),
        ({"query": "DELETE FROM samples"}, "syntax error"),
        ({"channels": {"ph": {"column": "pH2"}}}, "has no column 'pH2'; it has id, at, ph, salt"),
        ({"cursor": "number"}, "has no column 'number'"),
    ],
)
async def test_a_mistake_in_the_query_is_the_configurations(table, settings, says):
    with pytest.raises(ConfigError) as caught:
        async with connected(table.path, **settings):
            pytest.fail("it took that")
    assert says in str(caught.value)
    assert str(table.path) in str(caught.value)


async def test_a_file_that_is_not_there_is_not_connected(tmp_path):
    with pytest.raises(NotConnected, match=r"no\.db: unable to open database file"):
        async with connected(tmp_path / "no.db"):
            pytest.fail("it is not there")


async def test_a_table_that_is_not_there_yet_is_not_connected(table):
    with pytest.raises(NotConnected, match="no such table: soon"):
        async with connected(table.path, query="SELECT id, ph, salt FROM soon"):
            pytest.fail("it is not there")


async def test_a_file_that_has_gone_or_is_another_is_not_connected(table):
    async with connected(table.path) as source:
        table.path.rename(table.path.with_suffix(".old"))
        with pytest.raises(NotConnected, match=r"lims\.db: the file has gone, or is another one now"):
            await source.read()


async def test_a_table_that_does_not_grow_proves_that_the_link_is_alive(table):
    async with connected(table.path) as source:
        reading = asyncio.create_task(source.read())
        await asyncio.sleep(0.05)
        assert source.alive_until > 0
        table((0, 1.0, 2.0))
        assert len((await reading).samples) == 2


def test_a_clock_of_the_device_wants_a_column_of_times():
    with pytest.raises(ValidationError, match="wants to know by `time` which column has it"):
        config("/x.db", clock="device")


@pytest.mark.parametrize("url", ["lims.db", "sqlite://lims.db", "mysql://x/y", "sqlite:///"])
def test_refuses_what_is_no_address(url):
    with pytest.raises(ValidationError, match="is neither sqlite:///path nor postgresql"):
        config("/x", url=url)


def ids(table, *numbers):
    """Rows with ids of their own."""
    with table.database:
        table.database.executemany(
            "INSERT INTO samples (id, ph, salt) VALUES (?, ?, ?)", [(each, each, 0) for each in numbers]
        )


async def read(source, count):
    return [int(ph) for ph, _ in await values(source, count)]


async def nothing(source):
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await source.read()


async def test_with_an_overlap_rows_before_the_last_are_found_for_a_while_each_once(table):
    clock = SteppedClock()
    source = Sql("lims", config(table.path, overlap="2s", period="1s", rows=3), clock=clock)

    async def asked(count):
        reading = asyncio.create_task(read(source, count))
        while not reading.done():
            await clock.step(NS_PER_S // 2)
        return await reading

    ids(table, 10)
    try:
        await source.connect()
        ids(table, 12, 14, 16, 18, 20)
        assert await asked(5) == [12, 14, 16, 18, 20]
        ids(table, 9, 11, 13, 19)
        assert await asked(3) == [11, 13, 19], "what stood before it began is none of its own"
        ids(table, 17, 21)
        assert await asked(2) == [17, 21]
        await clock.step(4 * NS_PER_S)
        ids(table, 30)
        assert await asked(1) == [30]
        await clock.step(4 * NS_PER_S)
        ids(table, 15, 31)
        assert await asked(1) == [31], "too late"
        assert len(source._overlap) <= 2
    finally:
        await source.close()


def test_an_overlap_remembers_no_more_than_it_may():
    overlap = Overlap(NS_PER_S, 100)
    overlap.begin(None)
    for turn in range(50):
        values = list(range(10 * turn, 10 * turn + 10))
        assert overlap.unread(values) == list(range(10))
        overlap.read(values, values[-1], turn)
        assert len(overlap) <= 100
        begins = overlap.begins(turn)
        assert begins is None or values[-1] - begins >= 40, "what came last is asked for again"
    assert overlap.begins(2 * NS_PER_S) == 499
    assert len(overlap) == 0


async def test_with_an_overlap_the_place_is_kept_over_a_loss_and_a_table_made_anew_is_all_new(table):
    async with connected(table.path, overlap="1min") as source:
        ids(table, 10, 12)
        assert await read(source, 2) == [10, 12]
        await source.close()
        ids(table, 11, 13)
        await source.connect()
        assert await read(source, 2) == [11, 13]
        await source.close()
        with table.database:
            table.database.execute("DELETE FROM samples")
        ids(table, 1, 2, 10)
        await source.connect()
        assert await read(source, 3) == [1, 2, 10]
        await nothing(source)


async def test_rows_without_a_cursor_are_read_but_lead_nowhere(table):
    async with connected(table.path, cursor="at", start="begin", overlap="1min") as source:
        table((None, 1.0, 0.0), (5, 2.0, 0.0))
        assert sorted(await read(source, 2)) == [1, 2]
        table((6, 3.0, 0.0))
        assert await read(source, 1) == [3]


def test_a_url_with_one_slash_more_is_the_same_file(tmp_path):
    assert config(f"/{tmp_path}/a.db").file == f"{tmp_path}/a.db"
