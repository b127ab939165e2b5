"""What a recording has shown, as one document that depends on nothing but the data and the configuration."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dxad.event import rfc3339
from dxad.replay.hindsight import Score
from dxad.types import NS_PER_S, Document

__all__ = ["Outcome", "PipelineOutcome"]


@dataclass(frozen=True, slots=True)
class PipelineOutcome:
    """What one pipeline made of it."""

    rows: int
    scored: int
    unscored: int
    lost: int
    limit: float | None
    model: Document | None
    learned: Sequence[Document]
    """The models that were made on the way, or why not."""
    highest: float
    """The highest judged score, over the limit that held then."""
    incidents: Sequence[Document]
    """In the order in which they opened."""
    score: Score | None
    """Beside the labels, where there are some."""

    def document(self) -> Document:
        """As JSON."""
        return {
            "rows": self.rows,
            "scored": self.scored,
            "unscored": self.unscored,
            "lost": self.lost,
            "limit": None if self.limit is None else round(self.limit, 4),
            "model": self.model,
            "learned": list(self.learned),
            "score_highest_over_limit": round(self.highest, 4),
            "incidents": [incident(each) for each in self.incidents],
            "score": None if self.score is None else self.score.document(),
        }


@dataclass(frozen=True, slots=True)
class Outcome:
    """What all of them made of it."""

    recording: Document
    """What was read: rows, first and last time, columns that meant nothing, lines that could not be read."""
    sources: Mapping[str, Document]
    pipelines: Mapping[str, PipelineOutcome]
    conditions: Sequence[Document]
    """What was wrong with the gateway at the end."""

    def document(self) -> Document:
        """As JSON."""
        return {
            "recording": self.recording,
            "sources": dict(self.sources),
            "pipelines": {name: each.document() for name, each in self.pipelines.items()},
            "conditions": list(self.conditions),
        }


def incident(told: Document) -> Document:
    """One incident, from what its events said; what is open at the end has neither closed nor a duration."""
    closed, opened, onset = told["closed_utc_ns"], told["opened_utc_ns"], told["onset_utc_ns"]
    known = {"incident", "phase", "onset_utc_ns", "opened_utc_ns", "closed_utc_ns", "after_onset_s"}
    return {
        "id": told["incident"],
        "onset": rfc3339(onset),
        "opened": rfc3339(opened),
        "closed": None if closed is None else rfc3339(closed),
        "delay_s": round((opened - onset) / NS_PER_S, 3),
        "duration_s": None if closed is None else round((closed - onset) / NS_PER_S, 3),
        **{key: value for key, value in told.items() if key not in known},
    }
