"""The nouns of the data path, and the contracts of the four kinds of plug-in; what is stored: `record`.

Times are `int` nanoseconds on the stream clock (boot time, see `runtime.clock`) unless a name says UTC.
Slot `k` of a grid with period `p` is the time [k*p, (k+1)*p), named by its start.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from dxad.record import UNKNOWN_BOOT, Boot, Lane, Record

__all__ = [
    "F4",
    "F8",
    "I8",
    "NS_PER_S",
    "SAMPLE",
    "U1",
    "UNKNOWN_BOOT",
    "Block",
    "Bools",
    "Boot",
    "Calibration",
    "Channel",
    "Coalescing",
    "Detailed",
    "Document",
    "Doubting",
    "Fallible",
    "Fold",
    "Forgiving",
    "Grouped",
    "Lane",
    "Linked",
    "Model",
    "Overflow",
    "Paced",
    "Quality",
    "Reason",
    "Record",
    "Recovering",
    "Rows",
    "Schema",
    "Scores",
    "Sink",
    "Source",
    "State",
    "Transform",
    "Windows",
]

NS_PER_S = 1_000_000_000

F4 = npt.NDArray[np.float32]
F8 = npt.NDArray[np.float64]
I8 = npt.NDArray[np.int64]
U1 = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]

Document = dict[str, Any]
"""A JSON object."""

Columns = slice | list[int]
"""Which columns of rows: a slice where they stand side by side, which numpy copies fastest."""

Fold = Literal["last", "mean", "min", "max", "count"]
"""What several samples of one slot, or several finer slots of one row, become."""

Overflow = Literal["drop_oldest", "drop_newest", "thin", "block"]
"""What happens when more waits than may: the oldest or the newest is lost, or all but every n-th; or the wire
is made to wait."""


class Quality(IntEnum):
    """How far one sample can be trusted: OPC UA's split of its status code (OPC 10000-4, 7.39)."""

    GOOD = 0
    UNCERTAIN = 1
    BAD = 2


class State(IntEnum):
    """What one cell of a grid holds."""

    EMPTY = 0
    GOOD = 1
    HELD = 2
    """No sample fell into the slot; the last good one is still valid."""
    UNCERTAIN = 3
    BAD = 4


class Reason(IntEnum):
    """Why a sample is not good, or how it came to be there."""

    NONE = 0
    TIMEOUT = 1
    """The device did not answer in time."""
    DEVICE = 2
    """The device itself marked the value: a Modbus exception, an OPC UA status code."""
    RANGE = 3
    """The value lies outside the channel's range."""
    TYPE = 4
    """The value is missing, not a number, or not finite."""
    BACKFILLED = 5
    """Nothing is wrong: the value came after its slot was sealed, and filled an empty or a held cell."""
    RETAINED = 6
    """An MQTT broker had kept the message: nobody knows how old it is."""
    RATE = 7
    """The value has changed faster than the channel can."""
    STUCK = 8
    """The value has not changed by a bit for longer than the channel can stand still."""
    NOISE = 9
    """The channel's values scatter more than its sensor does when it is well."""
    MODBUS_ILLEGAL_FUNCTION = 101
    """From here to 111, a Modbus exception: 100 and its code (Modbus Application Protocol V1.1b3, 7)."""
    MODBUS_ILLEGAL_ADDRESS = 102
    MODBUS_ILLEGAL_VALUE = 103
    MODBUS_DEVICE_FAILURE = 104
    MODBUS_ACKNOWLEDGE = 105
    MODBUS_BUSY = 106
    MODBUS_REFUSED = 107
    MODBUS_MEMORY_PARITY = 108
    MODBUS_EXCEPTION_9 = 109
    MODBUS_GATEWAY_PATH = 110
    MODBUS_GATEWAY_TARGET = 111
    CHECKSUM = 120
    """The answer came with a wrong checksum."""
    UNFITTING = 121
    """Something came in place of an answer that is none: of another id, function or length, or garbage."""
    OUT_OF_STEP = 122
    """Two answers came to one question: nobody knows which of them is its own."""
    ABSENT = 123
    """The device has sent the number that stands for "there is no value"."""
    UNKNOWN_TEXT = 124
    """The device has sent a text that stands for no number."""


SAMPLE = np.dtype(
    [
        ("message", "<i8"),  # how many messages this source had read before this one
        ("stamp", "<i8"),  # the device's own time, UTC ns; 0 where it gave none
        ("arrival", "<i8"),  # the stream clock when the message was read
        ("value", "<f8"),
        ("column", "<i4"),  # the place of the channel among the source's channels
        ("quality", "u1"),
        ("reason", "u1"),
    ]
)
"""One reading as it came off the wire; packed, 38 bytes."""


@dataclass(frozen=True, slots=True)
class Channel:
    """One scalar over time."""

    id: str
    """`source.name`, with a suffix for each feature made of it: `vib.x.rms`."""
    unit: str = ""
    range: tuple[float, float] | None = None
    """The values that are physically possible, in `unit`; others are BAD."""
    fold: Fold = "last"
    """What several of its values become where they meet in one row."""

    def named(self, suffix: str, *, unit: str | None = None) -> "Channel":
        """The channel that a feature `suffix` of this one is; it has no range of its own."""
        return Channel(f"{self.id}.{suffix}", self.unit if unit is None else unit)


@dataclass(frozen=True, slots=True)
class Schema:
    """What rows look like before there are any."""

    channels: tuple[Channel, ...]
    period: int
    """Nanoseconds per row."""


@dataclass(frozen=True, slots=True)
class Block:
    """Samples just read, in the order they arrived."""

    samples: npt.NDArray[np.void]
    """Records of dtype `SAMPLE`, at least one; the array is the receiver's own."""
    through: int | None = None
    """The stream time up to which nothing more will come: set by sources that poll."""
    ticket: int = 0
    """What a source that is `ring.journal.Confirming` wants to hear when these are stored; ascending."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Consecutive slots of a grid, all channels side by side."""

    first: int
    """The slot of the first row."""
    period: int
    """Nanoseconds per row."""
    values: F8
    """(n, channels); NaN where nothing is known."""
    states: U1
    """(n, channels) of `State`."""

    def __len__(self) -> int:
        return len(self.values)

    def part(self, begin: int, end: int) -> "Rows":
        """Those from one place up to another, as views."""
        return Rows(self.first + begin, self.period, self.values[begin:end], self.states[begin:end])

    def with_values(self, values: F8, states: U1 | None = None) -> "Rows":
        """The same slots with other numbers, and other states where given."""
        return Rows(self.first, self.period, values, self.states if states is None else states)


@dataclass(slots=True)  # not frozen: that would cost as much as gathering thirty windows
class Windows:
    """Stretches of consecutive rows offered to a model."""

    last: I8
    """(n,) the slot of each window's last row."""
    values: F4
    """(n, rows, channels), NaN where a cell is bad or empty; perhaps a read-only view of `base`."""
    bad: F4
    """(n,) the share of each window's cells that are bad or empty, 0 to 1."""
    base: F4 | None = None
    """(m, channels) consecutive rows, C-contiguous, where the windows are views of such: what a model does to
    rows it need not do to each window. `values[i]` is then `base[i * step : i * step + rows]`."""
    step: int = 1
    period: int = 1
    """Nanoseconds from one slot to the next; 1 where every message is a row."""
    question: bool = False
    """Somebody asks what the score of these would be: a model must not learn from them, or remember them."""
    whole: bool = False
    """It is known that no cell is bad; False leaves it open."""

    @property
    def times(self) -> I8:
        """(n,) nanoseconds on the stream clock at which each window's last row begins."""
        return self.last * self.period

    def __len__(self) -> int:
        return len(self.values)


@dataclass(slots=True)
class Scores:
    """A model's answer to windows: higher is more anomalous."""

    values: F8
    """(n,); NaN where the window was not scored."""
    contributions: F8 | F4 | None = None
    """(n, channels), non-negative: how much of the score each channel makes; None where unknown."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """How a model's scores are judged: causal means of them over several spans, each against its own scale.

    The judged score of a row is the largest of mean(span) / scale(span); above `limit` it is anomalous.
    """

    limit: float
    spans: tuple[int, ...] = (1,)
    """Rows."""
    scales: tuple[float, ...] = (1.0,)
    normal: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """By channel id: mean and standard deviation in normal running, in the channel's unit."""
    usual: Mapping[str, float] = field(default_factory=dict)
    """By channel id: what it adds to the score of a row in normal running, on average."""
    stuck_rows: Mapping[str, int] = field(default_factory=dict)
    """By channel id: how many rows without any change mean that a sensor is stuck; others may stand still."""
    regimes: tuple[float, ...] = ()
    """The values of the pipeline's `by` channel that were seen in training; empty where there is none."""
    since: int | None = None
    """The slot of the first row that is judged by it, those before are not; None where all are."""
    normal_at: Callable[[int], Mapping[str, tuple[float, float]]] | None = None
    """`normal` as it was after the row of a slot, among those scored last; None where it never changes."""

    def at(self, slot: int) -> "Calibration":
        """As it was after the row of `slot`, so that what is told of a row depends on no later one."""
        return self if self.normal_at is None else replace(self, normal=self.normal_at(slot))


class Source(Protocol):
    """Brings readings in. It never retries, backs off or logs a failure: it raises, `ingest` decides."""

    @property
    def channels(self) -> Sequence[Channel]:
        """What the columns of its samples are; fixed once connected."""

    async def connect(self) -> None:
        """Open the link.

        Raises:
            NotConnected: try again later.
            ConfigError: no retry can help.
        """

    async def read(self) -> Block:
        """Wait for all samples that are ready, at least one. May be cancelled at any time.

        Raises:
            NotConnected: the link is gone; `close` and `connect` again.
            DecodeError: one message was bad.
            EndOfStream: there will be no more.
        """

    async def close(self) -> None:
        """Let go of the link; safe twice, and without `connect`."""


@runtime_checkable
class Recovering(Protocol):
    """What a source has besides, if it mends its own session, stage by stage, before it gives the link up.

    While it is at that, silence is no reason to connect anew; it ends in samples, or in NotConnected.
    """

    @property
    def recovering_until(self) -> int:
        """The stream time up to which it tries by itself; in the past when it does not."""


@runtime_checkable
class Grouped(Protocol):
    """What a source has besides, if it reads several devices: their samples are counted one by one."""

    @property
    def devices(self) -> Sequence[str]:
        """By column, the device it is of; empty where that is not known yet."""


@runtime_checkable
class Coalescing(Protocol):
    """A source that can wait a little, so that what comes in small pieces is read together."""

    coalesce_s: float
    """How long what comes waits to be parsed together; from its next connection on, as the other."""
    patience_s: float
    """How long what was parsed waits for more, at most a tenth of the period."""


class Transform(Protocol):
    """Reshapes rows: a streaming operator whose result does not depend on how rows are cut into batches."""

    def outputs(self, inputs: Schema) -> Schema:
        """Declare the rows it makes of `inputs`; called once, before any data.

        Raises:
            ConfigError: the inputs do not fit.
        """

    def apply(self, rows: Rows) -> Rows:
        """Carry its state over `rows`, which follow those of the call before, and return what comes out."""


@runtime_checkable
class Fallible(Protocol):
    """A transform that runs code which is not dxad's: where that fails it gives bad cells, and says why."""

    @property
    def fault(self) -> str | None:
        """What went wrong in the batch before; None when nothing did."""


@runtime_checkable
class Doubting(Protocol):
    """A transform that tells values which cannot be believed: it makes them BAD."""

    @property
    def doubted(self) -> Sequence[str]:
        """The ids of the channels it judges so, once `outputs` was asked."""


class Model(Protocol):
    """Scores windows."""

    @property
    def version(self) -> str:
        """What tells this model from another in the same place: the head of its hash, or its type."""

    @property
    def calibration(self) -> Calibration | None:
        """How its scores are to be judged; None while it does not know yet."""

    def load(self, channels: Sequence[Channel], rows: int | None, *, by: int | None = None) -> int:
        """Get ready for windows of these channels; returns how many rows a window shall have.

        Args:
            channels: what the columns are.
            rows: what the configuration asks for; None leaves it to the model.
            by: the column whose value says in which regime the machine runs: what is normal is kept apart for
                each value, and the column itself is not scored; None where there is one regime only.

        Raises:
            ModelError: the model is not for these.
        """

    def score(self, windows: Windows) -> Scores:
        """Score each window.

        Once it is calibrated, a window that is whole and of known regimes has a score, unless the model is
        `Forgiving` and learns anew: a NaN says there that the model does not do.

        Raises:
            ModelError: inference failed.
        """

    def state(self) -> Document:
        """What it has learned while it ran, for a restart: JSON without NaN; empty where there is nothing."""

    def restore(self, state: Document) -> None:
        """Take up, after `load`, what `state` of a model of the same type and configuration has given.

        Raises:
            ModelError: it is of another model.
        """

    def close(self) -> None:
        """Let go of memory; safe twice."""


@runtime_checkable
class Paced(Protocol):
    """What a model has besides, if it was made for rows that are so far apart and no others."""

    @property
    def periods(self) -> Collection[int]:
        """Nanoseconds from one row to the next, those of its members if it has some; 1 is any."""


@runtime_checkable
class Forgiving(Protocol):
    """What a model has besides, if it sums up over rows what it has seen, and may have to learn anew."""

    def forgive(self) -> None:
        """A sensor was lying, or rows are missing: what was summed up of late is void."""


@runtime_checkable
class Detailed(Protocol):
    """What a model has besides, if there is more to show than its version."""

    def details(self) -> Document:
        """What `dxad status` shows of it: JSON without NaN, from any thread."""


@runtime_checkable
class Linked(Protocol):
    """A sink that knows at once when its link has ended, also while there is nothing to write."""

    async def lost(self) -> None:
        """Wait until it has.

        Raises:
            NotConnected: it has, and why.
        """


class Sink(Protocol):
    """Carries records out. It never queues and never retries: the outbox holds, `deliver` retries."""

    async def connect(self) -> None:
        """Open the link; one that is open may stay.

        Raises:
            NotConnected: try again later.
            ConfigError: no retry can help.
        """

    async def write(self, records: Sequence[Record]) -> None:
        """Hand the records over; returns only once the peer has them all.

        Raises:
            NotConnected: nobody knows what arrived; all are sent again, but for the first `taken`.
            Backoff: the same, after the time the peer asked for; the link may stay.
            Rejected: the peer will never take these; it has the others.
        """

    async def close(self) -> None:
        """Let go of the link; safe twice, and without `connect`."""
