"""Recordings into files; `open_recording` reads them back as they were.

Only what came at that time is written: a value that was held is left out, since whoever replays it holds it
again. A value that was not to be believed is written as `bad`.
"""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import orjson

from dxad.errors import ConfigError
from dxad.recording import BAD
from dxad.types import F8, I8, U1, State

__all__ = ["Writer", "open_writer"]

_COPY_BYTES: Final = 1 << 20


class Writer(Protocol):
    """Takes rows in the order of time."""

    def rows(self, times: I8, values: F8, states: U1) -> None:
        """Append rows: UTC nanoseconds (n,), values and states (n, columns)."""

    def close(self) -> None:
        """Make the file whole."""


def open_writer(path: Path, columns: Sequence[str]) -> Writer:
    """Begin a recording of these columns; its kind is told by the name, as when it is read.

    Raises:
        ConfigError: the file cannot be made.
    """
    try:
        match path.suffix:
            case ".npz":
                return _Npz(path, columns)
            case ".jsonl" | ".ndjson":
                return _JsonLines(path, columns)
            case _:
                return _Csv(path, columns)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error


def _moments(times: I8) -> list[str]:
    return [f"{each}Z" for each in np.datetime_as_string(times.astype("datetime64[ns]"), unit="ns")]


def _came(state: int) -> bool:
    return state in {State.GOOD, State.UNCERTAIN}


class _Csv:
    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self._file = path.open("w", encoding="utf-8")
        self._file.write(",".join(("time", *columns)) + "\n")

    def rows(self, times: I8, values: F8, states: U1) -> None:
        for time, row, marks in zip(_moments(times), values.tolist(), states.tolist(), strict=True):
            cells = [
                repr(value) if _came(state) else BAD if state == State.BAD else ""
                for value, state in zip(row, marks, strict=True)
            ]
            self._file.write(",".join((time, *cells)) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class _JsonLines:
    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self._file = path.open("wb")
        self._columns = tuple(columns)

    def rows(self, times: I8, values: F8, states: U1) -> None:
        for time, row, marks in zip(_moments(times), values.tolist(), states.tolist(), strict=True):
            line: dict[str, object] = {"time": time}
            for name, value, state in zip(self._columns, row, marks, strict=True):
                if _came(state):
                    line[name] = value
                elif state == State.BAD:
                    line[name] = BAD
            self._file.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class _Npz:
    """Collects the arrays in files without a name, since an array's length stands at its head."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self._path = path
        self._columns = np.array(columns)
        self._rows = 0
        self._open: dict[str, tuple[IO[bytes], npt.DTypeLike]] = {
            name: (TemporaryFile(dir=path.parent), dtype)  # noqa: SIM115 - closed by close
            for name, dtype in (("time_ns", "<i8"), ("values", "<f8"), ("states", "|u1"))
        }
        path.touch()

    def rows(self, times: I8, values: F8, states: U1) -> None:
        self._rows += len(times)
        arrays: dict[str, npt.NDArray[Any]] = {"time_ns": times, "values": values, "states": states}
        for name, (file, dtype) in self._open.items():
            file.write(np.ascontiguousarray(arrays[name], dtype=dtype).tobytes())

    def close(self) -> None:
        if not self._open:
            return
        with zipfile.ZipFile(self._path, "w", zipfile.ZIP_DEFLATED) as archive:
            with archive.open("channels.npy", "w") as member:
                np.save(member, self._columns, allow_pickle=False)
            for name, (file, dtype) in self._open.items():
                shape = (self._rows,) if name == "time_ns" else (self._rows, len(self._columns))
                head = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member, file:
                    np.lib.format.write_array_header_1_0(member, head)  # type: ignore[no-untyped-call]
                    file.seek(0)
                    while piece := file.read(_COPY_BYTES):
                        member.write(piece)
        self._open = {}
