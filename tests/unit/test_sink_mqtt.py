"""The MQTT sink: what it publishes where, what it makes of each answer, what the broker keeps of us."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import mqtt5
import orjson
import pytest
from pydantic import ValidationError

from dxad.errors import Backoff, ConfigError, NotConnected, Rejected
from dxad.event import Event, to_record
from dxad.sinks.mqtt import Config, Mqtt
from dxad.sinks.mqtt.topic import TopicTemplate
from dxad.types import Lane, Record
from tests.httppeers import record
from tests.mqttbrokers import TakingBroker
from tests.peers import listening

pytestmark = pytest.mark.one_loop

Code = mqtt5.PubAckReasonCode


@pytest.fixture
def broker() -> TakingBroker:
    return TakingBroker()


def sink_to(port: int, **config: object) -> Mqtt:
    settings = Config.model_validate({"type": "mqtt", "url": f"mqtt://127.0.0.1:{port}", **config})
    return Mqtt("s", settings, state_dir=Path("/nonexistent"), gateway="gw3")


@asynccontextmanager
async def connected(broker: TakingBroker, **config: object) -> AsyncIterator[Mqtt]:
    async with listening(broker.serve) as port:
        sink = sink_to(port, **config)
        try:
            await sink.connect()
            yield sink
        finally:
            await sink.close()
            await asyncio.sleep(0.005)  # for its goodbye to arrive


def many(count: int, **data: object) -> list[Record]:
    return [record(str(n), **data) for n in range(count)]


def ids(packets: list[mqtt5.PublishPacket]) -> list[str]:
    return [orjson.loads(each.payload)["id"] for each in packets]


class TestMessages:
    async def test_each_record_is_a_message_of_qos_1_in_order_and_not_kept(self, broker):
        async with connected(broker) as sink:
            await sink.write(many(250))
        assert ids(broker.events) == [str(n) for n in range(250)]
        assert all(each.qos == mqtt5.QoS.AT_LEAST_ONCE for each in broker.events)
        assert not any(each.retain for each in broker.events)

    async def test_structured_says_that_it_is_a_cloud_event(self, broker):
        async with connected(broker) as sink:
            await sink.write(many(1))
        (packet,) = broker.events
        assert packet.content_type == "application/cloudevents+json; charset=utf-8"
        assert packet.payload_format_indicator == 1

    async def test_binary_has_all_but_the_data_in_user_properties(self, broker):
        async with connected(broker, mode="binary") as sink:
            await sink.write([record("a", flow=1.5)])
        (packet,) = broker.events
        assert orjson.loads(packet.payload) == {"flow": 1.5}
        assert packet.content_type == "application/json"
        assert dict(packet.user_properties) == {
            "specversion": "1.0",
            "id": "a",
            "type": "dxad.test",
            "source": "/gw/pipelines/p",
            "time": "2023-11-14T22:13:20.123456Z",
        }

    async def test_the_topic_is_filled_by_the_event(self, broker):
        event = Event(
            "a", "dxad.incident.opened", "/gw3/pipelines/pump", 1, {"severity": "high"}, lane=Lane.CRITICAL
        )
        topic = "plant/{gateway}/{lane}/{type}/{pipeline}/{severity}/{id}"
        async with connected(broker, topic=topic) as sink:
            await sink.write([to_record(event)])
        assert broker.events[0].topic == "plant/gw3/critical/dxad.incident.opened/pump/high/a"

    def test_what_no_topic_may_hold_is_replaced(self):
        template = TopicTemplate("a/{type}/{severity}")
        assert template.filled({"type": "x/+#$\0\n\ud800ü", "severity": ""}) == "a/x_______ü/-"

    async def test_retain_is_there_for_those_who_ask(self, broker):
        async with connected(broker, retain=True) as sink:
            await sink.write(many(1))
        assert broker.events[0].retain

    async def test_what_is_no_json_is_rejected_and_its_neighbours_are_taken(self, broker):
        async with connected(broker) as sink:
            with pytest.raises(Rejected, match="cannot be written as JSON") as told:
                await sink.write([record("a"), record("bad", raw=b"\x00"), record("c")])
        assert told.value.indices == (1,)
        assert ids(broker.events) == ["a", "c"]


class TestWindow:
    async def test_no_more_are_under_way_than_the_broker_takes(self, broker):
        broker.connack = mqtt5.ConnAckPacket(receive_max=7)
        broker.delay_s = 0.001
        async with connected(broker) as sink:
            await sink.write(many(60))
        assert broker.most_under_way == 7
        assert len(broker.events) == 60

    async def test_nor_than_we_like(self, broker):
        broker.delay_s = 0.001
        async with connected(broker, in_flight=3) as sink:
            await sink.write(many(30))
        assert broker.most_under_way == 3

    async def test_packet_ids_that_are_used_up_begin_anew(self, broker):
        async with connected(broker) as sink:
            sink._window._packet_id = 65_530
            await sink.write(many(20))
        assert [each.packet_id for each in broker.events][4:7] == [65_535, 1, 2]

    async def test_a_message_larger_than_the_broker_takes_is_rejected_unsent(self, broker):
        broker.connack = mqtt5.ConnAckPacket(max_packet_size=1000)
        async with connected(broker) as sink:
            with pytest.raises(Rejected, match=r"it is \d+ bytes, and the broker takes 1000 at most") as told:
                await sink.write([record("a"), record("b", text="x" * 2000), record("c")])
            assert told.value.indices == (1,)
        assert ids(broker.events) == ["a", "c"]

    async def test_a_cancelled_write_leaves_it_fit_for_the_next(self, broker):
        broker.answer = lambda _: "say nothing"
        async with connected(broker, status="") as sink:
            writing = asyncio.create_task(sink.write(many(5)))
            await asyncio.sleep(0.02)
            writing.cancel()
            await asyncio.wait([writing])
            await sink.close()
            broker.answer = lambda _: Code.SUCCESS
            await sink.connect()
            await sink.write(many(5))


class TestAnswers:
    async def test_nobody_who_subscribes_is_no_trouble_of_ours(self, broker):
        broker.answer = lambda _: Code.NO_MATCHING_SUBSCRIBERS
        async with connected(broker) as sink:
            await sink.write(many(2))

    @pytest.mark.parametrize(
        "code",
        [
            Code.UNSPECIFIED_ERROR,
            Code.IMPLEMENTATION_SPECIFIC_ERROR,
            Code.TOPIC_NAME_INVALID,
            Code.PAYLOAD_FORMAT_INVALID,
        ],
    )
    async def test_a_message_that_the_broker_will_not_take_is_rejected_alone(self, broker, code):
        broker.answer = lambda each: code if b'"id":"1"' in each.payload else Code.SUCCESS
        async with connected(broker) as sink:
            with pytest.raises(Rejected, match=code.name) as told:
                await sink.write(many(3))
        assert told.value.indices == (1,)

    @pytest.mark.parametrize(
        ("code", "words"),
        [
            (Code.NOT_AUTHORIZED, "look at the broker's access list"),
            (Code.QUOTA_EXCEEDED, "quota is used up"),
            (Code.PACKET_ID_IN_USE, "PACKET_ID_IN_USE"),
        ],
    )
    async def test_what_is_no_fault_of_the_message_costs_none_and_keeps_the_connection(
        self, broker, code, words
    ):
        broker.answer = lambda each: code if b'"id":"2"' in each.payload else Code.SUCCESS
        async with connected(broker) as sink:
            with pytest.raises(Backoff, match=words) as told:
                await sink.write(many(4))
            assert told.value.taken == 2
            broker.answer = lambda _: Code.SUCCESS
            await sink.connect()
            await sink.write(many(4)[2:])
        assert len(broker.hellos) == 1

    async def test_silence_is_noticed_and_told(self, broker):
        broker.answer = lambda each: Code.SUCCESS if each.retain else "say nothing"
        async with connected(broker, timeout="100ms") as sink:
            with pytest.raises(NotConnected, match=r"has acknowledged nothing for 0\.1 s"):
                await sink.write(many(2))

    async def test_acks_that_are_lost_say_what_is_known_and_the_same_come_again(self, broker):
        broker.answer = lambda each: "take and hang up" if b'"id":"3"' in each.payload else Code.SUCCESS
        async with connected(broker) as sink:
            with pytest.raises(NotConnected, match="the broker closed the connection") as told:
                await sink.write(many(6))
            assert told.value.taken <= 3
            broker.answer = lambda _: Code.SUCCESS
            await sink.connect()
            await sink.write(many(6)[told.value.taken :])
        assert set(ids(broker.events)) == {str(n) for n in range(6)}

    async def test_a_message_at_which_the_broker_hangs_up_each_time_is_rejected(self, broker):
        broker.answer = lambda each: "hang up" if b"poison" in each.payload else Code.SUCCESS
        poison = record("poison")
        async with connected(broker) as sink:
            for _ in range(2):
                with pytest.raises(NotConnected):
                    await sink.write([poison])
                await sink.connect()
            with pytest.raises(Rejected, match="hangs up at it, time and again"):
                await sink.write([poison])
            await sink.connect()
            await sink.write(many(1))


class TestStatus:
    async def test_it_says_that_it_is_there_and_that_it_goes_and_both_are_kept(self, broker):
        async with connected(broker):
            assert broker.status == [b"online"]
        assert broker.status == [b"online", b"offline"]
        assert all(each.retain and each.topic == "dxad/gw3/status" for each in broker.published)
        assert broker.goodbyes == 1

    async def test_the_last_will_says_so_where_it_cannot(self, broker):
        async with connected(broker):
            (hello,) = broker.hellos
            assert hello.will is not None
            assert (hello.will.topic, hello.will.payload) == ("dxad/gw3/status", b"offline")
            assert hello.will.retain

    async def test_all_connections_are_of_one_client_so_that_none_outlives_the_next(self, broker):
        async with connected(broker) as sink:
            assert broker.writer is not None
            broker.writer.close()
            with pytest.raises(NotConnected):
                await sink.lost()
            await sink.connect()
        first, second = broker.hellos
        assert first.client_id == second.client_id
        assert first.client_id.startswith("dxad-gw3-s-")

    async def test_without_a_status_nothing_is_said_and_nothing_left(self, broker):
        async with connected(broker, status=""):
            assert broker.hellos[0].will is None
        assert broker.published == []

    async def test_one_that_we_may_not_publish_is_told_with_what_to_do(self, broker):
        broker.answer = lambda _: Code.NOT_AUTHORIZED
        with pytest.raises(NotConnected, match=r'access list\); or status = ""'):
            async with connected(broker):
                pass


class TestConnecting:
    async def test_nobody_there(self, free_port):
        sink = sink_to(free_port)
        with pytest.raises(NotConnected, match=f"mqtt://127.0.0.1:{free_port}: Connection refused"):
            await sink.connect()
        await sink.close()

    async def test_a_name_that_means_nothing(self):
        settings = Config.model_validate({"type": "mqtt", "url": "mqtt://no.such.host.invalid"})
        sink = Mqtt("s", settings, state_dir=Path("/nonexistent"), gateway="g")
        with pytest.raises(NotConnected, match=r"no\.such\.host\.invalid"):
            await sink.connect()

    async def test_a_login_that_is_refused_is_told(self, broker, tmp_path):
        broker.connack = mqtt5.ConnAckPacket(reason_code=mqtt5.ConnAckReasonCode.BAD_USER_NAME_OR_PASSWORD)
        (tmp_path / "p").write_text("hush\n")
        with pytest.raises(NotConnected, match="BAD_USER_NAME_OR_PASSWORD"):
            async with connected(broker, username="gw", password={"file": str(tmp_path / "p")}):
                pass
        assert (broker.hellos[0].username, broker.hellos[0].password) == ("gw", b"hush")

    @pytest.mark.parametrize(
        ("can", "words"),
        [
            ({"max_qos": mqtt5.QoS.AT_MOST_ONCE}, "QoS 0 alone"),
            ({"retain_available": False}, 'keeps no messages: retain = false, status = ""'),
        ],
    )
    async def test_a_broker_that_cannot_do_what_is_asked_is_told(self, broker, can, words):
        broker.connack = mqtt5.ConnAckPacket(**can)
        with pytest.raises(ConfigError, match=words):
            async with connected(broker):
                pass

    async def test_a_link_that_ends_is_known_at_once(self, broker):
        async with connected(broker) as sink:
            lost = asyncio.create_task(sink.lost())
            await asyncio.sleep(0)
            assert broker.writer is not None
            broker.writer.transport.abort()
            with pytest.raises(NotConnected):
                await lost

    async def test_waiting_for_its_end_in_vain_leaves_nothing(self, broker):
        async with connected(broker) as sink:
            for _ in range(3):
                lost = asyncio.create_task(sink.lost())
                await asyncio.sleep(0)
                lost.cancel()
                await asyncio.wait([lost])
            await sink.write(many(1))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"url": "http://broker"}, "is not mqtt://host:port or mqtts://host:port"),
        ({"topic": "a/{pipelin}"}, "there is no {pipelin}; known: {gateway}, {lane}, {type}"),
        ({"topic": "a/+/b"}, "is no topic to publish on"),
        ({"topic": "$SYS/x"}, "begins with no $"),
        ({"topic": "a/{type"}, "a brace that is meant is written twice"),
        ({"status": "a/{lane}/status"}, "'a/{lane}/status': there is no {lane}; known: {gateway}"),
        ({"mode": "binary", "version": "3.1.1"}, "binary needs the user properties of MQTT 5"),
        ({"tls": {"ca": "/ca.pem"}}, "not encrypted; mqtts:// is"),
        ({"in_flight": 0}, "greater than or equal to 1"),
    ],
)
def test_what_cannot_be_is_refused_at_check(settings, says):
    with pytest.raises(ValidationError) as told:
        Config.model_validate({"type": "mqtt", "url": "mqtt://h", **settings})
    assert says in str(told.value)
