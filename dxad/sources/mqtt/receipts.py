"""Messages that the broker was not told of yet.

broker ── PUBLISH ──▶ stage ──▶ hand_over ──▶ owed, block by block ── stored ──▶ due ── PUBACK ──▶ broker

They are due in the order in which they came (MQTT 5, 4.6), once the block that has their samples is stored.
One that has brought no sample is due as soon as all before it are.
"""

from collections import deque
from collections.abc import Callable

__all__ = ["Receipts"]


class Receipts:
    """The numbers of messages that wait to be acknowledged."""

    def __init__(self) -> None:
        self.block = 0
        """The number of the last block that was handed over."""
        self._stored = 0
        """The number of the last block that is stored, and all before it."""
        self._staged: list[int] = []
        self._owed: deque[tuple[int, list[int]]] = deque()
        """With the block that must be stored before."""
        self._owing = 0

    def __len__(self) -> int:
        return len(self._staged) + self._owing

    @property
    def staged(self) -> int:
        """How many were not handed over yet."""
        return len(self._staged)

    def stage(self, packet_id: int) -> None:
        """A message came, and its samples wait to be read."""
        self._staged.append(packet_id)

    def hand_over(self, *, as_block: bool) -> None:
        """What is staged was read; or, with False, there was nothing in it to be read."""
        self.block += as_block
        if self._staged:
            self._owed.append((self.block, self._staged))
            self._owing += len(self._staged)
            self._staged = []

    def store(self, block: int) -> None:
        """All blocks up to this one are stored."""
        self._stored = max(self._stored, block)

    def due(self) -> list[int]:
        """Those to acknowledge now; they are owed no more."""
        found: list[int] = []
        while self._owed and self._owed[0][0] <= self._stored:
            found += self._owed.popleft()[1]
        self._owing -= len(found)
        return found

    def end(self, *, keep: Callable[[int], bool]) -> None:
        """The connection is over: the broker sends again what it knows nothing of, but for those to `keep`.

        Those that are staged will be read with the next block.
        """
        owed = [(block, kept) for block, each in self._owed if (kept := [*filter(keep, each)])]
        self._owed = deque(owed)
        self._owing = sum(len(each) for _, each in owed)
        self._staged = [*filter(keep, self._staged)]
