"""The plainest wires for any channels: as a scenario has them, and where a client finds each channel.

    mqtt      an object in JSON per step on one topic, with its time in `ts`, or `ts_` where that is a channel
    modbus    TCP, slave 1: input registers from 0 on, two per float32 or four per float64, high word first
    opcua     a Double `s=NAME` per channel, in a namespace of its own
    serial    CSV lines with the exclusive or of their bytes, `1.5,20*HH`

Each wire has one device of its own name.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

__all__ = ["LINK", "NAMESPACE", "PORTS", "WORDS", "Encoding", "Plain", "written"]

NAMESPACE: Final = "urn:hw-sim:replay"
PORTS: Final[Mapping[str, int]] = {"mqtt": 18830, "modbus": 15020, "opcua": 14840}
"""As those of the scenarios that are shipped."""
LINK: Final = "/tmp/hw_sim-replay"  # noqa: S108 - for people to type; made atomically, never followed
WORDS: Final = {"float32": 2, "float64": 4}
"""Registers that a value takes."""
_TIME: Final = "ts"

Encoding = Literal["float32", "float64"]


def written(seconds: float) -> str:
    """A duration as a scenario has it; to the nanosecond."""
    return f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plain:
    """What all wires have in common."""

    period_s: float
    """From one sample to the next."""
    topic: str
    """Of MQTT."""
    decimals: int = 4
    """In text."""
    encoding: Encoding = "float32"
    """Of a register."""

    def wire(self, kind: str, names: Sequence[str]) -> dict[str, Any]:
        """A wire of a scenario that shows these channels by their names."""
        make = {"mqtt": self._mqtt, "modbus": self._modbus, "opcua": self._opcua, "serial": self._serial}
        return make[kind](names)

    def places(self, kind: str, names: Sequence[str]) -> Mapping[str, str]:
        """By channel, where a client of such a wire finds it."""
        each = WORDS[self.encoding]
        match kind:
            case "mqtt":
                return {name: f"$.{name}" for name in names}
            case "modbus":
                return {name: f"input:{at * each} {self.encoding}" for at, name in enumerate(names)}
            case "opcua":
                return {name: f"s={name} Double" for name in names}
        return {name: f"value {at} of the line" for at, name in enumerate(names)}

    def about(self, kind: str, names: Sequence[str]) -> Mapping[str, str | int]:
        """What a client of such a wire must know besides."""
        match kind:
            case "mqtt":
                return {"topic": self.topic, "payload": "json", "time": _time(names)}
            case "modbus":
                return {"slave": 1, "words": "high first"}
            case "opcua":
                return {"namespace": NAMESPACE}
        return {"framing": "line", "checksum": "xor", "payload": "csv", "decimals": self.decimals}

    def _mqtt(self, names: Sequence[str]) -> dict[str, Any]:
        device = {
            "topic": self.topic,
            "period": written(self.period_s),
            "payload": "json",
            "time": _time(names),
            "decimals": self.decimals,
            "fields": {name: name for name in names},
        }
        return {"type": "mqtt", "port": PORTS["mqtt"], "devices": {"mqtt": device}}

    def _modbus(self, names: Sequence[str]) -> dict[str, Any]:
        each = WORDS[self.encoding]
        registers = {
            name: {"register": f"input:{at * each}", "encoding": self.encoding, "channel": name}
            for at, name in enumerate(names)
        }
        devices = {"modbus": {"id": 1, "registers": registers}}
        return {"type": "modbus", "framing": "tcp", "port": PORTS["modbus"], "devices": devices}

    def _opcua(self, names: Sequence[str]) -> dict[str, Any]:
        device = {
            "namespace": NAMESPACE,
            "object": "Replay",
            "period": written(self.period_s),
            "nodes": {name: {"node": f"s={name}", "kind": "Double", "channel": name} for name in names},
        }
        return {"type": "opcua", "port": PORTS["opcua"], "path": "replay", "devices": {"opcua": device}}

    def _serial(self, names: Sequence[str]) -> dict[str, Any]:
        device = {
            "period": written(self.period_s),
            "framing": {"kind": "line"},
            "checksum": "xor",
            "payload": "csv",
            "decimals": self.decimals,
            "fields": {name: name for name in names},
        }
        return {"type": "serial", "link": LINK, "devices": {"serial": device}}


def _time(names: Sequence[str]) -> str:
    """The field of a message's own time, which is none of the others."""
    name = _TIME
    while name in names:
        name += "_"
    return name
