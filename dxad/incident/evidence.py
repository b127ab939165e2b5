"""The rows around an incident: taped while it lasts, packed when it is over, kept in files, read again.

    rows and scores of the pipeline ── extend ──▶ Tape ── window ──▶ Window ── pack ──▶ Evidence (files)

A packed window is one line of JSON that says what follows, and after it, compressed by zlib (RFC 1950), in
little-endian order: the rows' offsets in slots i4[n], the judged scores f4[n], the values f4[n, channels],
the states u1[n, channels]. Where that would be too much, only every second, fourth … row is kept: `every`
says so.
"""

import contextlib
import csv
import io
import logging
import os
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import orjson

from dxad.event import rfc3339
from dxad.ring.ringbuffer import RingBuffer
from dxad.types import F4, F8, I8, NS_PER_S, U1, Channel, Document, State

__all__ = [
    "PACKED_BYTES_MAX",
    "TAPE_BYTES",
    "Evidence",
    "Tape",
    "Window",
    "as_csv",
    "as_document",
    "pack",
    "unpack",
]

log = logging.getLogger(__name__)

PACKED_BYTES_MAX: Final = 256 * 2**10
TAPE_BYTES: Final = 320 * 2**10
"""What one tape takes in memory, unless its rows are very wide."""
_ROWS_MIN: Final = 16
_LARGEST: Final = float(np.finfo(np.float32).max)
_SUFFIX: Final = ".window"
_ID: Final = re.compile(r"[0-9a-f]{32}")
_CELLS_MOST: Final = 20_000
"""Of a window as JSON."""
_LETTERS: Final = np.array(list("eghub"))
"""By `State`: empty, good, held, uncertain, bad."""


@dataclass(frozen=True, slots=True)
class Window:
    """Rows around an incident, perhaps not all of them."""

    incident: str
    channels: tuple[Channel, ...]
    period: int
    """Of the pipeline's rows, in nanoseconds."""
    every: int
    """Every how manieth row was kept."""
    first_utc: int
    """When the first row begins, UTC nanoseconds."""
    slots: I8
    """(n,), the rows' slots."""
    scores: F4
    """(n,), judged; NaN where there is none."""
    values: F4
    """(n, channels)."""
    states: U1
    """(n, channels)."""

    def __len__(self) -> int:
        return len(self.slots)

    def thinned(self) -> "Window":
        """Half of it."""
        every = 2 * self.every
        kept = self.slots % every == 0
        first_utc = self.first_utc
        if kept.any():
            first_utc += int(self.slots[kept][0] - self.slots[0]) * self.period
        return Window(
            self.incident, self.channels, self.period, every, first_utc,
            self.slots[kept], self.scores[kept], self.values[kept], self.states[kept],
        )  # fmt: skip

    def utc(self) -> I8:
        """(n,), when each row begins."""
        return self.first_utc + (self.slots - (self.slots[0] if len(self) else 0)) * self.period


class Tape:
    """Rows as they come, in single precision; when it is full, every second row is dropped.

    Which rows are kept depends on their slots alone, however they were cut.
    """

    def __init__(self, channels: Sequence[Channel], first: int) -> None:
        """Begin with slot `first`."""
        width = len(channels)
        capacity = max(_ROWS_MIN, TAPE_BYTES // _row_bytes(width))
        self.next = first
        """The slot that it has not read yet."""
        self.every = 1
        self._channels = tuple(channels)
        self._n = 0
        self._slots = np.zeros(capacity, dtype=np.int64)
        self._scores = np.zeros(capacity, dtype=np.float32)
        self._values = np.zeros((capacity, width), dtype=np.float32)
        self._states = np.zeros((capacity, width), dtype=np.uint8)

    @staticmethod
    def size_bytes(channels: int) -> int:
        """What a tape of so many channels takes, known before it is made."""
        return max(_ROWS_MIN * _row_bytes(channels), TAPE_BYTES)

    def extend(self, rows: RingBuffer, scores: RingBuffer, stop: int) -> None:
        """Read on up to slot `stop`, from rings that hold those rows."""
        if stop <= self.next:
            return
        seen, judged = rows.read(self.next, stop), scores.read(self.next, stop)
        slots = np.arange(seen.first, seen.first + len(seen.values))
        self.next = stop
        done = 0
        while done < len(slots):
            kept = done + np.flatnonzero(slots[done:] % self.every == 0)
            room = len(self._slots) - self._n
            taken = kept[:room]
            into = slice(self._n, self._n + len(taken))
            self._slots[into] = slots[taken]
            self._scores[into] = _single(judged.values[taken, 1])
            self._values[into] = _single(seen.values[taken])
            self._states[into] = seen.states[taken]
            self._n += len(taken)
            if len(kept) <= room:
                return
            done = int(kept[room])
            self._thin()

    def _thin(self) -> None:
        self.every *= 2
        kept = np.flatnonzero(self._slots[: self._n] % self.every == 0)
        self._n = len(kept)
        for array in (self._slots, self._scores, self._values, self._states):
            array[: self._n] = array[kept]

    def quality(self, first: int) -> dict[str, float]:
        """The shares of the cells from slot `first` on that are good, held, uncertain, bad and empty."""
        states = self._states[: self._n][self._slots[: self._n] >= first]
        counts = np.bincount(states.ravel(), minlength=len(State))[: len(State)]
        total = max(int(counts.sum()), 1)
        return {state.name.lower(): round(int(counts[state]) / total, 4) for state in State if counts[state]}

    def series(self, columns: Sequence[int], onset: int, period: int, most: int) -> Document:
        """The rows of some columns, thinned to `most` points at most, as JSON."""
        slots = self._slots[: self._n]
        step = max(1, -(-self._n // most))
        places = np.arange((self._n - 1) % step, self._n, step)
        after_s = (slots[places] - onset) * period / NS_PER_S
        return {
            "after_onset_s": [float(f"{each:.6g}") for each in after_s.tolist()],
            "channels": {
                self._channels[column].id: [
                    None if np.isnan(each) else float(f"{each:.5g}")
                    for each in self._values[places, column].tolist()
                ]
                for column in columns
            },
        }

    def window(self, incident: str, period: int, utc_of_first: int) -> Window:
        """A copy of all that is on it; `utc_of_first` is when its first row begins."""
        held = slice(0, self._n)
        return Window(
            incident, self._channels, period, self.every, utc_of_first,
            self._slots[held].copy(), self._scores[held].copy(),
            self._values[held].copy(), self._states[held].copy(),
        )  # fmt: skip

    @property
    def first(self) -> int:
        """The slot of the first row that it holds, or will hold."""
        return int(self._slots[0]) if self._n else self.next


def _row_bytes(channels: int) -> int:
    """A slot, a score, and each channel's value and state."""
    return 8 + 4 + 5 * channels


def _single(values: F8) -> F4:
    """What single precision cannot hold stands at its edge."""
    return np.clip(values, -_LARGEST, _LARGEST).astype(np.float32)


def pack(window: Window) -> bytes:
    """At most 256 KiB."""
    while len(packed := _packed(window)) > PACKED_BYTES_MAX and len(window) > 1:
        window = window.thinned()
    return packed


def _packed(window: Window) -> bytes:
    head = {
        "format": 1,
        "incident": window.incident,
        "channels": [{"id": each.id, "unit": each.unit} for each in window.channels],
        "period_ns": window.period,
        "every": window.every,
        "rows": len(window),
        "first_utc_ns": window.first_utc,
    }
    first = window.slots[:1]
    body = b"".join((
        (window.slots - first).astype("<i4").tobytes() if len(window) else b"",
        window.scores.astype("<f4").tobytes(),
        window.values.astype("<f4").tobytes(),
        window.states.tobytes(),
    ))  # fmt: skip
    return orjson.dumps(head) + b"\n" + zlib.compress(body, 6)


def unpack(packed: bytes) -> Window:
    """The window that `pack` was given, or what it has kept of it; its slots begin at 0.

    Raises:
        ValueError: it is none, or damaged.
    """
    line, _, rest = packed.partition(b"\n")
    try:
        head = orjson.loads(line)
        channels = tuple(Channel(each["id"], each["unit"]) for each in head["channels"])
        n, width = int(head["rows"]), len(channels)
        size = n * (8 + 5 * width)
        unpacking = zlib.decompressobj()
        body = unpacking.decompress(rest, size + 1)
        if len(body) != size or not unpacking.eof:
            raise ValueError("the rows are not whole")
        slots = np.frombuffer(body, "<i4", n).astype(np.int64)
        scores = np.frombuffer(body, "<f4", n, 4 * n)
        values = np.frombuffer(body, "<f4", n * width, 8 * n).reshape(n, width)
        states = np.frombuffer(body, np.uint8, n * width, n * (8 + 4 * width)).reshape(n, width)
        return Window(
            head["incident"], channels, head["period_ns"], head["every"], head["first_utc_ns"],
            slots, scores, values, states,
        )  # fmt: skip
    except (KeyError, TypeError, orjson.JSONDecodeError, zlib.error) as error:
        raise ValueError(f"this is no packed window: {error}") from error


def as_document(window: Window, rows: int) -> Document:
    """As JSON: `rows` rows and 20,000 values at most, what is unknown is null, states are first letters."""
    most = max(1, min(rows, _CELLS_MOST // (len(window.channels) + 1)))
    while len(window) > most:
        window = window.thinned()
    letters = _LETTERS[np.minimum(window.states, len(_LETTERS) - 1)]
    return {
        "incident": window.incident,
        "period_ms": window.period / 1e6,
        "every": window.every,
        "rows": len(window),
        "utc_ns": window.utc().tolist(),
        "score": _listed(window.scores),
        "channels": [
            {
                "id": channel.id,
                "unit": channel.unit,
                "values": _listed(window.values[:, place]),
                "states": "".join(letters[:, place].tolist()),
            }
            for place, channel in enumerate(window.channels)
        ],
    }


def _listed(column: F4) -> list[float | None]:
    return [None if np.isnan(each) else float(f"{each:.7g}") for each in column.tolist()]


def as_csv(window: Window) -> str:
    """All of it: a line of names, then a line for each row; what is unknown is left empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["time", "score", *(channel.id for channel in window.channels)])
    numbers = np.column_stack((window.scores, window.values)).tolist()
    for at, row in zip(window.utc().tolist(), numbers, strict=True):
        writer.writerow([rfc3339(at), *("" if np.isnan(each) else f"{each:.7g}" for each in row)])
    return text.getvalue()


class Evidence:
    """A folder of packed windows, one for each incident, the oldest of which goes when it is full."""

    def __init__(self, folder: Path, *, files: int, size: int) -> None:
        """Keep at most `files` windows of `size` bytes in all in `folder`, made at the first of them."""
        self._folder = folder
        self._files = files
        self._size = size

    def adjust(self, *, files: int, size: int) -> None:
        """Keep more or less from the next window on."""
        self._files, self._size = files, size

    def put(self, window: Window) -> None:
        """Keep a window; one of the same incident is replaced. It takes as long as the disk does.

        Raises:
            OSError: the disk does not take it.
        """
        if not self._files or not self._size:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._path(window.incident)
        part = path.with_suffix(".part")
        with part.open("wb") as file:
            file.write(pack(window))
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        self._date(path)
        self._prune()

    def _date(self, path: Path) -> None:
        """Make a file the newest, if it is not: somebody may have set the wall clock back."""
        newest = max((at for at, _, each in self._dated() if each != path), default=0)
        if path.stat().st_mtime_ns <= newest:
            os.utime(path, ns=(newest + 1, newest + 1))

    def _dated(self) -> list[tuple[int, str, Path]]:
        return [(each.stat().st_mtime_ns, each.name, each) for each in self._folder.glob(f"*{_SUFFIX}")]

    def _prune(self) -> None:
        found = sorted(self._dated(), reverse=True)
        total = 0
        for n, (_, _, path) in enumerate(found, 1):
            total += path.stat().st_size
            if n > self._files or total > self._size:
                path.unlink(missing_ok=True)

    def get(self, incident: str) -> Window | None:
        """The window of an incident; None where there is none, or none that can be read."""
        if not _ID.fullmatch(incident):
            return None
        with contextlib.suppress(FileNotFoundError):
            try:
                return unpack(self._path(incident).read_bytes())
            except ValueError as error:
                log.warning("%s: %s", self._path(incident), error)
        return None

    def _path(self, incident: str) -> Path:
        return self._folder / f"{incident}{_SUFFIX}"
