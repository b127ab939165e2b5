"""`dxad query`: score a pipeline's last rows, now."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from dxad.cli.options import REFUSED, as_json, to_daemon

if TYPE_CHECKING:
    from dxad.types import Document

__all__ = ["query"]

_STATISTICS: Final = ("last", "mean", "min", "max")


@click.command(epilog="Example: dxad query pump --window-size 600 --threshold 0.99")
@click.argument("pipeline")
@click.option("--window-size", type=click.IntRange(min=1), help="Rows to look back on; default: one window.")
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.95,
    show_default=True,
    help="The anomaly score that counts; 0.95 is the calibrated limit.",
)
@as_json
@to_daemon
def query(socket: Path, pipeline: str, window_size: int | None, threshold: float, as_json: bool) -> None:
    """Score the last rows of PIPELINE, now.

    Changes nothing. Exit status 0 if there is a score, whatever it is, and 1 if there is none.
    """
    from dxad.client import SyncClient

    asked = {"threshold": threshold} | ({} if window_size is None else {"window_size": window_size})
    answer = SyncClient(socket).query(pipeline, {"execute": True, "config": asked})
    if as_json:
        import orjson

        click.echo(orjson.dumps(answer, option=orjson.OPT_INDENT_2))
    elif answer["success"]:
        _print(pipeline, answer["content"])
    else:
        click.echo(f"dxad: {answer['error']}", err=True)
    sys.exit(0 if answer["success"] else REFUSED)


def _print(pipeline: str, content: "Document") -> None:
    from rich.console import Console
    from rich.text import Text

    from dxad.cli.cells import table, text

    result, seen = content["result"], content["input_data"]
    anomalous = result["is_anomaly"]
    console = Console()
    verdict = "anomalous" if anomalous else "normal"
    console.print(
        Text.assemble(
            f"{pipeline}: ",
            (verdict, "bold red" if anomalous else "bold green"),
            f", anomaly score {result['anomaly_score']:.3f} against {result['threshold']:g}; "
            f"score {result['score']:.3f} against the limit {result['limit']:g}",
        )
    )
    console.print(text(f"the worst of the last {seen['rows']} rows, by model {result['model']}", "dim"))
    console.print()
    channels = table("CHANNEL", *[f">{each.upper()}" for each in _STATISTICS], "UNIT")
    for name, each in seen["channels"].items():
        numbers = [each.get(statistic) for statistic in _STATISTICS]
        channels.add_row(text(name), *["-" if n is None else f"{n:g}" for n in numbers], text(each["unit"]))
    console.print(channels)
