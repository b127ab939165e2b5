import asyncio
import datetime as dt
from contextlib import asynccontextmanager

import pytest
from asyncua import Client

from hw_sim.bench import Bench
from hw_sim.opcua import NAMESPACE, OpcuaWire
from hw_sim.scenario import free_port
from tests.unit.hw_sim.rig import plugged

NAMES = ("Pump.Power", "Pump.SetPoint", "Pump.Running")


def serving():
    return plugged(OpcuaWire(Bench(1, ()), port=free_port()))


@asynccontextmanager
async def nodes_of(wire):
    """The client's session and the drive's nodes in it."""
    async with Client(wire.endpoint, timeout=2) as client:
        namespace = await client.get_namespace_index(NAMESPACE)
        yield client, {name: client.get_node(f"ns={namespace};s={name}") for name in NAMES}


async def reports(wire, span_s):
    """What a subscriber is told of each node while the plant runs at its pace."""
    told = {name: [] for name in NAMES}
    async with nodes_of(wire) as (client, nodes):
        names = {node.nodeid: name for name, node in nodes.items()}
        subscription = await client.create_subscription(50, queue_maxsize=1000)
        await subscription.subscribe_data_change(list(nodes.values()), queuesize=10, sampling_interval=10)

        async def listen():
            async for event in subscription:
                told[names[event.node.nodeid]].append(event.data.monitored_item.Value)

        listening = asyncio.create_task(listen())
        for _ in range(round(span_s * 100)):
            wire._bench.step()
            await asyncio.sleep(0.01)
        await subscription.delete()
        listening.cancel()
        await asyncio.wait([listening])
    return told


# One test, since building the server's address space takes seconds.
async def test_the_drive_reports_by_exception_goes_away_when_off_and_comes_back():
    async with serving() as wire:
        told = await reports(wire, 1.2)
        powers = [value.Value.Value for value in told["Pump.Power"]]
        assert 8 <= len(powers) <= 16
        assert len(set(powers)) == len(powers)
        assert all(5.0 < power < 7.5 for power in powers)
        assert 1 <= len(told["Pump.SetPoint"]) <= 6
        assert [value.Value.Value for value in told["Pump.Running"]] == [True]
        stamp = told["Pump.Power"][-1].SourceTimestamp.replace(tzinfo=dt.UTC)
        assert abs(dt.datetime.now(dt.UTC) - stamp) < dt.timedelta(seconds=1)

        async with nodes_of(wire) as (_, nodes):
            await wire.stop()
            await wire.stop()
            with pytest.raises((ConnectionError, TimeoutError)):
                await nodes["Pump.Power"].read_value()
        with pytest.raises(OSError, match=r"refused|Connect call failed"):
            await Client(wire.endpoint, timeout=1).connect()

        await wire.start()
        async with nodes_of(wire) as (client, nodes):
            assert 5.0 < await nodes["Pump.Power"].read_value() < 7.5
            clock = client.get_node("ns=0;i=2258")  # Server_ServerStatus_CurrentTime: it must go on
            first = await clock.read_value()
            await asyncio.sleep(1.1)
            assert await clock.read_value() > first
