"""What a route of the control socket is, what it is asked by, and what it asks.

Nothing here knows of HTTP but the names of methods and the numbers of statuses.
"""

import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol, TypeVar, get_origin

from pydantic import ValidationError

from dxad.alarmsection import Action
from dxad.control.limits import BODY_BYTES
from dxad.control.problem import Refusal
from dxad.fields import Section
from dxad.selection import EVERYTHING, Selection
from dxad.types import Document

__all__ = [
    "Answer",
    "Call",
    "Gateway",
    "Handler",
    "ModelVerb",
    "Route",
    "asked_of",
    "body_of",
    "known",
    "listed",
]

S = TypeVar("S", bound=Section)

ModelVerb = Literal["install", "shadow", "promote", "rollback", "dismiss"]
_METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class OutboxDesk(Protocol):
    """What the outbox lets others see and do.

    Each may raise NotConnected: its disk fails.
    """

    def wanted(
        self,
        *,
        lanes: Sequence[str] = (),
        selection: Selection = EVERYTHING,
        since: int | None = None,
        until: int | None = None,
        sink: str = "",
    ) -> Any:
        """Which records are meant; a time is UTC ns or, below 0, so long ago."""

    def wanted_letters(
        self, *, numbers: Sequence[int] = (), sink: str | None = None, reason: str = ""
    ) -> Any:
        """Which dead letters are meant."""

    async def overview(self) -> Document:
        """Everything in numbers."""

    async def page(self, wanted: Any, *, after: int, limit: int, whole: bool) -> Document:
        """The next of the records that are wanted."""

    def follow(self, wanted: Any, *, after: int | None, lines: int | None) -> AsyncGenerator[Document]:
        """Events as they are stored: `records`, each with `seq` and `event`, `next`, `remark`."""

    async def record(self, id_: str) -> Document | None:
        """One record, whole."""

    async def letters(self, wanted: Any, *, after: int, limit: int, whole: bool) -> Document:
        """The next of the dead letters that are wanted."""

    async def replay(self, sink: str, wanted: Any, *, dry_run: bool) -> Document:
        """Offer a sink again what it has had.

        Raises:
            ConfigError: there is no such sink.
        """

    async def retry(self, wanted: Any) -> Document:
        """Offer dead letters to their sinks again."""

    async def drop(self, wanted: Any) -> Document:
        """Delete dead letters for good."""


class Consumers(Protocol):
    """What agents that lease events may do.

    Each may raise ConfigError, and NotConnected while the disk fails.
    """

    async def lease(
        self, name: str, *, limit: int, lease_ns: int, wait_ns: int, wants: Document | None, oldest: bool,
        uid: int | None,
    ) -> list[Document]:  # fmt: skip
        """Events for a while."""

    def release(self, name: str, tokens: Sequence[str]) -> None:
        """Nobody has heard of these leases."""

    async def ack(self, name: str, tokens: Sequence[str]) -> Document:
        """Done with these."""

    async def nack(self, name: str, tokens: Sequence[str], *, reason: str, delay_ns: int) -> Document:
        """Cannot do these."""

    def extend(self, name: str, tokens: Sequence[str], lease_ns: int) -> Document:
        """Need longer for these."""

    async def drop(self, name: str) -> Document:
        """Keep nothing for it any more."""

    def snapshot(self) -> list[Document]:
        """All of them."""


class Gateway(Protocol):
    """What the daemon lets others see and do."""

    @property
    def consumers(self) -> Consumers:
        """Who leases events."""

    @property
    def outbox(self) -> OutboxDesk:
        """What waits to be delivered."""

    def status(self) -> Document:
        """Everything there is to see."""

    def metrics(self) -> str:
        """Counters and gauges as Prometheus text."""

    def pipelines(self) -> Sequence[str]:
        """The names of all pipelines."""

    def sources(self) -> Sequence[str]:
        """The names of all sources."""

    def source_rows(self, name: str, start: int | None, limit: int) -> Document:
        """Rows of a source from slot `start` on, `limit` at most."""

    def pipeline_rows(self, name: str, start: int | None, limit: int) -> Document:
        """Rows of a pipeline, likewise."""

    async def query(self, pipeline: str, request: Document) -> Document:
        """Answer a DXA request: `success`, `content`, `error`."""

    def learn(self, pipeline: str, span_s: float | None) -> Document:
        """Learn anew what is normal.

        Raises:
            ConfigError: this pipeline does not learn.
        """

    async def models(self, pipeline: str) -> Document:
        """All versions of a pipeline's model, and which of them does what."""

    async def model(self, pipeline: str, verb: ModelVerb, *, path: str = "", version: str = "") -> Document:
        """Change which model counts.

        Raises:
            ModelError: it is refused.
            ConfigError: this pipeline's model has no versions.
        """

    def alarms(self) -> Sequence[Document]:
        """Every alarm, by its `id`."""

    async def act(self, alarm: str, action: Action, for_s: float | None = None) -> Document:
        """Do to an alarm what somebody has decided; returns it as it is then.

        Raises:
            ConfigError: it is in no state for it.
        """

    def incidents(self) -> Sequence[Document]:
        """The incidents that are open and the last that are over, each by its `incident`."""

    async def window(self, incident: str, rows: int | None) -> Document | str | None:
        """The rows around an incident: as JSON with `rows` at most, or all as CSV; None without any."""

    async def reload(self, *, dry_run: bool) -> Document:
        """Take up the configuration as it is on disk now.

        Raises:
            ConfigError: it is refused.
        """


@dataclass(frozen=True, slots=True)
class Call:
    """One request, as far as a route cares."""

    gateway: Gateway
    name: str = ""
    """The `{name}` of the path."""
    body: Document = field(default_factory=dict)
    query: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """What stands behind the `?`, each as often as it was said."""
    resume: str = ""
    """What the client had last of a stream that broke off."""
    uid: int | None = None
    """Whose call it is, as the kernel says."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A JSON object, text, or a stream of text."""

    body: Document | str | AsyncGenerator[bytes]
    status: int = 200
    text_type: str = _METRICS_TYPE
    """What kind of text it is, if it is one."""
    unheard: Callable[[], None] | None = None
    """Is called if the client has gone without it."""


Handler = Callable[[Call], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Route:
    """One row of the table."""

    method: Literal["GET", "POST"]
    path: str
    handler: Handler
    summary: str
    admin: bool = False
    """Whether it changes something."""
    body_bytes: int = BODY_BYTES
    """The longest body it takes."""
    example: Document | None = None
    """A body it takes; None where it wants none."""
    query: type[Section] | None = None
    """What may stand behind the `?`."""
    answers: str = "application/json"
    """The type of what it answers."""

    def match(self, path: str) -> str | None:
        """The name in a path of this route, `""` if the route has none; None for other paths."""
        before, placeholder, after = self.path.partition("{name}")
        found = re.fullmatch(
            re.escape(before) + ("([^/]+)" if placeholder else "()") + re.escape(after), path
        )
        return None if found is None else found[1]


# -- what is asked, checked -------------------------------------------------------------------------------


def asked_of(call: Call, kind: type[S]) -> S:
    """What stands behind the `?`, checked; only what may be many may be said more than once.

    Raises:
        Refusal: it is not what was to be said, 422.
    """
    many = {name for name, each in kind.model_fields.items() if get_origin(each.annotation) is tuple}
    if twice := [key for key, said in call.query.items() if len(said) > 1 and key not in many]:
        raise Refusal(422, f"{', '.join(twice)}: said more than once")
    return _checked({key: said if key in many else said[0] for key, said in call.query.items()}, kind)


def body_of(call: Call, kind: type[S]) -> S:
    """The body, checked."""
    return _checked(call.body, kind)


def _checked(found: Mapping[str, object], kind: type[S]) -> S:
    try:
        return kind.model_validate(dict(found))
    except ValidationError as error:
        told = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
        raise Refusal(422, "; ".join(told)) from error


def known(call: Call, name: object) -> str:
    """The name, if a pipeline has it.

    Raises:
        Refusal: none has, 404.
    """
    names = call.gateway.pipelines()
    if isinstance(name, str) and name in names:
        return name
    raise Refusal(404, f"no pipeline {name!r}; {listed(names)}")


def listed(names: Sequence[str]) -> str:
    """What there is instead, in words."""
    if len(names) == 1:
        return f"there is only {names[0]}"
    return f"there are {', '.join(names)}" if names else "there are none"
