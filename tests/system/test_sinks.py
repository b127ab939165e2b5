"""Outbox, delivery and sinks over real wires, while those who receive do what they like."""

import asyncio
import gc
import os
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from dxad import plugin
from dxad.deliver import Deliver
from dxad.errors import NotConnected
from dxad.outbox import Outbox
from dxad.runtime.backoff import Backoff
from dxad.runtime.clock import SystemClock
from dxad.runtime.health import Health
from dxad.runtime.metrics import Metrics
from dxad.types import Lane, Record, Sink
from hw_sim.ports import free_port
from tests.httppeers import record
from tests.mqttbrokers import TakingBroker
from tests.patience import PATIENCE_S
from tests.peers import listening

NAME = "agent.plant.example"
GROWS_MOST = 1 << 20
"""Bytes: a leak of one kilobyte for each connection."""


class Gateway:
    """An outbox on a disk, and what serves its sinks, quick to try again."""

    def __init__(self, folder: Path) -> None:
        self.clock = SystemClock()
        self.health = Health(self.clock)
        self.metrics = Metrics()
        self.box = Outbox(
            folder / "outbox.db",
            max_bytes=2**24,
            commit_window_s=0.002,
            health=self.health,
            metrics=self.metrics,
            clock=self.clock,
        )

    @asynccontextmanager
    async def serving(self, **sinks: dict[str, Any]) -> AsyncIterator[dict[str, Deliver]]:
        delivers = {name: self.deliver(name, settings) for name, settings in sinks.items()}
        async with self.box:
            tasks = [asyncio.create_task(each.run()) for each in delivers.values()]
            try:
                yield delivers
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)

    def deliver(self, name: str, settings: dict[str, Any]) -> Deliver:
        made = plugin.load("sinks", settings["type"])
        section = made.config.model_validate(settings)
        deliver = Deliver(
            name, build(settings), self.box, section,
            clock=self.clock, health=self.health, metrics=self.metrics,
        )  # fmt: skip
        deliver._waits = Backoff(first_s=0.001, most_s=0.02)
        return deliver

    async def append(self, *ids: str, lane: Lane = Lane.NORMAL) -> None:
        made = [record(each) for each in ids]
        await asyncio.gather(*(self.box.append(Record(each.id, lane, each.body)) for each in made))


def build(settings: dict[str, Any]) -> Sink:
    made = plugin.load("sinks", settings["type"])
    section = made.config.model_validate(settings)
    who = {"gateway": "gw"} if section.names_gateway else {}
    return made.build("s", section, state_dir=Path("/nonexistent"), **who)


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not true():  # noqa: ASYNC110 - what comes is somebody else's doing
            await asyncio.sleep(0.005)


class Agent:
    """An HTTP server that answers each request as it is told to."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.where: list[str] = []
        self.writer: asyncio.StreamWriter | None = None
        self.answer: Callable[[list[str]], bytes | None] = lambda _: b"204 No Content"
        """A status line's end; None is a lost answer: the request was taken, and the connection ends."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            body = await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
            events = orjson.loads(body)
            ids = [each["id"] for each in (events if isinstance(events, list) else [events])]
            said = self.answer(ids)
            if said is None or said.startswith(b"2"):
                self.ids += ids
            self.where.append(writer.get_extra_info("sockname")[0])
            if said is None:
                return
            writer.write(b"HTTP/1.1 %s\r\nContent-Length: 0\r\n\r\n" % said)


def firsts(ids: list[str]) -> list[str]:
    """Without those that came before."""
    return list(dict.fromkeys(ids))


@pytest.mark.parametrize("mode", ["batch", "structured"])
async def test_whatever_is_answered_every_event_arrives_in_order_and_none_is_lost(tmp_path, mode):
    agent, dice = Agent(), random.Random(7)
    moods = [b"500 Oh no", b"429 Later", b"413 Too much", b"302 Elsewhere", b"401 Who", b"nonsense", None]

    def answer(ids: list[str]) -> bytes | None:
        said = dice.choice(moods) if dice.random() < 0.3 else b"200 OK"
        return b"200 OK" if said == b"413 Too much" and len(ids) == 1 else said

    agent.answer = answer
    named = [f"{n:03}" for n in range(300)]
    gateway = Gateway(tmp_path)
    async with listening(agent.serve) as port:
        sink = {"type": "http", "url": f"http://127.0.0.1:{port}/", "mode": mode, "drain_rate": 0}
        async with gateway.serving(agent=sink) as delivers:
            for at in range(0, 300, 50):
                await gateway.append(*named[at : at + 50])
            await until(lambda: delivers["agent"].snapshot()["pending"] == 0)
            assert gateway.box.snapshot()["dead_letters"] == 0
    assert firsts(agent.ids) == named


async def test_acks_that_a_broker_owes_us_cost_no_event_and_no_order(tmp_path):
    broker, dice = TakingBroker(), random.Random(7)
    taken = broker.answer
    broker.answer = lambda each: (
        dice.choice(["hang up", "take and hang up"]) if dice.random() < 0.02 else taken(each)
    )
    named = [f"{n:03}" for n in range(300)]
    gateway = Gateway(tmp_path)
    async with listening(broker.serve) as port:
        sink = {"type": "mqtt", "url": f"mqtt://127.0.0.1:{port}", "drain_rate": 0}
        async with gateway.serving(broker=sink) as delivers:
            await gateway.append(*named)
            await until(lambda: delivers["broker"].snapshot()["pending"] == 0)
    assert firsts([orjson.loads(each.payload)["id"] for each in broker.events]) == named
    assert len(broker.hellos) > 1


async def test_a_poison_event_ends_in_the_dead_letters_and_its_neighbours_do_not_wait(tmp_path):
    agent = Agent()
    agent.answer = lambda ids: b"400 Bad" if "13" in ids else b"200 OK"
    gateway = Gateway(tmp_path)
    async with listening(agent.serve) as port:
        sink = {"type": "http", "url": f"http://127.0.0.1:{port}/", "max_attempts": 2}
        async with gateway.serving(agent=sink) as delivers:
            delivers["agent"]._refused_waits = Backoff(first_s=0.01, most_s=0.01)
            await gateway.append(*(str(n) for n in range(30)))
            await until(lambda: gateway.box.snapshot()["dead_letters"] == 1)
            await until(lambda: delivers["agent"].snapshot()["pending"] == 0)
    assert firsts(agent.ids) == [str(n) for n in range(30) if n != 13]


async def test_a_sink_that_hangs_costs_the_others_nothing(tmp_path):
    async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        while await reader.read(65_536):
            pass

    agent, broker = Agent(), TakingBroker()
    gateway = Gateway(tmp_path)
    async with AsyncExitStack() as stack:
        slow, port, other = [
            await stack.enter_async_context(listening(each)) for each in (silent, agent.serve, broker.serve)
        ]
        delivers = await stack.enter_async_context(
            gateway.serving(
                slow={"type": "http", "url": f"http://127.0.0.1:{slow}/"},
                agent={"type": "http", "url": f"http://127.0.0.1:{port}/"},
                broker={"type": "mqtt", "url": f"mqtt://127.0.0.1:{other}"},
            )
        )
        await gateway.append(*(str(n) for n in range(200)), lane=Lane.CRITICAL)
        await until(lambda: len(agent.ids) == len(broker.events) == 200)
        assert delivers["slow"].snapshot()["pending"] == 200
        assert "the peer's answer to 1 record" in delivers["slow"].snapshot()["waits_for"]


@pytest.fixture
def names(monkeypatch):
    """What the name server says, by name."""
    found: dict[str, str | None] = {NAME: None}
    real = socket.getaddrinfo

    def asked(host, *rest, **more):
        if found.get(host, host) is None:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return real(found.get(host, host), *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", asked)
    return found


@pytest.mark.parametrize("kind", ["http", "mqtt"])
async def test_a_name_that_fails_and_then_means_another_machine_is_followed(tmp_path, names, kind):
    agent, broker, port = Agent(), TakingBroker(), free_port()
    serve = agent.serve if kind == "http" else broker.serve
    gateway = Gateway(tmp_path)
    sink = {"type": kind, "url": f"{kind}://{NAME}:{port}"}
    async with gateway.serving(s=sink) as delivers:
        await gateway.append("a")
        await until(lambda: "name resolution" in (delivers["s"].snapshot()["waits_for"] or ""))
        for count, address in enumerate(("127.0.0.1", "127.0.0.2"), 1):
            names[NAME] = address
            server = await asyncio.start_server(closing(serve), address, port)
            await until(lambda n=count: delivers["s"].snapshot()["delivered"] == n)
            server.close()
            names[NAME] = None
            writer = agent.writer or broker.writer
            assert writer is not None
            writer.transport.abort()
            await gateway.append(f"after {address}")
            await until(lambda: not delivers["s"].snapshot()["up"])
    if kind == "http":
        assert {"127.0.0.1", "127.0.0.2"} == set(agent.where)


def closing(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    """The same for one request, so that nothing is left open."""

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                await serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, TimeoutError):
            pass
        finally:
            writer.transport.abort()

    return once


def resident() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("kind", ["http", "mqtt"])
async def test_a_thousand_reconnects_leave_nothing_behind(kind):
    agent, broker = Agent(), TakingBroker()
    agent.answer = lambda _: None
    broker.answer = lambda each: "hang up" if b"specversion" in each.payload else "say nothing"
    serve = agent.serve if kind == "http" else broker.serve
    async with listening(serve) as port:
        sink = build(
            {"type": kind, "url": f"{kind}://127.0.0.1:{port}", **({"status": ""} if kind == "mqtt" else {})}
        )
        before = 0, 0
        for turn in range(1000):
            await sink.connect()
            with pytest.raises(NotConnected):
                await sink.write([record(str(turn)), record("x")])
            await sink.close()
            agent.ids.clear()
            agent.where.clear()
            broker.hellos.clear()
            if turn == 300:
                before = resident(), descriptors()
        await asyncio.sleep(0.01)
        assert resident() - before[0] < GROWS_MOST
        assert descriptors() <= before[1] + 2
