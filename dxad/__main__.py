"""`dxad` on the command line: the table of its commands."""

import os
import sys
from importlib import import_module
from typing import Final

import click
from click.shell_completion import CompletionItem

__all__ = ["COMMANDS", "main"]

_PIPED_COLUMNS: Final = "200"

COMMANDS: Final = {
    "run": "Run the daemon in the foreground.",
    "check": "Find every mistake in a configuration.",
    "probe": "Ask a device what it has, and print the configuration that reads it.",
    "browse": "Show what an OPC-UA server offers, and print the configuration that reads it.",
    "sniff": "Listen to a wire, and print the configuration that reads it.",
    "doctor": "Try all that a configuration names, and say what is wrong and how to mend it.",
    "demo": "Watch dxad do its job on a simulated pump.",
    "status": "Show how the daemon is doing.",
    "top": "Watch the daemon, until Ctrl-C.",
    "query": "Score the last rows of PIPELINE, now.",
    "alarms": "Show all alarms, or do something about one of them.",
    "incidents": "Show what was found, with its evidence.",
    "outbox": "Show what waits to be delivered, for whom, since when and why.",
    "events": "Show who leases events, or lease some and say when they are done.",
    "tail": "Show events as they come, until Ctrl-C or until the daemon stops.",
    "reload": "Take up the configuration as it is on disk now.",
    "learn": "Have PIPELINE learn anew what is normal.",
    "models": "Make, list, show and try bundles of models, and say which of them counts.",
    "record": "Write rows from the running daemon into a file.",
    "replay": "Run recorded data through a configuration, as fast as it goes.",
    "what-if": "Replay twice: as configured, and with other settings.",
    "version": "Print the versions of dxad and what it runs on.",
}
"""What `dxad --help` says of each without importing them: that takes a second, and more on a Pi."""


class _Lazy(click.Group):
    """Imports `dxad.cli.NAME` when NAME is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - likewise
        if cmd_name not in COMMANDS:
            return None
        name = cmd_name.replace("-", "_")
        command: click.Command = getattr(import_module(f"dxad.cli.{name}"), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - likewise
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        names = [name for name in COMMANDS if name.startswith(incomplete)]
        items = [CompletionItem(name, help=COMMANDS[name]) for name in names]
        return items + click.Command.shell_complete(self, ctx, incomplete)


@click.command(
    cls=_Lazy,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog='Completion: eval "$(_DXAD_COMPLETE=bash_source dxad)" in ~/.bashrc, or zsh_source, fish_source.',
)
@click.version_option(package_name="dxad")
def main() -> None:
    """Sensors in, explained incidents out: anomaly detection at the edge.

    Try it: dxad demo. Use it: dxad check -c dxad.toml, dxad run -c dxad.toml, dxad top.
    """
    if not sys.stdout.isatty():
        os.environ.setdefault("COLUMNS", _PIPED_COLUMNS)  # rich's tables: no id is cut where nobody looks


if __name__ == "__main__":
    main(prog_name="dxad")
