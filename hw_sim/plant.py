"""A pump skid: a centrifugal pump on a drive, a valve, a pipe and a tank, in one physical state.

Notation and laws (J. Gülich, "Centrifugal Pumps", 3rd ed., ch. 2-4; SI but where a name says otherwise):

    pump      H = H0·r² - a·Q²          head over flow, r = speed / nominal (affinity: Q~r, H~r², P~r³)
    system    H = Hs + k(valve)·Q²      static head and the pipe's resistance; k ~ 1/opening²
    power     P = rho·g·Q·H / eta(Q/r)  at the shaft, eta a parabola around its best point
    motor     I = P_el / (√3·U·cos phi) P_el = P / eta_m
    winding   τ dT/dt = T∞(I) - T       T∞ = ambient + c·I²
    tank      A dL/dt = Q - Q_out       Q_out is drawn in proportion to the level above its set-point

The plant starts warm: in the middle of its cycles, with the winding and the tank at the cycles' mean. Its
slowest cycle is five seconds, so that twenty seconds show all there is to see.
"""

import math
import random
from dataclasses import dataclass
from typing import Final

from hw_sim.waveform import Vibration

__all__ = ["CHANNELS", "STEP_S", "PumpSkid", "Stress"]

STEP_S: Final = 0.01

CHANNELS: Final = {
    "motor.current": "A",
    "motor.speed": "rpm",
    "motor.winding_temperature": "degC",
    "plc.flow": "l/min",
    "plc.pressure": "bar",
    "plc.valve": "%",
    "plc.level": "m",
    "plc.running": "",
    "drive.power": "kW",
    "drive.setpoint": "rpm",
    "drive.running": "",
    "vib.x": "mm/s",
    "vib.y": "mm/s",
    "vib.z": "mm/s",
}
"""Every channel with its unit; the part before the dot is the device that reports it."""

_NOISE: Final = {
    "motor.current": 0.05,
    "motor.speed": 1.0,
    "motor.winding_temperature": 0.5,
    "plc.flow": 2.0,
    "plc.pressure": 0.02,
    "plc.valve": 0.15,
    "plc.level": 0.006,
    "drive.power": 0.03,
}
"""Standard deviation of each sensor's noise, in its unit."""

_GRAVITY: Final = 9.81
_DENSITY: Final = 998.0
_NOMINAL_RPM: Final = 1450.0
_HEAD_SHUT_OFF: Final = 42.0
_HEAD_STATIC: Final = 12.0
_PUMP_SLOPE: Final = 60_000.0
_PIPE_SLOPE: Final = 75_000.0
_BEST_FLOW: Final = 0.0145
_BEST_EFFICIENCY: Final = 0.74
_MOTOR_EFFICIENCY: Final = 0.9
_VOLTAGE_COS_PHI: Final = math.sqrt(3) * 400.0 * 0.84
_WINDING_RISE: Final = 0.22
_AMBIENT: Final = 25.0
_WINDING_LAG_S: Final = 5.0
_SPEED_LAG_S: Final = 0.25
_FLOW_LAG_S: Final = 0.15
_TANK_AREA: Final = 0.05
_TANK_SET: Final = 1.2
_TANK_GAIN: Final = 0.05
"""Draw per metre above the set-point, m³/s: with the area, a lag of one second."""
_VALVE_OPEN: Final = 62.0

_SLOW_S: Final = 5.0
_FAST_S: Final = 2.0
_SPEED_SWING: Final = 35.0
_VALVE_SWING: Final = 3.0
_SETPOINT_STEP: Final = 5.0
_WANDER_S: Final = 0.7


@dataclass(frozen=True, slots=True)
class Stress:
    """What is wrong with the plant now."""

    restriction: float = 1.0
    """The pipe's resistance downstream of the pressure sensor, as a multiple of the clean pipe's."""
    wear: float = 0.0
    """The rise of the bearing's vibration, as a share."""


HEALTHY: Final = Stress()


class _Wander:
    """A bounded random walk around zero: first-order autoregressive, unit variance (Ornstein-Uhlenbeck)."""

    def __init__(self, seed: str, lag_s: float) -> None:
        self._rng = random.Random(seed)  # noqa: S311 - physics, not secrets
        self._keep = math.exp(-STEP_S / lag_s)
        self._stir = math.sqrt(1 - self._keep**2)
        self._value = self._rng.gauss(0.0, 1.0)

    def step(self) -> float:
        self._value = self._keep * self._value + self._stir * self._rng.gauss(0.0, 1.0)
        return max(-3.0, min(3.0, self._value))


class PumpSkid:
    """The plant and its sensors; step n is at n · 10 ms, the same numbers for the same seed and stress."""

    def __init__(self, seed: int) -> None:
        self.steps = 0
        self._noise = {name: random.Random(f"{seed}/{name}") for name in _NOISE}  # noqa: S311
        self._vibration = Vibration(str(seed))
        self._speed_wander = _Wander(f"{seed}/speed", _WANDER_S)
        self._valve_wander = _Wander(f"{seed}/valve", _WANDER_S)
        start = random.Random(f"{seed}/start")  # noqa: S311
        self._phase_slow = start.uniform(0, 2 * math.pi)
        self._phase_fast = start.uniform(0, 2 * math.pi)
        self._speed = _NOMINAL_RPM
        self._flow = _flow_at(1.0, _VALVE_OPEN, 1.0)
        self._draw_mean = self._flow
        self._level = _TANK_SET
        self._winding = _AMBIENT + _WINDING_RISE * _current(_shaft_power(self._flow, 1.0)) ** 2
        for _ in range(round(20 * _SLOW_S / STEP_S)):
            self.step()
        self.steps = 0

    def step(self, stress: Stress = HEALTHY) -> dict[str, float]:
        """Advance by 10 ms; returns what an ideal wire would read of every channel, noise included."""
        self.steps += 1
        self._phase_slow += 2 * math.pi * STEP_S / _SLOW_S
        self._phase_fast += 2 * math.pi * STEP_S / _FAST_S
        demand = _SPEED_SWING * (math.sin(self._phase_slow) + 0.25 * self._speed_wander.step())
        setpoint = _NOMINAL_RPM + round(demand / _SETPOINT_STEP) * _SETPOINT_STEP
        valve = _VALVE_OPEN + _VALVE_SWING * (math.sin(self._phase_fast) + 0.3 * self._valve_wander.step())
        self._speed += (setpoint - self._speed) * STEP_S / _SPEED_LAG_S
        ratio = self._speed / _NOMINAL_RPM
        self._flow += (_flow_at(ratio, valve, stress.restriction) - self._flow) * STEP_S / _FLOW_LAG_S
        head = _HEAD_SHUT_OFF * ratio**2 - _PUMP_SLOPE * self._flow**2
        shaft = _shaft_power(self._flow, ratio)
        current = _current(shaft)
        self._winding += (_AMBIENT + _WINDING_RISE * current**2 - self._winding) * STEP_S / _WINDING_LAG_S
        draw = self._draw_mean + _TANK_GAIN * (self._level - _TANK_SET)
        self._level += (self._flow - draw) * STEP_S / _TANK_AREA
        velocity = self._vibration.step(
            STEP_S, speed_rpm=self._speed, load=ratio * self._flow / self._draw_mean, wear=stress.wear
        )
        return {
            "motor.current": self._read("motor.current", current),
            "motor.speed": self._read("motor.speed", self._speed),
            "motor.winding_temperature": self._read("motor.winding_temperature", self._winding),
            "plc.flow": self._read("plc.flow", self._flow * 60_000),
            "plc.pressure": self._read("plc.pressure", _DENSITY * _GRAVITY * head / 1e5),
            "plc.valve": self._read("plc.valve", valve),
            "plc.level": self._read("plc.level", self._level),
            "plc.running": 1.0,
            "drive.power": self._read("drive.power", shaft / _MOTOR_EFFICIENCY / 1000),
            "drive.setpoint": setpoint,
            "drive.running": 1.0,
            **{f"vib.{axis}": value for axis, value in velocity.items()},
        }

    def _read(self, channel: str, value: float) -> float:
        return value + _NOISE[channel] * self._noise[channel].gauss(0.0, 1.0)


def _flow_at(ratio: float, valve: float, restriction: float) -> float:
    """Where pump and system meet, m³/s."""
    resistance = _PIPE_SLOPE * restriction * (_VALVE_OPEN / valve) ** 2
    return math.sqrt(max(0.0, _HEAD_SHUT_OFF * ratio**2 - _HEAD_STATIC) / (_PUMP_SLOPE + resistance))


def _shaft_power(flow: float, ratio: float) -> float:
    """Watts."""
    head = _HEAD_SHUT_OFF * ratio**2 - _PUMP_SLOPE * flow**2
    off_best = flow / ratio / _BEST_FLOW - 1
    return _DENSITY * _GRAVITY * flow * head / (_BEST_EFFICIENCY * (1 - 0.6 * off_best**2))


def _current(shaft_power: float) -> float:
    return shaft_power / _MOTOR_EFFICIENCY / _VOLTAGE_COS_PHI
