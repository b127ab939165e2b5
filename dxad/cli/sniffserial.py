"""`dxad sniff serial:///dev/…`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from dxad.cli.live import Shown, hand_over, seconds, watch
from dxad.cli.options import MISTAKE, REFUSED

if TYPE_CHECKING:
    from dxad.commissioning import Patience
    from dxad.commissioning.serialfindings import Line

__all__ = ["sniff_serial"]

_SEARCH: Final = 0.8
"""The share of the time that the search for a rate may take."""
_GLANCE: Final = 0.3
"""The same where there is only one."""
_MESSAGES: Final = 8
"""That are enough to end it."""
_SHOWN: Final = 5


def sniff_serial(
    url: str, span: str, *, baudrate: int | None, name: str, output: Path | None, as_json: bool
) -> None:
    """Listen to a port, print what came, and propose a source."""
    from dxad.commissioning.serialfindings import line_document, serial_fragment
    from dxad.commissioning.seriallisten import port_of
    from dxad.errors import ConfigError

    try:
        port = port_of(url)
        within_s = seconds(span, "--for")
    except ConfigError as error:
        click.echo(f"dxad: {error}", err=True)
        sys.exit(MISTAKE)
    line = watch(_Work(port, baudrate).run, within_s)
    if line is None:
        click.echo(
            f"dxad: {port}: nothing came within {span}. The device may want to be asked (`query`), its "
            "receive and send lines may be crossed, it may be off, or speak seldom: --for 10min",
            err=True,
        )
        sys.exit(REFUSED)
    if not as_json:
        _print(line)
    hand_over(serial_fragment(name, line), output, silent=as_json, **line_document(line))
    if line.cut is not None and not line.cut.proven:
        click.echo(
            f"dxad: {port}: nothing proves that messages are so; a wrong rate may look like it", err=True
        )
    if line.cut is None:
        click.echo(f"dxad: {port}: {_doubt(line)}", err=True)
        sys.exit(REFUSED)


def _doubt(line: "Line") -> str:
    if line.pseudo:
        return "no message is to be found in what came; a pseudo-terminal has no rate that could be wrong"
    return (
        f"no message is to be found in what came; at {line.setting} it made the most sense. If the device "
        "has another rate, name it by --baudrate"
    )


class _Work:
    def __init__(self, port: str, baudrate: int | None) -> None:
        self._port = port
        self._baudrate = baudrate

    async def run(self, patience: "Patience", shown: Shown) -> "Line | None":
        """What is heard; None where that is nothing."""
        from dxad.commissioning import seriallisten
        from dxad.commissioning.bauds import LineSetting
        from dxad.commissioning.framings import best_cut
        from dxad.commissioning.serialfindings import Line, period_of
        from dxad.commissioning.serialfindings import shown as as_line

        pseudo = seriallisten.is_pseudo(self._port)
        wire = seriallisten.opener(self._port)
        if pseudo:
            shown.seen(f"{self._port} is a pseudo-terminal: no bits are sent, so no rate is searched for")
            settings = [LineSetting(self._baudrate or 115_200)]
        else:
            settings = seriallisten.rates(self._baudrate, parity=True)
        part = patience.part(_SEARCH if len(settings) > 1 else _GLANCE)
        found = await seriallisten.search(wire, settings, patience=part, watcher=shown)
        if found is None:
            return None
        heard = await seriallisten.capture(
            wire, found.setting, patience=patience, watcher=shown,
            shown=lambda data: [as_line(each) for each in data.splitlines() if each],
            enough=lambda data: (cut := best_cut(data)) is not None and len(cut.payloads) >= _MESSAGES,
        )  # fmt: skip
        data = bytes(heard.data)
        cut = best_cut(data) or (None if data else found.cut)
        messages = 0 if cut is None else len(cut.payloads)
        return Line(
            seriallisten.stable_name(self._port), found.setting, pseudo, cut, len(data) or len(found.data),
            period_of(heard.arrivals, messages), (data or found.data)[:256],
        )  # fmt: skip


def _print(line: "Line") -> None:
    from rich.console import Console

    from dxad.cli.cells import DIM, table, text
    from dxad.commissioning.serialfindings import shown

    console = Console()
    cut = line.cut
    facts = table()
    facts.add_row("port", text(line.port))
    facts.add_row("rate", "none: a pseudo-terminal" if line.pseudo else str(line.setting))
    if cut is not None:
        every = "" if line.period_s is None else f", every {line.period_s:g} s"
        facts.add_row("messages", f"{len(cut.payloads)}{every}")
        facts.add_row("framing", text(cut.framing))
        facts.add_row("checksum", text(cut.checksum or "none"))
        facts.add_row("payload", text(cut.payload.kind))
        facts.add_row("sure", f"{cut.worth:.0%}")
    console.print(facts)
    if cut is None:
        console.print(text(shown(line.head), DIM))
        return
    for each in cut.payloads[-_SHOWN:]:
        console.print(text(shown(each), DIM))
    fields = table("FIELD", ">FROM", ">TO", ">LAST")
    for found in cut.payload.fields:
        if found.kind == "number":
            fields.add_row(text(found.path), f"{found.low:.6g}", f"{found.high:.6g}", text(found.last))
        else:
            fields.add_row(text(found.path), "", "", text(found.last))
    console.print(fields)
