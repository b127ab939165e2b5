"""A cold store: a room full of goods, kept cool by a compressor that a thermostat switches.

    outdoors ──▶ walls, door ──▶ room air ──▶ coil ──▶ compressor ──▶ condenser ──▶ outdoors
                                 │     ▲
                                 ▼     └── fan, light
                               product

Notation and laws, SI but where a name says otherwise (ASHRAE Handbook, Refrigeration, for the loads;
W. F. Stoecker, "Industrial Refrigeration Handbook", chapters 2-4, for the circuit):

    room      Ca·dTa/dt = UAw·(To - Ta) + UAp·(Tp - Ta) + UAd·(To - Ta) + q - UAe·(Ta - Te)   UAd: open door
    product   Cp·dTp/dt = UAp·(Ta - Tp)
    coil      Ce·dTe/dt = UAe·(Ta - Te) - UAr·(Te - Ts) + Qh     UAe falls with frost; Qh, the defrost heater
    suction   Cr·dTs/dt = UAr·(Te - Ts) - Q                      the refrigerant boils at Ts
    cooling   Q = Q0 · ps/ps0 · ηv/ηv0                           by the vapour that the cylinders take in
              ηv = 1 - c·((pd/ps)^(1/κ) - 1)                     what is left in the clearance c expands
    power     P = Q / COP,  COP = ηc·Ts/(Tc - Ts)                a share of Carnot's, in kelvins
    condenser Cc·dTc/dt = Q + P - UAc/restriction·(Tc - To)      fouled, it needs more difference
    pressure  ln p = A - B/(T + C)                               R-134a, within 0.2 % from -30 to 60 °C
    discharge Td = T1 + T1·((pd/ps)^((κ-1)/κ) - 1)/ηs            T1 = Ts + superheat
    leak      UAr ~ (1 - leak)³, superheat ~ leak                a starved evaporator boils dry early

The thermostat switches the compressor on above the set-point by half the hysteresis, off below it by as
much, and never sooner than two minutes after the last time. Frost grows while the coil is cold, faster with
an open door, and is melted every few hours at 0 °C (334 kJ/kg) by a heater, which goes off when the coil is
warm. The door is opened at random, thirty times as often by day as by night. Outdoors there are day and
night, and weather that comes and goes within a day or two.

The store has run for a day before it is looked at, and the goods are as warm as the air was on average, since
they take half a day to follow it. So there is no drift but the weather's.
"""

import math
import random
from collections.abc import Mapping
from typing import Annotated, Final, Literal, NamedTuple

from pydantic import BeforeValidator, Field

from hw_sim.plant import HEALTHY, Channel, Stress
from hw_sim.plants import PlantSettings
from hw_sim.section import Duration
from hw_sim.waveform import Cycle

__all__ = ["CHANNELS", "STEP_S", "ColdStore", "Settings", "build", "cooling", "cop", "saturation_bar"]

STEP_S: Final = 1.0

CHANNELS: Final[Mapping[str, Channel]] = {
    "room.temperature": Channel("degC", -40.0, 40.0, 0.6),
    "product.temperature": Channel("degC", -40.0, 40.0, 0.02),
    "outdoor.temperature": Channel("degC", -40.0, 60.0, 3.7),
    "evaporator.temperature": Channel("degC", -40.0, 40.0, 2.3),
    "compressor.running": Channel(""),
    "compressor.power": Channel("kW", 0.0, 5.0, 0.55),
    "suction.pressure": Channel("bar", 0.0, 8.0, 0.32),
    "discharge.pressure": Channel("bar", 0.0, 25.0, 1.5),
    "discharge.temperature": Channel("degC", 0.0, 150.0, 11.5),
    "door.open": Channel(""),
    "defrost.active": Channel(""),
    "vib.rms": Channel("mm/s", 0.0, 20.0, 0.83),
}
"""Every channel; the part before the dot is what it is measured at."""


class _Sensor(NamedTuple):
    noise: float
    """Standard deviation, in the channel's unit."""
    digits: int
    """Decimals that it resolves."""


_SENSORS: Final[Mapping[str, _Sensor]] = {
    "room.temperature": _Sensor(0.03, 3),
    "product.temperature": _Sensor(0.01, 3),
    "outdoor.temperature": _Sensor(0.1, 2),
    "evaporator.temperature": _Sensor(0.1, 2),
    "compressor.power": _Sensor(0.01, 4),
    "suction.pressure": _Sensor(0.01, 4),
    "discharge.pressure": _Sensor(0.03, 3),
    "discharge.temperature": _Sensor(0.3, 2),
}

_DAY_S: Final = 86_400.0
_HOUR_S: Final = 3600.0
_KELVIN: Final = 273.15

_ANTOINE_A: Final = 9.933
_ANTOINE_B: Final = 2163.2
_ANTOINE_C: Final = -29.0
_POLYTROPE: Final = 1.11
"""κ of R-134a's vapour."""

_AIR: Final = 500e3
"""Ca, J/K: 100 m³ of air with shelves, fans and the goods' outermost layer."""
_PRODUCT: Final = 14e6
_COIL: Final = 40e3
_SUCTION: Final = 15e3
_CONDENSER: Final = 25e3
_WALLS: Final = 60.0
_TO_PRODUCT: Final = 400.0
_DOOR: Final = 250.0
_TO_COIL: Final = 700.0
_STILL_AIR: Final = 0.12
"""The share of UAe that is left without the fan."""
_FROSTED: Final = 0.5
"""How much a coil full of frost lowers UAe: to 1 / (1 + this)."""
_TO_SUCTION: Final = 1200.0
_TO_OUTDOORS: Final = 350.0
_STILL_CONDENSER: Final = 0.25
_BASE_LOAD_W: Final = 300.0
"""Light, people and what the goods give off."""
_FAN_W: Final = 250.0

_RATED_COOLING_W: Final = 4000.0
_RATED_SUCTION_DEGC: Final = -8.0
_RATED_DISCHARGE_DEGC: Final = 38.0
_CLEARANCE: Final = 0.04
_OF_CARNOT: Final = 0.5
_LEAST_LIFT: Final = 8.0
"""Kelvins between condensing and boiling, below which the compressor's own losses are all there is."""
_ISENTROPIC: Final = 0.7
_SUPERHEAT: Final = 6.0
_STARVED_SUPERHEAT: Final = 45.0
_SHELL_LAG_S: Final = 90.0
_SHELL_COOLING_S: Final = 900.0
_CRANKCASE_W: Final = 40.0
_WEAR_POWER: Final = 0.08
"""How much of the rise of the vibration the power makes too."""

_REST_S: Final = 120.0
_HEATER_W: Final = 3000.0
_DEFROSTED_DEGC: Final = 8.0
_DEFROST_LONGEST_S: Final = 1500.0
_FROST_HEAT: Final = 4.0 * 334e3
"""What it takes to melt a coil full of frost, J."""
_FROST_RUN_S: Final = 10 * _HOUR_S
"""How long the compressor runs until the coil is full, with the door shut."""
_FROST_DOOR_S: Final = 0.7 * _HOUR_S

_OPENINGS_DAY: Final = 6.0 / _HOUR_S
_OPENINGS_NIGHT: Final = 0.2 / _HOUR_S
_WORK_H: Final = (6.0, 19.0)
_OPEN_S: Final = (15.0, 70.0)
_WARMEST_H: Final = 15.0
_DAY_SWING: Final = 5.0
_FRONT_LONGEST_S: Final = 40 * _HOUR_S
_FRONT_SWING: Final = 2.0
_CLOUD_LONGEST_S: Final = 3 * _HOUR_S
_CLOUD_SWING: Final = 0.5

_STILL_MM_S: Final = 0.05
_RUN_MM_S: Final = 2.0
_VIB_NOISE: Final = 0.04
"""Of the vibration's root mean square over a second, as a share of itself."""
_WARM_UP_S: Final = round(_DAY_S)


def saturation_bar(degc: float) -> float:
    """The pressure at which R-134a boils at this temperature, bar absolute."""
    return math.exp(_ANTOINE_A - _ANTOINE_B / (degc + _KELVIN + _ANTOINE_C))


def _volumetric(ratio: float) -> float:
    """ηv at a ratio of discharge to suction pressure."""
    return max(0.0, 1 - _CLEARANCE * (math.pow(ratio, 1 / _POLYTROPE) - 1))


_RATED_SUCTION_BAR: Final = saturation_bar(_RATED_SUCTION_DEGC)
_RATED_RATIO: Final = saturation_bar(_RATED_DISCHARGE_DEGC) / _RATED_SUCTION_BAR
_PER_BAR: Final = _RATED_COOLING_W / _RATED_SUCTION_BAR / _volumetric(_RATED_RATIO)


def cooling(suction_bar: float, discharge_bar: float) -> float:
    """Watts that the running compressor takes out of the coil between these pressures."""
    return _PER_BAR * suction_bar * _volumetric(discharge_bar / suction_bar)


def cop(suction_degc: float, condensing_degc: float) -> float:
    """Watts of cooling per watt of power between these temperatures."""
    return _OF_CARNOT * (suction_degc + _KELVIN) / max(condensing_degc - suction_degc, _LEAST_LIFT)


def _time_of_day(value: object) -> object:
    if not isinstance(value, str):
        return value
    hours, colon, minutes = value.partition(":")
    if not (colon and hours.isdecimal() and minutes.isdecimal() and int(hours) < 24 and int(minutes) < 60):
        raise ValueError(f'{value!r} is no time of day, such as "06:30"')
    return int(hours) * _HOUR_S + int(minutes) * 60


TimeOfDay = Annotated[float, BeforeValidator(_time_of_day, json_schema_input_type=str)]
"""Seconds since midnight, written as `06:30`."""


class Settings(PlantSettings):
    """What can be chosen about it."""

    kind: Literal["cold_store"] = "cold_store"
    start: TimeOfDay = 8 * _HOUR_S
    """The time of day there when the run begins, such as "06:30"."""
    setpoint: float = Field(default=3.0, ge=-5.0, le=12.0)
    """Of the room, °C."""
    hysteresis: float = Field(default=2.0, ge=0.5, le=6.0)
    """Between the thermostat's on and off, K."""
    defrost_every: Duration = Field(default=6 * _HOUR_S, ge=_HOUR_S)
    """From one defrost to the next, counted from midnight."""
    outdoor: float = Field(default=16.0, ge=-10.0, le=35.0)
    """The mean over the days, °C."""


def build(settings: Settings, seed: str) -> "ColdStore":
    """A cold store that has run for a day."""
    return ColdStore(seed, settings)


class _Surroundings:
    """Weather and people: outdoor temperature and door, the same whatever the store does."""

    def __init__(self, seed: str, settings: Settings) -> None:
        self._rng = random.Random(f"{seed}/door")  # noqa: S311 - physics, not secrets
        self._front = Cycle(f"{seed}/front", longest_s=_FRONT_LONGEST_S)
        self._cloud = Cycle(f"{seed}/cloud", longest_s=_CLOUD_LONGEST_S)
        self._mean_degc = settings.outdoor
        self._open_s = 0.0
        self.clock_s = settings.start - _WARM_UP_S
        """Since the midnight before the run."""
        self.outdoor_degc = settings.outdoor

    def step(self) -> None:
        self.clock_s += STEP_S
        self._front.step(STEP_S)
        self._cloud.step(STEP_S)
        hour = self.clock_s % _DAY_S / _HOUR_S
        self.outdoor_degc = (
            self._mean_degc
            + _DAY_SWING * math.cos(math.tau * (hour - _WARMEST_H) / 24)
            + _FRONT_SWING * self._front.value
            + _CLOUD_SWING * self._cloud.value
        )
        self._open_s = max(0.0, self._open_s - STEP_S)
        working = _WORK_H[0] <= hour < _WORK_H[1]
        if self._rng.random() < (_OPENINGS_DAY if working else _OPENINGS_NIGHT) * STEP_S:
            self._open_s = self._rng.uniform(*_OPEN_S)

    @property
    def open(self) -> bool:
        """Whether the door is."""
        return self._open_s > 0.0


class ColdStore:
    """The store and its sensors, stepped every second: the same numbers for the same seed and stress."""

    channels = CHANNELS
    step_s = STEP_S
    shows: Final = {
        "wear": ("vib.rms",),
        "restriction": ("discharge.pressure", "discharge.temperature"),
        "leak": ("suction.pressure", "discharge.temperature"),
    }

    def __init__(self, seed: str, settings: Settings) -> None:
        self._noise = {name: random.Random(f"{seed}/{name}") for name in _SENSORS}  # noqa: S311
        self._vibration = random.Random(f"{seed}/vib.rms")  # noqa: S311
        self._around = _Surroundings(seed, settings)
        half = settings.hysteresis / 2
        self._on_degc, self._off_degc = settings.setpoint + half, settings.setpoint - half
        self._defrost_every_s = settings.defrost_every
        self._air = self._product = self._coil = self._suction = settings.setpoint
        self._condensing = self._shell = settings.outdoor
        self._frost = 0.0
        self._running = False
        self._defrosting = False
        self._since_s = 0.0
        """How long the compressor has been running, or not."""
        self._defrost_s = 0.0
        self._power_w = 0.0
        self._suction_bar = saturation_bar(self._suction)
        self._discharge_bar = saturation_bar(self._condensing)
        self._warm_up()

    def _warm_up(self) -> None:
        """Run for a day, and make the goods as warm as the air was on average."""
        warmth = 0.0
        for _ in range(_WARM_UP_S):
            self._advance(HEALTHY)
            warmth += self._air
        self._product = warmth / _WARM_UP_S

    def step(self, stress: Stress = HEALTHY) -> dict[str, float]:
        """Advance by a second; returns what the sensors of all channels show then."""
        self._advance(stress)
        return {
            "room.temperature": self._sense("room.temperature", self._air),
            "product.temperature": self._sense("product.temperature", self._product),
            "outdoor.temperature": self._sense("outdoor.temperature", self._around.outdoor_degc),
            "evaporator.temperature": self._sense("evaporator.temperature", self._coil),
            "compressor.running": float(self._running),
            "compressor.power": self._sense("compressor.power", self._power_w / 1000),
            "suction.pressure": self._sense("suction.pressure", self._suction_bar),
            "discharge.pressure": self._sense("discharge.pressure", self._discharge_bar),
            "discharge.temperature": self._sense("discharge.temperature", self._shell),
            "door.open": float(self._around.open),
            "defrost.active": float(self._defrosting),
            "vib.rms": self._vib_rms(stress.wear),
        }

    def _sense(self, channel: str, value: float) -> float:
        noise, digits = _SENSORS[channel]
        return round(value + self._noise[channel].gauss(0.0, noise), digits)

    def _vib_rms(self, wear: float) -> float:
        """Of the compressor's bearing over the last second, mm/s: it grows with the pressures' ratio."""
        varies = 1 + _VIB_NOISE * self._vibration.gauss(0.0, 1.0)
        if not self._running:
            return round(_STILL_MM_S * varies, 4)
        ratio = self._discharge_bar / self._suction_bar / _RATED_RATIO
        return round(_RUN_MM_S * (0.85 + 0.15 * ratio) * (1 + wear) * varies, 4)

    def _advance(self, stress: Stress) -> None:
        self._around.step()
        self._defrost()
        self._switch()
        outdoor = self._around.outdoor_degc
        taken = self._advance_circuit(outdoor, stress)
        self._advance_room(outdoor)
        self._advance_shell(outdoor, stress)
        to_suction = _TO_SUCTION * (1 - stress.leak) ** 3 * (self._coil - self._suction)
        self._suction += (to_suction - taken) * STEP_S / _SUCTION
        self._coil -= to_suction * STEP_S / _COIL

    def _switch(self) -> None:
        """The thermostat."""
        self._since_s += STEP_S
        wanted = self._running
        if self._air > self._on_degc:
            wanted = True
        elif self._air < self._off_degc:
            wanted = False
        wanted = wanted and not self._defrosting
        if wanted != self._running and (self._since_s >= _REST_S or self._defrosting):
            self._running, self._since_s = wanted, 0.0

    def _defrost(self) -> None:
        if self._defrosting:
            self._defrost_s += STEP_S
            self._defrosting = self._coil < _DEFROSTED_DEGC and self._defrost_s < _DEFROST_LONGEST_S
            melts = _HEATER_W * STEP_S
            if self._coil >= 0.0 and self._frost > 0.0:
                self._frost = max(0.0, self._frost - melts / _FROST_HEAT)
            else:
                self._coil += melts / _COIL
            return
        if self._around.clock_s % self._defrost_every_s < STEP_S:
            self._defrosting, self._defrost_s = True, 0.0
        if self._running and self._coil < 0.0:
            grown = STEP_S / _FROST_RUN_S + (STEP_S / _FROST_DOOR_S if self._around.open else 0.0)
            self._frost = min(1.0, self._frost + grown)

    def _advance_circuit(self, outdoor: float, stress: Stress) -> float:
        """Compressor and condenser; returns the watts that it takes out of the boiling refrigerant."""
        self._suction_bar = saturation_bar(self._suction)
        self._discharge_bar = saturation_bar(self._condensing)
        given = _TO_OUTDOORS / stress.restriction * (self._condensing - outdoor)
        taken, self._power_w = 0.0, _CRANKCASE_W
        if self._running:
            taken = cooling(self._suction_bar, self._discharge_bar)
            self._power_w = taken / cop(self._suction, self._condensing) * (1 + _WEAR_POWER * stress.wear)
            self._condensing += (taken + self._power_w - given) * STEP_S / _CONDENSER
        else:
            self._condensing -= given * _STILL_CONDENSER * STEP_S / _CONDENSER
        return taken

    def _advance_room(self, outdoor: float) -> None:
        fan = 1.0 if self._running else _STILL_AIR
        to_coil = _TO_COIL * fan / (1 + _FROSTED * self._frost) * (self._air - self._coil)
        to_product = _TO_PRODUCT * (self._air - self._product)
        through = _WALLS + (_DOOR if self._around.open else 0.0)
        gained = through * (outdoor - self._air) + _BASE_LOAD_W + (_FAN_W if self._running else 0.0)
        self._air += (gained - to_product - to_coil) * STEP_S / _AIR
        self._product += to_product * STEP_S / _PRODUCT
        self._coil += to_coil * STEP_S / _COIL

    def _advance_shell(self, outdoor: float, stress: Stress) -> None:
        """The discharge pipe follows the vapour in it, and cools when there is none."""
        if not self._running:
            self._shell += (outdoor - self._shell) * STEP_S / _SHELL_COOLING_S
            return
        drawn_k = self._suction + _SUPERHEAT + _STARVED_SUPERHEAT * stress.leak + _KELVIN
        ratio = max(1.0, self._discharge_bar / self._suction_bar)
        rise = drawn_k * (math.pow(ratio, 1 - 1 / _POLYTROPE) - 1) / _ISENTROPIC
        self._shell += (drawn_k + rise - _KELVIN - self._shell) * STEP_S / _SHELL_LAG_S
