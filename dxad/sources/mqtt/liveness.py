"""Which devices are alive: proved by a heartbeat, by their status, or by what they send.

heartbeat plant/{device}/alive ──▶ alive for max_age
status    plant/{device}/state ──▶ online: alive until it says, or its last will, that it is not
values    plant/{device}/…     ──▶ without a heartbeat, alive for max_age

A broker that answers proves nothing of a device behind it. When a proof ends, each channel of the device gets
one BAD sample: it says why, and takes back what is held by session. Where none of this is asked for, nothing
of it is done.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from dxad.runtime.clock import Clock
from dxad.sources.mqtt.section import Config
from dxad.sources.mqtt.topic import DEVICE, device_in, filter_of, matches
from dxad.types import NS_PER_S, Reason

__all__ = ["EVERYTHING", "Liveness"]

EVERYTHING: Final = ""
"""What is told of the source as a whole."""
_SUBJECTS_MOST: Final = 2_000
_TOPICS_MOST: Final = 10_000
_SHOWN: Final = 40

_Sign = Literal["heartbeat", "status", "values"]


@dataclass(slots=True)
class _Subject:
    """A device, or everything."""

    until: int | None
    """The stream time up to which it is proved alive; None as long as its status says so."""
    dead: bool = False


class Liveness:
    """Listens to signs of life."""

    def __init__(
        self,
        config: Config,
        clock: Clock,
        *,
        died: Callable[[str, Reason], None],
        reject: Callable[[str], None],
    ) -> None:
        """Tell `died` of a device, or of everything, and why; and `reject` of a status that is none."""
        self._signs: list[tuple[_Sign, str]] = []
        if config.heartbeat is not None:
            self._signs.append(("heartbeat", config.heartbeat))
        if config.status is not None:
            self._signs.append(("status", config.status.topic))
        self._status = config.status
        self._by_values = config.heartbeat is None and config.max_age is not None
        values = [each.topic for each in config.subscriptions()]
        if self._by_values or any((DEVICE in topic) == bool(config.groups) for _, topic in self._signs):
            self._signs += [("values", topic) for topic in values]
        self._aging = {DEVICE in topic for sign, topic in self._signs if sign == "heartbeat"}
        """Whether it is devices, or everything, whose proof has an end unless it is renewed."""
        if self._by_values:
            self._aging.add(bool(config.groups))
        self._max_age = config.proof
        self._clock = clock
        self._died = died
        self._reject = reject
        self._of_topic: dict[str, Sequence[tuple[_Sign, str]]] = {}
        self._subjects: dict[str, _Subject] = {}
        self._timer: asyncio.TimerHandle | None = None
        self.ends: dict[str, int] = {}
        """How often a proof has ended, by what is told of it."""

    def begin(self) -> None:
        """There is a connection: who was alive before has some time to prove it anew."""
        until = self._clock.now() + self._max_age
        if not all(DEVICE in topic for _, topic in self._signs):
            self._subjects.setdefault(EVERYTHING, _Subject(until))
        for each in self._subjects.values():
            each.until, each.dead = until, False
        self._look()

    def end(self) -> None:
        """There is no connection: nothing can be told of anybody."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def hear(self, topic: str, payload: bytes, *, retained: bool) -> None:
        """A message came; one that the broker had kept proves nothing, but for a status."""
        found = self._of_topic.get(topic)
        for sign, device in self._told_by(topic) if found is None else found:
            subject = self._subjects.get(device) or self._new(device)
            if subject is None:
                continue
            if sign == "status":
                self._hear_status(device, subject, payload)
            elif not retained and (sign == "heartbeat" or self._by_values or subject.dead):
                subject.until, subject.dead = self._clock.now() + self._max_age, False

    def _told_by(self, topic: str) -> Sequence[tuple[_Sign, str]]:
        found: list[tuple[_Sign, str]] = []
        for sign, template in self._signs:
            if matches(filter_of(template), topic):
                found.append((sign, device_in(template, topic) if DEVICE in template else EVERYTHING))
        if len(self._of_topic) >= _TOPICS_MOST:
            self._of_topic.clear()
        self._of_topic[topic] = found
        return found

    def _new(self, device: str) -> _Subject | None:
        if len(self._subjects) >= _SUBJECTS_MOST:
            return None
        made = self._subjects[device] = _Subject(self._clock.now() + self._max_age)
        self._look()
        return made

    def _hear_status(self, device: str, subject: _Subject, payload: bytes) -> None:
        assert self._status is not None
        told = self._status.word(payload)
        if told == self._status.online:
            aging = (device != EVERYTHING) in self._aging
            subject.until = self._clock.now() + self._max_age if aging else None
            subject.dead = False
        elif told == self._status.offline:
            self._end(device, subject, Reason.DEVICE)
        elif told:  # an empty one clears what was kept
            known = f"{self._status.online!r} nor {self._status.offline!r}"
            self._reject(f"the status {told[:_SHOWN]!r} is neither {known}")

    def _end(self, device: str, subject: _Subject, reason: Reason) -> None:
        if subject.dead:
            return
        subject.dead = True
        told = "offline" if reason is Reason.DEVICE else "no sign of life"
        told = f"{told}: {device}" if device else told
        self.ends[told] = self.ends.get(told, 0) + 1
        self._died(device, reason)

    def _look(self) -> None:
        """See whose proof has ended, and look again when the next one may."""
        self.end()
        now = self._clock.now()
        ahead = []
        for device, subject in self._subjects.items():
            if subject.until is None or subject.dead:
                continue
            if subject.until <= now:
                self._end(device, subject, Reason.TIMEOUT)
            else:
                ahead.append(subject.until)
        # Who is heard meanwhile proves himself for longer; who comes back from the dead, for as long as this.
        wait = min(min(ahead, default=now + self._max_age) - now, self._max_age)
        self._timer = asyncio.get_running_loop().call_later(wait / NS_PER_S + 0.001, self._look)
