"""An MQTT broker on loopback, for a bench without one: rumqttd from the `iotcore` wheel, as a child process.

A listener of it speaks one version of the protocol, so there are two, one router behind them.
"""

import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

import iotcore

__all__ = ["Broker"]

_CONNECTIONS = """\
[{version}.1]
name = "{version}"
listen = "127.0.0.1:{port}"
next_connection_delay_ms = 1
[{version}.1.connections]
connection_timeout_ms = 5000
max_payload_size = 262144
max_inflight_count = 200
dynamic_filters = true
"""
_ROUTER = """\
id = 0
[router]
id = 0
max_connections = 100
max_outgoing_packet_count = 200
max_segment_size = 1048576
max_segment_count = 10
"""


class Broker:
    """A broker with an MQTT 5 and an MQTT 3.1.1 listener; a context manager."""

    def __init__(self, *, mqtt5_port: int, mqtt311_port: int) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="hw_sim-")
        path = Path(self._folder.name) / "broker.toml"
        path.write_text(
            _ROUTER
            + _CONNECTIONS.format(version="v5", port=mqtt5_port)
            + _CONNECTIONS.format(version="v4", port=mqtt311_port)
        )
        self._broker = iotcore.Broker(config_path=str(path))

    def __enter__(self) -> Self:
        self._broker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._broker.stop()
        self._folder.cleanup()
