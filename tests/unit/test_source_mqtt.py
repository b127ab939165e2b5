"""The MQTT source against a broker that behaves (rumqttd) and one that does not."""

import asyncio
import contextlib
import json

import mqtt5
import numpy as np
import pytest
from pydantic import ValidationError

from dxad.errors import ConfigError, DecodeError, NotConnected
from dxad.links import mqtt as link
from dxad.runtime.clock import SystemClock
from dxad.sources.mqtt import Mqtt
from dxad.types import NS_PER_S, Quality, Reason
from hw_sim.mqtt.broker import Broker
from hw_sim.ports import free_port
from tests.mqttbrokers import FakeBroker
from tests.patience import PATIENCE_S
from tests.peers import listening, publish, silence
from tests.unit.mqtt_source_rig import arriving, config, connected, lost, refused


@pytest.fixture
def fake() -> FakeBroker:
    return FakeBroker()


class TestConfig:
    @pytest.mark.parametrize("url", ["127.0.0.1", "http://b:1", "mqtt://", "mqtt://b:99999", "mqtts://"])
    def test_refuses_what_is_no_broker(self, url):
        with pytest.raises(ValidationError, match=r"mqtt://host:port|Port out of range"):
            config(1, url=url)

    @pytest.mark.parametrize(
        ("settings", "says"),
        [
            ({"clock": "device"}, "wants to know by `time` where a message has it"),
            ({"session": "1h"}, "the broker knows us by a client_id"),
            ({"session": "1h", "client_id": "gw", "qos": 0}, "keeps messages of qos 1 and 2 alone"),
            ({"version": "3.1.1", "password": {"env": "P"}}, "3.1.1 has none without a username"),
        ],
    )
    def test_refuses_what_does_not_go_together(self, settings, says):
        with pytest.raises(ValidationError, match=says):
            config(1, **settings)

    @pytest.mark.parametrize("topic", ["", "a/#/b", "a#", "a/b+", "+a", "a\0b"])
    def test_refuses_what_is_no_topic_filter(self, topic):
        with pytest.raises(ValidationError, match="is no topic filter"):
            config(1, topic=topic)

    @pytest.mark.parametrize("topic", ["a", "a/b", "/", "+", "#", "a/+/c", "a/#", "+/+/#", "$SYS/uptime"])
    def test_takes_every_topic_filter(self, topic):
        assert config(1, topic=topic).topic == topic

    def test_wants_a_topic_from_somewhere(self):
        with pytest.raises(ValidationError, match=r"channels\.b: no topic"):
            config(1, topic=None, channels={"a": {"topic": "x"}, "b": {}})

    def test_finds_a_wrong_path_before_anything_runs(self):
        with pytest.raises(ValidationError, match="is no path"):
            config(1, channels={"a": {"path": "a["}})
        with pytest.raises(ValidationError, match="no column 'w'"):
            config(1, decode={"kind": "csv", "columns": ["x"]}, channels={"w": {}})

    def test_suggests_a_decoder(self):
        with pytest.raises(ValidationError, match="did you mean 'json'"):
            config(1, decode={"kind": "jsn"})

    def test_never_shows_the_password(self, monkeypatch):
        monkeypatch.setenv("MQTT_PASSWORD", "hush")
        made = config(1, username="gw", password={"env": "MQTT_PASSWORD"})
        assert "hush" not in repr(made) + made.model_dump_json()


class TestMessages:
    @pytest.mark.parametrize("qos", [0, 1])
    async def test_channels_find_their_fields(self, broker, qos):
        channels = {"a": {"path": "motor.current"}, "b": {"path": "phases[1]"}}
        async with connected(broker, qos=qos, channels=channels) as source:
            await publish(broker, "t", b'{"motor": {"current": 1.5}, "phases": [0, 2]}', qos=qos)
            assert await arriving(source, 2) == [(0, 1.5), (1, 2.0)]

    async def test_channels_of_different_topics_share_the_connection(self, broker):
        channels = {"a": {"topic": "x"}, "b": {"topic": "y"}, "c": {"topic": "x", "path": "a"}}
        async with connected(broker, channels=channels) as source:
            await publish(broker, "y", b'{"b": 1}')
            await publish(broker, "x", b'{"a": 2}')
            assert await arriving(source, 3) == [(1, 1.0), (0, 2.0), (2, 2.0)]

    async def test_wildcards_take_the_topics_that_they_match(self, broker):
        channels = {"a": {"topic": "plant/+/a"}, "b": {"topic": "plant/#"}}
        async with connected(broker, channels=channels) as source:
            await publish(broker, "plant/1/a", b'{"a": 1, "b": 10}')
            assert set(await arriving(source, 2)) == {(0, 1.0), (1, 10.0)}
            await publish(broker, "plant/1/2/a", b'{"a": 3, "b": 30}')
            assert (1, 30.0) in await arriving(source, 1)

    async def test_another_decoder_reads_other_payloads(self, broker):
        async with connected(broker, decode={"kind": "csv", "columns": ["b", "a"]}) as source:
            await publish(broker, "t", b"1,2")
            assert await arriving(source, 2) == [(0, 2.0), (1, 1.0)]

    async def test_a_string_or_a_boolean_is_no_number(self, broker):
        async with connected(broker) as source:
            await publish(broker, "t", b'{"a": "12.5", "b": true}')
            samples = (await source.read()).samples
            assert np.isnan(samples["value"]).all()
            assert set(samples["quality"]) == {Quality.BAD}
            assert set(samples["reason"]) == {Reason.TYPE}

    async def test_a_malformed_message_is_told_after_the_good_ones_around_it(self, broker):
        async with connected(broker) as source:
            messages = [b'{"a": 1, "b": 1}', b"{", b"", b'{"a": 2, "b": 2}']
            await publish(broker, "t", *messages)
            await asyncio.sleep(0.1)
            assert [value for _, value in await arriving(source, 4)] == [1.0, 1.0, 2.0, 2.0]
            with pytest.raises(DecodeError, match="2 messages rejected, the first: not JSON") as told:
                await source.read()
            assert told.value.rejected == 2
            await publish(broker, "t", b'{"a": 3, "b": 3}')
            assert await arriving(source, 2) == [(0, 3.0), (1, 3.0)]

    async def test_packets_may_come_in_any_pieces(self, fake):
        async with listening(fake.serve) as port, connected(port) as source:
            stream = fake.send(*(json.dumps({"a": number, "b": 0}).encode() for number in range(40)))
            for at in range(0, len(stream), 7):
                fake.writer.write(stream[at : at + 7])
                await asyncio.sleep(0.001)
            values = [value for column, value in await arriving(source, 80) if column == 0]
            assert values == list(range(40))

    async def test_a_flood_is_bounded_and_counted(self, fake):
        async with listening(fake.serve) as port, connected(port) as source:
            many = fake.send(b'{"a": 1, "b": 2}') * 40_000
            fake.writer.write(many)
            for _ in range(500):
                await asyncio.sleep(0.01)
                if source.overflowed == 60_000:
                    break
            assert source.overflowed == 60_000
            assert len((await source.read()).samples) == 20_000
            fake.writer.write(fake.send(b'{"a": 7, "b": 8}'))
            assert await arriving(source, 2) == [(0, 7.0), (1, 8.0)]

    async def test_with_block_a_flood_waits_at_the_broker_and_nothing_is_lost(self, fake):
        settings = {"queue": 1_000, "overflow": "block", "qos": 0}
        async with listening(fake.serve) as port, connected(port, **settings) as source:
            fake.writer.write(fake.send(b'{"a": 1, "b": 2}') * 200_000)
            await asyncio.sleep(0.3)
            held = fake.writer.transport.get_write_buffer_size()
            assert held > 0, "what is not read stays on the wire"
            await asyncio.sleep(0.1)
            assert fake.writer.transport.get_write_buffer_size() == held
            found = 0
            async with asyncio.timeout(PATIENCE_S):
                while found < 400_000:
                    found += len((await source.read()).samples)
            assert source.overflowed == 0


async def asks_for_more(source: Mqtt) -> None:
    """As whoever has stored what the last read returned; in vain."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.05):
            await source.read()


class TestAcknowledgement:
    def acknowledged(self, fake):
        return [each.packet_id for each in fake.got if isinstance(each, mqtt5.PubAckPacket)]

    async def test_comes_when_the_samples_have_been_stored_and_not_before(self, fake):
        async with listening(fake.serve) as port, connected(port) as source:
            fake.writer.write(fake.send(b'{"a": 1, "b": 1}', b'{"a": 2, "b": 2}', qos=1))
            await asyncio.sleep(0.05)
            assert not self.acknowledged(fake)
            await source.read()
            await asyncio.sleep(0.05)
            assert not self.acknowledged(fake), "who reads may still fall before it is stored"
            await asks_for_more(source)
            assert self.acknowledged(fake) == [1, 2]

    async def test_is_not_given_by_a_read_that_was_cancelled(self, fake):
        async with listening(fake.serve) as port, connected(port) as source:
            reading = asyncio.create_task(source.read())
            await asyncio.sleep(0.05)
            source._message(mqtt5.PublishPacket("t", b'{"a": 1}', qos=mqtt5.QoS.AT_LEAST_ONCE, packet_id=9))
            reading.cancel()  # before it has been woken
            await asyncio.wait([reading])
            await asyncio.sleep(0.05)
            assert not self.acknowledged(fake)
            assert len((await source.read()).samples) == 2
            await asks_for_more(source)
            assert self.acknowledged(fake) == [9]

    async def test_is_given_to_malformed_messages_too(self, fake):
        async with listening(fake.serve) as port, connected(port) as source:
            fake.writer.write(fake.send(b"{", qos=1))
            with pytest.raises(DecodeError):
                await source.read()
            await asks_for_more(source)
            assert self.acknowledged(fake) == [1]


@pytest.mark.parametrize(
    ("time", "stamp"),
    [
        ("1772366400.5", 1_772_366_400_500_000_000), ("1772366400500", 1_772_366_400_500_000_000),
        ("1772366400500000", 1_772_366_400_500_000_000), ("1772366400500000000", 1_772_366_400_500_000_000),
        ("null", 0), ('"noon"', 0), ("-5", 0), ("1e300", 0),
    ],
)  # fmt: skip
async def test_a_message_may_bring_its_own_time(fake, time, stamp):
    payload = b'{"a": 1, "b": 2, "at": {"t": %s}}' % time.encode()
    async with (
        listening(fake.serve) as port,
        connected(port, time="at.t", clock="device") as source,
    ):
        fake.writer.write(fake.send(payload))
        samples = (await source.read()).samples
    assert samples["value"].tolist() == [1.0, 2.0]
    assert set(samples["stamp"]) == {stamp}


async def test_a_message_may_hold_samples_with_their_own_times(fake):
    settings = {"decode": {"kind": "json", "samples": "s"}, "clock": "device", "time": "t"}
    async with listening(fake.serve) as port, connected(port, **settings) as source:
        fake.writer.write(
            fake.send(b'{"s": [{"t": 1700000000.25, "a": 1}, {"t": 1700000000.5, "a": 2, "b": 3}]}')
        )
        samples = (await source.read()).samples
    assert samples["message"].tolist() == [0, 0, 1, 1]
    assert samples["stamp"].tolist() == [17 * 10**17 + 25 * 10**7] * 2 + [17 * 10**17 + 5 * 10**8] * 2
    assert samples["value"][[0, 2, 3]].tolist() == [1.0, 2.0, 3.0]
    assert samples["reason"].tolist() == [Reason.NONE, Reason.TYPE, Reason.NONE, Reason.NONE]


def test_samples_of_an_array_have_a_time_of_their_own_or_are_counted():
    decode = {"kind": "msgpack", "samples": "."}
    assert config(1, decode=decode, clock="counted").clock == "counted"
    with pytest.raises(ValidationError, match="samples of an array arrive at once"):
        config(1, decode=decode)


async def test_sentences_of_several_kinds_share_a_topic(fake):
    decode = {"kind": "nmea", "fields": {"a": "MWV.1", "b": "DBT.3"}}
    async with listening(fake.serve) as port, connected(port, decode=decode) as source:
        fake.writer.write(
            fake.send(b"$WIMWV,214.8,R", b"$GPGLL,1,N", b"$SDDBT,7.8,f,2.4,M", b"$SDDBT,7.8,f,,M")
        )
        samples = (await source.read()).samples
    assert samples["column"].tolist() == [0, 1, 1]
    assert samples["value"][:2].tolist() == [214.8, 2.4]
    assert samples["quality"].tolist() == [Quality.GOOD, Quality.GOOD, Quality.BAD]


async def test_what_the_broker_had_kept_is_uncertain_and_what_comes_is_not(broker):
    await publish(broker, "t", b'{"a": 1, "b": 2}', retain=True)
    async with connected(broker) as source:
        kept = (await source.read()).samples
        assert {(Quality(each["quality"]), Reason(each["reason"])) for each in kept} == {
            (Quality.UNCERTAIN, Reason.RETAINED)
        }
        await publish(broker, "t", b'{"a": 3, "b": 4}', retain=True)
        assert {Quality(each["quality"]) for each in (await source.read()).samples} == {Quality.GOOD}


class TestRefusals:
    async def test_a_wrong_password_is_told_by_its_name(self, fake):
        fake.connack = mqtt5.ConnAckPacket(reason_code=mqtt5.ConnAckReasonCode.BAD_USER_NAME_OR_PASSWORD)
        async with listening(fake.serve) as port:
            assert (await refused(port)).endswith("the broker refuses us: BAD_USER_NAME_OR_PASSWORD")

    async def test_a_refused_subscription_is_told_with_its_topic(self, fake):
        fake.granted = mqtt5.SubAckReasonCode.NOT_AUTHORIZED
        async with listening(fake.serve) as port:
            assert "subscription to 't': NOT_AUTHORIZED" in await refused(port)

    async def test_a_broker_of_the_old_protocol_hangs_up(self):
        port = free_port()
        with Broker(mqtt5_port=free_port(), mqtt311_port=port):
            await asyncio.sleep(0.2)
            assert "MQTT 3.1.1 only" in await refused(port, version="5")

    async def test_a_broker_of_the_old_protocol_answers_in_it(self):
        async def unacceptable(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"\x20\x02\x00\x01")  # CONNACK of 3.1.1: unacceptable protocol version
            await asyncio.sleep(5)

        async with listening(unacceptable) as port:
            assert "does not speak MQTT 5" in await refused(port)

    async def test_what_is_no_broker_is_refused(self, monkeypatch):
        monkeypatch.setattr(link, "_ANSWER_S", 0.2)

        async def web(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
            await asyncio.sleep(5)

        async with listening(web) as port:
            assert f"127.0.0.1:{port}" in await refused(port)

    async def test_silence_is_no_answer(self, monkeypatch):
        monkeypatch.setattr(link, "_ANSWER_S", 0.1)
        async with listening(silence) as port:
            assert "no answer to CONNECT within 0.1 s" in await refused(port)

    async def test_a_subscription_that_nobody_answers_is_told(self, monkeypatch):
        async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(mqtt5.ConnAckPacket().write())
            await silence(reader, writer)

        monkeypatch.setattr(link, "_ANSWER_S", 0.1)
        async with listening(deaf) as port:
            assert "not answered a subscription for 0.1 s" in await refused(port)

    async def test_a_name_that_does_not_resolve_is_told(self):
        source = Mqtt("m", config(1, url="mqtt://no-such-host.invalid"), clock=SystemClock())
        with pytest.raises(NotConnected, match=r"no-such-host\.invalid:1883: .*(not known|resolution)"):
            await source.connect()

    async def test_a_cancelled_attempt_leaves_nothing_behind(self):
        async with listening(silence) as port:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1), connected(port):
                    pass

    async def test_a_password_that_is_not_there_is_a_config_error(self, monkeypatch):
        monkeypatch.delenv("NO_SUCH_SECRET", raising=False)
        with pytest.raises(ConfigError, match="NO_SUCH_SECRET"):
            async with connected(1, username="gw", password={"env": "NO_SUCH_SECRET"}):
                pass


class TestSession:
    async def test_every_attempt_is_a_connection_of_its_own(self, fake, monkeypatch):
        monkeypatch.setenv("MQTT_PASSWORD", "hush")
        login = {"username": "gw", "password": {"env": "MQTT_PASSWORD"}}
        async with listening(fake.serve) as port, connected(port, **login) as source:
            await source.connect()
            hellos = [packet for packet in fake.got if isinstance(packet, mqtt5.ConnectPacket)]
        assert [(each.username, each.password) for each in hellos] == [("gw", b"hush")] * 2
        assert all(each.client_id.startswith("dxad-motor-") for each in hellos)
        assert fake.kinds()[:3] == ["Connect", "Subscribe", "Disconnect"]

    async def test_the_client_id_can_be_given(self, fake):
        async with listening(fake.serve) as port, connected(port, client_id="gw-7"):
            assert fake.got[0].client_id == "gw-7"

    async def test_bounds_what_the_broker_may_send(self, fake):
        async with (
            listening(fake.serve) as port,
            connected(port, decode={"kind": "json", "max_payload": "1KiB"}),
        ):
            assert fake.got[0].max_packet_size == 1024 + 65_536
            assert fake.got[0].receive_max == 2_000

    async def test_a_message_that_is_too_large_passes_by_and_is_counted_and_the_next_is_read(self, fake):
        head = b"\x32\x80\x80\x80\x01" + b"\0\1t" + b"\0\7" + b"\0"  # it announces 2 MiB, QoS 1, number 7
        async with listening(fake.serve) as port, connected(port) as source:
            fake.writer.write(head + bytes((2 << 20) - 6) + fake.send(b'{"a": 1, "b": 2}'))
            told, samples = "", 0
            while not (told and samples):  # in whichever order they come to be read
                try:
                    samples += len((await source.read()).samples)
                except DecodeError as error:
                    told = str(error)
                assert len(source._link._tail) < 400_000
            assert "a message of 2097152 bytes is larger than 327680" in told
            assert [each.packet_id for each in fake.got if isinstance(each, mqtt5.PubAckPacket)] == [7]

    async def test_a_packet_that_is_too_large_and_no_message_ends_the_connection(self, fake):
        async with listening(fake.serve) as port, connected(port) as source:
            fake.writer.write(b"\x90\x80\x80\x80\x40" + bytes(70_000))
            assert "a packet larger than 327680 bytes, and no message" in await lost(source)

    async def test_a_dead_link_is_noticed_by_its_keep_alive(self, fake):
        fake.connack = mqtt5.ConnAckPacket(server_keep_alive=1)
        async with listening(fake.serve) as port, connected(port) as source:
            await asyncio.sleep(1.2)
            assert fake.kinds().count("PingReq") == 2
            fake.pongs = False
            assert "not answered a ping for 0.5 s" in await lost(source)

    async def test_a_broker_that_wants_no_keep_alive_is_not_stormed(self, fake):
        fake.connack = mqtt5.ConnAckPacket(server_keep_alive=0)
        async with listening(fake.serve) as port, connected(port) as source:
            await asyncio.sleep(0.2)
            assert "PingReq" not in fake.kinds()
            fake.writer.write(fake.send(b'{"a": 1, "b": 1}'))
            await source.read()

    async def test_is_proved_alive_for_one_and_a_half_keep_alives(self, fake):
        async with listening(fake.serve) as port, connected(port, keep_alive="20s") as source:
            ahead_s = (source.alive_until - SystemClock().now()) / NS_PER_S
            assert 28.0 < ahead_s <= 30.0
        assert source.alive_until == 0

    async def test_a_broker_that_says_why_it_goes_is_quoted(self, fake):
        async with listening(fake.serve) as port, connected(port) as source:
            reason = mqtt5.DisconnectReasonCode.SERVER_SHUTTING_DOWN
            fake.writer.write(mqtt5.DisconnectPacket(reason_code=reason).write())
            assert "the broker says SERVER_SHUTTING_DOWN" in await lost(source)

    async def test_closing_does_not_wait_for_a_broker_that_takes_nothing(self, fake):
        async with listening(fake.serve) as port, connected(port) as source:
            fake.writer.transport.pause_reading()
            source._link.acknowledge([1] * 2_000_000)
            async with asyncio.timeout(PATIENCE_S):
                await source.close()

    async def test_never_publishes(self, fake):
        async with listening(fake.serve) as port:
            async with connected(port) as source:
                fake.writer.write(fake.send(b'{"a": 1, "b": 1}', b"{", qos=1))
                await source.read()
                with pytest.raises(DecodeError):
                    await source.read()
                await asks_for_more(source)
            await asyncio.sleep(0.05)
            assert set(fake.kinds()) == {"Connect", "Subscribe", "PubAck", "Disconnect"}
