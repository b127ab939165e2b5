"""What a load offers: channels at a rate, shared out among wires, and the map by which a far end finds it.

    mqtt      a message of JSON per device and row on `load/NNN`: sequence, sent, and its values by name
    modbus    input registers in blocks of 125, each a whole row of its own: float64 `began`, uint32 sequence,
              float32 values; a request of one block never sees two rows
    opcua     a node per value, `s=Load.cNNN` in `urn:hw-sim:load`; SourceTimestamp is its time of sending
    serial    a CSV line per row: sent, sequence, values

The values themselves, and what sequence, sent and began are, is told in `plants/load.py`. MQTT's devices send
in turn within a row's period, since on a plant nobody tells them to send all at once.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from hw_sim.plants.load import BEGAN, SENT, SEQUENCE, channel_of
from hw_sim.scenario import WIRES, Origin, Scenario, of

__all__ = ["BLOCK", "NAMESPACE", "SHARES", "Plan", "Wired"]

SHARES: Final[Mapping[str, float]] = {"mqtt": 4, "modbus": 3, "opcua": 2, "serial": 1}
"""Of the channels, by wire."""
NAMESPACE: Final = "urn:hw-sim:load"
BLOCK: Final = 125
"""Registers that one request may ask for."""

_HEAD: Final = 6
"""Registers of a block before its values: four of the time, two of the sequence."""
_PER_BLOCK: Final = (BLOCK - _HEAD) // 2
_PER_LINE: Final = 200
"""Values of a serial line at most: a terminal holds 4095 bytes, and is to hold two lines."""
_TURN_S: Final = 0.005
"""How far devices that send in turn are apart at least."""
_TURNS_MAX: Final = 100
_DECIMALS: Final = 17
"""Values are sent as they are, since rounding costs most of a message."""
_PORTS: Final = {"mqtt": 18830, "modbus": 15020, "opcua": 14840}
_LINK: Final = Path("/tmp/hw_sim-load")  # noqa: S108 - a link, made atomically and never followed


@dataclass(frozen=True, slots=True)
class Wired:
    """What one wire carries."""

    kind: str
    channels: Sequence[int]
    """The numbers of its values."""
    messages: int
    """How many make a row: messages, blocks, nodes or lines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A load."""

    channels: int = 500
    rate_hz: float = 10.0
    """Rows a second."""
    shares: Mapping[str, float] = field(default_factory=lambda: dict(SHARES))
    """Of the channels, by the type of wire."""
    values_per_message: int = 3
    """Of MQTT."""
    qos: int = 0
    """Of MQTT. With 0 each message is sent once, when it is due: what does not get through is seen as lost.
    With 1 the acknowledgements are load as well, and a broker that falls behind holds the sender up."""
    broker: str = ""
    """HOST:PORT of somebody else's broker; empty: our own."""

    def times(self, factor: float) -> "Plan":
        """The same, so many times as fast."""
        return Plan(
            channels=self.channels,
            rate_hz=self.rate_hz * factor,
            shares=self.shares,
            values_per_message=self.values_per_message,
            qos=self.qos,
            broker=self.broker,
        )

    @property
    def spread(self) -> int:
        """Steps in a row."""
        return max(1, min(_TURNS_MAX, math.floor(1 / (self.rate_hz * _TURN_S) + 1e-9)))

    @property
    def step_s(self) -> float:
        """Between two steps."""
        return 1 / (self.rate_hz * self.spread)

    def duration_s(self, about_s: float) -> float:
        """About so many seconds, at least a row, after which a row is through and no other has begun."""
        rows = max(1, round(about_s * self.rate_hz))
        return (rows * self.spread - 1.5) * self.step_s

    def offered(self, wired: Wired, steps: int) -> int:
        """How many messages a wire was to carry until after so many steps."""
        rows, turns = divmod(steps + 1, self.spread)
        if wired.kind != "mqtt":
            return (rows + (turns > 0)) * wired.messages
        return rows * wired.messages + sum(number % self.spread < turns for number in range(wired.messages))

    @property
    def wires(self) -> Mapping[str, Wired]:
        """By the name of the wire, what it carries; serial lines that would be too long are on several."""
        found: dict[str, Wired] = {}
        begin = 0
        for kind, count in _split(self.channels, self.shares).items():
            numbers = range(begin, begin + count)
            begin += count
            if kind == "serial":
                for turn, part in enumerate(_parts(numbers, _PER_LINE), 1):
                    found[kind if turn == 1 else f"{kind}{turn}"] = Wired(kind, part, 1)
            elif count:
                per = {"mqtt": self.values_per_message, "modbus": _PER_BLOCK, "opcua": 1}[kind]
                found[kind] = Wired(kind, numbers, math.ceil(count / per))
        return found

    def scenario(self) -> Scenario:
        """As any other scenario.

        Raises:
            ScenarioError: it cannot be wired so.
        """
        return of(self.document(), Origin("load"))

    def document(self) -> dict[str, Any]:
        """As TOML would have it."""
        plant = {"kind": "load", "channels": self.channels, "rate_hz": self.rate_hz, "spread": self.spread}
        make = {"mqtt": self._mqtt, "modbus": self._modbus, "opcua": self._opcua, "serial": self._serial}
        return {
            "plants": {"load": plant},
            "wires": {name: make[wired.kind](name, wired) for name, wired in self.wires.items()},
        }

    @property
    def _period(self) -> str:
        return f"{1000 / self.rate_hz:.15f}ms"

    def _phase(self, turn: int) -> str:
        return f"{turn % self.spread * self.step_s * 1000:.12f}ms"

    def _messages(self, wired: Wired) -> Iterator[tuple[str, Sequence[int]]]:
        """By the number of each MQTT device, what it sends."""
        for turn, part in enumerate(_parts(wired.channels, self.values_per_message)):
            yield f"{turn:03d}", part

    def _mqtt(self, name: str, wired: Wired) -> dict[str, Any]:
        devices = {
            f"{name}{number}": {
                "topic": f"load/{number}",
                "period": self._period,
                "phase": self._phase(int(number)),
                "qos": self.qos,
                "decimals": _DECIMALS,
                "fields": {"sequence": SEQUENCE, "sent": SENT, **_named(part)},
            }
            for number, part in self._messages(wired)
        }
        elsewhere = {"broker": self.broker} if self.broker else {}
        return {"type": "mqtt", "port": _PORTS["mqtt"], **elsewhere, "devices": devices}

    def _modbus(self, name: str, wired: Wired) -> dict[str, Any]:
        registers: dict[str, dict[str, str]] = {}
        for block, part in enumerate(_parts(wired.channels, _PER_BLOCK)):
            at = block * BLOCK
            registers[f"began{block}"] = _register(at, "float64", BEGAN)
            registers[f"sequence{block}"] = _register(at + 4, "uint32", SEQUENCE)
            for place, number in enumerate(part):
                registers[f"c{number:03d}"] = _register(at + _HEAD + 2 * place, "float32", channel_of(number))
        size = math.ceil(len(wired.channels) / _PER_BLOCK) * BLOCK
        device = {"id": 1, "size": size, "registers": registers}
        return {"type": "modbus", "framing": "tcp", "port": _PORTS["modbus"], "devices": {name: device}}

    def _opcua(self, name: str, wired: Wired) -> dict[str, Any]:
        nodes = {
            field: {"node": f"s=Load.{field}", "kind": "Double", "channel": channel}
            for field, channel in _named(wired.channels).items()
        }
        device = {"namespace": NAMESPACE, "object": "Load", "period": self._period, "nodes": nodes}
        return {"type": "opcua", "port": _PORTS["opcua"], "path": "load", "devices": {name: device}}

    def _serial(self, name: str, wired: Wired) -> dict[str, Any]:
        device = {
            "period": self._period,
            "payload": "csv",
            "decimals": 2,
            "time": "sent",
            "fields": {"sequence": SEQUENCE, **_named(wired.channels)},
        }
        link = _LINK.with_name(_LINK.name + name.removeprefix("serial"))
        return {"type": "serial", "link": str(link), "devices": {name: device}}

    def map(self, endpoints: Mapping[str, str]) -> dict[str, Any]:
        """Where a far end finds what, as JSON may have it.

        Args:
            endpoints: by device, or by wire, its URL or path.
        """
        make = {"mqtt": self._mqtt_map, "modbus": _modbus_map, "opcua": _opcua_map, "serial": _serial_map}
        wires = {}
        for name, wired in self.wires.items():
            endpoint = endpoints[name if name in endpoints else f"{name}000"]
            wires[name] = {
                "type": wired.kind,
                "endpoint": str(endpoint),
                "values_per_s": len(wired.channels) * self.rate_hz,
                "messages_per_s": wired.messages * self.rate_hz,
                **make[wired.kind](wired),
            }
        return {
            "type": "load",
            "channels": self.channels,
            "rate_hz": self.rate_hz,
            "value": "((sequence + 101 * channel) % 4096) / 4",
            "wires": wires,
        }

    def _mqtt_map(self, wired: Wired) -> dict[str, Any]:
        topics = {f"load/{number}": list(part) for number, part in self._messages(wired)}
        return {"qos": self.qos, "payload": "json: sequence, sent, cNNN", "topics": topics}


def _modbus_map(wired: Wired) -> dict[str, Any]:
    blocks = [
        {"first": block * BLOCK, "count": _HEAD + 2 * len(part), "channels": list(part)}
        for block, part in enumerate(_parts(wired.channels, _PER_BLOCK))
    ]
    return {
        "id": 1,
        "block": "input registers, ABCD: float64 began, uint32 sequence, float32 …",
        "blocks": blocks,
    }


def _opcua_map(wired: Wired) -> dict[str, Any]:
    nodes = {f"s=Load.c{number:03d}": number for number in wired.channels}
    return {"namespace": NAMESPACE, "nodes": nodes}


def _serial_map(wired: Wired) -> dict[str, Any]:
    return {"line": "sent,sequence,cNNN,…", "channels": list(wired.channels)}


def _register(at: int, encoding: str, channel: str) -> dict[str, str]:
    return {"register": f"input:{at}", "encoding": encoding, "channel": channel}


def _named(numbers: Sequence[int]) -> dict[str, str]:
    """By field, the channel."""
    return {channel_of(number).partition(".")[2]: channel_of(number) for number in numbers}


def _parts(numbers: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for begin in range(0, len(numbers), size):
        yield numbers[begin : begin + size]


def _split(count: int, shares: Mapping[str, float]) -> Mapping[str, int]:
    """So many channels in these shares: the nearest whole numbers, which together are all."""
    whole = sum(shares.values())
    ends, total = {}, 0.0
    for kind in WIRES:
        total += shares.get(kind, 0.0)
        ends[kind] = round(count * total / whole)
    begins = [0, *ends.values()]
    return {kind: end - begin for (kind, end), begin in zip(ends.items(), begins, strict=False)}
