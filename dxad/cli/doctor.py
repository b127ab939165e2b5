"""`dxad doctor`: would it run here, and if not, why not."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from dxad.cli.live import Shown, seconds, watch
from dxad.cli.options import MISTAKE, REFUSED, as_json, of_config

if TYPE_CHECKING:
    from dxad.commissioning import Patience
    from dxad.commissioning.checkfiles import Whom
    from dxad.commissioning.checkup import Finding

__all__ = ["doctor"]

_LONGEST_S: Final = 3600.0
_STYLES: Final = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.command(epilog="Example: dxad doctor -c /etc/dxad/dxad.toml")
@of_config
@click.option("--for", "span", default="5s", show_default=True, metavar="DURATION", help="For each source.")
@click.option("--user", "user", metavar="NAME", help="Whom dxad runs as.  [default: dxad, if there is one]")
@click.option("--all", "everything", is_flag=True, help="Show what is well in full, too.")
@as_json
def doctor(config: Path, span: str, user: str | None, everything: bool, as_json: bool) -> None:
    """Try all that a configuration names, and say what is wrong and how to mend it.

    Every source is connected and read for a few seconds, every sink reached without an event; certificates,
    keys, secrets and devices are looked at, with who may read them; then the clock, the disk, the memory, the
    runtime, and what else runs here. All at once, each within its time.

    Nothing is changed and nothing stays behind. What a running daemon has connected is asked of the daemon.
    The exit status is 1 if anything has failed; warnings alone are 0. As root, it can look at everything.
    """
    from dxad.commissioning.checkfiles import Whom
    from dxad.errors import ConfigError

    try:
        each_s = seconds(span, "--for")
        whom = Whom.usual() if user is None else Whom.named(user)
    except ConfigError as error:
        click.echo(f"dxad: {error}", err=True)
        sys.exit(MISTAKE)
    except KeyError:
        click.echo(f"dxad: --user: there is no user {user!r}", err=True)
        sys.exit(MISTAKE)
    found = watch(_Work(config, whom, each_s).run, _LONGEST_S)
    states = [each.state for each in found]
    if as_json:
        _print_json(config, whom.name, found)
    else:
        _print(found, everything=everything)
    sys.exit(REFUSED if "fail" in states else 0)


class _Work:
    def __init__(self, path: Path, whom: "Whom", seconds: float) -> None:
        self._path = path
        self._whom = whom
        self._seconds = seconds

    async def run(self, _patience: "Patience", shown: Shown) -> "list[Finding]":
        from dxad.commissioning.checkup import Check, Finding, examine, failed
        from dxad.commissioning.doctor import checks_of, daemon_status, machine_checks
        from dxad.config import load
        from dxad.errors import ConfigError
        from dxad.runtime.clock import SystemClock

        clock = SystemClock()
        found: list[Finding] = []
        checks = list(machine_checks(self._path, clock))
        try:
            config = load(self._path)
        except ConfigError as error:
            mend = "dxad check tells all its mistakes; nothing it names is tried before"
            problems = error.problems or (error,)
            found += [failed("config", str(self._path), str(each), mend) for each in problems]
        else:
            status, told = await daemon_status(config.control.socket)
            found += told
            checks += checks_of(
                self._path, config, self._whom, seconds=self._seconds, clock=clock, status=status
            )
        waiting = [f"{each.kind} {each.subject}" for each in checks]

        def done(check: Check) -> None:
            waiting.remove(f"{check.kind} {check.subject}")
            shown.doing(f"{len(waiting)} of {len(checks)} to go: {', '.join(waiting[:3])}")

        looked = await examine(checks, done=done)
        order = {"fail": 0, "warn": 1, "ok": 2}
        return sorted(found + looked, key=lambda each: order[each.state])


def _print_json(path: Path, user: str, found: "Sequence[Finding]") -> None:
    import dataclasses

    import orjson

    states = [each.state for each in found]
    document = {
        "config": str(path),
        "user": user,
        "well": "fail" not in states,
        "failures": states.count("fail"),
        "warnings": states.count("warn"),
        "findings": [dataclasses.asdict(each) for each in found],
    }
    click.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2))


def _print(found: "Sequence[Finding]", *, everything: bool) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from dxad.cli.cells import DIM, count, plain

    console = Console()
    made = Table(box=None, padding=(0, 2, 0, 0), header_style=DIM)
    for heading in ("", "CHECK", "OF", "FOUND", "MEND"):
        made.add_column(heading, overflow="fold")
    for each in found:
        style = DIM if each.state == "ok" and not everything else ""
        made.add_row(
            Text(each.state, style=_STYLES[each.state]), Text(each.check, style=style),
            Text(plain(each.subject), style=style), Text(plain(each.found), style=style),
            Text(plain(each.mend)),
        )  # fmt: skip
    console.print(made)
    failures, warnings = (sum(each.state == state for each in found) for state in ("fail", "warn"))
    console.print()
    told = f"{count(failures, 'failure')}, {count(warnings, 'warning')}"
    console.print(
        Text(f"all is well: {len(found)} checks" if not failures + warnings else told, style="bold")
    )
