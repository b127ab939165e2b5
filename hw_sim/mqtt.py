"""The motor, on MQTT: one JSON message ten times a second."""

import asyncio
import contextlib
import json
import time

import aiomqtt

from hw_sim.bench import Bench

__all__ = ["MqttWire"]

TOPIC = "plant/motor"
_PERIOD_S = 0.1
_FIELDS = ("current", "speed", "winding_temperature")


class MqttWire:
    """A publisher; down means that the device is off, not the broker."""

    device = "motor"

    def __init__(self, bench: Bench, *, host: str, port: int) -> None:
        self.endpoint = f"mqtt://{host}:{port}"
        self._bench = bench
        self._host = host
        self._port = port
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connect and publish until stopped; comes back by itself after a loss of the broker."""
        up: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._publish(up), name="motor")
        await asyncio.wait([up, self._task], timeout=10.0, return_when=asyncio.FIRST_COMPLETED)
        if not up.done():
            await self.stop()
            raise ConnectionError(f"no MQTT broker at {self._host}:{self._port}")

    async def _publish(self, up: asyncio.Future[None]) -> None:
        while True:
            with contextlib.suppress(aiomqtt.MqttError):
                async with aiomqtt.Client(
                    self._host, self._port, protocol=aiomqtt.ProtocolVersion.V5, timeout=5.0
                ) as client:
                    if not up.done():
                        up.set_result(None)
                    await self._messages(client)
            await asyncio.sleep(0.5)

    async def _messages(self, client: aiomqtt.Client) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            readings = self._bench.readings
            values = {name: round(readings[f"motor.{name}"], 4) for name in _FIELDS}
            await client.publish(TOPIC, json.dumps({"ts": round(time.time(), 3), **values}), qos=1)
            due = max(due + _PERIOD_S, loop.time())
            await asyncio.sleep(due - loop.time())

    async def stop(self) -> None:
        """Leave the broker; safe twice."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
