"""What all wires have in common: a device that can come up, go away, and come back at the same place.

A new wire is a file beside the others with a class of this kind, and a line in `station.py`.
"""

from typing import Protocol

__all__ = ["Wire"]


class Wire(Protocol):
    """A device on its protocol."""

    device: str
    """The part of its channels' names before the dot."""
    endpoint: str
    """Where a client finds it."""
    about: str
    """What a client finds there, in a line."""

    async def start(self) -> None:
        """Come up and be readable, for the first time or again.

        Raises:
            OSError: the place is taken, or a broker that it needs is not there.
        """

    async def stop(self) -> None:
        """Go away, as a device does that loses power; safe twice."""

    async def close(self) -> None:
        """Go away for good and leave nothing behind; safe twice, and without `start`."""
        await self.stop()

    def step(self) -> None:
        """The plant has moved on by 10 ms. Most wires look when they like; a stream sends each step."""
        return
