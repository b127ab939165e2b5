"""The replay source: rows of a file at their own distances, at speed, for ever, or as fast as it goes."""

import asyncio
from contextlib import asynccontextmanager

import numpy as np
import pytest
from pydantic import ValidationError

from dxad import IoTResource, PipelineResource
from dxad.errors import ConfigError, EndOfStream, NotConnected
from dxad.ingest import Ingest
from dxad.ring.ringbuffer import RingBuffer
from dxad.runtime.clock import SteppedClock, SystemClock
from dxad.runtime.health import Health
from dxad.runtime.metrics import Metrics
from dxad.sources.replay import Config, Replay
from dxad.types import NS_PER_S, Quality, Reason
from tests.patience import PATIENCE_S

FIRST = 1_772_366_400
"""2026-03-01 12:00:00 UTC."""
MS = 1_000_000


def config(path, **settings):
    document = {"type": "replay", "path": str(path), "period": "100ms", "channels": {"a": {}, "b": {}}}
    return Config.model_validate({**document, **settings})


@pytest.fixture
def week(tmp_path):
    """Ten rows at 100 ms; in one `b` is missing, in another it is no number."""
    path = tmp_path / "week.csv"
    cells = ["", "broken", *range(2, 10)]
    rows = [f"{FIRST + n / 10:.1f},{n},{b}" for n, b in enumerate(cells)]
    path.write_text("\n".join(["time,a,b", *rows, ""]))
    return path


@asynccontextmanager
async def opened(path, clock, **settings):
    source = Replay("dev", config(path, **settings), clock=clock)
    try:
        await source.connect()
        yield source
    finally:
        await source.close()


async def taken(source, clock, until, step=10 * MS):
    """(arrival, value of a) of all that comes until then, on a clock that is stepped."""
    found = []

    async def reading():
        while True:
            samples = (await source.read()).samples
            of_a = samples[samples["column"] == 0]
            found.extend(zip(of_a["arrival"].tolist(), of_a["value"].tolist(), strict=True))

    task = asyncio.create_task(reading())
    while clock.now() < until:
        await clock.step(step)
        await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.wait([task])
    return found


async def played(source):
    with pytest.raises(EndOfStream, match="has come to its end"):  # noqa: PT012 - which read it is does not matter
        while True:
            await asyncio.wait_for(source.read(), PATIENCE_S)


class TestPace:
    @pytest.mark.parametrize(("speed", "apart"), [(1, 100 * MS), (10, 10 * MS), (0.5, 200 * MS)])
    async def test_rows_come_at_their_own_distances_or_so_many_times_as_fast(self, week, speed, apart):
        clock = SteppedClock(start=NS_PER_S)
        async with opened(week, clock, speed=speed) as source:
            found = await taken(source, clock, NS_PER_S + 9 * apart + 20 * MS)
        assert found == [(NS_PER_S + n * apart, float(n)) for n in range(10)]

    async def test_cells_are_missing_or_bad_as_the_file_says_and_rows_have_their_own_times(self, week):
        async with opened(week, SystemClock(), speed="max") as source:
            samples = (await source.read()).samples
        of_b = samples[samples["column"] == 1]
        assert len(of_b) == 9
        assert (of_b["quality"][0], of_b["reason"][0]) == (Quality.BAD, Reason.TYPE)
        stamps = samples[samples["column"] == 0]["stamp"]
        assert stamps.tolist() == [FIRST * NS_PER_S + n * 100 * MS for n in range(10)]

    async def test_it_ends_with_its_last_row(self, week):
        async with opened(week, SystemClock(), speed=1000) as source:
            await played(source)

    async def test_or_begins_again_a_step_after_it(self, week):
        clock = SteppedClock(start=NS_PER_S)
        async with opened(week, clock, loop=True) as source:
            found = await taken(source, clock, NS_PER_S + 2_320 * MS, step=20 * MS)
        assert found == [(NS_PER_S + n * 100 * MS, float(n % 10)) for n in range(24)]

    async def test_a_tape_that_was_held_up_goes_on_where_it_was(self, week):
        clock = SteppedClock(start=NS_PER_S)
        async with opened(week, clock) as source:
            assert len(await taken(source, clock, NS_PER_S + 120 * MS)) == 2
            clock.advance(NS_PER_S * 60)
            found = await taken(source, clock, NS_PER_S * 60 + 130 * MS)
        assert [value for _, value in found] == [2.0, 3.0]
        assert all(at >= 59.8 * NS_PER_S for at, _ in found)

    async def test_as_fast_as_it_goes_the_ring_has_every_row(self, tmp_path):
        """An hour, with a pause of a minute in it, in well under a second."""
        n = np.arange(36_000)
        times = FIRST * NS_PER_S + n * 100 * MS + (n >= 30_000) * 60 * NS_PER_S
        values = np.stack([n, -n], axis=1).astype(np.float64)
        np.savez(tmp_path / "hour.npz", time_ns=times, values=values, channels=["a", "b"])
        section = config(tmp_path / "hour.npz", speed="max", keep="2h")
        clock = SystemClock()
        ring = RingBuffer(
            section.declared("dev"), period=100 * MS, slots=72_000, start=clock.now() // (100 * MS)
        )
        ingest = Ingest(
            "dev", Replay("dev", section, clock=clock), section, ring,
            clock=clock, health=Health(clock), metrics=Metrics(),
        )  # fmt: skip
        with pytest.raises(EndOfStream):
            async with asyncio.timeout(PATIENCE_S):
                await ingest.run()
        said = ingest.snapshot()
        assert (said["samples"], said["late"], said["folded"]) == (72_000, 0, 0)
        assert said["lost"] == {}
        assert 36_600 <= said["rows"] <= 36_601


class TestFile:
    async def test_columns_have_other_names_and_a_wrong_one_is_told(self, week):
        channels = {"left": {"column": "a"}, "right": {"column": "c"}}
        with pytest.raises(ConfigError, match=r"week\.csv: c=dev\.right: no column 'c'; there are a, b"):
            async with opened(week, SystemClock(), channels=channels):
                pass
        with pytest.raises(ConfigError, match=r"no column for dev\.z; columns: a, b"):
            async with opened(week, SystemClock(), channels={"a": {}, "z": {}}):
                pass

    async def test_one_that_is_not_there_may_come(self, tmp_path):
        with pytest.raises(NotConnected, match=r"none\.csv: No such file or directory"):
            async with opened(tmp_path / "none.csv", SystemClock()):
                pass

    def test_what_cannot_be_is_refused(self, week):
        with pytest.raises(ValidationError, match="at speed 1 alone"):
            config(week, clock="device", speed=2)
        with pytest.raises(ValidationError):
            config(week, speed=0)
        with pytest.raises(ValidationError):
            config(week, speed="fast")


async def test_a_sensor_of_the_python_api_may_be_a_recording(tmp_path):
    rows = [f"{FIRST + n},{n % 7}" for n in range(300)]
    (tmp_path / "past.csv").write_text("\n".join(["time,value", *rows, ""]))
    pipeline = PipelineResource("past")
    pipeline.add_source(IoTResource("sensor", endpoint=f"replay://{tmp_path}/past.csv", speed="max"))
    async with asyncio.timeout(PATIENCE_S), pipeline:
        while (answer := (await pipeline.query({})).content)["sources"]["sensor"]["samples"] < 300:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        assert answer["sources"]["sensor"]["channels"] == ["sensor.value"]
