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
def replay(asked: Asked, events: IO[bytes] | None) -> None:
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

    config = load(asked.config)
    with progress() as shown:
        outcome = run(asked, config, on_event=write, on_rows=shown)
    if asked.as_json:
        click.echo(orjson.dumps(outcome, option=orjson.OPT_INDENT_2))
        return
    from rich.console import Console

    from dxad.cli.outcome import picture

    console = Console()
    for part in picture(outcome):
        console.print(part)
