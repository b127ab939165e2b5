"""The picture of what a recording has shown."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from dxad.cli.cells import DIM, count, duration, number, table, text

if TYPE_CHECKING:
    from dxad.types import Document

__all__ = ["INCIDENT", "SCORE", "head", "incident_cells", "picture", "score_cells"]

_CONTRIBUTORS: Final = 3
_SHOWN: Final = 40
"""Incidents per pipeline."""

INCIDENT: Final = ("ONSET", ">LASTED", "KIND", ">PEAK", "CONTRIBUTORS")
SCORE: Final = (
    ("F1", "f1", ""), ("FAR", "far_pct", " %"), ("MAR", "mar_pct", " %"),
    ("FOUND", "found", ""), ("MISSED", "missed", ""), ("FALSE", "false_episodes", ""),
    ("DELAY", "delay_median_s", " s"), ("LARGEST", "delay_largest_s", " s"),
)  # fmt: skip
"""Headings, the score's keys and their units."""


def picture(outcome: "Document") -> Iterator[RenderableType]:
    """An outcome, part by part."""
    yield head(outcome["recording"])
    pipelines = outcome["pipelines"]
    for name, each in pipelines.items():
        yield ""
        yield _summary(name, each)
        if each["incidents"]:
            incidents = table(*INCIDENT)
            for found in each["incidents"][:_SHOWN]:
                incidents.add_row(*incident_cells(found))
            yield incidents
        if len(each["incidents"]) > _SHOWN:
            yield text(f"and {len(each['incidents']) - _SHOWN} more; --json tells them all", DIM)
    if any(each["score"] for each in pipelines.values()):
        yield ""
        yield _scores(pipelines)
    for each in outcome["conditions"]:
        yield text(f"{each['code']} {each['subject']}: {each['detail']}", "yellow")


def head(recording: "Document") -> Text:
    """What was read."""
    begin, end = (recording[key].removesuffix("Z")[:19] for key in ("from", "to"))
    parts = [f"{recording['file']}: {count(recording['rows'], 'row')} from {begin} to {end} UTC"]
    if recording["columns_ignored"]:
        parts.append(f"columns that are no channel: {', '.join(recording['columns_ignored'])}")
    if recording["channels_missing"]:
        parts.append(f"channels without a column: {', '.join(recording['channels_missing'])}")
    lines, cells = recording["lines_rejected"], recording["cells_rejected"]
    if lines or cells:
        parts.append(f"could not be read: {count(lines, 'line')}, {count(cells, 'cell')}; the first of them:")
        parts += recording["rejected"]
    made = Text("\n").join(text(each) for each in parts)
    made.stylize(DIM, len(parts[0]))
    return made


def _summary(name: str, found: "Document") -> Text:
    model = "no model" if found["model"] is None else f"model {found['model']['version']}"
    failed = [each for each in found["learned"] if "error" in each]
    learned = [each for each in found["learned"] if "version" in each]
    if learned:
        model += f", learned from {count(learned[-1]['rows'], 'row')}"
    if failed:
        model += f"; learning failed {count(len(failed), 'time')}: {failed[-1]['error']}"
    highest = found["score_highest_over_limit"]
    incidents, rows = count(len(found["incidents"]), "incident"), count(found["rows"], "row")
    made = f"{incidents}; {found['scored']} of {rows} scored, at most {highest:.2f} of the limit; "
    return Text.assemble((f"{name}: ", "bold"), text(made), text(model, DIM))


def incident_cells(found: "Document") -> tuple[RenderableType, ...]:
    """One incident, in the order of `INCIDENT`."""
    names = [
        f"{each['channel']} {each.get('trouble') or format(each['share'], '.0%')}"
        for each in found["contributors"][:_CONTRIBUTORS]
    ]
    lasted = "open" if found["duration_s"] is None else duration(found["duration_s"])
    return (
        text(found["onset"].removesuffix("Z")[:23].replace("T", " ")), lasted, text(found["kind"]),
        number(found["peak_score"]), text(", ".join(names)),
    )  # fmt: skip


def score_cells(score: "Document | None") -> Sequence[str]:
    """A score, in the order of `SCORE`."""
    if score is None:
        return ["-"] * len(SCORE)
    return ["-" if score[key] is None else f"{score[key]:g}{unit}" for _, key, unit in SCORE]


def _scores(pipelines: "Document") -> Table:
    made = table("PIPELINE", *(f">{heading}" for heading, _, _ in SCORE))
    for name, each in pipelines.items():
        made.add_row(text(name), *score_cells(each["score"]))
    return made
