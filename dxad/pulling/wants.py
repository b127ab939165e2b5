"""What pull consumers are given, by their own word or by the configuration's."""

from dataclasses import asdict, dataclass
from typing import Final, Self

from dxad.consumersection import ConsumerSection
from dxad.selection import Selection
from dxad.types import Document, Lane

__all__ = ["ATTEMPTS_MOST", "Declared", "Wants"]

ATTEMPTS_MOST: Final = 10
"""How often an event is given out before it is a dead letter, where nothing else is configured."""


@dataclass(frozen=True, slots=True)
class Wants:
    """Which events a consumer is given."""

    lanes: tuple[str, ...] = ("critical", "normal")
    types: tuple[str, ...] = ("*",)
    severities: tuple[str, ...] = ()
    pipelines: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()

    @property
    def lane_set(self) -> frozenset[Lane]:
        """The lanes as the outbox names them."""
        return frozenset(Lane[each.upper()] for each in self.lanes)

    @property
    def selection(self) -> Selection:
        """Which events of these lanes."""
        return Selection(self.types, self.severities, self.subjects, self.sources, self.pipelines)

    def words(self) -> str:
        """For people: what is said of each."""
        return ", ".join(f"{key} {' '.join(value)}" for key, value in self.document().items() if value)

    def document(self) -> Document:
        """As a JSON object."""
        return {key: list(value) for key, value in asdict(self).items()}

    @classmethod
    def of(cls, document: Document) -> Self:
        """What `document` has made of it."""
        return cls(**{key: tuple(value) for key, value in document.items()})


@dataclass(frozen=True, slots=True)
class Declared:
    """What the configuration says of a consumer."""

    wants: Wants = Wants()
    max_attempts: int = ATTEMPTS_MOST

    @classmethod
    def of(cls, section: ConsumerSection) -> Self:
        """What `[consumers.NAME]` says."""
        found = section.model_dump()
        most = found.pop("max_attempts")
        return cls(Wants.of(found), most)
