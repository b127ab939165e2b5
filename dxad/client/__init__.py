"""The control socket from the other side: a client of a running daemon, for asyncio and without.

async with Client("unix:///run/dxad/control.sock") as client:
    print((await client.status())["state"])

SyncClient("/run/dxad/control.sock").learn("pump", span="20s")
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeVar
from urllib.parse import quote, urlsplit

import aiohttp
import orjson

from dxad.client.consumers import ConsumersClient
from dxad.client.outbox import OutboxClient
from dxad.client.tail import Tail
from dxad.errors import ConfigError, RequestRefusedError, ResourceUnavailableError
from dxad.types import Document

__all__ = ["DEFAULT_SOCKET", "Client", "SyncClient"]

T = TypeVar("T")

DEFAULT_SOCKET: Final = Path("/run/dxad/control.sock")

_TIMEOUT_S: Final = 10.0
_QUERY_TIMEOUT_S: Final = 75.0
"""A query may wait a minute for rows."""
_SILENCE_S: Final = 45.0
"""A stream that says nothing for so long is dead: the daemon gives a sign of life each 15 s."""
_JSON: Final = {"Content-Type": "application/json"}


class Client:
    """A daemon, by its control socket; it is connected to anew for each request, so that it may restart."""

    def __init__(self, address: str | Path = DEFAULT_SOCKET, *, timeout_s: float = _TIMEOUT_S) -> None:
        """Speak to the socket at `address`, a path or `unix:///path`.

        Raises:
            ConfigError: the address is another kind of url.
        """
        self.path = _path(address)
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None
        self.outbox = OutboxClient(self._document, patience_s=_QUERY_TIMEOUT_S)
        """What waits to be delivered."""
        self.consumers = ConsumersClient(self._document, patience_s=_QUERY_TIMEOUT_S)
        """Leases events."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of what requests have needed; safe twice."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def status(self) -> Document:
        """Everything there is to see.

        Raises:
            ResourceUnavailableError: the daemon does not answer; so for each request.
        """
        return await self._document("GET", "/v1/status")

    async def metrics(self) -> str:
        """Counters and gauges as Prometheus text."""
        return (await self._ask("GET", "/metrics")).decode()

    async def query(self, pipeline: str, request: Document) -> Document:
        """Ask a pipeline, see `dxad.query`; the answer has `success`, `content` and `error`.

        Raises:
            RequestRefusedError: there is no such pipeline.
        """
        timeout_s = max(self._timeout_s, _QUERY_TIMEOUT_S)
        return await self._document("POST", _of(pipeline, "query"), request, timeout_s=timeout_s)

    async def learn(self, pipeline: str, span: str | None = None) -> Document:
        """Have a pipeline learn anew what is normal, from the rows of the next `span`, for example `"20s"`.

        Raises:
            RequestRefusedError: we may not, or the pipeline is not there or does not learn.
        """
        return await self._document("POST", _of(pipeline, "learn"), {} if span is None else {"span": span})

    async def models(self, pipeline: str) -> Document:
        """The versions of a pipeline's model, and which of them does what."""
        return await self._document("GET", _of(pipeline, "models"))

    async def model(self, pipeline: str, verb: str, *, path: str = "", version: str = "") -> Document:
        """Change which model counts: install, shadow, promote, rollback or dismiss.

        The answer's `in_force` is false where no row came within a second: it is done with the next one.

        Raises:
            RequestRefusedError: we may not, or the model is refused, 409: nothing has changed.
        """
        body = {key: value for key, value in (("path", path), ("version", version)) if value}
        return await self._document("POST", _of(pipeline, f"models/{verb}"), body, timeout_s=_QUERY_TIMEOUT_S)

    async def alarms(self) -> list[Document]:
        """Every alarm, as it stands."""
        found: list[Document] = (await self._document("GET", "/v1/alarms"))["alarms"]
        return found

    async def act(self, alarm: str, action: str, *, for_: str | None = None) -> Document:
        """Do to an alarm what somebody has decided; returns it as it is then.

        Args:
            alarm: its id, such as `pump.score`.
            action: `ack`, `shelve`, `unshelve`, `out_of_service` or `in_service`.
            for_: how long it is shelved, for example `"1h"`.

        Raises:
            RequestRefusedError: we may not, there is no such alarm, or it is in no state for it.
        """
        path = f"/v1/alarms/{quote(alarm, safe='')}/{quote(action, safe='')}"
        return await self._document("POST", path, {} if for_ is None else {"for": for_})

    async def incidents(self) -> list[Document]:
        """The incidents that are open, and the last 100 that are over."""
        found: list[Document] = (await self._document("GET", "/v1/incidents"))["incidents"]
        return found

    async def incident(self, incident: str) -> Document:
        """All that was told of an incident.

        Raises:
            RequestRefusedError: there is none of this id.
        """
        return await self._document("GET", f"/v1/incidents/{quote(incident, safe='')}")

    async def window(self, incident: str, *, rows: int = 500) -> Document:
        """The rows around an incident that is over, `rows` at most.

        Raises:
            RequestRefusedError: none are stored, or not yet.
        """
        return await self._document("GET", f"/v1/incidents/{quote(incident, safe='')}/window?rows={rows}")

    async def window_csv(self, incident: str) -> str:
        """All rows that are stored, as CSV."""
        return (
            await self._ask("GET", f"/v1/incidents/{quote(incident, safe='')}/window?format=csv")
        ).decode()

    async def reload(self, *, dry_run: bool = False) -> Document:
        """Have the daemon take up its configuration as it is on disk now, or only say what would change.

        Raises:
            RequestRefusedError: we may not, or the configuration is refused, 422: nothing has changed.
        """
        return await self._document("POST", "/v1/reload", {"dry_run": dry_run}, timeout_s=_QUERY_TIMEOUT_S)

    async def rows(
        self,
        kind: Literal["sources", "pipelines"],
        name: str,
        *,
        start: int | None = None,
        limit: int = 10_000,
    ) -> Document:
        """Rows of a source or a pipeline from slot `start` on, see `dxad.excerpt`; `next` is where to go on.

        Raises:
            RequestRefusedError: there is no such source or pipeline.
        """
        begin = "" if start is None else f"from={start}&"
        return await self._document("GET", f"/v1/{kind}/{quote(name, safe='')}/rows?{begin}limit={limit}")

    def tail(
        self,
        *,
        lanes: Sequence[str] = (),
        types: Sequence[str] = (),
        severities: Sequence[str] = (),
        subjects: Sequence[str] = (),
        sources: Sequence[str] = (),
        pipelines: Sequence[str] = (),
        since: str | None = None,
        lines: int | None = None,
        after: int | None = None,
        retry: bool = False,
        told: Callable[[str], None] | None = None,
    ) -> Tail:
        """Events as they come, as CloudEvents, for looking: `async for event in client.tail()`.

        Args:
            lanes: of these; critical and normal if none is named.
            types: patterns, as those that follow but for severities: one of each has to fit.
            severities: of incidents, alarms and conditions.
            subjects: what they are about.
            sources: where they come from, such as `/plant7-gw3/pipelines/*`.
            pipelines: pipelines' names.
            since: not what is older; `"2h"` ago, or a time as RFC 3339 writes it.
            lines: begin with so many that are stored; None: with all since then, or with none.
            after: go on behind this place, the `place` of an earlier one.
            retry: connect again when the daemon stops or is gone, and go on there; else it ends, or raises.
            told: is called with what there is to say besides, such as that it is tried again.
        """
        wants = {
            "lanes": lanes, "types": types, "severities": severities, "subjects": subjects,
            "sources": sources, "pipelines": pipelines,
        }  # fmt: skip
        return Tail(
            self._streaming, wants=wants, since=since, lines=lines, after=after, retry=retry,
            told=told or (lambda _: None),
        )  # fmt: skip

    async def _document(
        self, method: str, path: str, body: Document | None = None, *, timeout_s: float | None = None
    ) -> Document:
        raw = await self._ask(method, path, body, timeout_s=timeout_s)
        try:
            found: Any = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            raise ResourceUnavailableError(f"{self.path}: what listens there is no dxad: {error}") from error
        if not isinstance(found, dict):
            raise ResourceUnavailableError(f"{self.path}: what listens there is no dxad")
        return found

    async def _ask(
        self, method: str, path: str, body: Document | None = None, *, timeout_s: float | None = None
    ) -> bytes:
        total_s = timeout_s or self._timeout_s
        data = None if body is None else orjson.dumps(body)
        timeout = aiohttp.ClientTimeout(total=total_s)
        async with self._answered(method, path, _JSON, timeout, patience_s=total_s, data=data) as response:
            return await response.read()

    @asynccontextmanager
    async def _streaming(self, path: str, headers: Mapping[str, str]) -> AsyncIterator[AsyncIterator[bytes]]:
        """A stream, in the pieces that come; it says something all the time."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._timeout_s, sock_read=_SILENCE_S)
        async with self._answered("GET", path, headers, timeout, patience_s=_SILENCE_S) as response:
            yield response.content.iter_any()

    @asynccontextmanager
    async def _answered(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's own
        *,
        patience_s: float,
        data: bytes | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        try:
            async with self._opened().request(
                method, f"http://dxad{path}", data=data, headers=headers, timeout=timeout
            ) as response:
                if response.status >= 400:
                    raw = await response.read()
                    said = _detail(raw, f"{response.status} {response.reason}")
                    raise RequestRefusedError(response.status, said)
                yield response
        except TimeoutError as error:
            raise ResourceUnavailableError(f"{self.path}: no answer within {patience_s:g} s") from error
        except aiohttp.ClientConnectorError as error:
            await self.close()
            raise ResourceUnavailableError(_why(self.path, error.os_error)) from error
        except aiohttp.ClientError as error:
            raise ResourceUnavailableError(f"{self.path}: the daemon hung up in the middle") from error

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.UnixConnector(str(self.path), force_close=True)
            self._session = aiohttp.ClientSession(connector=connector)
        return self._session


class SyncClient:
    """The same for code that has no event loop."""

    def __init__(self, address: str | Path = DEFAULT_SOCKET, *, timeout_s: float = _TIMEOUT_S) -> None:
        self.path = _path(address)
        self._timeout_s = timeout_s

    def status(self) -> Document:
        """Everything there is to see."""
        return self.run(lambda client: client.status())

    def metrics(self) -> str:
        """Counters and gauges as Prometheus text."""
        return self.run(lambda client: client.metrics())

    def query(self, pipeline: str, request: Document) -> Document:
        """Ask a pipeline."""
        return self.run(lambda client: client.query(pipeline, request))

    def learn(self, pipeline: str, span: str | None = None) -> Document:
        """Have a pipeline learn anew what is normal."""
        return self.run(lambda client: client.learn(pipeline, span))

    def models(self, pipeline: str) -> Document:
        """The versions of a pipeline's model, and which of them does what."""
        return self.run(lambda client: client.models(pipeline))

    def model(self, pipeline: str, verb: str, *, path: str = "", version: str = "") -> Document:
        """Change which model counts: install, shadow, promote, rollback or dismiss."""
        return self.run(lambda client: client.model(pipeline, verb, path=path, version=version))

    def alarms(self) -> list[Document]:
        """Every alarm, as it stands."""
        return self.run(lambda client: client.alarms())

    def act(self, alarm: str, action: str, *, for_: str | None = None) -> Document:
        """Do to an alarm what somebody has decided."""
        return self.run(lambda client: client.act(alarm, action, for_=for_))

    def incidents(self) -> list[Document]:
        """The incidents that are open, and the last that are over."""
        return self.run(lambda client: client.incidents())

    def incident(self, incident: str) -> Document:
        """All that was told of an incident."""
        return self.run(lambda client: client.incident(incident))

    def window(self, incident: str, *, rows: int = 500) -> Document:
        """The rows around an incident that is over."""
        return self.run(lambda client: client.window(incident, rows=rows))

    def window_csv(self, incident: str) -> str:
        """All rows that are stored, as CSV."""
        return self.run(lambda client: client.window_csv(incident))

    def reload(self, *, dry_run: bool = False) -> Document:
        """Have the daemon take up its configuration as it is on disk now."""
        return self.run(lambda client: client.reload(dry_run=dry_run))

    def rows(
        self,
        kind: Literal["sources", "pipelines"],
        name: str,
        *,
        start: int | None = None,
        limit: int = 10_000,
    ) -> Document:
        """Rows of a source or a pipeline from slot `start` on."""
        return self.run(lambda client: client.rows(kind, name, start=start, limit=limit))

    def tail(self, **how: Any) -> Iterator[Document]:
        """Events as they come, see `Client.tail`; each is waited for when the next one is asked for."""

        async def begun(client: Client) -> AsyncIterator[Document]:
            return aiter(client.tail(**how))

        async def following(events: AsyncIterator[Document]) -> Document | None:
            return await anext(events, None)

        with asyncio.Runner() as runner:
            client = Client(self.path, timeout_s=self._timeout_s)
            events = runner.run(begun(client))
            try:
                while (event := runner.run(following(events))) is not None:
                    yield event
            finally:
                runner.run(client.close())

    def run(self, ask: Callable[[Client], Awaitable[T]]) -> T:
        """What `ask` returns: for all that a `Client` can do and this class has no method for."""

        async def asked() -> T:
            async with Client(self.path, timeout_s=self._timeout_s) as client:
                return await ask(client)

        return asyncio.run(asked())


def _path(address: str | Path) -> Path:
    if isinstance(address, Path) or "://" not in address:
        return Path(address)
    url = urlsplit(address)
    if url.scheme != "unix" or url.netloc or not url.path:
        raise ConfigError(f"{address!r}: a daemon is found at a path, or at unix:///path/to/control.sock")
    return Path(url.path)


def _of(pipeline: str, what: str) -> str:
    return f"/v1/pipelines/{quote(pipeline, safe='')}/{what}"


def _why(path: Path, error: OSError) -> str:
    """What a person should look at next."""
    match error:
        case FileNotFoundError():
            return f"{path}: there is no such socket; dxad does not run, or has another one configured"
        case ConnectionRefusedError() if path.is_socket():
            return f"{path}: the socket is there, but nobody listens; dxad has died"
        case ConnectionRefusedError():
            return f"{path}: this is no socket"
        case PermissionError():
            return f"{path}: permission denied; {_group_of(path)}"
    return f"{path}: {error.strerror or error}"


def _group_of(path: Path) -> str:
    try:
        return f"only members of the group {path.group()} may connect"
    except (OSError, KeyError):
        return "you may not even look into its folder"


def _detail(raw: bytes, otherwise: str) -> str:
    """What a problem document says; an answer that is none says nothing."""
    try:
        found: Any = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return otherwise
    return str(found["detail"]) if isinstance(found, dict) and "detail" in found else otherwise
