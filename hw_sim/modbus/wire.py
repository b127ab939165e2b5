"""A Modbus bus: slaves behind a TCP port or a terminal, that answer whoever asks.

    client ═══ bytes ══▶ Framing ── Request ──▶ pdu.answer ◀── Image ◀── readings
                            ▲                        │
                            └─── Answer ◀── Break, for each fault that is on

An id that no device has is silence in RTU and ASCII; in TCP framing it is what a gateway says, exception 11.
So is a slave without power. When all devices on a port are, the port and its connections are gone with them;
a terminal is the reader's own adapter, and stays.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Protocol

from hw_sim.bench import Bench
from hw_sim.fault import Fault
from hw_sim.fault import Settings as FaultSettings
from hw_sim.modbus.breaking import EFFECTS, Break, Reply
from hw_sim.modbus.framing import FRAMINGS, Answer, Framing, Request
from hw_sim.modbus.image import Image
from hw_sim.modbus.line import Line
from hw_sim.modbus.pdu import GATEWAY_TARGET, answer, asked, exception
from hw_sim.modbus.port import Port
from hw_sim.modbus.section import Device, Settings
from hw_sim.plant import Readings
from hw_sim.section import LOOPBACK
from hw_sim.wire import Endpoint, Wire

__all__ = ["ModbusWire", "build"]

_FRAMING_NAMES: Final = {"tcp": "TCP", "rtu": "RTU", "ascii": "ASCII"}
_TOLD: Final = 12
"""Registers of a device that its endpoint's line names."""
_SILENCE_CHARACTERS: Final = 3.5
"""Between two frames of RTU ("MODBUS over Serial Line Specification V1.02", 2.5.1.1)."""
_PATIENCE_S: Final = 5.0

_log = logging.getLogger(__name__)


class _Peer(Protocol):
    """Whoever asks."""

    def send(self, data: bytes) -> bool:
        """Send; whether it went out whole."""

    def hang_up(self) -> None:
        """End the connection."""


def build(name: str, settings: Settings, bench: Bench) -> "ModbusWire":
    """A wire that has not started."""
    return ModbusWire(name, settings, bench)


class ModbusWire(Wire):
    """A bus with its slaves.

    `counts`: `requests`; `sent`, answers that went out, broken ones too; `lost`, requests without an answer;
    `unknown_id`; `skipped_bytes`, which were no request; and by the name of each fault, the answers that it
    broke.
    """

    kind = "modbus"

    def __init__(self, name: str, settings: Settings, bench: Bench) -> None:
        super().__init__(name, settings, bench)
        self._settings = settings
        self._framing = FRAMINGS[settings.framing]
        self._gateway = settings.framing == "tcp"
        self._names = {device.id: name for name, device in settings.devices.items()}
        self._images = {name: Image(device, self.devices[name]) for name, device in settings.devices.items()}
        self._link: Port | Line = (
            Line(settings.link, self._joined)
            if settings.link is not None
            else Port(settings.port or 0, self._joined)
        )
        self._held: dict[str, Readings] = {}
        """By device that is frozen, what it shows."""
        self._breaks: dict[str, list[Break]] = {}
        """By device, what is wrong with its answers."""
        self._echoes = False
        self._free_s = 0.0
        """When a line of a certain speed has nothing more to carry."""
        self._noise: asyncio.TimerHandle | None = None
        """When the next random bytes come."""
        self._pending: dict[asyncio.TimerHandle, str] = {}
        """Answers that are under way, and whose they are."""
        self._unread = {name: list(image.shown) for name, image in self._images.items()}
        """By device, what nobody has asked for since the bench's last step: a mask for each table."""
        self._progress = asyncio.Event()

    @property
    def endpoints(self) -> dict[str, Endpoint]:
        """By device, where a client finds it."""
        link, settings = self._link, self._settings
        kind = f"Modbus {_FRAMING_NAMES[settings.framing]}"
        if isinstance(link, Line):
            place = str(settings.link)
        else:
            place = f"tcp://{LOOPBACK}:{link.number}"
            kind += "" if self._gateway else " over TCP"
        return {
            name: Endpoint(place, f"{kind}, id {device.id}: {_registers(device)}")
            for name, device in settings.devices.items()
        }

    async def start(self) -> None:
        """Be there.

        Raises:
            OSError: the port is taken, or something that is no link has the link's name.
        """
        await self._link.open()

    async def close(self) -> None:
        """Be gone."""
        self._drop_pending("")
        self._make_noise(None)
        await self._link.close()

    def step(self) -> None:
        """What has been read until now was the step before."""
        for name, image in self._images.items():
            self._unread[name][:] = image.shown

    async def ready(self) -> None:
        """Wait until each register that shows a channel was asked for since the last step, of each device.

        A request counts however it is answered. Devices that cannot answer now, for lack of power or by a
        fault, are not waited for. Who polls fewer registers than there are holds the run up for good.
        """
        while self._awaited():
            self._progress.clear()
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    await self._progress.wait()
            except TimeoutError:
                _log.warning("wire %s waits for somebody to read %s", self.name, ", ".join(self._awaited()))

    def _awaited(self) -> list[str]:
        """The devices that have not been read since the last step, although they could."""
        if not self._link.is_open:
            return []
        return [
            name
            for name, left in self._unread.items()
            if any(left)
            and not self.off(name)
            and self.fault("silence", name) is None
            and self.fault("dead_slave", name) is None
        ]

    async def switch(self, active: Sequence[Fault]) -> None:
        """Have these faults on, and no others; late answers that are under way when they end do not come."""
        there = {each.fault: each for breaks in self._breaks.values() for each in breaks}
        order = list(EFFECTS)
        breaks = [
            there.get(fault) or Break(fault, seed=f"{self.bench.seed}/{self.name}")
            for fault in active
            if fault.kind.wire == self.kind and fault.kind.short in EFFECTS
        ]
        breaks.sort(key=lambda each: order.index(each.fault.kind.short))
        self._breaks = {
            name: [each for each in breaks if each.fault.settings["device"] in {"", name}]
            for name in self.devices
        }
        await super().switch(active)
        self._echoes = not self._gateway and self.fault("echo") is not None
        frozen = [name for name in self.devices if self.fault("frozen", name) is not None]
        self._held = {name: self._held.get(name, self.bench.readings) for name in frozen}
        self._progress.set()

    async def switched(self, fault: Fault, *, on: bool) -> None:
        """Go or come with what listens. Where slaves lose power or are late no more, nothing late comes."""
        if fault.kind.where == "device" or (fault.kind.short == "late" and not on):
            self._drop_pending(str(fault.settings["device"]))
        if fault.kind.short == "noise":
            rng = random.Random(f"{self.bench.seed}/{self.name}/noise")  # noqa: S311 - no secret
            self._make_noise(self.fault("noise"), rng)
        gone = self.fault("refuse") is not None or (
            isinstance(self._link, Port) and all(map(self.off, self.devices))
        )
        if gone:
            self._drop_pending("")
            await self._link.close()
        elif not self._link.is_open:
            await self._link.open()

    def _make_noise(self, settings: FaultSettings | None, rng: random.Random | None = None) -> None:
        """From now on, or no more."""
        if self._noise is not None:
            self._noise.cancel()
            self._noise = None
        if settings is None or rng is None:
            return

        def due() -> None:
            for peer in self._link.peers:
                if peer.send(rng.randbytes(int(settings["bytes"]))):
                    self.counts["modbus.noise"] += 1
            self._noise = loop.call_later(float(settings["period"]), due)

        loop = asyncio.get_running_loop()
        self._noise = loop.call_later(float(settings["period"]), due)

    def _drop_pending(self, device: str) -> None:
        """What is under way from this device does not arrive; nothing is its name for all of them."""
        for handle in [each for each, its in self._pending.items() if device in {"", its}]:
            del self._pending[handle]
            handle.cancel()
            self.counts["lost"] += 1

    def _joined(self, peer: _Peer) -> Callable[[bytes], None]:
        return partial(self._received, peer, self._framing())

    def _received(self, peer: _Peer, framing: Framing, data: bytes) -> None:
        for request in framing.requests(data):
            self._asked(peer, framing, request)
        if framing.skipped:
            self.counts["skipped_bytes"] += framing.skipped
            framing.skipped = 0

    def _asked(self, peer: _Peer, framing: Framing, request: Request) -> None:
        """Answer one request."""
        self.counts["requests"] += 1
        if self._echoes:
            self.counts["modbus.echo"] += 1
            peer.send(request.wire)
        name = self._names.get(request.unit)
        if name is None:
            self.counts["unknown_id"] += 1
            if not self._gateway:
                self.counts["lost"] += 1
                return
            pdu = exception(request.pdu[0], GATEWAY_TARGET)
            self._send(peer, request, framing.framed(Answer(request.unit, pdu, request.transaction)), "")
            return
        self._note(name, request)
        readings = self._held.get(name)
        if readings is None:
            readings = self.bench.readings
        else:
            self.counts["modbus.frozen"] += 1
        pdu = answer(request.pdu, self._images[name], readings, name=name)
        answered = Answer(request.unit, pdu, request.transaction)
        if self.active:
            self._break(peer, framing, request, answered, name)
        else:
            self._send(peer, request, framing.framed(answered), name)

    def _break(self, peer: _Peer, framing: Framing, request: Request, answered: Answer, name: str) -> None:
        """Send an answer as the faults of its device have it."""
        reply = Reply(request, answered, self._images[name], self._gateway)
        if self.off(name):
            reply.vanishes()
        else:
            for each in self._breaks.get(name, ()):
                if not reply.lost and each.apply(reply):
                    self.counts[each.fault.name] += 1
        if reply.lost:
            self.counts["lost"] += 1
            if reply.hangs_up:
                peer.hang_up()
            return
        data = reply.bytes_of(framing)
        if reply.gap_s:
            half = len(data) // 2
            self._later(reply.late_s, peer, data[:half], name, counted=False)
            self._later(reply.late_s + reply.gap_s, peer, data[half:], name)
        else:
            self._send(peer, request, data, name, late_s=reply.late_s)

    def _send(self, peer: _Peer, request: Request, data: bytes, name: str, *, late_s: float = 0.0) -> None:
        if self._settings.baudrate is not None:
            now = asyncio.get_running_loop().time()
            character_s = self._framing.bits_per_byte / self._settings.baudrate
            characters = len(request.wire) + _SILENCE_CHARACTERS + len(data)
            self._free_s = max(now, self._free_s) + characters * character_s
            late_s += self._free_s - now
        if late_s:
            self._later(late_s, peer, data, name)
        else:
            self._deliver(peer, data)

    def _later(self, by_s: float, peer: _Peer, data: bytes, name: str, *, counted: bool = True) -> None:
        def due() -> None:
            del self._pending[handle]
            if counted:
                self._deliver(peer, data)
            else:
                peer.send(data)

        handle = asyncio.get_running_loop().call_later(by_s, due)
        self._pending[handle] = name

    def _deliver(self, peer: _Peer, data: bytes) -> None:
        self.counts["sent" if peer.send(data) else "lost"] += 1

    def _note(self, name: str, request: Request) -> None:
        """A row is read when all of it has been asked for."""
        unread, block = self._unread[name], asked(request.pdu)
        if block is not None and unread[block[0]]:
            table, first, count = block
            unread[table] &= ~(((1 << count) - 1) << first)
            if not unread[table]:
                self._progress.set()


def _registers(device: Device) -> str:
    """A device's registers in a line."""
    told = [
        f"{register.address.replace(':', ' ')} {register.format}"
        + (f" {register.order}" if register.order != "ABCD" else "")
        + (f" bit {register.bit}" if register.bit is not None else "")
        + (f" x{register.scale:g}" if register.scale != 1 else "")
        + (f"{register.offset:+g}" if register.offset else "")
        + f" {name}"
        for name, register in device.registers.items()
    ]
    more = len(told) - _TOLD
    return ", ".join(told[:_TOLD]) + (f" and {more} more" if more > 0 else "")
