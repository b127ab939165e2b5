"""A milling spindle at work: a motor spindle on an angular contact bearing, its tools, feed and coolant.

    program ──▶ feed ──▶ cut ──▶ spindle ◀── motor        coolant pump ──▶ (pressure) ──▶ filter ──▶ (flow)
                          │         │                                                                  │
                          └──▶ vibration ◀── bearing ──▶ (temperature) ◀── jacket ◀────┬───────────────┘
                                                                                       └──▶ flood nozzles

Notation and laws, SI but where a name says otherwise (Y. Altintas, "Manufacturing Automation", 2nd ed.,
chapters 2-3, for the cut; T. A. Harris, "Rolling Bearing Analysis", 4th ed., chapter 15, for the heat):

    cut       Pc = kc·A·vf              specific cutting force, section of the chip, feed; A ~ depth of cut
              vf = fz·z·n               feed per tooth, teeth, speed
    spindle   M = Pc/ω + Mf + J·dω/dt   torque of the motor; Mf, the bearing's friction
    motor     P = M·ω/η + P0            electrical power; below zero while it brakes
              I = √(Im² + (M/kT)²)      magnetising and torque current
              load = |M| / Mr           Mr, the rated torque: above the base speed, rated power / ω
    bearing   C·dT/dt = Mf·ω + h·Pc - UA·(T - Tc)   with UA = UA0 + UAj·(Qj/Qj0)^0.8, turbulent in the jacket
    coolant   p = p0 - a·Q²             the pump's curve, bar and l/min
              p = R·(Qm/G)²             filter, jacket and, but for tool changes, flood nozzles; restriction R
              Qm = (1 - leak)·Q         what the flow meter behind the filter still sees

Acceleration of the nose in three axes, m/s² (R. B. Randall, "Vibration-based Condition Monitoring", 2nd ed.,
chapter 2):

    shaft     orders 1 to 3 ~ n²: unbalance and misalignment
    teeth     orders z to 4z ~ cutting torque, with the run-out's side-bands at one turn
    noise     broadband, more while cutting; the amplifier's own at a standstill
    bearing   13 balls of 12 mm on 60 mm at 25°: BPFO 5.32, BPFI 7.68, 2·BSF 4.84, FTF 0.41 times the shaft.
              A worn part strikes the structure, whose modes ring at 410, 790 and 3100 Hz (see bearing.py);
              those above 0.45 of the sampling rate the sensor's filter takes away

A part takes about half a minute: three tools, each with tool change, run-up and a few cuts, of which no two
have the same length, depth, feed and speed. A step is one sample of the vibration. All else goes on every
10 ms, and a stress is looked at as often, so that it shows at latest 10 ms after its onset.
"""

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hw_sim.bearing import Bearing, Defect, Mode
from hw_sim.plant import HEALTHY, Channel, Stress
from hw_sim.plants import PlantSettings
from hw_sim.waveform import TURN_POINTS, Cycle, generator, turn

__all__ = ["BEARING", "CHANNELS", "Settings", "Spindle", "Vibration", "build", "coolant_flow"]

_BLOCK_S: Final = 0.01
_BLOCKS_PER_SECOND: Final = 100

CHANNELS: Final[Mapping[str, Channel]] = {
    "spindle.speed": Channel("rpm", 0.0, 3000.0, 600.0),
    "spindle.load": Channel("%", 0.0, 150.0, 22.0),
    "spindle.torque": Channel("N.m", -50.0, 50.0, 8.0),
    "spindle.power": Channel("kW", -8.0, 8.0, 1.2),
    "spindle.current": Channel("A", 0.0, 40.0, 3.4),
    "spindle.temperature": Channel("degC", 0.0, 120.0, 0.25),
    "coolant.flow": Channel("l/min", 0.0, 50.0, 5.4),
    "coolant.pressure": Channel("bar", 0.0, 10.0, 0.55),
    "axis.feed": Channel("mm/min", 0.0, 10_000.0, 3200.0),
    "tool.number": Channel("", 0.0, 3.0),
    "tool.cutting": Channel(""),
    "vib.x": Channel("m/s2", -80.0, 80.0, 0.85),
    "vib.y": Channel("m/s2", -80.0, 80.0, 0.75),
    "vib.z": Channel("m/s2", -80.0, 80.0, 0.57),
}
"""Every channel; the part before the dot is what usually reports it."""


class _Sensor(NamedTuple):
    noise: float
    """Standard deviation, in the channel's unit."""
    digits: int
    """Decimals that it resolves."""


_SENSORS: Final[Mapping[str, _Sensor]] = {
    "spindle.speed": _Sensor(1.0, 2),
    "spindle.load": _Sensor(0.4, 3),
    "spindle.torque": _Sensor(0.15, 4),
    "spindle.power": _Sensor(0.02, 5),
    "spindle.current": _Sensor(0.08, 4),
    "spindle.temperature": _Sensor(0.08, 3),
    "coolant.flow": _Sensor(0.15, 4),
    "coolant.pressure": _Sensor(0.03, 5),
    "axis.feed": _Sensor(2.0, 2),
}
_VIB_DIGITS: Final = 5
"""A 24-bit converter over ±80 m/s². To round also drops the last bits, in which processors differ."""


@dataclass(frozen=True, slots=True)
class _Tool:
    """A tool and what the program does with it."""

    number: int
    teeth: int
    speed_rpm: float
    feed_per_tooth_mm: float
    section_mm2: float
    """A, across the feed: width by depth of cut, or the drill's hole."""
    cutting_n_mm2: float
    """kc of the steel at this chip thickness."""
    cuts: int
    cut_s: float

    @property
    def feed_mm_min(self) -> float:
        return self.feed_per_tooth_mm * self.teeth * self.speed_rpm


_TOOLS: Final = (
    _Tool(1, 4, 1200.0, 0.15, 112.0, 1900.0, cuts=2, cut_s=2.6),
    _Tool(2, 3, 1800.0, 0.10, 96.0, 2100.0, cuts=3, cut_s=2.2),
    _Tool(3, 2, 900.0, 0.11, 154.0, 2300.0, cuts=3, cut_s=1.5),
)
"""A face mill of 63 mm, an end mill of 20 mm and a drill of 14 mm."""

_NOMINAL_RPM: Final = 1200.0
_NOMINAL_TORQUE: Final = 20.0
"""Of the cut, N·m: what the face mill takes; amplitudes are given for these two."""
_SLEW_RPM_S: Final = 2000.0
_SPEED_LAG_S: Final = 0.05
_DROOP: Final = 0.01
"""How much slower the spindle turns at its rated torque."""
_INERTIA: Final = 0.02
_FRICTION: Final = 1.1
"""Mf at a standstill, N·m."""
_FRICTION_RISE: Final = 0.002
"""And per rad/s."""
_WEAR_FRICTION: Final = 0.5
"""How much of the rise of the vibration the friction makes too."""
_CUT_LAG_S: Final = 0.06
_CUT_LONGEST_S: Final = 1.5
_CUT_SWING: Final = 0.06
_RATED_W: Final = 5500.0
_BASE_RAD_S: Final = 1500.0 / 60 * math.tau
_EFFICIENCY: Final = 0.9
_STANDBY_W: Final = 250.0
_MAGNETISING_A: Final = 5.0
_TORQUE_PER_A: Final = 1.6
_RAPID_MM_MIN: Final = 8000.0
_FEED_LAG_S: Final = 0.08
_CHANGE_S: Final = 1.9
_RUN_UP_S: Final = 1.2
_RETRACT_S: Final = 0.6

_HEAT_CAPACITY: Final = 1500.0
_CUT_HEAT: Final = 0.02
"""h, the cut's share that arrives at the bearing."""
_COOLANT_DEGC: Final = 24.0
_UA_STILL: Final = 3.0
_UA_JACKET: Final = 9.0

_SHUT_OFF_BAR: Final = 8.0
_PUMP_SLOPE: Final = 0.0022
_JACKET: Final = 5.7
"""G of the spindle's jacket, l/min at 1 bar."""
_FLOOD: Final = 6.5
_FLOOD_LAG_S: Final = 0.15
_WARM_UP_S: Final = 100.0

BEARING: Final = Bearing(balls=13, ball_mm=12.0, pitch_mm=60.0, contact_deg=25.0)
_MODES: Final = (Mode(410.0, 0.08, 1.0), Mode(790.0, 0.07, 2.0), Mode(3100.0, 0.04, 3.0))
_FILTER: Final = 0.45
_FULL_HZ: Final = 10.0
_FEELS: Final = np.array([[1.0], [1.0], [0.35]])
"""How much of the bearing's wear each axis feels."""
_AXIS: Final = (1.0, 0.85, 0.55)
"""How much of the teeth's force each axis feels."""
_IDLE_NOISE: Final = 0.15
_CUT_NOISE: Final = 0.5
_FLOOR_NOISE: Final = 0.02
_SHAFT_ORDERS: Final = ((1, 0.28), (2, 0.12), (3, 0.05))
_TOOTH_ORDERS: Final = ((1, 1.6), (2, 0.8), (3, 0.45), (4, 0.2))
_RUN_OUT: Final = 0.3
_NOISE_BLOCKS: Final = 64
"""Blocks of noise that are drawn at once."""


def _shaft(axis: int) -> list[tuple[int, float, float]]:
    return [(order, size * _AXIS[axis], axis / 3 + 0.37 * order) for order, size in _SHAFT_ORDERS]


def _teeth(axis: int, teeth: int) -> list[tuple[int, float, float]]:
    harmonics = []
    for order, size in _TOOTH_ORDERS:
        for side, share in ((0, 1.0), (-1, _RUN_OUT / 2), (1, _RUN_OUT / 2)):
            harmonics.append((order * teeth + side, size * share * _AXIS[axis], axis / 4 + 0.29 * order))
    return harmonics


_SHAFT_TURN: Final = np.array([turn(_shaft(axis)) for axis in range(3)])
_TOOTH_TURN: Final = {
    tool.number: np.array([turn(_teeth(axis, tool.teeth)) for axis in range(3)]) for tool in _TOOLS
}
"""The acceleration over a turn of the shaft, at nominal speed or torque; shape (3, TURN_POINTS)."""
_SHAFT_SQUARE: Final = (_SHAFT_TURN**2).mean(axis=1, keepdims=True)
_TOOTH_SQUARE: Final = {
    number: (turns**2).mean(axis=1, keepdims=True) for number, turns in _TOOTH_TURN.items()
}


def coolant_flow(conductance: float, restriction: float = 1.0, leak: float = 0.0) -> float:
    """Where the coolant pump's curve and the circuit's meet: what the pump gives, l/min."""
    friction = restriction * ((1 - leak) / conductance) ** 2
    return math.sqrt(_SHUT_OFF_BAR / (_PUMP_SLOPE + friction))


_JACKET_FLOW: Final = coolant_flow(_JACKET)


class Settings(PlantSettings):
    """What can be chosen about it."""

    kind: Literal["spindle"] = "spindle"
    rate_hz: int = Field(default=2000, ge=1000, le=20_000, multiple_of=_BLOCKS_PER_SECOND)
    """Samples of the vibration per second, which are the plant's steps: whole hundreds."""


def build(settings: Settings, seed: str) -> "Spindle":
    """A spindle that has run warm, amid a part."""
    return Spindle(seed, rate_hz=settings.rate_hz)


class _Move(NamedTuple):
    """A piece of the program."""

    tool: _Tool
    speed_rpm: float
    feed_mm_min: float
    depth: float
    """Of the cut, relative to the tool's own; 0 in air."""
    length_s: float


class _Program:
    """The moves of one part after the other, no two alike."""

    def __init__(self, seed: str) -> None:
        self._rng = random.Random(seed)  # noqa: S311 - physics, not secrets
        self._turns = 0
        self._moves: list[_Move] = []
        self._left_s = 0.0
        self.move = self._next()

    def step(self, dt_s: float) -> None:
        self._left_s -= dt_s
        if self._left_s <= 0.0:
            self.move = self._next()

    def _next(self) -> _Move:
        if not self._moves:
            self._moves = self._operation(_TOOLS[self._turns % len(_TOOLS)])
            self._turns += 1
        move = self._moves.pop(0)
        self._left_s += move.length_s
        return move

    def _operation(self, tool: _Tool) -> list[_Move]:
        some = self._rng.uniform
        speed_rpm = tool.speed_rpm * some(0.97, 1.03)
        moves = [
            _Move(tool, 0.0, 0.0, 0.0, _CHANGE_S * some(0.9, 1.2)),
            _Move(tool, speed_rpm, _RAPID_MM_MIN, 0.0, _RUN_UP_S * some(0.95, 1.1)),
        ]
        for _ in range(tool.cuts):
            feed = tool.feed_mm_min * some(0.95, 1.05)
            moves += [
                _Move(tool, speed_rpm, feed, some(0.9, 1.1), tool.cut_s * some(0.8, 1.2)),
                _Move(tool, speed_rpm, _RAPID_MM_MIN, 0.0, _RETRACT_S * some(0.8, 1.2)),
            ]
        return moves


class Vibration:
    """Acceleration of the nose in three axes, in blocks of 10 ms, phase-continuous with the shaft."""

    def __init__(self, seed: str, rate_hz: int) -> None:
        self._samples = rate_hz // _BLOCKS_PER_SECOND
        self._rng = generator(f"{seed}/vib")
        self._noise = np.zeros((3, 0))
        self._drawn = 0
        modes = [mode for mode in _MODES if mode.natural_hz <= _FILTER * rate_hz]
        self._defect = Defect(
            f"{seed}/bearing", BEARING, modes, rate_hz=rate_hz, samples=self._samples, full_hz=_FULL_HZ
        )
        self._share = np.arange(1, self._samples + 1) / self._samples
        self._turns = 0.0

    def block(
        self, *, speed_rpm: float, cut_torque: float, tool: int, stress: Stress = HEALTHY
    ) -> list[list[float]]:
        """The next samples of each axis, m/s².

        Args:
            speed_rpm: of the shaft.
            cut_torque: what the cut takes, N·m.
            tool: its number.
            stress: its wear is by how much the root mean square of axes that feel it has risen.
        """
        passed = speed_rpm / 60 * _BLOCK_S
        places = ((self._turns + passed * self._share) * TURN_POINTS).astype(np.intp) & (TURN_POINTS - 1)
        self._turns = (self._turns + passed) % 1.0
        pull = (speed_rpm / _NOMINAL_RPM) ** 2
        bite = cut_torque / _NOMINAL_TORQUE
        loud = _FLOOR_NOISE + _IDLE_NOISE * min(1.0, pull) + _CUT_NOISE * bite
        signal = pull * _SHAFT_TURN[:, places] + bite * _TOOTH_TURN[tool][:, places] + loud * self._rough()
        if stress.wear > 0.0:
            square = pull**2 * _SHAFT_SQUARE + bite**2 * _TOOTH_SQUARE[tool] + loud**2
            added = _FEELS * np.sqrt(square * ((1 + stress.wear) ** 2 - 1))
            signal += added * self._defect.block(speed_rpm / 60, stress.race)
        return signal.round(_VIB_DIGITS).tolist()  # type: ignore[no-any-return] # of a two-dimensional array

    def _rough(self) -> NDArray[np.float64]:
        """White noise, the same whatever else the block is made of; shape (3, samples)."""
        if self._drawn == self._noise.shape[1]:
            self._noise = self._rng.standard_normal((3, self._samples * _NOISE_BLOCKS))
            self._drawn = 0
        self._drawn += self._samples
        return self._noise[:, self._drawn - self._samples : self._drawn]


class Spindle:
    """The machine and its sensors, stepped once per sample: the same numbers for the same seed and stress."""

    channels = CHANNELS
    shows: Final = {
        "wear": ("vib.x", "vib.y"),
        "restriction": ("coolant.flow", "coolant.pressure"),
        "leak": ("coolant.flow", "coolant.pressure"),
    }

    def __init__(self, seed: str, *, rate_hz: int = 2000) -> None:
        self.step_s = 1 / rate_hz
        self._samples = rate_hz // _BLOCKS_PER_SECOND
        self._noise = {name: random.Random(f"{seed}/{name}") for name in _SENSORS}  # noqa: S311
        self._vibration = Vibration(seed, rate_hz)
        self._program = _Program(f"{seed}/program")
        self._chip = Cycle(f"{seed}/chip", longest_s=_CUT_LONGEST_S)
        self._speed_rpm = self._torque = self._feed = self._flood = self._cut_torque = 0.0
        self._flow = self._pressure_bar = 0.0
        self._bearing_degc = _COOLANT_DEGC
        self._settled_degc = _COOLANT_DEGC
        self._slow: dict[str, float] = {}
        self._axes: list[list[float]] = [[], [], []]
        self._at = self._samples
        self._warm_up()

    def _warm_up(self) -> None:
        """Run in, and bring the bearing to where it would settle: the mean of what it strives for."""
        steps = round(_WARM_UP_S / _BLOCK_S)
        strives_for = 0.0
        for _ in range(steps):
            self._advance(HEALTHY)
            strives_for += self._settled_degc
        self._bearing_degc = strives_for / steps

    def step(self, stress: Stress = HEALTHY) -> dict[str, float]:
        """Advance by one sample; returns what the sensors of all channels show then.

        The stress is looked at with the first sample of each 10 ms.
        """
        if self._at == self._samples:
            self._block(stress)
        at, (x, y, z) = self._at, self._axes
        self._at += 1
        return {**self._slow, "vib.x": x[at], "vib.y": y[at], "vib.z": z[at]}

    def _block(self, stress: Stress) -> None:
        self._advance(stress)
        move = self._program.move
        self._axes = self._vibration.block(
            speed_rpm=self._speed_rpm, cut_torque=self._cut_torque, tool=move.tool.number, stress=stress
        )
        self._at = 0
        omega = self._speed_rpm / 60 * math.tau
        rated = _RATED_W / max(omega, _BASE_RAD_S)
        power = (self._torque * omega / _EFFICIENCY + _STANDBY_W) / 1000
        truth = {
            "spindle.speed": self._speed_rpm,
            "spindle.load": 100 * abs(self._torque) / rated,
            "spindle.torque": self._torque,
            "spindle.power": power,
            "spindle.current": math.hypot(_MAGNETISING_A, self._torque / _TORQUE_PER_A),
            "spindle.temperature": self._bearing_degc,
            "coolant.flow": self._flow,
            "coolant.pressure": self._pressure_bar,
            "axis.feed": self._feed,
        }
        self._slow = {name: self._sense(name, value) for name, value in truth.items()}
        self._slow["tool.number"] = float(move.tool.number)
        self._slow["tool.cutting"] = float(move.depth > 0.0)

    def _sense(self, channel: str, value: float) -> float:
        noise, digits = _SENSORS[channel]
        return round(value + self._noise[channel].gauss(0.0, noise), digits)

    def _advance(self, stress: Stress) -> None:
        self._program.step(_BLOCK_S)
        self._chip.step(_BLOCK_S)
        move = self._program.move
        self._feed += (move.feed_mm_min - self._feed) * _BLOCK_S / _FEED_LAG_S
        before_rpm = self._speed_rpm
        self._turn_up(move.speed_rpm)
        omega = self._speed_rpm / 60 * math.tau
        wanted = 0.0
        if move.depth > 0.0:
            removed_mm3_s = move.depth * move.tool.section_mm2 * move.feed_mm_min / 60
            uneven = 1 + _CUT_SWING * self._chip.value
            wanted = move.tool.cutting_n_mm2 * removed_mm3_s * uneven / 1000 / omega
        self._cut_torque += (wanted - self._cut_torque) * _BLOCK_S / _CUT_LAG_S
        friction = 0.0
        if omega > 0.0:
            friction = (_FRICTION + _FRICTION_RISE * omega) * (1 + _WEAR_FRICTION * stress.wear)
        speeding_up = (self._speed_rpm - before_rpm) / 60 * math.tau / _BLOCK_S
        self._torque = self._cut_torque + friction + _INERTIA * speeding_up
        self._advance_coolant(stress, on=move.speed_rpm > 0.0)
        self._advance_heat(friction * omega + _CUT_HEAT * self._cut_torque * omega)

    def _turn_up(self, set_rpm: float) -> None:
        target = set_rpm * (1 - _DROOP * self._cut_torque * _BASE_RAD_S / _RATED_W)
        most = _SLEW_RPM_S * _BLOCK_S
        change = (target - self._speed_rpm) * _BLOCK_S / _SPEED_LAG_S
        self._speed_rpm += min(max(change, -most), most)
        if set_rpm == 0.0 and self._speed_rpm < 1.0:
            self._speed_rpm = 0.0  # the brake holds it

    def _advance_coolant(self, stress: Stress, *, on: bool) -> None:
        self._flood += ((1.0 if on else 0.0) - self._flood) * _BLOCK_S / _FLOOD_LAG_S
        conductance = _JACKET + _FLOOD * self._flood
        given = coolant_flow(conductance, stress.restriction, stress.leak)
        self._flow = (1 - stress.leak) * given
        self._pressure_bar = _SHUT_OFF_BAR - _PUMP_SLOPE * given**2

    def _advance_heat(self, heat_w: float) -> None:
        jacket = self._flow * _JACKET / (_JACKET + _FLOOD * self._flood)
        taken = _UA_STILL + _UA_JACKET * (jacket / _JACKET_FLOW) ** 0.8
        self._settled_degc = _COOLANT_DEGC + heat_w / taken
        self._bearing_degc += (self._settled_degc - self._bearing_degc) * taken * _BLOCK_S / _HEAT_CAPACITY
