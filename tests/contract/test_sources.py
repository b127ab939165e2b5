"""What every source keeps to; a source of a new type needs a rig here, and nothing else."""

import asyncio
import contextlib
import math
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from dxad import plugin
from dxad.errors import NotConnected
from dxad.fields import SourceSection
from dxad.runtime.clock import SystemClock
from dxad.types import Quality, Reason, Source
from tests.contract.sourcerigs import RIGS, Rig
from tests.peers import OpcuaPeer

BOUND_S = 6.0
"""In so long, a source has noticed whatever there is to notice."""


remote = pytest.mark.parametrize("kind", sorted(RIGS.keys() - {"memory"}), indirect=True)
"""For what needs a far side that can be gone."""


def test_every_source_has_a_rig():
    assert set(plugin.names("sources")) == {type_of(kind) for kind in RIGS}


@pytest.fixture(params=sorted(RIGS))
def kind(request) -> str:
    return request.param


@pytest.fixture
def rig(kind, tmp_path, request) -> Rig:
    return RIGS[kind](tmp_path, request)


@pytest.fixture(scope="session")
def opcua_peer():
    with OpcuaPeer() as peer:
        yield peer


def type_of(kind: str) -> str:
    return kind.partition(",")[0]


def document(kind: str, rig: Rig, settings: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": type_of(kind), "channels": {"a": rig.a, "b": rig.b}, **settings}


def build(kind: str, rig: Rig) -> Source:
    found = plugin.load("sources", type_of(kind))
    config = found.config.model_validate(document(kind, rig, rig.settings()))
    rig.source = found.build("dev", config, clock=SystemClock())
    return rig.source


@asynccontextmanager
async def far_side(rig: Rig) -> AsyncIterator[None]:
    await rig.up()
    try:
        yield
    finally:
        await rig.down()


@asynccontextmanager
async def closing(source: Source) -> AsyncIterator[Source]:
    try:
        yield source
    finally:
        await source.close()


async def shown(rig: Rig, source: Source, a: float, b: float) -> dict[int, tuple[Quality, Reason]]:
    """Show these until both arrive, as a broken sensor or as the number; what the source thinks of each."""

    def is_there(wanted: float, value: float) -> bool:
        return math.isnan(value) if math.isnan(wanted) else value == wanted

    found: dict[int, tuple[Quality, Reason]] = {}
    async with asyncio.timeout(BOUND_S):
        while len(found) < 2:
            await rig.show(a, b)
            for sample in (await source.read()).samples:
                if is_there((a, b)[sample["column"]], sample["value"]):
                    found[int(sample["column"])] = Quality(sample["quality"]), Reason(sample["reason"])
    return found


async def until_gone(source: Source) -> None:
    """Read until the source says that its link is gone."""
    async with asyncio.timeout(BOUND_S):
        while True:
            await source.read()


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


GOOD = (Quality.GOOD, Reason.NONE)


class TestConfig:
    def test_is_a_frozen_section_that_declares_its_channels(self, kind, rig):
        config = plugin.load("sources", type_of(kind)).config.model_validate(document(kind, rig, rig.config))
        assert isinstance(config, SourceSection)
        assert [each.id for each in config.declared("dev")] == ["dev.a", "dev.b"]
        with pytest.raises(ValidationError):
            config.period = 7

    def test_refuses_a_key_it_does_not_know(self, kind, rig):
        with pytest.raises(ValidationError, match="unknown key"):
            plugin.load("sources", type_of(kind)).config.model_validate(
                document(kind, rig, {**rig.config, "unheard_of": 1})
            )

    def test_gives_channels_units_and_ranges(self, kind, rig):
        raw = document(kind, rig, rig.config)
        raw["channels"] = {"a": {**rig.a, "unit": "bar", "range": [0, 16]}, "b": rig.b}
        first, _ = plugin.load("sources", type_of(kind)).config.model_validate(raw).declared("dev")
        assert (first.unit, first.range) == ("bar", (0.0, 16.0))


def test_has_its_channels_before_it_connects(kind, rig):
    assert [each.id for each in build(kind, rig).channels] == ["dev.a", "dev.b"]


async def test_close_is_safe_twice_and_without_connect(kind, rig):
    source = build(kind, rig)
    await source.close()
    await source.close()
    async with far_side(rig):
        await source.connect()
        await source.close()
        await source.close()


async def test_what_the_device_reads_arrives_as_it_is(kind, rig):
    async with far_side(rig), closing(build(kind, rig)) as source:
        await source.connect()
        for a, b in ((1.5, -2.25), (-0.0, 3e9)):
            assert await shown(rig, source, a, b) == {0: GOOD, 1: GOOD}


async def test_a_broken_sensor_is_bad_and_its_neighbour_is_not(kind, rig):
    async with far_side(rig), closing(build(kind, rig)) as source:
        await source.connect()
        assert await shown(rig, source, math.nan, 5.0) == {0: (Quality.BAD, Reason.TYPE), 1: GOOD}


async def test_samples_carry_their_arrival_and_the_number_of_their_message(kind, rig):
    async with far_side(rig), closing(build(kind, rig)) as source:
        before = SystemClock().now() - 1_000_000_000
        await source.connect()
        numbers = []
        for value in (1.0, 2.0, 3.0):
            await rig.show(value, value)
            block = await source.read()
            assert (
                (before <= block.samples["arrival"]) & (block.samples["arrival"] <= SystemClock().now())
            ).all()
            numbers += block.samples["message"].tolist()
        assert numbers == sorted(numbers)


async def test_a_read_can_be_cancelled_and_called_again(kind, rig):
    async with far_side(rig), closing(build(kind, rig)) as source:
        await source.connect()
        await shown(rig, source, 1.0, 1.0)
        for _ in range(3):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.005):
                    while True:
                        await source.read()
        assert await shown(rig, source, 2.0, 4.0) == {0: GOOD, 1: GOOD}


async def test_a_read_without_connect_or_after_close_is_not_connected(kind, rig):
    source = build(kind, rig)
    with pytest.raises(NotConnected):
        await source.read()
    async with far_side(rig):
        await source.connect()
        await source.close()
        with pytest.raises(NotConnected):
            await until_gone(source)


async def test_connects_again_and_again_on_the_same_object_and_leaves_nothing_behind(kind, rig):
    async with far_side(rig), closing(build(kind, rig)) as source:
        before = open_files()
        for turn in range(6):
            await source.connect()
            assert await shown(rig, source, turn, -turn) == {0: GOOD, 1: GOOD}
            await source.close()
            for _ in range(50):  # the far side closes its ends
                await asyncio.sleep(0.02)
                if open_files() <= before:
                    break
            assert open_files() <= before


@remote
async def test_a_device_that_is_not_there_is_not_connected_and_the_reason_says_where(kind, rig):
    async with closing(build(kind, rig)) as source:
        for _ in range(2):
            with pytest.raises(NotConnected) as told:
                await source.connect()
            assert rig.address in str(told.value)
            assert re.search(r"[a-z]{3} [a-z]{2}", str(told.value)), "the reason is not in words"
            with pytest.raises(NotConnected):
                await until_gone(source)


@remote
async def test_notices_that_the_device_has_gone_and_delivers_again_when_it_is_back(kind, rig):
    async with closing(build(kind, rig)) as source:
        async with far_side(rig):
            await source.connect()
            await shown(rig, source, 1.0, 1.0)
            await rig.down()
            with pytest.raises(NotConnected) as told:
                await until_gone(source)
            assert rig.address in str(told.value)
            await source.close()
        async with far_side(rig):
            await source.connect()
            assert await shown(rig, source, 2.0, 4.0) == {0: GOOD, 1: GOOD}


@remote
async def test_what_came_before_the_device_went_is_still_read(kind, rig):
    if kind in {"modbus", "replay", "serial, asked", "sql", "sql, postgres"}:
        pytest.skip("it is asked: nothing comes by itself")
    async with far_side(rig), closing(build(kind, rig)) as source:
        await source.connect()
        await shown(rig, source, 1.0, 1.0)
        await rig.show(7.0, 8.0)
        await asyncio.sleep(0.15)
        await rig.down()
        await asyncio.sleep(0.15)
        came: list[float] = []
        with contextlib.suppress(NotConnected):
            async with asyncio.timeout(BOUND_S):
                while True:
                    came += (await source.read()).samples["value"].tolist()
        assert came[-2:] == [7.0, 8.0]
