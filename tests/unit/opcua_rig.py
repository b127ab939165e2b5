"""An OPC-UA source before the simulator's server."""

import asyncio
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np

from dxad.runtime.clock import SystemClock
from dxad.sources.opcua import Config, Opcua
from dxad.sources.opcua.value import Judged
from dxad.types import Quality, Reason
from tests.patience import PATIENCE_S
from tests.unit.hw_sim.opcua_bed import PUMP, Bed

COUNT, PAIN = {"node": "s=Pump.Count"}, {"node": "i=7"}


def source(url: str, *, state_dir: Path | None = None, **settings: Any) -> Opcua:
    config = Config.model_validate(
        {
            "type": "opcua", "url": url, "namespace": PUMP, "publish_interval": "10ms",
            "timeout": "500ms", "channels": {"count": COUNT, "pain": PAIN}, **settings,
        }
    )  # fmt: skip
    return Opcua("pump", config, clock=SystemClock(), state_dir=state_dir)


@asynccontextmanager
async def connected(bed: Bed, **settings: Any):
    """A source in its session; the server has noticed when it has left."""
    made = source(bed.wire.url, **settings)
    try:
        await made.connect()
        yield made
    finally:
        await made.close()
        await bed.quiet()


async def newest(
    made: Opcua, columns: int, within_s: float = PATIENCE_S
) -> dict[int, tuple[float | None, Quality, Reason]]:
    """The last of each column that came, once there is one of each."""
    found: dict[int, Judged] = {}
    async with asyncio.timeout(within_s):
        while len(found) < columns:
            for each in (await made.read()).samples:
                value = None if np.isnan(each["value"]) else float(each["value"])
                found[int(each["column"])] = value, Quality(each["quality"]), Reason(each["reason"])
    return found


async def until(made: Opcua, column: int, wanted, *, bed: Bed | None = None, within_s: float = PATIENCE_S):
    """Read, and let the plant go on, until a sample of the column is as wanted; returns it."""
    async with asyncio.timeout(within_s):
        while True:
            if bed is not None:
                bed.step()
            for each in (await made.read()).samples:
                if each["column"] == column and wanted(each):
                    return each
