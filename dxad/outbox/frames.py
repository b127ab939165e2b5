"""The write-ahead log, frame by frame: where it breaks off, and what stands behind that.

    header │ frame ‥ commit │ frame ‥ commit │ bad ‥ │ frame ‥ commit │ frame ‥ commit │ frames of before
           └─ SQLite takes these ────────────┘       └─ it never looks at these ───────┘

Each frame's checksum goes on from the one of the frame before, as that has it: so whether a frame is sound
can be told without those before it. One that is damaged spoils itself and, at most, the next.

A power cut leaves bad frames as well, but in the last transaction only: a log is synced before anything is
written behind it. So it is damaged if, from its first bad frame on, a transaction ends and another begins
there. What an earlier generation of the log has left behind its end has other salts; what an earlier cut has
left does not go on from the frame before it. A header is synced before the
first frame is written; one that a power cut has torn stands before frames of the generation before it.

How many frames were synced stands in the index beside the log as well, which SQLite writes after each sync:
if it is there, it tells of a log that ends too soon, wherever that is. After a power cut it is an older one.

Source: https://www.sqlite.org/fileformat2.html#the_write_ahead_log, and https://www.sqlite.org/walformat.html
for the index. The checksum of n words w is, of each of
its halves, a sum of w[i] times a Fibonacci number, modulo 2^32: so all frames are looked at together.
"""

import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["Log"]

Words = NDArray[np.uint32]

_HEADER: Final = 32
_HEAD: Final = 24
_MAGIC: Final = 0x377F0682
"""Of a log with checksums over little-endian words; the other kind's is one more."""
_SIZES: Final = frozenset({512 << n for n in range(8)})
_OURS: Final = 4096
"""How large pages are, if the header does not say."""
_INDEX: Final = 48
_AT_ONCE: Final = 256
_SALTS: Final = slice(2, 4)
_SUMS: Final = slice(4, 6)


class Log:
    """The log of a database that nobody writes to now."""

    def __init__(self, path: Path) -> None:
        """Look at the log at `path`; it may be missing, or be none."""
        self._path = path
        self.page_size = 0
        self._heads: Words = np.zeros((0, 6), np.uint32)
        self._sound: NDArray[np.bool_] = np.zeros(0, np.bool_)
        self._salts: Words = np.zeros(2, np.uint32)
        self._header = b""
        self._has_header = False
        self._begun = False
        if path.exists():
            with path.open("rb") as file:
                self._read(file)
        bad = np.flatnonzero(~self._sound)
        self._taken = int(bad[0]) if len(bad) else len(self._sound)
        """Frames up to the first one that is not sound."""
        if not self._has_header:
            self._taken = 0
        behind = np.flatnonzero(self._sound[self._taken :]) + self._taken
        self._end = int(behind[-1]) + 1 if len(behind) else self._taken
        """Frames up to the last one that is sound."""
        self._written = 0
        if self._has_header and path.name.endswith("-wal"):
            self._written = _indexed(path.with_name(path.name[: -len("-wal")] + "-shm"), self._header[16:24])

    @property
    def damage(self) -> str:
        """What is damaged, in words; empty where it is sound, or a power cut has left it so."""
        if self._taken < self._written:
            return f"its log ends after frame {self._taken}, {self._written} were written"
        if self._end == self._taken:
            return ""
        if not self._has_header:
            return "" if self._begun else f"the header of its log is damaged, before {self._end} frames"
        behind = slice(self._taken, self._end - 1), slice(self._taken + 1, self._end)
        commits = (self._heads[behind[0], 1] > 0) & (self._heads[behind[0], _SALTS] == self._salts).all(
            axis=1
        )
        if not (commits & self._sound[behind[1]]).any():
            return ""
        return f"{self.damaged} of {self._end} frames of its log are damaged"

    @property
    def damaged(self) -> int:
        """How many frames before the last sound one are not."""
        return int(np.count_nonzero(~self._sound[: self._end]))

    def pages(self) -> dict[int, bytes]:
        """By number, all pages as the last transaction has them, as far as their frames are sound."""
        taken = np.flatnonzero(self._sound[: self._end if self.damage else self._taken])
        commits = [each for each in taken if self._heads[each, 1]]
        if not commits:
            return {}
        newest = {int(self._heads[each, 0]): int(each) for each in taken if each <= commits[-1]}
        with self._path.open("rb") as file:
            return {number: self._page(file, at) for number, at in newest.items()}

    def _page(self, file: BinaryIO, at: int) -> bytes:
        file.seek(_HEADER + at * (_HEAD + self.page_size) + _HEAD)
        return file.read(self.page_size)

    def _read(self, file: BinaryIO) -> None:
        raw = file.read(_HEADER)
        if len(raw) < _HEADER:
            return
        self._header = raw
        header = np.frombuffer(raw, ">u4").astype(np.uint32)
        order = "><"[raw[3] & 1 == 0]
        self.page_size = int(header[2])
        self._has_header = (
            int(header[0]) & ~1 == _MAGIC
            and self.page_size in _SIZES
            and bool((_sum(raw[:24], order) == header[6:8]).all())
        )
        if not self._has_header:
            order, self.page_size = "><"[sys.byteorder == "little"], _OURS
        heads, sums = [], []
        for some in self._some(file):
            heads.append(np.ascontiguousarray(some[:, :_HEAD]).view(">u4").astype(np.uint32))
            words = np.concatenate((some[:, :8], some[:, _HEAD:]), axis=1).view(f"{order}u4")
            sums.append(words.astype(np.uint32, copy=False) @ _weights(words.shape[1]))
        if not heads:
            return
        self._heads = np.concatenate(heads)
        before = np.concatenate((header[None, 6:8], self._heads[:-1, _SUMS]))
        carried = before @ _carried(2 + self.page_size // 4)
        fits = (np.concatenate(sums) + carried == self._heads[:, _SUMS]).all(axis=1)
        self._salts = header[4:6] if self._has_header else self._likely_salts()
        self._sound = fits & (self._heads[:, _SALTS] == self._salts).all(axis=1) & (self._heads[:, 0] > 0)
        self._begun = _is_begun(header, self._salts, raw, order)

    def _some(self, file: BinaryIO) -> Iterator[NDArray[np.uint8]]:
        length = _HEAD + self.page_size
        while len(raw := file.read(_AT_ONCE * length)) >= length:
            count = len(raw) // length
            yield np.frombuffer(raw, np.uint8, count * length).reshape(count, length)

    def _likely_salts(self) -> Words:
        """Those that the first two neighbours have in common."""
        alike = (self._heads[1:, _SALTS] == self._heads[:-1, _SALTS]).all(axis=1)
        salts: Words = self._heads[int(alike.argmax()) if len(alike) else 0, _SALTS]
        return salts


def _is_begun(header: Words, salts: Words, raw: bytes, order: str) -> bool:
    """Whether a header that does not fit is one that was being written, for the generation after these salts.

    The number of the generation and the first salt are one more, or are yet to be.
    """
    before = np.stack((header[:6], header[:6]))
    before[:, 4:6] = salts
    before[1, 3:4] -= np.uint32(1)
    own, older = ((_sum(each.astype(">u4").tobytes(), order) == header[6:8]).all() for each in before)
    return not any(raw) or bool(older) or (not own and int(header[4]) == (int(salts[0]) + 1) % 2**32)


def _indexed(index: Path, salts: bytes) -> int:
    """How many frames of the generation with these salts an index knows of; 0 if it is another's, or none.

    Its header stands there twice, in the machine's own byte order; the salts are as in the log.
    """
    if not index.exists():
        return 0
    with index.open("rb") as file:
        first, second = file.read(_INDEX), file.read(_INDEX)
    order = "><"[sys.byteorder == "little"]
    if len(second) < _INDEX or first != second or first[32:40] != salts:
        return 0
    known = np.frombuffer(first, f"{order}u4").astype(np.uint32)
    return int(known[4]) if (_sum(first[:40], order) == known[10:12]).all() else 0


def _sum(data: bytes, order: str) -> Words:
    """The checksum of a header."""
    words = np.frombuffer(data, f"{order}u4").astype(np.uint32)
    return words @ _weights(len(words))


def _weights(n: int) -> Words:
    """By word, of which there are n, its weight in each half of the checksum."""
    found = _fibonacci(n)
    return np.stack((found[n - 1 :: -1], found[n:0:-1]), axis=1)


def _carried(n: int) -> Words:
    """What n words leave of the checksum before them, as a matrix to multiply it with from the right."""
    found = _fibonacci(n)
    return np.array([[found[n - 1], found[n]], [found[n], found[n + 1]]], np.uint32)


@cache
def _fibonacci(n: int) -> Words:
    """The numbers from the 0th through the n+1st."""
    found = [0, 1]
    while len(found) < n + 2:
        found.append((found[-1] + found[-2]) % 2**32)
    return np.array(found, np.uint32)
