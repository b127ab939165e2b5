"""The motor, on MQTT: one JSON object on `plant/motor` ten times a second, QoS 1.

`{"ts": when they were read, in unix seconds, "current": …, "speed": …, "winding_temperature": …}`
"""

import asyncio
import json
import logging
import time
from typing import Final

import aiomqtt

from hw_sim.bench import Bench
from hw_sim.pace import Pace
from hw_sim.tasks import background, end
from hw_sim.wire import Wire

__all__ = ["TOPIC", "MqttWire"]

TOPIC: Final = "plant/motor"
_FIELDS: Final = ("current", "speed", "winding_temperature")
_PERIOD_S: Final = 0.1
_RETRY_S: Final = 0.5
_PATIENCE_S: Final = 5.0
_GRACE_S: Final = 1.0

_log = logging.getLogger(__name__)


class MqttWire(Wire):
    """A publisher; away means that the motor is, the broker stays."""

    device = "motor"
    about = f"MQTT 5, topic {TOPIC}, JSON at 10 Hz"

    def __init__(self, bench: Bench, *, host: str, port: int) -> None:
        self.endpoint = f"mqtt://{host}:{port}"
        self._bench = bench
        self._host = host
        self._port = port
        self._task: asyncio.Task[None] | None = None
        self._off = asyncio.Event()
        self._seen = asyncio.Event()
        """Set once the broker has been there: it is no mistake, and if it is away, it will be back."""

    async def start(self) -> None:
        """Connect and publish; after a loss of the broker, again once it is back."""
        self._off.clear()
        self._task = background(self._publish(), name="motor")
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await self._seen.wait()
        except TimeoutError as error:
            await self.stop()
            raise ConnectionError(f"no MQTT 5 broker answers at {self._host}:{self._port}") from error

    async def _publish(self) -> None:
        while not self._off.is_set():
            try:
                async with aiomqtt.Client(
                    self._host, self._port, protocol=aiomqtt.ProtocolVersion.V5, timeout=_PATIENCE_S
                ) as client:
                    self._seen.set()
                    pace = Pace(_PERIOD_S)
                    while not self._off.is_set():
                        await client.publish(TOPIC, self._message(), qos=1)
                        await pace.beat()
            except aiomqtt.MqttError as error:
                _log.info("broker lost: %s", error)
                await asyncio.sleep(_RETRY_S)

    def _message(self) -> str:
        readings = self._bench.readings
        values = {name: round(readings[f"motor.{name}"], 4) for name in _FIELDS}
        return json.dumps({"ts": round(time.time(), 3), **values})

    async def stop(self) -> None:
        """Leave the broker."""
        self._off.set()
        task, self._task = self._task, None
        if task is not None:
            # Not at once: a client that is cancelled while it connects leaves errors behind.
            await asyncio.wait([task], timeout=_GRACE_S)
            await end(task)
