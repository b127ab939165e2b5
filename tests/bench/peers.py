"""What other gateways cost beside dxad for the same 2,000 MQTT messages of three values a second.

    dxad.PROFILE.per_100k    processor seconds of all its processes per 100,000 messages, into its ring
    PEER.per_100k            the same of another program, into its store; the reference is dxad in its
                             `balanced` profile, which is what it does if nothing is said
    dxad.stored.per_100k     the same, `balanced`, with every value in its outbox on the disk: as with
                             `ack = "outbox"`, but at this QoS nobody is told
    PEER.stored              the same number as `per_100k`; the reference is that
    PEER.low_latency         the same number; the reference is dxad in its `low_latency` profile
    NAME.resident            MiB of all its processes at the end of a run
    NAME.astray              messages by which its store differs from what was sent, in the worst run

    thingsboard              ThingsBoard IoT Gateway, values named one by one, into its SQLite store
    thingsboard_whole        the same, taking messages as they are
    node_red                 Node-RED, from `mqtt in` with JSON to `file`, a line a message
    node_red_unstored        the same, keeping the newest message alone; nothing is promised beside it

All hear the same mosquitto and the same plant (peers_feed.py), at QoS 0, one after the other, and that some
times; each number is the median of these. dxad's ring is in memory, as is what `node_red_unstored` keeps; the
others store all values, and so does `dxad.stored`. Peers are not part of dxad and are not installed with it:

    npm install --prefix DIR node-red                 --node-red DIR/node_modules/.bin/node-red
    python -m venv DIR && DIR/bin/pip install thingsboard-gateway
                                                      --thingsboard DIR/bin/thingsboard-gateway
"""

import functools
import shutil
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from dxad.client import SyncClient
from dxad.errors import ResourceUnavailableError
from tests.bench import report
from tests.bench.peers_feed import DEVICES, FIELDS, TOPIC
from tests.bench.peers_node_red import node_red
from tests.bench.peers_run import Contender, Cost, Running, cost, logged
from tests.bench.peers_thingsboard import EACH, WHOLE, thingsboard
from tests.bench.report import Metric

__all__ = ["measure"]

_AT_LEAST: Final = 5.0
"""Times what dxad costs."""
_ROUNDS: Final = 3
_FOR_S: Final = 20.0
_WITHIN_S: Final = 30.0
_STORED: Final = ('ack = "outbox"', 'session = "1h"', 'client_id = "peers"')
_PROFILES: Final = ("balanced", "low_latency")


def measure(peers: Sequence[Contender], *, rounds: int, for_s: float) -> dict[str, Metric]:
    """dxad, and beside it these."""
    own = [Contender(f"dxad.{profile}", functools.partial(_dxad, profile=profile)) for profile in _PROFILES]
    own.append(Contender("dxad.stored", functools.partial(_dxad, profile="balanced", stored=True)))
    costs: dict[str, list[Cost]] = {each.name: [] for each in (*own, *peers)}
    for turn in range(rounds):
        for each in (*own, *peers):
            found = cost(each, for_s)
            costs[each.name].append(found)
            _say(
                f"{turn + 1} of {rounds}  {each.name:18} {found.per_100k:6.2f} s per 100,000; "
                f"{found.sent:,} sent, {found.astray} astray; {found.resident_mib:.0f} MiB; {found.version}"
            )
    per = {name: statistics.median(each.per_100k for each in found) for name, found in costs.items()}
    metrics: dict[str, Metric] = {}
    for each in own:
        metrics[f"{each.name}.per_100k"] = Metric(value=per[each.name], unit="s")
    for each in peers:
        for name, profile in (("per_100k", "balanced"), ("low_latency", "low_latency"), ("stored", "stored")):
            metrics[f"{each.name}.{name}"] = Metric(
                value=per[each.name],
                unit="s",
                reference=per[f"dxad.{profile}"],
                goal=_AT_LEAST if each.promised and name != "stored" else None,
                of_ratio=True,
            )
    for name, runs in costs.items():
        resident = statistics.median(each.resident_mib for each in runs)
        metrics[f"{name}.resident"] = Metric(value=resident, unit="MiB")
        worst = max(each.astray for each in runs)
        metrics[f"{name}.astray"] = Metric(value=worst, unit="messages", goal=0, at_most=True)
    return metrics


# -- dxad --------------------------------------------------------------------------------------------------


@contextmanager
def _dxad(folder: Path, broker: str, *, profile: str, stored: bool = False) -> Iterator[Running]:
    """The daemon with a channel for each value of each device, and a slot for each message."""
    config, log = folder / "dxad.toml", folder / "log"
    lines = [
        f'state_dir = "{folder}/state"',
        f'control.socket = "{folder}/c.sock"',
        f'profile = "{profile}"',
        'gateway.id = "peers"',
        "[sources.plant]",
        'type = "mqtt"',
        f'url = "mqtt://{broker}"',
        *(_STORED if stored else ["qos = 0"]),
        'period = "10ms"',
        'keep = "1min"',
        "[sources.plant.channels]",
    ]
    for device in range(DEVICES):
        topic = TOPIC.format(device)
        lines += [f'{each}{device} = {{ topic = "{topic}", path = "{each}" }}' for each in FIELDS]
    if stored:
        lines += ["[telemetry.plant]", 'channels = ["plant.*"]', 'mode = "all"']
    config.write_text("\n".join(lines) + "\n")
    with logged([sys.executable, "-m", "dxad", "run", "-c", str(config)], log) as child:
        client = SyncClient(folder / "c.sock")
        end = time.monotonic() + _WITHIN_S
        while not _connected(client):
            if child.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"dxad is not ready; it says:\n{log.read_text()[-2000:]}")
            time.sleep(0.2)
        yield Running(
            pid=child.pid,
            stored=(lambda: _in_outbox(client)) if stored else lambda: _in_ring(client),
            version=f"dxad, {profile}",
        )


def _connected(client: SyncClient) -> bool:
    try:
        status = client.status()
    except ResourceUnavailableError:
        return False
    return all(each["connected"] for each in status["sources"].values())


def _in_ring(client: SyncClient) -> int:
    """How many messages have come, less what was spoilt of them."""
    source = client.status()["sources"]["plant"]
    spoilt = sum(source["rejected"].values()) + sum(source["lost"].values()) + source["late"]
    values: int = source["samples"] - spoilt
    return values // len(FIELDS)


def _in_outbox(client: SyncClient) -> int:
    """How many messages of those that came are on the disk."""
    status = client.status()
    values: int = status["sources"]["plant"]["samples"] - status["telemetry"]["plant"]["unacknowledged"]
    return values // len(FIELDS)


# -- the command -------------------------------------------------------------------------------------------


def main() -> int:
    """Measure, print, and say whether the goals are kept."""
    parser = report.parser("tests.bench.peers", __doc__)
    parser.add_argument("--node-red", metavar="PATH", default="node-red", help="its program")
    parser.add_argument("--thingsboard", metavar="PATH", default="thingsboard-gateway", help="its program")
    parser.add_argument("--rounds", type=int, default=_ROUNDS, help=f"of all of them [{_ROUNDS}]")
    parser.add_argument("--for-s", type=float, default=_FOR_S, help=f"seconds of each run [{_FOR_S:g}]")
    asked = parser.parse_args()
    peers: list[Contender] = []
    if program := _program("Node-RED", "--node-red", asked.node_red):
        for name, stored in (("node_red", True), ("node_red_unstored", False)):
            into = functools.partial(node_red, program, stored=stored)
            peers.append(Contender(name, into, promised=stored))
    if program := _program("The ThingsBoard IoT Gateway", "--thingsboard", asked.thingsboard):
        for name, timeseries in (("thingsboard", EACH), ("thingsboard_whole", WHOLE)):
            into = functools.partial(thingsboard, program, timeseries=timeseries)
            peers.append(Contender(name, into))
    found = measure(peers, rounds=asked.rounds, for_s=asked.for_s)
    return report.show(found, title="What other gateways cost beside dxad", as_json=asked.json)


def _program(name: str, option: str, path: str) -> Path | None:
    """Where it is, or None, which is told."""
    found = shutil.which(path)
    if found is None:
        _say(f"{name} is skipped: there is no program {path}; say where it is by {option} PATH.")
        return None
    return Path(found).absolute()


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
