"""The catalogue of faults: all rows in one table, and what makes a Fault of a line that names one.

Such a line is `NAME@ONSET[..END][:PARAMETER=VALUE,...]`, for example `source_down@30s..40s:device=plc`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from hw_sim import plants, sensor
from hw_sim.duration import DurationError, seconds
from hw_sim.fault import Fault, FaultError, Kind, Parameter, Settings
from hw_sim.modbus import faults as modbus
from hw_sim.mqtt import faults as mqtt
from hw_sim.opcua import faults as opcua
from hw_sim.plant import Channel
from hw_sim.serial import faults as serial

__all__ = ["FAULTS", "Known", "make", "parse", "parse_all"]

_DEVICE: Final = Kind(
    name="source_down",
    does="a device is without power: its wire goes quiet; with an end, it comes back",
    where="device",
    parameters={"device": Parameter("the device", "", "device")},
)

FAULTS: Final[Mapping[str, Kind]] = {
    kind.name: kind
    for kind in (
        *plants.FAULTS, *sensor.FAULTS, _DEVICE, *mqtt.FAULTS, *modbus.FAULTS, *opcua.FAULTS, *serial.FAULTS,
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Known:
    """What a scenario has that a fault may name."""

    channels: Mapping[str, Channel]
    plants: Mapping[str, Mapping[str, Sequence[str]]]
    """By plant, the channels in which each of its stresses shows."""
    devices: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By device, its channels."""
    wires: Mapping[str, tuple[str, Sequence[str]]] = field(default_factory=dict)
    """By wire, its kind and its devices."""

    def wire_of(self, device: str) -> str:
        """The wire that a device is on."""
        return next(wire for wire, (_, devices) in self.wires.items() if device in devices)


def parse_all(texts: Sequence[str], known: Known) -> tuple[Fault, ...]:
    """The faults of a command line; `none` is none.

    Raises:
        FaultError: one is written wrong, or `none` is not alone.
    """
    written = [text for text in texts if text != "none"]
    if len(written) < len(texts) and written:
        raise FaultError("'none' and a fault exclude each other")
    return tuple(parse(text, known) for text in written)


def parse(text: str, known: Known) -> Fault:
    """Read a fault with its times and parameters.

    Raises:
        FaultError: it is written wrong.
    """
    head, colon, settings = text.partition(":")
    name, at, times = head.partition("@")
    kind = _kind(name)
    if not at:
        raise FaultError(f"{text!r} does not say when; write {name}@40s or {name}@40s..60s")
    onset, until, end = times.partition("..")
    try:
        onset_s, end_s = seconds(onset), seconds(end) if until else None
    except DurationError as error:
        raise FaultError(f"{text!r}: {error}") from error
    return make(kind.name, onset_s, end_s, _pairs(kind, settings.split(",") if colon else ()), known)


def make(name: str, onset_s: float, end_s: float | None, written: Mapping[str, str], known: Known) -> Fault:
    """A fault of its name, its times and the parameters that were written.

    Raises:
        FaultError: one of them is wrong, or the scenario has nothing that it could break.
    """
    kind = _kind(name)
    if end_s is not None and end_s <= onset_s:
        raise FaultError(f"{name} ends before it begins")
    settings: dict[str, str | float] = {}
    for key, parameter in kind.parameters.items():
        try:
            settings[key] = parameter.read(written.get(key, parameter.default))
        except FaultError as error:
            raise FaultError(f"{name}: {key}: {error}") from error
    for key in written:
        if key not in kind.parameters:
            raise FaultError(
                f"{name} has no parameter {key!r}; it has {', '.join(kind.parameters) or 'none'}"
            )
    if kind.where == "plant":
        return _of_plant(kind, onset_s, end_s, settings, known)
    if kind.where == "sensor":
        settings["channel"] = channel = _one(name, "channel", str(settings["channel"]), known.channels)
        return Fault(kind, onset_s, end_s, settings, (channel,))
    if kind.where == "device":
        settings["device"] = device = _one(name, "device", str(settings["device"]), known.devices)
        wires = (known.wire_of(device),)
        return Fault(kind, onset_s, end_s, settings, tuple(known.devices[device]), wires=wires)
    return _of_wire(kind, onset_s, end_s, settings, known)


def _of_plant(
    kind: Kind, onset_s: float, end_s: float | None, settings: dict[str, str | float], known: Known
) -> Fault:
    able = {plant: shows for plant, shows in known.plants.items() if kind.strains in shows}
    settings["plant"] = plant = _one(kind.name, "plant", str(settings["plant"]), able)
    return Fault(kind, onset_s, end_s, settings, tuple(able[plant][kind.strains]), plant=plant)


def _of_wire(kind: Kind, onset_s: float, end_s: float | None, settings: Settings, known: Known) -> Fault:
    able = {wire: devices for wire, (its, devices) in known.wires.items() if its == kind.wire}
    if not able:
        raise FaultError(f"{kind.name}: the scenario has no wire of type {kind.wire}")
    wire, device = str(settings.get("wire", "")), str(settings.get("device", ""))
    if wire:
        _one(kind.name, "wire", wire, able)
        able = {wire: able[wire]}
    concerned = [each for devices in able.values() for each in devices]
    if device:
        _one(kind.name, "device", device, concerned)
        able, concerned = {known.wire_of(device): [device]}, [device]
    channels = dict.fromkeys(channel for each in concerned for channel in known.devices[each])
    if channel := str(settings.get("channel", "")):
        channels = dict.fromkeys([_one(kind.name, "channel", channel, channels)])
    return Fault(kind, onset_s, end_s, settings, tuple(channels), wires=tuple(able))


def _one(name: str, what: str, written: str, there_are: Iterable[str]) -> str:
    """The one that was written, or the first."""
    there = list(there_are)
    if not there:
        raise FaultError(f"{name}: the scenario has no {what} for it")
    if written and written not in there:
        raise FaultError(f"{name}: no {what} {written!r}; there are {', '.join(there)}")
    return written or there[0]


def _kind(name: str) -> Kind:
    if name not in FAULTS:
        raise FaultError(f"no fault {name!r}; there are {', '.join(FAULTS)}")
    return FAULTS[name]


def _pairs(kind: Kind, pairs: Iterable[str]) -> dict[str, str]:
    written: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise FaultError(f"{kind.name}: {key} is given no value; write {key}=VALUE")
        if key in written:
            raise FaultError(f"{kind.name}: {key} is given twice")
        written[key] = value
    return written
