"""CloudEvents over HTTP: a batch of records is one POST, and any 2xx means that the peer has them.

Source: CloudEvents 1.0.2, HTTP protocol binding §3.1 (binary), §3.2 (structured) and §3.3 (batched),
https://github.com/cloudevents/spec; draft-ietf-httpapi-idempotency-key-header-07.

What the peer finds fault with is tried in halves, down to the record that is at fault: see `links.http` for
what is made of which answer. One that calls a body too large (413) is sent smaller ones from then on.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Literal

import orjson
from pydantic import Field

from dxad import event
from dxad.errors import Backoff, NotConnected, Rejected
from dxad.links import binarymode
from dxad.links.http import TOO_LARGE, Answer, HttpLink, PeerSection
from dxad.plugin import Plugin
from dxad.runtime.turns import in_turns
from dxad.runtime.worker import Worker
from dxad.sinksection import SinkSection
from dxad.types import Record

__all__ = ["PLUGIN", "Config", "Http"]

_STRUCTURED: Final = {"Content-Type": "application/cloudevents+json"}
_BODY_MAX: Final = 2**20
"""Bytes of one request, unless a single event has more; many proxies take no more."""
_WORTH_ZIPPING: Final = 512
"""Bytes; a smaller body would hardly shrink."""
_GZIP: Final = 31
"""zlib's `wbits` for a gzip header."""
_LEVEL: Final = 6


class Config(SinkSection, PeerSection):
    """`{ type = "http", url = "https://…/events", bearer = { credential = "token" } }`."""

    type: Literal["http"]
    mode: Literal["batch", "structured", "binary"] = Field(
        "batch",
        description="many events in one request; or one in each, in JSON as a whole, or its data alone with "
        "all else in ce- headers. A batch of 1 is structured",
    )
    compress: Literal["none", "gzip"] = Field("none", description="of what is sent; the peer must know it")


@dataclass(slots=True)  # one for each record
class _Item:
    """A record, ready to be sent."""

    place: int
    id: str
    body: bytes
    headers: Mapping[str, str]
    """Of a request of its own."""


class Http:
    """Posts records to a URL."""

    def __init__(self, name: str, config: Config, *, state_dir: Path) -> None:  # noqa: ARG002 - all sinks are made alike
        self._name = name
        self._config = config
        self._link = HttpLink(config)
        self._alone = config.batch == 1 or config.mode != "batch"
        self._body_max = _BODY_MAX
        self._thread: Worker | None = None

    async def connect(self) -> None:
        """Get ready; that the peer answers is seen at the first write.

        Raises:
            ConfigError: a secret, or a file of `tls`, is not there.
        """
        await self._link.open()
        if self._config.compress == "gzip" and self._thread is None:
            self._thread = Worker(f"sink {self._name}")

    async def write(self, records: Sequence[Record]) -> None:
        """Post the records, in halves where the peer finds fault with some.

        Raises:
            NotConnected: no answer, or none that says whether it has them.
            Backoff: the peer said when to come back.
            Rejected: the peer finds fault with these, each posted alone.
        """
        items: list[_Item] = []
        refused: dict[int, str] = {}
        async for place, record in in_turns(enumerate(records)):
            try:
                items.append(self._item(place, record))
            except (TypeError, ValueError) as error:
                refused[place] = f"cannot be written as JSON: {error}"
        done: list[_Item] = []
        try:
            while len(done) < len(items):
                await self._deliver(self._portion(items[len(done) :]), done, refused)
        except (NotConnected, Backoff) as error:
            error.taken = min([*refused, items[len(done)].place])
            raise
        if refused:
            raise Rejected(sorted(refused), next(iter(refused.values())))

    async def close(self) -> None:
        """Let go of the connections."""
        await self._link.close()
        thread, self._thread = self._thread, None
        if thread is not None:
            await thread.run(lambda: None)  # what it is at ends first
            thread.close()

    def _item(self, place: int, record: Record) -> _Item:
        document = event.decode(record)
        if self._config.mode == "binary":
            body, content_type = binarymode.content(document)
            return _Item(
                place, record.id, body, {"Content-Type": content_type, **binarymode.headers(document)}
            )
        return _Item(place, record.id, orjson.dumps(document), _STRUCTURED)

    def _portion(self, items: Sequence[_Item]) -> Sequence[_Item]:
        """As many of the first as fit into one request, one at least."""
        if self._alone:
            return items[:1]
        size = 0
        for count, each in enumerate(items):
            size += len(each.body) + 1
            if size > self._body_max and count:
                return items[:count]
        return items

    async def _deliver(self, items: Sequence[_Item], done: list[_Item], refused: dict[int, str]) -> None:
        """Post these, or each half of them if the peer finds fault with the whole; what goes is `done`."""
        answer = await self._post(items)
        if answer.taken():
            done += items
            return
        if len(items) == 1:
            refused[items[0].place] = answer.told
            done += items
            return
        if answer.status == TOO_LARGE:
            self._body_max = min(self._body_max, sum(len(each.body) + 1 for each in items) // 2)
        middle = len(items) // 2
        await self._deliver(items[:middle], done, refused)
        await self._deliver(items[middle:], done, refused)

    async def _post(self, items: Sequence[_Item]) -> Answer:
        if self._alone:
            body, headers = items[0].body, dict(items[0].headers)
        else:
            body = b"[" + b",".join(each.body for each in items) + b"]"
            headers = {"Content-Type": event.CONTENT_TYPE_BATCH}
        headers["Idempotency-Key"] = f'"{event.identity(*(each.id for each in items))}"'
        if self._thread is not None and len(body) >= _WORTH_ZIPPING:
            body = await self._thread.run(partial(zlib.compress, body, _LEVEL, _GZIP))
            headers["Content-Encoding"] = "gzip"
        return await self._link.request("POST", body, headers)


PLUGIN = Plugin(Config, Http)
