"""`dxad run`: the daemon itself."""

import sys
from pathlib import Path

import click

from dxad.cli.options import MISTAKE, of_config, tell
from dxad.errors import ConfigError

__all__ = ["run"]


@click.command(epilog="Example: dxad run -c config/examples/demo.toml")
@of_config
def run(config: Path) -> None:
    """Run the daemon in the foreground.

    It tells systemd when it is ready, and stops on SIGTERM or Ctrl-C, with exit status 0. If the
    configuration is wrong, every mistake is a line, and the exit status is 2.
    """
    from dxad.runtime.deferral import defer

    defer()
    from dxad import daemon

    try:
        sys.exit(daemon.run(config))
    except ConfigError as error:
        tell(error)
        sys.exit(MISTAKE)
