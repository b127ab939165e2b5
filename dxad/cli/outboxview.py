"""Pictures of the outbox: pure functions from what a daemon or its file says to what rich prints.

What a document leaves out is not shown: a file knows less than a daemon.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dxad.cli.cells import DIM, ERROR, GOOD, WARNING, count, duration, lamp, loss, plain, table, text
from dxad.types import Document

__all__ = ["letters_table", "overview", "records_table", "sentence"]

_BAR: Final = 24
_MIB: Final = 2**20


def overview(told: Document, *, now_utc: int, most: Mapping[str, int]) -> RenderableType:
    """All of it; `most` is the largest backlog of each sink seen so far, which the bars are held against."""
    found = told["overview"]
    parts: list[RenderableType] = [_lanes(told, found, now_utc)]
    if found["sinks"]:
        parts += ["", *_sinks(told, found, now_utc, most)]
    if found["dead_letters"]:
        parts += ["", _dead(found["dead_letters"])]
    if "outbox" in told:
        parts += ["", _file(told["outbox"])]
    return Group(*parts)


def _lanes(told: Document, found: Document, now_utc: int) -> Table:
    box = told.get("outbox", {})
    made = table("LANE", ">STORED", ">DELIVERED, KEPT", ">MIB", ">OLDEST", ">DROPPED", "")
    for lane, each in found["lanes"].items():
        limits = box.get("limits", {}).get(lane, {})
        reasons = [
            f"{drop['records']:,} by {drop['reason']}"
            for drop in box.get("dropped_for", ())
            if drop["lane"] == lane
        ]
        made.add_row(
            text(lane),
            f"{each['stored']:,}",
            f"{each['delivered']:,}",
            _mib(each["bytes"], limits.get("max_bytes")),
            _age(each["oldest_utc_ns"], now_utc),
            loss(box.get("dropped", {}).get(lane, 0)) if box else "-",
            text(", ".join(reasons), DIM),
        )
    return made


def _sinks(
    told: Document, found: Document, now_utc: int, most: Mapping[str, int]
) -> Iterable[RenderableType]:
    live: Document = told.get("sinks", {})
    made = table("SINK", ">WAITING", ">REFUSED", ">OLDEST", ">A SECOND", "")
    for name, each in found["sinks"].items():
        deliver: Document = live.get(name, {})
        bar: RenderableType = ""
        if each["pending"] and most.get(name):
            bar = ProgressBar(
                total=most[name], completed=most[name] - each["pending"], width=_BAR, complete_style=GOOD
            )
        made.add_row(
            lamp(plain(name), lit=bool(deliver.get("up"))) if deliver else text(f"  {name}"),
            f"{each['pending']:,}",
            loss(each["refused"]),
            _age(each["oldest_utc_ns"], now_utc),
            f"{deliver['going_per_s']:.1f}" if "going_per_s" in deliver else "-",
            bar,
        )
    yield made
    for name, each in found["sinks"].items():
        line = sentence(name, each, live.get(name), now_utc=now_utc)
        yield Padding(Text(plain(line), DIM), (0, 0, 0, 2))  # a reason is of use as a whole alone


def sentence(name: str, waiting: Document, deliver: Document | None, *, now_utc: int) -> str:
    """How a sink or a consumer is doing, for people."""
    n = waiting["pending"]
    if not n:
        told = f"{name}: has everything"
        if deliver and not deliver.get("up") and deliver.get("reason"):
            told += f", but is not there: {deliver['reason']}"
        return told
    noun = "event waits" if n == 1 else "events wait"
    told = f"{name}: {n:,} {noun}"
    if waiting["oldest_utc_ns"] is not None:
        told += f", the oldest since {_age(waiting['oldest_utc_ns'], now_utc)}"
    if waiting.get("leased"):
        told += f"; {waiting['leased']:,} are out on lease or came back"
    if deliver is None:
        return told
    why = deliver.get("waits_for") or deliver.get("reason")
    if why:
        told += f": {why}"
    left_s = deliver.get("drained_in_s")
    if left_s:
        told += f"; as it goes, it has all of them in {duration(left_s)}"
    if deliver.get("replayed"):
        told += f"; {deliver['replayed']:,} are offered once more after that"
    return told


def _dead(letters: Iterable[Document]) -> Table:
    made = table(">DEAD LETTERS", "SINK", "REASON")
    for each in letters:
        made.add_row(
            loss(each["records"]), text(each["sink"] or "-"), text(each["reason"] or "no reason was given")
        )
    return made


def _file(box: Document) -> RenderableType:
    parts = [
        f"{box.get('bytes', 0) / _MIB:.1f} of {box.get('max_bytes', 0) / _MIB:.0f} MiB",
    ]
    if box.get("written_per_day"):
        parts.append(f"{box['written_per_day'] / _MIB:,.0f} MiB written in a day")
    told = Text("  " + ", ".join(parts), style=DIM)
    if box.get("in_memory") and box.get("degraded"):
        told.append(f"\n  {count(box['in_memory'], 'record')} in memory only", style=WARNING)
    elif box.get("in_memory"):
        told.append(f"\n  {count(box['in_memory'], 'record')} on the way to the disk", style=DIM)
    if box.get("degraded"):
        told.append(f"\n  the disk does not take anything: {plain(box['degraded'])}", style=ERROR)
    if box.get("set_aside"):
        told.append(f"\n  a damaged file was set aside: {plain(box['set_aside'])}", style=WARNING)
    return told


def records_table(records: Iterable[Document]) -> Table:
    """Events, one a line."""
    made = table(">SEQ", "TIME", "LANE", "TYPE", "SUBJECT", "ID", ">BYTES", "WHO LACKS IT")
    for each in records:
        owed = [f"{sink} ({how})" if how != "waiting" else sink for sink, how in each["owed"].items()]
        made.add_row(
            str(each["seq"]),
            text(each["time"][:23].replace("T", " ")),
            text(each["lane"]),
            text(each["type"].removeprefix("dxad.") or "unreadable"),
            text(each["subject"]),
            text(each["id"]),
            f"{each['bytes']:,}",
            text(", ".join(owed) or "-"),
        )
    return made


def letters_table(letters: Iterable[Document]) -> Table:
    """Dead letters, one a line."""
    made = table(">NUMBER", "GIVEN UP", "SINK", "TYPE", "ID", ">TRIES", "REASON")
    for each in letters:
        made.add_row(
            str(each["number"]),
            text(each["at"][:19].replace("T", " ")),
            text(each["sink"] or "-"),
            text(each["type"].removeprefix("dxad.") or "-"),
            text(each["id"]),
            str(each["attempts"]) if each["attempts"] else "-",
            text(each["reason"]),
        )
    return made


def _mib(size: int, most: Any) -> str:
    told = f"{size / _MIB:.1f}"
    return told if most is None else f"{told} of {most / _MIB:.0f}"


def _age(utc_ns: int | None, now_utc: int) -> str:
    return "-" if utc_ns is None else duration(max(0.0, (now_utc - utc_ns) / 1e9))
