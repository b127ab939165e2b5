"""Which events somebody wants: the same patterns for sinks, for consumers and for whoever looks."""

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from dxad.types import Document

__all__ = ["EVERYTHING", "Selection"]


@dataclass(frozen=True, slots=True)
class Selection:
    """Of each kind of pattern, one has to fit; where there are none, everything does.

    Patterns have `*`, `?` and `[…]` as those of a shell, and know upper from lower case.
    """

    types: tuple[str, ...] = ("*",)
    severities: tuple[str, ...] = ()
    """No patterns; an event without a severity has none of them."""
    subjects: tuple[str, ...] = ()
    """An event without a subject has an empty one."""
    sources: tuple[str, ...] = ()
    """Of the CloudEvent, such as `/plant7-gw3/pipelines/pump`."""
    pipelines: tuple[str, ...] = ()
    """The name at the end of such a source."""

    @property
    def picks(self) -> bool:
        """Whether it leaves anything out."""
        others = self.severities or self.subjects or self.sources or self.pipelines
        return bool(others) or (bool(self.types) and "*" not in self.types)

    def takes(self, event: Document) -> bool:
        """Whether the event, in the structure of CloudEvents' JSON format, is one of them."""
        if not _fits(event.get("type", ""), self.types):
            return False
        if not _fits(event.get("subject", ""), self.subjects):
            return False
        source = str(event.get("source", ""))
        if not _fits(source, self.sources):
            return False
        if self.pipelines and not _fits(source.partition("/pipelines/")[2], self.pipelines):
            return False
        if not self.severities:
            return True
        data = event.get("data")
        return isinstance(data, dict) and data.get("severity") in self.severities


EVERYTHING: Final = Selection()


def _fits(value: object, patterns: Iterable[str]) -> bool:
    return not patterns or any(fnmatchcase(str(value), each) for each in patterns)
