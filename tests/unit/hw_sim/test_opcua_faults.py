"""Each row of the wire's catalogue, as a client sees it: on, and well again after off."""

import asyncio
import contextlib
import datetime as dt

import pytest
import pytest_asyncio
from asyncua import Client, ua
from asyncua.ua.uaerrors import (
    BadNodeIdUnknown,
    BadTooManySessions,
    BadTooManySubscriptions,
    BadUserAccessDenied,
)

from hw_sim.opcua.faults import FAULTS
from tests.unit.hw_sim.opcua_bed import COUNT, FAN, FANNED, NOW, PAIN, PUMP, bed, until

pytestmark = pytest.mark.one_loop

LOST = (ConnectionError, TimeoutError, asyncio.TimeoutError)
CODES = ua.StatusCodes
CASES = {}


def of(fault, **parameters):
    """The case of a fault; several may be of the same."""

    def noted(case):
        CASES[case.__name__] = (fault, parameters, case)
        return case

    return noted


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory):
    pki = tmp_path_factory.mktemp("pki")
    async with bed(security=["None", "Basic256Sha256"], pki=pki) as made:
        yield made


def seconds(value):
    return value.replace(tzinfo=dt.UTC).timestamp()


async def refused(url):
    with pytest.raises(OSError, match=r"refused|Connect call failed"):
        await Client(url, timeout=1).connect()


async def certificate(url):
    endpoints = await Client(url, timeout=2).connect_and_get_server_endpoints()
    return {bytes(each.ServerCertificate) for each in endpoints}


@of("opcua.stop")
async def stopped(served, on, off):
    with contextlib.suppress(*LOST):
        async with served.client(timeout=0.5) as before, before.watching(COUNT) as told:
            began = await before.client.get_node("i=2257").read_value()
            await on()
            served.step()
            with pytest.raises(LOST):
                await before.read()
            seen = len(told)
            await refused(served.wire.url)
            await off()
            served.step()
            await asyncio.sleep(0.03)
            assert len(told) == seen
            with pytest.raises(LOST):
                await before.read()
    assert not served.wire._sessions._external_sessions
    assert not served.wire._sessions.subscription_service.subscriptions
    async with served.client() as after:
        assert await after.client.get_node("i=2257").read_value() > began


@of("opcua.half_open")
async def half_open(served, on, off):
    async with served.client() as client, client.watching(COUNT) as told:
        await on()
        seen = len(told)
        asked = asyncio.create_task(client.read())
        reader, writer = await asyncio.open_connection("127.0.0.1", served.wire._port)
        writer.write(b"HELF")
        served.step(3)
        silent = asyncio.create_task(reader.read(1))
        await asyncio.wait([asked, silent], timeout=0.1)
        assert not asked.done()
        assert not silent.done()
        assert len(told) == seen
        await off()
        assert (await asked).Value.Value == served.bench.readings["count"]
        await until(lambda: len(told) == seen + 3)
        writer.transport.abort()
        silent.cancel()
        await asyncio.wait([silent])


@of("opcua.slow", delay="150ms")
async def slow(served, on, off):
    async with served.client() as client:
        node = await client.node(COUNT)
        await on()
        loop = asyncio.get_running_loop()
        began = loop.time()
        await asyncio.gather(node.read_value(), node.read_value())
        slow_s = loop.time() - began
        assert slow_s > 0.14
        await off()
        began = loop.time()
        await node.read_value()
        assert loop.time() - began < slow_s / 2


@of("opcua.frozen", device="pump")
async def frozen(served, on, off):
    async with served.client() as client:
        before = await client.read()
        await on()
        served.step(4)
        assert await client.read() == before
        assert (await client.read(FANNED)).Value.Value == served.bench.readings["count"]
        await off()
        assert (await client.read()).Value.Value == served.bench.readings["count"]


@of("opcua.frozen")
async def frozen_as_a_whole(served, on, off):
    async with served.client() as client, client.watching(COUNT, FANNED) as told:
        await on()
        seen = len(told)
        served.step(4)
        await asyncio.sleep(0.03)
        assert len(told) == seen
        assert (await client.client.get_node("i=2259").read_value()) == 0  # it is running
        await off()
        await until(lambda: len(told) > seen)


@of("opcua.bad_status", code="BadOutOfService", channel="count")
async def bad_status(served, on, off):
    async with served.client() as client, client.watching(COUNT) as told:
        await on()
        shown = await client.read()
        assert shown.StatusCode.value == CODES.BadOutOfService
        assert shown.Value.Value is None
        assert (await client.read(FANNED)).StatusCode.value == CODES.BadOutOfService
        assert (await client.read(PAIN)).StatusCode.is_good()
        served.step(3)
        await until(lambda: told[-1].StatusCode.value == CODES.BadOutOfService)
        await off()
        await until(lambda: told[-1].StatusCode.value == CODES.Good)


@of("opcua.uncertain_status", device="pump")
async def last_usable_value(served, on, off):
    async with served.client() as client:
        before = await client.read()
        await on()
        served.step(4)
        shown = await client.read()
        assert shown.StatusCode.value == CODES.UncertainLastUsableValue
        assert shown.Value == before.Value
        assert (await client.read(FANNED)).StatusCode.is_good()
        await off()


@of("opcua.uncertain_status", code="UncertainSensorNotAccurate")
async def uncertain_values_that_go_on(served, on, off):
    async with served.client() as client:
        await on()
        served.step(4)
        shown = await client.read()
        assert shown.StatusCode.value == CODES.UncertainSensorNotAccurate
        assert shown.Value.Value == served.bench.readings["count"]
        await off()


@of("opcua.wrong_type", device="pump", channel="count")
async def wrong_type(served, on, off):
    async with served.client() as client, client.watching(COUNT) as told:
        node = await client.node(COUNT)
        await on()
        served.step()
        shown = await client.read()
        assert shown.Value.VariantType is ua.VariantType.String
        assert shown.Value.Value == f"{served.bench.readings['count']:g}"
        assert await node.read_data_type_as_variant_type() is ua.VariantType.String
        await until(lambda: told[-1].Value.VariantType is ua.VariantType.String)
        assert (await client.read(FANNED)).Value.VariantType is ua.VariantType.Int32
        await off()
        assert await node.read_data_type_as_variant_type() is ua.VariantType.Double


@of("opcua.node_removed", channel="count", device="pump")
async def node_removed(served, on, off):
    async with served.client() as client, client.watching(COUNT) as told:
        parent = await client.node((PUMP, "s=Pump"))
        before = {each.nodeid.Identifier for each in await parent.get_children()}
        await on()
        served.step()
        assert (await client.read()).StatusCode.value == CODES.BadNodeIdUnknown
        with pytest.raises(BadNodeIdUnknown):
            await (await client.node(COUNT)).read_browse_name()
        assert {each.nodeid.Identifier for each in await parent.get_children()} == before - {"Pump.Count"}
        await until(lambda: told[-1].StatusCode.value == CODES.BadNodeIdUnknown)
        assert (await client.read(PAIN)).StatusCode.is_good()
        assert (await client.read(FANNED)).StatusCode.is_good()
        await off()
        assert {each.nodeid.Identifier for each in await parent.get_children()} == before
        seen = len(told)
        served.step()
        async with client.watching(COUNT) as anew:
            served.step()
            await until(lambda: len(anew) == 3)
        assert len(told) == seen


@of("opcua.namespace")
async def namespace(served, on, off):
    async with served.client() as client:
        before = [await client.client.get_namespace_index(each) for each in (PUMP, FAN)]
    await on()
    async with served.client() as client:
        assert [await client.client.get_namespace_index(each) for each in (PUMP, FAN)] == [
            each + 1 for each in before
        ]
        served.step()
        assert (await client.read()).Value.Value == served.bench.readings["count"]
        old = client.client.get_node(f"ns={before[0]};s=Pump.Count")
        with pytest.raises(BadNodeIdUnknown):
            await old.read_value()
    await off()
    async with served.client() as client:
        assert [await client.client.get_namespace_index(each) for each in (PUMP, FAN)] == before


@of("opcua.certificate")
async def another_certificate(served, on, off):
    first = await certificate(served.wire.url)
    with contextlib.suppress(*LOST):
        async with served.client(timeout=0.5) as before:
            await on()
            with pytest.raises(LOST):
                await before.read()
    second = await certificate(served.wire.url)
    assert len(first) == len(second) == 1
    assert first != second
    await off()
    assert await certificate(served.wire.url) == first


@of("opcua.wrong_timestamps", by="-60", device="pump")
async def wrong_timestamps(served, on, off):
    async with served.client() as client:
        await on()
        served.step()
        now_s = NOW + served.bench.at_s
        assert seconds((await client.read()).SourceTimestamp) == pytest.approx(now_s - 60, abs=0.05)
        assert seconds((await client.read(FANNED)).SourceTimestamp) == pytest.approx(now_s, abs=0.05)
        await off()


@of("opcua.no_timestamps")
async def no_timestamps(served, on, off):
    async with served.client() as client:
        await on()
        served.step()
        shown = await client.read()
        assert shown.SourceTimestamp is None
        assert shown.Value.Value == served.bench.readings["count"]
        await off()


@of("opcua.stopped_clock")
async def stopped_clock(served, on, off):
    async with served.client() as client:
        clock = client.client.get_node("i=2258")
        await on()
        stood = seconds(await clock.read_value())
        served.step(250)
        assert seconds(await clock.read_value()) == stood
        shown = await client.read()
        assert shown.Value.Value == served.bench.readings["count"]
        assert seconds(shown.SourceTimestamp) == pytest.approx(stood, abs=1e-3)
        await off()
        served.step(101)
        assert seconds(await clock.read_value()) > stood + 2


@of("opcua.no_subscriptions")
async def no_subscriptions(served, on, off):
    async with served.client() as client:
        subscription = await client.client.create_subscription(10, asyncio.Queue())
        await on()
        served.step()
        with pytest.raises(BadTooManySubscriptions):
            await client.client.create_subscription(10, asyncio.Queue())
        assert (await client.read()).Value.Value == served.bench.readings["count"]
        await off()
        with contextlib.suppress(ua.UaStatusCodeError):
            await subscription.delete()


@of("opcua.no_sessions")
async def no_sessions(served, on, off):
    async with served.client() as before:
        await on()
        with pytest.raises(BadTooManySessions):
            async with served.client():
                pass
        served.step()
        assert (await before.read()).Value.Value == served.bench.readings["count"]
        await off()


@of("opcua.no_login")
async def no_login(served, on, off):
    async with served.client() as before:
        await on()
        with pytest.raises(BadUserAccessDenied):
            async with served.client():
                pass
        served.step()
        assert (await before.read()).Value.Value == served.bench.readings["count"]
        await off()


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("case", CASES)
async def test_it_breaks_as_the_catalogue_says_and_is_well_again(served, case):
    fault, parameters, check = CASES[case]

    async def on():
        await served.switch(fault, **parameters)

    await check(served, on, served.switch)
    assert served.wire.active == ()
    async with served.client() as client, client.watching(COUNT, FANNED) as told:
        seen = len(told)
        served.step(4)
        await until(lambda: len(told) == seen + 8)
        for place in (COUNT, FANNED):
            shown = await client.read(place)
            assert shown.StatusCode.is_good()
            assert shown.Value.Value == served.bench.readings["count"]
            assert seconds(shown.SourceTimestamp) == pytest.approx(NOW + served.bench.at_s, abs=0.05)
    await served.quiet()


def test_every_row_of_the_catalogue_is_walked_through():
    assert {fault for fault, _, _ in CASES.values()} == {kind.name for kind in FAULTS}
