"""An MQTT broker on loopback, for a bench without one: rumqttd from the `iotcore` wheel, as a child process.

A listener of it speaks one version of the protocol, so there are two, one router behind them. The child ends
by itself when this process does, however that ends.
"""

import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

import iotcore

from hw_sim.scenario import LOOPBACK

__all__ = ["Broker"]

_ROUTER = """\
id = 0
[router]
id = 0
max_connections = 100
max_outgoing_packet_count = 200
max_segment_size = 1048576
max_segment_count = 10
"""
_LISTENER = """\
[{version}.1]
name = "{version}"
listen = "{host}:{port}"
next_connection_delay_ms = 1
[{version}.1.connections]
connection_timeout_ms = 5000
max_payload_size = 262144
max_inflight_count = 200
dynamic_filters = true
"""


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
