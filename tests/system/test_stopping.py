"""The end of the daemon: also sources whose close hangs keep it no longer than one of them would."""

import asyncio
import gc
import sys
import time
from pathlib import Path

import pytest

from dxad.config import Config
from dxad.daemon import Stop, serve
from dxad.errors import NotConnected
from dxad.sources.memory import Memory

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
            closing.append(time.monotonic())
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
    async with asyncio.timeout(10):
        await running.wait()
        await asyncio.sleep(0.05)
        stopping = True
        begun = time.monotonic()
        stop.set()
        await served
    took_s = time.monotonic() - begun
    let_go.set()
    await asyncio.sleep(0)
    assert len(closing) == HANGING
    assert max(closing) - min(closing) < CLOSE_S / 2
    assert CLOSE_S <= took_s < 2 * CLOSE_S
