"""One watched thing: from sealed rows to incidents, a batch of rows at a time, on the inference thread.

features ─▶ Frame ─▶ ChannelCheck ─▶ transforms ─▶ Detector ─▶ Watch ─▶ events
                          └─ stuck or missing ──────────────────▶
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from dxad.channelcheck import ChannelCheck, Trouble
from dxad.config import PipelineSection
from dxad.detector import Detector, Scored
from dxad.docket import Docket
from dxad.episode import Past
from dxad.errors import ModelError
from dxad.event import Event
from dxad.fields import matching
from dxad.frame import Feature, Frame
from dxad.incident import Identity
from dxad.ringbuffer import RingBuffer
from dxad.runtime.clock import Clock
from dxad.runtime.health import Health
from dxad.runtime.metrics import Metrics
from dxad.types import (
    F8,
    NS_PER_S,
    Bools,
    Channel,
    Document,
    Model,
    Rows,
    Schema,
    State,
    Transform,
)
from dxad.watch import Watch

__all__ = ["BATCH", "Pipeline", "Recorder", "Stages"]

BATCH: Final = 256
"""Rows taken at once, unless said otherwise: enough to catch up fast, few enough to stop soon."""
_BLIND_AFTER: Final = 3
"""Windows in a row that were too bad to score."""
_START_NS: Final = 10 * NS_PER_S
_SCORE: Final = (Channel("score.raw"), Channel("score.judged"))


@dataclass(slots=True)
class Stages:
    """What happens to rows before a model sees them; `reshape` can be made anew for rows of the past."""

    features: tuple[Feature, ...]
    frame: Frame
    schema: Schema
    """After the transforms."""
    transforms: Callable[[], Sequence[Transform]]
    """Makes the chain, ready for the frame's rows."""


class Recorder:
    """Collects complete rows of normal running until it has enough."""

    def __init__(self, channels: int, rows: int) -> None:
        self.wanted = rows
        self.rows = 0
        self._values = np.empty((rows, channels))

    @property
    def full(self) -> bool:
        """Whether it has all the rows it wants."""
        return self.rows == self.wanted

    def push(self, rows: Rows) -> None:
        """Take the rows in which nothing is missing."""
        complete = rows.values[~np.isnan(rows.values).any(axis=1)][: self.wanted - self.rows]
        self._values[self.rows : self.rows + len(complete)] = complete
        self.rows += len(complete)

    def take(self) -> F8:
        """The rows recorded so far."""
        return self._values[: self.rows]


class Pipeline:
    """Everything that belongs to one `[pipelines.NAME]`."""

    def __init__(
        self,
        name: str,
        section: PipelineSection,
        stages: Stages,
        *,
        identity: Identity,
        history: int,
        batch: int = BATCH,
        backlog: int | None = None,
        docket: Docket,
        clock: Clock,
        health: Health,
        metrics: Metrics,
    ) -> None:
        """Remember `history` rows, take `batch` at once, and skip the oldest when over `backlog` wait."""
        self.name = name
        self.section = section
        self.stages = stages
        self.recorder: Recorder | None = None
        self.detector: Detector | None = None
        self.check = ChannelCheck(
            stages.frame.schema.channels, missing_rows=self._rows(section.alarm.on_delay)
        )
        self._batch = batch
        self._backlog = backlog
        self._health = health
        self._transforms = list(stages.transforms())
        start = stages.frame.next
        period, channels = stages.schema.period, stages.schema.channels
        self.rows = RingBuffer(channels, period=period, slots=history, start=start)
        self.scores = RingBuffer(_SCORE, period=period, slots=history, start=start)
        self.parts = RingBuffer(channels, period=period, slots=history, start=start)
        self._past = Past(self.rows, self.scores, self.parts, reach=max(1, history - batch))
        self.watch = Watch(
            section, self._past, identity=identity, docket=docket, clock=clock, metrics=metrics,
            forgive=self._forgive,
        )  # fmt: skip
        self._forget = False
        self._lost_before = 0
        self._refused = 0
        self._failing = False
        self._starting_rows = self._rows(_START_NS)
        """While nothing was scored yet, so many rows may be refused: sources take a moment to come up."""
        self._successor: Detector | None = None
        self._scored = metrics.counter("dxad_rows_scored_total", pipeline=name)
        self._unscored = metrics.counter("dxad_rows_unscored_total", pipeline=name)
        self._lost = metrics.counter("dxad_rows_lost_total", pipeline=name)

    def _rows(self, duration: int) -> int:
        """How many rows a duration is, at least one."""
        return max(1, -(-duration // self.stages.frame.schema.period))

    @property
    def due(self) -> bool:
        """Whether rows may be waiting: cheap, and asked on the event loop."""
        features = self.stages.features
        return self.stages.frame.waiting > 0 or any(each.behind for each in features)

    @property
    def has_model(self) -> bool:
        """Whether it scores, or will from its next row on."""
        return self.detector is not None or self._successor is not None

    @property
    def configured_limit(self) -> float | None:
        """The limit of the configuration; None where the model shall know it."""
        limit = self.section.alarm.limit
        return None if limit == "auto" else limit

    @property
    def limit(self) -> float | None:
        """The judged score above which the alarm is pending, as far as it is known."""
        return None if self.detector is None else self.detector.limit(self.configured_limit)

    def offer(self, model: Model) -> None:
        """Let `model` take over between two batches; the rows of the past fill its first window.

        Raises:
            ModelError: it is not for this pipeline; the old one goes on.
        """
        section, schema = self.section, self.stages.schema
        rows = None if section.window is None else section.window // schema.period
        required = matching(section.required, schema.channels)
        self._successor = Detector(model, schema.channels, rows=rows, hop=section.hop, required=required)

    def record(self, rows: int) -> Recorder:
        """Start to collect rows of normal running for a new model."""
        self._forget = True  # by the inference thread, which is the one that watches
        self.recorder = Recorder(len(self.stages.schema.channels), rows)
        return self.recorder

    def step(self) -> list[Event]:
        """Take in all rows that are complete; returns what is to be told."""
        for feature in self.stages.features:
            feature.advance()
        events: list[Event] = []
        if self._backlog is not None:
            self.stages.frame.skip(self.stages.frame.waiting - self._backlog)
        while (rows := self.stages.frame.read(self._batch)) is not None:
            events += self._take(rows)
            if self.stages.frame.lost == self._lost_before and not self.stages.frame.waiting:
                self._health.clear("pipeline.behind", self.name)
        return events

    def _take(self, rows: Rows) -> list[Event]:
        self._swap()
        self._mind_the_gap()
        if self._forget:
            self._forget = False
            self.check.forget()
        doubtful = self.check.apply(rows)
        shaped = rows.with_values(
            np.where(doubtful, np.nan, rows.values),
            np.where(doubtful, np.uint8(State.BAD), rows.states),
        )
        for transform in self._transforms:
            shaped = transform.apply(shaped)
        recorder = self.recorder  # once: the event loop takes it away when it has enough
        if recorder is not None:
            recorder.push(shaped)
        if not (doubtful.any() or self.watch.in_doubt):
            return self._judge(shaped, doubtful, [])
        # Row by row, since a sensor that is found to lie changes how the next row is judged.
        events: list[Event] = []
        for row in range(len(shaped)):
            one = Rows(
                shaped.first + row, shaped.period, shaped.values[row : row + 1], shaped.states[row : row + 1]
            )
            events += self._judge(one, doubtful[row : row + 1], self.check.troubles_at(row))
        return events

    def _judge(self, shaped: Rows, doubtful: Bools, troubles: Sequence[Trouble]) -> list[Event]:
        scored = self._score(shaped)
        self._remember(shaped, scored)
        calibration = None if self.detector is None else self.detector.calibration
        return self.watch.update(
            shaped, scored.judged, doubtful, troubles, limit=self.limit, calibration=calibration
        )

    def _swap(self) -> None:
        if self._successor is None:
            return
        old, self.detector, self._successor = self.detector, self._successor, None
        self._past.model = self.detector.model.version
        calibration = self.detector.calibration
        if calibration is not None:
            self.check.expect(calibration.stuck_rows)
        past = self.rows.read(max(0, self.rows.sealed - self.detector.rows + 1), self.rows.sealed)
        if len(past.values):
            self.detector.prime(Rows(past.first, self.rows.period, past.values, past.states))
        if old is not None:
            old.model.close()

    def _mind_the_gap(self) -> None:
        lost = self.stages.frame.lost - self._lost_before
        if lost:
            self._lost.add(lost)
            self._lost_before += lost
            self._health.raise_condition("pipeline.behind", self.name, f"{lost} rows were lost")
            self._transforms = list(self.stages.transforms())
            if self.detector is not None:
                self.detector.restart()

    def _score(self, shaped: Rows) -> Scored:
        nothing = np.full(len(shaped), np.nan)
        empty = Scored(nothing, nothing, np.zeros(shaped.values.shape), 0)
        if self.detector is None:
            self._unscored.add(len(shaped))
            return empty
        try:
            scored = self.detector.apply(shaped)
        except ModelError as error:
            self._health.raise_condition("model.failed", self.name, str(error))
            self._failing = True
            self._unscored.add(len(shaped))
            return empty
        done = int(np.count_nonzero(~np.isnan(scored.raw)))
        if done and self._failing:
            self._health.clear("model.failed", self.name)
            self._failing = False
        self._scored.add(done)
        self._unscored.add(len(shaped) - done)
        if done:
            self._refused = self._starting_rows = 0
        elif self._starting_rows > 0:
            self._starting_rows -= len(shaped)
        else:
            self._refused += scored.refused
        if self._refused >= _BLIND_AFTER:
            text = f"too many channels are missing or bad: {', '.join(self._absent(shaped)) or 'none now'}"
            self._health.raise_condition("pipeline.blind", self.name, text)
        elif done:
            self._health.clear("pipeline.blind", self.name)
        return scored

    def _absent(self, shaped: Rows) -> list[str]:
        gone = np.isnan(shaped.values[-1])
        return [channel.id for place, channel in enumerate(self.stages.schema.channels) if gone[place]]

    def _remember(self, shaped: Rows, scored: Scored) -> None:
        """Keep the rows and what was said of them: for queries, evidence, the next model's first window."""
        self.rows.append(shaped.first, shaped.values, shaped.states)
        states = np.full((len(shaped), 2), State.GOOD, dtype=np.uint8)
        self.scores.append(shaped.first, np.column_stack((scored.raw, scored.judged)), states)
        self.parts.append(shaped.first, scored.contributions, np.zeros(shaped.states.shape, dtype=np.uint8))

    def _forgive(self) -> None:
        """A sensor has been found to lie or is well again: what the score made of it meanwhile is void."""
        if self.detector is not None:
            self.detector.forgive()

    def interrupt(self) -> list[Event]:
        """The pipeline ends: close what is open, since nobody will know when it is over."""
        return self.watch.interrupt()

    def snapshot(self) -> Document:
        """What there is to know about the pipeline now."""
        newest = self.scores.read(max(0, self.scores.sealed - 1), self.scores.sealed).values
        judged = float(newest[-1, 1]) if len(newest) else float("nan")
        detector, limit = self.detector, self.limit
        return {
            "channels": [channel.id for channel in self.stages.schema.channels],
            "period_ms": self.stages.schema.period / 1e6 if self.stages.schema.period > 1 else None,
            "rows": self._scored.value + self._unscored.value,
            "scored": self._scored.value,
            "unscored": self._unscored.value,
            "lost": self._lost.value,
            "score": None if np.isnan(judged) else round(judged, 4),
            "limit": None if limit is None else round(limit, 4),
            "model": None if detector is None else {"version": detector.model.version, "rows": detector.rows},
            "troubles": [f"{each.channel} {each.kind}" for each in self.check.troubles],
            **self.watch.snapshot(),
        }
