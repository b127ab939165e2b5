"""Outboxes on a file of the test's own."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dxad.outbox import Outbox, database
from dxad.runtime.clock import SteppedClock
from dxad.runtime.health import Health
from dxad.runtime.metrics import Metrics
from dxad.types import Lane

ALL = frozenset(Lane)
MIB = 2**20

MIB = 2**20

Make = Callable[..., Outbox]


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture
def health(clock) -> Health:
    return Health(clock)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture(scope="session")
def empty_file(tmp_path_factory) -> Path:
    """A migrated file, made once."""
    path = tmp_path_factory.mktemp("outbox") / "empty.db"
    database.open_file(path).close()
    return path


@pytest.fixture
def path(tmp_path, empty_file) -> Path:
    return Path(shutil.copy(empty_file, tmp_path / "outbox.db"))


@pytest.fixture
def make(path, clock, health, metrics) -> Make:
    """Makes outboxes on the test's file, to be make by `async with`."""

    def outbox(
        at: Path | None = path, *, max_bytes: int = 16 * MIB, commit_window_s: float = 0.0, **more: Any
    ) -> Outbox:
        return Outbox(
            at,
            max_bytes=max_bytes,
            commit_window_s=commit_window_s,
            health=health,
            metrics=metrics,
            clock=clock,
            **more,
        )

    return outbox
