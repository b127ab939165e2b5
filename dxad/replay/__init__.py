"""Recorded data through the daemon's own code, in virtual time, as fast as it goes.

    Recording ─ pieces ─▶ Feed ─▶ Ingest ─▶ ring ─▶ Pipeline ─▶ events ─▶ Outcome
                                    ▲                 ▲   │
                                    └───── tick ──────┘   └─ recorder full ─▶ training ─▶ model, for the next

Everything between the samples and the incidents is built by the `Assembly` that the daemon has, too. Wires
are left out and sinks are not told; models are read from `state_dir`, and nothing is written there.

A row arrives at the time that the recording gives it. The daemon looks at the clock every few milliseconds;
here one look comes after thousands of rows. Nothing depends on it: what is late, sealed, held and alarmed is
decided by the samples' own times, and where a row waits for a coarser channel, ticks come in between.

The first row begins a slot of every grid. Rows may come half of the finest period early or late and still
fall into their slots: inside, all are moved by that much, and what is told has the times of the recording.
"""

from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from dxad.bundle import current
from dxad.config import Config, LearnSection, PipelineSection
from dxad.errors import ConfigError
from dxad.event import rfc3339
from dxad.recording import Piece, Recording
from dxad.recording.columns import Matched, match
from dxad.recording.labels import Truth
from dxad.replay.drive import Drive, within
from dxad.replay.hindsight import Score, compare
from dxad.replay.outcome import Outcome, PipelineOutcome
from dxad.replay.watch import OnEvent, OnScores, Watch
from dxad.types import I8, Bools, Document

__all__ = ["Outcome", "PipelineOutcome", "Replay", "Score", "first_time"]


class Replay:
    """One run of a configuration over a recording."""

    def __init__(
        self,
        config: Config,
        recording: Recording,
        *,
        columns: Mapping[str, str] | None = None,
        labels: Truth | str | None = None,
        learn: int | Recording | None = None,
        span: tuple[int | None, int | None] = (None, None),
        tick: int | None = None,
        on_event: OnEvent = lambda _event: None,
        on_scores: OnScores = lambda _name, _reading: None,
        on_rows: Callable[[int], None] = lambda _rows: None,
        on_time: Callable[[int], None] = lambda _utc: None,
    ) -> None:
        """Get ready.

        Args:
            config: whose pipelines shall see the data.
            recording: the data.
            columns: by column, the channel that it is, where the names do not say so.
            labels: when something was really wrong; a text names a column of the data, 0 or 1.
            learn: so many nanoseconds of the data, or a recording of normal running, to learn from first, for
                every pipeline whose model can be learned; without it, only those learn that have no model yet
                and are configured to.
            span: only rows from the first time until before the second, UTC nanoseconds.
            tick: stream time between two looks at the clock; for tests, since no result depends on it.
            on_event: told each event.
            on_scores: told each stretch of a pipeline's scores.
            on_rows: told how many rows have been driven through so far.
            on_time: told the UTC time, in nanoseconds, of each look at the clock.

        Raises:
            ConfigError: the columns are nobody's, or a label is not there.
        """
        self._config = config
        self._recording = recording
        self._given = dict(columns or {})
        self._label = labels if isinstance(labels, str) else None
        self._truth = None if isinstance(labels, str) else labels
        self._learn = learn
        self._span = span
        self._tick = tick
        self._on_event = on_event
        self._on_scores = on_scores
        self._on_rows = on_rows
        self._on_time = on_time
        if self._label is not None and self._label not in recording.columns:
            raise ConfigError(f"{recording.path}: no column {self._label!r} with labels")
        self._matched = self._match(recording)

    def _match(self, recording: Recording) -> Matched:
        free = [name for name in recording.columns if name != self._label]
        return match(free, [channel.id for channel in self._config.channels], self._given)

    def run(self) -> Outcome:
        """From the first row to the last.

        Raises:
            ConfigError: the recording cannot be read, or the configuration cannot be built.
            ModelError: nothing can be learned from the recording of normal running.
        """
        with TemporaryDirectory(prefix="dxad-replay-") as folder:
            config = _prepared(self._config, Path(folder), self._learn)
            if self._learn is not None and not isinstance(self._learn, int):
                self._study(config, self._learn)
            return self._watch(config)

    def _study(self, config: Config, normal: Recording) -> None:
        """Learn all of a recording: the models stand on their shelves then."""
        first = first_time(normal)
        last = max(int(piece.times.max()) for piece in normal.pieces(()))
        with closing(Drive(config, normal, self._match(normal), first=first, tick=self._tick)) as drive:
            watches = [each for each in drive.watches.values() if each.can_learn]
            for watch in watches:
                watch.learn((last - first) // watch.pipeline.stages.schema.period + 2)
            for _ in drive.pieces(None, None):
                pass
            for watch in watches:
                watch.study()

    def _watch(self, config: Config) -> Outcome:
        first = first_time(self._recording, self._span)
        account = _Account(self._recording, self._label, self._truth)
        extra = () if self._label is None else (self._label,)
        drive = Drive(
            config, self._recording, self._matched, first=first, extra=extra, tick=self._tick,
            on_event=self._on_event, on_scores=self._on_scores, on_time=self._on_time,
        )  # fmt: skip
        with closing(drive):
            for watch in drive.watches.values():
                watch.learn_if_missing()
            for piece in drive.pieces(*self._span):
                account.note(piece, drive)
                self._on_rows(drive.rows)
            return Outcome(
                recording={
                    **account.document(first, drive.rows),
                    "columns": dict(self._matched.column_of),
                    "columns_ignored": list(self._matched.ignored),
                    "channels_missing": list(self._matched.missing),
                },
                sources=drive.sources(),
                pipelines={name: _outcome(each, account, drive) for name, each in drive.watches.items()},
                conditions=drive.health.snapshot(),
            )


class _Account:
    """What was read, and what was wrong then."""

    def __init__(self, recording: Recording, label: str | None, truth: Truth | None) -> None:
        self._recording = recording
        self._label = label
        self._truth = truth
        self._last = 0
        self._times: list[I8] = []
        self._wrong: list[Bools] = []

    def note(self, piece: Piece, drive: Drive) -> None:
        """Keep the labels of these rows, if there are any: nine bytes for each row."""
        self._last = max(self._last, int(piece.times.max()))
        if self._truth is not None:
            self._wrong.append(self._truth.at(piece.times))
        elif self._label is not None:
            self._wrong.append(piece.values[:, drive.column(self._label)] >= 0.5)
        else:
            return
        self._times.append(piece.times)

    def score(self, watch: Watch, drive: Drive) -> Score | None:
        """How one pipeline stands beside the labels, from the first row that it scored."""
        if not self._times or watch.first_scored is None:
            return None
        times, wrong = np.concatenate(self._times), np.concatenate(self._wrong)
        order = np.argsort(times, kind="stable")
        times, wrong = times[order], wrong[order]
        slots = drive.slots_of(times, watch.pipeline.stages.schema.period)
        counted = slots >= watch.first_scored
        return compare(times[counted], wrong[counted], watch.alarm_at(slots[counted]))

    def document(self, first: int, rows: int) -> Document:
        """As JSON."""
        faults = self._recording.faults
        return {
            "file": self._recording.path.name,
            "digest": self._recording.digest,
            "rows": rows,
            "from": rfc3339(first),
            "to": rfc3339(self._last),
            "lines_rejected": faults.lines,
            "cells_rejected": faults.cells,
            "rejected": list(faults.first),
        }


def first_time(recording: Recording, span: tuple[int | None, int | None] = (None, None)) -> int:
    """The time of the first row within a span, UTC nanoseconds.

    Raises:
        ConfigError: it has no row there.
    """
    for piece in recording.pieces(()):
        here = within(piece, *span)
        if len(here):
            return int(here.times[0])
    where = "" if span == (None, None) else " in that span of time"
    raise ConfigError(f"{recording.path}: has no rows{where}")


def _outcome(watch: Watch, account: _Account, drive: Drive) -> PipelineOutcome:
    snapshot = watch.pipeline.snapshot()
    return PipelineOutcome(
        rows=snapshot["rows"],
        scored=snapshot["scored"],
        unscored=snapshot["unscored"],
        lost=snapshot["lost"],
        limit=watch.pipeline.limit,
        model=snapshot["model"],
        learned=watch.learned,
        highest=watch.highest,
        incidents=list(watch.incidents.values()),
        score=account.score(watch, drive),
    )


def _prepared(config: Config, folder: Path, learn: int | Recording | None) -> Config:
    """As it is used here: no sink is told, and what is learned goes into `folder`."""
    pipelines = {
        name: _shelved(section, config.state_dir, folder / name, learn)
        for name, section in config.pipelines.items()
    }
    return config.model_copy(update={"pipelines": pipelines, "sinks": {}})


def _shelved(
    section: PipelineSection, state_dir: Path, shelf: Path, learn: int | Recording | None
) -> PipelineSection:
    """With an empty shelf to learn onto, if this pipeline shall learn."""
    path = getattr(section.model, "path", None)
    if section.model is None or path is None:
        return section
    asked = section.learn or LearnSection()
    if learn is not None:
        asked = asked.model_copy(update={"start": "if_missing"})
    elif section.learn is None or asked.start != "if_missing" or current(state_dir / path) is not None:
        return section
    if isinstance(learn, int):
        asked = asked.model_copy(update={"span": learn})
    return section.model_copy(
        update={"learn": asked, "model": section.model.model_copy(update={"path": shelf})}
    )
