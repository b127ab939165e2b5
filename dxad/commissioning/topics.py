"""What comes on the topics of an MQTT broker: how often, and made of what. Pure.

messages ─▶ Tally, bounded in topics and bytes ─▶ Topic
"""

import math
import statistics
from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from dxad.commissioning.payloads import Payload, payload_of

__all__ = ["Tally", "Topic", "period_text", "usual_period_s"]

_KEPT: Final = 50
"""Payloads of each topic."""
_KEPT_BYTES: Final = 65_536
"""Of each payload; a longer one is counted, and not looked into."""
_ARRIVALS: Final = 500
_USUAL_S: Final = (
    0.001, 0.002, 0.005, 0.01, 0.02, 0.025, 0.04, 0.05, 0.1, 0.2, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 20.0,
    30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0,
)  # fmt: skip
_NEAR: Final = 0.15


@dataclass(slots=True)
class Topic:
    """What came on one topic."""

    name: str
    count: int = 0
    retained: int = 0
    size: int = 0
    """Bytes of all its payloads."""
    too_long: int = 0
    payloads: deque[bytes] = field(default_factory=lambda: deque(maxlen=_KEPT))
    arrivals: deque[float] = field(default_factory=lambda: deque(maxlen=_ARRIVALS))
    """Of messages that were not retained, the loop's time."""
    payload: Payload = field(default_factory=lambda: Payload("empty"))
    """What they are made of, once all are here."""

    @property
    def interval_s(self) -> float | None:
        """From one message to the next, in the middle; None where there were fewer than two."""
        gaps = [after - before for before, after in pairwise(self.arrivals)]
        return statistics.median(gaps) if gaps else None

    @property
    def period_s(self) -> float | None:
        """From one sample to the next, as the device probably means it."""
        if len(self.arrivals) < 2:
            return None
        mean = (self.arrivals[-1] - self.arrivals[0]) / (len(self.arrivals) - 1)
        middle = self.interval_s or mean
        # What the network holds back comes in bunches: then the mean is right, else the middle.
        apart = mean if middle < mean / 2 else middle
        return usual_period_s(apart / self.payload.samples) if apart > 0 else None


def usual_period_s(seconds: float) -> float:
    """The period that people choose, near this one; else this one, to three digits."""
    near = min(_USUAL_S, key=lambda usual: abs(math.log(usual / seconds)))
    if abs(near / seconds - 1) <= _NEAR:
        return near
    return max(0.001, float(f"{seconds:.3g}"))


def period_text(seconds: float) -> str:
    """As a configuration has it."""
    if seconds >= 1 and seconds == int(seconds):
        return f"{int(seconds)}s"
    return f"{seconds * 1000:g}ms"


class Tally:
    """Counts messages by topic."""

    def __init__(self, *, topics_most: int, bytes_most: int) -> None:
        """Remember so many topics; it is `full` after so many bytes of payload."""
        self.topics: dict[str, Topic] = {}
        self.others = 0
        """Messages of topics that found no room."""
        self.bytes = 0
        self.messages = 0
        self._topics_most = topics_most
        self._bytes_most = bytes_most

    @property
    def full(self) -> bool:
        """Whether enough has come."""
        return self.bytes >= self._bytes_most

    def message(self, topic: str, payload: bytes, *, retained: bool, now: float) -> Topic | None:
        """One came; returns its topic if that is a new one."""
        self.messages += 1
        self.bytes += len(payload)
        found, new = self.topics.get(topic), False
        if found is None:
            if len(self.topics) >= self._topics_most:
                self.others += 1
                return None
            found = self.topics[topic] = Topic(topic)
            new = True
        found.count += 1
        found.size += len(payload)
        if retained:
            found.retained += 1
        else:
            found.arrivals.append(now)
        if len(payload) > _KEPT_BYTES:
            found.too_long += 1
        else:
            found.payloads.append(bytes(payload))
        return found if new else None

    def judged(self) -> list[Topic]:
        """All topics by name, each with what its payloads are made of."""
        for each in self.topics.values():
            each.payload = payload_of(tuple(each.payloads))
        return sorted(self.topics.values(), key=lambda each: each.name)
