"""Load for benchmarks: no machine, but rows of numbers that a far end can check, with their time of sending.

In the row with the number `sequence`, channel `load.cNNN` shows

    ((sequence + 101 NNN) mod 4096) / 4

which a float32 holds exactly and four decimals write exactly. So each value alone tells its row (modulo 4096)
and its channel, and what is lost, doubled, stale or mixed up cannot look well.

    load.sequence       number of the row, from 0; it counts `rate_hz` rows a second
    load.sent           when the step was made, unix seconds
    load.began          when the row was begun: `sent` of its first step
    load.c000 …         the values

A row lasts `spread` steps, so that devices may send in turn within a period; the values stay the same, and
only `sent` moves on. Its times are the real clock's, since a latency is one of the real world: this is the
one plant whose numbers differ from run to run.
"""

import time
from collections.abc import Callable, Mapping
from typing import Final, Literal

from pydantic import Field

from hw_sim.plant import HEALTHY, Channel, Readings, Stress
from hw_sim.plants import PlantSettings

__all__ = ["BEGAN", "SENT", "SEQUENCE", "Load", "Settings", "build", "channel_of", "value_of"]

SEQUENCE: Final = "load.sequence"
SENT: Final = "load.sent"
BEGAN: Final = "load.began"
_TURN: Final = 4096
_APART: Final = 101
_PER_UNIT: Final = 4


class Settings(PlantSettings):
    """How much there is to send."""

    kind: Literal["load"] = "load"
    channels: int = Field(default=500, ge=1, le=100_000)
    rate_hz: float = Field(default=10.0, gt=0, le=100_000)
    """Rows a second."""
    spread: int = Field(default=1, ge=1, le=1000)
    """Steps in a row."""


def build(settings: Settings, _seed: str) -> "Load":
    """Rows by the real clock."""
    return Load(channels=settings.channels, rate_hz=settings.rate_hz, spread=settings.spread)


def channel_of(number: int) -> str:
    """The name of a value's channel."""
    return f"load.c{number:03d}"


def value_of(sequence: int, number: int) -> float:
    """What a channel shows in a row."""
    return (sequence + _APART * number) % _TURN / _PER_UNIT


class Load:
    """Rows of numbers. All channels of a step come from one call of the clock."""

    shows: Final = {"wear": (), "restriction": (), "leak": ()}

    def __init__(
        self, *, channels: int, rate_hz: float, spread: int, clock: Callable[[], float] = time.time
    ) -> None:
        names = [channel_of(number) for number in range(channels)]
        self.channels: Mapping[str, Channel] = {
            SEQUENCE: Channel("", 0.0, 1e9),
            SENT: Channel("s", 0.0, 4e9),
            BEGAN: Channel("s", 0.0, 4e9),
            **{name: Channel("", 0.0, _TURN / _PER_UNIT) for name in names},
        }
        self.step_s = 1 / (rate_hz * spread)
        self._spread = spread
        self._clock = clock
        self._steps = -1
        self._names = names
        # Every row is a stretch of this, so that none has to be computed.
        self._values = [at % _TURN / _PER_UNIT for at in range(_TURN)]
        self._places = [_APART * number % _TURN for number in range(channels)]
        self._row: dict[str, float] = {}

    def step(self, _stress: Stress = HEALTHY) -> Readings:
        """Advance by one step; what it returns is valid until the next."""
        self._steps += 1
        sequence, turn = divmod(self._steps, self._spread)
        sent = self._clock()
        row, values = self._row, self._values
        if turn == 0:
            row[SEQUENCE], row[BEGAN] = float(sequence), sent
            row.update(
                zip(self._names, [values[(sequence + at) % _TURN] for at in self._places], strict=True)
            )
        row[SENT] = sent
        return row
