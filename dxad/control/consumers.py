"""What agents ask of the control socket that lease events, and say when they are done with each."""

from typing import Annotated, Final, Literal

from pydantic import Field

from dxad.alarmsection import Severity
from dxad.control.problem import Refusal
from dxad.control.route import Answer, Call, Handler, Route, body_of
from dxad.errors import ConfigError, NotConnected
from dxad.fields import Duration, Identifier, LaneName, Section
from dxad.types import NS_PER_S

__all__ = ["CONSUMER_ROUTES"]

_LEASE_LEAST, _LEASE_MOST = NS_PER_S, 3600 * NS_PER_S
_WAIT_MOST: Final = 60 * NS_PER_S
_LIMIT_MOST: Final = 100
_TOKENS_MOST: Final = 1000

_LeaseTime = Annotated[Duration, Field(ge=_LEASE_LEAST, le=_LEASE_MOST)]
_Tokens = Annotated[tuple[str, ...], Field(strict=False, min_length=1, max_length=_TOKENS_MOST)]


class _Lease(Section):
    """What the body of `lease` may hold."""

    limit: int = Field(10, ge=1, le=_LIMIT_MOST)
    lease: _LeaseTime = 30 * NS_PER_S
    wait: Annotated[Duration, Field(le=_WAIT_MOST)] = 0
    start: Literal["oldest", "now"] = "oldest"
    lanes: Annotated[tuple[LaneName, ...], Field(strict=False, min_length=1)] | None = None
    types: Annotated[tuple[str, ...], Field(strict=False, min_length=1)] | None = None
    severities: Annotated[tuple[Severity, ...], Field(strict=False)] | None = None
    pipelines: Annotated[tuple[str, ...], Field(strict=False)] | None = None
    subjects: Annotated[tuple[str, ...], Field(strict=False)] | None = None
    sources: Annotated[tuple[str, ...], Field(strict=False)] | None = None


class _Done(Section):
    """What the body of `ack` has to hold."""

    leases: _Tokens


class _Back(_Done):
    """What the body of `nack` may hold."""

    reason: str = Field(max_length=500)
    delay: Annotated[Duration, Field(le=_LEASE_MOST)] = 0


class _Longer(_Done):
    """What the body of `extend` may hold."""

    lease: _LeaseTime = 30 * NS_PER_S


class _Name(Section):
    """A consumer's name."""

    name: Identifier


class _Nothing(Section):
    """A body without anything in it."""


def _told(handler: Handler) -> Handler:
    """Says what is wrong: 404 for no such consumer, 409 for too many, 503 while the disk fails."""

    async def handled(call: Call) -> Answer:
        try:
            return await handler(call)
        except ConfigError as error:
            raise Refusal(404 if str(error).startswith("no consumer") else 409, str(error)) from error
        except NotConnected as error:
            raise Refusal(503, f"the outbox's disk fails: {error}") from error

    return handled


async def _lease(call: Call) -> Answer:
    asked = body_of(call, _Lease)
    try:
        _Name(name=call.name)
    except ValueError as error:
        raise Refusal(422, "a consumer's name has letters, digits, _ and -, 64 at most") from error
    wants = {
        key: list(value)
        for key in ("lanes", "types", "severities", "pipelines", "subjects", "sources")
        if (value := getattr(asked, key)) is not None
    }
    events = await call.gateway.consumers.lease(
        call.name, limit=asked.limit, lease_ns=asked.lease, wait_ns=asked.wait, wants=wants or None,
        oldest=asked.start == "oldest", uid=call.uid,
    )  # fmt: skip

    def unheard() -> None:
        call.gateway.consumers.release(call.name, [each["lease"] for each in events])

    return Answer({"events": events}, unheard=unheard if events else None)


async def _ack(call: Call) -> Answer:
    return Answer(await call.gateway.consumers.ack(call.name, body_of(call, _Done).leases))


async def _nack(call: Call) -> Answer:
    asked = body_of(call, _Back)
    return Answer(
        await call.gateway.consumers.nack(call.name, asked.leases, reason=asked.reason, delay_ns=asked.delay)
    )


async def _extend(call: Call) -> Answer:
    asked = body_of(call, _Longer)
    return Answer(call.gateway.consumers.extend(call.name, asked.leases, asked.lease))


async def _consumers(call: Call) -> Answer:
    return Answer({"consumers": call.gateway.consumers.snapshot()})


async def _drop(call: Call) -> Answer:
    body_of(call, _Nothing)
    return Answer(await call.gateway.consumers.drop(call.name))


CONSUMER_ROUTES: Final = (
    Route("GET", "/v1/consumers", _told(_consumers), "Who leases events, and how far each is."),
    Route(
        "POST", "/v1/consumers/{name}/lease", _told(_lease), "Events for a while, as soon as there are any "
        "within `wait`; a consumer is made at its first call.",
        example={"limit": 10, "lease": "30s", "wait": "0s", "types": ["dxad.incident.*"]},
    ),
    Route(
        "POST", "/v1/consumers/{name}/ack", _told(_ack), "Done with these: they are not given out again.",
        example={"leases": ["token"]},
    ),
    Route(
        "POST", "/v1/consumers/{name}/nack", _told(_nack), "Cannot do these: they come back, after a delay, "
        "or end as dead letters.", example={"leases": ["token"], "reason": "busy", "delay": "10s"},
    ),
    Route(
        "POST", "/v1/consumers/{name}/extend", _told(_extend), "Need longer for these.",
        example={"leases": ["token"], "lease": "60s"},
    ),
    Route(
        "POST", "/v1/consumers/{name}/drop", _told(_drop), "Keep nothing for a consumer any "
        "more.", admin=True, example={},
    ),
)  # fmt: skip
"""The routes of pull consumers."""
