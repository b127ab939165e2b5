"""What one run is: which faults come when, and where the wires are."""

import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hw_sim.fault import Fault, FaultError, parse

__all__ = ["LINK", "PORTS", "Places", "Scenario", "faults_of", "free_port"]

PORTS: Final = {"mqtt": 18830, "mqtt311": 18831, "modbus": 15020, "opcua": 14840}
"""The default ports, all on loopback."""
LINK: Final = Path("/tmp/hw_sim-vib")  # noqa: S108 - for people to type; it is made atomically
"""The default name of the vibration sensor's terminal."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where the wires are."""

    mqtt_port: int = PORTS["mqtt"]
    mqtt311_port: int = PORTS["mqtt311"]
    modbus_port: int = PORTS["modbus"]
    opcua_port: int = PORTS["opcua"]
    serial_link: Path = LINK
    broker: tuple[str, int] | None = None
    """Somebody else's broker, instead of our own."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """A run of the pump skid."""

    seed: int = 1
    faults: tuple[Fault, ...] = ()
    duration_s: float | None = None
    places: Places = field(default_factory=Places)


def faults_of(texts: Sequence[str]) -> tuple[Fault, ...]:
    """The faults of a command line; `none` is none.

    Raises:
        FaultError: one is written wrong.
    """
    written = [text for text in texts if text != "none"]
    if len(written) < len(texts) and written:
        raise FaultError("'none' and a fault exclude each other")
    return tuple(parse(text) for text in written)


def free_port() -> int:
    """A port on loopback that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
