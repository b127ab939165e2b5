"""MQTT at a steady pace through a real mosquitto into `dxad run`, in the `low_latency` profile.

    paced_N.cpu        processor time of the daemon, % of a core, at N messages a second of three values each
    paced_N.per_100k   the same as processor seconds per 100,000 messages
    paced_N.values     values a second that came, of 3 N
    paced_N.spoilt     values that were rejected, lost or late
    paced_N.p50, p99   ms from the sending until the samples are with the ring's sealer, of another run

Between two runs nothing else is different but that the second reads the time of sending as a channel, too.
The publisher is `python -m hw_sim load`; each of its devices has a topic of its own and sends 100 times a
second.
"""

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from tests.bench.report import Metric
from tests.bench.sources_gateway import Run, daemon, load, process

__all__ = ["broker_in", "free_port", "paced"]

_RATES: Final = (2_000, 5_000, 20_000)
"""Messages a second."""
_GOALS: Final = {5_000: 5.0, 20_000: 8.0}
"""% of a core."""
_P99_MS: Final = {5_000: 12.0}
_RATE_HZ: Final = 100
_PER_MESSAGE: Final = 3
_ENOUGH: Final = 0.995
_WITHIN_S: Final = 5.0


def paced(for_s: float) -> dict[str, Metric]:
    """At each pace."""
    found: dict[str, Metric] = {}
    for rate in _RATES:
        run, timed = _run(rate, for_s, timed=False), _run(rate, for_s, timed=True)
        late = sorted(timed.latency_ms["mqtt"])
        name = f"paced_{rate}"
        found |= {
            f"{name}.cpu": Metric(
                value=run.cpu_percent, unit="% of a core", goal=_GOALS.get(rate), at_most=True
            ),
            f"{name}.per_100k": Metric(value=1000 * run.cpu_percent / rate, unit="s"),
            f"{name}.values": Metric(value=run.values_per_s, unit="1/s", goal=_ENOUGH * rate * _PER_MESSAGE),
            f"{name}.spoilt": Metric(value=run.spoilt, unit="values", goal=0, at_most=True),
            f"{name}.p50": Metric(value=late[len(late) // 2], unit="ms"),
            f"{name}.p99": Metric(
                value=late[int(0.99 * (len(late) - 1))], unit="ms", goal=_P99_MS.get(rate), at_most=True
            ),
        }
    return found


def _run(rate: int, for_s: float, *, timed: bool) -> Run:
    channels = rate // _RATE_HZ * _PER_MESSAGE
    with TemporaryDirectory(prefix="dxad-bench-") as name, broker_in(Path(name)) as broker:
        asked = ("--channels", str(channels), "--rate", str(_RATE_HZ), "--broker", broker)
        with load(Path(name), "mqtt", *asked) as offered:
            return daemon(Path(name), offered, for_s, profile="low_latency", timed=timed)


@contextmanager
def broker_in(folder: Path) -> Iterator[str]:
    """A mosquitto on a port of its own."""
    port = free_port()
    (folder / "mosquitto.conf").write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    command = ["mosquitto", "-c", str(folder / "mosquitto.conf")]
    with process(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
        end = time.monotonic() + _WITHIN_S
        while time.monotonic() < end:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
            except ConnectionRefusedError:
                time.sleep(0.05)
            else:
                break
        yield f"127.0.0.1:{port}"


def free_port() -> int:
    """A port that nobody has at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port
