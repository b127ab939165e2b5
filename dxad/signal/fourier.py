"""Power spectra of stretches of a signal, and of their envelopes.

A stretch of N rows at the rate R is N·Δ long, with Δ = 1/R; its lines are R/N apart and end at R/2. Line k of
its one-sided power spectrum, weighted by the window w, is

    P[k] = c[k] |Σ w[i] x[i] exp(−2πi·k·i/N)|² / (N Σw²),      c = 1 for 0 and R/2, else 2

so that ΣP = Σ(w·x)² / Σw², the mean square of the signal (Parseval), whatever the window. The amplitude of
a sine on line k is √(2 B P[k]) with the window's noise bandwidth B = N Σw² / (Σw)², in lines.

Sources: G. Heinzel, A. Rüdiger, R. Schilling, "Spectrum and spectral density estimation by the discrete
Fourier transform (DFT)", Max-Planck-Institut für Gravitationsphysik, 2002 (normalisation, windows);
J. O. Smith, "Spectral Audio Signal Processing", W3K Publishing 2011, "Quadratic Interpolation of Spectral
Peaks"; R. B. Randall, J. Antoni, "Rolling element bearing diagnostics - a tutorial", Mechanical Systems and
Signal Processing 25 (2011) 485-520, section 4.2 (envelope).

All arrays are `(n, rows)` or `(n, lines)` of float64, and each of the n is worked on by itself: a result does
not depend on its neighbours.
"""

from math import ceil, floor
from typing import Final, Literal

import numpy as np

from dxad.types import F8

__all__ = ["Fourier", "WindowName", "centred"]

WindowName = Literal["hann", "flattop", "none"]

_COSINES: Final[dict[WindowName, tuple[float, ...]]] = {
    "hann": (0.5, 0.5),
    # G. D'Antona, A. Ferrero, "Digital Signal Processing for Measurement Systems", Springer 2006, p. 70.
    "flattop": (0.21557895, 0.41663158, 0.277263158, 0.083578947, 0.006947368),
    "none": (1.0,),
}
"""Coefficients a of the periodic windows w[i] = Σ (−1)^j a[j] cos(2πj·i/N)."""

_FLOOR: Final = 1e-4
"""A peak's neighbour counts as at least this share of its power: within a main lobe none is weaker."""


class Fourier:
    """Power spectra of stretches of a fixed number of rows."""

    def __init__(self, *, rows: int, rate_hz: float, window: WindowName) -> None:
        angle = 2 * np.pi * np.arange(rows) / rows
        terms = [(-1) ** j * a * np.cos(j * angle) for j, a in enumerate(_COSINES[window])]
        self._weights: F8 = np.sum(terms, axis=0)
        energy = float(np.sum(self._weights**2))
        self._scale: F8 = np.full(rows // 2 + 1, 2 / (rows * energy))
        self._scale[0] /= 2
        if rows % 2 == 0:
            self._scale[-1] /= 2
        self._rows = rows
        self._window: WindowName = window
        self.resolution_hz = rate_hz / rows
        """The distance of two lines."""
        self.nyquist_hz = rate_hz / 2
        self.bandwidth = rows * energy / float(np.sum(self._weights)) ** 2
        """The window's equivalent noise bandwidth, in lines."""
        self.frequencies_hz: F8 = np.arange(rows // 2 + 1) * self.resolution_hz

    def lines(self, low_hz: float, high_hz: float) -> range:
        """The lines at low <= frequency < high, but for line 0: that is removed with the mean.

        The line at half the rate belongs to a band that ends there.
        """
        first = max(1, ceil(low_hz / self.resolution_hz - 1e-9))
        if high_hz >= self.nyquist_hz:
            return range(first, self._rows // 2 + 1)
        return range(first, ceil(high_hz / self.resolution_hz - 1e-9))

    def around(self, frequency_hz: float, tolerance_hz: float) -> range:
        """The lines no further from a frequency than the tolerance."""
        first = ceil((frequency_hz - tolerance_hz) / self.resolution_hz - 1e-9)
        return range(first, floor((frequency_hz + tolerance_hz) / self.resolution_hz + 1e-9) + 1)

    def power(self, signal: F8) -> F8:
        """The power spectrum (n, lines), in squared units of the signal."""
        found = np.fft.rfft(self._weights * signal, axis=-1)
        # Not |found|², whose root would be taken in vain.
        power: F8 = (found.real * found.real + found.imag * found.imag) * self._scale
        return power

    def envelope(self, signal: F8, band: range) -> F8:
        """The magnitude of the analytic signal of a band: what modulates the oscillation in it.

        The band-pass is a rectangle of lines, between 0 and half the rate. Negative frequencies are left out,
        which makes the signal analytic (Hilbert transform). Both wrap around at the ends of a stretch.
        """
        found = np.fft.rfft(signal, axis=-1)
        passed = np.zeros(signal.shape, dtype=np.complex128)
        passed[..., band.start : band.stop] = 2 * found[..., band.start : band.stop]
        analytic = np.fft.ifft(passed, axis=-1)
        magnitude: F8 = np.sqrt(analytic.real * analytic.real + analytic.imag * analytic.imag)
        return magnitude

    def dominant(self, power: F8) -> tuple[F8, F8]:
        """The frequency (n,) in hertz and the amplitude (n,) of a sine in the strongest line.

        The frequency is where the parabola through the logarithms of that line and its neighbours has its
        vertex, the amplitude what a sine there must have to make that line as strong as it is. The lines at 0
        and at half the rate are no candidates; without any power both are NaN. A lone sine is found to within
        0.02 lines and 2 % (hann), 0.2 lines and 0.1 % (flattop), 0.2 lines and 20 % (none).
        """
        peak = 1 + np.argmax(power[:, 1:-1], axis=-1)
        row = np.arange(len(power))
        most = power[row, peak]
        most = np.where(most > 0, most, np.nan)
        after = np.log(np.maximum(power[row, peak + 1] / most, _FLOOR))
        # Line 0 is removed with the mean: it says nothing of the lobe that it is a part of.
        before = np.where(peak == 1, after, np.log(np.maximum(power[row, peak - 1] / most, _FLOOR)))
        curve = np.where(before + after == 0, -1.0, before + after)  # three equal lines: the middle one
        offset = np.clip((before - after) / (2 * curve), -0.5, 0.5)
        amplitude = np.sqrt(2 * self.bandwidth * most) / self._lobe(offset)
        return (peak + offset) * self.resolution_hz, amplitude

    def _lobe(self, lines: F8) -> F8:
        """How much less of a sine's amplitude there is in a line so far from it."""
        terms = [
            a * (np.sinc(lines - j) + np.sinc(lines + j)) / 2 for j, a in enumerate(_COSINES[self._window])
        ]
        lobe: F8 = np.sum(terms, axis=0) / _COSINES[self._window][0]
        return lobe


def centred(signal: F8) -> F8:
    """Less its mean, (n, rows): exactly zero where it is constant."""
    risen = signal - np.minimum.reduce(signal, axis=-1)[:, None]
    result: F8 = risen - (np.add.reduce(risen, axis=-1) / signal.shape[-1])[:, None]
    return result
