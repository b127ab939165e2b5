"""With `ack = "outbox"` the MQTT source acknowledges a message once it is told that the outbox has it."""

import asyncio

import mqtt5
import pytest
from pydantic import ValidationError

from dxad.errors import DecodeError, NotConnected
from tests.mqttbrokers import FakeBroker, running_mosquitto
from tests.patience import PATIENCE_S
from tests.peers import listening, publish
from tests.unit.test_source_mqtt_session import asks_for_more, config, connected, values_of

OUTBOX = {"ack": "outbox", "session": "1h", "client_id": "gw"}


@pytest.fixture
def fake():
    return FakeBroker()


def message(packet_id, a, *, qos=mqtt5.QoS.AT_LEAST_ONCE, again=False):
    payload = a if isinstance(a, bytes) else b'{"a": %d, "b": 0}' % a
    return mqtt5.PublishPacket("t", payload, qos=qos, packet_id=packet_id, duplicate=again).write()


async def acknowledged(fake):
    """The messages that the broker was told of since the last call."""
    await asyncio.sleep(0.03)
    kinds = (mqtt5.PubAckPacket, mqtt5.PubRecPacket)
    said = [each.packet_id for each in fake.got if isinstance(each, kinds)]
    fake.got.clear()
    return said


async def next_ticket(source):
    async with asyncio.timeout(PATIENCE_S):
        return (await source.read()).ticket


async def test_a_message_is_acknowledged_when_its_block_is_stored_and_not_when_more_is_read(fake):
    async with listening(fake.serve) as port, connected(port, **OUTBOX) as source:
        fake.writer.write(message(7, 1) + message(8, 2))
        first = await next_ticket(source)
        fake.writer.write(message(9, 3))
        second = await next_ticket(source)
        await asks_for_more(source)
        assert await acknowledged(fake) == []
        source.confirm(first)
        assert await acknowledged(fake) == [7, 8]
        source.confirm(second)
        assert await acknowledged(fake) == [9]


async def test_what_brings_no_sample_waits_for_those_before_it_alone(fake):
    async with listening(fake.serve) as port, connected(port, **OUTBOX) as source:
        fake.writer.write(message(5, b"no JSON"))
        with pytest.raises(DecodeError):
            await next_ticket(source)
        assert await acknowledged(fake) == [5]
        fake.writer.write(message(6, 1))
        ticket = await next_ticket(source)
        fake.writer.write(message(7, b"no JSON"))
        with pytest.raises(DecodeError):
            await next_ticket(source)
        assert await acknowledged(fake) == [], "answers go in the order of the messages"
        source.confirm(ticket)
        assert await acknowledged(fake) == [6, 7]


async def test_a_ticket_of_an_earlier_connection_acknowledges_nothing_of_this_one(fake):
    async with listening(fake.serve) as port, connected(port, **OUTBOX) as source:
        fake.writer.write(message(7, 1))
        old = await next_ticket(source)
        fake.writer.transport.abort()
        with pytest.raises(NotConnected):
            await source.read()
        fake.connack = mqtt5.ConnAckPacket(session_present=True)
        await source.connect()
        fake.writer.write(message(7, 1, again=True))
        new = await next_ticket(source)
        source.confirm(old)
        assert await acknowledged(fake) == []
        source.confirm(new)
        assert await acknowledged(fake) == [7]


@pytest.mark.parametrize(("kept", "comes"), [(True, []), (False, [1.0, 0.0])])
async def test_one_of_qos_2_that_is_on_its_way_is_not_taken_twice(fake, kept, comes):
    fake.granted = mqtt5.SubAckReasonCode.GRANTED_QOS_EXACTLY_ONCE
    twice = mqtt5.QoS.EXACTLY_ONCE
    async with listening(fake.serve) as port, connected(port, **OUTBOX, qos=2) as source:
        fake.writer.write(message(7, 1, qos=twice))
        ticket = await next_ticket(source)
        fake.writer.transport.abort()
        with pytest.raises(NotConnected):
            await source.read()
        fake.connack = mqtt5.ConnAckPacket(session_present=kept)
        source._known = False  # or it would tell that the session is gone, which is another test's
        await source.connect()
        fake.writer.write(message(7, 1, qos=twice, again=True))
        assert await asks_for_more(source) == comes
        assert await acknowledged(fake) == []
        source.confirm(ticket)
        assert await acknowledged(fake) == ([7] if kept else [])


@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_mosquitto_sends_again_what_was_not_stored(tmp_path, version):
    settings = {**OUTBOX, "version": version}
    with running_mosquitto(tmp_path, "allow_anonymous true") as (port, _):
        async with connected(port, **settings) as source:
            await publish(port, "t", *(b'{"a": %d, "b": 0}' % number for number in range(4)))
            assert await values_of(source, 4) == [0, 1, 2, 3]
            source.confirm(source._receipts.block)
            await publish(port, "t", *(b'{"a": %d, "b": 0}' % number for number in range(4, 8)))
            assert await values_of(source, 4) == [4, 5, 6, 7]
        async with connected(port, **settings) as source:
            assert await values_of(source, 4) == [4, 5, 6, 7]


async def test_more_than_there_is_room_for_waits_in_the_network_until_something_is_stored(tmp_path):
    settings = {**OUTBOX, "version": "3.1.1", "queue": 20}  # whose broker cannot be told how much that is
    with running_mosquitto(tmp_path, "allow_anonymous true", "max_inflight_messages 0") as (port, _):
        async with connected(port, **settings) as source:
            await publish(port, "t", *(b'{"a": %d, "b": 0}' % number for number in range(30)))
            assert await values_of(source, 10) == list(range(10))
            assert await asks_for_more(source) == []
            source.confirm(source._receipts.block)
            assert await values_of(source, 10) == list(range(10, 20))
            assert source.overflowed == 0


@pytest.mark.parametrize(("version", "most"), [("5", 50), ("3.1.1", 10)])
async def test_it_is_pressed_when_half_of_what_the_broker_may_send_is_on_its_way(tmp_path, version, most):
    settings = {**OUTBOX, "version": version, "queue": 200}
    with running_mosquitto(tmp_path, "allow_anonymous true") as (port, _):
        async with connected(port, **settings) as source:
            await publish(port, "t", *[b'{"a": 1, "b": 0}'] * (most - 1))
            await values_of(source, most - 1)
            assert not source.pressed
            await publish(port, "t", b'{"a": 1, "b": 0}')
            await values_of(source, 1)
            assert source.pressed


async def test_as_many_may_be_on_their_way_as_find_room(fake):
    async with listening(fake.serve) as port, connected(port, **OUTBOX, queue=60_000):
        assert fake.got[0].receive_max == 30_000


@pytest.mark.parametrize("without", [{"session": None}, {"qos": 0, "session": None}])
def test_a_broker_that_forgets_at_once_is_no_use(without):
    with pytest.raises(ValidationError, match='ack: "outbox" wants qos 1 or 2, session'):
        config(1, **{**OUTBOX, **without})
