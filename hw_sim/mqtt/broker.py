"""Our own MQTT broker: rumqttd of the `iotcore` wheel, as a child process.

A listener of it speaks one version of the protocol, so there are two, one router behind them. The child ends
by itself when this process does, however that ends.

A restart forgets all sessions and retained messages. What a reader lags behind is kept up to about 50 MiB for
each topic filter; past that it misses the oldest messages, also of QoS 1.
"""

import asyncio
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import iotcore

from hw_sim.mqtt.packet import Version
from hw_sim.ports import free_ports
from hw_sim.section import LOOPBACK

__all__ = ["Broker", "HiddenBroker"]

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
    """A broker with an MQTT 5 and an MQTT 3.1.1 listener; a context manager."""

    def __init__(self, *, mqtt5_port: int, mqtt311_port: int) -> None:
        listeners = {"v5": mqtt5_port, "v4": mqtt311_port}  # rumqttd calls 3.1.1 by its number on the wire
        self._config = _ROUTER + "".join(
            _LISTENER.format(version=version, host=LOOPBACK, port=port) for version, port in listeners.items()
        )
        self._broker: iotcore.Broker | None = None

    def __enter__(self) -> Self:
        """Listen on both; blocks some 0.1 s.

        Raises:
            OSError: a port is taken, or the broker did not come up.
        """
        with tempfile.TemporaryDirectory(prefix="hw_sim-") as folder:
            path = Path(folder) / "broker.toml"
            path.write_text(self._config)
            self._broker = iotcore.Broker(config_path=str(path))
            try:
                self._broker.start()
            except RuntimeError as error:
                raise OSError(f"the MQTT broker did not start: {error}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._broker is not None:
            self._broker.stop()


class HiddenBroker:
    """A broker on any free ports, which does not hold up the loop while it starts."""

    def __init__(self) -> None:
        self._ports: dict[Version, int] = {}
        self._broker: Broker | None = None

    def address(self, version: Version) -> tuple[str, int]:
        """Where it speaks this version, once it has started."""
        return LOOPBACK, self._ports[version]

    async def start(self) -> None:
        """Listen on both, with no session and no message.

        Raises:
            OSError: it did not come up.
        """
        with ThreadPoolExecutor(1) as thread:  # it looks again and again whether it is up, asleep in between
            await asyncio.get_running_loop().run_in_executor(thread, self._start)

    def _start(self) -> None:
        for attempt in range(_ATTEMPTS):
            mqtt5_port, mqtt311_port = free_ports(2)
            try:
                self._broker = Broker(mqtt5_port=mqtt5_port, mqtt311_port=mqtt311_port).__enter__()
            except OSError:  # a port that was free a moment ago is not
                if attempt == _ATTEMPTS - 1:
                    raise
            else:
                self._ports = {"5": mqtt5_port, "3.1.1": mqtt311_port}
                return

    def stop(self) -> None:
        """End it and forget everything; takes some milliseconds; safe twice, and without `start`."""
        if self._broker is not None:
            self._broker.__exit__(None, None, None)
            self._broker = None
