"""A pump skid: a centrifugal pump on a drive, a valve, a pipe and a tank, in one physical state.

    drive ──▶ motor ──▶ pump ──▶ (pressure) ──▶ valve, pipe ──▶ (flow) ──▶ tank ──▶ draw

Notation and laws, SI but where a name says otherwise (J. Gülich, "Centrifugal Pumps", 3rd ed., chapters 2-4):

    pump      H = H0·r² - a·Q²          head over flow, r = speed / nominal speed
    power     P = D·g·Q·H / η           at the shaft, D the water's density
              η = ηb·(1 - (q - 1)²)     q = Q / (r·Qb); b, the best point
    affinity  Q ~ r, H ~ r², P ~ r³     follows from these two, at one place on the curve
    system    H = Hs + k·Qp²            static head and friction; k ~ restriction / opening²
    leak      Qp = (1 - leak)·Q         between the pump and the flow meter; the pump runs out on its curve
    motor     I = Pe / (√3·U·cos φ)     Pe = P / ηm, the electrical power
    winding   τ·dT/dt = Ta + c·I² - T   a first-order lag over copper losses
    tank      A·dL/dt = Qp - Qd         Qd is drawn by a proportional-integral level controller
    lags      speed and flow follow their targets in first order: inertia of rotor and water column

The load makes two cycles that are never twice alike: the set-point of the speed in stairs, in at most five
seconds a turn, and the valve in at most two. The plant starts warm, amid its cycles, with winding and tank
where the cycles hold them, and both cycles sum to zero over each turn. So twenty seconds show all there is to
see, and the next minutes look the same.
"""

import math
import random
from collections.abc import Mapping
from typing import Final, Literal

from hw_sim.plant import HEALTHY, Channel, Stress
from hw_sim.plants import PlantSettings
from hw_sim.waveform import Cycle, Vibration

__all__ = ["CHANNELS", "STEP_S", "PumpSkid", "Settings", "build", "duty_flow", "pump_head", "shaft_power"]

STEP_S: Final = 0.01

CHANNELS: Final[Mapping[str, Channel]] = {
    "motor.current": Channel("A", 0.0, 25.0, 0.5),
    "motor.speed": Channel("rpm", 0.0, 3000.0, 21.0),
    "motor.winding_temperature": Channel("degC", 0.0, 150.0, 0.16),
    "plc.flow": Channel("l/min", 0.0, 1600.0, 25.0),
    "plc.pressure": Channel("bar", 0.0, 6.0, 0.1),
    "plc.valve": Channel("%", 0.0, 100.0, 2.0),
    "plc.level": Channel("m", 0.0, 3.0, 0.003),
    "plc.running": Channel(""),
    "drive.power": Channel("kW", 0.0, 15.0, 0.3),
    "drive.setpoint": Channel("rpm", 0.0, 3000.0, 23.0),
    "drive.running": Channel(""),
    "vib.x": Channel("mm/s", -10.0, 10.0, 0.75),
    "vib.y": Channel("mm/s", -10.0, 10.0, 0.92),
    "vib.z": Channel("mm/s", -10.0, 10.0, 0.49),
}
"""Every channel; the part before the dot is the device that usually reports it."""

_NOISE: Final[Mapping[str, float]] = {
    "motor.current": 0.05,
    "motor.speed": 1.0,
    "motor.winding_temperature": 0.15,
    "plc.flow": 4.0,
    "plc.pressure": 0.04,
    "plc.valve": 0.5,
    "plc.level": 0.001,
    "drive.power": 0.03,
}
"""Standard deviation of each sensor's noise in its unit; pressure and valve hide the steps of their int16."""

_DENSITY: Final = 998.0
_GRAVITY: Final = 9.81
_NOMINAL_RPM: Final = 1450.0
_SHUT_OFF_HEAD: Final = 42.0
_STATIC_HEAD: Final = 12.0
_PUMP_SLOPE: Final = 60_000.0
"""a: what the pump itself loses, m per (m³/s)²."""
_PIPE_SLOPE: Final = 75_000.0
"""k with a clean pipe and the valve as it usually stands."""
_BEST_FLOW: Final = 0.016
_BEST_EFFICIENCY: Final = 0.74
_MOTOR_EFFICIENCY: Final = 0.9
_VOLTS_COS_PHI: Final = math.sqrt(3) * 400.0 * 0.84
_AMBIENT_DEGC: Final = 25.0
_WINDING_RISE: Final = 0.22
"""c, K per A²."""
_WINDING_LAG_S: Final = 40.0
_SPEED_LAG_S: Final = 0.25
_FLOW_LAG_S: Final = 0.15
_TANK_AREA: Final = 0.05
_LEVEL_SETPOINT: Final = 1.2
_LEVEL_LOOP: Final = 1.5
"""Natural frequency of the level loop, rad/s; critically damped."""

_LOAD_LONGEST_S: Final = 5.0
_LOAD_STAIRS: Final = 10
_SPEED_SWING_RPM: Final = 35.0
_SETPOINT_STEP_RPM: Final = 5.0
_VALVE_LONGEST_S: Final = 2.0
_VALVE_OPEN: Final = 62.0
_VALVE_SWING: Final = 3.0
_WARM_UP_S: Final = 120.0


def pump_head(flow: float, ratio: float) -> float:
    """Head in metres at a flow in m³/s and a speed as a multiple of the nominal."""
    return _SHUT_OFF_HEAD * ratio**2 - _PUMP_SLOPE * flow**2


def duty_flow(ratio: float, valve: float = _VALVE_OPEN, restriction: float = 1.0, leak: float = 0.0) -> float:
    """Where the pump's curve and the system's meet, m³/s; the valve is open by so many per cent."""
    friction = _PIPE_SLOPE * restriction * (_VALVE_OPEN / valve) ** 2 * (1 - leak) ** 2
    return math.sqrt(max(0.0, _SHUT_OFF_HEAD * ratio**2 - _STATIC_HEAD) / (_PUMP_SLOPE + friction))


def shaft_power(flow: float, ratio: float) -> float:
    """Watts into the pump at a flow in m³/s and a speed as a multiple of the nominal."""
    off_best = flow / (ratio * _BEST_FLOW) - 1
    return _DENSITY * _GRAVITY * flow * pump_head(flow, ratio) / (_BEST_EFFICIENCY * (1 - off_best**2))


_NOMINAL_FLOW: Final = duty_flow(1.0)
_NOMINAL_POWER: Final = shaft_power(_NOMINAL_FLOW, 1.0)


class Settings(PlantSettings):
    """Nothing can be chosen about it."""

    kind: Literal["pump_skid"] = "pump_skid"


def build(_settings: Settings, seed: str) -> "PumpSkid":
    """A pump skid that has run warm."""
    return PumpSkid(seed)


class PumpSkid:
    """The plant and its sensors, stepped every 10 ms: the same numbers for the same seed and stress."""

    channels = CHANNELS
    step_s = STEP_S
    shows: Final = {
        "wear": ("vib.x", "vib.y"),
        "restriction": ("plc.flow", "plc.pressure"),
        "leak": ("plc.flow", "plc.pressure"),
    }

    def __init__(self, seed: str) -> None:
        self._noise = {name: random.Random(f"{seed}/{name}") for name in _NOISE}  # noqa: S311 - physics
        self._vibration = Vibration(seed)
        self._load = Cycle(f"{seed}/load", longest_s=_LOAD_LONGEST_S)
        self._throttle = Cycle(f"{seed}/valve", longest_s=_VALVE_LONGEST_S)
        self._setpoint_rpm = self._speed_rpm = _NOMINAL_RPM
        self._valve = _VALVE_OPEN
        self._flow = self._piped = self._draw = _NOMINAL_FLOW
        self._shaft_power = _NOMINAL_POWER
        self._level = _LEVEL_SETPOINT
        self._winding_degc = _AMBIENT_DEGC
        self._warm_up()

    def _warm_up(self) -> None:
        """Run in, and bring the winding to where it would settle: the mean of what it strives for."""
        steps = round(_WARM_UP_S / STEP_S)
        strives_for = 0.0
        for _ in range(steps):
            self._advance(HEALTHY)
            strives_for += _settled_winding(self._current)
        self._winding_degc = strives_for / steps

    def step(self, stress: Stress = HEALTHY) -> dict[str, float]:
        """Advance by 10 ms; returns what the sensors of all channels show then."""
        self._advance(stress)
        velocity = self._vibration.step(
            STEP_S,
            speed_rpm=self._speed_rpm,
            load=self._shaft_power / _NOMINAL_POWER,
            wear=stress.wear,
            race=stress.race,
        )
        return {
            "motor.current": self._sense("motor.current", self._current),
            "motor.speed": self._sense("motor.speed", self._speed_rpm),
            "motor.winding_temperature": self._sense("motor.winding_temperature", self._winding_degc),
            "plc.flow": self._sense("plc.flow", self._piped * 60_000),
            "plc.pressure": self._sense("plc.pressure", self._pressure_bar),
            "plc.valve": self._sense("plc.valve", self._valve),
            "plc.level": self._sense("plc.level", self._level),
            "plc.running": 1.0,
            "drive.power": self._sense("drive.power", self._shaft_power / _MOTOR_EFFICIENCY / 1000),
            "drive.setpoint": self._setpoint_rpm,
            "drive.running": 1.0,
            **{f"vib.{axis}": value for axis, value in velocity.items()},
        }

    def _advance(self, stress: Stress) -> None:
        self._load.step(STEP_S)
        self._throttle.step(STEP_S)
        demand_rpm = _SPEED_SWING_RPM * self._load.stair(_LOAD_STAIRS)
        self._setpoint_rpm = _NOMINAL_RPM + round(demand_rpm / _SETPOINT_STEP_RPM) * _SETPOINT_STEP_RPM
        self._valve = _VALVE_OPEN + _VALVE_SWING * self._throttle.value
        self._speed_rpm += (self._setpoint_rpm - self._speed_rpm) * STEP_S / _SPEED_LAG_S
        ratio = self._speed_rpm / _NOMINAL_RPM
        target = duty_flow(ratio, self._valve, stress.restriction, stress.leak)
        self._flow += (target - self._flow) * STEP_S / _FLOW_LAG_S
        self._shaft_power = shaft_power(self._flow, ratio)
        self._winding_degc += (_settled_winding(self._current) - self._winding_degc) * STEP_S / _WINDING_LAG_S
        self._piped = self._flow * (1 - stress.leak)
        self._advance_tank()

    def _advance_tank(self) -> None:
        error = self._level - _LEVEL_SETPOINT
        self._draw += _LEVEL_LOOP**2 * _TANK_AREA * error * STEP_S
        proportional = 2 * _LEVEL_LOOP * _TANK_AREA * error
        self._level += (self._piped - self._draw - proportional) * STEP_S / _TANK_AREA

    @property
    def _current(self) -> float:
        return self._shaft_power / _MOTOR_EFFICIENCY / _VOLTS_COS_PHI

    @property
    def _pressure_bar(self) -> float:
        head = pump_head(self._flow, self._speed_rpm / _NOMINAL_RPM)
        return _DENSITY * _GRAVITY * head / 1e5

    def _sense(self, channel: str, value: float) -> float:
        return value + self._noise[channel].gauss(0.0, _NOISE[channel])


def _settled_winding(current: float) -> float:
    return _AMBIENT_DEGC + _WINDING_RISE * current**2
