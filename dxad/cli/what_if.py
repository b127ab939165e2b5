"""`dxad what-if`: what other settings would have made of recorded data."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import click

from dxad.cli.backtest import Asked, of_recording, progress, run

if TYPE_CHECKING:
    from rich.table import Table

    from dxad.types import Document

__all__ = ["what_if"]

_FIGURES: Final = (
    ("rows scored", lambda each: each["scored"]),
    ("limit", lambda each: each["limit"]),
    ("highest score, of the limit", lambda each: each["score_highest_over_limit"]),
    ("process incidents", lambda each: _of_kind(each, "process")),
    ("sensor incidents", lambda each: _of_kind(each, "sensor")),
)


@click.command(
    "what-if", epilog="Example: dxad what-if -c dxad.toml --data week.csv --set pipelines.pump.alarm.limit=3"
)
@of_recording
@click.option(
    "--set", "settings", multiple=True, required=True, metavar="KEY=VALUE",
    help="A setting by its dotted key, such as pipelines.pump.alarm.on_delay=5s; several times.",
)  # fmt: skip
def what_if(asked: Asked, settings: tuple[str, ...]) -> None:
    """Replay twice: as configured, and with other settings.

    Shows both beside each other, and which incidents would have been new or gone. Writes nothing, as `dxad
    replay` does not.
    """
    import orjson

    from dxad.config import load

    before, after = load(asked.config), load(asked.config, settings)
    with progress() as shown:
        outcomes = {
            "before": run(asked, before, on_rows=shown),
            "after": run(asked, after, on_rows=shown),
        }
    changes = _changes(outcomes["before"], outcomes["after"])
    if asked.as_json:
        answer = {"set": list(settings), **outcomes, "incidents": changes}
        click.echo(orjson.dumps(answer, option=orjson.OPT_INDENT_2))
    else:
        _print(outcomes["before"], outcomes["after"], settings)


def _of_kind(found: "Document", kind: str) -> int:
    return sum(each["kind"] == kind for each in found["incidents"])


def _by_id(outcome: "Document") -> dict[str, tuple[str, "Document"]]:
    """All incidents, with their pipelines."""
    return {
        each["id"]: (name, each)
        for name, found in outcome["pipelines"].items()
        for each in found["incidents"]
    }


def _changes(before: "Document", after: "Document") -> dict[str, list[str]]:
    """The ids of incidents by what became of them: the same has the same onset."""
    old, new = _by_id(before), _by_id(after)
    return {
        "same": [each for each in old if each in new],
        "gone": [each for each in old if each not in new],
        "new": [each for each in new if each not in old],
    }


def _print(before: "Document", after: "Document", settings: tuple[str, ...]) -> None:
    from rich.console import Console

    from dxad.cli.cells import count, text
    from dxad.cli.outcome import head

    console = Console()
    console.print(head(before["recording"]))
    for each in settings:
        console.print(text(f"with {each}"))
    for name in dict.fromkeys((*before["pipelines"], *after["pipelines"])):
        console.print()
        console.print(_figures(name, before["pipelines"].get(name), after["pipelines"].get(name)))
    changes = _changes(before, after)
    console.print()
    console.print(
        text(
            f"{count(len(changes['same']), 'incident')} would have been the same, "
            f"{len(changes['gone'])} gone, {len(changes['new'])} new"
        )
    )
    if changes["gone"] or changes["new"]:
        console.print(_incidents(_by_id(before), _by_id(after), changes))


def _figures(name: str, before: "Document | None", after: "Document | None") -> "Table":
    from dxad.cli.cells import table, text
    from dxad.cli.outcome import SCORE, score_cells

    made = table(name, ">BEFORE", ">AFTER")
    for title, figure in _FIGURES:
        made.add_row(title, *(_shown(None if each is None else figure(each)) for each in (before, after)))
    scores = [None if each is None else each["score"] for each in (before, after)]
    if any(scores):
        for (title, _, _), *cells in zip(SCORE, *map(score_cells, scores), strict=True):
            made.add_row(text(title), *cells)
    return made


def _shown(value: Any) -> str:
    return "-" if value is None else f"{value:,.4g}" if isinstance(value, float) else f"{value:,}"


def _incidents(
    old: Mapping[str, tuple[str, "Document"]],
    new: Mapping[str, tuple[str, "Document"]],
    changes: Mapping[str, list[str]],
) -> "Table":
    from dxad.cli.cells import table, text
    from dxad.cli.outcome import INCIDENT, incident_cells

    rows = [("-", "red", *old[each]) for each in changes["gone"]]
    rows += [("+", "green", *new[each]) for each in changes["new"]]
    made = table("", "PIPELINE", *INCIDENT)
    for sign, style, pipeline, found in sorted(rows, key=lambda row: str(row[3]["onset"])):
        made.add_row(text(sign, style), text(pipeline), *incident_cells(found))
    return made
