"""What the MQTT source and a broker agree on: version, quality of service, shared subscriptions, refusals."""

import asyncio
import contextlib
import json
from contextlib import asynccontextmanager
from typing import Any

import mqtt5
import pytest
from pydantic import ValidationError

from dxad.errors import NotConnected
from dxad.runtime.clock import SystemClock
from dxad.sources.mqtt import Config, Mqtt
from dxad.types import Quality
from hw_sim.mqtt.broker import Broker
from hw_sim.ports import free_port
from tests.mqttbrokers import FakeBroker, running_mosquitto
from tests.patience import PATIENCE_S
from tests.peers import listening, publish


def config(port: int, **settings: Any) -> Config:
    channels = {"type": "mqtt", "topic": "t", "period": "100ms", "channels": {"a": {}, "b": {}}}
    return Config.model_validate({**channels, "url": f"mqtt://127.0.0.1:{port}", **settings})


@asynccontextmanager
async def connected(port, **settings):
    source = Mqtt("motor", config(port, **settings), clock=SystemClock())
    try:
        await source.connect()
        yield source
    finally:
        await source.close()


async def refused(port, **settings):
    with pytest.raises(NotConnected) as told:
        async with connected(port, **settings):
            pass
    return str(told.value)


async def values_of(source, count):
    """The values of channel a in the next messages."""
    found = []
    async with asyncio.timeout(PATIENCE_S):
        while len(found) < count:
            samples = (await source.read()).samples
            found += samples["value"][samples["column"] == 0].tolist()
    return found


async def asks_for_more(source):
    """As whoever has stored what the last read returned; what came meanwhile."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.05):
            return (await source.read()).samples["value"].tolist()
    return []


def message(packet_id, a, *, again=False):
    payload = b'{"a": %d, "b": 0}' % a
    qos = mqtt5.QoS.EXACTLY_ONCE
    return mqtt5.PublishPacket("t", payload, qos=qos, packet_id=packet_id, duplicate=again).write()


class TestExactlyOnce:
    @pytest.fixture
    def fake(self):
        fake = FakeBroker()
        fake.granted = mqtt5.SubAckReasonCode.GRANTED_QOS_EXACTLY_ONCE
        return fake

    def said(self, fake):
        """What was said of which message."""
        kinds = {mqtt5.PubAckPacket: "ack", mqtt5.PubRecPacket: "rec", mqtt5.PubCompPacket: "comp"}
        said = [(kinds[type(each)], each.packet_id) for each in fake.got if type(each) in kinds]
        fake.got.clear()
        return said

    async def test_a_message_is_received_when_it_is_stored_and_done_when_it_is_released(self, fake):
        async with listening(fake.serve) as port, connected(port, qos=2) as source:
            fake.writer.write(message(7, 1) + message(8, 2))
            assert await values_of(source, 2) == [1, 2]
            await asyncio.sleep(0.03)
            assert self.said(fake) == [], "who reads may still fall before it is stored"
            await asks_for_more(source)
            assert self.said(fake) == [("rec", 7), ("rec", 8)]
            fake.writer.write(mqtt5.PubRelPacket(8).write() + mqtt5.PubRelPacket(7).write())
            await asyncio.sleep(0.03)
            assert self.said(fake) == [("comp", 8), ("comp", 7)]

    async def test_what_comes_again_is_not_taken_again_until_it_was_released(self, fake):
        async with listening(fake.serve) as port, connected(port, qos=2) as source:
            fake.writer.write(message(7, 1) + message(7, 1, again=True))
            assert await values_of(source, 1) == [1]
            assert await asks_for_more(source) == []
            assert self.said(fake) == [("rec", 7)]
            fake.writer.write(message(7, 1, again=True))
            assert await asks_for_more(source) == []
            assert self.said(fake) == [("rec", 7)], "the first answer was lost, as it seems"
            fake.writer.write(mqtt5.PubRelPacket(7).write() + message(7, 2))
            assert await values_of(source, 1) == [2]

    async def test_one_that_nobody_knows_is_released_as_such(self, fake):
        async with listening(fake.serve) as port, connected(port, qos=2):
            fake.writer.write(mqtt5.PubRelPacket(9).write())
            await asyncio.sleep(0.03)
            assert fake.got[-1].reason_code == mqtt5.PubCompReasonCode.PACKET_ID_NOT_FOUND

    @pytest.mark.parametrize(("kept", "comes"), [(True, []), (False, [1.0, 0.0])])
    async def test_it_is_remembered_as_long_as_the_broker_remembers_the_session(self, fake, kept, comes):
        async with (
            listening(fake.serve) as port,
            connected(port, qos=2, session="1h", client_id="gw") as source,
        ):
            fake.writer.write(message(7, 1))
            assert await values_of(source, 1) == [1]
            fake.writer.transport.abort()
            with pytest.raises(NotConnected):
                await source.read()
            fake.connack = mqtt5.ConnAckPacket(session_present=kept)
            if not kept:
                source._known = False  # or it would tell so, which is another test's
            await source.connect()
            fake.got.clear()
            fake.writer.write(message(7, 1, again=True))
            assert await asks_for_more(source) == comes
            await asks_for_more(source)
            assert self.said(fake) == [("rec", 7)]

    async def test_one_that_is_too_large_is_let_go_in_the_same_way(self, fake):
        head = b"\x34\x80\x80\x80\x01" + b"\0\1t" + b"\0\7" + b"\0"
        async with listening(fake.serve) as port, connected(port, qos=2):
            fake.writer.write(head + bytes((2 << 20) - 6) + mqtt5.PubRelPacket(7).write())
            await asyncio.sleep(0.1)
            assert self.said(fake) == [("rec", 7), ("comp", 7)]

    @pytest.mark.parametrize("version", ["5", "3.1.1"])
    async def test_mosquitto_sends_each_once_also_what_came_while_we_were_away(self, tmp_path, version):
        settings = {"qos": 2, "version": version, "session": "1h", "client_id": "gw"}
        with running_mosquitto(tmp_path, "allow_anonymous true") as (port, _):
            async with connected(port, **settings) as source:
                payloads = [json.dumps({"a": number, "b": 0}).encode() for number in range(200)]
                await publish(port, "t", *payloads[:100], qos=2)
                assert await values_of(source, 100) == list(range(100))
                await asks_for_more(source)
                source._link._transport.abort()
                await asyncio.sleep(0.05)
                await publish(port, "t", *payloads[100:], qos=2)
                with pytest.raises(NotConnected):
                    await source.read()
                await source.connect()
                assert await values_of(source, 100) == list(range(100, 200))
                assert await asks_for_more(source) == []


class TestVersion:
    def broker(self, refusal):
        """Of version 3.1.1 alone; it notes in which versions it is spoken to."""
        spoken = []

        async def serve(reader, writer):
            hello = await reader.readexactly(9)
            spoken.append(hello[8])
            if hello[8] != 4:
                writer.write(refusal)
                await writer.drain()
                return
            await reader.read(1000)
            writer.write(b"\x20\x02\0\0")
            ask = await reader.read(1000)
            writer.write(b"\x90\x03" + ask[2:4] + b"\x01")
            await reader.read(1000)

        return serve, spoken

    @pytest.mark.parametrize(
        "refusal",
        [
            b"\x20\x02\x00\x01",
            mqtt5.ConnAckPacket(reason_code=mqtt5.ConnAckReasonCode.UNSUPPORTED_PROTOCOL_VERSION).write(),
            b"",
        ],
        ids=["in 3.1.1", "in 5", "by hanging up"],
    )
    async def test_the_older_one_is_tried_where_the_newer_is_refused_and_remembered(self, refusal):
        serve, spoken = self.broker(refusal)
        async with listening(serve) as port, connected(port) as source:
            assert spoken == [5, 4]
            await source.connect()
            assert spoken == [5, 4, 4]

    async def test_messages_come_from_a_broker_of_the_older_one(self):
        new, old = free_port(), free_port()
        with Broker(mqtt5_port=new, mqtt311_port=old):
            await asyncio.sleep(0.2)
            async with connected(old) as source:
                await publish(new, "t", b'{"a": 5, "b": 0}')
                assert await values_of(source, 1) == [5]

    async def test_a_login_that_is_refused_is_no_reason_to_try_the_other(self):
        fake = FakeBroker()
        fake.connack = mqtt5.ConnAckPacket(reason_code=mqtt5.ConnAckReasonCode.NOT_AUTHORIZED)
        async with listening(fake.serve) as port:
            assert "the broker refuses us: NOT_AUTHORIZED" in await refused(port)
        assert fake.kinds() == ["Connect"]

    async def test_one_that_takes_neither_is_told_so(self):
        async def hangs_up(_reader, _writer):
            pass

        async with listening(hangs_up) as port:
            told = await refused(port)
        assert "before it answered CONNECT: it may refuse the login; nor does it take MQTT 3.1.1" in told


class TestSharing:
    async def test_gateways_of_a_group_divide_the_messages(self, tmp_path):
        with running_mosquitto(tmp_path, "allow_anonymous true") as (port, _):
            async with connected(port, share="gws") as one, connected(port, share="gws") as other:
                await publish(port, "t", *(b'{"a": %d, "b": 0}' % number for number in range(20)))
                halves = [await values_of(one, 10), await values_of(other, 10)]
        assert sorted(halves[0] + halves[1]) == list(range(20))

    @pytest.mark.parametrize("share", ["", "a/b", "a+"])
    def test_a_group_has_a_name(self, share):
        with pytest.raises(ValidationError, match="is no level of a topic"):
            config(1, share=share)

    def test_a_topic_that_names_a_group_itself_is_told_how_to(self):
        with pytest.raises(ValidationError, match='leave out its first two levels, and say share = "'):
            config(1, topic="$share/gws/t")


class TestRefusals:
    @pytest.mark.parametrize(
        ("code", "settings", "says"),
        [
            ("NOT_AUTHORIZED", {}, "we may not read it: look at the broker's access list"),
            ("SHARED_SUBSCRIPTIONS_NOT_SUPPORTED", {"share": "g"}, "leave out `share`"),
            ("WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED", {}, "name each topic"),
            ("UNSPECIFIED_ERROR", {}, "as a rule, we may not read it"),
        ],
    )
    async def test_a_subscription_that_is_refused_is_told_in_words(self, code, settings, says):
        fake = FakeBroker()
        fake.granted = getattr(mqtt5.SubAckReasonCode, code)
        async with listening(fake.serve) as port:
            told = await refused(port, **settings)
        topic = "$share/g/t" if settings else "t"
        assert f"the broker refuses the subscription to '{topic}': {code}" in told
        assert says in told

    async def told_of_three(self, *given: str) -> str:
        """What is said when a broker answers a subscription to x, y and z with these codes."""

        async def serve(reader, writer):
            await reader.read(1000)
            writer.write(mqtt5.ConnAckPacket().write())
            ask, _ = mqtt5.read(memoryview(await reader.read(1000)))
            codes = [getattr(mqtt5.SubAckReasonCode, each) for each in given]
            writer.write(mqtt5.SubAckPacket(ask.packet_id, codes).write())
            await reader.read(1000)

        async with listening(serve) as port:
            return await refused(port, channels={name: {"topic": name} for name in ("x", "y", "z")})

    async def test_grants_that_are_too_few_say_nothing_of_any_topic(self):
        told = await self.told_of_three("NOT_AUTHORIZED", "QUOTA_EXCEEDED")
        assert "the broker answers 3 topics with 2 grants" in told

    async def test_every_topic_that_is_refused_is_named(self):
        told = await self.told_of_three("NOT_AUTHORIZED", "GRANTED_QOS_AT_LEAST_ONCE", "QUOTA_EXCEEDED")
        assert "'x': NOT_AUTHORIZED" in told
        assert "; and the subscription to 'z': QUOTA_EXCEEDED, there are too many" in told
        assert "'y'" not in told


async def test_brokers_that_take_few_topics_at_a_time_are_asked_in_portions(tmp_path):
    channels = {f"c{number}": {"topic": f"t/{number}"} for number in range(20)}
    fake = FakeBroker()
    async with listening(fake.serve) as port, connected(port, channels=channels):
        asked = [each for each in fake.got if isinstance(each, mqtt5.SubscribePacket)]
    assert [len(each.topic_filters) for each in asked] == [8, 8, 4]
    with running_mosquitto(tmp_path, "allow_anonymous true") as (port, _):
        async with connected(port, channels=channels, decode={"kind": "number"}) as source:
            await publish(port, "t/19", b"5")
            assert (await source.read()).samples["column"].tolist() == [19]


@pytest.mark.parametrize(("queue", "most"), [(20_000, 2_000), (100, 50), (1, 1)])
async def test_no_more_may_be_on_its_way_than_there_is_room_for(queue, most):
    fake = FakeBroker()
    async with listening(fake.serve) as port, connected(port, queue=queue):
        assert fake.got[0].receive_max == most


async def test_a_reader_that_does_not_read_makes_mosquitto_wait_and_loses_nothing(tmp_path):
    with running_mosquitto(tmp_path, "allow_anonymous true", "max_inflight_messages 0") as (port, _):
        async with connected(port, queue=20) as source:
            await publish(port, "t", *(b'{"a": %d, "b": 0}' % number for number in range(100)))
            await asyncio.sleep(0.1)
            assert await values_of(source, 100) == list(range(100))
            assert source.overflowed == 0


async def test_what_is_published_to_be_kept_is_good_while_we_are_there(tmp_path):
    with running_mosquitto(tmp_path, "allow_anonymous true") as (port, _):
        async with connected(port) as source:
            await publish(port, "t", b'{"a": 1, "b": 0}', retain=True)
            assert set((await source.read()).samples["quality"]) == {Quality.GOOD}
        async with connected(port) as source:
            assert set((await source.read()).samples["quality"]) == {Quality.UNCERTAIN}


async def test_messages_that_are_about_no_channel_do_not_stop_the_others(tmp_path):
    decode = {"kind": "nmea", "fields": {"a": "MWV.1", "b": "DBT.3"}}
    with running_mosquitto(tmp_path, "allow_anonymous true") as (port, _):
        async with connected(port, decode=decode) as source:
            await publish(port, "t", *[b"$GPGLL,1,N"] * 50, b"$WIMWV,214.8,R")  # more than it sends at once
            assert await values_of(source, 1) == [214.8]
