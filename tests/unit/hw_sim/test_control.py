import asyncio
import contextlib
import json
import socket
import stat
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from hw_sim.control import ControlError, ask, default_path, serving, taken
from hw_sim.station import Station
from tests.unit.hw_sim.rig import Recorder, counting, known


@asynccontextmanager
async def simulator(path):
    """A station with a wire, that answers at this path; yields the wire and what `stop` has done."""
    bench = counting()
    wire, stopped = Recorder(bench, "plc"), asyncio.Event()
    station = Station(bench, known("plc"), [wire])
    running = asyncio.create_task(station.run([], duration_s=None))
    try:
        with taken(path) as place:
            async with serving(place, station, stopped.set):
                yield wire, stopped
    finally:
        running.cancel()
        await asyncio.wait([running])


async def asked(path, **question):
    return await asyncio.to_thread(ask, path, **question)


async def test_a_fault_is_on_and_off_when_it_is_answered(tmp_path):
    path = tmp_path / "c.sock"
    async with simulator(path) as (wire, _):
        answer = await asked(path, do="fault", fault="source_down", on=True, settings={"device": "plc"})
        assert wire.off("plc")
        assert answer["settings"] == {"device": "plc"}
        assert answer["channels"] == ["count"]
        status = await asked(path, do="status")
        assert [each["fault"] for each in status["faults"]] == ["source_down"]
        assert status["wires"]["plc"]["type"] == "modbus"
        assert status["readings"]["pain"] == 0.0
        await asked(path, do="fault", fault="source_down", on=False)
        assert not wire.off("plc")


async def test_a_question_that_makes_no_sense_is_answered_with_what_does(tmp_path):
    path = tmp_path / "c.sock"
    async with simulator(path):
        for question, says in (
            ({"do": "dance"}, "cannot do 'dance': status, fault or stop"),
            ({"do": "fault", "fault": "sadness"}, "no fault 'sadness'; there are bearing_wear"),
            ({"do": "fault", "fault": "stuck", "on": False}, "no such fault is on: stuck; on are: none"),
            ({"do": "fault", "fault": "stuck", "settings": {"chanel": "a"}}, "no parameter 'chanel'"),
        ):
            with pytest.raises(ControlError, match=says):
                await asked(path, **question)
        reader, writer = await asyncio.open_unix_connection(path)
        for junk in (b"junk\n", b"[]\n", b'"\xff"\n'):
            writer.write(junk)
            assert json.loads(await reader.readline()) == {"ok": False, "error": "that is no JSON object"}
        writer.write(b"x" * 200_000)
        assert await reader.read() == b"", "a line without end is hung up on"
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        assert (await asked(path, do="status"))["ok"]


async def test_it_can_be_stopped(tmp_path):
    async with simulator(tmp_path / "c.sock") as (_, stopped):
        await asked(tmp_path / "c.sock", do="stop")
        assert stopped.is_set()


async def test_the_socket_is_its_users_alone_and_goes_with_it(tmp_path):
    path = tmp_path / "c.sock"
    async with simulator(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not path.exists()
    with pytest.raises(ControlError, match=r"no simulator answers at .*c\.sock .No such file"):
        ask(path, do="status")


async def test_a_stale_socket_is_replaced_and_a_live_one_is_not(tmp_path):
    path = tmp_path / "c.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    async with simulator(path):
        with pytest.raises(FileExistsError, match="another simulator answers"):
            async with simulator(path):
                pytest.fail("two at one place")
        assert (await asked(path, do="status"))["ok"]


def test_each_user_has_a_place_of_their_own(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert default_path() == tmp_path / "hw_sim.sock"
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert default_path().name.startswith("hw_sim-")
    assert isinstance(default_path(), Path)
