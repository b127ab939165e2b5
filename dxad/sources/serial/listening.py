"""A device that speaks by itself."""

from collections.abc import Mapping, Sequence
from typing import Final, cast

from dxad.links.framing import Broken
from dxad.links.serial import SerialLink
from dxad.runtime.clock import Clock
from dxad.sources import Inbox, Intake
from dxad.sources.serial.section import Config
from dxad.types import Block, Channel

__all__ = ["Serial"]

_MANY: Final = 8
"""Frames from which on it is cheaper to decode them at once."""


class Serial:
    """Finds the frames of a stream, checks and decodes each. Nothing is sent."""

    def __init__(self, name: str, config: Config, *, clock: Clock) -> None:
        self.channels: Sequence[Channel] = config.declared(name)
        self._config = config
        self._clock = clock
        self._inbox = Inbox(config, hold=self._hold)
        (question,) = config.questions()
        self._intake = Intake(
            self._inbox, question.decoder, question.columns, timed=config.time is not None, all_columns=True
        )
        self._framer = config.framer()
        self._bytes = 0
        self._link: SerialLink | None = None
        self._waiting: Sequence[bytes | Broken] = ()
        """Frames that had come already when we were told to hold."""
        self._held = False
        """Whether what comes is left in the kernel for now."""

    @property
    def overflowed(self) -> int:
        """Samples dropped because nobody read them."""
        return self._inbox.overflowed

    @property
    def traffic(self) -> Mapping[str, int]:
        """Bytes that came, and messages that were found in them, also malformed ones."""
        return {"bytes": self._bytes, "messages": self._inbox.came}

    @property
    def faults(self) -> Mapping[str, int]:
        """What was found in place of frames; how often the start of one was searched for; bytes of none."""
        framer = self._framer
        counts = {**framer.faults, "resyncs": framer.resyncs, "dropped_bytes": framer.dropped}
        return {name: count for name, count in counts.items() if count}

    async def connect(self) -> None:
        """Open the port anew.

        Raises:
            NotConnected: it is not there, or somebody else has it.
            ConfigError: it cannot be set so.
        """
        await self.close()
        self._framer.join()
        self._waiting, self._held = (), False
        link = SerialLink(self._config.where, on_data=self._received, on_lost=self._inbox.lose)
        link.open()
        self._link = link
        self._inbox.open()

    def _hold(self, held: bool) -> None:  # noqa: FBT001 - called by the inbox alone
        """Leave what comes to the kernel and the line's flow control, or take it again."""
        self._held = held
        if not held:
            self._deliver(self._waiting)  # enough of it holds us back again
        if self._link is not None:
            self._link.hold(held=self._held)

    def _received(self, data: bytes) -> None:
        self._bytes += len(data)
        frames = self._framer.frames(data)
        self._deliver([*self._waiting, *frames] if self._waiting else frames)

    def _deliver(self, frames: Sequence[bytes | Broken]) -> None:
        self._waiting = ()
        now = self._clock.now()
        if (
            len(frames) >= _MANY
            and set(map(type, frames)) == {bytes}
            and self._intake.take_all(now, cast("Sequence[bytes]", frames))
        ):
            return
        for place, frame in enumerate(frames):
            if self._held:
                self._waiting = frames[place:]
                return
            if isinstance(frame, Broken):
                self._inbox.reject(now, frame.reason)
            else:
                self._intake.take(now, frame)

    async def read(self) -> Block:
        """All samples that came since the last call.

        Raises:
            NotConnected: the device hung up, and every sample that came before has been read.
            DecodeError: messages were malformed; the good ones among them have been read.
        """
        return await self._inbox.block()

    async def close(self) -> None:
        """Close the port; safe twice, and without `connect`."""
        link, self._link = self._link, None
        if link is not None:
            link.close()
            self._inbox.lose("closed")
