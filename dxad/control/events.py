"""What the control socket tells of events as they come: for looking, without a lease.

Leases are asked for, with a long poll: whoever asks has room for what comes, while what is written into a
stream may lie in a buffer until its lease has ended.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Final, Literal

from pydantic import Field

from dxad.control.eventstream import CONTENT_TYPE, RETRY, encode
from dxad.control.problem import Refusal
from dxad.control.route import Answer, Call, Route, asked_of
from dxad.errors import NotConnected
from dxad.fields import LaneName, Section
from dxad.moment import Moment
from dxad.selection import Selection
from dxad.types import Document

__all__ = ["EVENT_ROUTES"]

_LINES_MOST: Final = 10_000

_Severity = Literal["low", "medium", "high", "critical", "warning", "error"]
_Patterns = Annotated[tuple[str, ...], Field(strict=False)]


class _Looking(Section, strict=False):
    """What a question for events as they come may hold; what may be many is said once for each."""

    lane: Annotated[tuple[LaneName, ...], Field(strict=False)] = Field(
        ("critical", "normal"), description="of these lanes"
    )
    type: _Patterns = Field((), description="patterns of types, such as dxad.incident.*")
    severity: Annotated[tuple[_Severity, ...], Field(strict=False)] = Field(
        (), description="of these severities; warning and error are those of conditions"
    )
    subject: _Patterns = Field((), description="patterns of subjects")
    source: _Patterns = Field((), description="patterns of where events come from")
    pipeline: _Patterns = Field((), description="patterns of pipelines' names")
    since: Moment | None = Field(
        None, description="not what is older: UTC as RFC 3339 writes it, or a duration"
    )
    lines: int | None = Field(
        None,
        ge=0,
        le=_LINES_MOST,
        description="begin with so many that are stored; default: all `since` then, or none",
    )
    after: int | None = Field(
        None, ge=0, description="go on behind this id; the header Last-Event-ID counts more"
    )


async def _events(call: Call) -> Answer:
    asked, desk = asked_of(call, _Looking), call.gateway.outbox
    wanted = desk.wanted(
        lanes=asked.lane,
        selection=Selection(asked.type, asked.severity, asked.subject, asked.source, asked.pipeline),
        since=asked.since,
    )
    pages = desk.follow(wanted, after=_resumed(call.resume, asked.after), lines=asked.lines)
    try:
        first = await anext(pages)
    except NotConnected as error:
        raise Refusal(503, f"the outbox's disk fails: {error}") from error
    return Answer(_stream(first, pages), text_type=CONTENT_TYPE)


def _resumed(id_: str, after: int | None) -> int | None:
    if not id_:
        return after
    if not id_.isdecimal():
        raise Refusal(422, f"Last-Event-ID {id_!r} is none of dxad's: those are numbers")
    return int(id_)


async def _stream(first: Document, pages: AsyncGenerator[Document]) -> AsyncGenerator[bytes]:
    async with aclosing(pages):
        yield RETRY + encode(first)
        async for page in pages:
            yield encode(page)


EVENT_ROUTES: Final = (
    Route(
        "GET", "/v1/events", _events, "Events as they are stored, as Server-Sent Events, for looking: "
        "nothing is leased or kept. With Last-Event-ID it goes on where it broke off.",
        query=_Looking, answers=CONTENT_TYPE,
    ),
)  # fmt: skip
"""The routes of events as they come."""
