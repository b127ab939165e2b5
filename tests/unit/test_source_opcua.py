"""The OPC-UA source against asyncua's server, over a cable that can be cut or go dead."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from asyncua import ua
from pydantic import ValidationError

from dxad.errors import NotConnected
from dxad.runtime.clock import SystemClock
from dxad.sources.opcua import Config, Opcua, watching
from dxad.sources.opcua import source as module
from dxad.types import NS_PER_S, Quality, Reason
from tests.patience import PATIENCE_S, until
from tests.peers import NAMESPACE, OpcuaPeer, Relay, listening, silence

A_AND_B = {"a": {"node": "s=a"}, "b": {"node": "s=b"}}


def config(port: int = 1, **settings: Any) -> Config:
    document = {"type": "opcua", "url": f"opc.tcp://127.0.0.1:{port}/test", "namespace": NAMESPACE}
    return Config.model_validate({"publish_interval": "20ms", "channels": A_AND_B, **document, **settings})


@pytest.fixture(scope="module")
def server() -> Iterator[OpcuaPeer]:
    with OpcuaPeer() as peer:
        yield peer


@pytest.fixture
def peer(server) -> OpcuaPeer:
    server.write(a=0.0, b=0.0)
    return server


@asynccontextmanager
async def connected(port: int, **settings: Any) -> AsyncIterator[Opcua]:
    source = Opcua("drive", config(port, **settings), clock=SystemClock())
    try:
        await source.connect()
        yield source
    finally:
        await source.close()


async def arriving(source: Opcua, count: int) -> list[tuple[int, float | None, Quality, Reason]]:
    """The next samples; a value that is no number is told as None."""
    found: list[tuple[int, float | None, Quality, Reason]] = []
    async with asyncio.timeout(PATIENCE_S):
        while len(found) < count:
            for each in (await source.read()).samples:
                value = None if np.isnan(each["value"]) else float(each["value"])
                found.append((int(each["column"]), value, Quality(each["quality"]), Reason(each["reason"])))
    return found


def good(column: int, value: float) -> tuple[int, float, Quality, Reason]:
    return column, value, Quality.GOOD, Reason.NONE


async def lost(source: Opcua) -> str:
    """Wait for the session's loss; returns the reason."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                await source.read()
            except NotConnected as error:
                return str(error)


class TestConfig:
    @pytest.mark.parametrize("url", ["127.0.0.1:4840", "opc.tcp://", "opc.tcp://h", "http://h:4840"])
    def test_refuses_what_is_no_server(self, url):
        with pytest.raises(ValidationError, match=r"is not opc\.tcp://host:port"):
            config(url=url)

    @pytest.mark.parametrize(
        "node", ["Pump", "ns=2;s=Pump", "x=1", "i=Pump", "i=-1", "i=4294967296", "g=none", "b=?", "s="]
    )
    def test_refuses_what_is_no_node(self, node):
        with pytest.raises(ValidationError, match="node"):
            config(channels={"a": {"node": node}})

    @pytest.mark.parametrize(
        ("node", "namespace", "identifier"),
        [
            ("s=Pump.Power", None, "Pump.Power"),
            ("i=2258", None, 2258),
            ("nsu=urn:a:b;s=x;y=z", "urn:a:b", "x;y=z"),
            ("g=09087e75-8e5e-499b-954f-f2a9603db28a", None, UUID("09087e75-8e5e-499b-954f-f2a9603db28a")),
            ("b=cHVtcA==", None, b"pump"),
        ],
    )
    def test_takes_every_node(self, node, namespace, identifier):
        name = config(channels={"a": {"node": node}}).channels["a"].name
        assert (name.namespace, name.identifier) == (namespace, identifier)


class TestValues:
    async def test_initial_values_come_by_themselves_and_changes_follow(self, peer):
        peer.write(a=1.5, b=-2.5)
        async with connected(peer.port) as source:
            assert sorted(await arriving(source, 2)) == [good(0, 1.5), good(1, -2.5)]
            peer.write(a=2.5)
            assert await arriving(source, 1) == [good(0, 2.5)]

    async def test_every_change_comes_in_order(self, peer):
        async with connected(peer.port) as source:
            await arriving(source, 2)
            for value in range(1, 40):
                peer.write(a=float(value))
                await asyncio.sleep(0.012)
            values = [0.0]
            while values[-1] < 39:
                values += [value for _, value, _, _ in await arriving(source, 1)]
            assert values == sorted(set(values))

    async def test_a_boolean_is_a_number_and_a_string_is_none(self, peer):
        peer.write(on=True)
        channels = {"on": {"node": "s=on"}, "text": {"node": "s=text"}}
        async with connected(peer.port, channels=channels) as source:
            found = sorted(await arriving(source, 2), key=lambda each: each[0])
            assert found == [good(0, 1.0), (1, None, Quality.BAD, Reason.TYPE)]

    async def test_the_servers_opinion_of_a_value_is_kept(self, peer):
        async with connected(peer.port) as source:
            await arriving(source, 2)
            peer.write(ua.StatusCodes.UncertainLastUsableValue, a=3.5)
            assert await arriving(source, 1) == [(0, 3.5, Quality.UNCERTAIN, Reason.DEVICE)]
            peer.write(ua.StatusCodes.BadSensorFailure, a=4.5)
            assert await arriving(source, 1) == [(0, None, Quality.BAD, Reason.DEVICE)]
            peer.write(a=5.5)
            assert await arriving(source, 1) == [good(0, 5.5)]

    async def test_a_value_that_is_not_finite_is_bad(self, peer):
        async with connected(peer.port) as source:
            await arriving(source, 2)
            peer.write(a=float("inf"))
            assert await arriving(source, 1) == [(0, None, Quality.BAD, Reason.TYPE)]

    async def test_a_node_may_serve_two_channels_and_name_its_own_namespace(self, peer):
        peer.write(a=1.5)
        channels = {"one": {"node": "s=a"}, "two": {"node": f"nsu={NAMESPACE};s=a"}, "clock": {"node": "s=b"}}
        async with connected(peer.port, channels=channels) as source:
            assert sorted(await arriving(source, 3)) == [good(0, 1.5), good(1, 1.5), good(2, 0.0)]


class TestNodes:
    async def test_one_that_there_is_not_is_bad_and_named_and_the_others_work(self, peer):
        channels = {**A_AND_B, "c": {"node": "s=nowhere"}, "d": {"node": "nsu=urn:nobody;s=a"}}
        async with connected(peer.port, channels=channels) as source:
            found = sorted(await arriving(source, 4), key=lambda each: each[0])
            assert found[:2] == [good(0, 0.0), good(1, 0.0)]
            assert [each[1:] for each in found[2:]] == [(None, Quality.BAD, Reason.DEVICE)] * 2
            assert list(source.faults) == [
                "nsu=urn:nobody;s=a: no namespace 'urn:nobody'",
                "s=nowhere: BadNodeIdUnknown",
            ]

    @pytest.mark.parametrize(
        ("settings", "says"),
        [
            ({"namespace": "urn:nobody"}, "s=a: no namespace 'urn:nobody'"),
            ({"channels": {"a": {"node": "s=nowhere"}}}, "s=nowhere: BadNodeIdUnknown"),
        ],
    )
    async def test_a_server_that_knows_none_is_not_connected(self, peer, settings, says):
        with pytest.raises(NotConnected, match=f"it knows none of the nodes; {says}"):
            async with connected(peer.port, **settings):
                pass


class TestSession:
    async def test_shows_life_without_any_change(self, peer):
        async with connected(peer.port) as source:
            await arriving(source, 2)
            first = source.alive_until
            assert 0 < first - SystemClock().now() <= 3 * NS_PER_S
            await until(lambda: source.alive_until > first)

    async def test_a_slow_subscription_proves_itself_for_longer(self, peer):
        async with connected(peer.port, publish_interval="5s") as source:
            assert source.alive_until - SystemClock().now() > 14 * NS_PER_S

    async def test_a_cut_cable_is_noticed_at_once(self, peer):
        async with listening(Relay(peer.port).serve) as port, connected(port) as source:
            await arriving(source, 2)
            source._connection.client.uaclient.protocol.transport.abort()
            assert f"127.0.0.1:{port}/test: the session is lost" in await lost(source)

    async def test_a_dead_cable_is_noticed_by_the_age_of_data(self, peer, monkeypatch):
        monkeypatch.setattr(watching, "TICK_NS", NS_PER_S // 10)
        relay = Relay(peer.port)
        async with listening(relay.serve) as port, connected(port, timeout="200ms") as source:
            await arriving(source, 2)
            relay.dead = True
            assert re.search(r"has shown no life for 0\.\d s; no answer within 0\.2 s", await lost(source))
            async with asyncio.timeout(PATIENCE_S):
                await source.close()

    async def test_closing_over_a_dead_cable_takes_bounded_time(self, peer):
        relay = Relay(peer.port)
        async with listening(relay.serve) as port, connected(port, timeout="300ms") as source:
            await arriving(source, 2)
            relay.dead = True
            async with asyncio.timeout(PATIENCE_S):
                await source.close()

    async def test_a_refused_attempt_can_be_repeated(self):
        for _ in range(2):
            with pytest.raises(NotConnected, match=r"opc\.tcp://127\.0\.0\.1:1/test: Connection refused"):
                async with connected(1):
                    pass

    async def test_silence_is_no_answer(self):
        async with listening(silence) as port:
            with pytest.raises(NotConnected, match=r"no answer within 0\.2 s"):
                async with connected(port, timeout="200ms"):
                    pass

    async def test_what_is_no_server_is_not_connected(self):
        async def web(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
            await silence(reader, writer)

        async with listening(web) as port:
            with pytest.raises(NotConnected, match=f"127.0.0.1:{port}"):
                async with connected(port, timeout="200ms"):
                    pass

    async def test_a_cancelled_attempt_leaves_nothing_behind(self):
        async with listening(silence) as port:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1), connected(port):
                    pass

    async def test_no_task_of_the_library_outlives_close(self, peer):
        before = asyncio.all_tasks()
        async with connected(peer.port):
            assert len(asyncio.all_tasks() - before) > 1
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == before

    async def test_a_bug_while_staging_is_raised_as_it_is(self, peer, monkeypatch):
        def broken(_value: object, _status: int) -> None:
            raise ZeroDivisionError

        async with connected(peer.port) as source:
            await arriving(source, 2)
            monkeypatch.setattr(module, "judged", broken)
            peer.write(a=1.0)
            with pytest.raises(ZeroDivisionError):
                await source.read()


@pytest.mark.parametrize("turns", range(0, 16, 2))
async def test_a_stop_in_the_middle_of_leaving_is_not_swallowed(peer, turns):
    source = Opcua("drive", config(peer.port), clock=SystemClock())
    await source.connect()
    leaving = asyncio.create_task(source.close())
    for _ in range(turns):
        await asyncio.sleep(0)
    asked = leaving.cancel()
    await asyncio.wait([leaving], timeout=10)
    assert leaving.done()
    assert leaving.cancelled() == asked
    await source.close()
    await asyncio.sleep(0.05)  # a closed transport lets go of its socket in a turn of its own
