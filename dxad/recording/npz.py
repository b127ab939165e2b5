"""Recordings as NumPy archives: `time_ns` int64 (n,), `values` float (n, channels), `channels` text.

Optional `states` uint8 (n, channels), each a `State`: what is EMPTY or HELD did not come then, what is BAD
was not to be believed. The members are read side by side, a piece at a time, compressed or not.

Source of the format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

import hashlib
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from dxad.errors import ConfigError
from dxad.recording import CELLS_AT_ONCE, Faults, Piece
from dxad.types import State

__all__ = ["NpzRecording"]


class _Member:
    """One array of the archive, read row by row in the order of the file."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        version = np.lib.format.read_magic(file)  # type: ignore[no-untyped-call]
        read = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        self.shape, by_column, self.dtype = read(file)  # type: ignore[no-untyped-call]
        if by_column and len(self.shape) > 1:
            raise ValueError("its rows do not lie one after the other (Fortran order)")
        if self.dtype.hasobject:
            raise ValueError("it holds Python objects, which dxad never unpacks")

    def rows(self, n: int) -> npt.NDArray[Any]:
        """The next rows.

        Raises:
            ValueError: the file ends before.
        """
        shape = (n, *self.shape[1:])
        size = self.dtype.itemsize * int(np.prod(shape))
        raw = self._file.read(size)
        if len(raw) != size:
            raise ValueError("it ends too early")
        return np.frombuffer(raw, dtype=self.dtype).reshape(shape)


class NpzRecording:
    """An NPZ file."""

    def __init__(self, path: Path) -> None:
        """Look at what is in it.

        Raises:
            ConfigError: it is no recording.
            OSError: there is no such file.
        """
        self.path = path
        self.faults = Faults()
        with path.open("rb") as file:
            self.digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
        try:
            with np.load(path, allow_pickle=False) as archive:
                missing = {"time_ns", "values", "channels"} - set(archive.files)
                if missing:
                    raise ConfigError(f"{path}: has no {' and no '.join(sorted(missing))}")
                self.columns = tuple(str(name) for name in archive["channels"])
                self._has_states = "states" in archive.files
            with ExitStack() as stack:
                members = self._members(stack)
        except (ValueError, zipfile.BadZipFile) as error:
            raise ConfigError(f"{path}: {error}") from error
        self._rows = members["time_ns"].shape[0]
        shape = (self._rows, len(self.columns))
        for name in ("values", "states"):
            if name in members and members[name].shape != shape:
                raise ConfigError(f"{path}: {name} has the shape {members[name].shape}, not {shape}")

    def _members(self, stack: ExitStack) -> dict[str, _Member]:
        archive = stack.enter_context(zipfile.ZipFile(self.path))
        names = ["time_ns", "values", *(["states"] if self._has_states else [])]
        return {name: _Member(stack.enter_context(archive.open(f"{name}.npy"))) for name in names}

    def pieces(self, columns: Sequence[str]) -> Iterator[Piece]:
        """All rows with these columns.

        Raises:
            ConfigError: the file is damaged.
        """
        places = [self.columns.index(name) for name in columns]
        at_once = max(1, CELLS_AT_ONCE // max(1, len(self.columns)))
        try:
            with ExitStack() as stack:
                members = self._members(stack)
                for row in range(0, self._rows, at_once):
                    yield _piece(members, min(at_once, self._rows - row), places)
        except (ValueError, OSError, zipfile.BadZipFile) as error:
            raise ConfigError(f"{self.path}: {error}") from error


def _piece(members: dict[str, _Member], n: int, places: list[int]) -> Piece:
    times = members["time_ns"].rows(n).astype(np.int64)
    values = members["values"].rows(n)[:, places].astype(np.float64)
    values[np.isinf(values)] = np.nan
    if "states" not in members:
        return Piece(times, values)
    states = members["states"].rows(n)[:, places]
    values[(states != State.GOOD) & (states != State.UNCERTAIN)] = np.nan
    return Piece(times, values, states == State.BAD)
