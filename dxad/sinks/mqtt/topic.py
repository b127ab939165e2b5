"""Topics that an event fills, and whether one of them may be what a source reads.

dxad/{gateway}/{lane}/{type}  +  an event  ──▶  dxad/gw3/critical/dxad.incident.opened
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from dxad.errors import ConfigError
from dxad.placeholders import Template

__all__ = ["PLACES", "TopicTemplate"]

PLACES: Final = ("gateway", "lane", "type", "pipeline", "severity", "id")
_UNFIT: Final = re.compile(r"[+#/$\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
"""Characters that would make a wildcard or a level, or that brokers may refuse (MQTT 5, 1.5.4 and 4.7)."""
_LEVEL_MAX: Final = 200
"""Characters of what fills a place."""
_KNOWN_MOST: Final = 64
"""Topics that are remembered: to make one takes longer than to write its event as JSON."""
_NOTHING: Final = "-"
"""What stands where an event has nothing, since an empty level is easily overlooked."""


class TopicTemplate:
    """A topic with places."""

    def __init__(self, text: str, *, places: tuple[str, ...] = PLACES) -> None:
        """Take it apart.

        Raises:
            ConfigError: it names a place that there is not, or can be no topic.
        """
        self._template = Template(text, places)
        if not text or "+" in text or "#" in text or "\0" in text or text.startswith("$"):
            raise ConfigError(f"{text!r} is no topic to publish on: it has no + and #, and begins with no $")

        self._places = tuple(self._template.places)
        self._known = lru_cache(_KNOWN_MOST)(self._filled)

    def filled(self, facts: Mapping[str, str]) -> str:
        """The topic of an event; what no topic may hold is replaced by `_`."""
        return self._known(tuple([facts.get(each) for each in self._places]))

    def _filled(self, values: tuple[str | None, ...]) -> str:
        return self._template.filled(dict(zip(self._places, values, strict=True)).get, _level)


def _level(text: str) -> str:
    return _UNFIT.sub("_", text[:_LEVEL_MAX]) or _NOTHING
