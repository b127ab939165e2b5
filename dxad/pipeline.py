"""One watched thing: from sealed rows to incidents, a batch of rows at a time, on the inference thread.

features ─▶ Frame ─▶ ChannelCheck ─▶ transforms ─▶ Detector ─▶ Watch ─▶ events
                          └─ stuck or missing ──────────────────▶
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np

from dxad.config import PipelineSection
from dxad.detector import Detector, Scored
from dxad.errors import ModelError
from dxad.event import Event
from dxad.expression import compile_expression
from dxad.fields import matching
from dxad.frame import Feature, Frame
from dxad.gate import Gate, stretches
from dxad.incident import Identity
from dxad.incident.channelcheck import ChannelCheck, Trouble
from dxad.incident.docket import Docket
from dxad.incident.episode import Past
from dxad.incident.watch import Watch
from dxad.plausibility import Plausibility
from dxad.recorder import Recorder
from dxad.ring.ringbuffer import RingBuffer
from dxad.runtime.clock import Clock
from dxad.runtime.health import Health
from dxad.runtime.ledger import Ledger
from dxad.runtime.metrics import Metrics
from dxad.sightedness import Sightedness
from dxad.succession import Succession
from dxad.types import Bools, Channel, Document, Fallible, Model, Rows, Schema, State, Transform

__all__ = ["BATCH", "Pipeline", "Recorder", "Stages"]

BATCH: Final = 256
"""Rows taken at once, unless said otherwise: enough to catch up fast, few enough to stop soon."""
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
    vacant: Callable[[], bool] = lambda: False
    """Whether it reads places of devices alone that none has taken yet: there is nothing to be blind to."""


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
        """Remember `history` rows, take `batch` at once; when over `backlog` wait, some are passed over."""
        self.name = name
        self.identity = identity
        self.section = section
        self.stages = stages
        self.recorder: Recorder | None = None
        self.succession = Succession(
            section.promotion,
            deadline=section.deadline,
            period=stages.schema.period,
            configured_limit=lambda: self.configured_limit,
            clock=clock,
        )
        self.check = ChannelCheck(
            stages.frame.schema.channels,
            missing_rows=self._rows(section.alarm.on_delay),
            self_taught=section.learn is None,
            stuck_at=stages.frame.stuck_at,
        )
        self._gate = Gate(
            None if section.when is None else compile_expression(section.when),
            stages.frame.schema.channels,
            settle_rows=section.settle // stages.frame.schema.period,
        )
        self._clock = clock
        self._unclaimed: Document = {}
        """What a model has left of which there is none now: it may come back."""
        self._batch = batch
        self._backlog = backlog
        if backlog is None and section.backlog is not None:
            self._backlog = self._rows(section.backlog)
        self._health = health
        self._transforms = list(stages.transforms())
        self._plausible = Plausibility(
            self._transforms,
            stages.frame.schema.channels,
            stages.schema.channels,
            missing_rows=self._rows(section.alarm.on_delay),
        )
        self._foreign = self._fallible()
        start = stages.frame.next
        period, channels = stages.schema.period, stages.schema.channels
        self.rows = RingBuffer(channels, period=period, slots=history, start=start)
        self.scores = RingBuffer(_SCORE, period=period, slots=history, start=start)
        self.parts = RingBuffer(channels, period=period, slots=history, start=start)
        self._remembered = Past(self.rows, self.scores, self.parts, reach=max(1, history - batch))
        self.watch = Watch(
            section, self._remembered, identity=identity, docket=docket, clock=clock, metrics=metrics,
            forgive=self.succession.forgive,
        )  # fmt: skip
        self._forget = False
        self._run_began = start
        """Since this slot all rows have counted, and none was lost."""
        self._untold: list[Event] = []
        self._lost_before = 0
        self._sight = Sightedness(name, section, stages.schema, health, vacant=stages.vacant)
        self._scored = metrics.counter("dxad_rows_scored_total", pipeline=name)
        self._unscored = metrics.counter("dxad_rows_unscored_total", pipeline=name)
        self._idle = metrics.counter("dxad_rows_idle_total", pipeline=name)
        self._lost = metrics.counter("dxad_rows_lost_total", pipeline=name)
        self._faults = metrics.counter("dxad_transform_faults_total", pipeline=name)
        self.ledger = Ledger(metrics, f"pipelines.{name}")
        self._feature_ledger = Ledger(metrics, f"pipelines.{name}.features")

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
        return self.succession.expected

    @property
    def detector(self) -> Detector | None:
        """The model at work; None while there is none."""
        return self.succession.live

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
        self.succession.offer(self.fitted(model))

    def fitted(self, model: Model, section: PipelineSection | None = None) -> Detector:
        """`model`, made ready for this pipeline's rows, as another section of it wants them scored if given.

        Raises:
            ModelError: it is not for them.
        """
        section, schema = section or self.section, self.stages.schema
        rows = None if section.window is None else section.window // schema.period
        by = None if section.by is None else matching([section.by], schema.channels)[0]
        assert section.model is not None
        key = {"model": section.model.model_dump(mode="json"), "period_ns": schema.period, "by": section.by}
        return Detector(
            model, schema.channels, rows=rows, hop=section.hop, by=by, key=key,
            period=schema.period, required=matching(section.required, schema.channels),
        )  # fmt: skip

    # -- over a reload and a restart ----------------------------------------------------------------------
    # All of these are called between two batches.

    def adjust(self, section: PipelineSection) -> list[Event]:
        """Go on as `section` says, which differs in what rows are held against, not in the rows.

        Returns what is to be told of it.
        """
        self.section = section
        self._sight.adjust(section)
        self.check.adjust(missing_rows=self._rows(section.alarm.on_delay))
        self._plausible.adjust(missing_rows=self._rows(section.alarm.on_delay))
        self.succession.adjust(section.promotion, deadline=section.deadline, period=self.stages.schema.period)
        return self.watch.adjust(section)

    def follow(self, old: "Pipeline") -> None:
        """Begin where `old`, which this one replaces, has ended: no row is seen twice or by neither."""
        if old.stages.frame.schema.period == self.stages.frame.schema.period:
            self.stages.frame.begin(old.stages.frame.next)
            for ring in (self.rows, self.scores, self.parts):
                ring.begin(self.stages.frame.next)

    def state(self) -> Document:
        """What shall survive a restart, as JSON without NaN; empty where there is nothing."""
        detector = self.succession.upcoming
        learned = self._unclaimed if detector is None else detector.state()
        parts = {"model": learned, "watch": self.watch.state()}
        return {name: part for name, part in parts.items() if part}

    def restore(self, state: Document, *, refuse: Callable[[ModelError], None]) -> list[Event]:
        """Take up what `state` of a pipeline of this name has given; returns what is to be told of it.

        A part that is of another model, or of other channels, is left out, and `refuse` is told why.
        """
        detector, learned = self.succession.upcoming, state.get("model", {})
        try:
            if detector is None:
                self._unclaimed = learned
            else:
                detector.restore(learned)
        except ModelError as error:
            refuse(error)
        try:
            return self.watch.restore(state.get("watch", {}), now=self._clock.now())
        except ModelError as error:
            refuse(error)
            return []

    # -- rows ---------------------------------------------------------------------------------------------

    def record(self, rows: int) -> Recorder:
        """Start to collect rows of normal running for a new model."""
        self._forget = True  # by the inference thread, which is the one that watches
        self.recorder = Recorder(len(self.stages.schema.channels), rows)
        return self.recorder

    def step(self) -> list[Event]:
        """Take in all rows that are complete now; returns what is to be told.

        Those that become complete meanwhile have to wait for the next call, so that this one ends. It stops
        after the row with which a recorder has enough, so that whoever is quick can learn from that row on.
        """
        for feature in self.stages.features:
            feature.advance()
        self._feature_ledger.follow("overwritten", sum(each.lost for each in self.stages.features))
        if self._backlog is not None:
            self.stages.frame.shed(self._backlog, self.section.overflow)
        left = self.stages.frame.waiting
        while left > 0 and (rows := self.stages.frame.read(min(self._most, left))) is not None:
            left -= len(rows)
            recording = self._wanted > 0
            self._untold += self._take(rows)
            if recording and not self._wanted:
                break
            if self.stages.frame.lost == self._lost_before and not self.stages.frame.waiting:
                self._health.clear("pipeline.behind", self.name)
        return self.untold()

    def untold(self) -> list[Event]:
        """What was found and not told yet: also before a step that broke."""
        events, self._untold = self._untold, []
        return events

    @property
    def _wanted(self) -> int:
        """Rows that a recorder still wants."""
        recorder = self.recorder  # once: the event loop takes it away when it has enough
        return 0 if recorder is None else recorder.wanted - recorder.rows

    @property
    def _most(self) -> int:
        """Rows to take at once: a recorder is full at the end of a batch, never within it."""
        return min(self._batch, self._wanted or self._batch)

    def _take(self, rows: Rows) -> list[Event]:
        self._swap()
        self._mind_the_gap(rows.first)
        if self._forget:
            self._forget = False
            self.check.forget()
        counts = self._gate.apply(rows)
        doubtful = self.check.apply(rows, counts)
        doubted = bool(doubtful.any())
        shaped = rows
        if doubted:
            shaped = rows.with_values(
                np.where(doubtful, np.nan, rows.values),
                np.where(doubtful, np.uint8(State.BAD), rows.states),
            )
        for transform in self._transforms:
            shaped = transform.apply(shaped)
        if self._foreign:
            self._tell_of_faults()
        if self._plausible.watches:
            doubtful = self._plausible.apply(shaped, doubtful)
            doubted = doubted or bool(doubtful.any())
        recorder = self.recorder  # once: the event loop takes it away when it has enough
        if recorder is not None:
            recorder.push(shaped, counts)
        if not (doubted or self.watch.in_doubt):
            return self._judge(shaped, counts, doubtful, [])
        events: list[Event] = []
        for begin, end in self._steps(doubtful):
            here = slice(begin, end)
            piece = shaped.part(begin, end)
            troubles = self.check.troubles_at(end - 1)
            if self._plausible.watches:
                troubles += self._plausible.troubles_at(end - 1, troubles)
            events += self._judge(piece, counts[here], doubtful[here], troubles)
        return events

    def _steps(self, doubtful: Bools) -> Iterator[tuple[int, int]]:
        """Stretches of rows to be judged in one go; the next is asked for when the one before was judged.

        A sensor that is found to lie, or to be well again, changes how the next row is judged: so the first
        row of a new doubt stands alone, and so does each row in which a doubt may end.
        """
        changes = np.flatnonzero((doubtful[1:] != doubtful[:-1]).any(axis=1)) + 1
        for begin, end in pairwise([0, *changes.tolist(), len(doubtful)]):
            at = begin
            if doubtful[begin].any():
                at += 1
                yield begin, at
            else:
                while at < end and self.watch.in_doubt:
                    at += 1
                    yield at - 1, at
            if at < end:
                yield at, end

    def _judge(
        self, shaped: Rows, counts: Bools, doubtful: Bools, troubles: Sequence[Trouble]
    ) -> list[Event]:
        """Score rows and watch them; a window never reaches across those that do not count."""
        if counts.all():
            return self._watched(shaped, self._score(shaped), doubtful, troubles, idle=~counts)
        events: list[Event] = []
        for begin, end, running in stretches(counts):
            piece = shaped.part(begin, end)
            if running:
                scored = self._score(piece)
            else:
                self._run_began = shaped.first + end
                self.succession.restart()
                self._idle.add(end - begin)
                scored = Scored.nothing(*piece.values.shape)
            events += self._watched(piece, scored, doubtful[begin:end], troubles, idle=~counts[begin:end])
        return events

    def _watched(
        self, shaped: Rows, scored: Scored, doubtful: Bools, troubles: Sequence[Trouble], *, idle: Bools
    ) -> list[Event]:
        """Hold rows against what was known at each of them: a model may have ended its warm-up in between."""
        self._remember(shaped, scored)
        detector = self.detector
        self._remembered.model = None if detector is None else detector.model.version
        calibration = None if detector is None else detector.calibration
        known = 0
        if calibration is not None and calibration.since is not None:
            known = min(max(0, calibration.since - shaped.first), len(shaped))
        events: list[Event] = []
        for begin, end, limit, by in (
            (0, known, self.configured_limit, None),
            (known, len(shaped), self.limit, calibration),
        ):
            if begin < end:
                events += self.watch.update(
                    shaped.part(begin, end), scored.judged[begin:end], doubtful[begin:end], troubles,
                    idle=idle[begin:end], limit=limit, calibration=by,
                )  # fmt: skip
        return events

    def _swap(self) -> None:
        if self.succession.settle(self._past):
            self._expect()

    def _expect(self) -> None:
        """Watch the sensors as the model that counts has learned."""
        detector = self.detector
        if detector is not None and detector.calibration is not None:
            self.check.expect(detector.calibration.stuck_rows)

    def _past(self, rows: int) -> Rows:
        """The newest rows, so many at most, across which a window may reach."""
        past = self.rows.read(max(self._run_began, self.rows.sealed - rows), self.rows.sealed)
        return Rows(past.first, self.rows.period, past.values, past.states)

    def _fallible(self) -> list[Fallible]:
        """The transforms that run code of the user's own, in the order of the data."""
        made = [*(feature.transform for feature in self.stages.features), *self._transforms]
        return [each for each in made if isinstance(each, Fallible)]

    def _tell_of_faults(self) -> None:
        faults = [each.fault for each in self._foreign if each.fault is not None]
        if faults:
            self._faults.add(len(faults))
            self._health.raise_condition("transform.failed", self.name, "; ".join(faults))
        else:
            self._health.clear("transform.failed", self.name)

    def _mind_the_gap(self, first: int) -> None:
        lost = self.stages.frame.lost - self._lost_before
        if lost:
            for reason, total in self.stages.frame.losses.items():
                self.ledger.follow(reason, total)
            self._lost_before += lost
            self._health.raise_condition("pipeline.behind", self.name, f"{lost} rows were lost")
        failed = first - self.rows.sealed - lost  # read and not remembered
        if failed:
            self.ledger.lose("failed", failed)
        if lost + failed:
            self._lost.add(lost + failed)
            self._transforms = list(self.stages.transforms())
            self._foreign = self._fallible()
            self._run_began = first
            self._gate.restart()
            self.succession.restart()

    def _score(self, shaped: Rows) -> Scored:
        before = self.detector
        try:
            scored = self.succession.apply(shaped)
        except ModelError as error:
            self._sight.failed(error)
            self._unscored.add(len(shaped))
            return Scored.nothing(*shaped.values.shape)
        if scored is None:
            self._unscored.add(len(shaped))
            return Scored.nothing(*shaped.values.shape)
        if self.detector is not before:
            self._expect()
        calibration = None if self.detector is None else self.detector.calibration
        done = self._sight.note(shaped, scored, slow=self.succession.slow, calibration=calibration)
        self._scored.add(done)
        self._unscored.add(len(shaped) - done)
        return scored

    def _remember(self, shaped: Rows, scored: Scored) -> None:
        """Keep the rows and what was said of them: for queries, evidence, the next model's first window."""
        self.rows.append(shaped.first, shaped.values, shaped.states)
        said = np.empty((len(shaped), 2))
        said[:, 0], said[:, 1] = scored.raw, scored.judged
        self.scores.append(shaped.first, said, np.full(said.shape, State.GOOD, dtype=np.uint8))
        self.parts.append(shaped.first, scored.contributions, np.zeros(shaped.states.shape, dtype=np.uint8))

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
            "rows": self._scored.value + self._unscored.value + self._idle.value,
            "running": self._gate.open,
            "idle": self._idle.value,
            "scored": self._scored.value,
            "unscored": self._unscored.value,
            "lost": self._lost.value,
            "lost_by": self.ledger.snapshot(),
            "score": None if np.isnan(judged) else round(judged, 4),
            "limit": None if limit is None else round(limit, 4),
            "model": None if detector is None else detector.snapshot(),
            "beside": self.succession.snapshot(),
            "limits_only": self.section.model is None,
            "troubles": [f"{each.channel} {each.kind}" for each in self.check.troubles],
            **self.watch.snapshot(),
        }
