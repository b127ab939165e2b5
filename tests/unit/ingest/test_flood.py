"""One source's flood is its own trouble; how little it is to others, `tests.bench.sources` measures."""

import asyncio
import time

import numpy as np

from tests.bench.sources_flood import _round
from tests.pace import Loop, Selector


class Turns(Selector):
    """Notes what each turn of the loop has cost, in seconds of the processor."""

    def __init__(self) -> None:
        super().__init__()
        self.cost_s: list[float] = []

    def select(self, timeout=None):
        found = super().select(timeout)
        now = time.thread_time()
        self.cost_s.append(now)
        return found


def test_while_one_source_is_flooded_others_have_their_turn_every_few_milliseconds(monkeypatch):
    turns = Turns()
    monkeypatch.setattr(asyncio.events, "new_event_loop", lambda: Loop(turns))
    _, _, per_s, _ = _round(1.0, flooded=True)
    assert per_s > 1_000, "samples a second that were taken in of the flood"
    assert np.percentile(np.diff(turns.cost_s), 99) < 0.02, "how long others wait for their turn"
