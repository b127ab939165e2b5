"""What a client of MQTT remembers from one connection to the next: messages of QoS 2 that are half received.

broker ── PUBLISH 7 ──▶ take: new ──▶ stored ──▶ record ── PUBREC 7 ──▶ broker
broker ── PUBREL 7 ───▶ release ── PUBCOMP 7 ──▶ broker: from here on, 7 is another message

A PUBLISH that comes again between the two is the same message (MQTT 5, 4.3.3 and 4.4).
"""

__all__ = ["Session"]


class Session:
    """The numbers of the messages of QoS 2 that came and were not released yet."""

    def __init__(self, *, prompt: bool = True) -> None:
        """Say with `prompt` = False that messages may still be on their way to where they are stored."""
        self._prompt = prompt
        self._taken: set[int] = set()
        """Those that are not stored yet."""
        self._recorded: set[int] = set()
        """Those that the broker was told to be ours."""

    def resume(self, *, present: bool) -> None:
        """There is a new connection; `present` if the broker knows what this knows.

        Whatever came over the one before has been stored by now, and the broker may not know it; unless they
        are not stored promptly, and `record` will say so of each.
        """
        if not present:
            self._taken, self._recorded = set(), set()
        elif self._prompt:
            self._taken, self._recorded = set(), self._recorded | self._taken

    def take(self, packet_id: int) -> bool:
        """A message came; whether it came for the first time."""
        if packet_id in self._taken or packet_id in self._recorded:
            return False
        self._taken.add(packet_id)
        return True

    def awaits(self, packet_id: int) -> bool:
        """Whether the message has come and is not stored yet."""
        return packet_id in self._taken

    def recorded(self, packet_id: int) -> bool:
        """Whether the message is stored."""
        return packet_id in self._recorded

    def record(self, packet_id: int) -> bool:
        """The message is stored; whether it is one of QoS 2 at all."""
        if packet_id in self._taken:
            self._taken.remove(packet_id)
            self._recorded.add(packet_id)
        return packet_id in self._recorded

    def release(self, packet_id: int) -> bool:
        """The broker will not send it again; whether it is known."""
        known = self.recorded(packet_id)
        self._recorded.discard(packet_id)
        return known
