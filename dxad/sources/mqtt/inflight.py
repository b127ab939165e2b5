"""How many messages a broker sends before it is told of the first, as far as can be seen.

A client of MQTT 5 says how many it takes (3.1.2.11.3). Many brokers have a smaller maximum of their own, and
none tells it. One that has come to it is silent, and sends the next ones as soon as it is told.
"""

from typing import Final

__all__ = ["InFlight"]

_USUAL: Final = 20
"""Of brokers that cannot be told: mosquitto.conf(5), max_inflight_messages."""
_QUIET_S: Final = 0.2
"""Nothing for so long, and the broker may have come to its maximum."""
_AT_ONCE_S: Final = 0.1
"""What comes so soon after it was told has waited for that."""
_SOME: Final = 3
"""Fewer may come at that moment by chance."""
_BELIEVED_S: Final = 3600.0
"""They may by chance all the same: after so long, it is seen anew."""
_NEVER: Final = float("-inf")
_FOREVER: Final = float("inf")


class InFlight:
    """Watches what comes; times are seconds of any one clock."""

    def __init__(self, most: int, *, told: bool) -> None:
        """The broker was `told` that it may send `most`, or could not be."""
        self.limit = most if told else min(most, _USUAL)
        """How many it sends."""
        self._most = most
        self._until = _FOREVER
        """When the limit is believed no more."""
        self._waiting = 0
        self._came_at = _NEVER
        self._told_at = _NEVER
        """When it was told of messages after it had been silent."""
        self._before = self._after = 0
        """How many had waited then, and how many still did when it was told."""

    def look(self, now: float, waiting: int) -> None:
        """So many wait to be acknowledged, after those that came now, if any."""
        if waiting > self._waiting:
            self._came_at = now
            if now - self._told_at < _AT_ONCE_S and waiting - self._after >= min(self._before, _SOME):
                self.limit, self._until = max(self._before, waiting), now + _BELIEVED_S
                self._told_at = _NEVER
            elif now > self._until:
                self.limit, self._until = self._most, _FOREVER
            elif waiting > self.limit:
                self.limit = self._most if self._until == _FOREVER else waiting
        self._waiting = waiting

    def tell(self, now: float, waiting: int) -> None:
        """It is told of messages now; so many wait still."""
        if now - self._came_at > _QUIET_S:
            self._told_at, self._before, self._after = now, self._waiting, waiting
        self._waiting = waiting
