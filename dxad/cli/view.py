"""A status document as a picture of 80 columns: what `dxad status`, `dxad top` and `dxad demo` show.

Pure functions: a document in, something for rich to print out. What a document leaves out is not shown: a
client may be newer or older than its daemon.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dxad.cli.cells import (
    DIM,
    ERROR,
    GOOD,
    WARNING,
    count,
    duration,
    lamp,
    loss,
    number,
    plain,
    table,
    text,
)
from dxad.types import Document

__all__ = ["line", "view"]

_BAR: Final = 24
"""Cells; the limit is a line in the middle."""
_INCIDENTS: Final = 5
_DEVICES: Final = 5
"""Of a source; `--json` and the metrics have them all."""
_TOP: Final = 3
_GAP: Final = Text("")


def view(status: Document, earlier: Document | None = None) -> RenderableType:
    """The whole of it; rates are since `earlier`, or else since the daemon started."""
    parts = (
        _title(status),
        _sources(status, earlier),
        _pipelines(status),
        _incidents(status),
        _deliveries(status),
        _conditions(status),
    )
    shown = [part for part in parts if part is not None]
    return Group(*[each for part in shown for each in (part, _GAP)][:-1])


def line(status: Document) -> str:
    """The same in one line, for a log."""
    down = [name for name, each in _items(status, "sources") if not each.get("connected")]
    scores = [
        f"{name} {number(each.get('score'))}/{number(each.get('limit'))}"
        for name, each in _items(status, "pipelines")
    ]
    incidents = sum(len(each.get("incidents", ())) for _, each in _items(status, "pipelines"))
    waiting = sum(each.get("pending", 0) for _, each in _items(status, "sinks"))
    parts = [
        plain(status.get("state", "?")),
        f"down: {' '.join(down)}" if down else "all sources up",
        *scores,
        f"incidents {incidents}",
        f"outbox {waiting}",
    ]
    return ", ".join(parts)


def _title(status: Document) -> RenderableType:
    memory = status.get("memory", {}).get("resident_bytes")
    facts = [
        f"{plain(status.get('state', '?'))} {duration(status.get('uptime_s'))}",
        plain(status.get("profile", "")),
        "" if memory is None else f"{memory / 2**20:.0f} MiB",
    ]
    left = Text.assemble(
        (f"dxad {plain(status.get('gateway', ''))}", "bold"), f"   {' · '.join(filter(None, facts))}"
    )
    title = Table.grid(expand=True)
    title.add_column(no_wrap=True)
    title.add_column(justify="right", no_wrap=True)
    title.add_row(left, _verdict(status))
    return Group(title, _life(status)) if "boot" in status else title


def _life(status: Document) -> Text:
    """By which clock it dates events, and when it last told that it is alive."""
    beat = status.get("heartbeat") or {}
    every, last = beat.get("every_s"), beat.get("last_s")
    parts = [
        Text(f"boot {plain(status['boot'])[:8]}", style=DIM),
        Text("clock synchronised", style=DIM)
        if status.get("clock_ok")
        else Text("clock not synchronised", style=WARNING),
        Text("no heartbeat" if every is None else f"heartbeat every {duration(every)}", style=DIM),
    ]
    if last is not None:
        parts[-1].append(f", last {duration(last)} ago")
    return Text(" · ", style=DIM).join(parts)


def _verdict(status: Document) -> Text:
    severities = [each.get("severity") for each in status.get("conditions", ())]
    if "error" in severities:
        return Text(f"✘ {count(severities.count('error'), 'error')}", style=f"bold {ERROR}")
    if severities:
        return Text(f"● {count(len(severities), 'warning')}", style=WARNING)
    return Text("● healthy", style=GOOD)


def _sources(status: Document, earlier: Document | None) -> RenderableType | None:
    made = table("  SOURCE", ">AGE", ">SAMPLES/S", ">ROWS", ">LATE", ">REJECTED", ">RETRIES")
    for name, each in _items(status, "sources"):
        rejected = sum(each.get("rejected", {}).values()) + each.get("messages_rejected", 0)
        made.add_row(
            lamp(name, lit=bool(each.get("connected"))),
            duration(each.get("age_s")),
            _rate(name, status, earlier),
            f"{each.get('rows', 0):,}",
            loss(each.get("late", 0)),
            loss(rejected + each.get("overflowed", 0)),
            loss(each.get("disconnects", 0)),
        )
        _add_devices(made, each.get("devices", {}))
    return made if made.row_count else None


def _add_devices(made: Table, devices: Mapping[str, Any]) -> None:
    """A line for each of the first devices of a source, and one for the others: all their samples so far."""
    for name, each in list(devices.items())[:_DEVICES]:
        rejected, late = sum(each.get("rejected", {}).values()), each.get("late", 0)
        samples = f"{each.get('received', 0):,} in all"
        made.add_row(text(f"  └ {plain(name)}", DIM), "", samples, "", loss(late), loss(rejected), "")
    if len(devices) > _DEVICES:
        made.add_row(text(f"  └ and {len(devices) - _DEVICES} more devices", DIM), *[""] * 6)


def _rate(name: str, status: Document, earlier: Document | None) -> str:
    before = {} if earlier is None else earlier.get("sources", {}).get(name, {})
    seconds = status.get("uptime_s", 0.0) - (earlier or {}).get("uptime_s", 0.0)
    samples = status["sources"].get(name, {}).get("samples", 0) - before.get("samples", 0)
    if seconds <= 0 or samples < 0:
        return "-"
    return f"{samples / seconds:,.1f}"


def _pipelines(status: Document) -> RenderableType | None:
    made = table("  PIPELINE", "SCORE", ">", ">LIMIT", "MODEL")
    made.columns[1].min_width = _BAR + 1
    for name, each in _items(status, "pipelines"):
        score, limit = each.get("score"), each.get("limit")
        open_ = bool(each.get("incidents"))
        made.add_row(
            text(f"{'▲' if open_ else ' '} {name}", ERROR if open_ else ""),
            _bar(score, limit),
            number(score),
            number(limit),
            _model(each),
        )
        learning = each.get("learning") or {}
        if learning.get("state", "idle") != "idle":
            made.add_row(Text("  └ learning", style="cyan"), *_progress(learning))
    return made if made.row_count else None


def _model(pipeline: Mapping[str, Any]) -> Text:
    model = pipeline.get("model")
    none = "limits only" if pipeline.get("limits_only") else "none yet"
    told = Text(none, style=DIM) if model is None else text(model.get("version", ""))
    if pipeline.get("lost"):
        told.append(f"  {pipeline['lost']:,} rows lost", style=ERROR)
    return told


def _progress(learning: Document) -> tuple[Text, str, str, Text]:
    rows, wanted = learning.get("rows") or 0, learning.get("of_rows") or 0
    done = min(1.0, rows / wanted) if wanted else 0.0
    full = round(done * (_BAR + 1))
    bar = Text.assemble(("█" * full, "cyan"), ("░" * (_BAR + 1 - full), DIM))
    if learning["state"] == "recording":
        return bar, f"{done:.0%}", "", Text(f"{rows:,} of {wanted:,} rows")
    return bar, "", "", text(learning["state"])


def _bar(score: float | None, limit: float | None) -> Text:
    """How far a score is on its way to the limit, which is the line in the middle."""
    if score is None or not limit:
        return Text("░" * (_BAR + 1), style=DIM)
    middle = _BAR // 2
    full = round(min(score / limit, 2.0) * middle)
    cells = "█" * full + "░" * (_BAR - full)
    bar = Text(f"{cells[:middle]}│{cells[middle:]}")
    edge = full + (full > middle)
    bar.stylize(ERROR if score > limit else GOOD, 0, edge)
    bar.stylize(DIM, max(edge, middle + 1))
    return bar


def _incidents(status: Document) -> RenderableType | None:
    pipelines = _items(status, "pipelines")
    if not pipelines:
        return None
    found = [(name, each) for name, pipeline in pipelines for each in pipeline.get("incidents", ())]
    total = sum(each.get("incidents_total", 0) for _, each in pipelines)
    alarms = _alarms(each.get("alarms", {}) for _, each in pipelines)
    if not found:
        return Text(f"  no incident is open, {total} since the start{alarms}", style=DIM)
    parts: list[RenderableType] = []
    for name, incident in found[:_INCIDENTS]:
        parts += [_incident(name, incident), _contributors(incident, _TOP if len(found) <= 2 else 1)]
    if len(found) > _INCIDENTS:
        parts.append(Text(f"  … and {len(found) - _INCIDENTS} more"))
    if alarms:
        parts.append(Text(f"  alarms{alarms.replace(';', ':', 1)}", style=DIM))
    return Group(*parts)


def _alarms(pipelines: Iterable[Mapping[str, int]]) -> str:
    """What there is to know of alarms that are not plain normal."""
    sums: Counter[str] = Counter()
    for each in pipelines:
        sums.update(each)
    names = ("active", "unacknowledged", "shelved", "out_of_service")
    told = [f"{sums[name]} {name.replace('_', ' ')}" for name in names if sums[name]]
    return f"; {', '.join(told)}" if told else ""


def _incident(pipeline: str, incident: Document) -> Text:
    facts = f"{incident.get('kind', '')} incident, {incident.get('severity', '')}"
    return Text.assemble(
        ("▲ ", ERROR),
        (plain(pipeline), f"bold {ERROR}"),
        f"  {plain(facts)}, for {duration(incident.get('for_s'))}",
        f", peak {number(incident.get('peak_score'))}",
    )


def _contributors(incident: Document, most: int) -> RenderableType:
    made = table()
    for each in incident.get("contributors", ())[:most]:
        deviation = each.get("deviation_sd")
        made.add_row(
            text(f"    {each.get('channel', '')}"),
            text(each["trouble"], WARNING) if "trouble" in each else f"{each.get('share', 0.0):.0%}",
            text(_seen(each)),
            "" if deviation is None else f"{deviation:+.1f} σ",
        )
    return made


def _seen(contributor: Document) -> str:
    if "seen" not in contributor:
        return ""
    typical = f", typically {contributor['typical']:.4g}" if "typical" in contributor else ""
    return f"{contributor['seen']:.4g} {contributor.get('unit', '')}".rstrip() + typical


def _deliveries(status: Document) -> RenderableType | None:
    made = table("  SINK", ">DELIVERED", ">PENDING", ">REFUSED")
    for name, each in _items(status, "sinks"):
        made.add_row(
            lamp(name, lit=bool(each.get("up"))),
            f"{each.get('delivered', 0):,}",
            f"{each.get('pending', 0):,}",
            loss(each.get("refused", 0)),
        )
    parts: list[RenderableType] = [made] if made.row_count else []
    sent = table("  TELEMETRY", ">RECORDS", ">BYTES", ">LAG", ">ROWS LOST")
    for name, each in _items(status, "telemetry"):
        sent.add_row(
            f"  {name}",
            f"{each['records']:,}",
            f"{each['bytes']:,}",
            f"{each['lag_s']:.1f} s",
            loss(each["rows_lost"]),
        )
    parts += [sent] if sent.row_count else []
    if "outbox" in status:
        parts.append(_outbox(status["outbox"]))
    return Group(*parts) if parts else None


def _outbox(outbox: Document) -> Text:
    dropped = sum(outbox.get("dropped", {}).values())
    told = Text(f"  outbox: {sum(outbox.get('stored', {}).values()):,} stored")
    for name, style in (("in_memory", WARNING), ("dead_letters", ERROR)):
        if outbox.get(name):
            told.append(f", {outbox[name]:,} {name.replace('_', ' ')}", style=style)
    told.append(f", {dropped:,} dropped", style=ERROR if dropped else "")
    told.append(f", {outbox.get('bytes', 0) / 2**20:.1f} of {outbox.get('max_bytes', 0) / 2**20:.0f} MiB")
    if (written := outbox.get("written_per_day")) is not None:
        worn = bool(outbox.get("wear_budget")) and written > outbox["wear_budget"]
        told.append(f", {written / 2**20:,.0f} MiB/day", style=WARNING if worn else "")
    return told


def _conditions(status: Document) -> RenderableType | None:
    grid = Table.grid(padding=(0, 1))
    for each in status.get("conditions", ()):
        style = ERROR if each.get("severity") == "error" else WARNING
        head = f"{each.get('code', '')} {each.get('subject', '')}"
        told = Text.assemble(
            (plain(head), style), f", {duration(each.get('for_s'))}: {plain(each.get('detail', ''))}"
        )
        grid.add_row(Text("✘" if style == ERROR else "●", style=style), told)
    return grid if grid.row_count else None


def _items(status: Document, key: str) -> list[tuple[str, Mapping[str, Any]]]:
    """The sources, pipelines or sinks, by name."""
    return [(plain(name), each) for name, each in status.get(key, {}).items()]
