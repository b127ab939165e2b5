"""One pipeline at work on recorded data, and what it told."""

from collections.abc import Callable, Mapping

import numpy as np

from dxad.errors import ModelError
from dxad.event import Event
from dxad.learning import Learning
from dxad.pipeline import Pipeline
from dxad.ring.ringbuffer import Reading
from dxad.types import I8, Bools, Document

__all__ = ["Watch"]

OnEvent = Callable[[Event], None]
OnScores = Callable[[str, Reading], None]


class Watch:
    """Steps a pipeline, lets it learn in between, and keeps account."""

    def __init__(
        self,
        pipeline: Pipeline,
        learning: Learning | None,
        *,
        utc_offset: int,
        on_event: OnEvent,
        on_scores: OnScores,
    ) -> None:
        """Watch `pipeline`, whose stream times are `utc_offset` before UTC.

        `on_event` is told each event, and `on_scores` the pipeline's name with each stretch of its scores,
        raw and judged.
        """
        self.pipeline = pipeline
        self.incidents: dict[str, Document] = {}
        """By id, in the order in which they opened."""
        self.learned: list[Document] = []
        """The models made on the way."""
        self.highest = 0.0
        """The highest judged score, over the limit that held then."""
        self.first_scored: int | None = None
        self._learning = learning
        self._utc_offset = utc_offset
        self._on_event = on_event
        self._on_scores = on_scores
        self._cursor = pipeline.scores.sealed
        self._edges: list[tuple[int, int]] = []
        """The slots at which an incident opens, +1, or closes, -1."""

    @property
    def can_learn(self) -> bool:
        """Whether its model is one that can be learned."""
        return self._learning is not None

    def learn(self, rows: int) -> None:
        """Record from the next row on, and learn as soon as there are so many rows."""
        self.pipeline.record(rows)

    def learn_if_missing(self) -> None:
        """As the daemon does when it starts."""
        if self._learning is not None and self._learning.wanted:
            self.learn(self._learning.rows)

    def step(self) -> None:
        """Take in what is complete."""
        pipeline = self.pipeline
        while pipeline.due:
            waiting = pipeline.stages.frame.next
            for event in pipeline.step():
                self._note(event)
            self._look()
            if pipeline.recorder is not None and pipeline.recorder.full:
                self._study_or_go_on()
            elif pipeline.stages.frame.next == waiting:
                break  # a feature wants more rows before it yields one

    def _study_or_go_on(self) -> None:
        """Learn from what was recorded; where that cannot be done, the next rows may do."""
        recorder = self.pipeline.recorder
        assert recorder is not None
        try:
            self.study()
        except ModelError as error:
            self.learned.append({"rows": recorder.rows, "error": str(error)})
            self.pipeline.record(recorder.wanted)

    def study(self) -> None:
        """Learn from what was recorded so far.

        Raises:
            ModelError: there is too little.
        """
        recorder, self.pipeline.recorder = self.pipeline.recorder, None
        assert recorder is not None
        assert self._learning is not None
        version = self._learning.learn_here(recorder.take())
        self.learned.append({"rows": recorder.rows, "version": version})

    def _look(self) -> None:
        """Keep account of the scores that came since the last look."""
        scores = self.pipeline.scores
        reading = scores.read(self._cursor, scores.sealed)
        self._cursor = scores.sealed
        if not len(reading.values):
            return
        judged = reading.values[:, 1]
        known = ~np.isnan(judged)
        limit = self.pipeline.limit
        if known.any() and limit is not None:
            self.highest = max(self.highest, float(judged[known].max()) / limit)
            if self.first_scored is None:
                self.first_scored = reading.first + int(np.argmax(known))
        self._on_scores(self.pipeline.name, reading)

    def _note(self, event: Event) -> None:
        self._on_event(event)
        data: Mapping[str, object] = event.data
        if "incident" not in data:
            return
        phase = str(data["phase"])
        if phase == "opened":
            self.incidents[event.subject] = {"opened_utc_ns": event.time_utc, "closed_utc_ns": None}
        found = self.incidents[event.subject]
        found.update(data)
        slot = (event.time_utc - self._utc_offset) // self.pipeline.stages.schema.period - 1
        if phase in {"opened", "reopened"}:
            found["closed_utc_ns"] = None
            self._edges.append((slot, 1))
        elif phase == "closed":
            found["closed_utc_ns"] = event.time_utc
            self._edges.append((slot, -1))

    def alarm_at(self, slots: I8) -> Bools:
        """Whether an incident was open after each of these rows, (n,)."""
        edges = sorted(self._edges)
        depth = np.concatenate(([0], np.cumsum([step for _, step in edges], dtype=np.int64)))
        at = np.array([slot for slot, _ in edges], dtype=np.int64)
        found: Bools = depth[np.searchsorted(at, slots, side="right")] > 0
        return found
