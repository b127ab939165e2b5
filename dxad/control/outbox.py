"""What the control socket answers about the outbox."""

from typing import Annotated, Final

from pydantic import Field

from dxad.control.problem import Refusal
from dxad.control.route import Answer, Call, Handler, Route, asked_of, body_of
from dxad.errors import ConfigError, NotConnected
from dxad.fields import LaneName, Section
from dxad.moment import Moment
from dxad.selection import Selection
from dxad.types import Document

__all__ = ["OUTBOX_ROUTES"]

_LIMIT_MOST: Final = 500

Names = Annotated[tuple[str, ...], Field(strict=False)]


class _Records(Section, strict=False):
    """What a question for records may hold."""

    after: int = Field(0, description="the seq to go on behind; below 0, so many from the end")
    limit: int = Field(
        50, ge=1, le=_LIMIT_MOST, description="records at most; fewer come where they are large"
    )
    lane: LaneName | None = Field(None, description="without it, all")
    type: str | None = Field(None, description="a pattern, such as dxad.incident.*")
    since: Moment | None = Field(None, description="UTC as RFC 3339 writes it, or a duration: so long ago")
    until: Moment | None = Field(None, description="likewise, and not included")
    sink: str = Field("", description="only what this sink does not have yet")
    whole: bool = Field(False, description="with the event itself")


class _Letters(Section, strict=False):
    """What a question for dead letters may hold."""

    after: int = Field(0, ge=0, description="the number to go on behind")
    limit: int = Field(50, ge=1, le=_LIMIT_MOST, description="dead letters at most")
    sink: str | None = Field(None, description="of this sink alone")
    reason: str = Field("", description="a part of the reason")
    whole: bool = Field(False, description="with the event itself")


class _Chosen(Section):
    """Which dead letters something is done to: one of these at least."""

    numbers: Annotated[tuple[int, ...], Field(strict=False, max_length=_LIMIT_MOST)] = ()
    sink: str | None = None
    reason: str = ""
    all: bool = False

    @property
    def says(self) -> bool:
        """Whether it chooses any."""
        return bool(self.numbers or self.sink is not None or self.reason or self.all)


class _Replay(Section):
    """What the body of `replay` may hold."""

    sink: str
    since: Moment
    until: Moment | None = None
    lanes: Annotated[tuple[LaneName, ...], Field(strict=False)] = ()
    dry_run: bool = False


def _of_the_disk(handler: Handler) -> Handler:
    """Says so where the disk fails."""

    async def handled(call: Call) -> Answer:
        try:
            return await handler(call)
        except NotConnected as error:
            raise Refusal(503, f"the outbox's disk fails: {error}") from error

    return handled


async def _outbox(call: Call) -> Answer:
    status = call.gateway.status()
    return Answer(
        {
            "outbox": status["outbox"],
            "sinks": status["sinks"],
            "overview": await call.gateway.outbox.overview(),
        }
    )


async def _records(call: Call) -> Answer:
    asked, desk = asked_of(call, _Records), call.gateway.outbox
    lanes = () if asked.lane is None else (asked.lane,)
    selection = Selection(types=() if asked.type is None else (asked.type,))
    wanted = desk.wanted(
        lanes=lanes, selection=selection, since=asked.since, until=asked.until, sink=asked.sink
    )
    try:
        return Answer(await desk.page(wanted, after=asked.after, limit=asked.limit, whole=asked.whole))
    except ConfigError as error:
        raise Refusal(404, str(error)) from error


async def _record(call: Call) -> Answer:
    found: Document | None = await call.gateway.outbox.record(call.name)
    if found is None:
        raise Refusal(404, f"no record {call.name!r}: it is none of dxad's, or it has left the outbox")
    return Answer(found)


async def _letters(call: Call) -> Answer:
    asked, desk = asked_of(call, _Letters), call.gateway.outbox
    wanted = desk.wanted_letters(sink=asked.sink, reason=asked.reason)
    return Answer(await desk.letters(wanted, after=asked.after, limit=asked.limit, whole=asked.whole))


def _chosen(verb: str) -> Handler:
    async def does(call: Call) -> Answer:
        asked, desk = body_of(call, _Chosen), call.gateway.outbox
        if not asked.says:
            raise Refusal(422, 'which: give numbers, sink, reason, or {"all": true}')
        wanted = desk.wanted_letters(numbers=asked.numbers, sink=asked.sink, reason=asked.reason)
        return Answer(await (desk.retry(wanted) if verb == "retry" else desk.drop(wanted)))

    return does


async def _replay(call: Call) -> Answer:
    asked, desk = body_of(call, _Replay), call.gateway.outbox
    wanted = desk.wanted(lanes=asked.lanes, since=asked.since, until=asked.until)
    try:
        return Answer(await desk.replay(asked.sink, wanted, dry_run=asked.dry_run))
    except ConfigError as error:
        raise Refusal(404, str(error)) from error


OUTBOX_ROUTES: Final = (
    Route(
        "GET", "/v1/outbox", _of_the_disk(_outbox), "What waits, for whom, since when, and what was dropped."
    ),
    Route(
        "GET", "/v1/outbox/records", _of_the_disk(_records), "Events as they are stored, the oldest first; "
        "`next` is where to go on.", query=_Records,
    ),
    Route("GET", "/v1/outbox/records/{name}", _of_the_disk(_record), "One event by its id."),
    Route(
        "GET", "/v1/outbox/dead_letters", _of_the_disk(_letters), "What a sink refused too often, and why.",
        query=_Letters,
    ),
    Route(
        "POST", "/v1/outbox/dead_letters/retry", _of_the_disk(_chosen("retry")), "Offer dead letters to "
        "their sinks again.", admin=True, example={"numbers": [1]},
    ),
    Route(
        "POST", "/v1/outbox/dead_letters/drop", _of_the_disk(_chosen("drop")), "Delete dead letters for "
        "good.", admin=True, example={"numbers": [1]},
    ),
    Route(
        "POST", "/v1/outbox/replay", _of_the_disk(_replay), "Offer a sink again what it has had since a "
        "time, as far as it is still stored; the ids are the same.", admin=True,
        example={"sink": "reasoning", "since": "2h", "dry_run": True},
    ),
)  # fmt: skip
"""The routes of the outbox."""
