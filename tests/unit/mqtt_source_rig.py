"""An MQTT source before a broker."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from dxad.errors import NotConnected
from dxad.runtime.clock import SystemClock
from dxad.sources.mqtt import Config, Mqtt
from tests.patience import PATIENCE_S

__all__ = ["arriving", "config", "connected", "lost", "refused"]


def config(port: int, **settings: Any) -> Config:
    channels = {"type": "mqtt", "topic": "t", "channels": {"a": {}, "b": {}}}
    return Config.model_validate({**channels, "url": f"mqtt://127.0.0.1:{port}", **settings})


@asynccontextmanager
async def connected(port: int, **settings: Any) -> AsyncIterator[Mqtt]:
    source = Mqtt("motor", config(port, **settings), clock=SystemClock())
    try:
        await source.connect()
        yield source
    finally:
        await source.close()


async def arriving(source: Mqtt, count: int) -> list[tuple[int, float]]:
    """The columns and values of the next samples."""
    found: list[tuple[int, float]] = []
    async with asyncio.timeout(PATIENCE_S):
        while len(found) < count:
            samples = (await source.read()).samples
            found += zip(samples["column"].tolist(), samples["value"].tolist(), strict=True)
    return found


async def lost(source: Mqtt, bound_s: float = PATIENCE_S) -> str:
    """Wait for the link's loss; returns the reason."""
    async with asyncio.timeout(bound_s):
        while True:
            try:
                await source.read()
            except NotConnected as error:
                return str(error)


async def refused(port: int, **settings: Any) -> str:
    """Connect in vain; returns the reason."""
    with pytest.raises(NotConnected) as told:
        async with connected(port, **settings):
            pass
    return str(told.value)
