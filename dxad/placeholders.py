"""Places in texts that an event fills: the topics of a sink, the bodies of its requests.

    "{pipeline}: {severity}"  +  an event  ──▶  "pump: high"

A brace that is meant is written twice, as Python's format strings have it.
"""

from collections.abc import Callable, Collection, Mapping
from string import Formatter
from typing import Any, Final

import orjson

from dxad.errors import ConfigError
from dxad.types import Document, Lane, Record

__all__ = ["PLACES", "Template", "facts", "follow"]

PLACES: Final = ("gateway", "lane", "type", "pipeline", "severity", "id", "source", "subject", "time")
"""What is known of every event; where it has none, the text is empty."""
_LANES: Final = {lane: lane.name.lower() for lane in Lane}
_PIPELINES: Final = "/pipelines/"
"""What stands before a pipeline's name in an event's source."""


def facts(record: Record, event: Document, gateway: str) -> dict[str, str]:
    """What stands in the places for an event, in the structure of CloudEvents' JSON format."""
    data = event.get("data")
    told: Mapping[str, Any] = data if isinstance(data, dict) else {}
    source = str(event.get("source", ""))
    pipeline = told.get("pipeline") or source.partition(_PIPELINES)[2].partition("/")[0]
    return {
        "gateway": gateway,
        "lane": _LANES[record.lane],
        "type": str(event.get("type", "")),
        "pipeline": pipeline if isinstance(pipeline, str) else "",
        "severity": str(told.get("severity", "")),
        "id": record.id,
        "source": source,
        "subject": str(event.get("subject", "")),
        "time": str(event.get("time", "")),
    }


def follow(path: str, document: Mapping[str, Any]) -> Any:
    """What a dotted path leads to, `data.first_out.channel`; a number counts in a list. None: to nothing."""
    found: Any = document
    for step in path.split("."):
        if isinstance(found, Mapping):
            found = found.get(step)
        elif isinstance(found, list) and step.isdigit() and int(step) < len(found):
            found = found[int(step)]
        else:
            return None
    return found


class Template:
    """A text with places."""

    def __init__(self, text: str, known: Collection[str], *, deep: Collection[str] = ()) -> None:
        """Take it apart.

        Args:
            text: the text.
            known: the places that there are.
            deep: of what a path may go on from, as in `{data.limit}`.

        Raises:
            ConfigError: it names a place that there is not, or has a brace without its other one.
        """
        self.text = text
        self._parts: list[tuple[str, str | None]] = []
        try:
            parsed = list(Formatter().parse(text))
        except ValueError as error:
            raise ConfigError(f"{text!r}: {error}; a brace that is meant is written twice") from error
        for literal, name, form, conversion in parsed:
            if name is not None and (form or conversion):
                raise ConfigError(f"{text!r}: {{{name}}} stands alone, without a format")
            if name is not None and name not in known and name.partition(".")[0] not in deep:
                shown = ", ".join(f"{{{each}}}" for each in (*known, *(f"{each}.…" for each in deep)))
                raise ConfigError(f"{text!r}: there is no {{{name}}}; known: {shown}")
            self._parts.append((literal, name))

    @property
    def places(self) -> frozenset[str]:
        """The places that it has."""
        return frozenset(name for _, name in self._parts if name is not None)

    @property
    def sole(self) -> str | None:
        """The place that is all of the text, whose value may be more than text."""
        return self._parts[0][1] if len(self._parts) == 1 and not self._parts[0][0] else None

    def filled(self, find: Callable[[str], Any], escape: Callable[[str], str] = str) -> str:
        """The text with what `find` gives for each place, made fit by `escape`."""
        return "".join(
            literal + ("" if name is None else escape(_text(find(name)))) for literal, name in self._parts
        )


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else orjson.dumps(value).decode()
