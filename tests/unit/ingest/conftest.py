"""An ingest to feed."""

import logging

import pytest

from tests.unit.ingest.rig import Rig


@pytest.fixture(autouse=True)
def _listening(caplog):
    caplog.set_level(logging.INFO)


@pytest.fixture
def rig() -> Rig:
    return Rig()
