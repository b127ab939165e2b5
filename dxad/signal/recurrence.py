"""The recurrence y[t] = k[t] · y[t-1] + b[t] over rows, for many channels at once.

As it stands it is a loop over rows. Here time is cut into blocks of 16 slots, which begin where the slot's
number is a multiple of 16. Within a block, y[t] = K[t] · y[end of the block before] + W[t], with

    K[t] = k[t] · K[t-1],  W[t] = k[t] · W[t-1] + b[t],  and K = 1, W = 0 before the block's first slot.

K and W of all blocks are worked out together, one step per slot of a block, and then y from block to block:
some 16 + n/16 steps instead of n. Every number is made by the same operations on the same numbers wherever a
batch begins, to the bit, since blocks are tied to slots. Source: P. M. Kogge, H. S. Stone, "A Parallel
Algorithm for the Efficient Solution of a General Class of Recurrence Equations", IEEE Trans. Computers C-22
(1973), p. 786.
"""

from typing import Final

import numpy as np

from dxad.types import F8

__all__ = ["Recurrence"]

_BLOCK: Final = 16
_FEW: Final = 32
"""Rows; so many are stepped through one by one."""


class Recurrence:
    """Carries y over batches; it starts at 0."""

    def __init__(self, channels: int) -> None:
        self._base = np.zeros(channels)
        """y at the end of the block before."""
        self._gain = np.ones(channels)
        self._sum = np.zeros(channels)
        self._next: int | None = None

    def push(self, first: int, k: F8, b: F8) -> F8:
        """Go on over the rows that begin with slot `first`.

        Args:
            first: the slot of the first row; should it not follow the last call's, y goes on.
            k: (n, channels), the factor.
            b: (n, channels), what is added; both finite.

        Returns:
            (n, channels): y.
        """
        if self._next not in (None, first):
            self._begin(self._gain * self._base + self._sum)
        self._next = first + len(k)
        if len(k) <= _FEW:
            return self._step(first, k, b)
        return self._blocks(first, k, b)

    def _step(self, first: int, k: F8, b: F8) -> F8:
        y = np.empty_like(b)
        gain, total = self._gain, self._sum
        for row in range(len(k)):
            np.multiply(gain, k[row], out=gain)
            np.multiply(total, k[row], out=total)
            np.add(total, b[row], out=total)
            out = y[row]
            np.multiply(gain, self._base, out=out)
            np.add(out, total, out=out)
            if (first + row + 1) % _BLOCK == 0:
                self._begin(out.copy())
                gain, total = self._gain, self._sum
        return y

    def _begin(self, base: F8) -> None:
        self._base, self._gain, self._sum = base, np.ones(len(base)), np.zeros(len(base))

    def _blocks(self, first: int, k: F8, b: F8) -> F8:
        n, channels = k.shape
        before = first % _BLOCK
        blocks = -(-(before + n) // _BLOCK)
        shape = (blocks, _BLOCK, channels)
        gains, sums = np.ones((blocks * _BLOCK, channels)), np.zeros((blocks * _BLOCK, channels))
        gains[before : before + n], sums[before : before + n] = k, b
        if before:
            gains[before - 1], sums[before - 1] = self._gain, self._sum
        g, s = gains.reshape(shape), sums.reshape(shape)
        for at in range(1, _BLOCK):
            factor = g[:, at].copy()
            s[:, at] += factor * s[:, at - 1]
            g[:, at] *= g[:, at - 1]
        bases = np.empty((blocks + 1, channels))
        bases[0] = self._base
        for at in range(blocks):
            np.multiply(g[at, -1], bases[at], out=bases[at + 1])
            bases[at + 1] += s[at, -1]
        y = g * bases[:-1, None]
        y += s
        end = before + n - 1
        if (end + 1) % _BLOCK == 0:
            self._begin(bases[-1].copy())
        else:
            self._base = bases[-2].copy()
            self._gain, self._sum = gains[end].copy(), sums[end].copy()
        return y.reshape(-1, channels)[before : before + n]
