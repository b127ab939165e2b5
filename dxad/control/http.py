"""Between HTTP and the routes: bodies and JSON, permission, problems. It needs aiohttp: import it late.

It takes aiohttp's protocol and messages, not `aiohttp.web`: applications, their routes and files are 2 MiB.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, Final

import orjson
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestPayloadError
from aiohttp.web_request import BaseRequest
from aiohttp.web_response import Response, StreamResponse
from aiohttp.web_server import Server

from dxad.control.connection import Connection
from dxad.control.limits import Limits
from dxad.control.peer import Peer
from dxad.control.problem import CONTENT_TYPE, Refusal
from dxad.control.route import Answer, Call, Gateway, Route
from dxad.control.routes import find
from dxad.types import Document

__all__ = ["Exchange"]

log = logging.getLogger(__name__)

_LOGGED: Final = 200
"""Bytes of a body that a log line shows."""


def _is_a_bug(record: logging.LogRecord) -> bool:
    """What aiohttp logs of junk that clients send is no news."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError)


_bugs = log.getChild("aiohttp")
_bugs.addFilter(_is_a_bug)


class Exchange:
    """Answers requests."""

    def __init__(self, gateway: Gateway, admin_group: str, limits: Limits) -> None:
        self._gateway = gateway
        self._admin_group = admin_group
        self._limits = limits
        self._streams: set[asyncio.Task[Any]] = set()

    def server(self) -> Server:
        """What makes a protocol of HTTP for each connection; it wants a running loop."""
        limits = self._limits
        return Server(
            self._answer,
            access_log=None,
            logger=_bugs,
            handler_cancellation=True,
            keepalive_timeout=limits.head_s,
            lingering_time=1.0,
            max_line_size=limits.line_bytes,
            max_field_size=limits.line_bytes,
        )

    def end_streams(self) -> None:
        """Let nobody follow anything any more."""
        for each in self._streams:
            each.cancel()

    async def _answer(self, request: BaseRequest) -> StreamResponse:
        try:
            answer = await self._routed(request)
            if not isinstance(answer.body, dict | str):
                return await self._streamed(request, answer, answer.body)
        except Refusal as refusal:
            return _json(refusal.document(), refusal.status, CONTENT_TYPE, refusal.headers)
        if isinstance(answer.body, str):
            return Response(
                body=answer.body.encode(), status=answer.status, headers={"Content-Type": answer.text_type}
            )
        response = _json(answer.body, answer.status, "application/json")
        if answer.unheard is not None:
            await _heard(request, response, answer.unheard)
        return response

    async def _streamed(
        self, request: BaseRequest, answer: Answer, body: AsyncGenerator[bytes]
    ) -> StreamResponse:
        """Write a stream as fast as the client takes it: what it does not take is not asked for.

        Raises:
            Refusal: there are too many streams, 503.
        """
        connection, task = _connection(request), asyncio.current_task()
        response = StreamResponse(
            status=answer.status, headers={"Content-Type": answer.text_type, "Cache-Control": "no-store"}
        )
        assert task is not None
        async with aclosing(body):
            if len(self._streams) >= self._limits.streams:
                raise Refusal(
                    503,
                    f"{self._limits.streams} clients follow events already, and that is all there may be",
                    headers={"Retry-After": "5"},
                )
            self._streams.add(task)
            try:
                await response.prepare(request)
                async for part in body:
                    connection.extend(self._limits.request_s)
                    await response.write(part)
                await response.write_eof()
            except ConnectionError:
                log.debug("%s has hung up", _who(connection.peer))
            finally:
                self._streams.remove(task)
        return response

    async def _routed(self, request: BaseRequest) -> Answer:
        connection = _connection(request)
        connection.extend(self._limits.request_s)
        route, name = find(request.method, request.path)
        if route.admin:
            self._admit(request, connection.peer)
        body = await self._body(request, route)
        said = {key: request.query.getall(key) for key in request.query}
        resume = request.headers.get("Last-Event-ID", "")
        answer = await route.handler(
            Call(self._gateway, name, body, said, resume=resume, uid=connection.peer.uid)
        )
        if route.admin:
            shown = orjson.dumps(body)[:_LOGGED].decode(errors="replace")
            log.info("%s %s, done: %s", _who(connection.peer), request.raw_path, shown)
        return answer

    def _admit(self, request: BaseRequest, peer: Peer) -> None:
        """Let nobody change anything who may not, nor a web page in the browser of somebody who may."""
        if not peer.may_change(self._admin_group):
            log.warning("%s %s, refused", _who(peer), request.raw_path)
            raise Refusal(
                403,
                f"this changes something, and uid {peer.uid} may only read; root may, the daemon's own user, "
                f"and members of the group {self._admin_group}",
            )
        if "Origin" in request.headers:
            log.warning("%s %s, refused: sent by a web page", _who(peer), request.raw_path)
            raise Refusal(403, "this changes something, and web pages may not: the request names an Origin")

    async def _body(self, request: BaseRequest, route: Route) -> Document:
        if route.method == "GET":
            return {}
        try:
            async with asyncio.timeout(self._limits.body_s):
                raw = await _read(request, route.body_bytes)
        except TimeoutError as error:
            raise Refusal(408, f"the body did not come within {self._limits.body_s:g} s") from error
        except (RequestPayloadError, HttpProcessingError) as error:
            raise Refusal(400, f"the body cannot be read: {error}") from error
        try:
            found: Any = orjson.loads(raw or b"{}")
        except orjson.JSONDecodeError as error:
            raise Refusal(400, f"the body is not JSON: {error}") from error
        if not isinstance(found, dict):
            raise Refusal(422, f"the body is to be a JSON object, not {_kind(found)}")
        return found


async def _heard(request: BaseRequest, response: Response, unheard: Callable[[], None]) -> None:
    """Write the answer, and see whether the client was there to take it."""
    heard = False
    try:
        await response.prepare(request)
        await response.write_eof()
        heard = request.transport is not None and not request.transport.is_closing()
    except ConnectionError:
        log.debug("the client has hung up before its answer")
    finally:
        if not heard:
            unheard()


def _connection(request: BaseRequest) -> Connection:
    if request.transport is None:
        raise Refusal(408, "the client has gone")  # nobody will read it
    found = request.transport.get_protocol()
    assert isinstance(found, Connection)
    return found


async def _read(request: BaseRequest, most: int) -> bytes:
    found = bytearray()
    async for chunk in request.content.iter_any():
        found += chunk
        if len(found) > most:
            raise Refusal(413, f"the body is longer than {most} bytes")
    return bytes(found)


def _kind(value: object) -> str:
    names = {list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _who(peer: Peer) -> str:
    return f"uid {peer.uid}, pid {peer.pid}:"


def _json(body: Document, status: int, content_type: str, headers: dict[str, str] | None = None) -> Response:
    raw = orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE)
    return Response(body=raw, status=status, content_type=content_type, headers=headers)
