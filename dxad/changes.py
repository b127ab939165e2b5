"""What is different between two configurations, and what has to be done about it: a reload is a diff.

After vector's `src/config/diff.rs`: only what changed is swapped, whatever is equal keeps running untouched.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from dxad.config import Config, PipelineSection, shape
from dxad.fields import Section
from dxad.shape import Shape
from dxad.types import Document

__all__ = ["NONE", "Change", "Changes", "Fate", "diff"]

Fate = Literal["added", "removed", "rebuilt", "adjusted", "set"]
"""What becomes of a node: `rebuilt` is made anew, `adjusted` goes on with other settings and loses nothing.

`set` is what becomes of a setting of the gateway as a whole."""

_KINDS: Final = ("sources", "pipelines", "sinks", "telemetry")
_LIVE: Final = frozenset({
    "profile", "memory_max", "log", "gateway.heartbeat", "gateway.tell", "gateway.tell_after",
    "outbox.max_size", "outbox.consumer_ttl", "outbox.consumers", "outbox.keep", "outbox.keep_damaged",
    "outbox.wear_budget", "outbox.lanes.critical", "outbox.lanes.normal", "outbox.lanes.bulk",
    "incidents.budget_per_hour", "incidents.critical_per_hour", "incidents.reopen_within",
    "incidents.evidence.before", "incidents.evidence.after", "incidents.evidence_files",
    "incidents.evidence_size",
})  # fmt: skip
"""Settings that can change while the daemon runs; all others want a restart."""
_JUDGING: Final = frozenset({"alarm", "alarms", "learn", "deadline", "promotion"})
"""Keys of a pipeline that neither its rows nor their scores depend on."""
_SCORING: Final = frozenset({"model", "window", "hop", "required"})
"""Keys of a pipeline that mean another detector over the same rows."""
_LEARNING: Final = frozenset({"model", "learn"})
"""Keys of a pipeline that mean another learning service."""


@dataclass(frozen=True, slots=True)
class Change:
    """What happens to one node or one setting."""

    node: str
    """`sources.vib`, `pipelines.pump`, `sinks.log`; of a setting its key, such as `outbox.max_size`."""
    fate: Fate
    keys: tuple[str, ...] = ()
    """The keys inside the node that differ."""
    because: tuple[str, ...] = ()
    """The sources that differ, for a pipeline that has to be made anew since it reads them."""

    @property
    def rescored(self) -> bool:
        """Whether a pipeline that goes on gets another detector."""
        return self.fate == "adjusted" and bool(_heads(self.keys) & _SCORING)

    @property
    def relearned(self) -> bool:
        """Whether a pipeline gets another learning service."""
        return self.fate == "rebuilt" or bool(_heads(self.keys) & _LEARNING)

    def __str__(self) -> str:
        if self.fate == "set":
            return f"{self.node} changed"
        if self.fate in ("added", "removed"):
            return f"{self.node} {self.fate}"
        what = [", ".join(self.keys)] if self.keys else []
        what += [f"it reads {', '.join(self.because)}"] if self.because else []
        return f"{self.node} changed: {'; '.join(what) or 'the order of its channels'}"


@dataclass(frozen=True, slots=True)
class Changes:
    """Everything that differs, in the order of sources, pipelines, sinks, telemetry, then settings."""

    found: tuple[Change, ...]
    restart: tuple[str, ...]
    """Keys that differ and cannot be changed while the daemon runs."""
    untouched: int
    """How many sources, pipelines, sinks and sections of telemetry are as they were."""

    def __bool__(self) -> bool:
        """Whether anything is different."""
        return bool(self.found or self.restart)

    def of(self, kind: str, name: str) -> Change | None:
        """What happens to a node; None if nothing does."""
        return next((each for each in self.found if each.node == f"{kind}.{name}"), None)

    def fate(self, kind: str, name: str) -> Fate | None:
        """The same in a word."""
        change = self.of(kind, name)
        return None if change is None else change.fate

    def lines(self) -> list[str]:
        """For people, one for each."""
        return [*map(str, self.found), *(f"{key} changed: this wants a restart" for key in self.restart)]

    def __str__(self) -> str:
        """On one line, for the log."""
        nodes = "1 node" if self.untouched == 1 else f"{self.untouched} nodes"
        return "; ".join([*(self.lines() or ["nothing changed"]), f"{nodes} untouched"])

    def document(self) -> Document:
        """As a JSON object."""
        return {
            "changes": [
                {"node": each.node, "fate": each.fate, "keys": list(each.keys), "because": list(each.because)}
                for each in self.found
            ],
            "restart": list(self.restart),
            "untouched": self.untouched,
        }


NONE: Final = Changes((), (), 0)
"""Nothing is different."""


def diff(old: Config, new: Config) -> Changes:
    """What becomes of everything when `new` takes the place of `old`; both are sound."""
    sources = [*_nodes("sources", old.sources, new.sources)]
    touched = {each.node for each in sources}
    nodes = [
        *sources,
        *_pipelines(old, new, touched),
        *_nodes("sinks", old.sinks, new.sinks),
        *_nodes("telemetry", old.telemetry, new.telemetry),
    ]
    settings = [key for key in _differing(old, new) if key.split(".")[0] not in _KINDS]
    total = sum(len(getattr(new, kind)) for kind in _KINDS)
    return Changes(
        (*nodes, *(Change(key, "set") for key in settings if _is_live(key))),
        tuple(key for key in settings if not _is_live(key)),
        total - sum(each.fate != "removed" for each in nodes),
    )


def _is_live(key: str) -> bool:
    """Whether a setting, or a place in one that is an array, can change while the daemon runs."""
    return not _LIVE.isdisjoint((key, key.rpartition(".")[0])) or key.startswith("consumers.")


def _nodes(kind: str, old: Mapping[str, Section], new: Mapping[str, Section]) -> Iterator[Change]:
    for name, before, after in _paired(old, new):
        node = f"{kind}.{name}"
        if before is None or after is None:
            yield Change(node, "added" if before is None else "removed")
        elif keys := tuple(_differing(before, after)):
            yield Change(node, "rebuilt", keys)


def _pipelines(old: Config, new: Config, touched: set[str]) -> Iterator[Change]:
    for name, before, after in _paired(old.pipelines, new.pipelines):
        node = f"pipelines.{name}"
        if before is None or after is None:
            yield Change(node, "added" if before is None else "removed")
            continue
        keys = tuple(_differing(before, after))
        because, reshaped = _inputs(before, after, old, new, touched)
        first = (before.model is None) != (after.model is None)
        if because or reshaped or first or _heads(keys) - _JUDGING - _SCORING:
            yield Change(node, "rebuilt", keys, because)
        elif keys:
            yield Change(node, "adjusted", keys)


def _inputs(
    before: PipelineSection, after: PipelineSection, old: Config, new: Config, touched: set[str]
) -> tuple[tuple[str, ...], bool]:
    """The changed sources that a pipeline reads, or read; and whether its rows look different."""
    was, becomes = shape(before, old.sources), shape(after, new.sources)
    read = sorted(f"sources.{name}" for name in _read(was) | _read(becomes))
    return tuple(each for each in read if each in touched), was != becomes


def _read(rows: Shape) -> set[str]:
    return {name for name, columns in rows.feeds if columns} | {each.source for each in rows.features}


def _paired(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Each name with its section before and after: those that stay or go in their order, then those new."""
    for name in {**old, **new}:
        yield name, old.get(name), new.get(name)


def _heads(keys: tuple[str, ...]) -> set[str]:
    return {key.split(".")[0] for key in keys}


def _differing(old: Any, new: Any, at: str = "") -> Iterator[str]:
    """The dotted keys at which two values differ; places in arrays are keys too."""
    if isinstance(old, Section) and type(old) is type(new):
        for name, field in type(old).model_fields.items():
            yield from _differing(getattr(old, name), getattr(new, name), _under(at, field.alias or name))
    elif isinstance(old, Mapping) and isinstance(new, Mapping):
        if list(old) != list(new) and sorted(old) == sorted(new):
            yield at  # the order of channels is the order of columns
        for name in {**old, **new}:
            if name in old and name in new:
                yield from _differing(old[name], new[name], _under(at, name))
            else:
                yield _under(at, name)
    elif isinstance(old, tuple) and isinstance(new, tuple) and len(old) == len(new):
        for place, (before, after) in enumerate(zip(old, new, strict=True)):
            yield from _differing(before, after, _under(at, str(place)))
    elif old != new:
        yield at or "type"


def _under(at: str, name: str) -> str:
    return f"{at}.{name}" if at else name
