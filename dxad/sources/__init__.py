"""Where readings come from: one file per type, and what their callbacks and `read` meet in.

callback ── put, reject, lose ──▶ Inbox ── block ──▶ read
"""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Final

from dxad.errors import DecodeError, NotConnected
from dxad.stage import Stage
from dxad.types import Block, Quality, Reason

__all__ = ["Inbox"]

_NAN: Final = float("nan")


class Inbox:
    """What a link brings until `read` fetches it: samples, then malformed messages, then its loss.

    In this order, so that neither a malformed message nor a loss takes good samples with it.
    """

    def __init__(self, *, capacity: int = 50_000) -> None:
        """Hold so many samples at most; beyond that the newest are dropped and counted."""
        self._stage = Stage(capacity)
        self._news = asyncio.Event()
        self._lost: str | None = "not connected"
        self._rejected = 0
        self._first_rejected = ""

    @property
    def overflowed(self) -> int:
        """Samples dropped because nobody read them."""
        return self._stage.overflowed

    def open(self) -> None:
        """There is a link from now on."""
        self._lost = None

    def begin(self, arrival: int) -> None:
        """Start a message that arrived at this stream time."""
        self._stage.begin(arrival)

    def put(
        self, column: int, value: float | None, quality: Quality = Quality.GOOD, reason: Reason = Reason.NONE
    ) -> None:
        """Add one sample of the message that was begun last; a value that is None makes it BAD."""
        if value is not None:
            self._stage.put(column, value, quality, reason)
        else:
            self._stage.put(column, _NAN, Quality.BAD, reason or Reason.TYPE)
        self._news.set()

    def message(self, arrival: int, columns: Iterable[int], values: Sequence[float | None]) -> None:
        """Add a decoded message; a value that is None makes a BAD sample."""
        stage = self._stage
        stage.begin(arrival)
        for column, value in zip(columns, values, strict=True):
            if value is not None:
                stage.put(column, value)
            else:
                stage.put(column, _NAN, Quality.BAD, Reason.TYPE)
        self._news.set()

    def reject(self, arrival: int, error: DecodeError | str) -> None:
        """Count a malformed message; it took its place in an evenly sampled stream all the same."""
        self._stage.begin(arrival)
        self._rejected += 1
        self._first_rejected = self._first_rejected or str(error)
        self._news.set()

    def lose(self, reason: str) -> None:
        """The link is gone; the first reason stands until the next `open`."""
        self._lost = self._lost or reason
        self._news.set()

    async def block(self) -> Block:
        """All samples that came since the last call, at least one.

        Raises:
            DecodeError: messages were malformed; the good ones among them have been read.
            NotConnected: the link is gone, and all that came before has been read.
        """
        while not len(self._stage):
            if self._rejected:
                count, first = self._rejected, self._first_rejected
                self._rejected, self._first_rejected = 0, ""
                raise DecodeError(f"{count} messages rejected, the first: {first}", rejected=count)
            if self._lost is not None:
                raise NotConnected(self._lost)
            self._news.clear()
            await self._news.wait()
        return Block(self._stage.take())
