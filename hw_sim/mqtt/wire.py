"""The MQTT wire: devices that publish to a broker, and the gate that clients reach it by.

Devices are on a line of their own to the broker, so what breaks the gate's lines hits readers alone. When the
broker itself is gone, what devices measure meanwhile is lost.
"""

import functools
import logging
import os
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, cast

from hw_sim.bench import Bench
from hw_sim.fault import Fault
from hw_sim.mqtt.broker import HiddenBroker
from hw_sim.mqtt.device import Device
from hw_sim.mqtt.gate import Gate
from hw_sim.mqtt.packet import Refusal, Version
from hw_sim.mqtt.publisher import Publisher
from hw_sim.mqtt.section import DeviceSection, Settings
from hw_sim.pki import default_folder, make
from hw_sim.section import LOOPBACK
from hw_sim.wire import Due, Endpoint, Wire

__all__ = ["MqttWire", "build"]

_KICKS: Final = frozenset({"login", "subscribe", "garbage"})
"""Faults of which those who are connected already would feel nothing."""
_PERIODIC: Final = frozenset({"disconnect", "takeover"})

_log = logging.getLogger(__name__)


def build(name: str, settings: Settings, bench: Bench) -> "MqttWire":
    """The wire of a section; nothing is opened before `start`."""
    return MqttWire(name, settings, bench)


class MqttWire(Wire):
    """A broker, its gate and its devices."""

    kind = "mqtt"

    def __init__(self, name: str, settings: Settings, bench: Bench) -> None:
        super().__init__(name, settings, bench)
        self._settings = settings
        self._own = HiddenBroker() if settings.elsewhere is None else None
        self._gate = Gate(self._address, own=self._own is not None, users=settings.users, counts=self.counts)
        self._context: ssl.SSLContext | None = None
        self._publishers: dict[Version, Publisher] = {}
        self._devices: dict[str, Device] = {}
        self._beats: dict[tuple[float, float], tuple[Due, dict[str, Device]]] = {}
        """By period and phase, the devices that measure together."""
        login = next(iter(settings.users.items()), (None, None)) if self._own is None else (None, None)
        for each, section in settings.devices.items():
            if section.version not in self._publishers:
                self._publishers[section.version] = Publisher(
                    section.version,
                    f"hw_sim-{name}-{section.version}-{os.getpid()}",
                    self.counts,
                    username=login[0],
                    password=login[1],
                )
            publisher = self._publishers[section.version]
            self._devices[each] = Device(section, bench, publisher, self.counts)
            beat = section.period, section.phase
            self._beats.setdefault(beat, (Due(*beat), {}))[1][each] = self._devices[each]
        self._again: dict[str, Due] = {}
        """When clients are thrown out or taken over next, by fault."""
        self._stopped = False
        self._forgets = False
        """Whether the broker that is stopped will have forgotten its sessions."""

    def _address(self, version: Version) -> tuple[str, int]:
        if self._own is not None:
            return self._own.address(version)
        assert self._settings.elsewhere is not None
        return self._settings.elsewhere

    @property
    def delivered(self) -> int:
        """In bytes."""
        return self._gate.line.delivered

    @property
    def endpoints(self) -> Mapping[str, Endpoint]:
        """By device, the broker's URL on the plain port; and as `WIRE_tls`, where it speaks TLS."""
        found = {
            name: Endpoint(f"mqtt://{LOOPBACK}:{self._gate.ports[0]}", self._about(section))
            for name, section in self._settings.devices.items()
        }
        if self._settings.tls_port is not None:
            about = f"the same over TLS, certificates in {self._pki_folder}"
            found[f"{self.name}_tls"] = Endpoint(f"mqtts://{LOOPBACK}:{self._gate.ports[1]}", about)
        return found

    def _about(self, section: DeviceSection) -> str:
        shape = section.payload if section.payload in {"binary", "number"} else section.payload.upper()
        several = f", {section.samples} samples a message" if section.samples > 1 else ""
        rate = 1 / (section.period * section.samples)
        about = f"MQTT 5 and 3.1.1, topic {section.topic}, {shape} at {rate:g} Hz{several}"
        if self._settings.users:
            about += f", login as {' or '.join(self._settings.users)}"
        if self._settings.tls_port is not None:
            about += f"; TLS on {self._gate.ports[1]}, certificates in {self._pki_folder}"
        return about

    @property
    def _pki_folder(self) -> Path:
        return self._settings.pki or default_folder()

    async def start(self) -> None:
        """Have a broker, and publish to it.

        Raises:
            OSError: a port is taken, a certificate cannot be made, or the broker that was named is not there.
        """
        settings = self._settings
        if settings.tls_port is not None:
            certificates = make(self._pki_folder)
            self._context = certificates.server_context(client_certificate=settings.client_certificate)
        if self._own is not None:
            await self._own.start()
        await self._connect()
        await self._gate.open(settings.port, settings.tls_port, self._context)

    async def _connect(self) -> None:
        """Have all publishers start, also if one finds no broker; raises what the last of those says."""
        failed: ConnectionError | None = None
        for version, publisher in self._publishers.items():
            try:
                await publisher.start(*self._address(version))
            except ConnectionError as error:
                failed = error
        if failed is not None:
            raise failed

    async def close(self) -> None:
        """Let the broker have what is on its way, then leave nothing behind."""
        await self._gate.shut()
        for publisher in self._publishers.values():
            await publisher.settle()
            await publisher.leave()
        if self._own is not None:
            self._own.stop()

    def step(self) -> None:
        """Publish what is due."""
        now, at_s = self.now(), self.bench.at_s
        broken = bool(self.active)
        for due, devices in self._beats.values():
            if not due.passed(at_s):
                continue
            for name, device in devices.items():
                if not broken:
                    device.step(now, None)
                elif not self.off(name):
                    device.step(now, functools.partial(self.fault, device=name))
        for fault, due in self._again.items():
            if due.passed(at_s):
                self._gate.take_over() if fault == "takeover" else self._gate.kick()

    async def ready(self) -> None:
        """Wait until the broker has taken what was published, if it is there."""
        for publisher in self._publishers.values():
            await publisher.room()

    async def switched(self, fault: Fault, *, on: bool) -> None:
        """Bring gate, broker and devices to what is on now."""
        self._set_line()
        short = fault.kind.short
        if short in _PERIODIC:
            settings = self.fault(short)
            self._again.pop(short, None)
            if settings is not None:
                self._again[short] = Due(float(settings["every"]))
        elif short == "stop":
            self._forgets |= fault.settings["session"] == "lost"
            await self._stop_or_start()
        elif short in _KICKS and on:
            self._gate.kick()
        else:
            self._act(fault, on=on)

    def _act(self, fault: Fault, *, on: bool) -> None:
        """Have devices do what a fault that comes or goes makes them do."""
        for device in self._concerned(fault):
            match fault.kind.short:
                case "retained_junk":
                    device.litter(on=on)
                case "source_down":
                    device.cut()
                case "burst" | "out_of_order" | "huge":
                    device.calm()

    def _concerned(self, fault: Fault) -> Sequence[Device]:
        only = fault.settings.get("device", "")
        return [device for name, device in self._devices.items() if only in {"", name}]

    def _set_line(self) -> None:
        """Have the line as the faults of the link say."""
        line = self._gate.line
        if self.fault("half_open") is None:
            line.flowing.set()
        else:
            line.flowing.clear()
        slow, login, garbage = self.fault("slow"), self.fault("login"), self.fault("garbage")
        line.slow_down(
            rate=0.0 if slow is None else float(slow["rate"]),
            delay_s=0.0 if slow is None else float(slow["delay"]),
        )
        self._gate.refusal = None if login is None else cast("Refusal", login["reason"])
        line.garbage_after = 0 if garbage is None else int(garbage["every"])
        line.subscribable = self.fault("subscribe") is None

    async def _stop_or_start(self) -> None:
        """Have the broker gone, or there, as the faults say."""
        stopped = self.fault("stop") is not None
        if stopped == self._stopped:
            return
        self._stopped = stopped
        if stopped:
            await self._gate.shut()
            for publisher in self._publishers.values():
                await publisher.leave()
            return
        forgotten, self._forgets = self._forgets, False
        if forgotten:
            await self._forget()
        try:
            await self._connect()
        except ConnectionError as error:
            _log.warning("%s: %s; its devices go on trying", self.name, error)
        for name, device in self._devices.items():
            if self.fault("retained_junk", name) is not None:
                device.litter(on=True)
            elif forgotten and self._own is None and device.section.retain:
                device.litter(on=False)
        await self._gate.open(self._settings.port, self._settings.tls_port, self._context)

    async def _forget(self) -> None:
        """Have no sessions and no retained messages; another's broker loses them one by one."""
        if self._own is None:
            self._gate.forget()
        else:
            self._own.stop()
            await self._own.start()
