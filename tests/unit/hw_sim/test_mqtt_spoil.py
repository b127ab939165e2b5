"""What faults make of messages that are no plain JSON object, and how a stream falls into packets."""

import json
import math
import struct

import mqtt5
import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_sim.mqtt.packet import Framer, MalformedError, connect, hello, publish
from hw_sim.mqtt.payload import Sample, encoder
from hw_sim.mqtt.section import DeviceSection
from hw_sim.mqtt.spoil import MESSAGES, SAMPLES, padded

SAMPLE = Sample(1_700_000_000.5, {"a": 1.25, "b": 2.5, "c": 3.0})


def device(payload, **keys):
    one = {"a": "p.a"} if payload == "number" else {"a": "p.a", "b": "p.b", "c": "p.c"}
    return DeviceSection(topic="t", period="1s", payload=payload, fields=one, **keys)


def spoilt(name, payload, **keys):
    sample = Sample(0.0, {"a": 1.25}) if payload == "number" else SAMPLE
    return encoder(device(payload, **keys))([SAMPLES[name](sample, payload)])


def garbled(name, payload, **settings):
    return MESSAGES[name](encoder(device(payload))([SAMPLE]), payload, settings)


def test_nan_is_written_as_it_is_in_each_shape():
    assert spoilt("nan", "csv") == b"nan,inf,-inf"
    assert spoilt("nan", "number") == b"nan"
    a, b, c = struct.unpack("<3f", spoilt("nan", "binary"))
    assert (math.isnan(a), b, c) == (True, math.inf, -math.inf)
    assert math.isnan(msgpack.unpackb(spoilt("nan", "msgpack"))["a"])


def test_another_type_is_seen_in_each_shape():
    assert spoilt("wrong_type", "csv") == b"1.25 ok,true,[3.0]"
    assert spoilt("wrong_type", "number") == b"1.25 ok"
    assert struct.unpack("<3i", spoilt("wrong_type", "binary")) == (1, 2, 3)
    assert struct.unpack(">3q", spoilt("wrong_type", "binary", encoding="float64", byte_order="big")) == (
        1,
        2,
        3,
    )
    assert msgpack.unpackb(spoilt("wrong_type", "msgpack")) == {"a": "1.25 ok", "b": True, "c": [3.0]}


def test_a_field_is_missing_in_each_shape():
    assert spoilt("missing", "csv") == b"2.5,3.0"
    assert spoilt("missing", "number") == b""
    assert len(spoilt("missing", "binary")) == 8
    assert set(msgpack.unpackb(spoilt("missing", "msgpack"))) == {"b", "c"}


def test_malformed_is_malformed_in_each_shape():
    assert garbled("malformed", "csv") == b'1.25,2{"'
    assert len(garbled("malformed", "binary")) == 11
    with pytest.raises(ValueError, match="incomplete"):
        msgpack.unpackb(garbled("malformed", "msgpack"))


def test_deep_is_deep_in_msgpack_too():
    found, depth = msgpack.unpackb(garbled("deep", "msgpack", depth=100.0)), 0
    while found is not None:
        (found,) = found
        depth += 1
    assert depth == 100


@pytest.mark.parametrize("payload", ["json", "csv", "msgpack", "binary", "number"])
def test_a_huge_message_has_its_size_and_its_values(payload):
    sample = Sample(0.0, {"a": 1.25}) if payload == "number" else SAMPLE
    message = padded([sample], encoder(device(payload)), payload, 0.5)
    assert len(message) == pytest.approx(1 << 19, abs=4)
    first = {
        "json": lambda: json.loads(message)["a"],
        "csv": lambda: float(message.split(b",")[0]),
        "msgpack": lambda: msgpack.unpackb(message)["a"],
        "binary": lambda: struct.unpack_from("<f", message)[0],
        "number": lambda: float(message),
    }
    assert first[payload]() == 1.25


@given(
    payloads=st.lists(st.binary(max_size=300), max_size=8),
    cuts=st.lists(st.integers(1, 40), min_size=1, max_size=10),
    version=st.sampled_from(["5", "3.1.1"]),
)
def test_a_stream_falls_into_its_packets_whatever_portions_it_comes_in(payloads, cuts, version):
    packets = [
        publish(version, "plant/ä", each, retain=False, packet_id=number or None)
        for number, each in enumerate(payloads)
    ]
    stream, framer, found, turn = b"".join(packets), Framer(), [], 0
    while stream:
        size = cuts[turn % len(cuts)]
        found += framer.packets(stream[:size])
        stream, turn = stream[size:], turn + 1
    assert found == packets


def test_a_stream_with_an_endless_length_is_none():
    with pytest.raises(MalformedError):
        Framer().packets(b"\x30\xff\xff\xff\xff\xff")


@given(
    version=st.sampled_from(["5", "3.1.1"]),
    client_id=st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20),
    username=st.none() | st.just("gw"),
    keep_alive_s=st.integers(1, 65_535),
)
def test_a_connect_is_read_as_it_was_written(version, client_id, username, keep_alive_s):
    password = None if username is None else b"secret"
    packet = connect(version, client_id, username=username, password=password, keep_alive_s=keep_alive_s)
    read = hello(packet)
    assert (read.version, read.client_id, read.clean) == (version, client_id, True)
    assert (read.username, read.password, read.keep_alive_s) == (username, password, keep_alive_s)
    again = hello(read.changed(clean=False, keep_alive_s=7))
    assert (again.clean, again.keep_alive_s, again.client_id) == (False, 7, client_id)


def test_a_connect_with_a_will_is_read_past_it():
    will = mqtt5.Will("gone", payload=b"x" * 200)
    packet = mqtt5.ConnectPacket(
        "me", username="gw", password=b"s", will=will, session_expiry_interval=9
    ).write()
    assert (hello(packet).username, hello(packet).expires_s) == ("gw", 9)
    old = b"\x10\x1d\x00\x04MQTT\x04\xc6\x00\x3c\x00\x02me\x00\x01w\x00\x02no\x00\x02gw\x00\x01s"
    old = bytes([old[0], len(old) - 2]) + old[2:]
    assert (hello(old).username, hello(old).password) == ("gw", b"s")
    for end in range(2, len(old)):
        with pytest.raises(MalformedError):
            hello(bytes([0x10, end - 2]) + old[2:end])
