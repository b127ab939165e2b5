"""Which blocks of registers are read."""

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from dxad.links.modbus import Space
from dxad.sources.modbus.section import BITS, REGISTERS_MAX, WORD, ModbusChannel

__all__ = ["Request", "plan"]

_BITS_MAX: Final = 2000
"""Per request, of coils and discrete inputs."""


@dataclass(frozen=True, slots=True)
class Request:
    """One read of consecutive registers or bits."""

    space: Space
    first: int
    count: int
    columns: tuple[int, ...]
    """The channels it serves."""

    def __str__(self) -> str:
        return f"{self.space}:{self.first}+{self.count}"


def plan(
    channels: Sequence[ModbusChannel],
    columns: Iterable[int] | None = None,
    *,
    block: int = REGISTERS_MAX,
    hole: int = 8,
    avoid: Container[tuple[Space, int]] = (),
) -> list[Request]:
    """As few reads as the limits and small holes allow.

    Args:
        channels: all of them.
        columns: those to read; default: all.
        block: registers in one read at most; bits may be 16 times as many.
        hole: addresses that nobody wants, read along.
        avoid: addresses that must not be read along.
    """
    requests: list[Request] = []
    chosen = range(len(channels)) if columns is None else columns
    for column in sorted(chosen, key=lambda at: (channels[at].space, channels[at].first)):
        channel = channels[column]
        end = channel.first + channel.count
        last = requests[-1] if requests else None
        most = min(_BITS_MAX, WORD * block) if channel.space in BITS else block
        if (
            last is not None
            and last.space == channel.space
            and channel.first - (last.first + last.count) <= hole
            and end - last.first <= most
            and not any((last.space, at) in avoid for at in range(last.first + last.count, channel.first))
        ):
            count = max(last.count, end - last.first)
            requests[-1] = Request(last.space, last.first, count, (*last.columns, column))
        else:
            requests.append(Request(channel.space, channel.first, channel.count, (column,)))
    return requests
