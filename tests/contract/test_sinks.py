"""What every sink keeps to; a sink of a new type needs a rig here, and nothing else."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
from aiohttp import web
from pydantic import ValidationError

from dxad import plugin
from dxad.errors import NotConnected
from dxad.event import Event, to_record
from dxad.sinksection import SinkSection
from dxad.types import Lane, Record, Sink
from tests.mqttbrokers import TakingBroker
from tests.peers import listening


class Rig:
    """The far side of one type of sink."""

    config: ClassVar[dict[str, Any]]
    """A configuration with what has no default, beside `type`."""
    sink: Any

    def __init__(self, tmp_path: Path, free_port: int) -> None:
        self.tmp_path = tmp_path
        self.port = free_port

    def settings(self) -> dict[str, Any]:
        """The configuration that leads to this rig."""
        return self.config

    async def up(self) -> None:
        """Be there."""

    async def down(self) -> None:
        """Be gone."""

    async def slow(self) -> None:
        """Take so long over the next write that it can be cancelled."""

    async def received(self) -> list[str]:
        """The ids of what came, in order."""
        raise NotImplementedError


class HttpRig(Rig):
    config: ClassVar = {"url": "http://127.0.0.1:1/events"}

    def __init__(self, tmp_path: Path, free_port: int) -> None:
        super().__init__(tmp_path, free_port)
        self.events: list[str] = []
        self.runner: web.AppRunner | None = None
        self.pause_s = 0.0

    def settings(self) -> dict[str, Any]:
        return {"url": f"http://127.0.0.1:{self.port}/events", "timeout": "2s"}

    async def take(self, request: web.Request) -> web.Response:
        events = await request.json()
        pause_s, self.pause_s = self.pause_s, 0.0
        await asyncio.sleep(pause_s)
        self.events += [each["id"] for each in (events if isinstance(events, list) else [events])]
        return web.Response(status=202)

    async def up(self) -> None:
        app = web.Application()
        app.router.add_post("/events", self.take)
        self.runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", self.port, reuse_address=True).start()

    async def down(self) -> None:
        if self.runner is not None:
            await self.runner.cleanup()
            self.runner = None

    async def slow(self) -> None:
        self.pause_s = 30.0

    async def received(self) -> list[str]:
        return self.events


class FileRig(Rig):
    config: ClassVar = {"path": "out/events.jsonl"}

    async def up(self) -> None:
        (self.tmp_path / "out").mkdir()

    async def down(self) -> None:
        shutil.rmtree(self.tmp_path / "out", ignore_errors=True)

    async def received(self) -> list[str]:
        lines = (self.tmp_path / "out" / "events.jsonl").read_text().splitlines()
        return [json.loads(each)["id"] for each in lines]


class MemoryRig(Rig):
    config: ClassVar = {}

    async def received(self) -> list[str]:
        return [(await self.sink.next_event())["id"] for _ in range(len(self.sink._events))]


class WebhookRig(HttpRig):
    pass


class MqttRig(Rig):
    config: ClassVar = {"url": "mqtt://127.0.0.1:1"}

    def __init__(self, tmp_path: Path, free_port: int) -> None:
        super().__init__(tmp_path, free_port)
        self.broker = TakingBroker()
        self.listens = AsyncExitStack()

    def settings(self) -> dict[str, Any]:
        return {"url": f"mqtt://127.0.0.1:{self.port}", "timeout": "2s"}

    async def up(self) -> None:
        await self.listens.enter_async_context(listening(self.broker.serve, self.port))

    async def down(self) -> None:
        await self.listens.aclose()

    async def slow(self) -> None:
        self.broker.delay_s = 0.1

    async def received(self) -> list[str]:
        self.broker.delay_s = 0.0
        return [json.loads(each.payload)["id"] for each in self.broker.events]


RIGS: dict[str, type[Rig]] = {
    "file": FileRig,
    "http": HttpRig,
    "memory": MemoryRig,
    "mqtt": MqttRig,
    "webhook": WebhookRig,
}

remote = pytest.mark.parametrize("kind", sorted(RIGS.keys() - {"memory"}), indirect=True)
"""For what needs a far side that can be gone."""


def test_every_sink_has_a_rig():
    assert set(plugin.names("sinks")) == set(RIGS)


@pytest.fixture(params=sorted(RIGS))
def kind(request) -> str:
    return request.param


@pytest.fixture
def rig(kind, tmp_path, free_port) -> Rig:
    return RIGS[kind](tmp_path, free_port)


def build(kind: str, rig: Rig) -> Sink:
    found = plugin.load("sinks", kind)
    config = found.config(type=kind, **rig.settings())
    who = {"gateway": "gw"} if config.names_gateway else {}
    rig.sink = found.build("s", config, state_dir=rig.tmp_path, **who)
    return rig.sink


@asynccontextmanager
async def far_side(rig: Rig) -> AsyncIterator[None]:
    await rig.up()
    try:
        yield
    finally:
        await rig.down()


@asynccontextmanager
async def closing(sink: Sink) -> AsyncIterator[Sink]:
    try:
        yield sink
    finally:
        await sink.close()


def record(id_: str) -> Record:
    return to_record(Event(id_, "dxad.test", "/gw", 1, {"value": 1.5, "text": "ü\n"}, lane=Lane.NORMAL))


async def connect_and_write(sink: Sink) -> None:
    await sink.connect()
    await sink.write([record("a")])


class TestConfig:
    def test_is_a_frozen_section_with_sound_defaults(self, kind, rig):
        config = plugin.load("sinks", kind).config(type=kind, **rig.config)
        assert isinstance(config, SinkSection)
        assert config.lane_set() == {Lane.CRITICAL, Lane.NORMAL}
        with pytest.raises(ValidationError):
            config.batch = 7

    def test_refuses_a_key_it_does_not_know(self, kind, rig):
        with pytest.raises(ValidationError, match="unknown key"):
            plugin.load("sinks", kind).config(type=kind, unheard_of=1, **rig.config)

    def test_describes_every_key(self, kind):
        for name, field in plugin.load("sinks", kind).config.model_fields.items():
            assert name == "type" or field.description, name


async def test_making_one_touches_nothing(kind, rig):
    build(kind, rig)
    assert not list(rig.tmp_path.iterdir())


async def test_close_is_safe_twice_and_without_connect(kind, rig):
    sink = build(kind, rig)
    await sink.close()
    await sink.close()
    async with far_side(rig):
        await sink.connect()
        await sink.close()
        await sink.close()


async def test_what_write_returned_for_has_arrived_in_order(kind, rig):
    async with far_side(rig), closing(build(kind, rig)) as sink:
        await sink.connect()
        await sink.write([record("a"), record("b")])
        await sink.write([record("c")])
        assert await rig.received() == ["a", "b", "c"]


async def test_a_repeated_record_keeps_its_id(kind, rig):
    async with far_side(rig), closing(build(kind, rig)) as sink:
        await sink.connect()
        await sink.write([record("a")])
        await sink.write([record("a")])
        assert set(await rig.received()) == {"a"}


async def test_connects_again_after_a_close(kind, rig):
    async with far_side(rig), closing(build(kind, rig)) as sink:
        for each in "ab":
            await sink.connect()
            await sink.write([record(each)])
            await sink.close()
        assert await rig.received() == ["a", "b"]


@remote
async def test_says_not_connected_while_the_far_side_is_gone_and_works_when_it_is_back(kind, rig):
    async with closing(build(kind, rig)) as sink:
        with pytest.raises(NotConnected, match=r"."):
            await connect_and_write(sink)
        await sink.close()
        async with far_side(rig):
            await sink.connect()
            await sink.write([record("a")])
            assert await rig.received() == ["a"]
            await rig.down()
            with pytest.raises(NotConnected):
                await sink.write([record("b")])


async def test_a_cancelled_write_leaves_it_fit_to_close_and_connect_again(kind, rig):
    async with far_side(rig), closing(build(kind, rig)) as sink:
        await sink.connect()
        await rig.slow()
        writing = asyncio.create_task(sink.write([record("a")]))
        await asyncio.sleep(0.02)
        writing.cancel()
        await asyncio.wait([writing])
        await sink.close()
        await sink.connect()
        await sink.write([record("b")])
        assert "b" in await rig.received()


@remote
async def test_a_write_without_connect_is_not_connected(kind, rig):
    async with far_side(rig), closing(build(kind, rig)) as sink:
        with pytest.raises(NotConnected):
            await sink.write([record("a")])
