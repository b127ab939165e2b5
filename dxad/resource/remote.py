"""The same pipeline API, answered by a running daemon."""

from types import TracebackType
from typing import Any, Self

from dxad.client import Client
from dxad.errors import ResourceUnavailableError
from dxad.resource.state import ResourceResponse
from dxad.types import Document

__all__ = ["RemotePipeline"]


class RemotePipeline:
    """A pipeline of a daemon, over its control socket."""

    def __init__(self, name: str, url: str) -> None:
        self.name = name
        self._client = Client(url)
        self._open = False

    async def initialize(self) -> None:
        """Make sure that the daemon answers and has the pipeline.

        Raises:
            ResourceUnavailableError: it does not.
        """
        try:
            names = (await self._client.status())["pipelines"]
            if self.name not in names:
                raise ResourceUnavailableError(
                    f"the daemon has no pipeline {self.name!r}, only {', '.join(names)}"
                )
            self._open = True
        finally:
            if not self._open:
                await self._client.close()

    async def query(self, request: Document | None = None) -> ResourceResponse:
        """Ask the daemon, see `dxad.query`.

        Raises:
            ResourceUnavailableError: before `initialize()`, or the daemon does not answer.
        """
        if not self._open:
            raise ResourceUnavailableError(f"pipeline {self.name!r}: query before initialize()")
        return ResourceResponse(**await self._client.query(self.name, dict(request or {})))

    async def cleanup(self) -> None:
        """Forget the daemon; safe twice."""
        self._open = False
        await self._client.close()

    async def __aenter__(self) -> Self:
        await self.initialize()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.cleanup()

    @property
    def is_available(self) -> bool:
        """Whether queries are sent."""
        return self._open

    def can_handle(self, request: Any) -> bool:
        """Any request that is an object: the daemon judges."""
        return isinstance(request, dict)
