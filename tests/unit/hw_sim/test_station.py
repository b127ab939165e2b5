import asyncio
import math

import pytest

from hw_sim.fault import FaultError
from hw_sim.station import Station
from tests.unit.hw_sim.rig import Recorder, counting, known

pytestmark = pytest.mark.one_loop


class Writer:
    """Notes the plant's time at each step."""

    def __init__(self, bench):
        self.bench = bench
        self.times = []

    def start(self):
        self.step()

    def step(self):
        self.times.append(self.bench.at_s)


async def run(*faults, duration_s, speed=1.0, step_s=0.01, **recorder):
    """Two wires on a bench for so long; returns them, the writer and the seconds it took."""
    loop = asyncio.get_running_loop()
    bench = counting(*faults, step_s=step_s)
    plc, vib = Recorder(bench, "plc", **recorder), Recorder(bench, "vib")
    writer, begin = Writer(bench), loop.time()
    station = Station(bench, known("plc", "vib"), [plc, vib], speed=speed)
    await station.run([writer], duration_s=duration_s)
    return plc, vib, writer, loop.time() - begin


async def test_the_plant_keeps_to_the_clock():
    plc, vib, writer, took_s = await run(duration_s=0.5)
    assert took_s == pytest.approx(0.5, abs=0.1)
    assert plc.steps == vib.steps == 51
    assert writer.times == [round(0.01 * step, 9) for step in range(51)]


async def test_steps_shorter_than_a_tick_are_made_several_at_a_time():
    plc, _, writer, took_s = await run(duration_s=0.3, step_s=0.0005)
    assert took_s == pytest.approx(0.3, abs=0.1)
    assert plc.steps == 601
    assert writer.times[-1] == 0.3


async def test_a_plant_may_run_faster_than_the_clock():
    plc, _, _, took_s = await run(duration_s=10.0, speed=50.0)
    assert plc.steps == 1001
    assert took_s == pytest.approx(0.2, abs=0.1)


async def test_a_plant_may_run_as_fast_as_its_wires_take_it():
    taken = []

    class Narrow(Recorder):
        async def ready(self):
            taken.append(self.steps)
            await asyncio.sleep(0.01 if self.steps in {3, 4} else 0)

    bench = counting()
    wire = Narrow(bench, "plc")
    await Station(bench, known("plc"), [wire], speed=math.inf).run([], duration_s=1000.0)
    assert taken == list(range(100_001)), "it was asked before each step"


async def test_a_fault_breaks_its_wire_and_no_other():
    plc, vib, *_ = await run("source_down@100ms..300ms:device=plc", duration_s=0.5)
    assert plc.done == [
        ("source_down", True, pytest.approx(0.1, abs=0.03)),
        ("source_down", False, pytest.approx(0.3, abs=0.03)),
    ]
    assert vib.done == []


async def test_a_device_may_be_off_from_the_start():
    plc, *_ = await run("source_down@0s:device=plc", duration_s=0.1)
    assert [each[:2] for each in plc.done] == [("source_down", True)]


async def test_a_wire_that_is_slow_to_switch_is_mended_all_the_same_and_stalls_nobody():
    plc, vib, *_ = await run("source_down@50ms..100ms:device=plc", duration_s=0.6, slow_s=0.15)
    assert [each[1] for each in plc.done] == [True, False]
    assert vib.steps == 61


async def test_a_wire_that_cannot_come_back_ends_the_run_with_its_error():
    with pytest.raises(OSError, match="the port is taken"):
        await run("source_down@50ms..100ms:device=plc", duration_s=2.0, fails=True)


async def test_a_fault_can_be_switched_while_it_runs():
    bench = counting()
    plc, vib = Recorder(bench, "plc", slow_s=0.02), Recorder(bench, "vib")
    station = Station(bench, known("plc", "vib"), [plc, vib])
    running = asyncio.create_task(station.run([], duration_s=30.0))
    try:
        await asyncio.sleep(0.05)
        await station.break_("source_down", {"device": "plc"})
        assert [each[1] for each in plc.done] == [True], "it is broken when the call returns"
        assert station.document()["faults"][0]["settings"] == {"device": "plc"}
        with pytest.raises(FaultError, match="no such fault is on: stuck; on are: source_down"):
            await station.mend("stuck", {})
        with pytest.raises(FaultError, match="no such fault is on"):
            await station.mend("source_down", {"device": "vib"})
        await station.mend("source_down", {"device": "plc"})
        assert [each[1] for each in plc.done] == [True, False]
        assert bench.active == ()
    finally:
        running.cancel()
        await asyncio.wait([running])


async def test_a_machine_that_is_too_slow_is_said_to_be(caplog, monkeypatch):
    monkeypatch.setattr("hw_sim.station._BEHIND_S", 0.0)
    bench = counting()
    station = Station(bench, known(), [], speed=1e9)
    await station.run([], duration_s=5.0)
    assert caplog.text.count("this machine cannot step it at speed 1e+09") == 1
    assert station.behind_s > 0
