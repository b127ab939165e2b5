"""The life of the control socket: listen, take clients in, leave nothing behind."""

import asyncio
import logging
from contextlib import AsyncExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Self

from dxad.config import ControlSection
from dxad.control import unixsocket
from dxad.control.connection import Connection
from dxad.control.limits import Limits
from dxad.control.route import Gateway

if TYPE_CHECKING:
    from aiohttp.web_server import Server

    from dxad.control.http import Exchange

__all__ = ["Control"]

log = logging.getLogger(__name__)


class Control:
    """Answers on the control socket while it is open."""

    def __init__(self, gateway: Gateway, section: ControlSection, *, limits: Limits | None = None) -> None:
        self._gateway = gateway
        self._section = section
        self._limits = limits or Limits()
        self._clients: set[Connection] = set()
        self._opened = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Listen.

        Raises:
            ConfigError: another daemon does, or the socket cannot be made.
        """
        from dxad.control.http import Exchange  # noqa: PLC0415 - aiohttp: 95 ms and 5 MiB

        path = self._section.socket
        listener = unixsocket.listen(path, group=self._section.group)
        self._opened.callback(unixsocket.remove, path, path.lstat())
        exchange = Exchange(self._gateway, self._section.admin_group, self._limits)
        http = exchange.server()
        server = await asyncio.get_running_loop().create_unix_server(
            lambda: Connection(http, self._clients, self._limits), sock=listener
        )
        self._opened.push_async_callback(self._end, server, http, exchange)
        log.info("control socket %s", path)

    async def close(self) -> None:
        """Wait a moment for requests that are being answered, and go; safe twice, and without `start`."""
        await self._opened.aclose()

    async def _end(self, server: asyncio.Server, http: "Server", exchange: "Exchange") -> None:
        server.close()
        exchange.end_streams()
        http.pre_shutdown()
        await http.shutdown(self._limits.shutdown_s)
        left = list(self._clients)
        for each in left:
            each.abort()
        await asyncio.gather(*(each.gone.wait() for each in left))
