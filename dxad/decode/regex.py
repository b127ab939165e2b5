r"""Text with numbers in it, by a regular expression: `Temp:\s*(?P<temp>[-\d.]+)\s*C`."""

import re
from collections.abc import Sequence
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from dxad.decode import DecodeSection, bounded, number_in, places
from dxad.errors import DecodeError
from dxad.fields import Identifier, Size
from dxad.plugin import Plugin

__all__ = ["PLUGIN", "Config", "Regex"]

_PATTERN_MAX: Final = 500
_TEXT_MAX: Final = 1024
_STEP: Final = re.compile(
    r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|(?P<open>\((?P<atomic>\?>)?)|\)|(?:[*+?]|\{[\d,]*\})\+|(?P<endless>[*+]|\{\d*,\})|.",
    re.DOTALL,
)
"""One step through an expression: an escape, a set, a parenthesis, a repetition without a way back, one
without an end, or a character."""


def _tame(pattern: str) -> str:
    """The expression, if no endless repetition has another inside: each character could double its time."""
    open_groups = [(False, False)]  # whether the group is atomic, and something in it repeats endlessly
    doubled = False  # whether what came last is a group in which something does
    for step in _STEP.finditer(pattern):
        if step["endless"]:
            if doubled:
                raise ValueError(
                    f"before character {step.start() + 1} something repeats that has a repetition inside: a "
                    "wrong message could take hours. Make the inner one possessive (++ or *+), or its group "
                    "atomic: (?>…)"
                )
            open_groups[-1] = (open_groups[-1][0], True)
        doubled = False
        if step["open"]:
            open_groups.append((step["atomic"] is not None, False))
        elif step[0] == ")" and len(open_groups) > 1:
            atomic, endless = open_groups.pop()
            doubled = endless and not atomic
            open_groups[-1] = (open_groups[-1][0], open_groups[-1][1] or doubled)
    return pattern


def _compiled(pattern: str) -> str:
    try:
        found = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"no regular expression: {error}") from error
    if not found.groupindex:
        raise ValueError("no number has a name in it: write (?P<name>…) around each")
    return _tame(pattern)


class Config(DecodeSection):
    r"""`decode = { kind = "regex", pattern = '(?P<temp>[-\d.]+) C' }`."""

    kind: Literal["regex"] = "regex"
    pattern: Annotated[str, AfterValidator(_compiled)] = Field(
        max_length=_PATTERN_MAX,
        description="found anywhere in the message, with (?P<name>…) around each number",
    )
    decimal: Literal[".", ","] = Field(".", description="what stands before the fraction of a number")
    max_payload: Annotated[Size, Field(gt=0)] = Field(_TEXT_MAX, description="larger messages are rejected")

    @property
    def names(self) -> Sequence[Identifier]:
        """The named groups."""
        return tuple(re.compile(self.pattern).groupindex)

    @model_validator(mode="after")
    def _short(self) -> Self:
        if self.max_payload > 64 * _TEXT_MAX:
            raise ValueError(f"max_payload: {64 * _TEXT_MAX} bytes at most, for the time that it may take")
        return self


class Regex:
    """Takes named groups of what matches."""

    def __init__(self, config: Config, paths: Sequence[str]) -> None:
        """Find the groups `paths`, one per channel.

        Raises:
            ConfigError: the pattern has no such group.
        """
        self._pattern = re.compile(config.pattern)
        self._groups = [config.names[place] for place in places("group", paths, config.names)]
        self._max = config.max_payload
        self._decimal = config.decimal

    def decode(self, payload: bytes) -> list[float | None]:
        """Each channel's number; None where its group matched nothing.

        Raises:
            DecodeError: the pattern is not in it, a group is no number, or the payload is too large.
        """
        try:
            text = bounded(payload, self._max).decode()
        except UnicodeDecodeError as error:
            raise DecodeError(f"not UTF-8 at byte {error.start}") from error
        found = self._pattern.search(text)
        if found is None:
            raise DecodeError(f"{text[:40]!r} does not match")
        return [number_in(found[group] or "", self._decimal) for group in self._groups]


PLUGIN = Plugin(Config, Regex)
