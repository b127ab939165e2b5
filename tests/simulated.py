"""Devices of the simulator for the sources to talk to, in the test's own process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, NamedTuple

from hw_sim.scenario import load
from hw_sim.station import Station, station

MOTOR = {"topic": "plant/motor", "channels": {"current": {}, "speed": {}}}
"""What a source says of it."""


class Motor(NamedTuple):
    """A motor that publishes ten times a second, where its broker listens, and what can break it."""

    plain: int
    secured: int
    station: Station


@asynccontextmanager
async def motor(**settings: Any) -> AsyncIterator[Motor]:
    """The pump skid's, with these settings of its wire; TLS where there is a `pki`."""
    overrides = [f"wires.motor.{key}={value}" for key, value in {"port": 0, **settings}.items()]
    if "pki" in settings:
        overrides.append("wires.motor.tls_port=0")
    scenario = load("pump_skid", overrides)
    scenario = replace(scenario, wires={"motor": scenario.wires["motor"]})
    async with station(scenario, *scenario.bench()) as running:
        stepping = asyncio.create_task(running.run([], duration_s=None))
        try:
            plain, *secured = running.wires[0]._gate.ports
            yield Motor(plain, (secured or [0])[0], running)
        finally:
            stepping.cancel()
            await asyncio.wait([stepping])
