"""The end of the daemon: also sources whose close hangs keep it no longer than one of them would."""

import asyncio
import gc
import sys
from pathlib import Path

import pytest

from dxad import config as configuration
from dxad.config import Config
from dxad.daemon import Stop, serve
from dxad.errors import NotConnected
from dxad.runtime.supervisor import Supervisor
from dxad.sources.memory import Memory
from tests.patience import PATIENCE_S

TEXT = """
state_dir = "."
control.socket = "c"
[sources.plc]
type = "modbus"
url = "tcp://127.0.0.1:9"
period = "1s"
channels = { x = { register = "input:1", encoding = "int16" } }
[telemetry.t]
channels = ["plc.*"]
every = "1s"
"""

HANGING = 3
CLOSE_S = 0.3


@pytest.fixture(autouse=True)
def as_before():
    """What the daemon sets for its process."""
    switch_s = sys.getswitchinterval()
    yield
    sys.setswitchinterval(switch_s)
    gc.unfreeze()


@pytest.mark.parametrize("connected", [True, False], ids=["while they read", "while they wait to try again"])
async def test_sources_that_do_not_close_are_left_behind_together(tmp_path, monkeypatch, connected):
    monkeypatch.setattr("dxad.ingest._LAST_CLOSE_TIMEOUT_S", CLOSE_S)
    monkeypatch.setattr("dxad.runtime.deadline._MERCY_S", 0.05)
    closing = []
    let_go = asyncio.Event()
    running = asyncio.Event()
    connects = []
    stopping = False

    async def connect(self):
        connects.append(self)
        if len(connects) == HANGING:
            running.set()
        if not connected:
            raise NotConnected("nobody there")
        await really_connect(self)

    async def close(self):
        if stopping:
            closing.append(asyncio.get_running_loop().time())
            await let_go.wait()

    really_connect = Memory.connect
    monkeypatch.setattr(Memory, "connect", connect)
    monkeypatch.setattr(Memory, "close", close)
    sources = {
        f"s{number}": {"type": "memory", "period": "100ms", "channels": {"a": {}}}
        for number in range(HANGING)
    }
    document = {"state_dir": str(tmp_path), "control": {"socket": str(tmp_path / "c")}, "sources": sources}
    stop = Stop()
    path = Path(tmp_path / "dxad.toml")
    served = asyncio.create_task(
        serve(Config.model_validate(document), stop, path=path, hang_up=asyncio.Event())
    )
    async with asyncio.timeout(PATIENCE_S):
        await running.wait()
        await asyncio.sleep(0.05)
        stopping = True
        begun = asyncio.get_running_loop().time()
        stop.set()
        await served
    took_s = asyncio.get_running_loop().time() - begun
    let_go.set()
    await asyncio.sleep(0)
    assert len(closing) == HANGING
    assert max(closing) - min(closing) < CLOSE_S / 2
    assert CLOSE_S <= took_s < 2 * CLOSE_S


async def test_what_produces_ends_before_what_consumes_also_after_a_reload(tmp_path, monkeypatch):
    stopped, stop, hang_up = [], Stop(), asyncio.Event()
    really_stop = Supervisor._stop

    async def note(self, name):
        stopped.append(name)
        await really_stop(self, name)

    monkeypatch.setattr(Supervisor, "_stop", note)
    path = tmp_path / "dxad.toml"
    path.write_text(TEXT)
    served = asyncio.create_task(serve(configuration.load(path), stop, path=path, hang_up=hang_up))
    path.write_text(TEXT.replace('every = "1s"', 'every = "2s"').replace('period = "1s"', 'period = "2s"'))
    async with asyncio.timeout(PATIENCE_S):
        while "ingest.plc" not in stopped:
            hang_up.set()
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.02)
        stopped.clear()
        stop.set()
        await served
    told = [name for name in stopped if name in {"ingest.plc", "scoring", "telemetry.t"}]
    assert told == ["ingest.plc", "scoring", "telemetry.t"]
