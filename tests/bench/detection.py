"""How well the shipped demonstration detects, over many plants: the simulated plant in virtual time.

                                    ┌─▶ pipeline "pump", learned as the demo learns ──▶ incidents ─┐
Bench ─▶ _Device ─▶ Ingest ─▶ ring ─┤                                                              ├─▶ judge
  │                                 └─▶ pipeline "baseline", the robust z-score ──────▶ incidents ─┤
  └─▶ Labels ──────────────────────────────────────────────────────────────────────────────────────┘

Everything between the devices and the incidents is dxad's own, built by its own `Assembly` from
`config/examples/demo.toml`, and the verdict is that of `dxad demo`. Only the wires are missing, and with them
real time. What they do to a reading is kept where it is of the size of a sensor's noise: integer registers
round to the `scale` of the configuration, each device samples at a phase of its own with jitter, and what is
held by session is reported when it changes. The 4 decimals that JSON and CSV carry are not. The fit takes no
time here; in the daemon it takes a second or two of the quiet before the fault.

The reference is the same pipeline with `model = { type = "zscore" }`: the same rows, the same alarm, and a
warm-up as long as the learning.

    NAME.found          seeds in which the fault was told of, and nothing was before it; the label's channels
                        are its top contributors, and it is a sensor incident if a sensor or its wire broke
    NAME.delay_median   seconds from the onset to the opening, by the event's own time, where it was found
    NAME.delay_largest  likewise
    NAME.size_10s       the most the fault had moved a channel after ten seconds, in deviations of training
    none.silent         seeds without any incident
    none.score_highest  the highest judged score of healthy running, over the limit
"""

import argparse
import io
import logging
import multiprocessing
import random
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import orjson
from rich.console import Console
from rich.progress import Progress

from dxad import config as configuration
from dxad.assembly import PROFILES, Assembly
from dxad.cli.demo import _DEADLINE_S, _ONSET_S, _SIZE_S, FAULTS
from dxad.cli.verdict import Injected, injected, judge
from dxad.config import Config, PipelineSection
from dxad.fields import ChannelSection, SourceSection
from dxad.ingest import Ingest
from dxad.learning import Learning
from dxad.models import zscore
from dxad.outbox import Outbox
from dxad.pipeline import Pipeline, Recorder
from dxad.ring.stage import Stage
from dxad.runtime.clock import SteppedClock
from dxad.runtime.health import Health
from dxad.runtime.metrics import Metrics
from dxad.sources.modbus import ModbusChannel
from dxad.types import NS_PER_S, Block, Channel, Document
from hw_sim.bench import Bench
from hw_sim.fault import Fault
from hw_sim.labels import Labels
from hw_sim.plants.pump_skid import STEP_S
from hw_sim.scenario import load
from tests.bench import report
from tests.bench.report import Metric

__all__ = ["FAULTS", "Outcome", "Run", "measure", "metrics", "watch"]

EXAMPLE: Final = Path(__file__).parents[2] / "config/examples/demo.toml"
PIPELINE: Final = "pump"
BASELINE: Final = "baseline"

_STEP_NS: Final = round(STEP_S * NS_PER_S)
_JITTER: Final = (0, 0, 0, 1)
"""Plant steps by which a sample comes late, each as likely as the others."""
_BEGIN_NS: Final = 1000 * NS_PER_S
"""The stream time at which a slot of every grid begins, and soon after it the plant."""
_START_UP_S: Final = 7.0
"""What the demo's deadline leaves its simulator and daemon to come up in, at least."""
_LAST_S: Final = _DEADLINE_S - _START_UP_S


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one pipeline made of one run."""

    ok: bool
    """The fault was found, nothing else was; or nothing was, without a fault."""
    reasons: tuple[str, ...]
    """Why not."""
    delay_s: float | None
    """From the onset to the opening; None where the fault was not found."""
    contributors: tuple[str, ...]
    """Of the first incident after the onset."""
    score_highest: float
    """The highest judged score of the run, over the limit."""
    scored: int
    """Rows."""
    unscored: int
    """Likewise."""


@dataclass(frozen=True, slots=True)
class Run:
    """One plant with one fault, and what was made of it."""

    fault: str
    seed: int
    rows: int
    """That were sealed for the pipelines."""
    size_sd: Mapping[str, float]
    """By channel: how far it had moved ten seconds after the onset, in standard deviations of training."""
    learned: Outcome
    baseline: Outcome


class _Device:
    """A source whose wire is a function call."""

    def __init__(self, name: str, section: SourceSection, *, seed: int) -> None:
        assert section.period is not None
        self.channels: Sequence[Channel] = section.declared(name)
        self.alive_until = 0
        """Its session is proved as long as it is on."""
        self._name = name
        self._period = section.period
        self._polled = section.polled
        self._through: int | None = None
        """The end of the slot that was polled last."""
        self._every = section.period // _STEP_NS
        self._random = random.Random(f"{seed}/{name}")
        # A poll begins with its slot; whoever sends at their own pace does so anywhere in it.
        self._phase = 0 if section.polled else self._random.randrange(self._every)
        sections = section.channel_sections().values()
        self._coded = [_coded(each) for each in sections]
        self._by_exception = [each.hold == "session" for each in sections]
        self._shown: dict[int, float] = {}
        """The last value of each column that is reported when it changes."""
        self._stage = Stage(len(self.channels) * max(1, NS_PER_S // section.period))
        self._cycle = -1
        self._due = self._next_due()

    def _next_due(self) -> int:
        """The plant step of the next sample; a stream as fine as the plant's steps has no room for jitter."""
        self._cycle += 1
        late = self._random.choice(_JITTER) if self._every > 1 else 0
        return self._cycle * self._every + self._phase + late

    def step(self, step: int, bench: Bench, now: int) -> None:
        """Sample the plant if it is time to."""
        on = self._name not in bench.down
        if on:
            self.alive_until = now
        if step < self._due:
            return
        self._due = self._next_due()
        if not on:
            return
        if self._polled:
            self._through = (now // self._period + 1) * self._period
        self._stage.begin(now)
        for column, channel in enumerate(self.channels):
            value = self._coded[column](bench.readings[channel.id])
            if self._by_exception[column]:
                if self._shown.get(column) == value:
                    continue
                self._shown[column] = value
            self._stage.put(column, value)

    def take(self) -> Block | None:
        """What was sampled since the last call; a poll that has ended says so."""
        return Block(self._stage.take(), through=self._through) if len(self._stage) else None

    async def connect(self) -> None:
        """It is there."""

    async def read(self) -> Block:
        raise NotImplementedError("what it has is taken")

    async def close(self) -> None:
        """Nothing to let go of."""


def _coded(section: ChannelSection) -> Callable[[float], float]:
    """What a reading becomes on its way through the register that carries it, if one does."""
    if not isinstance(section, ModbusChannel):
        return float
    kind, scale, offset = np.dtype(section.kind), section.scale, section.offset
    integer = kind.kind in "iu"

    def coded(value: float) -> float:
        raw = (value - offset) / scale
        return float(scale * kind.type(round(raw) if integer else raw).item() + offset)

    return coded


class _Watch:
    """One pipeline at work, and what it told."""

    def __init__(self, pipeline: Pipeline, learning: Learning | None) -> None:
        self.pipeline = pipeline
        self.opened: list[Document] = []
        self._learning = learning
        self._recorder: Recorder | None = None

    @property
    def normal(self) -> Mapping[str, tuple[float, float]]:
        """By channel: mean and standard deviation of what was learned."""
        detector = self.pipeline.detector
        known = None if detector is None else detector.calibration
        return {} if known is None else known.normal

    def learn(self, rows: int) -> None:
        """Begin to record; the model takes over as soon as there are so many rows."""
        self._recorder = self.pipeline.record(rows)

    def step(self) -> None:
        if self.pipeline.due:
            events = self.pipeline.step()
            self.opened += [each.document() for each in events if each.type == "dxad.incident.opened"]
        if self._recorder is not None and self._recorder.full:
            self._adopt(self._recorder)
            self._recorder = None

    def _adopt(self, recorder: Recorder) -> None:
        """Learn here and at once."""
        assert self._learning is not None
        self.pipeline.recorder = None
        self._learning.learn_here(recorder.take())

    def outcome(
        self, fault: Fault | None, label: Injected | None, sources: Document, duration_s: float
    ) -> Outcome:
        """Judge it as the demo does; `sources` are their snapshots."""
        snapshot, limit = self.pipeline.snapshot(), self.pipeline.limit
        verdict = judge(
            wanted="none" if fault is None else fault.name,
            status={"sources": sources, "pipelines": {self.pipeline.name: snapshot}},
            opened=self.opened,
            delivered=len(self.opened),
            fault=label,
            duration_s=duration_s,
        )
        found, reasons = verdict.document["found"], verdict.document["reasons"]
        judged = self.pipeline.scores.read(0, self.pipeline.scores.sealed).values[:, 1]
        return Outcome(
            ok=not reasons,
            reasons=tuple(reasons),
            delay_s=None if found is None or reasons else found["after_s"],
            contributors=() if found is None else tuple(each["channel"] for each in found["contributors"]),
            score_highest=float("nan") if limit is None else float(np.nanmax(judged)) / limit,
            scored=snapshot["scored"],
            unscored=snapshot["unscored"],
        )


def watch(fault: str, seed: int) -> Run:
    """Run one plant from its start until its fault was found by both, or to the demo's deadline."""
    with tempfile.TemporaryDirectory(prefix="dxad-bench-") as folder:
        return _Virtual(fault, seed, Path(folder)).run()


class _Virtual:
    """A plant, its devices and a gateway that watches it, in virtual time."""

    def __init__(self, fault: str, seed: int, folder: Path) -> None:
        self._seed = seed
        draw = random.Random(seed)
        # As `dxad demo` passes it on: to a tenth of a second.
        self._onset_s = round(draw.uniform(*_ONSET_S), 1)
        breaks = [] if fault == "none" else [f"{fault}@{self._onset_s}s{FAULTS[fault]}"]
        self._bench, _ = load("pump_skid", [f"seed={seed}"]).bench(breaks)
        # The plant begins anywhere between two slots of the finest grid, never just where they meet.
        self._clock = SteppedClock(start=_BEGIN_NS + draw.randrange(_STEP_NS // 4, 3 * _STEP_NS // 4))
        self._lines = io.StringIO()
        self._labels = Labels(self._lines, self._bench, now=self._utc_s)
        config = _config(folder)
        # The longest tick there is: no result depends on how rows are cut, and short ticks only cost time.
        self._tick_ns = max(each.tick_ns for each in PROFILES.values())
        self._devices = {name: _Device(name, section, seed=seed) for name, section in config.sources.items()}
        self._assembly = _assembly(config, self._clock, self._devices)
        self._watches = {
            name: _Watch(pipeline, self._assembly.learnings.get(name))
            for name, pipeline in self._assembly.pipelines.items()
        }
        self._watches[PIPELINE].learn(_learn_rows(config, config.pipelines[PIPELINE]))

    def _utc_s(self) -> float:
        return self._clock.utc(self._clock.now()) / NS_PER_S

    def run(self) -> Run:
        with closing(self._assembly):
            self._labels.start()
            step = 0
            self._step(step)
            while not self._over():
                step += 1
                self._clock.advance(self._clock.now() + _STEP_NS)
                self._bench.step()
                self._labels.step()
                self._step(step)
            return self._judged()

    def _step(self, step: int) -> None:
        now = self._clock.now()
        for device in self._devices.values():
            device.step(step, self._bench, now)
        if now % self._tick_ns < _STEP_NS:
            for name, ingest in self._assembly.ingests.items():
                _hand_over(self._devices[name], ingest, now)
            for each in self._watches.values():
                each.step()

    def _over(self) -> bool:
        """Whether there is nothing more to see; both have the same time to find what is wrong."""
        at_s = self._bench.at_s
        if at_s >= _LAST_S:
            return True
        if not self._bench.faults or at_s < self._onset_s + _SIZE_S:
            return False
        return all(each.opened for each in self._watches.values())

    def _judged(self) -> Run:
        fault = next(iter(self._bench.faults), None)
        lines = [orjson.loads(line) for line in self._lines.getvalue().splitlines()]
        label = injected(lines, self._watches[PIPELINE].normal)
        sources = {name: each.snapshot() for name, each in self._assembly.ingests.items()}
        learned, baseline = (
            self._watches[name].outcome(fault, label, sources, self._bench.at_s)
            for name in (PIPELINE, BASELINE)
        )
        rows = self._assembly.pipelines[PIPELINE].rows
        return Run(
            fault="none" if fault is None else fault.name,
            seed=self._seed,
            rows=rows.sealed - rows.start,
            size_sd={} if label is None else label.size_sd,
            learned=learned,
            baseline=baseline,
        )


def _hand_over(device: _Device, ingest: Ingest, now: int) -> None:
    block = device.take()
    if block is not None:
        ingest.accept(block)
    ingest.tick(now)


def _config(state_dir: Path) -> Config:
    """The demo's configuration; a second pipeline watches the same with the untrained baseline."""
    shipped = configuration.load(EXAMPLE)
    pump = shipped.pipelines[PIPELINE]
    untrained = zscore.Config(type="zscore", warm_up=_learn_rows(shipped, pump))
    return shipped.model_copy(
        update={
            "state_dir": state_dir,
            "sinks": {},
            "pipelines": {PIPELINE: pump, BASELINE: pump.model_copy(update={"model": untrained})},
        }
    )


def _learn_rows(config: Config, section: PipelineSection) -> int:
    assert section.learn is not None
    return section.learn.span // configuration.shape(section, config.sources).outputs.period


def _assembly(config: Config, clock: SteppedClock, devices: Mapping[str, _Device]) -> Assembly:
    health, counted = Health(clock), Metrics()
    outbox = Outbox(  # never opened: the incidents are taken where they are told
        None,
        max_bytes=config.outbox.max_size,
        commit_window_s=0.0,
        health=health,
        metrics=counted,
        clock=clock,
    )
    return Assembly(
        config, boot="bench", clock=clock, health=health, metrics=counted, outbox=outbox, sources=devices
    )


def measure(seeds: int, *, jobs: int) -> Iterator[Run]:
    """Every fault with every seed from 1 on, `jobs` at a time; in the order in which they end."""
    wanted = [(fault, seed) for seed in range(1, seeds + 1) for fault in FAULTS]
    # Not forked: the interpreter of TensorFlow Lite has threads.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_hush) as pool:
        for done in as_completed([pool.submit(watch, *each) for each in wanted]):
            yield done.result()


def _hush() -> None:
    """A hundred gateways each without a model at first, or blind at last, are no news here."""
    logging.getLogger("dxad").setLevel(logging.CRITICAL)


def metrics(runs: Sequence[Run]) -> dict[str, Metric]:
    """The numbers that these runs amount to."""
    found: dict[str, Metric] = {}
    for fault in FAULTS:
        mine = [each for each in runs if each.fault == fault]
        if not mine:
            continue
        found |= _healthy(mine) if fault == "none" else _broken(fault, mine)
    return found


def _broken(fault: str, runs: Sequence[Run]) -> dict[str, Metric]:
    learned, baseline = [each.learned for each in runs], [each.baseline for each in runs]
    delays, reference = _delays(learned), _delays(baseline)
    made = {
        f"{fault}.found": Metric(
            value=_share(learned), unit="of seeds", reference=_share(baseline), goal=0.95
        ),
        f"{fault}.delay_median": Metric(
            value=statistics.median(delays) if delays else None,
            unit="s",
            reference=statistics.median(reference) if reference else None,
        ),
        f"{fault}.delay_largest": Metric(
            value=max(delays, default=None), unit="s", reference=max(reference, default=None)
        ),
    }
    if fault == "bearing_wear":
        sizes = [abs(size) for each in runs for size in each.size_sd.values()]
        made[f"{fault}.size_10s"] = Metric(value=max(sizes, default=None), unit="σ", goal=3.0, at_most=True)
    return made


def _healthy(runs: Sequence[Run]) -> dict[str, Metric]:
    learned, baseline = [each.learned for each in runs], [each.baseline for each in runs]
    return {
        "none.silent": Metric(value=_share(learned), unit="of seeds", reference=_share(baseline), goal=1.0),
        "none.score_highest": Metric(
            value=max(each.score_highest for each in learned),
            unit="limits",
            reference=max(each.score_highest for each in baseline),
        ),
    }


def _share(outcomes: Sequence[Outcome]) -> float:
    return sum(each.ok for each in outcomes) / len(outcomes)


def _delays(outcomes: Sequence[Outcome]) -> list[float]:
    return [each.delay_s for each in outcomes if each.delay_s is not None]


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def main() -> int:
    parser = report.parser("tests.bench.detection", __doc__)
    parser.add_argument("--seeds", type=_positive, default=20, help="plants per fault (default: 20)")
    parser.add_argument("--jobs", type=_positive, default=2, help="processes (default: 2)")
    asked = parser.parse_args()
    runs: list[Run] = []
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as progress:
        task = progress.add_task("plants", total=asked.seeds * len(FAULTS))
        for run in measure(asked.seeds, jobs=asked.jobs):
            runs.append(run)
            progress.advance(task)
            for reason in run.learned.reasons:
                progress.console.print(f"{run.fault}, seed {run.seed}: {reason}", highlight=False)
    return report.show(metrics(runs), title=f"detection, {asked.seeds} seeds per fault", as_json=asked.json)


if __name__ == "__main__":
    sys.exit(main())
