import asyncio
import io
import json

import pytest

from hw_sim.bench import Bench
from hw_sim.fault import parse_all
from hw_sim.labels import Labels
from hw_sim.scenario import Scenario
from hw_sim.station import Station
from hw_sim.wire import Wire


class Recorder(Wire):
    """A wire that notes what is done to it, and at which time of the plant."""

    endpoint = about = ""

    def __init__(self, bench, device, *, slow_s=0.0, fails=False):
        self.device = device
        self.done = []
        self.steps = 0
        self._bench = bench
        self._slow_s = slow_s
        self._fails = fails

    async def start(self):
        if self._fails:
            raise OSError("the port is taken")
        await asyncio.sleep(self._slow_s)
        self.done.append(("start", round(self._bench.at_s, 2)))

    async def stop(self):
        await asyncio.sleep(self._slow_s)
        self.done.append(("stop", round(self._bench.at_s, 2)))

    def step(self):
        self.steps += 1


async def run(*faults, duration_s, **recorder):
    """Two wires on a bench for so long; returns them, the labels and the seconds it took."""
    loop = asyncio.get_running_loop()
    scenario = Scenario(faults=parse_all(faults), duration_s=duration_s)
    bench = Bench(scenario.seed, scenario.faults)
    plc, vib = Recorder(bench, "plc", **recorder), Recorder(bench, "vib")
    file, begin = io.StringIO(), loop.time()
    await Station(bench, [plc, vib]).run(Labels(file, bench, now=loop.time), scenario)
    labels = [json.loads(line) for line in file.getvalue().splitlines()]
    return plc, vib, labels, loop.time() - begin


async def test_the_plant_keeps_to_the_clock():
    plc, vib, labels, took_s = await run(duration_s=0.5)
    assert took_s == pytest.approx(0.5, abs=0.1)
    assert plc.steps == vib.steps == 50
    assert labels[0]["type"] == "run"


async def test_a_device_that_is_off_loses_its_wire_and_no_other_does():
    plc, vib, labels, _ = await run("source_down@100ms..300ms:device=plc", duration_s=0.5)
    assert [what for what, _ in plc.done] == ["stop", "start"]
    assert [at for _, at in plc.done] == [pytest.approx(0.1, abs=0.03), pytest.approx(0.3, abs=0.03)]
    assert vib.done == []
    assert [line["phase"] for line in labels[1:]] == ["onset", "end"]


async def test_a_device_may_be_off_from_the_start():
    plc, *_ = await run("source_down@0s:device=plc", duration_s=0.1)
    assert [what for what, _ in plc.done] == ["stop"]


async def test_a_wire_that_is_slow_to_go_comes_back_all_the_same_and_stalls_nobody():
    plc, vib, *_ = await run("source_down@50ms..100ms:device=plc", duration_s=0.6, slow_s=0.15)
    assert [what for what, _ in plc.done] == ["stop", "start"]
    assert vib.steps == 60


async def test_two_faults_of_one_device_take_it_away_once():
    plc, *_ = await run(
        "source_down@50ms..200ms:device=plc", "source_down@100ms..300ms:device=plc", duration_s=0.4
    )
    assert [what for what, _ in plc.done] == ["stop", "start"]


async def test_a_wire_that_cannot_come_back_ends_the_run_with_its_error():
    with pytest.raises(OSError, match="the port is taken"):
        await run("source_down@50ms..100ms:device=plc", duration_s=2.0, fails=True)
