"""Whether what the simulator sent is accounted for by what dxad has counted: each sum that is off, in words.

Within a source, sample by sample (`dxad.ring.admission`):

    received = stored + folded + duplicate + ahead + late + too_old + waiting + pending

From the wire to the source, by its own counts of what came (`wire` in its status):

    mqtt      messages sent      = messages that came, and more only by what is retained; fewer, where it was
                                   away: the broker keeps nothing for it
    modbus    requests heard     = asked, less those that a break took; asked = answered + refused + unfitting
                                   + silent + lost + the one under way; and no sound answer that is not taken
    opcua     values notified    = values that came + unsent; polled, values asked for = read by the server
                                   = that came, but for a poll a break; they and what was refused are its
                                   samples
    serial    bytes sent         = bytes that came, unless it was pulled or reopened; messages found in them
                                   = samples of all channels + messages rejected; of an instrument that is
                                   asked: requests heard = asked = answered + faults + the one under way
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

__all__ = ["Sums", "inner", "missed", "of_all", "off", "settled"]

Sums = Sequence[str]
"""What is off, a line each; nothing where all is accounted for."""
Counts = Mapping[str, int]
_Counted = Counter[str]

_OUTCOMES: Final = ("answered", "refused", "unfitting", "silent", "lost")
_SPOILING: Final = (
    "wrong_id", "wrong_function", "wrong_length", "wrong_transaction", "crc", "half_frame", "duplicate",
    "garbage", "noise", "echo",
)  # fmt: skip
"""Faults of Modbus that may make an answer none; each counts those it has hit."""
_IN_FLIGHT_VALUES: Final = 1000
"""Two publications: what a break of the connection may take with it."""
_IN_FLIGHT_BYTES: Final = 8192
"""What a terminal holds, each way, when somebody leaves it."""
_SETTLES_S: Final = 3.0
_LOOK_S: Final = 0.05


def inner(source: Mapping[str, Any]) -> Sums:
    """What is off among the samples of a source, by its status."""
    lost = sum(count for reason, count in source["lost"].items() if reason != "queue")
    known = lost + sum(source[key] for key in ("stored", "folded", "duplicate", "pending"))
    if source["samples"] == known:
        return ()
    return (f"{source['samples']} samples received, {known} accounted for",)


def off(kind: str, source: Mapping[str, Any], sent: Counts, *, missed: int | None = None) -> Sums:
    """What is off between a source and what was sent to it.

    Args:
        kind: of the source.
        source: its status.
        sent: what the simulator counts on this wire, since its start.
        missed: what `missed` has found when the source was new; without it, messages may come short.
    """
    counted = Counter(sent)
    found = [*inner(source), *_SUMS[kind](source, counted)]
    if missed is not None and (short := counted["sent"] - missed - source["wire"]["messages"]) > 0:
        found.append(f"{short} messages were sent that did not come")
    return [f"{kind}: {each}" for each in found]


def of_all(status: Mapping[str, Any], simulator: Mapping[str, Any]) -> Sums:
    """What is off between all sources and the wires of the same names.

    Args:
        status: of the daemon.
        simulator: its status; asked for after the daemon's.
    """
    found: list[str] = []
    for name, wire in simulator["wires"].items():
        found += off(wire["type"], status["sources"][name], wire["counts"])
    return found


def missed(source: Mapping[str, Any], sent: Counts) -> int:
    """How many messages were sent before a broker had the source's subscription, or are under way to it."""
    return sent.get("sent", 0) - int(source["wire"].get("messages", 0))


def settled(look: Callable[[], Sums]) -> Sums:
    """What is off, once what is under way has had time to arrive."""
    until = time.monotonic() + _SETTLES_S
    while (found := look()) and time.monotonic() < until:
        time.sleep(_LOOK_S)
    return found


def _between(what: str, number: int, most: int) -> Sums:
    return () if 0 <= number <= most else (f"{what}: {number}, not within 0 and {most}",)


def _mqtt(source: Mapping[str, Any], sent: _Counted) -> Sums:
    came = source["wire"]["messages"]
    # What is retained comes again with each subscription.
    most = sent["sent"] + sent["retained_junk"] * source["connects"]
    return (f"{came} messages came, {most} were sent",) if came > most else ()


def _modbus(source: Mapping[str, Any], sent: _Counted) -> Sums:
    wire = source["wire"]
    ended = sum(wire[each] for each in _OUTCOMES)
    spoilt = sum(sent[f"modbus.{each}"] for each in _SPOILING)
    taken = wire["answered"] + wire["refused"] + wire["late"] + wire["again"]
    return (
        *_between("questions without an outcome", wire["asked"] - ended, 1),
        *_between(
            "questions that were not heard",
            wire["asked"] - sent["requests"],
            wire["silent"] + wire["lost"] + 1,
        ),
        *_between("sound answers not taken", max(0, sent["sent"] - spoilt - taken), wire["lost"] + 1),
        *(() if source["samples"] % len(source["channels"]) == 0 else ("a poll has no sample of a channel",)),
    )


def _opcua(source: Mapping[str, Any], sent: _Counted) -> Sums:
    wire = source["wire"]
    a_poll = len(source["channels"]) * (source["disconnects"] + 1)
    told = wire["values"] - wire["ticks"] - wire["others"] + wire["past"] + wire["refused"]
    came = source["samples"] + source["overflowed"]
    if wire["asked"]:
        sums = (
            *_between("values asked for that were not read", wire["asked"] - sent["polled"], a_poll),
            *_between("values that were read and did not come", sent["polled"] - wire["values"], a_poll),
        )
    else:
        missing = sent["notified"] - sent["unsent"] - wire["values"]
        most = _IN_FLIGHT_VALUES * source["disconnects"]
        sums = tuple(_between("values that were sent and did not come", missing, most))
    return (
        *sums,
        *(() if came == told else (f"{told} values told or refused, {came} samples",)),
    )


def _serial(source: Mapping[str, Any], sent: _Counted) -> Sums:
    wire, channels = source["wire"], len(source["channels"])
    breaks = source["connects"] - 1 + source["disconnects"]
    if "asked" in wire:
        ended = wire["answered"] + sum(source["faults"].values())
        return (
            *_between("questions without an outcome", wire["asked"] - ended, breaks + 1),
            *_between("questions that were not heard", wire["asked"] - sent["requests"], breaks),
        )
    came = source["samples"] + source["overflowed"] + source["messages_rejected"] * channels
    found = wire["messages"] * channels
    return (
        *_between(
            "bytes that were sent and did not come", sent["bytes"] - wire["bytes"], _IN_FLIGHT_BYTES * breaks
        ),
        *(() if came == found else (f"{found} values found in messages, {came} samples and rejected ones",)),
    )


_SUMS: Final[Mapping[str, Callable[[Mapping[str, Any], _Counted], Sums]]] = {
    "mqtt": _mqtt,
    "modbus": _modbus,
    "opcua": _opcua,
    "serial": _serial,
}
