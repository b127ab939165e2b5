"""What a gateway has seen, recorded by cursor and replayed, is scored and told as it was."""

import numpy as np
import orjson
import pytest

from dxad.assembly import Assembly
from dxad.gateway import Gateway
from dxad.outbox import Outbox
from dxad.recording import open_recording
from dxad.recording.tape import Tape, Track, Wall
from dxad.recording.write import open_writer
from dxad.replay.feed import Wire
from dxad.runtime.clock import SteppedClock
from dxad.runtime.health import Health
from dxad.runtime.metrics import Metrics
from dxad.types import NS_PER_S, SAMPLE, Block, Quality
from tests.unit.replay.plant import ALARM, PLAIN, configured, told

TICK = NS_PER_S // 20
START = 5_000 * NS_PER_S
UTC = 1_700_000_000_123_456_789

JOINED = {
    "channels": ["plc.*", "fast.*", "slow.*"],
    "period": "100ms",
    "features": [{"type": "summarize", "channels": ["fast.*"], "stat": "rms", "every": "100ms"}],
    "model": {"type": "zscore", "warm_up": 60},
    "alarm": ALARM,
}


class Live:
    """A gateway whose devices are a few lines of a test."""

    def __init__(self, config) -> None:
        self.clock = SteppedClock(start=START, utc_offset=UTC)
        health, metrics = Health(self.clock), Metrics()
        outbox = Outbox(
            None, max_bytes=2**20, commit_window_s=0.0, health=health, metrics=metrics, clock=self.clock
        )
        self.assembly = Assembly(
            config, boot="live", clock=self.clock, health=health, metrics=metrics, outbox=outbox,
            sources={name: Wire(section.declared(name)) for name, section in config.sources.items()},
        )  # fmt: skip
        self.gateway = Gateway(self.assembly, clock=self.clock, health=health, metrics=metrics)
        self.events = []
        self._rng = np.random.default_rng(3)
        self._message = dict.fromkeys(config.sources, 0)

    def run(self, seconds: float, each_second) -> None:
        for tick in range(round(seconds * NS_PER_S / TICK)):
            now = START + (tick + 1) * TICK
            for name, ingest in self.assembly.ingests.items():
                self._sample(name, ingest, now - TICK, now)
            self.clock.advance(now)
            for ingest in self.assembly.ingests.values():
                ingest.tick(now)
            for pipeline in self.assembly.pipelines.values():
                self.events += pipeline.step()
            if tick % 20 == 19:
                each_second()

    def _sample(self, name: str, ingest, begin: int, end: int) -> None:
        """Whatever the source's device sends from one tick to the next, each at a time of its own."""
        period, width = ingest.ring.period, len(ingest.ring.channels)
        slots = np.arange(-(-begin // period), -(-end // period))
        for slot in slots:
            if self._rng.random() < 0.03:
                continue  # lost on its way
            samples = np.zeros(width, dtype=SAMPLE)
            samples["message"] = self._message[name]
            samples["arrival"] = slot * period + int(self._rng.integers(0, min(period, end - slot * period)))
            samples["column"] = np.arange(width)
            shift = 6.0 if slot * period > START + 30 * NS_PER_S and name == "plc" else 0.0
            samples["value"] = self._rng.normal(size=width) + 10 + shift
            samples["quality"] = np.where(self._rng.random(width) < 0.01, Quality.BAD, Quality.GOOD)
            self._message[name] += 1
            ingest.accept(Block(samples))


@pytest.mark.parametrize("name", ["rec.npz", "rec.csv", "rec.jsonl"])
def test_a_recording_of_a_gateway_tells_what_the_gateway_told(tmp_path, name):
    config = configured(tmp_path, joined=JOINED, plain=PLAIN)
    live = Live(config)
    wall = Wall()

    def rows(source: str, start: int | None, limit: int):
        found = live.gateway.source_rows(source, start, limit)
        return orjson.loads(orjson.dumps(found, option=orjson.OPT_SERIALIZE_NUMPY))

    tape = Tape([Track(source, rows(source, None, 0), wall) for source in live.gateway.sources()])
    writer = open_writer(tmp_path / name, tape.columns)

    def fetch() -> None:
        for track in tape.tracks:
            track.take(rows(track.name, track.cursor, 10_000))
        writer.rows(*tape.ready())

    live.run(42, fetch)
    writer.close()
    live.assembly.close()
    assert tape.lost == 0

    _, events, scores = told(config, open_recording(tmp_path / name))
    for pipeline, replayed in scores.items():
        ring = live.assembly.pipelines[pipeline].scores
        first = ring.oldest
        # The recording's first row stands at another stream time; both begin with their grids.
        begin = int(replayed[0, 0]) - ring.start
        n = min(len(replayed), ring.sealed - first)
        np.testing.assert_array_equal(replayed[:n, 1:], ring.read(first, first + n).values)
        assert begin == (1000 * NS_PER_S - START) // ring.period
    order = list(config.pipelines)
    live.events.sort(key=lambda each: (each.time_utc, order.index(each.data["pipeline"])))
    told_live = [(each.type, each.time_utc, each.data["contributors"]) for each in live.events]
    told_again = [(each["type"], each["time"], each["data"]["contributors"]) for each in events]
    assert [kind for kind, *_ in told_again] == [kind for kind, *_ in told_live]
    assert "dxad.incident.opened" in {kind for kind, *_ in told_live}
    assert [who for *_, who in told_again] == [who for *_, who in told_live]
    from dxad.event import rfc3339

    assert [when for _, when, _ in told_again] == [rfc3339(when) for _, when, _ in told_live]
