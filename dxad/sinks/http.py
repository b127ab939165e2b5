"""CloudEvents over HTTP: a batch of records is one POST, and any 2xx means that the peer has them.

Source: CloudEvents 1.0.2, HTTP protocol binding §3.2 (structured) and §3.3 (batched),
https://github.com/cloudevents/spec; RFC 9110 §10.2.3 (Retry-After).

========================  =================================================================
answer                    what is made of it
========================  =================================================================
2xx, read to its end      the peer has the records
400, 413, 422             something in the batch is at fault: halves are tried, down to it
429, 503 + Retry-After    stay away so long
anything else             not connected: trouble that may heal, and costs no records
========================  =================================================================
"""

from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import orjson
from pydantic import Field

from dxad import event
from dxad.errors import Backoff, NotConnected, Rejected
from dxad.fields import Duration, Secret, SinkSection
from dxad.links import words
from dxad.plugin import Plugin
from dxad.types import NS_PER_S, Record

if TYPE_CHECKING:
    import aiohttp

__all__ = ["PLUGIN", "Config", "Http"]

_CONTENT_TYPE_ONE: Final = "application/cloudevents+json"
_AT_FAULT: Final = frozenset({400, 413, 422})
_RETRY_AFTER_MOST_S: Final = 3600.0
"""No peer sends us away for longer."""
_ANSWER_BYTES: Final = 64 * 2**10
"""What an answer may have; it is read to its end, since one that breaks off acknowledges nothing."""


class Config(SinkSection):
    """`{ type = "http", url = "https://…/events", bearer = { credential = "token" } }`."""

    type: Literal["http"]
    url: str = Field(
        pattern=r"^https?://[^\s/@?#]+([/?][^\s]*)?$",
        description="where events are posted; no password in it",
    )
    timeout: Duration = Field(10 * NS_PER_S, gt=0, description="how long one request may take as a whole")
    headers: dict[
        Annotated[str, Field(pattern=r"^[A-Za-z0-9-]+$")], Annotated[str, Field(pattern=r"^[ -~]*$")]
    ] = Field({}, description="sent with each request; secrets do not belong here")
    bearer: Secret | None = Field(None, description="the token of an Authorization header")


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    reason: str
    retry_after_s: float | None

    @property
    def taken(self) -> bool:
        return 200 <= self.status < 300


class Http:
    """Posts records to a URL."""

    def __init__(self, name: str, config: Config, *, state_dir: Path) -> None:  # noqa: ARG002 - all sinks are made alike
        self._config = config
        self._session: aiohttp.ClientSession | None = None

    async def connect(self) -> None:
        """Get ready; that the peer answers is seen at the first write.

        Raises:
            ConfigError: the bearer token is not there.
        """
        import aiohttp  # noqa: PLC0415 - its client: 80 ms and 5 MiB, for those who use it

        await self.close()
        headers = dict(self._config.headers)
        if self._config.bearer is not None:
            headers["Authorization"] = f"Bearer {self._config.bearer.read()}"
        self._session = aiohttp.ClientSession(
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=self._config.timeout / NS_PER_S),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def write(self, records: Sequence[Record]) -> None:
        """Post the records, in halves where the peer finds fault with some.

        Raises:
            NotConnected: no answer, or none that says whether it has them.
            Backoff: the peer said when to come back.
            Rejected: the peer finds fault with these, each posted alone.
        """
        bodies: dict[int, bytes] = {}
        refused: dict[int, str] = {}
        for index, record in enumerate(records):
            try:
                bodies[index] = orjson.dumps(event.decode(record))
            except (TypeError, ValueError) as error:
                refused[index] = f"cannot be written as JSON: {error}"
        step = 1 if self._config.batch == 1 else max(1, len(bodies))
        places = list(bodies)
        for start in range(0, len(places), step):
            await self._deliver(places[start : start + step], bodies, refused)
        if refused:
            raise Rejected(sorted(refused), next(iter(refused.values())))

    async def close(self) -> None:
        """Let go of the connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _deliver(self, places: list[int], bodies: dict[int, bytes], refused: dict[int, str]) -> None:
        """Post these, or each half of them if the peer finds fault with the whole."""
        answer = await self._post([bodies[each] for each in places])
        if answer.taken:
            return
        if answer.status in (429, 503) and answer.retry_after_s is not None:
            raise Backoff(answer.retry_after_s, answer.reason)
        if answer.status not in _AT_FAULT:
            raise NotConnected(answer.reason)
        if len(places) == 1:
            refused[places[0]] = answer.reason
            return
        middle = len(places) // 2
        await self._deliver(places[:middle], bodies, refused)
        await self._deliver(places[middle:], bodies, refused)

    async def _post(self, bodies: list[bytes]) -> _Answer:
        import aiohttp  # noqa: PLC0415 - see connect

        if self._session is None:
            raise NotConnected("not connected")
        if self._config.batch == 1:
            data, content_type = bodies[0], _CONTENT_TYPE_ONE
        else:
            data, content_type = b"[" + b",".join(bodies) + b"]", event.CONTENT_TYPE_BATCH
        url = self._config.url
        try:
            async with self._session.post(
                url, data=data, headers={"Content-Type": content_type}, allow_redirects=False
            ) as response:
                text = await _read(response)
        except TimeoutError as error:
            raise NotConnected(
                f"POST {url}: no answer within {self._config.timeout / NS_PER_S:g} s"
            ) from error
        except aiohttp.ServerDisconnectedError as error:
            raise NotConnected(f"POST {url}: the peer hung up without an answer") from error
        except aiohttp.ClientConnectorError as error:
            # Its own words repeat the address and asyncio's; those of a TLS failure are the ones to read.
            tls = isinstance(error, aiohttp.ClientSSLError)
            why = _one_line(str(error)) if tls else words(error.os_error)
            raise NotConnected(f"POST {url}: {why}") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise NotConnected(f"POST {url}: {_one_line(str(error)) or type(error).__name__}") from error
        head = _one_line(text.decode(errors="replace"))
        return _Answer(
            response.status,
            f"POST {url}: {response.status} {response.reason}" + (f": {head}" if head else ""),
            _retry_after_s(response.headers.get("Retry-After"), response.headers.get("Date")),
        )


async def _read(response: "aiohttp.ClientResponse") -> bytes:
    """The whole answer, which has to be short."""
    text = bytearray()
    async for chunk in response.content.iter_chunked(8192):
        text += chunk
        if len(text) > _ANSWER_BYTES:
            raise NotConnected(f"POST {response.url}: the answer does not end")
    return bytes(text)


def _one_line(text: str) -> str:
    return " ".join(text.split())[:200]


def _retry_after_s(value: str | None, date: str | None) -> float | None:
    """Seconds, or a date that is compared with the peer's own; None if it makes no sense."""
    if value is None:
        return None
    if value.strip().isascii() and value.strip().isdigit():
        return min(float(value), _RETRY_AFTER_MOST_S)
    try:
        if date is None:
            return None
        wait_s = (parsedate_to_datetime(value) - parsedate_to_datetime(date)).total_seconds()
    except (TypeError, ValueError):
        return None
    return min(max(wait_s, 0.0), _RETRY_AFTER_MOST_S)


PLUGIN = Plugin(Config, Http)
