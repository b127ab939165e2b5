"""How the MQTT wire breaks: rows of the catalogue.

What breaks the link is the gate's work (gate.py, session.py), what breaks messages the devices' (spoil.py,
device.py). Messages are counted under the fault's name as they are spoilt.
"""

from collections.abc import Mapping
from typing import Final

from hw_sim.fault import Kind, Parameter

__all__ = ["FAULTS"]

_FAR: Final = 1e11

_WIRE: Final[Mapping[str, Parameter]] = {
    "wire": Parameter("the wire; if empty, all of this kind", "", "wire")
}
_DEVICE: Final[Mapping[str, Parameter]] = {
    **_WIRE,
    "device": Parameter("the device; if empty, all on the wire", "", "device"),
}
_SOME: Final[Mapping[str, Parameter]] = {
    **_DEVICE,
    "every": Parameter("one message of so many", "1", "count", low=1.0),
}


def _link(name: str, does: str, **parameters: Parameter) -> Kind:
    return Kind(name=f"mqtt.{name}", does=does, where="wire", parameters={**parameters, **_WIRE})


def _message(name: str, does: str, **parameters: Parameter) -> Kind:
    return Kind(name=f"mqtt.{name}", does=does, where="wire", parameters={**parameters, **_SOME})


def _stream(name: str, does: str, **parameters: Parameter) -> Kind:
    return Kind(name=f"mqtt.{name}", does=does, where="wire", parameters={**parameters, **_DEVICE})


FAULTS: Final[tuple[Kind, ...]] = (
    _link(
        "stop",
        "the broker is gone: connections end, nothing listens, what devices measure is lost; then it is back",
        session=Parameter(
            "whether sessions and retained messages are there again when it is back",
            "kept",
            "choice",
            ("kept", "lost"),
        ),
    ),
    _link(
        "half_open",
        "connections stay, but not a byte goes either way, and who connects anew is never answered; then all "
        "that waited goes on",
    ),
    _link(
        "slow",
        "a slow line: bytes arrive at a low rate, or late, each way",
        rate=Parameter("bytes per second for each client; 0 is no limit", "500"),
        delay=Parameter("how long each portion of up to 64 KiB is kept", "0s", "time"),
    ),
    _link(
        "login",
        "all connections end, and every CONNECT is refused with a CONNACK",
        reason=Parameter(
            "what the CONNACK says; in MQTT 5 and 3.1.1: 0x87 or 5, 0x86 or 4, 0x88 or 3",
            "not_authorised",
            "choice",
            ("not_authorised", "bad_login", "unavailable"),
        ),
    ),
    _link(
        "subscribe",
        "all connections end; who is back may connect, but no subscription is granted: SUBACK 0x87, or 0x80 "
        "in 3.1.1; who was refused stays without until it asks again",
    ),
    _link(
        "disconnect",
        "the broker throws all clients out, again and again",
        every=Parameter("from one time to the next, of the plant's time", "5s", "time", low=0.001),
    ),
    _link(
        "takeover",
        "a stranger connects with each client's id, again and again, so that the broker ends the client's "
        "own connection",
        every=Parameter("from one time to the next, of the plant's time", "5s", "time", low=0.001),
    ),
    _link(
        "garbage",
        "all connections end; who is back gets, between two packets and again and again, bytes that are no "
        "packet of MQTT",
        every=Parameter("after so many packets", "10", "count", low=1.0),
    ),
    _stream(
        "retained_junk",
        "a retained message of junk on each topic, at once and for whoever subscribes; off clears it, which "
        "those who are there see as an empty message",
    ),
    _message(
        "malformed",
        'instead of the message, its first half with `{"` behind it; in msgpack and binary, all but the last '
        "byte",
    ),
    _message("empty", "instead of the message, one without a payload"),
    _message("nan", "instead of numbers, NaN, Infinity and -Infinity in turn, in JSON as these bare words"),
    _message(
        "wrong_type",
        "instead of numbers, text, true and an array in turn, as whole numbers in a binary message",
    ),
    _message("bad_utf8", "two bytes more in the message, 0xff 0xfe, which no text in UTF-8 has"),
    _message("missing", "the message lacks its first field"),
    _message(
        "deep",
        "instead of the message, a JSON object in an object, and so on; in msgpack, arrays",
        depth=Parameter("how many in each other", "10000", "count", low=1.0, high=10e6),
    ),
    _stream(
        "huge",
        "beside the messages, a message as usual but for its size: in JSON and msgpack with one more field, "
        "`padding`, else with blanks or zeros behind it",
        size=Parameter("of its payload, in MiB", "10", low=0.001, high=200.0),
        every=Parameter("from one to the next, of the plant's time", "5s", "time", low=0.001),
    ),
    _stream(
        "clock",
        "the device's clock is wrong: the times in its messages are off, if it tells any",
        by=Parameter("how far, in seconds; below zero: in the past", "86400", low=-_FAR, high=_FAR),
    ),
    _message("duplicate", "the message comes twice, the second time at once"),
    _stream("out_of_order", "two messages at a time are swapped: 2, 1, 4, 3, and so on"),
    _stream(
        "burst",
        "messages are held back and then come all at once, as from a device that had no network",
        hold=Parameter("how long, of the plant's time", "5s", "time"),
    ),
)
