"""What a signal is made of: the lines of its power spectrum, or of its envelope's.

The last `over` of each channel, less its mean and weighted by the window, becomes a power spectrum whose sum
is the mean square of the signal (`fourier` has the formulas and their sources). Of it come, for a channel x:

=================  ==========  =======  ===============================================================
yielded for        id          unit     what it is
=================  ==========  =======  ===============================================================
stat "total"       total       of x     root of the sum over all lines but 0: rms about the mean
stat "dominant"    dominant    Hz       frequency of the strongest line, interpolated
stat "amplitude"   amplitude   of x     peak amplitude of a sine there
stat "centroid"    centroid    Hz       Σ f·P / Σ P over all lines but 0
bands.NAME         band_NAME   of x     rms of the lines at low <= f < high
harmonics.NAME     harm_NAME   of x     rms of the lines near a frequency and its multiples
bearing            bpfo bpfi   of x     the same for the four frequencies of a bearing (`dxad.signal.bearing`)
                   bsf ftf
=================  ==========  =======  ===============================================================

With `envelope`, all this is of the envelope of the signal in a band, and the ids begin with `envelope_`. A
damaged bearing rings at each strike: in the raw spectrum that is a hump at the resonance, in the spectrum of
the envelope of the band around it the strikes are lines (R. B. Randall, J. Antoni, "Rolling element bearing
diagnostics - a tutorial", Mechanical Systems and Signal Processing 25 (2011) 485-520).

A held value is no measurement: in a waveform it is a step that was not there. Cells that were not measured
are interpolated on a straight line, up to the share `max_missing` of the stretch; the result is UNCERTAIN
then, as it is where a sample was. With more of them it is EMPTY, or BAD where a sample was. Of a signal that
stands still, `total`, bands and harmonics are zero, `dominant`, `amplitude` and `centroid` EMPTY.
"""

from typing import Annotated, Final, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from dxad.errors import ConfigError
from dxad.fields import Duration, Identifier, Section, TransformSection
from dxad.plugin import Plugin
from dxad.signal.bearing import Strikes, strikes
from dxad.signal.fourier import Fourier, WindowName, centred
from dxad.signal.stretch import Stretches
from dxad.types import F8, NS_PER_S, U1, Bools, Channel, Rows, Schema, State

__all__ = ["PLUGIN", "Config", "Spectrum"]

_WIDTH_MIN: Final = 8
"""Rows; fewer have hardly any lines."""

Stat = Literal["total", "dominant", "amplitude", "centroid"]
Band = Annotated[tuple[float, float], Field(strict=False)]


class Harmonics(Section):
    """`{ frequency = 107.3, count = 5, tolerance = 2.0 }`."""

    frequency: float = Field(gt=0, description="of the first harmonic, in Hz")
    count: int = Field(3, gt=0, le=100, description="how many harmonics, the first included")
    tolerance: float = Field(1.0, gt=0, description="how far from each a line may be, in Hz")


class Envelope(Section):
    """`{ low = 500, high = 2000 }`."""

    low: float = Field(gt=0, description="where the band begins whose envelope is taken, in Hz")
    high: float = Field(gt=0, description="where it ends, in Hz")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"low {self.low:g} is not below high {self.high:g}")
        return self


class Bearing(Section):
    """`{ balls = 9, ball_mm = 7.94, pitch_mm = 39.04, angle_deg = 0, shaft_hz = 29.9 }`."""

    balls: int = Field(gt=1, description="the number of rolling elements in a row")
    ball_mm: float = Field(gt=0, description="their diameter")
    pitch_mm: float = Field(gt=0, description="the diameter of the circle through their centres")
    angle_deg: float = Field(0.0, ge=0, lt=90, description="the contact angle")
    shaft_hz: float = Field(gt=0, description="turns of the inner ring in a second")
    count: int = Field(
        3, gt=0, le=100, description="how many harmonics of each frequency, the first included"
    )
    tolerance: float = Field(1.0, gt=0, description="how far from each a line may be, in Hz")

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if not self.ball_mm < self.pitch_mm:
            raise ValueError(f"ball_mm {self.ball_mm:g} is not below pitch_mm {self.pitch_mm:g}")
        return self

    def harmonics(self) -> dict[str, Harmonics]:
        """By the name of each frequency."""
        found: Strikes = strikes(
            balls=self.balls, ball_mm=self.ball_mm, pitch_mm=self.pitch_mm, angle_deg=self.angle_deg,
            shaft_hz=self.shaft_hz,
        )  # fmt: skip
        return {
            name: Harmonics(frequency=getattr(found, name), count=self.count, tolerance=self.tolerance)
            for name in ("bpfo", "bpfi", "bsf", "ftf")
        }


class Config(TransformSection):
    """`{ type = "spectrum", channels = ["vib.*"], every = "1s", bands = { low = [10, 200] } }`."""

    type: Literal["spectrum"]
    every: Duration | None = Field(None, description="the time between two results; default: one row")
    over: Duration | None = Field(
        None, description="how far back a result reaches, best a power of two of rows; default: `every`"
    )
    window: WindowName = Field(
        "hann", description="hann for most, flattop for true amplitudes, none for what fits into `over`"
    )
    stat: tuple[Stat, ...] = Field(
        ("total", "dominant"), strict=False, description="what is made of the spectrum as a whole"
    )
    bands: dict[Identifier, Band] = Field({}, description="rms between two frequencies in Hz, by name")
    harmonics: dict[Identifier, Harmonics] = Field(
        {}, description="rms of a frequency and its multiples, by name"
    )
    envelope: Envelope | None = Field(
        None, description="a band in which impacts ring: the spectrum is its envelope's"
    )
    bearing: Bearing | None = Field(
        None, description="a bearing whose frequencies are looked for in the envelope"
    )
    max_missing: float = Field(
        0.05, ge=0, le=0.5, description="the share of a stretch that may be interpolated"
    )

    @property
    def reach(self) -> int:
        """How far back it remembers its channels' rows, nanoseconds."""
        return self.over or self.every or 0

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.bearing is not None and self.envelope is None:
            raise ValueError(
                "bearing needs envelope = { low = …, high = … }, the band in which its strikes ring"
            )
        if not (self.stat or self.bands or self.harmonics or self.bearing):
            raise ValueError("give at least one of stat, bands, harmonics and bearing")
        for name, (low, high) in self.bands.items():
            if not 0 <= low < high:
                raise ValueError(f"bands.{name}: {low:g} to {high:g} Hz is no band")
        return self


class Spectrum:
    """Puts numbers of its channels' spectra in their place: `vib.x.total`, `vib.x.band_low`."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._stretches: Stretches
        self._fourier: Fourier
        self._passed: range
        self._lines: list[list[int]]

    def outputs(self, inputs: Schema) -> Schema:
        """The numbers of each matching channel, at the rate of `every`.

        Without `every`, the channels that do not match pass unchanged beside them.

        Raises:
            ConfigError: no channel matches, a duration is no whole number of rows or far too many, or what is
                looked for lies above the Nyquist frequency, or between two lines.
        """
        config = self._config
        self._stretches = Stretches(
            inputs, config.channels, every=config.every, over=config.over, results=self._results
        )
        rows = self._stretches.width
        if rows < _WIDTH_MIN:
            raise ConfigError(f"a spectrum of {rows} rows; {_WIDTH_MIN} at least: make `over` longer")
        self._fourier = Fourier(rows=rows, rate_hz=NS_PER_S / inputs.period, window=config.window)
        self._passed = self._band_pass()
        harmonics = {f"harmonics.{name}": each for name, each in config.harmonics.items()}
        if config.bearing is not None:
            harmonics |= {f"bearing: {name}": each for name, each in config.bearing.harmonics().items()}
        self._lines = [self._band(f"bands.{name}", *band) for name, band in config.bands.items()]
        self._lines += [self._multiples(name, each) for name, each in harmonics.items()]
        return self._stretches.outputs

    def _results(self, channel: Channel) -> list[Channel]:
        config = self._config
        prefix = "" if config.envelope is None else "envelope_"
        made = [
            channel.named(prefix + stat, unit="Hz" if stat in ("dominant", "centroid") else None)
            for stat in config.stat
        ]
        names = [f"band_{name}" for name in config.bands] + [f"harm_{name}" for name in config.harmonics]
        if config.bearing is not None:
            names += config.bearing.harmonics()
        return made + [channel.named(prefix + name) for name in names]

    def _band_pass(self) -> range:
        envelope = self._config.envelope
        if envelope is None:
            return range(0)
        self._check("envelope", envelope.low, envelope.high)
        # The line at half the rate has no phase, and so no envelope.
        lines = self._fourier.lines(envelope.low, envelope.high)
        return range(lines.start, min(lines.stop, (self._stretches.width + 1) // 2))

    def _check(self, key: str, low_hz: float, high_hz: float) -> None:
        """Whether the rows can show a band at all."""
        nyquist_hz, step_hz = self._fourier.nyquist_hz, self._fourier.resolution_hz
        if high_hz > nyquist_hz:
            raise ConfigError(
                f"{key}: {high_hz:g} Hz lies above the Nyquist frequency of the rows, {nyquist_hz:g} Hz"
            )
        if high_hz - low_hz < step_hz * (1 - 1e-9):
            raise ConfigError(
                f"{key}: {low_hz:g} to {high_hz:g} Hz is less than two lines are apart, {step_hz:g} Hz: "
                f"make `over` {1 / (high_hz - low_hz):g}s or longer"
            )

    def _check_sought(self, key: str, low_hz: float, high_hz: float) -> None:
        """Whether the spectrum, perhaps of an envelope, can show a band."""
        self._check(key, low_hz, high_hz)
        envelope = self._config.envelope
        if envelope is not None and high_hz > envelope.high - envelope.low:
            raise ConfigError(
                f"{key}: {high_hz:g} Hz lies above {envelope.high - envelope.low:g} Hz: "
                "an envelope's frequencies reach as far as its band is wide"
            )

    def _band(self, key: str, low_hz: float, high_hz: float) -> list[int]:
        self._check_sought(key, low_hz, high_hz)
        lines = list(self._fourier.lines(low_hz, high_hz))
        if not lines:
            step_hz = self._fourier.resolution_hz
            raise ConfigError(f"{key}: the first line is at {step_hz:g} Hz, not below {high_hz:g} Hz")
        return lines

    def _multiples(self, key: str, harmonics: Harmonics) -> list[int]:
        frequency, tolerance = harmonics.frequency, harmonics.tolerance
        if 2 * tolerance >= frequency:
            raise ConfigError(
                f"{key}: a tolerance of {tolerance:g} Hz cannot tell multiples of {frequency:g} Hz apart"
            )
        top = harmonics.count * frequency
        self._check_sought(key, top - tolerance, top + tolerance)
        wanted = (
            self._fourier.around(times * frequency, tolerance) for times in range(1, harmonics.count + 1)
        )
        return [line for each in wanted for line in each]

    def apply(self, rows: Rows) -> Rows:
        """Take the spectrum of each stretch that ends within `rows`."""
        return self._stretches.apply(rows, self._reduce)

    def _reduce(self, cells: F8, states: U1) -> tuple[F8, U1]:
        """(n, channels, width) to (n, channels, results)."""
        measured = ((states == State.GOOD) | (states == State.UNCERTAIN)) & ~np.isnan(cells)
        absent = cells.shape[-1] - np.count_nonzero(measured, axis=-1)
        enough = absent <= self._config.max_missing * cells.shape[-1]
        found = self._numbers(_mended(cells[enough], measured[enough]))
        good = (states[enough] == State.GOOD).all(axis=-1)
        values = np.full((*cells.shape[:-1], found.shape[-1]), np.nan)
        bad = (states == State.BAD).any(axis=-1)
        known = np.empty(values.shape, dtype=np.uint8)
        known[:] = np.where(bad, State.BAD, State.EMPTY)[..., None]
        values[enough] = found
        known[enough] = np.where(good, State.GOOD, State.UNCERTAIN)[:, None]
        known[~np.isfinite(values) & enough[..., None]] = State.EMPTY
        values[(known == State.EMPTY) | (known == State.BAD)] = np.nan
        return values, known

    def _numbers(self, signal: F8) -> F8:
        """Signals (n, width) to their numbers (n, results)."""
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            signal = centred(signal)
            if self._config.envelope is not None:
                signal = centred(self._fourier.envelope(signal, self._passed))
            power = self._fourier.power(signal)
            numbers = [self._whole(stat, power) for stat in self._config.stat]
            numbers += [_rms(np.take(power, lines, axis=-1)) for lines in self._lines]
        return np.stack(numbers, axis=-1)

    def _whole(self, stat: Stat, power: F8) -> F8:
        if stat == "total":
            return _rms(power[:, 1:])
        if stat == "centroid":
            moment: F8 = np.add.reduce(power[:, 1:] * self._fourier.frequencies_hz[1:], axis=-1)
            centroid: F8 = moment / np.add.reduce(power[:, 1:], axis=-1)
            return centroid
        frequency, amplitude = self._fourier.dominant(power)
        return frequency if stat == "dominant" else amplitude


def _rms(power: F8) -> F8:
    root: F8 = np.sqrt(np.add.reduce(power, axis=-1))
    return root


def _mended(signal: F8, measured: Bools) -> F8:
    """Signals (n, width) with a straight line across what was not measured, level at the ends."""
    places = np.arange(signal.shape[-1])
    for row in np.flatnonzero(~measured.all(axis=-1)):
        there = measured[row]
        signal[row] = np.interp(places, places[there], signal[row, there])
    return signal


PLUGIN = Plugin(Config, Spectrum)
