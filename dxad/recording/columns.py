"""Which column of a recording is which channel."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from dxad.errors import ConfigError

__all__ = ["Matched", "match"]


@dataclass(frozen=True, slots=True)
class Matched:
    """Columns with a meaning, and what is left over."""

    column_of: Mapping[str, str]
    """By channel id."""
    ignored: tuple[str, ...]
    """Columns that are no channel's."""
    missing: tuple[str, ...]
    """Channels without a column: nothing will ever come of them."""


def match(columns: Sequence[str], channels: Sequence[str], given: Mapping[str, str]) -> Matched:
    """Find each channel's column.

    Args:
        columns: of the recording.
        channels: their ids.
        given: by column, the channel that it is; the others are found by the channel's id, by its name if no
            other source has one of that name, and by the same without regard to case, blanks and signs.

    Raises:
        ConfigError: `given` names what is not there, or one channel twice, or nothing matches at all.
    """
    found: dict[str, str] = {}
    for column, channel in given.items():
        for name, names, what in ((column, columns, "column"), (channel, channels, "channel")):
            if name not in names:
                close = difflib.get_close_matches(name, names, 1)
                hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(names)}"
                raise ConfigError(f"--map {column}={channel}: no {what} {name!r}; {hint}")
        if channel in found:
            raise ConfigError(f"--map {column}={channel}: {channel} is column {found[channel]!r} already")
        found[channel] = column
    free = [name for name in columns if name not in given]
    for spell in (str, _bare):
        for by_id in (True, False):
            places = _unambiguous([each if by_id else each.partition(".")[2] for each in channels], spell)
            for column in tuple(free):
                place = places.get(spell(column))
                if place is not None and channels[place] not in found:
                    found[channels[place]] = column
                    free.remove(column)
    if not found:
        raise ConfigError(
            f"none of the columns is a channel; columns: {', '.join(columns)}; "
            f"channels: {', '.join(channels)}; say which is which with --map COLUMN=CHANNEL"
        )
    return Matched(found, tuple(free), tuple(each for each in channels if each not in found))


def _unambiguous(names: Sequence[str], spell: Callable[[str], str]) -> dict[str, int]:
    spelt = [spell(name) for name in names]
    return {name: place for place, name in enumerate(spelt) if spelt.count(name) == 1}


def _bare(name: str) -> str:
    return "".join(each for each in name.casefold() if each.isalnum())
