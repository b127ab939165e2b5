"""Ports on loopback that nothing uses."""

import socket
from contextlib import ExitStack

from hw_sim.section import LOOPBACK

__all__ = ["free_port", "free_ports"]


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
