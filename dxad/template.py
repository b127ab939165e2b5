"""A pipeline that is written once for many equal machines: `for_each`.

    [pipelines.pump]                                   [pipelines.pump-a]
    for_each = ["a", "b"]                        ─▶    channels = ["plc.flow_a", "plc.power_a"]
    channels = ["plc.flow_{each}", "plc.power_{each}"] model = { type = "tflite", path = "models/pump/a" }
    model = { type = "tflite", path = "models/pump" }  [pipelines.pump-b] …

`for_each` is a list of names, or a pattern of channels with one `*`: `"plc.flow_*"` names what stands for the
star. Each machine gets a pipeline of its own, with its own model, limits and alarms; a model's `path` without
`{each}` is taken as a folder with a place for each.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from dxad.tomlines import Key

__all__ = ["KEY", "Expansion", "expand"]

KEY: Final = "for_each"
_PLACE: Final = "{each}"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_MOST: Final = 1000
"""Pipelines of one template."""


class Expansion:
    """A document in which every template has become its pipelines, and what was wrong with them."""

    def __init__(self, document: dict[str, Any], lines: Mapping[Key, str]) -> None:
        self.document = document
        self.lines = dict(lines)
        self.mistakes: list[tuple[Key, str]] = []


def expand(document: Mapping[str, Any], lines: Mapping[Key, str], channels: Iterable[str]) -> Expansion:
    """Replace each pipeline that has a `for_each` by one for each of its machines.

    Args:
        document: as read from TOML; it is left as it is.
        lines: where each key of it stands; the keys of a new pipeline stand where the template's do.
        channels: the ids of all channels, for patterns.
    """
    made = Expansion(dict(document), lines)
    pipelines = document.get("pipelines")
    if not isinstance(pipelines, dict) or not any(_is_template(raw) for raw in pipelines.values()):
        return made
    known = tuple(channels)
    found: dict[str, Any] = {}
    for name, raw in pipelines.items():
        if not _is_template(raw):
            found[name] = raw
            continue
        at = ("pipelines", name, KEY)
        try:
            names = _names(raw[KEY], known)
        except ValueError as error:
            made.mistakes.append((at, str(error)))
            continue
        body = {key: value for key, value in raw.items() if key != KEY}
        for each in names:
            if f"{name}-{each}" in pipelines or f"{name}-{each}" in found:
                made.mistakes.append((at, f"there is a pipeline {name}-{each} already"))
            found[f"{name}-{each}"] = _with_own_model(_filled(body, each), body, each)
            made.lines.update(_moved(lines, name, f"{name}-{each}"))
    made.document["pipelines"] = found
    return made


def _is_template(raw: Any) -> bool:
    return isinstance(raw, dict) and KEY in raw


def _names(asked: Any, channels: tuple[str, ...]) -> list[str]:
    if isinstance(asked, str):
        before, star, after = asked.partition("*")
        if not star or "*" in after:
            raise ValueError('expected a list of names, or a pattern with one "*", such as "plc.flow_*"')
        pattern = re.compile(re.escape(before) + f"({_NAME.pattern})" + re.escape(after))
        names = [match[1] for channel in channels if (match := pattern.fullmatch(channel))]
        if not names:
            raise ValueError(f"no channel matches {asked!r}")
    elif isinstance(asked, list) and asked and all(isinstance(each, str) for each in asked):
        names = asked
    else:
        raise ValueError('expected a list of names, or a pattern with one "*", such as "plc.flow_*"')
    for each in names:
        if not _NAME.fullmatch(each):
            raise ValueError(f"{each!r} is no name: letters, digits, _ and -")
    if len(set(names)) < len(names):
        raise ValueError("a name stands in it twice")
    if len(names) > _MOST:
        raise ValueError(f"{len(names)} pipelines of one template; {_MOST} at most")
    return names


def _filled(value: Any, each: str) -> Any:
    """The same with the name in its place, however deep."""
    if isinstance(value, str):
        return value.replace(_PLACE, each)
    if isinstance(value, dict):
        return {key: _filled(inner, each) for key, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, each) for inner in value]
    return value


def _with_own_model(filled: dict[str, Any], template: Mapping[str, Any], each: str) -> dict[str, Any]:
    """Two machines do not share a model: a path that is the same for all gets a folder for each."""
    model = template.get("model")
    if isinstance(model, dict) and isinstance(model.get("path"), str) and _PLACE not in model["path"]:
        filled["model"] = {**filled["model"], "path": f"{model['path']}/{each}"}
    return filled


def _moved(lines: Mapping[Key, str], old: str, new: str) -> Iterator[tuple[Key, str]]:
    for key, where in lines.items():
        if key[:2] == ("pipelines", old):
            yield ("pipelines", new, *key[2:]), where
