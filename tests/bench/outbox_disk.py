"""What the disk itself does, in the same run: the references of the outbox's figures.

Interleaved with what is measured against them, since a shared machine is not the same for long.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

__all__ = ["RECORD_BYTES", "Log", "percentile"]

RECORD_BYTES: Final = 200


class Log:
    """A file that is appended to and synced: the simplest thing that keeps a record."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.took_s: list[float] = []
        """Each write with its fdatasync."""

    @classmethod
    @contextmanager
    def at(cls, path: Path) -> Iterator["Log"]:
        """A new one, removed afterwards."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        try:
            yield cls(descriptor)
        finally:
            os.close(descriptor)
            path.unlink()

    def append(self, bodies: list[bytes]) -> None:
        """Write these, and wait for the disk."""
        began = time.perf_counter()
        os.write(self._descriptor, b"".join(bodies))
        os.fdatasync(self._descriptor)
        self.took_s.append(time.perf_counter() - began)


def percentile(values: list[float], share: float) -> float:
    """The value that this share of them is not above."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
