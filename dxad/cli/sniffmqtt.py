"""`dxad sniff mqtt://…`."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, cast

import click

from dxad.cli.live import Shown, hand_over, seconds, watch
from dxad.cli.login import Account
from dxad.cli.options import MISTAKE, REFUSED

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from dxad.commissioning import Patience
    from dxad.commissioning.topics import Topic

__all__ = ["sniff_mqtt"]

_BYTES_MOST: Final = 256 * 2**20
_SHOWN: Final = 200
_FIELDS: Final = 12
"""Of each topic, in the table."""


def sniff_mqtt(
    url: str,
    span: str,
    account: Account,
    *,
    version: str | None,
    tls: Mapping[str, str | Path | None],
    topics: int,
    name: str,
    output: Path | None,
    as_json: bool,
) -> None:
    """Listen to a broker, print what came, and propose sources."""
    from dxad.commissioning.mqttfindings import mqtt_fragment, topic_document
    from dxad.commissioning.mqttlisten import broker_of, listen
    from dxad.commissioning.topics import Tally
    from dxad.errors import ConfigError
    from dxad.links.tls import TlsSection

    given = {key: value for key, value in tls.items() if value is not None}
    try:
        broker = broker_of(url)
        within_s = seconds(span, "--for")
    except ConfigError as error:
        click.echo(f"dxad: {error}", err=True)
        sys.exit(MISTAKE)
    if given and broker.scheme == "mqtt":
        raise click.UsageError("mqtt:// is not encrypted: --ca and its kin are for mqtts://")
    tally = Tally(topics_most=topics, bytes_most=_BYTES_MOST)

    async def work(patience: "Patience", shown: Shown) -> str:
        return await listen(
            broker, tally, patience=patience, watcher=shown, username=account.user,
            password=account.password, tls=TlsSection.model_validate(given),
            version=cast("Literal['5', '3.1.1'] | None", version),
        )  # fmt: skip

    spoken = watch(work, within_s)
    found = tally.judged()
    login: dict[str, Any] = account.keys
    if given:
        login["tls"] = {key: str(value) for key, value in given.items()}
    text = mqtt_fragment(name, broker.url, login, found, version=spoken)
    if not as_json:
        _print(found, tally.others)
    hand_over(
        text, output, silent=as_json, url=broker.url, filter=broker.filter, version=spoken,
        messages=tally.messages, messages_without_room=tally.others,
        topics=[topic_document(each) for each in found],
    )  # fmt: skip
    if not found:
        click.echo(f"dxad: nothing came on {broker.filter} within {span}", err=True)
        sys.exit(REFUSED)


def _print(found: "Sequence[Topic]", others: int) -> None:
    from rich.console import Console

    from dxad.cli.cells import DIM, text

    console = Console()
    console.print(_topics(found))
    if len(found) > _SHOWN:
        console.print(text(f"and {len(found) - _SHOWN} more topics; --json tells them all", DIM))
    if others:
        console.print(text(f"{others:,} messages of further topics: see --topics, or narrow the filter", DIM))


def _topics(found: "Sequence[Topic]") -> "Table":
    from dxad.cli.cells import DIM, duration, table, text

    made = table("TOPIC", ">MESSAGES", ">EVERY", "PAYLOAD", "FIELD", ">FROM", ">TO", "")
    for each in found[:_SHOWN]:
        payload = each.payload
        kind = payload.kind if payload.samples == 1 else f"{payload.kind} × {payload.samples}"
        remark = "retained" if each.retained == each.count else ""
        first: list[RenderableType] = [
            text(each.name),
            f"{each.count:,}",
            duration(each.interval_s),
            text(kind),
        ]
        rows = [_field(field, payload.time) for field in payload.fields[:_FIELDS]] or [("", "", "", "")]
        for cells in rows:
            path, low, high, told = cells
            made.add_row(*first, text(path), low, high, text(", ".join(filter(None, (told, remark))), DIM))
            first, remark = [text("")] * 4, ""
        if len(payload.fields) > _FIELDS:
            made.add_row(*first, text(f"and {len(payload.fields) - _FIELDS} more", DIM))
    return made


def _field(field: Any, time: str | None) -> tuple[str, str, str, str]:
    if field.kind == "number":
        told = "a time" if field.path == time else ""
        return field.path, f"{field.low:.6g}", f"{field.high:.6g}", told
    return field.path, "", str(field.last), field.kind
