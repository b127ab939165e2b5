"""HTTP servers for the sinks to talk to, and events to send; none of them knows dxad's sinks."""

import asyncio
import gzip
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web

from dxad.event import Event, to_record
from dxad.types import Record

__all__ = ["Handler", "Receiver", "always", "answering", "record", "saying"]

Handler = Callable[[web.Request], Awaitable[web.Response]]


def record(id_: str, **data: object) -> Record:
    return to_record(Event(id_, "dxad.test", "/gw/pipelines/p", 1_700_000_000_123_456_789, data))


@asynccontextmanager
async def answering(
    handler: Handler, *, tls: ssl.SSLContext | None = None, path: str = "/events"
) -> AsyncIterator[str]:
    """An HTTP server; gives its URL."""
    app = web.Application()
    app.router.add_route("*", path, handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        yield f"http{'s' if tls else ''}://127.0.0.1:{runner.addresses[0][1]}/events"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def saying(
    reply: bytes, *, after: bytes = b"\r\n\r\n", hang: bool = False, tls: ssl.SSLContext | None = None
) -> AsyncIterator[str]:
    """A server that answers whatever comes with these bytes, and then hangs up, or does not."""
    done = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(after)
        writer.write(reply)
        if hang:
            await done.wait()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}/events"
    finally:
        done.set()
        server.close()
        await server.wait_closed()


def always(status: int, text: str = "", **headers: str) -> Handler:
    async def handler(_: web.Request) -> web.Response:
        return web.Response(
            status=status, text=text, headers={name.replace("_", "-"): each for name, each in headers.items()}
        )

    return handler


@dataclass
class Receiver:
    """Takes what is posted, and answers as it is told to, then with 200."""

    answers: list[int] = field(default_factory=list)
    requests: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)
    """Method, headers and body."""

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        if request.headers.get("Content-Encoding") == "gzip" and body[:2] == b"\x1f\x8b":
            body = gzip.decompress(body)
        self.requests.append((request.method, dict(request.headers), orjson.loads(body)))
        return web.Response(status=self.answers.pop(0) if self.answers else 200)

    @property
    def bodies(self) -> list[Any]:
        return [body for _, _, body in self.requests]

    @property
    def ids(self) -> list[str]:
        """Of all events, in the order in which they came."""
        events = [each for body in self.bodies for each in (body if isinstance(body, list) else [body])]
        return [each["id"] for each in events]

    def header(self, name: str) -> list[str | None]:
        return [headers.get(name) for _, headers, _ in self.requests]
