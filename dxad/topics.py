"""Whether what a sink publishes is what a source reads: dxad never writes to a field device.

    sink   plant/{pipeline}/{lane}   ─▶  plant / anything / critical, normal or bulk
    source plant/+/critical                     a topic that is both: refused

Both are told by their sections: a source's by `filters`, a sink's by `topics`, and both have a `url`. Brokers
are told apart by the names that the configuration gives them, all names of this machine being one.
"""

import re
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any, Final, Protocol, runtime_checkable
from urllib.parse import urlsplit

__all__ = ["Key", "mistaken"]

Key = tuple[str | int, ...]

_HERE: Final = frozenset({"localhost", "127.0.0.1", "::1", "0.0.0.0", "ip6-localhost"})  # noqa: S104 - read, not bound
_PORTS: Final = {"mqtt": 1883, "mqtts": 8883}
_PLACE: Final = re.compile(r"\{([a-z]+)\}")
_WILD: Final = ("+", "#")


@runtime_checkable
class _Reading(Protocol):
    @property
    def url(self) -> str: ...
    def filters(self) -> list[str]: ...


@runtime_checkable
class _Publishing(Protocol):
    @property
    def url(self) -> str: ...
    def topics(self) -> tuple[str, ...]: ...


def mistaken(sources: Mapping[str, Any], sinks: Mapping[str, Any], gateway: str) -> Iterator[tuple[Key, str]]:
    """What is wrong with the topics of these sinks, beside these sources: the key, and the reason."""
    publishing = {name: each for name, each in sinks.items() if isinstance(each, _Publishing)}
    for name, sink in publishing.items():
        for topic in sink.topics():
            for other, source in sources.items():
                if not isinstance(source, _Reading) or _broker(source.url) != _broker(sink.url):
                    continue
                if read := next((each for each in source.filters() if _meet(each, topic, gateway)), None):
                    text = f"{topic!r} may be a topic that sources.{other} reads ({read!r}), and dxad writes "
                    yield (
                        ("sinks", name, _key(sink, topic)),
                        text + "nothing there; publish elsewhere, or read less",
                    )
                    break
    for (one, first), (two, second) in combinations(publishing.items(), 2):
        status = getattr(second, "status", "")
        if status and status == getattr(first, "status", "") and _broker(first.url) == _broker(second.url):
            yield (
                ("sinks", two, "status"),
                f'{status!r} is what sinks.{one} says, too: another one, or "" for none',
            )


def _key(sink: _Publishing, topic: str) -> str:
    return "status" if topic == getattr(sink, "status", "") else "topic"


def _broker(url: str) -> tuple[str, int]:
    split = urlsplit(url)
    host = split.hostname or ""
    return "localhost" if host in _HERE else host, split.port or _PORTS.get(split.scheme, 0)


def _meet(read: str, published: str, gateway: str) -> bool:
    """Whether a topic filter takes a topic that a template may become."""
    if read.startswith("$share/"):
        read = read.split("/", 2)[2]
    published = published.replace("{gateway}", gateway)
    wanted, made = read.split("/"), published.split("/")
    for place, level in enumerate(wanted):
        if level == "#":
            return True
        if place >= len(made) or (level != "+" and not _may_be(made[place], level)):
            return False
    return len(wanted) == len(made)


def _may_be(template: str, level: str) -> bool:
    """Whether a level of a template, whose places may become anything, may become this level."""
    parts = _PLACE.split(template)
    pattern = "".join(".+" if place % 2 else re.escape(each) for place, each in enumerate(parts))
    return re.fullmatch(pattern, level) is not None
