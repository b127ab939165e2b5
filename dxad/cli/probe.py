"""`dxad probe`: what does this device have, and where do its values stand."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from dxad.cli.live import Shown, hand_over, into_file, named, seconds, watch
from dxad.cli.options import MISTAKE, REFUSED, as_json

if TYPE_CHECKING:
    from rich.table import Table

    from dxad.commissioning import Patience
    from dxad.commissioning.modbusfindings import Place
    from dxad.commissioning.modbusprobe import Device
    from dxad.commissioning.registers import Expected
    from dxad.links.modbusurl import Address

__all__ = ["probe"]

_NUMBERS: Final = re.compile(r"\d+(-\d+)?(,\d+(-\d+)?)*")
_VALUES: Final = 48
"""Lines of likely values for each table."""
_SECOND_LOOK: Final = 0.85
"""The share of the time that the first look may take."""
_ID_SHARE: Final = 0.5


@click.group(epilog="Example: dxad probe modbus tcp://192.168.1.20 --ids 1 --expect 21.5")
def probe() -> None:
    """Ask a device what it has, and print the configuration that reads it."""


def _range(text: str, most: int, option: str) -> list[int]:
    """`1-10,17` as numbers."""
    if not _NUMBERS.fullmatch(text.replace(" ", "")):
        raise click.BadParameter(f"{text!r} is not such as 1-10 or 1,2,17", param_hint=option)
    found: list[int] = []
    for part in text.replace(" ", "").split(","):
        first, _, last = part.partition("-")
        if not int(first) <= int(last or first) <= most:
            raise click.BadParameter(f"{part!r} is not within 0-{most}", param_hint=option)
        found += range(int(first), int(last or first) + 1)
    return list(dict.fromkeys(found))


@probe.command(epilog="Example: dxad probe modbus tcp://192.168.1.20 --ids 1 --expect 21.5 --expect 1450")
@click.argument("url")
@click.option("--ids", metavar="1-10", help="Device ids to ask.  [default: all, as far as there is time]")
@click.option("--range", "span", metavar="0-999", default="0-999", show_default=True, help="Addresses.")
@click.option(
    "--tables", metavar="holding,input,…", help="Of holding, input, coil and discrete.  [default: all]"
)
@click.option(
    "--expect", "expected", type=float, multiple=True, metavar="NUMBER",
    help="A value that a display shows now: where does it stand, and how? Several times.",
)  # fmt: skip
@click.option(
    "--tolerance", type=click.FloatRange(0, 50), default=1.0, show_default=True, metavar="PERCENT",
    help="How far an expected value may be off.",
)  # fmt: skip
@click.option("--for", "span_time", default="60s", show_default=True, metavar="DURATION", help="At most.")
@click.option("--delay", default="5ms", show_default=True, metavar="DURATION", help="Between two questions.")
@click.option("--timeout", default="300ms", show_default=True, metavar="DURATION", help="For an answer.")
@click.option("--thorough", is_flag=True, help="Take every refused block apart, down to single addresses.")
@named("plc")
@into_file
@as_json
def modbus(
    url: str,
    ids: str | None,
    span: str,
    tables: str | None,
    expected: tuple[float, ...],
    tolerance: float,
    span_time: str,
    delay: str,
    timeout: str,
    thorough: bool,
    name: str,
    output: Path | None,
    as_json: bool,
) -> None:
    """Find out what a Modbus device has.

    URL is tcp://host:port, rtu+tcp://host:port, rtu:///dev/…?baudrate=19200&parity=E or ascii:///dev/…, as in
    a configuration. Which ids answer, which addresses each of them has, and what probably stands there; with
    --expect, where a value stands that you see on its display, in which type, order of bytes and scale.

    Nothing is ever written: only the four reading functions are sent, one question at a time. Ctrl-C ends it,
    and prints what was found. A serial line must not be in use by the daemon meanwhile.
    """
    from dxad.commissioning.modbusfindings import device_document, expected_places, modbus_fragment
    from dxad.commissioning.modbusprobe import SPACES, likely_ids
    from dxad.commissioning.registers import Expected, tolerance_of
    from dxad.errors import ConfigError
    from dxad.links.modbusurl import address_of

    try:
        address = address_of(url)
        within_s, delay_s, timeout_s = (
            seconds(given, option)
            for given, option in ((span_time, "--for"), (delay, "--delay"), (timeout, "--timeout"))
        )
    except (ValueError, ConfigError) as error:
        click.echo(f"dxad: {error}", err=True)
        sys.exit(MISTAKE)
    asked = likely_ids(address) if ids is None else _range(ids, 255, "--ids")
    addresses = _range(span, 65_535, "--range")
    spaces = tuple(each for each in SPACES if tables is None or each in tables.split(","))
    if tables is not None and len(spaces) != len(set(tables.split(","))):
        raise click.BadParameter(f"{tables!r}: of {', '.join(SPACES)}", param_hint="--tables")
    wanted = [Expected(each, tolerance_of(each, tolerance)) for each in expected]
    work = _Work(
        address, asked, (addresses[0], addresses[-1]), spaces, thorough=thorough, delay_s=delay_s,
        timeout_s=timeout_s,
    )  # fmt: skip
    found = watch(work.run, within_s)
    places = [expected_places(each, wanted) for each in found]
    names = [name if len(found) == 1 else f"{name}{each.id}" for each in found]
    fragments = [
        modbus_fragment(called, url, each, wanted=wanted, places=where)
        for called, each, where in zip(names, found, places, strict=True)
    ]
    if not as_json:
        for each, where in zip(found, places, strict=True):
            _print(each, wanted, where)
    documents = [
        device_document(each, wanted=wanted, places=where) for each, where in zip(found, places, strict=True)
    ]
    if found:
        hand_over(
            "\n".join(fragments), output, silent=as_json, url=url, asked_ids=work.asked, devices=documents
        )
    elif as_json:
        hand_over("", None, silent=True, url=url, asked_ids=work.asked, devices=[])
    if work.asked < len(asked):
        click.echo(
            f"dxad: the time was enough for {work.asked} of {len(asked)} ids; "
            f"give --for more of it, or name them by --ids",
            err=True,
        )
    if not found:
        why = f"; mostly: {work.why}" if work.why else ""
        click.echo(
            f"dxad: {address}: a connection, but no answer from any of {work.asked} ids{why}", err=True
        )
    reads = any(table.found for each in found for table in each.tables)
    if not reads or (wanted and not any(map(any, places))):
        sys.exit(REFUSED)


class _Work:
    def __init__(
        self,
        address: "Address",
        ids: Sequence[int],
        span: tuple[int, int],
        spaces: Sequence[str],
        *,
        thorough: bool,
        delay_s: float,
        timeout_s: float,
    ) -> None:
        self.asked = 0
        self.why = ""
        """Why there was mostly no answer."""
        self._address = address
        self._ids = ids
        self._span = span
        self._spaces = spaces
        self._thorough = thorough
        self._delay_s = delay_s
        self._timeout_s = timeout_s

    async def run(self, patience: "Patience", shown: Shown) -> "list[Device]":
        from dxad.commissioning.modbusprobe import SPACES, Survey, answering, probing

        spaces = [each for each in SPACES if each in self._spaces]
        async with probing(
            self._address, patience, delay_s=self._delay_s, timeout_s=self._timeout_s
        ) as probe:
            part = patience.part(_ID_SHARE)
            found, self.asked = await answering(probe, self._ids, part, shown)
            surveys = []
            for left, each in zip(range(len(found), 0, -1), found, strict=True):
                part = patience.part(_SECOND_LOOK / left)
                survey = Survey(probe, each, *self._span, patience=part, thorough=self._thorough)
                surveys.append(survey)
                await survey.run(spaces, shown)
            for survey in surveys:
                await survey.again(patience, shown)
            self.why = next((why for why, _ in probe.silences.most_common(1)), "")
        return found


def _print(device: "Device", wanted: "Sequence[Expected]", places: "Sequence[Sequence[Place]]") -> None:
    from rich.console import Console

    from dxad.cli.cells import DIM, table, text

    console = Console()
    console.print()
    console.print(text(f"id {device.id}", "bold"))
    ranges = table("TABLE", "READS", "")
    for each in device.tables:
        refused = ", ".join(f"{first}-{last}" for first, last in each.refused[:4])
        remarks = [each.note] if each.note else []
        remarks += [f"not looked into: {refused}"] if refused else []
        reads = ", ".join(f"{first}-{last}" if first != last else f"{first}" for first, last in each.ranges)
        ranges.add_row(each.space, text(reads or "-"), text("; ".join(remarks), DIM))
    console.print(ranges)
    console.print(_places(wanted, places) if wanted else _values(device))


def _places(wanted: "Sequence[Expected]", places: "Sequence[Sequence[Place]]") -> "Table":
    from dxad.cli.cells import table

    made = table(">EXPECTED", "REGISTER", "ENCODING", "ORDER", ">SCALE", ">VALUE")
    for expected, found in zip(wanted, places, strict=True):
        if not found:
            made.add_row(f"{expected.value:g}", "nowhere", "", "", "", "")
        for place in found:
            match = place.match
            made.add_row(
                f"{expected.value:g}", f"{place.space}:{match.address}", match.encoding, match.order,
                f"{match.scale:g}", f"{match.value:.6g}",
            )  # fmt: skip
    return made


def _values(device: "Device") -> "Table":
    from dxad.cli.cells import DIM, table, text
    from dxad.commissioning.modbusfindings import likely_values, moves

    made = table("REGISTER", "LIKELY", "ORDER", ">VALUE", "")
    shown: dict[str, int] = {}
    for each, guess in likely_values(device):
        shown[each.space] = shown.get(each.space, 0) + 1
        if shown[each.space] <= _VALUES:
            value = guess.value if isinstance(guess.value, str) else f"{guess.value:.6g}"
            kind = "bool" if each.space in {"coil", "discrete"} else guess.encoding
            order = "" if guess.registers == 1 else guess.order
            remark = text("moves" if moves(each, guess) else "", DIM)
            made.add_row(f"{each.space}:{guess.address}", kind, order, text(value), remark)
    for space, number in shown.items():
        if number > _VALUES:
            made.add_row(space, text(f"{number - _VALUES} more; --json tells them all", DIM))
    return made
