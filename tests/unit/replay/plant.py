"""A recording made up in memory, handed out in whatever pieces a test asks for, and what watches it."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dxad import config
from dxad.recording import Faults, Piece
from dxad.replay import Outcome, Replay
from dxad.types import NS_PER_S

BEGIN = 1_700_000_000 * NS_PER_S + 123_456_789


class Made:
    """Rows in memory."""

    path = Path("made.csv")

    def __init__(self, times, values, columns, *, bad=None, cuts: Sequence[int] = ()) -> None:
        self.columns = tuple(columns)
        self.faults = Faults()
        self.digest = hashlib.blake2b(times.tobytes() + values.tobytes(), digest_size=16).hexdigest()
        self._times, self._values, self._bad = times, values, bad
        self._cuts = [0, *sorted(cuts), len(times)]

    def cut(self, cuts: Sequence[int]) -> "Made":
        """The same rows in other pieces."""
        return Made(self._times, self._values, self.columns, bad=self._bad, cuts=cuts)

    def pieces(self, columns: Sequence[str]) -> Iterator[Piece]:
        places = [self.columns.index(name) for name in columns]
        for begin, end in zip(self._cuts, self._cuts[1:], strict=False):
            if end > begin:
                bad = None if self._bad is None else self._bad[begin:end, places]
                yield Piece(self._times[begin:end], self._values[begin:end, places], bad)


def plant(seconds: int = 60, *, seed: int = 0, fault_at: float | None = 40.0, rough: bool = True) -> Made:
    """Two sources at 10 Hz and 50 Hz and a slow one; with jitter, holes, bad cells and rows out of order.

    From `fault_at` seconds on, `fast.x` shakes three times as much and `plc.a` is far off.
    """
    rng = np.random.default_rng(seed)
    n = seconds * 50
    at_s = np.arange(n) / 50
    values = np.full((n, 6), np.nan)
    motion = np.sin(at_s)
    values[::5, 0] = 10 + motion[::5] + 0.1 * rng.normal(size=len(motion[::5]))
    values[::5, 1] = 20 - 2 * motion[::5] + 0.1 * rng.normal(size=len(motion[::5]))
    values[:, 2:4] = rng.normal(size=(n, 2))
    values[::50, 4] = 5 + 0.01 * np.cumsum(rng.normal(size=len(at_s[::50])))
    values[::7, 5] = rng.normal(size=len(at_s[::7]))  # several in a slot of the slow source
    bad = np.zeros(values.shape, dtype=bool)
    times = BEGIN + np.arange(n, dtype=np.int64) * (NS_PER_S // 50)
    if rough:
        times += rng.integers(-13_000_000, 13_000_000, n)
        times[0] = BEGIN
        values[rng.random(values.shape) < 0.01] = np.nan
        bad = (rng.random(values.shape) < 0.003) & ~np.isnan(values)
        values[bad] = np.nan
        values[n // 2 : n // 2 + 100, 0] = np.nan  # two seconds without the first channel: a sensor incident
        order = np.arange(n)
        swapped = rng.choice(n - 40, 20, replace=False)
        for each in swapped:
            other = each + int(rng.integers(1, 40))
            order[each], order[other] = order[other], order[each]
        order[order == 0], order[0] = order[0], 0
        times, values, bad = times[order], values[order], bad[order]
    if fault_at is not None:
        late = times >= BEGIN + int(fault_at * NS_PER_S)
        values[late, 2] *= 3
        values[late, 0] += 5
    return Made(times, values, ("a", "b", "x", "y", "level", "top"), bad=bad)


def configured(tmp_path: Path, **pipelines: dict[str, Any]) -> config.Config:
    """Those sources, and these pipelines."""
    link = {"type": "mqtt", "url": "mqtt://127.0.0.1:1", "topic": "t"}
    return config.parse(
        {
            "state_dir": str(tmp_path / "state"),
            "sources": {
                "plc": {**link, "period": "100ms", "channels": {"a": {}, "b": {}}},
                "fast": {**link, "period": "20ms", "channels": {"x": {}, "y": {"fold": "mean"}}},
                "slow": {
                    **link,
                    "period": "1s",
                    "channels": {"level": {"hold": "3s"}, "top": {"fold": "max"}},
                },
            },
            "pipelines": pipelines,
        }
    )


ALARM = {"on_delay": "500ms", "off_delay": "2s"}
JOINED = {
    "channels": ["plc.*", "fast.*", "slow.*"],
    "period": "100ms",
    "features": [{"type": "summarize", "channels": ["fast.*"], "stat": "rms", "every": "100ms"}],
    "transforms": [{"type": "smooth", "channels": ["plc.*"], "span": "300ms"}],
    "model": {"type": "tflite", "path": "models/joined"},
    "learn": {"span": "20s", "window_rows": 3},
    "alarm": ALARM,
}
PLAIN = {"channels": ["plc.*"], "model": {"type": "zscore", "warm_up": 100}, "alarm": ALARM}


def told(
    config: config.Config, recording: Made, **options: Any
) -> tuple[Outcome, list[dict[str, Any]], dict[str, np.ndarray]]:
    """What a replay comes to, its events, and its scores by pipeline: slot, raw, judged."""
    events: list[dict[str, Any]] = []
    scores: dict[str, list[np.ndarray]] = {}

    def take(name, reading):
        slots = reading.first + np.arange(len(reading.values))
        scores.setdefault(name, []).append(np.column_stack((slots, reading.values)))

    outcome = Replay(
        config, recording, on_event=lambda event: events.append(event.document()), on_scores=take, **options
    ).run()
    return outcome, events, {name: np.concatenate(each) for name, each in scores.items()}
