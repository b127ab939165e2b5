"""`dxad replay`: what a configuration makes of recorded data."""

from typing import IO

import click

from dxad.cli.backtest import Asked, of_recording, progress, run

__all__ = ["replay"]


@click.command(epilog="Example: dxad replay -c dxad.toml --data week.csv --labels anomaly --learn 1h")
@of_recording
@click.option(
    "--events", type=click.File("wb", lazy=True),
    help="Write every event to this file, one JSON object per line.",
)  # fmt: skip
@click.option(
    "--speed", default="max", metavar="max|FACTOR", show_default=True,
    help="As fast as it goes, or so many times as fast as it was; the answer is the same.",
)  # fmt: skip
def replay(asked: Asked, events: IO[bytes] | None, speed: str) -> None:
    """Run recorded data through a configuration, as fast as it goes.

    The data goes the same way as in the daemon, only the wires are left out: nothing is connected to, no sink
    is told, and nothing is written to the state directory. The same data gives the same answer to the byte.
    """
    import orjson

    from dxad.config import load
    from dxad.event import Event

    def write(event: Event) -> None:
        if events is not None:
            events.write(orjson.dumps(event.document(), option=orjson.OPT_APPEND_NEWLINE))
            events.flush()

    config = load(asked.config)
    with progress() as shown:
        outcome = run(asked, config, on_event=write, on_rows=shown, speed=_factor(speed))
    if asked.as_json:
        click.echo(orjson.dumps(outcome, option=orjson.OPT_INDENT_2))
        return
    from rich.console import Console

    from dxad.cli.outcome import picture

    console = Console()
    for part in picture(outcome):
        console.print(part)


def _factor(speed: str) -> float | None:
    if speed == "max":
        return None
    try:
        factor = float(speed)
    except ValueError:
        factor = 0.0
    if not 0.001 <= factor <= 1e6:
        raise click.BadParameter(f"{speed!r} is neither max nor a factor, such as 10", param_hint="--speed")
    return factor
