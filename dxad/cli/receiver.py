"""A reasoning system's front door, for the demonstration: takes and acknowledges CloudEvents."""

from types import TracebackType
from typing import Self

from aiohttp import web

from dxad.types import Document

__all__ = ["Receiver"]


class Receiver:
    """An HTTP server on loopback that keeps the events it was sent, each once."""

    def __init__(self) -> None:
        self.events: list[Document] = []
        self.repeated = 0
        """Events that came again with an id it had: at least once, as promised."""
        self.url = ""
        self._ids: set[str] = set()
        app = web.Application(client_max_size=16 * 2**20)
        app.router.add_post("/events", self._take)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0]
        self.url = f"http://{host}:{port}/events"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.json()
        for event in body if isinstance(body, list) else [body]:
            if event["id"] in self._ids:
                self.repeated += 1
            else:
                self._ids.add(event["id"])
                self.events.append(event)
        return web.Response(status=202)

    def incidents(self, phase: str) -> list[Document]:
        """The incident events of one phase, as they came."""
        return [event for event in self.events if event["type"] == f"dxad.incident.{phase}"]
