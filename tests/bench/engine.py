"""What the engine costs, each figure beside its reference in the same run.

    path.batch_N       ns a sample: a ring's rows through frame, three transforms (scale, clip, mean of ten
                       rows), windows, a 64-32-8-32-64 net and an alarm, 50 channels, N rows at a time; the
                       reference does the same sums in bare numpy (tests/bench/engine_reference.py)
    path.row           us a row of that at batches of one
    inference.NET_N    us from N rows in single precision to N scores: windows gathered, bad cells counted,
                       the net invoked, whose graph ends in the score; the reference is `invoke` alone on a
                       batch that is there already
    replay.samples     samples a second of 50 channels by `dxad replay`: rms and peak of 32 channels as
                       features at the full rate, every ten rows, into the 64-32-8-32-64 net
    live.p50, p99      ms from the sealing of a slot to the row's score, 500 channels in 20 pipelines at
                       10 Hz, as the daemon runs them, by the wall clock; the reference is twenty steps of the
                       bare sums of `path`, handed to a thread each tenth of a second by an idle loop
    growth.pipelines   ns a sample with 100 pipelines of 50 channels; the reference is one of them; z-score
    growth.channels    ns a sample with 5,000 channels in one pipeline; the reference is 10

All but `live` is processor time of one thread: the least of several rounds, in which both sides take turns.
"""

import argparse
import asyncio
import gc
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np

from dxad import bundle
from dxad.alarmsection import IncidentsSection
from dxad.assembly import Assembly
from dxad.bundle import trial
from dxad.bundle.manifest import Manifest, OutputRule, ReconstructionRule
from dxad.config import Config, PipelineSection, parse
from dxad.daemon import SWITCH_S
from dxad.detector import BAD_MOST
from dxad.frame import Feed, Frame
from dxad.incident import Identity
from dxad.incident.docket import Docket
from dxad.models.tflite import TFLite
from dxad.outbox import Outbox
from dxad.pipeline import Pipeline, Stages
from dxad.recording import open_recording
from dxad.replay import Replay
from dxad.ring.ringbuffer import RingBuffer
from dxad.runtime.clock import SteppedClock, SystemClock
from dxad.runtime.health import Health
from dxad.runtime.metrics import Metrics
from dxad.runtime.supervisor import Supervisor
from dxad.shape import chain
from dxad.types import NS_PER_S, Channel, Rows, State
from dxad.window import WindowBuffer
from tests.bench import report
from tests.bench.engine_reference import BATCH_MOST, Inference, Reference
from tests.bench.report import Metric
from tests.nets import autoencoder, dense

__all__ = ["measure"]

_CHANNELS: Final = 50
_LOOKED_AT: Final = 16
_ROWS: Final = 4
_NET: Final = (64, 32, 8, 32, 64)
_WIDE: Final = (512, 256, 64, 256, 512)
_PERIOD: Final = NS_PER_S // 10
_SPANS: Final = (1, 5, 30)
_BATCHES: Final = (1, 10, 100, 1000)
_ROUNDS: Final = 9
_ROUND_S: Final = 0.05


# -- what is measured --------------------------------------------------------------------------------------


def names(n: int, source: str = "s") -> list[str]:
    """Ids of so many channels."""
    return [f"{source}.c{place}" for place in range(n)]


def wrapped(
    folder: Path,
    sizes: Sequence[int],
    channels: Sequence[str],
    rows: int,
    period: int,
    *,
    scored: bool = False,
) -> Path:
    """A bundle of a net that rebuilds its window; its weights are random, which costs the same.

    With `scored`, the graph itself ends in the score; else the error of what it rebuilds is the score.
    """
    blob = autoencoder(tuple(sizes)) if scored else dense(tuple(sizes))
    golden = np.random.default_rng(2).normal(size=(4, sizes[0])).astype(np.float32)
    net = Inference(blob)
    scores = net.scores(golden) if scored else net(golden)
    manifest = Manifest(
        golden_windows=tuple(map(tuple, golden.tolist())),
        golden_scores=tuple(scores.tolist()),
        channels=tuple(channels),
        units=("",) * len(channels),
        rows=rows,
        period=period,
        fill=(0.0,) * len(channels),
        score=OutputRule(rule="output") if scored else ReconstructionRule(rule="reconstruction"),
        limit=1e6,
        spans=_SPANS,
        scales=(1.0,) * len(_SPANS),
        normal=dict.fromkeys(channels, (0.0, 1.0)),
    )
    bundle.write(folder, manifest, blob)
    trial.ensure_tried_now(folder)
    return folder


class Path50:
    """A pipeline over a ring of 50 channels that is sealed by hand."""

    def __init__(self, folder: Path, *, slots: int, batch: int) -> None:
        clock = SteppedClock(start=10_000 * _PERIOD)
        channels = tuple(Channel(name) for name in names(_CHANNELS))
        section = PipelineSection.model_validate(
            {
                "channels": ["s.*"],
                "transforms": [
                    {"type": "scale", "factor": 2.0, "offset": 1.0},
                    {"type": "clip", "low": -1e3, "high": 1e3},
                    {"type": "smooth", "span": "1s"},
                ],
                "model": {"type": "tflite", "path": "unused"},
                "alarm": {"limit": 1e6},
            }
        )
        self.ring = RingBuffer(channels, period=_PERIOD, slots=slots, start=10_000)
        frame = Frame([Feed(self.ring, tuple(range(_CHANNELS)))], period=_PERIOD)
        transforms = section.transforms
        self.pipeline = Pipeline(
            "p",
            section,
            Stages((), frame, chain(transforms, frame.schema)[1], lambda: chain(transforms, frame.schema)[0]),
            identity=Identity("bench", "boot", "p"),
            history=max(1000, batch),
            batch=batch,
            docket=Docket(IncidentsSection(), gateway="bench", boot="boot"),
            clock=clock,
            health=Health(clock),
            metrics=Metrics(),
        )
        self.pipeline.offer(TFLite.at(folder))

    def step(self, values: np.ndarray, states: np.ndarray) -> None:
        """So many rows came."""
        self.ring.append(self.ring.sealed, values, states)
        self.pipeline.step()


def rows_of(n: int, channels: int, seed: int = 0) -> np.ndarray:
    """Rows of normal running."""
    rng = np.random.default_rng(seed)
    return 10 + np.sin(np.arange(n) / 9)[:, None] + 0.2 * rng.normal(size=(n, channels))


# -- how it is measured ------------------------------------------------------------------------------------


def paired(*calls: Callable[[], None]) -> list[float]:
    """Processor seconds of one call of each; they take turns, and the least of their rounds counts."""
    times = [1] * len(calls)
    for place, call in enumerate(calls):
        call()
        begin = time.thread_time()
        call()
        took = max(time.thread_time() - begin, 1e-7)
        times[place] = max(1, round(_ROUND_S / took))
    best = [float("inf")] * len(calls)
    for _ in range(_ROUNDS):
        for place, call in enumerate(calls):
            begin = time.thread_time()
            for _ in range(times[place]):
                call()
            best[place] = min(best[place], (time.thread_time() - begin) / times[place])
    return best


def path(folder: Path) -> dict[str, Metric]:
    """Through everything, in batches."""
    found: dict[str, Metric] = {}
    model = wrapped(folder / "path", _NET, names(_LOOKED_AT), _ROWS, _PERIOD)
    blob = dense(_NET)
    for batch in _BATCHES:
        slots = max(4000, 4 * batch)
        mine = Path50(model, slots=slots, batch=max(BATCH_MOST, batch))
        bare = Reference(
            blob, channels=_CHANNELS, looked_at=_LOOKED_AT, rows=_ROWS, slots=slots, spans=_SPANS
        )
        values = rows_of(20 * batch, _CHANNELS).reshape(20, batch, _CHANNELS)
        states = np.full((batch, _CHANNELS), State.GOOD, dtype=np.uint8)
        turn = [0, 0]

        def step(
            mine: Path50 = mine, values: np.ndarray = values, states: np.ndarray = states, turn: list = turn
        ) -> None:
            turn[0] += 1
            mine.step(values[turn[0] % 20], states)

        def reference(bare: Reference = bare, values: np.ndarray = values, turn: list = turn) -> None:
            turn[1] += 1
            bare.step(values[turn[1] % 20])

        took, bare_took = paired(step, reference)
        per_sample = 1e9 / (batch * _CHANNELS)
        goal = 2.0 if batch >= 100 else None
        found[f"path.batch_{batch}"] = Metric(
            value=took * per_sample, unit="ns/sample", reference=bare_took * per_sample,
            goal=goal, at_most=True, of_ratio=True,
        )  # fmt: skip
        if batch == 1:
            found["path.row"] = Metric(
                value=took * 1e6, unit="us/row", reference=bare_took * 1e6, goal=150.0, at_most=True
            )
    return found


def inference(folder: Path) -> dict[str, Metric]:
    """From rows to scores, beside `invoke` alone."""
    found = {}
    for name, sizes, channels, windows, goal in (
        ("64", _NET, 16, 256, 1.5),
        ("64", _NET, 16, 32, 2.5),
        ("512", _WIDE, 64, 256, 1.1),
    ):
        rows = sizes[0] // channels
        kept = folder / f"net{name}"
        if not kept.exists():
            wrapped(kept, sizes, names(channels), rows, _PERIOD, scored=True)
        model = TFLite.at(kept)
        model.load([Channel(each) for each in names(channels)], rows)
        buffer = WindowBuffer(rows=rows, channels=channels)
        values = rows_of(windows, channels)
        given = Rows(0, _PERIOD, values, np.full(values.shape, State.GOOD, dtype=np.uint8))
        buffer.push(given)
        buffer.hold(given)
        bare = Inference(autoencoder(tuple(sizes)))
        flat = np.random.default_rng(1).normal(size=(windows, sizes[0])).astype(np.float32)

        def score(model: TFLite = model, buffer: WindowBuffer = buffer) -> None:
            offered = buffer.offer()
            if offered.whole or (offered.bad <= BAD_MOST).all():
                model.score(offered)

        def invoke(bare: Inference = bare, flat: np.ndarray = flat) -> None:
            bare.bare(flat)

        took, bare_took = paired(score, invoke)
        found[f"inference.{name}_{windows}"] = Metric(
            value=took * 1e6, unit="us", reference=bare_took * 1e6, goal=goal, at_most=True, of_ratio=True
        )
    return found


def replay(folder: Path, rows: int) -> dict[str, Metric]:
    """Recorded data through a configuration."""
    source, every = names(_CHANNELS, "rec"), 10
    period = NS_PER_S // 1000
    features = [f"{each}.{stat}" for each in source[:32] for stat in ("rms", "peak")]
    wrapped(folder / "state" / "net", _NET, features, 1, every * period)
    file = folder / "rec.npz"
    times = 1_700_000_000 * NS_PER_S + np.arange(rows, dtype=np.int64) * period
    np.savez(file, time_ns=times, values=rows_of(rows, _CHANNELS), channels=np.array(source))
    config = parse(
        {
            "state_dir": str(folder / "state"),
            "memory_max": "1GiB",
            "sources": {
                "rec": {
                    "type": "modbus", "url": "tcp://127.0.0.1:502", "period": "1ms", "keep": "10s",
                    "channels": {
                        each.partition(".")[2]: {"register": f"input:{place}", "encoding": "int16"}
                        for place, each in enumerate(source)
                    },
                }
            },
            "pipelines": {
                "p": {
                    "channels": ["rec.*"],
                    "period": f"{every}ms",
                    "features": [
                        {
                            "type": "summarize", "stat": ["rms", "peak"], "every": f"{every}ms",
                            "channels": source[:32],
                        }
                    ],
                    "model": {"type": "tflite", "path": "net"},
                }
            },
        }
    )  # fmt: skip
    begin = time.thread_time()
    outcome = Replay(config, open_recording(file)).run()
    took = time.thread_time() - begin
    assert outcome.pipelines["p"].document()["scored"] > 0.9 * rows / every
    return {"replay.samples": Metric(value=rows * _CHANNELS / took / 1e6, unit="million samples/s", goal=1.0)}


def live(folder: Path, seconds: float) -> dict[str, Metric]:
    """The daemon's own services on the machine's clock."""
    delays = asyncio.run(_live(folder, seconds))
    bare = asyncio.run(_bare_live(seconds / 2))
    mine, reference = ([float(np.quantile(each, q)) for q in (0.5, 0.99)] for each in (delays, bare))
    return {
        "live.p50": Metric(value=mine[0], unit="ms", reference=reference[0]),
        "live.p99": Metric(value=mine[1], unit="ms", reference=reference[1], goal=5.0, at_most=True),
    }


async def _bare_live(seconds: float) -> list[float]:
    """What the machine makes of the same hand-over: how late a thread wakes up, and its caches are cold."""
    steps = [
        Reference(dense(_NET), channels=25, looked_at=_LOOKED_AT, rows=_ROWS, slots=4000, spans=_SPANS)
        for _ in range(20)
    ]
    row = rows_of(1, 25)
    clock, delays = SystemClock(), []

    def work(begin: int) -> None:
        for step in steps:
            step.step(row)
            delays.append((clock.now() - begin) / 1e6)

    with ThreadPoolExecutor(max_workers=1) as thread:
        end = clock.now() + int(seconds * NS_PER_S)
        while clock.now() < end:
            await clock.sleep_until((clock.now() // _PERIOD + 1) * _PERIOD)
            await asyncio.get_running_loop().run_in_executor(thread, work, clock.now())
    return delays[len(steps) * 10 :]


async def _live(folder: Path, seconds: float) -> list[float]:
    sources = [f"s{number}" for number in range(20)]
    for source in sources:
        ids = names(25, source)
        wrapped(folder / "live" / source, _NET, ids[:_LOOKED_AT], _ROWS, _PERIOD)
    config = Config.model_validate(
        {
            "state_dir": str(folder / "live"),
            "profile": "low_latency",
            "memory_max": "256MiB",
            "sources": {
                source: {"type": "memory", "period": "100ms", "channels": {f"c{n}": {} for n in range(25)}}
                for source in sources
            },
            "pipelines": {
                source: {"channels": [f"{source}.*"], "model": {"type": "tflite", "path": source}}
                for source in sources
            },
        }
    )
    clock = SystemClock()
    health, metrics = Health(clock), Metrics()
    outbox = Outbox(
        None, max_bytes=1 << 20, commit_window_s=0.005, health=health, metrics=metrics, clock=clock
    )
    async with outbox:
        assembly = Assembly(config, boot="b", clock=clock, health=health, metrics=metrics, outbox=outbox)
        delays: list[float] = []
        for source in sources:
            _stamp(assembly, source, delays)
        async with Supervisor(clock, health) as supervisor:
            for name, run in assembly.services().items():
                supervisor.start(name, run)
            sys.setswitchinterval(SWITCH_S)  # as the daemon does, and the next two lines
            gc.collect()
            gc.freeze()
            rng = np.random.default_rng(0)
            end = clock.now() + int(seconds * NS_PER_S)
            while clock.now() < end:
                at = (clock.now() // _PERIOD + 1) * _PERIOD + _PERIOD // 2
                await clock.sleep_until(at)
                for source in sources:
                    node: Any = assembly.ingests[source].source
                    node.push({f"c{n}": value for n, value in enumerate(rng.normal(size=25).tolist())})
        assembly.close()
    return delays[len(sources) * 10 :]


def _stamp(assembly: Assembly, source: str, delays: list[float]) -> None:
    """Note how long after the sealing of its slot each row is scored."""
    ring, scores = assembly.ingests[source].ring, assembly.pipelines[source].scores
    sealed: dict[int, int] = {}
    seal, keep = ring.append, scores.append

    def sealing(first: int, values: Any, *others: Any) -> None:
        seal(first, values, *others)
        for slot in range(first, first + len(values)):
            sealed[slot] = time.monotonic_ns()

    def scored(first: int, values: Any, *others: Any) -> None:
        keep(first, values, *others)
        now = time.monotonic_ns()
        delays.extend((now - sealed.pop(slot)) / 1e6 for slot in range(first, first + len(values)))

    ring.append, scores.append = sealing, scored  # type: ignore[method-assign]


def growth() -> dict[str, Metric]:
    """Many pipelines, and wide ones."""
    found = {}
    for name, few, many in (("pipelines", (1, 50), (100, 50)), ("channels", (1, 10), (1, 5000))):
        calls = [_zscored(*few), _zscored(*many)]
        took = paired(*calls)
        samples = [pipelines * channels * 10 for pipelines, channels in (few, many)]
        each = [seconds * 1e9 / n for seconds, n in zip(took, samples, strict=True)]
        found[f"growth.{name}"] = Metric(
            value=each[1], unit="ns/sample", reference=each[0], goal=1.3, at_most=True, of_ratio=True
        )
    return found


def _zscored(pipelines: int, channels: int) -> Callable[[], None]:
    """Feeds ten rows to so many pipelines of so many channels."""
    clock = SteppedClock(start=10_000 * _PERIOD)
    section = PipelineSection.model_validate({"channels": ["s.*"], "model": {"type": "zscore"}})
    rigs = []
    from dxad.models import zscore

    for number in range(pipelines):
        ring = RingBuffer(
            tuple(Channel(name) for name in names(channels)), period=_PERIOD, slots=64, start=10_000
        )
        frame = Frame([Feed(ring, tuple(range(channels)))], period=_PERIOD)
        pipeline = Pipeline(
            f"p{number}", section, Stages((), frame, frame.schema, list),
            identity=Identity("bench", "boot", f"p{number}"), history=64, clock=clock,
            docket=Docket(IncidentsSection(), gateway="bench", boot="boot"), health=Health(clock),
            metrics=Metrics(),
        )  # fmt: skip
        pipeline.offer(zscore.ZScore(zscore.Config(type="zscore", warm_up=10)))
        rigs.append((ring, pipeline))
    values = rows_of(200, channels).reshape(20, 10, channels)
    states = np.full((10, channels), State.GOOD, dtype=np.uint8)
    turn = [0]

    def feed() -> None:
        turn[0] += 1
        for ring, pipeline in rigs:
            ring.append(ring.sealed, values[turn[0] % 20], states)
            pipeline.step()

    for _ in range(5):
        feed()
    return feed


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="dxad-bench-") as folder:
        yield Path(folder)


def measure(parts: Sequence[str], *, replay_rows: int, live_s: float) -> dict[str, Metric]:
    """The metrics of these parts, by name."""
    with _folder() as folder:
        made: dict[str, Callable[[], dict[str, Metric]]] = {
            "path": lambda: path(folder),
            "inference": lambda: inference(folder),
            "replay": lambda: replay(folder, replay_rows),
            "live": lambda: live(folder, live_s),
            "growth": growth,
        }
        found: dict[str, Metric] = {}
        for part in parts:
            print(f"{part} …", file=sys.stderr, flush=True)  # noqa: T201
            found |= made[part]()
        return found


PARTS: Final = ("path", "inference", "replay", "live", "growth")


def main() -> int:
    """Measure, print, and say whether the goals are kept."""
    parser = report.parser("tests.bench.engine", __doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--part", choices=PARTS, action="append", help="only this, and other --part")
    parser.add_argument("--replay-rows", type=int, default=200_000, help="rows of 50 channels")
    parser.add_argument("--live-s", type=float, default=30.0, help="seconds of live running")
    asked = parser.parse_args()
    found = measure(asked.part or PARTS, replay_rows=asked.replay_rows, live_s=asked.live_s)
    return report.show(found, title="What the engine costs", as_json=asked.json)


if __name__ == "__main__":
    sys.exit(main())
