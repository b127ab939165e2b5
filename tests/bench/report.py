"""What every benchmark prints: its metrics, as a table for people or as one JSON object for programs.

    {metric: {"value", "unit", "reference", "ratio", "goal", "holds"}}

`reference` is what something simpler reached in the same run, and `ratio` is value / reference. `goal` is
what the project promises, and `holds` whether it is kept. What does not exist is null.
"""

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson
from rich.console import Console
from rich.table import Table

__all__ = ["Metric", "document", "parser", "show"]

_DIGITS: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One number that was measured."""

    value: float | None
    unit: str
    reference: float | None = None
    goal: float | None = None
    at_most: bool = False
    """The goal is the largest value that keeps it, not the smallest."""
    of_ratio: bool = False
    """The goal is one of the ratio, not of the value."""

    @property
    def ratio(self) -> float | None:
        """To the reference; a reference of nothing is none."""
        return None if self.value is None or not self.reference else self.value / self.reference

    @property
    def holds(self) -> bool | None:
        """Whether the goal is kept; what could not be measured keeps none."""
        if self.goal is None:
            return None
        held = self.ratio if self.of_ratio else self.value
        if held is None:
            return False
        return held <= self.goal if self.at_most else held >= self.goal


def document(metrics: Mapping[str, Metric]) -> dict[str, dict[str, Any]]:
    """The JSON object."""
    return {
        name: {
            "value": _rounded(each.value),
            "unit": each.unit,
            "reference": _rounded(each.reference),
            "ratio": _rounded(each.ratio),
            "goal": each.goal,
            "holds": each.holds,
        }
        for name, each in metrics.items()
    }


def parser(module: str, description: str | None) -> argparse.ArgumentParser:
    """The command line that all benchmarks have; each adds its own options."""
    made = argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=description,
        epilog="Exit status 0 if every goal is kept, 1 if one is missed.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--json", action="store_true", help="print one JSON object, and nothing else")
    return made


def show(metrics: Mapping[str, Metric], *, title: str, as_json: bool) -> int:
    """Print the metrics on standard output; returns the exit status."""
    if as_json:
        sys.stdout.buffer.write(orjson.dumps(document(metrics), option=orjson.OPT_INDENT_2) + b"\n")
        sys.stdout.buffer.flush()
    else:
        Console().print(_table(metrics, title))
    return 1 if any(each.holds is False for each in metrics.values()) else 0


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, _DIGITS)


def _table(metrics: Mapping[str, Metric], title: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column("metric", no_wrap=True)
    for name in ("value", "reference", "ratio", "goal"):
        table.add_column(name, justify="right")
    table.add_column("holds", no_wrap=True)
    table.add_column("unit", no_wrap=True)
    for name, each in metrics.items():
        goal = (
            ""
            if each.goal is None
            else f"{'≤' if each.at_most else '≥'} {each.goal:g}{'×' if each.of_ratio else ''}"
        )
        table.add_row(
            name, _number(each.value), _number(each.reference), _number(each.ratio), goal,
            {True: "[green]yes[/]", False: "[red]no[/]", None: ""}[each.holds], each.unit,
        )  # fmt: skip
    return table


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
