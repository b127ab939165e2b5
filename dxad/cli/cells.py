"""What the tables of the commands are made of: names, numbers, durations, lamps.

Names and messages come from the field, and a terminal obeys what it is sent: only `plain` text reaches it.
"""

from typing import Final

from rich.table import Table
from rich.text import Text

__all__ = [
    "DIM",
    "ERROR",
    "GOOD",
    "WARNING",
    "count",
    "duration",
    "lamp",
    "loss",
    "number",
    "plain",
    "table",
    "text",
]

GOOD: Final = "green"
WARNING: Final = "yellow"
ERROR: Final = "red"
DIM: Final = "dim"


def table(*headings: str) -> Table:
    """A table without lines; a heading that begins with `>` is one of numbers."""
    made = Table(box=None, padding=(0, 2, 0, 0), show_header=bool(headings), header_style=DIM)
    for heading in headings:
        if heading.startswith(">"):
            made.add_column(heading[1:], justify="right", no_wrap=True)
        else:
            made.add_column(heading)
    return made


def plain(value: object) -> str:
    """Without control characters."""
    return "".join(each if each.isprintable() else " " for each in str(value))


def text(value: object, style: str = "") -> Text:
    """Plain text on one line, in which square brackets are no markup."""
    return Text(plain(value), style=style, no_wrap=True, overflow="ellipsis")


def lamp(name: str, *, lit: bool) -> Text:
    """A name, and whether it is connected."""
    made = text(f"{'●' if lit else '○'} {name}")
    made.stylize(GOOD if lit else ERROR, 0, 1)
    return made


def loss(n: int) -> Text:
    """A number that had better be 0."""
    return Text(f"{n:,}", style=WARNING if n else DIM)


def count(n: int, noun: str) -> str:
    """`1 error`, `2,000 errors`."""
    return f"{n} {noun}" if n == 1 else f"{n:,} {noun}s"


def number(value: float | None) -> str:
    """A score, with two decimals unless it is huge."""
    if value is None:
        return "-"
    return f"{value:.2f}" if abs(value) < 1000 else f"{value:.3g}"


def duration(seconds: float | None) -> str:
    """In the largest unit of which there are two, with a decimal for seconds."""
    if seconds is None:
        return "-"
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"
