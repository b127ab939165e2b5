"""Memory is known before it is taken, and flat for ever after: whatever comes, and however much of it."""

import gc
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dxad.assembly import memory
from dxad.config import parse
from dxad.errors import DecodeError
from dxad.frame import Feature, Feed, Frame
from dxad.plugin import load
from dxad.ring.ringbuffer import RingBuffer
from dxad.ring.sealer import Sealer
from dxad.sources import Inbox
from dxad.sources.memory import Config
from dxad.types import SAMPLE, Block, Channel, Schema
from tests.unit.ingest.rig import Rig

MIB = 2**20
PERIOD = 1_000_000


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def grown(step: Callable[[int], None], *, warm: int, times: int) -> tuple[int, int]:
    """By how many bytes traced and resident memory grow over so many steps, after a few to get warm."""
    for n in range(warm):
        step(n)
    gc.collect()
    tracemalloc.start()
    step(warm)
    gc.collect()
    traced, taken = tracemalloc.get_traced_memory()[0], resident()
    try:
        for n in range(warm + 1, warm + times):
            step(n)
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - traced, resident() - taken
    finally:
        tracemalloc.stop()


def test_ten_million_rows_leave_memory_as_it_was():
    at_once = 20_000
    channels = (Channel("s.a"), Channel("s.b", fold="mean"))
    ring = RingBuffer(channels, period=PERIOD, slots=60_000, start=0)
    sealer = Sealer(ring, folds=["last", "mean"], holds_ns=[2 * PERIOD] * 2)
    plugin = load("transforms", "summarize")
    transform = plugin.build(plugin.config(type="summarize", stat="rms", every="10ms", channels=("s.a",)))
    inputs = Schema((channels[0],), PERIOD)
    feature = Feature(Feed(ring, (0,)), transform, transform.outputs(inputs), slots=1000)
    frame = Frame([Feed(ring, (1,)), Feed(feature.ring, (0,))], period=3 * PERIOD)
    samples = np.zeros(2 * at_once, dtype=SAMPLE)
    samples["column"] = np.tile([0, 1], at_once)
    samples["value"] = np.random.default_rng(0).normal(size=len(samples))
    slots = np.repeat(np.arange(at_once, dtype=np.int64), 2)
    late = samples[:10]
    read = 0

    def step(_: int) -> None:
        nonlocal read
        accepted = sealer.accept(samples, (slots + ring.sealed) * PERIOD)
        assert accepted.after_sealing == 0
        sealer.seal((ring.sealed + at_once) * PERIOD)
        assert sealer.accept(late, np.full(10, (ring.sealed - 1) * PERIOD)).late == 10
        feature.advance()
        while (rows := frame.read(4096)) is not None:
            read += len(rows)

    traced, taken = grown(step, warm=10, times=500)
    assert ring.sealed > 10_000_000
    assert read + frame.lost == frame.next == ring.sealed // 3
    assert frame.lost == 0
    assert traced < MIB // 10
    assert taken < 4 * MIB


async def test_a_million_samples_that_are_no_good_leave_memory_as_it_was():
    rig = Rig({"a": {"range": [0, 1]}, "b": {}}, max_silence="1h")
    rng = np.random.default_rng(0)

    def step(n: int) -> None:
        rig.clock._now += PERIOD * 100
        samples = np.zeros(2000, dtype=SAMPLE)
        samples["arrival"] = rig.clock.now() - rng.integers(0, 40_000_000_000, 2000)
        samples["message"] = np.arange(2000) + 2000 * n
        samples["value"] = rng.choice([np.nan, np.inf, -5.0, 0.5], 2000)
        samples["quality"] = rng.integers(0, 3, 2000)
        samples["column"] = rng.integers(0, 2, 2000)
        rig.ingest.accept(Block(samples))
        rig.ingest.tick(rig.clock.now())
        rig.ingest.snapshot()

    traced, taken = grown(step, warm=20, times=520)
    lost = rig.ingest.snapshot()["lost"]
    assert set(lost) == {"late", "too_old"}
    assert rig.count("samples_received") > 1_000_000
    assert traced < MIB // 10
    assert taken < 4 * MIB


async def test_a_million_malformed_messages_leave_memory_as_it_was():
    inbox = Inbox(Config(type="memory", channels={"a": {}}))
    inbox.open()
    told: set[int] = set()

    async def drain() -> int:
        with pytest.raises(DecodeError) as refused:
            await inbox.block()
        told.add(len(str(refused.value)))
        return refused.value.rejected

    counted = 0
    before = 0
    for n in range(1_000_000):
        inbox.reject(n, f"{n} is no JSON: {'x' * 1000}" if n % 1000 == 0 else "no")
        if n % 1000 == 999:
            counted += await drain()
        if n == 100_000:
            gc.collect()
            before = resident()
    assert counted == 1_000_000
    assert resident() - before < 4 * MIB
    assert max(told) < 300, "what is told of a message does not grow with the message"


def config_of(**pipeline) -> dict[str, int]:
    document = {
        "sources": {
            "fast": {"type": "memory", "period": "10ms", "channels": {"a": {}, "b": {}}},
            "slow": {"type": "memory", "period": "1s", "channels": {"c": {}}, "queue": 1000},
        },
        "pipelines": {"p": {"channels": ["*.*"], "model": {"type": "zscore"}, "period": "100ms", **pipeline}},
    }
    return memory(parse(document))


def test_every_buffer_that_a_configuration_asks_for_is_in_the_account():
    plain = config_of()
    assert set(plain) == {"sources.fast", "sources.slow", "pipelines.p"}
    assert config_of(period="1s")["sources.slow"] < plain["sources.slow"], "its newest samples are not kept"
    windows = config_of(window="60s")["pipelines.p"] - plain["pipelines.p"]
    assert windows > 256 * 600 * 3 * 4, "a batch of windows of 600 rows of 3 channels"
    assert config_of(window="24h")["pipelines.p"] > 1000 * MIB
    smoothed = config_of(transforms=[{"type": "smooth", "span": "60s"}])["pipelines.p"]
    assert smoothed >= plain["pipelines.p"] + 600 * 3 * 8
    recursive = config_of(transforms=[{"type": "smooth", "span": "60s", "method": "ewma"}])["pipelines.p"]
    assert recursive == plain["pipelines.p"], "an exponential mean remembers no rows"
    learned = config_of(learn={"span": "1h"})["pipelines.p"]
    assert learned >= plain["pipelines.p"] + 36_000 * 3 * 8
