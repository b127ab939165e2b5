"""One event on one line, for people."""

from typing import Any, Final

from rich.text import Text

from dxad.cli.cells import DIM, ERROR, WARNING, number, plain
from dxad.types import Document

__all__ = ["line"]

_STYLES: Final = {
    "critical": f"bold {ERROR}",
    "high": ERROR,
    "error": ERROR,
    "medium": WARNING,
    "warning": WARNING,
}
_SEVERITY: Final = 8
_TYPE: Final = 22
_SHOWN_MOST: Final = 5
"""Of the members of what is told, where nothing better is known to say."""


def line(event: Document) -> Text:
    """When, how bad, what, and what of it."""
    data = event.get("data")
    told: Document = data if isinstance(data, dict) else {}
    severity = plain(told.get("severity") or "")
    when = plain(str(event.get("time", "")))[:23].replace("T", " ")
    made = Text(f"{when}  ", style=DIM, no_wrap=True, overflow="ellipsis")
    made.append(f"{severity:{_SEVERITY}}  ", style=_STYLES.get(severity, "not dim"))
    kind = plain(event.get("type") or "unreadable").removeprefix("dxad.")
    made.append(f"{kind:{_TYPE}}  ", style="not dim bold")
    made.append(plain(_gist(event, told)), style="not dim")
    return made


def _gist(event: Document, told: Document) -> str:
    if "incident" in told and "phase" in told:
        return ", ".join(_of_incident(told))
    if "code" in told and "detail" in told:
        return f"{told['code']} {told.get('subject', '')}: {told['detail']}"
    shown = [f"{key} {_short(each)}" for key, each in told.items() if isinstance(each, str | int | float)]
    subject = event.get("subject")
    return ", ".join([*([str(subject)] if subject else []), *shown[:_SHOWN_MOST]])


def _of_incident(told: Document) -> list[str]:
    parts = [str(told.get("pipeline", ""))]
    if isinstance(told.get("peak_score"), int | float):
        parts.append(f"peak {number(told['peak_score'])} over {number(told.get('limit'))}")
    first = told.get("first_out")
    if isinstance(first, dict) and first.get("channel"):
        parts.append(f"first out {first['channel']}")
    if told.get("after_onset_s"):
        parts.append(f"{told['after_onset_s']:.1f} s after its onset")
    return [*parts, str(told["incident"])[:8]]


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
