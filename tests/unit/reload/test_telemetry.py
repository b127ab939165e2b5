"""Scores of a pipeline that a reload takes away or puts another in place of are told to the last row."""

import copy

import msgpack
import pytest

from dxad.outbox import Outbox
from tests.unit.reload.rig import BASE, edited, running

WITH = edited(BASE, telemetry={"t": {"pipelines": ["a"], "every": "10s", "mode": "all"}})


@pytest.mark.parametrize(
    "edits",
    [
        {"pipelines__a__period": "20ms"},
        {"pipelines__a": None, "telemetry__t__pipelines": ["b"]},
    ],
    ids=["another", "none"],
)
async def test_they_are(tmp_path, monkeypatch, edits):
    bodies, append_bulk = [], Outbox.append_bulk

    def note(self, more, **keys):
        bodies.extend(more)
        return append_bulk(self, more, **keys)

    monkeypatch.setattr(Outbox, "append_bulk", note)
    async with running(tmp_path, WITH) as rig:
        await rig.feed_on()
        old = rig.assembly.pipelines["a"]
        scored = old.scores.sealed
        await rig.supervisor.stop("scoring")
        await rig.feed(50)
        assert old.scores.sealed == scored
        await rig.reload(**{"telemetry": copy.deepcopy(WITH["telemetry"]), **edits})
        rig.assembly.telemetries["t"].finish()
        told = [each["data"]["rows"] for each in map(msgpack.unpackb, bodies) if each["subject"] == "a"]
        assert old is not rig.assembly.pipelines.get("a")
        assert sum(told) == old.scores.sealed - old.scores.start >= 100
