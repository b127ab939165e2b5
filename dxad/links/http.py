"""A peer that takes events over HTTP: kept connections, TLS, a login by reference, and its answers in words.

Source: RFC 9110 (§10.2.3 Retry-After, §15 status codes), RFC 9112 §9.3.1 (retrying on a connection that the
peer has closed while it was idle).

========================  =================================================================
answer                    what is made of it
========================  =================================================================
2xx, read to its end      the peer has what was sent
400, 413, 422             it finds fault with what was sent
429, 503 + Retry-After    stay away so long
anything else             not connected: trouble that may heal, and costs no records
========================  =================================================================
"""

import asyncio
import base64
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any, Final, Self

from pydantic import Field, model_validator

from dxad.errors import Backoff, NotConnected
from dxad.fields import Duration, Secret, Section
from dxad.links import words
from dxad.links.tls import TlsSection, said
from dxad.types import NS_PER_S

if TYPE_CHECKING:
    import ssl

    import aiohttp

__all__ = ["TOO_LARGE", "Answer", "BasicSection", "HttpLink", "PeerSection"]

TOO_LARGE: Final = 413
_AT_FAULT: Final = frozenset({400, TOO_LARGE, 422})
_COME_BACK: Final = frozenset({429, 503})
_RETRY_AFTER_MOST_S: Final = 3600.0
"""No peer sends us away for longer."""
_ANSWER_BYTES: Final = 64 * 2**10
"""What an answer may have; it is read to its end, since one that breaks off acknowledges nothing."""
_MENDS: Final[Mapping[int, str]] = {
    401: "who we are is a matter of configuration: bearer, basic, or the peer's own list of users",
    403: "what we may is a matter of configuration: bearer, basic, or the peer's access list",
    404: "is the path in the url right?",
    405: "is the path in the url right?",
    407: "a proxy stands between, and wants a login",
    415: "it does not take this kind of body: another mode, or no compress",
}
"""What a person can do about an answer."""


class BasicSection(Section):
    """A name and a password."""

    username: str = Field(pattern=r"^[^:\r\n]*$", description="no colon in it")
    password: Secret = Field(description="a secret by reference")


class PeerSection(Section):
    """Where requests go, and who we are."""

    url: str = Field(
        pattern=r"^https?://[^\s/@?#]+([/?][^\s]*)?$",
        description="where events are sent, such as https://host:8900/events; no password in it",
    )
    timeout: Duration = Field(10 * NS_PER_S, gt=0, description="how long one request may take as a whole")
    headers: dict[
        Annotated[str, Field(pattern=r"^[A-Za-z0-9-]+$")], Annotated[str, Field(pattern=r"^[ -~]*$")]
    ] = Field({}, description="sent with each request; secrets do not belong here")
    bearer: Secret | None = Field(None, description="the token of an Authorization header")
    basic: BasicSection | None = Field(None, description="the name and password of one")
    tls: TlsSection | None = Field(
        None, description="of https: whom to trust, and who we are; default: the system's authorities"
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.bearer is not None and self.basic is not None:
            raise ValueError("bearer and basic are two logins; give one")
        if self.tls is not None and not self.url.startswith("https:"):
            raise ValueError("tls: the url says http; write https")
        return self


@dataclass(frozen=True, slots=True)
class Answer:
    """What the peer said, read to its end."""

    status: int
    told: str
    """In words: what was asked, the status, and the beginning of its text."""
    retry_after_s: float | None

    def taken(self) -> bool:
        """Whether the peer has what was sent; False where it finds fault with that.

        Raises:
            Backoff: the peer said when to come back.
            NotConnected: it does not say whether it has it.
        """
        if 200 <= self.status < 300:
            return True
        if self.status in _COME_BACK and self.retry_after_s is not None:
            raise Backoff(self.retry_after_s, self.told)
        if self.status not in _AT_FAULT:
            raise NotConnected(self.told)
        return False


class HttpLink:
    """The connections to one peer."""

    def __init__(self, section: PeerSection) -> None:
        self._section = section
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Get ready; that the peer answers is seen at the first request.

        Raises:
            ConfigError: a secret, or a file of `tls`, is not there.
        """
        await self.close()
        headers, trust = await asyncio.to_thread(self._prepared)
        import aiohttp  # noqa: PLC0415 - 150 ms and 27 MB, for those who use it

        reused = aiohttp.TraceConfig()
        reused.on_connection_reuseconn.append(_note_reused)
        self._session = aiohttp.ClientSession(
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=self._section.timeout / NS_PER_S),
            connector=aiohttp.TCPConnector(limit=1, keepalive_timeout=30.0, ssl=trust),
            cookie_jar=aiohttp.DummyCookieJar(),
            trace_configs=[reused],
        )

    def _prepared(self) -> "tuple[dict[str, str], ssl.SSLContext | bool]":
        """Who we are and whom to trust, off the event loop: files may be on a slow card."""
        import aiohttp  # noqa: F401, PLC0415 - so that the loop does not wait for it

        headers = dict(self._section.headers)
        if self._section.bearer is not None:
            headers["Authorization"] = f"Bearer {self._section.bearer.read()}"
        if self._section.basic is not None:
            login = self._section.basic
            pair = f"{login.username}:{login.password.read()}".encode()
            headers["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
        return headers, True if self._section.tls is None else self._section.tls.context()

    async def close(self) -> None:
        """Let go of the connections; safe twice."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def request(
        self, method: str, data: bytes, headers: Mapping[str, str], *, url: str | None = None
    ) -> Answer:
        """Send this, to another path of the peer's if `url` says so, and read the answer.

        A connection that was kept may have been closed by the peer in the same moment: that is no outage, and
        the request is made once more over a new one.

        Raises:
            NotConnected: there is no whole answer.
        """
        import aiohttp  # noqa: PLC0415 - see open

        if self._session is None:
            raise NotConnected("not connected")
        kept = SimpleNamespace(reused=False)
        url = url or self._section.url
        try:
            try:
                return await self._asked(method, url, data, headers, kept)
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
                if not kept.reused or isinstance(error, aiohttp.ClientConnectorError):
                    raise
                return await self._asked(method, url, data, headers, kept)
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            raise NotConnected(f"{method} {url}: {self._why(error)}") from error

    async def _asked(
        self, method: str, url: str, data: bytes, headers: Mapping[str, str], kept: SimpleNamespace
    ) -> Answer:
        assert self._session is not None
        name = None if self._section.tls is None else self._section.tls.server_name
        async with self._session.request(
            method,
            url,
            data=data,
            headers=headers,
            allow_redirects=False,
            server_hostname=name,
            trace_request_ctx=kept,
        ) as response:
            text = await _read(method, response)
        head = _one_line(text.decode(errors="replace"))
        told = f"{method} {url}: {response.status} {response.reason}"
        told += f": {head}" if head else ""
        mend = _MENDS.get(response.status)
        if 300 <= response.status < 400 and (place := response.headers.get("Location")):
            mend = f"it has moved to {_one_line(place)}; change the url"
        return Answer(
            response.status,
            f"{told} ({mend})" if mend else told,
            _retry_after_s(response.headers.get("Retry-After"), response.headers.get("Date")),
        )

    def _why(self, error: BaseException) -> str:
        """What went wrong, in words for people."""
        import ssl  # noqa: PLC0415 - see open

        import aiohttp  # noqa: PLC0415 - see open

        match error:
            case TimeoutError():
                return f"no answer within {self._section.timeout / NS_PER_S:g} s"
            case aiohttp.ServerDisconnectedError():
                return f"the peer hung up without an answer{self._perhaps}"
            case aiohttp.ClientConnectorCertificateError():
                cause = error.certificate_error
                return (
                    said(cause, secured=False) if isinstance(cause, ssl.SSLError) else _one_line(str(cause))
                )
            case aiohttp.ClientConnectorError():
                # Its own words repeat the address and asyncio's.
                cause = error.os_error
                return said(cause, secured=False) if isinstance(cause, ssl.SSLError) else words(cause)
            case aiohttp.ClientOSError():
                alert = error.__cause__
                told = said(alert, secured=True) if isinstance(alert, ssl.SSLError) else words(error)
                return f"connection lost: {told}{self._perhaps}"
        if isinstance(error, aiohttp.ClientResponseError):  # its text has a status of its own making, 400
            error = ValueError(f"the answer is no HTTP: {error.message}")
        elif isinstance(error, aiohttp.ClientPayloadError):  # its text is about encodings of transfers
            error = ValueError("the answer breaks off")
        return _one_line(str(error)) or type(error).__name__

    @property
    def _perhaps(self) -> str:
        """Why a peer may hang up: in TLS 1.3 that is how it refuses a certificate, or the lack of one."""
        return ", or wants another certificate of ours" if self._section.url.startswith("https:") else ""


async def _note_reused(_session: Any, context: SimpleNamespace, _params: Any) -> None:
    context.trace_request_ctx.reused = True


async def _read(method: str, response: "aiohttp.ClientResponse") -> bytes:
    """The whole answer, which has to be short."""
    text = bytearray()
    async for chunk in response.content.iter_chunked(8192):
        text += chunk
        if len(text) > _ANSWER_BYTES:
            raise NotConnected(f"{method} {response.url}: the answer does not end")
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
