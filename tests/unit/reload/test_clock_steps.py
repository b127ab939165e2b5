"""T1: the wall clock is set by ten years while everything runs, and only dates are different."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from dxad.event import Event, identity
from dxad.types import NS_PER_S
from tests.unit.reload.rig import Rig, running

YEARS = 10 * 365 * 24 * 3600 * NS_PER_S


async def upset(folder: Path, steps: Sequence[int]) -> tuple[Rig, list[Event]]:
    """An incident, during which somebody sets the clock by each step; returns what was told, too."""
    async with running(folder) as rig:
        await rig.feed(100)
        rig.bias = 1e6
        await rig.feed(50)
        for n, step in enumerate(steps):
            rig.clock.step_utc(step, synchronised=n % 2 == 0)
            await rig.feed(60)
            await rig.assembly.timekeeping.look()  # the service's own look may be late on a busy machine
        await rig.feed((2 - len(steps)) * 60)
        rig.bias = 0.0
        await rig.feed(100)
        await rig.feed_on()
        assert rig.rows("a") == rig.rows("b") == rig.pushed
        assert rig.conditions == set()
        return rig, rig.events


def incidents(events: list[Event]) -> list[Event]:
    return [each for each in events if each.type.startswith("dxad.incident")]


@pytest.fixture
async def calm(tmp_path):
    _, events = await upset(tmp_path / "calm", [])
    return incidents(events)


@pytest.mark.parametrize("steps", [(YEARS, -2 * YEARS), (-YEARS, YEARS)])
async def test_incidents_are_the_same_and_have_the_same_ids(tmp_path, calm, steps):
    _, events = await upset(tmp_path / "set", steps)
    told = incidents(events)
    assert [each.type for each in told] == [each.type for each in calm]
    assert {each.type for each in told} >= {"dxad.incident.opened", "dxad.incident.closed"}
    assert [each.id for each in told] == [each.id for each in calm]
    assert [each.at for each in told] == [each.at for each in calm]
    assert [each.data["after_onset_s"] for each in told] == [each.data["after_onset_s"] for each in calm]
    ids = [each.id for each in events]
    assert len(set(ids)) == len(ids)


async def test_the_onset_is_told_by_the_clock_as_it_is_and_the_steps_are_told(tmp_path):
    rig, events = await upset(tmp_path, (YEARS, -2 * YEARS))
    told = incidents(events)
    since_s = {
        round((each.time_utc - each.data["onset_utc_ns"]) / NS_PER_S - each.data["after_onset_s"], 1)
        for each in told
    }
    assert since_s == {0.0}
    # The second step made the clock a guess: it is not believed over what was right before.
    assert [each.data["step_s"] for each in events if each.type == "dxad.clock.corrected"] == [YEARS / 1e9]
    assert rig.outbox.boot.clock_ok


def test_no_id_is_made_of_a_wall_clock_or_by_chance():
    """The same fact, told again after a kill, has the same id: `identity` of what does not change."""
    folder = Path(__file__).parents[3] / "dxad"
    makers = [
        (path, text)
        for path in folder.rglob("*.py")
        if " Event(" in (text := path.read_text()) and path.name != "event.py"
    ]
    assert len(makers) >= 5
    for path, text in makers:
        assert "identity(" in text, path
        for call in text.split("identity(")[1:]:
            named = call[: call.index(")")]
            assert "utc" not in named, path
            assert "uuid" not in named, path
    assert identity("a", 1) == identity("a", 1) != identity("a1")
