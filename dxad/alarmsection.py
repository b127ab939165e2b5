"""What a configuration says of alarms and incidents."""

import difflib
import math
import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Final, Literal, Self

from pydantic import BeforeValidator, Field, WithJsonSchema, field_validator, model_validator

from dxad.errors import ConfigError
from dxad.expression import compile_expression
from dxad.fields import Duration, Section, Size
from dxad.types import NS_PER_S, Channel

__all__ = [
    "SEVERITIES",
    "Action",
    "AlarmSection",
    "ChannelAlarmSection",
    "EvidenceSection",
    "IncidentsSection",
    "Severity",
    "check_alarms",
    "k_of_n",
]

Action = Literal["ack", "shelve", "unshelve", "out_of_service", "in_service"]
"""What people may do to an alarm."""

Severity = Literal["low", "medium", "high", "critical"]
SEVERITIES: Final[tuple[Severity, ...]] = ("low", "medium", "high", "critical")
"""From the least to the worst."""

_Finite = Annotated[float, Field(allow_inf_nan=False)]

_K_OF_N: Final = re.compile(r"(\d{1,4}) of (\d{1,4})")
_SECOND: Final = NS_PER_S


def k_of_n(text: str) -> tuple[int, int]:
    """The two numbers of `"3 of 5"`.

    Raises:
        ValueError: it is something else, or more are asked for than there are.
    """
    found = _K_OF_N.fullmatch(text)
    if found is None:
        raise ValueError(f'{text!r} is not two numbers such as "3 of 5"')
    k, n = int(found[1]), int(found[2])
    if not 1 <= k <= n:
        raise ValueError(f"{text!r}: the first number is at least 1 and at most the second")
    return k, n


def _limit(value: object) -> object:
    """One mistake, where a union of types would tell one for each."""
    sound = (
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0
    )
    if sound or value == "auto":
        return value
    raise ValueError(f'{value!r} is neither "auto" nor a number above 0')


class _Rules(Section):
    """What is said of every alarm."""

    on_delay: Duration = Field(_SECOND, description="how long it must stay above the limit")
    on: str | None = Field(
        None,
        description='instead of on_delay: how many of the last scored rows must be above, such as "3 of 5"',
    )
    off_delay: Duration = Field(30 * _SECOND, description="how long it must stay below the off-limit")
    severity: Severity = Field(
        "high", description="what an incident is told with; high and critical take the critical lane"
    )
    latch: bool = Field(default=False, description="stay active until somebody acknowledges")
    inhibit: str | None = Field(
        None,
        description='raise nothing while this holds, such as "plc.running == 0"; what is not known does not',
    )

    @field_validator("on")
    @classmethod
    def _counts(cls, text: str | None) -> str | None:
        if text is not None:
            k_of_n(text)
        return text

    @field_validator("inhibit")
    @classmethod
    def _sound(cls, text: str | None) -> str | None:
        if text is not None:
            try:
                compile_expression(text)
            except ConfigError as error:
                raise ValueError(str(error)) from error
        return text

    @model_validator(mode="after")
    def _one_way_on(self) -> Self:
        if self.on is not None and "on_delay" in self.model_fields_set:
            raise ValueError("give on_delay or on, not both")
        return self


class AlarmSection(_Rules):
    """When a score becomes an alarm."""

    limit: Annotated[
        float | Literal["auto"],
        BeforeValidator(_limit),
        WithJsonSchema({"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"const": "auto"}]}),
    ] = Field(
        "auto", description="the score above which the alarm is pending; auto: as the model was calibrated"
    )
    off_limit: Annotated[float, Field(gt=0, le=1)] = Field(
        0.8, description="the share of the limit below which an alarm may clear"
    )


class ChannelAlarmSection(_Rules):
    """Limits of one channel, and of how fast it changes: each is an alarm of its own."""

    channel: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)+$")] = Field(
        description="the channel, as it is after the transforms"
    )
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")] | None = Field(
        None, description="part of the alarms' ids; default: the channel"
    )
    low_low: _Finite | None = Field(
        None, strict=False, description="below it, one step more severe than `low`"
    )
    low: _Finite | None = Field(None, strict=False, description="below it the alarm is pending")
    high: _Finite | None = Field(None, strict=False, description="above it the alarm is pending")
    high_high: _Finite | None = Field(
        None, strict=False, description="above it, one step more severe than `high`"
    )
    rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        None, strict=False, description="units per second, up or down, beyond which the alarm is pending"
    )
    hysteresis: _Finite = Field(
        0.0, strict=False, ge=0, description="how far inside a limit the value must be for the alarm to clear"
    )

    @model_validator(mode="after")
    def _some_and_in_order(self) -> Self:
        limits = [each for each in (self.low_low, self.low, self.high, self.high_high) if each is not None]
        if not limits and self.rate is None:
            raise ValueError("give at least one of low_low, low, high, high_high and rate")
        if limits != sorted(set(limits)):
            raise ValueError("low_low, low, high and high_high are to be each above the one before")
        if self.low is not None and self.high is not None and 2 * self.hysteresis >= self.high - self.low:
            raise ValueError("hysteresis leaves no room between low and high in which an alarm could clear")
        return self

    @property
    def title(self) -> str:
        """What its alarms' ids begin with, after the pipeline's name."""
        return self.name or self.channel

    @property
    def kinds(self) -> tuple[str, ...]:
        """Which alarms it makes."""
        return tuple(
            kind
            for kind in ("low_low", "low", "high", "high_high", "rate")
            if getattr(self, kind) is not None
        )


class EvidenceSection(Section):
    """The rows around an incident, as they were."""

    before: Duration = Field(30 * _SECOND, description="how much to keep of the time before an onset")
    after: Duration = Field(30 * _SECOND, description="how much to keep of the time after the end")


class IncidentsSection(Section):
    """What is said of the incidents of all pipelines."""

    budget_per_hour: int = Field(
        60, ge=1, description="incidents told in an hour; the others are counted in one summary"
    )
    critical_per_hour: int = Field(
        240, ge=1, description="how many may be told in an hour if those beyond the budget are critical"
    )
    reopen_within: Duration = Field(
        60 * _SECOND, description="an upset that comes back so soon is the same incident, opened again"
    )
    evidence: EvidenceSection = Field(
        EvidenceSection(), description="the rows around an incident, as they were"
    )
    evidence_files: int = Field(
        200, ge=0, description="of how many incidents to keep the rows, in state_dir/evidence"
    )
    evidence_size: Size = Field(
        32 * 2**20, ge=0, description="what they may take on disk; the oldest goes first"
    )


def check_alarms(
    at: tuple[str | int, ...],
    alarm: AlarmSection,
    alarms: Sequence[ChannelAlarmSection],
    channels: Sequence[Channel],
) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """What is wrong with the alarms of the pipeline at the key `at`, whose rows have these channels."""
    known = [channel.id for channel in channels]
    titles = [each.title for each in alarms]
    for place, each in enumerate(alarms):
        if each.channel not in known:
            yield (*at, "alarms", place, "channel"), _no_channel(each.channel, known)
        if each.title in titles[:place]:
            yield (*at, "alarms", place), f"there is an alarm {each.title!r} already; give one of them a name"
    sections = [((*at, "alarm"), alarm), *(((*at, "alarms", n), each) for n, each in enumerate(alarms))]
    for key, section in sections:
        if section.inhibit is not None:
            for name in compile_expression(section.inhibit).names:
                if name not in known:
                    yield (*key, "inhibit"), _no_channel(name, known)


def _no_channel(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, 1)
    return f"no channel {name!r} in this pipeline's rows" + (f", did you mean {close[0]!r}?" if close else "")
