"""Events of a running daemon as they come, for looking: nothing is leased, acknowledged or kept.

async with Client(socket) as client:
    async for event in client.tail(types=["dxad.incident.*"], retry=True):
        print(event["type"])
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Final, Protocol
from urllib.parse import urlencode

import orjson

from dxad.client.asking import may_pass
from dxad.client.eventstream import Parser
from dxad.errors import ResourceUnavailableError
from dxad.runtime.backoff import Backoff
from dxad.types import Document

__all__ = ["Tail"]

_MOST_S: Final = 5.0
_WANTS: Final = {
    "lanes": "lane",
    "types": "type",
    "severities": "severity",
    "subjects": "subject",
    "sources": "source",
    "pipelines": "pipeline",
}


class Streaming(Protocol):
    """Opens a stream of bytes; it may raise what requests of `Client` do."""

    def __call__(
        self, path: str, headers: Mapping[str, str]
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]: ...


class Tail:
    """What is iterated over; `place` is where it is, to go on from later."""

    def __init__(
        self,
        streaming: Streaming,
        *,
        wants: Mapping[str, Sequence[str]],
        since: str | None,
        lines: int | None,
        after: int | None,
        retry: bool,
        told: Callable[[str], None],
    ) -> None:
        self.place = after
        """The seq of the last event, or a later one that was of no interest; None before any is known."""
        self._streaming = streaming
        self._asked = [(_WANTS[key], each) for key, values in wants.items() for each in values]
        if since is not None:
            self._asked.append(("since", since))
        self._lines = lines
        self._retry = retry
        self._told = told

    def __aiter__(self) -> AsyncIterator[Document]:
        return self._events()

    async def _events(self) -> AsyncGenerator[Document]:
        waits, said = Backoff(most_s=_MOST_S), ""
        while True:
            try:
                async with aclosing(self._once()) as events:
                    async for event in events:
                        waits.reset()
                        said = ""
                        yield event
                if not self._retry:
                    return
                why = "the daemon has stopped"
            except ResourceUnavailableError as error:
                if not self._retry or not may_pass(error):
                    raise
                why = str(error)
            if why != said:
                said = why
                self._told(f"{why}; trying again and again")
            await asyncio.sleep(waits.next_s())

    async def _once(self) -> AsyncGenerator[Document]:
        asked = list(self._asked)
        if self.place is None and self._lines is not None:
            asked.append(("lines", str(self._lines)))
        headers = {} if self.place is None else {"Last-Event-ID": str(self.place)}
        parser = Parser()
        async with self._streaming(f"/v1/events?{urlencode(asked)}", headers) as chunks:
            async for chunk in chunks:
                for each in parser.feed(chunk):
                    if each.comment and each.comment != "alive":
                        self._told(each.comment)
                    if parser.last_id:
                        self.place = int(parser.last_id)
                    if each.data:
                        event: Document = orjson.loads(each.data)
                        yield event
                if parser.last_id:
                    self.place = int(parser.last_id)
