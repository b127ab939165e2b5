"""The stand-in model is a plug-in like any other."""

import pytest

from dxad import plugin
from tests.unit.reload.rig import COUNTING


@pytest.fixture(autouse=True)
def _counting(monkeypatch):
    load, names = plugin.load, plugin.names
    monkeypatch.setattr(
        plugin, "load", lambda family, name: COUNTING if name == "counting" else load(family, name)
    )
    monkeypatch.setattr(plugin, "names", lambda family: (*names(family), "counting"))
