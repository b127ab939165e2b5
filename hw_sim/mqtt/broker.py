"""Our own MQTT broker behind the gate: rumqttd of the `iotcore` wheel, as a child process.

A listener of it speaks one version of the protocol, so there are two, one router behind them, on loopback
ports that nobody else is told. The child ends by itself when this process does, however that ends.

A restart forgets all sessions and retained messages. What a reader lags behind is kept up to about 50 MiB for
each topic filter; past that it misses the oldest messages, also of QoS 1.
"""

import asyncio
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import iotcore

from hw_sim.mqtt.packet import Version
from hw_sim.ports import free_ports
from hw_sim.section import LOOPBACK

__all__ = ["Broker"]

_ROUTER: Final = """\
id = 0
[router]
id = 0
max_connections = 1000
max_outgoing_packet_count = 200
max_segment_size = 10485760
max_segment_count = 5
"""
_LISTENER: Final = """\
[{version}.1]
name = "{version}"
listen = "{host}:{port}"
next_connection_delay_ms = 1
[{version}.1.connections]
connection_timeout_ms = 5000
max_payload_size = 268435455
max_inflight_count = 200
dynamic_filters = true
"""
"""The largest payload is the largest that MQTT has."""
_ATTEMPTS: Final = 3


class Broker:
    """A broker with an MQTT 5 and an MQTT 3.1.1 listener."""

    def __init__(self) -> None:
        self._ports: dict[Version, int] = {}
        self._broker: iotcore.Broker | None = None

    def address(self, version: Version) -> tuple[str, int]:
        """Where it speaks this version, once it has started."""
        return LOOPBACK, self._ports[version]

    async def start(self) -> None:
        """Listen on both, with no session and no message; takes some 0.1 s.

        Raises:
            OSError: it did not come up.
        """
        with ThreadPoolExecutor(1) as thread:  # it looks again and again whether it is up, asleep in between
            await asyncio.get_running_loop().run_in_executor(thread, self._start)

    def _start(self) -> None:
        for attempt in range(_ATTEMPTS):
            new = free_ports(2)
            try:
                self._broker = self._started(new)
            except OSError:  # a port that was free a moment ago is not
                if attempt == _ATTEMPTS - 1:
                    raise
            else:
                self._ports = {"5": new[0], "3.1.1": new[1]}
                return

    @staticmethod
    def _started(ports: list[int]) -> iotcore.Broker:
        versions = zip(("v5", "v4"), ports, strict=True)  # rumqttd calls 3.1.1 by its number on the wire
        config = _ROUTER + "".join(
            _LISTENER.format(version=version, host=LOOPBACK, port=port) for version, port in versions
        )
        with tempfile.TemporaryDirectory(prefix="hw_sim-") as folder:
            path = Path(folder) / "broker.toml"
            path.write_text(config)
            broker = iotcore.Broker(config_path=str(path))
            try:
                broker.start()
            except RuntimeError as error:
                raise OSError(f"the MQTT broker did not start: {error}") from error
        return broker

    def stop(self) -> None:
        """End it and forget everything; takes some milliseconds; safe twice, and without `start`."""
        if self._broker is not None:
            self._broker.stop()
            self._broker = None
