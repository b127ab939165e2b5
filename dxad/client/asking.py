"""How parts of the client ask, and go on asking."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final, Protocol, TypeVar

from dxad.errors import RequestRefusedError, ResourceUnavailableError
from dxad.runtime.backoff import Backoff
from dxad.types import Document

__all__ = ["Ask", "insist", "may_pass"]

T = TypeVar("T")

log = logging.getLogger(__name__)

_MOST_S: Final = 10.0


class Ask(Protocol):
    """A request whose answer is a JSON object."""

    def __call__(
        self, method: str, path: str, body: Document | None = None, *, timeout_s: float | None = None
    ) -> Awaitable[Document]:
        """Ask; it may raise what those of `Client` do."""


def may_pass(error: ResourceUnavailableError) -> bool:
    """Whether asking again may help: the daemon is away, or its disk fails; not if it refuses."""
    return not isinstance(error, RequestRefusedError) or error.status == HTTPStatus.SERVICE_UNAVAILABLE


async def insist(ask: Callable[[], Awaitable[T]], what: str) -> T:
    """Ask until there is an answer, with a growing back-off; the log says why there is none.

    Raises:
        RequestRefusedError: asking again cannot help.
    """
    waits = Backoff(most_s=_MOST_S)
    said = ""
    while True:
        try:
            return await ask()
        except ResourceUnavailableError as error:
            if not may_pass(error):
                raise
            if str(error) != said:
                said = str(error)
                log.warning("%s: %s; trying again", what, said)
        await asyncio.sleep(waits.next_s())
