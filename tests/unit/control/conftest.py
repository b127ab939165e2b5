"""A gateway to ask, and where its socket is."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.control.asking import Remembering


@pytest.fixture
def gateway() -> Remembering:
    return Remembering()


@pytest.fixture
def path() -> Iterator[Path]:
    """In a folder of its own that others may look into, and short: a socket's path has 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="dxad-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder) / "control.sock"
