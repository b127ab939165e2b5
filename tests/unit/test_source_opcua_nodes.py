"""Which nodes the OPC-UA source reads, and how: by name, by way, subscribed to, or polled."""

import asyncio

import pytest
import pytest_asyncio
from asyncua import ua
from asyncua.server.internal_session import InternalSession
from pydantic import ValidationError

from dxad import statefile
from dxad.errors import ConfigError, NotConnected
from dxad.runtime.clock import SystemClock
from dxad.sources.opcua import Config
from dxad.sources.opcua.browsing import parts_of
from dxad.types import NS_PER_S, Quality, Reason
from tests.unit.hw_sim.opcua_bed import DEVICES, FAN, PUMP, bed
from tests.unit.opcua_rig import COUNT, PAIN, connected, newest, source, until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.one_loop]
POLL = {"mode": "poll", "period": "20ms"}


def config(**settings) -> Config:
    return source("opc.tcp://127.0.0.1:4840", **settings)._config


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served():
    devices = {f"p{number}": {**DEVICES["pump"], "object": f"Pump{number}"} for number in (1, 2, 10)}
    for name, device in devices.items():
        nodes = {"count": {**device["nodes"]["count"], "node": f"s={name}.count"}}
        devices[name] = {**device, "nodes": nodes}
    async with bed(devices={**DEVICES, **devices}) as made:
        yield made


class TestPolling:
    async def test_every_value_comes_once_per_slot_and_the_slot_is_complete(self, served):
        async with connected(served, **POLL) as made:
            await made.read()
            for _ in range(3):
                served.step()
                block = await made.read()
                assert sorted(block.samples["column"]) == [0, 1]
                assert block.through % 20_000_000 == 0
                assert (block.samples["arrival"] // 20_000_000 == block.through // 20_000_000 - 1).all()
                assert block.samples["value"][0] == served.bench.readings["count"]

    async def test_the_schedule_does_not_drift_and_missed_slots_are_counted(self, served):
        async with connected(served, **POLL) as made:
            first = (await made.read()).through
            await asyncio.sleep(0.07)
            last = [(await made.read()).through for _ in range(3)][-1]
            assert (last - first) // 20_000_000 == 3 + made.skipped - 0
            assert made.skipped >= 2

    async def test_a_node_that_is_not_there_is_bad_in_each_slot_and_back_when_it_is(self, served):
        async with connected(served, **POLL) as made:
            await made.read()
            await served.switch("opcua.node_removed", channel="count", device="pump")
            bad = await until(made, 0, lambda each: each["quality"] == Quality.BAD)
            assert bad["reason"] == Reason.DEVICE
            assert made.faults["s=Pump.Count: BadNodeIdUnknown"] >= 1
            await served.switch()
            await until(made, 0, lambda each: each["quality"] == Quality.GOOD)

    async def test_a_server_that_does_not_answer_is_not_connected(self, served):
        async with connected(served, **POLL, timeout="100ms") as made:
            await made.read()
            await served.switch("opcua.half_open")
            with pytest.raises(NotConnected, match=r"no answer within 0\.1 s"):
                await until(made, 0, lambda _: False)
            await served.switch()

    async def test_the_answer_proves_the_session_alive(self, served):
        async with connected(served, **POLL) as made:
            assert made.alive_until == 0
            await made.read()
            assert 2 * NS_PER_S < made.alive_until - SystemClock().now() <= 3 * NS_PER_S

    async def test_a_server_that_knows_none_is_not_connected(self, served):
        channels = {"a": {"node": "s=nowhere"}, "b": {"node": "nsu=urn:nobody;s=x"}}
        async with connected(served, **POLL, channels=channels) as made:
            with pytest.raises(NotConnected, match="none of the nodes; s=nowhere: BadNodeIdUnknown"):
                await made.read()

    async def test_many_nodes_are_asked_for_in_pieces(self, served, monkeypatch):
        monkeypatch.setattr("dxad.sources.opcua.connection._NODES_MOST", 1)
        async with connected(served, **POLL) as made:
            assert len(made._poll._requests) == 2
            assert sorted((await made.read()).samples["column"]) == [0, 1]

    async def test_a_deadband_is_of_subscriptions(self):
        with pytest.raises(ValidationError, match=r"channels\.a: a deadband is of subscriptions"):
            config(**POLL, channels={"a": {**COUNT, "deadband": 1}})

    async def test_is_asked_on_the_grid_and_a_subscription_is_not(self):
        assert config(**POLL).polled
        assert not config().polled


class TestWays:
    async def test_a_way_leads_to_one_variable(self, served):
        channels = {"a": {"browse": "Objects/Pump1/count"}, "b": {"browse": "Objects/Pump10/count"}}
        async with connected(served, channels=channels) as made:
            assert all(each[1] is Quality.GOOD for each in (await newest(made, 2)).values())

    async def test_it_may_begin_at_a_node(self, served):
        channels = {
            "a": {"node": "s=Pump", "browse": "count"},
            "b": {"node": f"nsu={FAN};s=fan", "browse": "c?unt"},
        }
        with pytest.raises(ValidationError, match="count is missing"):
            config(channels=channels)
        channels["b"]["browse"] = "count"
        async with connected(served, channels=channels) as made:
            assert all(each[1] is Quality.GOOD for each in (await newest(made, 2)).values())

    async def test_a_pattern_finds_many_and_numbers_them_and_they_keep_their_numbers(self, served, tmp_path):
        channels = {"c": {"browse": "Objects/Pump[12]*/count", "count": 4}, "pain": PAIN}
        settings = {"channels": channels, "state_dir": tmp_path}
        async with connected(served, **settings) as made:
            assert [each.id for each in made.channels] == [
                "pump.c_1", "pump.c_2", "pump.c_3", "pump.c_4", "pump.pain",
            ]  # fmt: skip
            found = await newest(made, 5)
            assert [found[each][1] for each in range(5)] == [*[Quality.GOOD] * 3, Quality.BAD, Quality.GOOD]
            assert made.faults == {"Objects/Pump[12]*/count (4): no further variable": 1}
        kept = statefile.read(tmp_path / "opcua" / "pump.found")
        ways = ["Objects/Pump1/count", "Objects/Pump2/count", "Objects/Pump10/count"]
        assert kept == {"c": {"browse": "Objects/Pump[12]*/count", "ways": ways}}
        await served.switch("opcua.node_removed", channel="count", device="p1")
        async with connected(served, **settings) as made:
            found = await newest(made, 5)
            assert [found[each][1] for each in range(3)] == [Quality.BAD, Quality.GOOD, Quality.GOOD]
            assert "Objects/Pump[12]*/count (1): Objects/Pump1/count is not there any more" in made.faults
        await served.switch()

    async def test_what_a_pattern_finds_beyond_its_count_is_told(self, served):
        async with connected(served, channels={"c": {"browse": "Objects/*/count", "count": 2}}) as made:
            await newest(made, 2)
            assert made.faults == {"c: 3 more than its count are left out": 1}

    async def test_a_damaged_list_of_numbers_is_not_replaced_but_told(self, served, tmp_path):
        path = tmp_path / "opcua" / "pump.found"
        path.parent.mkdir()
        path.write_text("nonsense")
        settings = {"channels": {"c": {"browse": "Objects/*/count", "count": 2}}, "state_dir": tmp_path}
        with pytest.raises(ConfigError, match=r"pump\.found is no state of dxad.*remove it"):
            async with connected(served, **settings):
                pass

    @pytest.mark.parametrize("path", ["", "/Objects", "Objects//a", "a/" * 30 + "a"])
    async def test_what_is_no_way_is_refused(self, path):
        with pytest.raises(ValidationError, match="browse"):
            config(channels={"a": {"browse": path}})

    async def test_a_slash_may_belong_to_a_name(self):
        assert parts_of("Objects/a&/b/c") == ["Objects", "a/b", "c"]

    async def test_a_numbered_channel_has_no_namesake(self):
        channels = {"c": {"browse": "Objects/*", "count": 2}, "c_2": COUNT}
        with pytest.raises(ValidationError, match="makes a channel that there is already"):
            config(channels=channels)

    async def test_neither_node_nor_way_is_refused(self):
        with pytest.raises(ValidationError, match="node is missing, or browse"):
            config(channels={"a": {}})


class TestItems:
    async def test_channels_say_how_their_variables_are_sampled(self, served):
        channels = {
            "slow": {**COUNT, "sampling_interval": "1s", "queue_size": 3, "deadband": 0.5},
            "part": {**COUNT, "deadband": 2, "deadband_kind": "percent"},
            "plain": COUNT,
            "same": {"node": f"nsu={PUMP};s=Pump.Count"},
        }
        made = source(served.wire.url, channels=channels, sampling_interval="100ms", queue_size=7)
        slow, part, plain = (each.monitored(1, ua.NodeId()) for each in made._targets.all)
        assert (slow.sampling_ms, slow.queue) == (1000, 3)
        assert (slow.filter.DeadbandType, slow.filter.DeadbandValue) == (ua.DeadbandType.Absolute, 0.5)
        assert (part.filter.DeadbandType, part.filter.DeadbandValue) == (ua.DeadbandType.Percent, 2.0)
        assert (plain.sampling_ms, plain.queue, plain.filter) == (100, 7, None)
        assert made._targets.all[2].columns == (2, 3)

    async def test_a_server_without_such_a_deadband_sends_all_and_that_is_told(self, served, monkeypatch):
        monitor = InternalSession.create_monitored_items

        async def unable(session, params):
            answers = await monitor(session, params)
            for item, answer in zip(params.ItemsToCreate, answers, strict=True):
                if hasattr(item.RequestedParameters.Filter, "DeadbandValue"):
                    answer.StatusCode = ua.StatusCode(ua.StatusCodes.BadMonitoredItemFilterUnsupported)
            return answers

        monkeypatch.setattr(InternalSession, "create_monitored_items", unable)
        channels = {"a": {**COUNT, "deadband": 1.0}, "b": PAIN}
        async with connected(served, channels=channels) as made:
            assert all(each[1] is Quality.GOOD for each in (await newest(made, 2)).values())
            assert made.faults == {"s=Pump.Count: the server has no such deadband; it sends all": 1}

    async def test_what_the_servers_full_queue_has_lost_is_counted(self, served):
        async with connected(served, publish_interval="100ms", queue_size=2) as made:
            await newest(made, 2)
            made._take([(1, 3.0, 0x480, 0)], 1)
            assert made.faults == {"s=Pump.Count: the server's queue was full": 1}
            (sample,) = (await made.read()).samples
            assert (sample["value"], sample["quality"]) == (3.0, Quality.GOOD)


async def test_the_devices_own_time_goes_with_a_value(served):
    async with connected(served, channels={"count": COUNT}) as made:
        served.step()
        each = await until(made, 0, lambda each: each["value"] == served.bench.readings["count"])
        now_ns = int((1_800_000_000 + served.bench.at_s) * 1e9)
        assert abs(int(each["stamp"]) - now_ns) < 50_000_000
        await served.switch("opcua.no_timestamps")
        assert (await until(made, 0, lambda each: each["stamp"] == 0, bed=served))["stamp"] == 0
        await served.switch()
