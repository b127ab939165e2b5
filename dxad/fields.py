"""What configurations are made of: the base class of every section, and the types of its fields."""

import fnmatch
import os
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PlainSerializer,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from dxad.errors import ConfigError
from dxad.expression import compile_expression
from dxad.mistakes import CHANNEL, CHANNELS, IDENTIFIER, explained
from dxad.quantity import UNITS_BYTES, UNITS_NS, quantity, written_in
from dxad.types import NS_PER_S, Channel, Columns, Fold, Overflow, Schema

__all__ = [
    "NOISE_SAMPLES",
    "BandSection",
    "ChannelId",
    "ChannelPattern",
    "ChannelSection",
    "Duration",
    "Formula",
    "Identifier",
    "LaneName",
    "ModelSection",
    "Secret",
    "Section",
    "Size",
    "SourceSection",
    "TransformSection",
    "distinct",
    "matching",
    "rows_in",
    "side_by_side",
]

NOISE_SAMPLES: Final = 8
"""How few values tell a scatter."""


class Section(BaseModel):
    """A table of the configuration: frozen, strict, and an unknown key is an error with a suggestion."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @model_validator(mode="wrap")
    @classmethod
    def _suggest(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(value)
        except ValidationError as error:
            fields = {info.alias or name: info for name, info in cls.model_fields.items()}
            found = list(explained(error, fields, value))
        raise ValidationError.from_exception_data(cls.__name__, found)


def _duration_ns(value: Any) -> int:
    return quantity(value, UNITS_NS, ("ms", "s"))


def _size_bytes(value: Any) -> int:
    return quantity(value, UNITS_BYTES, ("MiB", "GiB"))


Duration = Annotated[
    int,
    BeforeValidator(_duration_ns),
    PlainSerializer(written_in(UNITS_NS), when_used="json"),
    WithJsonSchema({"type": "string", "examples": ["250ms", "24h"]}),
]
"""Nanoseconds, written as a string with a unit: ns, us, ms, s, min, h or d."""

Size = Annotated[
    int,
    BeforeValidator(_size_bytes),
    PlainSerializer(written_in(UNITS_BYTES), when_used="json"),
    WithJsonSchema({"type": "string", "examples": ["64MiB"]}),
]
"""Bytes, written as a string with a unit: B, KiB, MiB or GiB."""


Identifier = Annotated[str, Field(pattern=IDENTIFIER)]
"""A name that goes into ids, paths and metrics: letters, digits, `_` and `-`."""

_POLL_LATENESS_MOST_NS: Final = NS_PER_S
_BUFFERED_NS: Final = 50_000_000
"""So long a USB adapter's timer, and the ones behind it, may keep what a device sends."""

ChannelId = Annotated[str, Field(pattern=CHANNEL)]
"""`source.name`, as a channel that is made anew is called."""

ChannelPattern = Annotated[str, Field(pattern=CHANNELS)]
"""`source.name`, where `*` and `?` match within the names: `vib.*`; `{each}` is a template's place."""


def _formula(value: str) -> str:
    try:
        compile_expression(value)
    except ConfigError as error:
        raise ValueError(str(error)) from error
    return value


Formula = Annotated[str, AfterValidator(_formula)]
"""An expression over channels, see `dxad.expression`; the text, known to compile."""

LaneName = Annotated[Literal["critical", "normal", "bulk"], Field(description="a lane of the outbox")]


class Secret(Section):
    """A secret by reference; the value never stands in the configuration, a log or an answer."""

    credential: str | None = Field(None, description="a file of systemd's $CREDENTIALS_DIRECTORY")
    file: Path | None = Field(None, strict=False, description="a file that holds the secret, and a line end")
    env: str | None = Field(None, description="an environment variable")

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        if isinstance(value, str):
            raise ValueError(  # noqa: TRY004 - pydantic collects ValueErrors
                'a secret is not written here but named: { credential = "name" }, { file = "/path" } or '
                '{ env = "VARIABLE" }'
            )
        return value

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(each is not None for each in (self.credential, self.file, self.env)) != 1:
            raise ValueError("give exactly one of credential, file and env")
        return self

    def read(self) -> str:
        """Fetch the secret.

        Raises:
            ConfigError: it is not there.
        """
        if self.env is not None:
            if self.env not in os.environ:
                raise ConfigError(f"the environment has no variable {self.env}")
            return os.environ[self.env].rstrip("\r\n")
        path = self.path()
        try:
            return path.read_text().rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise ConfigError(f"secret {path}: is not UTF-8") from error
        except OSError as error:
            raise ConfigError(f"secret {path}: {error.strerror}") from error

    def path(self) -> Path:
        """The file that holds it.

        Raises:
            ConfigError: it is in none.
        """
        if self.file is not None:
            return self.file
        if self.credential is None:
            raise ConfigError(f"the variable {self.env} is no file; give a credential or a file")
        folder = os.environ.get("CREDENTIALS_DIRECTORY")
        if folder is None:
            raise ConfigError("no $CREDENTIALS_DIRECTORY: add LoadCredential= to the unit")
        return Path(folder) / self.credential


class ChannelSection(Section):
    """What is said of one channel, whatever its source."""

    unit: str = Field("", description="of the values")
    range: tuple[float, float] | None = Field(
        None, strict=False, description="the values that are physically possible; others are bad"
    )
    hold: Duration | Literal["session"] | None = Field(
        None, description="how long a value stays valid without a new one; default: the source's"
    )
    fold: Fold = Field("last", description="what several samples in one slot become")
    expect_every: Annotated[Duration, Field(gt=0)] | None = Field(
        None, description="the channel promises a value so often: three that are missing are told"
    )
    max_rate: float | None = Field(
        None,
        gt=0,
        strict=False,
        allow_inf_nan=False,
        description="the fastest change that is physically possible, per second; what comes faster is bad",
    )
    stuck_after: Annotated[Duration, Field(gt=0)] | None = Field(
        None, description="a value that has not changed by a bit for so long is bad, until it changes"
    )
    max_noise: float | None = Field(
        None,
        gt=0,
        strict=False,
        allow_inf_nan=False,
        description="the largest standard deviation, trends left out; values that scatter more are uncertain",
    )
    noise_window: Duration = Field(
        10 * NS_PER_S, gt=0, description="how long the scatter is measured before it is judged"
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.range is not None and not self.range[0] < self.range[1]:
            raise ValueError(f"range: {self.range[0]} is not below {self.range[1]}")
        return self

    def check_period(self, period: int) -> None:
        """Whether what it says fits samples that come every `period` nanoseconds.

        Raises:
            ValueError: it does not; the message begins with the key.
        """
        if self.stuck_after is not None and self.stuck_after <= period:
            raise ValueError("stuck_after: wants to be longer than the source's period")
        if self.max_noise is not None and self.noise_window < NOISE_SAMPLES * period:
            raise ValueError(f"noise_window: wants to be {NOISE_SAMPLES} of the source's periods at least")


class SourceSection(Section):
    """What is said of every source; each kind adds `type`, its link and its channels."""

    period: Annotated[Duration, Field(gt=0)] | None = Field(
        None, description="the step of the source's grid; without it every message is a row (in process only)"
    )
    clock: Literal["arrival", "device", "counted"] = Field(
        "arrival",
        description="whence a sample has its time: its arrival, the device's own stamp, or its number in an "
        "even stream",
    )
    gap: Annotated[Duration, Field(gt=0)] | None = Field(
        None,
        description="a counted stream begins anew after such a pause; default: 20 periods, 500ms at least",
    )
    lateness: Duration | None = Field(
        None,
        description="how long a slot waits after its end; default: one period, of a poll 1s at most, of a "
        "counted stream 50ms at least",
    )
    hold: Duration | Literal["session"] | None = Field(
        None, description="how long a value stays valid without a new one; default: two periods"
    )
    expect_every: Annotated[Duration, Field(gt=0)] | None = Field(
        None,
        description="each channel promises a value so often: three that are missing are told, and all of all "
        "channels prove the connection dead",
    )
    keep: Duration = Field(600 * NS_PER_S, description="how much of the past the ring holds, 64 MiB at most")
    queue: int = Field(
        20_000, gt=0, le=10_000_000, description="samples that may wait to be read into the ring"
    )
    overflow: Overflow = Field(
        "drop_newest",
        description="what happens when more come: the newest or the oldest is lost and counted, or all but "
        "every n-th message; block makes the wire wait, where that can be",
    )
    max_silence: Duration | None = Field(
        None,
        description="reconnect after so long without a sample; default: 10 periods, the longest hold or 5 s, "
        "and not while the session is proved alive",
    )

    in_process: ClassVar[bool] = False
    """Whether it is of use to Python code alone, and has no place in a file."""
    polled: ClassVar[bool] = False
    """Whether the source asks on the grid, so that a slot is complete when the poll has ended."""
    holds_back: ClassVar[bool] = False
    """Whether its wire can be made to wait."""
    stamped: ClassVar[bool] = False
    """Whether its samples may bring the device's own time."""
    keeps_state: ClassVar[bool] = False
    """Whether it keeps something in the state directory, and is built with `state_dir`."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.clock == "device" and not self.stamped:
            raise ValueError("clock: samples of this type of source bring no time of their device's")
        if self.overflow == "block" and not self.holds_back:
            raise ValueError("overflow: the wire of this type of source cannot be made to wait")
        return self

    @model_validator(mode="after")
    def _channels_fit(self) -> Self:
        for name, channel in self.channel_sections().items() if self.period else ():
            try:
                channel.check_period(self.period or 1)
            except ValueError as error:
                raise ValueError(f"channels.{name}.{error}") from error
        return self

    def slot_lateness(self, period: int) -> int:
        """Nanoseconds that a slot of `period` waits after its end."""
        if self.lateness is not None:
            return self.lateness
        if self.polled:  # only a poll that still waits for its answers makes a slot wait
            return min(period, _POLL_LATENESS_MOST_NS)
        if self.clock == "counted":  # what it sends waits in buffers, and arrives together
            return max(period, _BUFFERED_NS)
        return 0 if self.period is None else period

    def declared(self, source: str) -> tuple[Channel, ...]:
        """The channels this configuration promises, under the source's name."""
        return tuple(
            Channel(f"{source}.{name}", each.unit, each.range, each.fold)
            for name, each in self.channel_sections().items()
        )

    @property
    def requests(self) -> Sequence[bytes]:
        """What the configuration says that it sends to be answered; nothing for most sources."""
        return ()

    @property
    def awaits_outbox(self) -> bool:
        """Whether its peer is told of samples only when the outbox has them."""
        return False

    @property
    def alone_on(self) -> str | None:
        """What no other source can have at the same time, such as a serial port; nothing for most sources."""
        return None

    @abstractmethod
    def channel_sections(self) -> Mapping[str, ChannelSection]:
        """What the configuration says of each channel, by name, in the order of the columns."""


class TransformSection(Section):
    """What is said of every transform."""

    channels: tuple[ChannelPattern, ...] = Field(
        ("*.*",), strict=False, description="the channels it reshapes; the others pass unchanged"
    )

    @property
    def reach(self) -> int:
        """How far back it remembers its channels' rows, nanoseconds; 0 where it remembers a row or none."""
        return 0

    def places(self, inputs: Schema) -> list[int]:
        """Where its channels stand among the inputs.

        Raises:
            ConfigError: no channel matches.
        """
        found = matching(self.channels, inputs.channels)
        if not found:
            raise ConfigError(f"no channel matches {', '.join(self.channels)}")
        return found


class BandSection(TransformSection):
    """What is said of a transform that lets values differ by a band."""

    band: float = Field(gt=0, strict=False, allow_inf_nan=False, description="how far values may differ")
    kind: Literal["absolute", "percent"] = Field(
        "absolute", description="whether the band is in the channel's unit or a share of its range"
    )

    def widths(self, channels: Iterable[Channel]) -> list[float]:
        """The band of each channel, in its unit.

        Raises:
            ConfigError: a channel without a range has no percents.
        """
        return [self._width(channel) for channel in channels]

    def _width(self, channel: Channel) -> float:
        if self.kind == "absolute":
            return self.band
        if channel.range is None:
            raise ConfigError(
                f'{channel.id!r} has no range to take percents of; give it one, or kind = "absolute"'
            )
        low, high = channel.range
        return self.band / 100 * (high - low)


class ModelSection(Section):
    """What is said of every model."""

    def bundles(self) -> tuple[Path, ...]:
        """The bundles it reads, relative to the state directory: each is tried before it is read."""
        return ()


def rows_in(duration: int, period: int, *, key: str, most: int) -> int:
    """How many rows a duration is, at least one.

    Raises:
        ConfigError: it is no whole number of rows, or of more than `most`; the message names the key.
    """
    if duration % period or duration < period:
        raise ConfigError(f"{key} is no multiple of the rows' period, {period / 1e6:g} ms")
    if duration // period > most:
        raise ConfigError(f"{key} is {duration // period} rows; {most} at most")
    return duration // period


def matching(patterns: Iterable[str], channels: Iterable[Channel]) -> list[int]:
    """The places of the channels that match any of the patterns, in the channels' order."""
    patterns = tuple(patterns)
    return [
        place
        for place, channel in enumerate(channels)
        if any(fnmatch.fnmatchcase(channel.id, pattern) for pattern in patterns)
    ]


def side_by_side(columns: Sequence[int]) -> Columns:
    """The same columns as a slice, where they are one."""
    if columns and all(after == before + 1 for before, after in pairwise(columns)):
        return slice(columns[0], columns[-1] + 1)
    return list(columns)


def distinct(channels: Iterable[Channel]) -> tuple[Channel, ...]:
    """The channels, no two of which have the same id.

    Raises:
        ConfigError: two have.
    """
    found: dict[str, Channel] = {}
    for channel in channels:
        if channel.id in found:
            raise ConfigError(f"there would be two channels {channel.id!r}")
        found[channel.id] = channel
    return tuple(found.values())
