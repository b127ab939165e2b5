"""Topics of one shape: the same but for a level that names a device, and perhaps the channel. Pure.

plant/pump1/flow  plant/pump1/power                  ─▶ plant/{device}/{channel}   bare numbers
plant/pump2/flow  plant/pump2/power
site/7/state {"t": 21.5}    site/8/state {"t": 20}   ─▶ site/{device}/state        the same fields in each
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from dxad.commissioning.fragment import name_for
from dxad.commissioning.topics import Topic
from dxad.sources.mqtt.topic import CHANNEL, DEVICE

__all__ = ["Alike", "alike"]

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
"""What a channel or a device may be called."""
_DEVICES_MOST: Final = 200
_SHARED: Final = 0.75
"""So much of what it and most others have, a device must have: what is sent seldom may not have come yet."""
_BARE: Final = "number"

_Key = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Alike:
    """Topics that one source with a template can read."""

    template: str
    devices: Mapping[str, str]
    """By name, the level in the topic."""
    channels: Sequence[str]
    """Of bare numbers, the last levels of the topics; nothing where each message has all channels."""
    topics: Sequence[Topic]

    @property
    def listed(self) -> list[str] | dict[str, str]:
        """The devices as a configuration has them."""
        plain = all(name == level for name, level in self.devices.items())
        return list(self.devices) if plain else dict(self.devices)

    @property
    def called(self) -> str:
        """What the source may be called after: the last level that all have."""
        fixed = [each for each in self.template.split("/") if each not in (DEVICE, CHANNEL)]
        return fixed[-1] if fixed else self.topics[0].payload.kind


def alike(topics: Iterable[Topic], *, most: int) -> tuple[list[Alike], list[Topic]]:
    """Topics that share a shape, the largest groups first, so many at most; and all the others."""
    left = {each.name: each for each in topics}
    fields = {name: _fields(each) for name, each in left.items()}
    found: list[Alike] = []
    while len(found) < most:
        best = max(_groups(left.values(), fields), key=_rank, default=None)
        if best is None:
            break
        found.append(best)
        for each in best.topics:
            del left[each.name]
    return found, list(left.values())


def _rank(group: Alike) -> tuple[int, int]:
    """More topics are better, and then the level that stands further behind."""
    return len(group.topics), group.template.split("/").index(DEVICE)


def _groups(topics: Iterable[Topic], fields: Mapping[str, str]) -> Iterator[Alike]:
    """Every way in which some of the topics are alike."""
    numbers: dict[_Key, dict[str, dict[str, Topic]]] = {}
    others: dict[_Key, dict[str, Topic]] = {}
    for each in topics:
        levels = each.name.split("/")
        if each.payload.kind == _BARE:
            if not _NAME.fullmatch(levels[-1]):
                continue
            for at, device in enumerate(levels[:-1]):
                key = (at, *levels[:at], None, *levels[at + 1 : -1])
                numbers.setdefault(key, {}).setdefault(device, {})[levels[-1]] = each
        else:
            for at, device in enumerate(levels):
                others.setdefault((at, *levels[:at], None, *levels[at + 1 :], fields[each.name]), {})[
                    device
                ] = each
    for (_, *shape), by_device in numbers.items():
        yield from _of_numbers("/".join([*map(_placed, shape), CHANNEL]), by_device)
    for (_, *shape, _), by_level in others.items():
        if 1 < len(by_level) <= _DEVICES_MOST and all(by_level):
            template = "/".join(map(_placed, shape))
            yield Alike(template, _named(by_level), (), list(by_level.values()))


def _placed(level: object) -> str:
    return DEVICE if level is None else str(level)


def _of_numbers(template: str, by_device: Mapping[str, Mapping[str, Topic]]) -> Iterator[Alike]:
    """The devices that have the same channels as most of them, or nearly so."""
    usual, _ = max(
        Counter(frozenset(each) for each in by_device.values()).items(),
        key=lambda item: (item[1], len(item[0]), sorted(item[0])),
    )
    mine = {
        device: channels
        for device, channels in by_device.items()
        if device and len(usual & channels.keys()) >= _SHARED * len(usual | channels.keys())
    }
    if 1 < len(mine) <= _DEVICES_MOST:
        names = dict.fromkeys(channel for channels in mine.values() for channel in channels)
        found = [topic for channels in mine.values() for topic in channels.values()]
        yield Alike(template, _named(mine), list(names), found)


def _fields(topic: Topic) -> str:
    """What tells messages apart that one decoder cannot read."""
    payload = topic.payload
    paths = sorted(each.path for each in payload.numbers)
    return json.dumps([payload.decode, paths, payload.time, payload.samples > 1], sort_keys=True)


def _named(levels: Iterable[str]) -> dict[str, str]:
    made: dict[str, str] = {}
    for level in levels:
        made[level if _NAME.fullmatch(level) and level not in made else name_for(level, made)] = level
    return made
