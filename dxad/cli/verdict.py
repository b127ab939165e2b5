"""What a demonstration has shown: the labels of the simulator against the events that arrived."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dxad.types import Document

__all__ = ["Injected", "Verdict", "injected", "judge", "summary"]

_TOP: Final = 3
_SIZE_AT_S: Final = 10.0
_KINDS: Final = {"stuck": "sensor", "source_down": "sensor"}
"""Of the incident that a fault should make, where it is not the process's."""
_LOSSES: Final = ("late", "overflowed", "messages_rejected")


@dataclass(frozen=True, slots=True)
class Injected:
    """The fault, as the simulator labelled it."""

    fault: str
    onset_utc_s: float
    channels: tuple[str, ...]
    size_sd: Mapping[str, float] = field(default_factory=dict)
    """By channel: how far it had moved ten seconds after the onset, in standard deviations of training."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was to be shown, and whether it was."""

    document: Document
    ok: bool


def injected(labels: Sequence[Document], normal: Mapping[str, Sequence[float]]) -> Injected | None:
    """The first fault that began, with its size in the training's own standard deviations.

    Args:
        labels: the lines of the simulator's labels file.
        normal: from the model's manifest, by channel id: mean and standard deviation in training.
    """
    begun = next((each for each in labels if each.get("phase") == "onset"), None)
    if begun is None:
        return None
    effects = [each for each in labels if each["type"] == "effect" and each["since_onset_s"] >= _SIZE_AT_S]
    sizes: dict[str, float] = {}
    for name, effect in (effects[0]["channels"] if effects else {}).items():
        feature = next((each for each in normal if _is_of(each, name)), None)
        if feature is None or not normal[feature][1]:
            continue
        measure = "rms" if feature.endswith(".rms") else "mean"
        moved = effect["actual"][measure] - effect["healthy"][measure]
        sizes[name] = round(moved / normal[feature][1], 2)
    return Injected(begun["fault"], begun["time"], tuple(begun["channels"]), sizes)


def judge(
    *,
    wanted: str,
    status: Document,
    opened: Sequence[Document],
    delivered: int,
    fault: Injected | None,
    duration_s: float,
) -> Verdict:
    """Hold what was found against what was injected.

    Args:
        wanted: the fault that was asked for, or `none`.
        status: the daemon's last status.
        opened: the `incident.opened` events that the receiver acknowledged.
        delivered: events acknowledged in all.
        fault: what the labels say, once it has begun.
        duration_s: of the whole demonstration.
    """
    reasons: list[str] = []
    sources = {name: _source(each) for name, each in status.get("sources", {}).items()}
    reasons += [f"source {name} delivered nothing" for name, each in sources.items() if not each["samples"]]
    lost = _lost(status)
    reasons += [f"lost: {name}: {count}" for name, count in lost.items()]
    onset = float("inf") if fault is None else fault.onset_utc_s
    early = [each for each in opened if _time(each) < onset]
    reasons += [f"an incident was open before the fault: {_top(each)}" for each in early]
    found = next((each for each in opened if _time(each) >= onset), None)
    if wanted != "none":
        if fault is None:
            reasons.append("the fault was never injected")
        elif found is None:
            reasons.append(f"{wanted} was not found")
        elif found["data"]["kind"] != _KINDS.get(wanted, "process"):
            reasons.append(f"{wanted} was taken for a fault of another kind: {found['data']['kind']}")
        elif not _names(found, fault.channels):
            reasons.append(f"the label's channels are not the top contributors: {_top(found)}")
    document: Document = {
        "ok": not reasons,
        "reasons": reasons,
        "duration_s": round(duration_s, 1),
        "sources": sources,
        "injected": None
        if fault is None
        else {
            "fault": fault.fault,
            "onset_utc_s": fault.onset_utc_s,
            "channels": list(fault.channels),
            "size_sd_after_10s": dict(fault.size_sd),
        },
        "found": None
        if found is None
        else {
            "incident": found["subject"],
            "kind": found["data"]["kind"],
            "after_s": round(_time(found) - onset, 1),
            "peak_score": found["data"]["peak_score"],
            "limit": found["data"]["limit"],
            "contributors": found["data"]["contributors"][:_TOP],
        },
        "events_delivered": delivered,
        "lost": lost,
    }
    return Verdict(document, not reasons)


def _is_of(channel: str, label: str) -> bool:
    """Whether a channel of dxad is the labelled one, or a feature of it."""
    return channel == label or channel.startswith(f"{label}.")


def _names(event: Document, label: Sequence[str]) -> bool:
    """Whether the label's channels are among the top contributors; of more than three, no others are."""
    top = [each["channel"] for each in event["data"]["contributors"][:_TOP]]
    if len(label) > _TOP:
        return bool(top) and all(any(_is_of(each, name) for name in label) for each in top)
    return all(any(_is_of(each, name) for each in top) for name in label)


def _top(event: Document) -> str:
    return ", ".join(each["channel"] for each in event["data"]["contributors"][:_TOP])


def _time(event: Document) -> float:
    return datetime.fromisoformat(event["time"]).timestamp()


def _source(snapshot: Document) -> Document:
    return {"rows": snapshot["rows"], "samples": snapshot["samples"], "connected": snapshot["connected"]}


def _lost(status: Document) -> dict[str, int]:
    """Everything that was lost anywhere, by place; nothing, if all is well."""
    lost = {
        f"{name} {kind}": each[kind]
        for name, each in status.get("sources", {}).items()
        for kind in _LOSSES
        if each.get(kind)
    }
    lost |= {
        f"{name} rows": each["lost"] for name, each in status.get("pipelines", {}).items() if each["lost"]
    }
    dropped = status.get("outbox", {}).get("dropped", {})
    return lost | {f"outbox {lane}": count for lane, count in dropped.items() if count}


def summary(verdict: Document) -> RenderableType:
    """The verdict for a person."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    rows = "   ".join(f"{name} {each['rows']:,}" for name, each in verdict["sources"].items())
    table.add_row("rows", rows)
    fault = verdict["injected"]
    if fault is None:
        table.add_row("injected", "nothing")
    else:
        sizes = ", ".join(f"{name} {size:+.1f} σ" for name, size in fault["size_sd_after_10s"].items())
        when = datetime.fromtimestamp(fault["onset_utc_s"]).astimezone().strftime("%H:%M:%S")
        table.add_row("injected", f"{fault['fault']} at {when}" + (f"; after 10 s: {sizes}" if sizes else ""))
    found = verdict["found"]
    if found is None:
        table.add_row("found", "nothing")
    else:
        who = ", ".join(_contribution(each) for each in found["contributors"])
        table.add_row("found", f"{found['kind']} incident after {found['after_s']} s: {who}")
    table.add_row("events", f"{verdict['events_delivered']} delivered and acknowledged")
    lost = ", ".join(f"{name}: {count}" for name, count in verdict["lost"].items())
    table.add_row("lost", lost or "nothing")
    end = (
        Text("✔ shown", style="green")
        if verdict["ok"]
        else Text("✘ " + "; ".join(verdict["reasons"]), style="red")
    )
    table.add_row("verdict", end)
    return Group(Text(f"\ndxad demo, {verdict['duration_s']} s", style="bold"), table)


def _contribution(each: Document) -> str:
    if "trouble" in each:
        return f"{each['channel']} {each['trouble']}"
    deviation = f" {each['deviation_sd']:+.1f} σ" if "deviation_sd" in each else ""
    return f"{each['channel']} {each['share']:.0%}{deviation}"
