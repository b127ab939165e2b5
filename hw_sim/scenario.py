"""What one run is: the plant's seed, which faults come when, how long, and where the wires are."""

import socket
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hw_sim.fault import Fault

__all__ = ["LINK", "LOOPBACK", "PORTS", "Places", "Scenario", "free_port", "free_ports"]

LOOPBACK: Final = "127.0.0.1"
"""Nothing of the simulator can be reached from elsewhere."""
PORTS: Final = {"mqtt": 18830, "mqtt311": 18831, "modbus": 15020, "opcua": 14840}
"""The default ports."""
LINK: Final = Path("/tmp/hw_sim-vib")  # noqa: S108 - for people to type; made atomically, never followed
"""The default name of the vibration sensor's terminal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where the wires are."""

    mqtt_port: int = PORTS["mqtt"]
    mqtt311_port: int = PORTS["mqtt311"]
    modbus_port: int = PORTS["modbus"]
    opcua_port: int = PORTS["opcua"]
    serial_link: Path = LINK
    broker: tuple[str, int] | None = None
    """Host and port of somebody else's broker, instead of our own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A run of the pump skid."""

    seed: int = 1
    faults: tuple[Fault, ...] = ()
    duration_s: float | None = None
    places: Places = field(default_factory=Places)


def free_port() -> int:
    """A port on loopback that nothing uses now."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """So many ports on loopback that nothing uses now, no two alike."""
    with ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind((LOOPBACK, 0))
        return [probe.getsockname()[1] for probe in probes]
