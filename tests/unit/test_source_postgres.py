"""The SQL source on a PostgreSQL of its own: read alone, never for long, and on from where it was."""

import asyncio
import os
import signal
from contextlib import asynccontextmanager

import pytest
from pydantic import ValidationError

from dxad.errors import ConfigError, NotConnected
from dxad.runtime.clock import SystemClock
from dxad.sources.sql import Config, Sql
from dxad.types import NS_PER_S
from hw_sim.ports import free_port
from tests.patience import PATIENCE_S
from tests.postgres import PASSWORD, url

ROW = "INSERT INTO samples (at, ph, salt) VALUES (%s, %s, %s)"
QUERY = "SELECT id, at, ph, salt FROM samples WHERE note NOT LIKE '%draft%'"
TABLE = """CREATE TABLE samples (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at timestamptz,
    ph numeric, salt float8, note text NOT NULL DEFAULT '')"""


@pytest.fixture
def database(postgres_server, monkeypatch):
    monkeypatch.setenv("PLANT_PASSWORD", PASSWORD)
    with postgres_server.admin() as connection:
        connection.execute("DROP TABLE IF EXISTS samples")
        connection.execute(TABLE)
        yield connection


def config(port, **settings):
    document = {
        "type": "sql", "url": url(port), "password": {"env": "PLANT_PASSWORD"}, "query": QUERY,
        "cursor": "id", "period": "10ms", "timeout": "1s",
        "channels": {"ph": {}, "salinity": {"column": "salt"}},
    }  # fmt: skip
    return Config.model_validate({**document, **settings})


@asynccontextmanager
async def connected(port, state_dir=None, **settings):
    source = Sql("lims", config(port, **settings), clock=SystemClock(), state_dir=state_dir)
    try:
        await source.connect()
        yield source
    finally:
        await source.close()


async def values(source, count):
    cells = []
    async with asyncio.timeout(PATIENCE_S):
        while len(cells) < 2 * count:
            cells += (await source.read()).samples["value"].tolist()
    return [tuple(cells[at : at + 2]) for at in range(0, len(cells), 2)]


async def test_rows_that_come_are_read_once_and_numeric_is_a_number(postgres_server, database):
    database.execute(ROW, (None, 1, 2))
    async with connected(postgres_server.port) as source:
        database.cursor().executemany(ROW, [(None, 3.5, 4), (None, 5.25, 6)])
        assert await values(source, 2) == [(3.5, 4.0), (5.25, 6.0)]
        database.execute(ROW, (None, 7, 8))
        assert await values(source, 1) == [(7.0, 8.0)]


async def test_a_time_may_be_cursor_and_sample_time_and_is_kept_over_a_restart(
    postgres_server, database, tmp_path
):
    settings = {"cursor": "at", "time": "at", "clock": "device", "state_dir": tmp_path}
    async with connected(postgres_server.port, **settings) as source:
        database.execute(ROW, ("2026-03-01 12:00:00.5+00", 1, 2))
        samples = (await source.read()).samples
        assert set(samples["stamp"]) == {1_772_366_400 * NS_PER_S + NS_PER_S // 2}
    database.execute(ROW, ("2026-03-01 12:00:01+00", 3, 4))
    async with connected(postgres_server.port, **settings) as source:
        assert await values(source, 1) == [(3.0, 4.0)]


@pytest.mark.parametrize("cursor", ["id", "at"])
async def test_a_row_that_is_committed_after_its_successors_is_read_once_within_the_overlap(
    postgres_server, database, cursor
):
    with postgres_server.admin() as slow:
        slow.autocommit = False
        async with (
            connected(postgres_server.port, overlap="1s", cursor=cursor) as patient,
            connected(postgres_server.port, cursor=cursor) as hasty,
        ):
            slow.execute(ROW, ("2026-03-01 12:00:00+00", 1, 1))  # it has its id, and nobody sees it
            database.cursor().executemany(
                ROW, [("2026-03-01 12:00:01+00", 2, 2), ("2026-03-01 12:00:02+00", 3, 3)]
            )
            for source in (patient, hasty):
                assert await values(source, 2) == [(2.0, 2.0), (3.0, 3.0)]
            slow.commit()
            assert await values(patient, 1) == [(1.0, 1.0)]
            database.execute(ROW, ("2026-03-01 12:00:03+00", 4, 4))
            for source in (patient, hasty):
                assert await values(source, 1) == [(4.0, 4.0)]
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.1):
                        await source.read()


@pytest.mark.parametrize(
    "query", ["DELETE FROM samples RETURNING *", "SELECT nextval('samples_id_seq') AS id"]
)
async def test_nothing_can_be_written(postgres_server, database, query):
    with pytest.raises(ConfigError):
        async with connected(postgres_server.port, query=query, channels={"id": {}}, start="begin") as source:
            await source.read()


async def test_a_query_that_takes_too_long_is_ended_by_the_server(postgres_server, database):
    slow = "SELECT id, ph, salt, pg_sleep(9) FROM samples"
    database.execute(ROW, (None, 1, 2))
    with pytest.raises(NotConnected, match="canceling statement due to statement timeout"):
        async with connected(postgres_server.port, query=slow, timeout="200ms", start="begin") as source:
            await source.read()


async def test_a_server_that_hangs_holds_up_nobody_and_is_told(postgres_server, database):
    async with connected(postgres_server.port, timeout="100ms") as source:
        stopped = database.execute(
            "SELECT pid FROM pg_stat_activity WHERE application_name = 'dxad'"
        ).fetchone()[0]
        os.kill(stopped, signal.SIGSTOP)
        try:
            beats = 0

            async def beat():
                nonlocal beats
                while True:
                    await asyncio.sleep(0.01)
                    beats += 1

            beating = asyncio.create_task(beat())
            with pytest.raises(NotConnected, match=r"127\.0\.0\.1:\d+: no answer within 0\.1 s"):  # noqa: PT012
                while True:
                    await source.read()
            await asyncio.wait_for(source.close(), PATIENCE_S)
            beating.cancel()
            assert beats > 5
        finally:
            os.kill(stopped, signal.SIGCONT)


async def test_who_is_not_let_in_or_finds_no_server_is_told(postgres_server, database, monkeypatch):
    monkeypatch.setenv("PLANT_PASSWORD", "wrong")
    with pytest.raises(NotConnected, match="password authentication failed"):
        await Sql("lims", config(postgres_server.port), clock=SystemClock()).connect()
    with pytest.raises(NotConnected, match="refused"):
        await Sql("lims", config(free_port()), clock=SystemClock()).connect()


async def test_a_session_that_was_ended_is_not_connected_and_goes_on_afterwards(postgres_server, database):
    async with connected(postgres_server.port) as source:
        database.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'dxad'"
        )
        with pytest.raises(NotConnected, match="terminating connection"):
            await source.read()
        database.execute(ROW, (None, 3, 4))
        await source.connect()
        assert await values(source, 1) == [(3.0, 4.0)]


def test_a_password_has_no_place_in_the_url():
    with pytest.raises(ValidationError, match="a password has no place in it"):
        config(1, url="postgresql://plant:secret@127.0.0.1/x")
