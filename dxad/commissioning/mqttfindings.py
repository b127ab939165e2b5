"""What was heard of an MQTT broker is told as: documents, and the configuration that reads it. Pure."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from dxad.commissioning.fragment import fragment, name_for
from dxad.commissioning.mqttshapes import Alike, alike
from dxad.commissioning.payloads import Found
from dxad.commissioning.topics import Topic, period_text
from dxad.types import Document

__all__ = ["mqtt_fragment", "topic_document"]

_SOURCES: Final = 16
"""In one fragment."""
_CHANNELS: Final = 64
"""Of one source in it."""
_SLOW: Final = 2.0
"""Periods for which a value is good by itself."""
_RARE_S: Final = 20.0
"""The period of what came once, for want of a better one."""
_TOLD: Final = 10


def mqtt_fragment(
    name: str, url: str, login: Mapping[str, Any], topics: Sequence[Topic], *, version: str
) -> str:
    """The configuration that reads the numbers on these topics.

    Args:
        name: of the source, or before the names of several.
        url: of the broker.
        login: the keys by which to enter.
        topics: that were seen.
        version: of the protocol that the broker spoke.
    """
    usable = [each for each in topics if each.payload.decode and each.payload.numbers]
    fleets, single = alike(usable, most=_SOURCES)
    groups: list[Alike | list[Topic]] = sorted(
        [*fleets, *_groups(single)], key=lambda group: -sum(each.count for each in _topics_of(group))
    )
    left = [each for each in topics if each not in usable]
    head = [f"nothing can be read of {each.name}: {each.payload.kind}" for each in left[:_TOLD]]
    if len(groups) > _SOURCES:
        head.append(f"{len(groups) - _SOURCES} more kinds of messages: give a narrower filter")
    settings = {"type": "mqtt", "url": url, **login}
    if version != "5":
        settings["version"] = version
    names: list[str] = []
    parts = []
    for group in groups[:_SOURCES]:
        after = group.called if isinstance(group, Alike) else _common(group)
        called = name if len(groups) == 1 else name_for(f"{name}_{after}".rstrip("_"), names)
        names.append(called)
        if isinstance(group, Alike):
            parts.append(_fleet(called, settings, group))
        elif len(group) == 1:
            parts.append(_one(called, settings, group[0]))
        else:
            parts.append(_many(called, settings, group))
    remarks = "".join(f"# {line}\n" for line in head)
    return remarks + ("\n".join(parts) or "# no message with numbers came\n")


def _groups(topics: Iterable[Topic]) -> list[list[Topic]]:
    """Topics that one source can read: bare numbers; others have one of their own."""
    found: dict[str, list[Topic]] = {}
    for each in topics:
        found.setdefault("" if each.payload.kind == "number" else each.name, []).append(each)
    return list(found.values())


def _topics_of(group: Alike | Sequence[Topic]) -> Sequence[Topic]:
    return group.topics if isinstance(group, Alike) else group


def _common(group: Sequence[Topic]) -> str:
    if len(group) == 1:
        return _leaf(group[0])
    levels = [each.name.split("/")[:-1] for each in group]
    shared = [same[0] for same in zip(*levels, strict=False) if len(set(same)) == 1]
    return shared[-1] if shared else group[0].payload.kind


def _leaf(topic: Topic) -> str:
    return topic.name.rpartition("/")[2] or topic.name


def _fleet(name: str, settings: Mapping[str, Any], group: Alike) -> str:
    """The source of many devices."""
    place = {"topic": group.template, "devices": group.listed}
    if not group.channels:
        return _one(name, settings, group.topics[0], place=place, like=group.topics)
    keys = {**settings, **place, **_period(group.topics), "decode": group.topics[0].payload.decode}
    remarks = _doubt(group.topics)
    shortest_s = _shortest_s(group.topics)
    channels: dict[str, dict[str, Any]] = {}
    for channel in group.channels[:_CHANNELS]:
        mine = [each for each in group.topics if _leaf(each) == channel]
        own_s = max(each.period_s or _RARE_S for each in mine)
        channels[channel] = {"hold": period_text(3 * own_s)} if own_s > _SLOW * shortest_s else {}
        remarks[channel] = _range(each.payload.numbers[0] for each in mine)
    return fragment(name, keys, channels, remarks=remarks)


def _range(found: Iterable[Found]) -> str:
    bounds = [(each.low, each.high) for each in found]
    return f"{min(low for low, _ in bounds):.6g} to {max(high for _, high in bounds):.6g}"


def _one(
    name: str,
    settings: Mapping[str, Any],
    topic: Topic,
    *,
    place: Mapping[str, Any] | None = None,
    like: Sequence[Topic] = (),
) -> str:
    """The source of one topic; or of those that are `like` it, which is then the first of them."""
    payload = topic.payload
    group = like or [topic]
    keys: dict[str, Any] = {**settings, **(place or {"topic": topic.name}), **_period(group)}
    remarks = _doubt(group)
    if payload.samples > 1:
        keys["clock"] = "device" if payload.time else "counted"
        keys |= {"time": payload.time} if payload.time else {}
    elif payload.time is not None:
        remarks["topic"] = f'clock = "device" with time = "{payload.time}" would take the time of the device'
    if payload.decode != {"kind": "json"}:
        keys["decode"] = payload.decode
    if payload.note:
        remarks["decode"] = payload.note
    channels = payload.channels(_CHANNELS)
    if payload.kind == "number":
        channels = {name_for(_leaf(topic)): {}}
    for channel, found in zip(channels, payload.numbers, strict=False):
        same = (each for other in group for each in other.payload.numbers if each.path == found.path)
        remarks[channel] = _range(same)
    return fragment(name, keys, channels, remarks=remarks)


def _many(name: str, settings: Mapping[str, Any], group: Sequence[Topic]) -> str:
    """The source of several topics with a number each."""
    keys = {**settings, **_period(group), "decode": group[0].payload.decode}
    remarks = _doubt(group)
    shortest_s = _shortest_s(group)
    channels: dict[str, dict[str, Any]] = {}
    for each in group[:_CHANNELS]:
        leaf = _leaf(each)
        plain = name_for(leaf)
        channel = plain if plain not in channels else name_for("_".join(each.name.split("/")[-2:]), channels)
        own_s = each.period_s or _RARE_S
        channels[channel] = {"topic": each.name}
        if own_s > _SLOW * shortest_s:
            channels[channel]["hold"] = period_text(3 * own_s)
        remarks[channel] = _range(each.payload.numbers[:1])
    return fragment(name, keys, channels, remarks=remarks)


def _shortest_s(group: Iterable[Topic]) -> float:
    return min((each.period_s for each in group if each.period_s is not None), default=1.0)


def _period(group: Sequence[Topic]) -> dict[str, str]:
    return {"period": period_text(_shortest_s(group))}


def _doubt(group: Sequence[Topic]) -> dict[str, str]:
    if any(each.period_s is not None for each in group):
        return {}
    return {"period": "a guess: no two messages came, other than retained ones"}


def topic_document(topic: Topic) -> Document:
    """All of it, for programs."""
    payload = topic.payload
    return {
        "topic": topic.name,
        "messages": topic.count,
        "retained": topic.retained,
        "bytes": topic.size,
        "too_long": topic.too_long,
        "interval_s": topic.interval_s,
        "period_s": topic.period_s,
        "kind": payload.kind,
        "share": payload.share,
        "decode": payload.decode,
        "samples": payload.samples,
        "time": payload.time,
        "note": payload.note,
        "fields": [
            {
                "path": each.path,
                "kind": each.kind,
                "seen": each.seen,
                "low": each.low if math.isfinite(each.low) else None,
                "high": each.high if math.isfinite(each.high) else None,
                "last": each.last,
            }
            for each in payload.fields
        ],
    }
