"""The serial wire: devices that send frames on a pseudo-terminal, each at its period or when it is asked.

    devices ──▶ Breakage ──▶ Outgoing ──▶ Tty ══ /dev/pts/N ◀── link

All frames of a step go out in one write. `counts` has `sent`, frames that the terminal took whole, `lost`,
those that it did not, for want of a reader or of room; `bytes` and `lost_bytes`; `requests` that came, and
`unknown` among them; and by fault, such as `serial.checksum`, the frames that it has hit.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final

from hw_sim.bench import Bench
from hw_sim.fault import Fault
from hw_sim.serial.breakage import Breakage
from hw_sim.serial.outgoing import Outgoing
from hw_sim.serial.section import Device, Settings
from hw_sim.tty import Tty
from hw_sim.wire import Due, Endpoint, Wire

__all__ = ["SerialWire", "build"]

_REQUEST_MAX: Final = 4096
_HELD_MAX: Final = 65_536
"""Bytes that a burst may have."""
_READ_WITHIN_S: Final = 1.0
"""How long the last frames of a run as fast as its wires are there to be read."""


def build(name: str, settings: Settings, bench: Bench) -> "SerialWire":
    """A serial wire, not plugged in yet."""
    return SerialWire(name, settings, bench)


class _Talker:
    """A device on the line."""

    def __init__(self, name: str, settings: Device, bench: Bench) -> None:
        self.name = name
        self.settings = settings
        self.framing = settings.framed
        self.due = None if settings.query else Due(settings.period or bench.step_s, settings.phase)
        self._payload = settings.says
        self._channels = tuple(settings.fields.values())
        self._bench = bench
        self._sequence = -1

    def payload(self, now: float) -> bytes:
        """What it says at this unix time."""
        self._sequence += 1
        readings = self._bench.readings
        return self._payload(now, self._sequence, [readings[channel] for channel in self._channels])


class SerialWire(Wire):
    """The line, with the terminal at its end."""

    kind = "serial"

    def __init__(self, name: str, settings: Settings, bench: Bench) -> None:
        super().__init__(name, settings, bench)
        self._talkers = [_Talker(each, device, bench) for each, device in settings.devices.items()]
        self._asked = [talker for talker in self._talkers if talker.due is None]
        self._request_ends = frozenset(talker.settings.query[-1] for talker in self._asked)
        self._request = bytearray()
        self._link = settings.link
        self._tty = Tty(settings.link, on_read=self._read if self._asked else None)
        self._outgoing = Outgoing(self._tty, self.counts, baudrate=settings.baudrate)
        self._breakage = Breakage(self.fault, self.counts, seed=f"{bench.seed}/{name}/serial")
        self._replugs = 0
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._burst: Due | None = None

    @property
    def delivered(self) -> int:
        """In bytes."""
        return self.counts["bytes"]

    @property
    def endpoints(self) -> Mapping[str, Endpoint]:
        """By device, the link; another one after an `unplug` that brings another."""
        link = str(self._tty.link)
        return {talker.name: Endpoint(link, talker.settings.about) for talker in self._talkers}

    async def start(self) -> None:
        """Plug in.

        Raises:
            OSError: something that is no link has the link's name, or no terminal is to be had.
        """
        self._tty.plug()

    async def close(self) -> None:
        """Unplug for good; who was waited for may still read the last of it."""
        if self._outgoing.patient and self._tty.heard:
            with suppress(TimeoutError):
                async with asyncio.timeout(_READ_WITHIN_S):
                    await self.ready()
                    await self._tty.taken()
        self._tty.unplug()
        self._outgoing.drop()

    def step(self) -> None:
        """Send the frames that are due; never blocks."""
        at_s = self.bench.at_s
        frames: list[bytes] = []
        for talker in self._talkers:
            if talker.due is not None and talker.due.passed(at_s):
                frames += self._frames(talker)
        if self._burst is not None or self._held:
            frames = self._bursts(frames, at_s)
        self._outgoing.put(frames)
        self._outgoing.send(at_s)

    async def ready(self) -> None:
        """Wait until a reader is there and has been sent all there was.

        Nobody is waited for by a wire that is unplugged, or on which all only speak when they are asked.
        """
        self._outgoing.patient = True
        while self._tty.plugged and len(self._asked) < len(self._talkers):
            await self._tty.writable()
            if self._outgoing.resume():
                return

    async def switched(self, fault: Fault, *, on: bool) -> None:
        """Plug and unplug.

        Raises:
            OSError: the link's name has been taken meanwhile by something that is no link.
        """
        if on:
            self._breakage.begin(fault.kind.short)
        if fault.name == "serial.bursts":
            self._burst = Due(float(fault.settings["every"])) if on else None
            if self._burst is not None:
                self._burst.passed(self.bench.at_s)  # the beat that is now brings nothing yet
        if fault.name == "serial.unplug":
            self.counts[fault.name] += on
            self._replugs += not on and fault.settings["link"] == "another"
        away = self.fault("unplug") is not None or all(self.off(talker.name) for talker in self._talkers)
        if away and self._tty.plugged:
            self._tty.unplug()
            self._outgoing.drop()
            self._request.clear()
        elif not away and not self._tty.plugged:
            renamed = self._link.with_name(f"{self._link.name}-{self._replugs}")
            self._tty.plug(renamed if self._replugs else self._link)

    def _frames(self, talker: _Talker) -> Sequence[bytes]:
        """What a device sends now."""
        if not self.active:
            return (talker.framing.frame(talker.payload(self.now())),)
        if self.off(talker.name):
            return ()
        return self._breakage.frames(talker.name, talker.framing, talker.payload(self.now()))

    def _bursts(self, frames: list[bytes], at_s: float) -> list[bytes]:
        """Hold frames back until the next burst, or until there are none any more."""
        for frame in frames:
            if self._held_bytes + len(frame) > _HELD_MAX:
                self.counts["lost"] += 1
                self.counts["lost_bytes"] += len(frame)
            else:
                self._held.append(frame)
                self._held_bytes += len(frame)
        if self._burst is not None:
            self.counts["serial.bursts"] += len(frames)
            if not self._burst.passed(at_s):
                return []
        frames, self._held, self._held_bytes = self._held, [], 0
        return frames

    def _read(self, data: bytes) -> None:
        """Answer each request that is complete."""
        for byte in data:
            self._request.append(byte)
            if byte in self._request_ends:
                request = bytes(self._request)
                self._request.clear()
                self._answer(request)
        del self._request[:-_REQUEST_MAX]

    def _answer(self, request: bytes) -> None:
        """One frame of the device whose query this is, or else what the first says to a wrong one."""
        self.counts["requests"] += 1
        asked = [talker for talker in self._asked if talker.settings.query == request]
        if asked:
            frames = [frame for talker in asked for frame in self._frames(talker)]
        else:
            self.counts["unknown"] += 1
            able = [each for each in self._asked if each.settings.error and not self._silent(each.name)]
            frames = [able[0].settings.error] if able else []
        self._outgoing.put(frames)
        self._outgoing.send(self.bench.at_s)

    def _silent(self, device: str) -> bool:
        return self.off(device) or self.fault("stall", device) is not None
