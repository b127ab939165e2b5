"""One request for each event, in the form that a chat, a ticket system or an agent wants.

    {"text": "{severity}: {data.first_out.channel}"}  +  an event  ──▶  {"text": "high: plc.flow"}

See `links.http` for what is made of which answer.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import quote, urlsplit

import orjson
from pydantic import Field, field_validator

from dxad import event
from dxad.errors import Backoff, ConfigError, NotConnected, Rejected
from dxad.links.http import HttpLink, PeerSection
from dxad.placeholders import PLACES, Template, facts, follow
from dxad.plugin import Plugin
from dxad.sinksection import SinkSection
from dxad.types import Document, Record

__all__ = ["PLUGIN", "Config", "Webhook"]

_CLOUD_EVENT: Final = "application/cloudevents+json"
_DEEP: Final = ("data", "event")
"""What a place may go on from with a path: the event's data, and the event as a whole."""


def _template(text: str) -> Template:
    return Template(text, (*PLACES, *_DEEP), deep=_DEEP)


class Config(SinkSection, PeerSection):
    """`{ type = "webhook", url = "https://…", body = { text = "{pipeline}: {severity}" } }`."""

    names_gateway = True

    type: Literal["webhook"]
    method: Literal["POST", "PUT", "PATCH"] = Field("POST", description="of each request")
    body: dict[str, Any] | str | None = Field(
        None,
        description="a table that is sent as JSON, or a text, with places such as {pipeline}, {severity} and "
        "{data.onset_utc_ns}; a string that is one place alone becomes its value. Default: the CloudEvent",
    )
    content_type: str | None = Field(
        None, pattern=r"^[ -~]+$", description="of the body; default: JSON's, or that of plain text"
    )

    @field_validator("url")
    @classmethod
    def _one_host(cls, url: str) -> str:
        if "{" in urlsplit(url).netloc:
            raise ValueError("its host is one for all events; {…} may stand behind it")
        _check("", url)
        return url

    @field_validator("body")
    @classmethod
    def _filled_by_events(cls, body: Any) -> Any:
        for at, text in _strings(body, ""):
            _check(at, text)
        return body


class Webhook:
    """Makes a request of each event."""

    def __init__(self, name: str, config: Config, *, state_dir: Path, gateway: str) -> None:  # noqa: ARG002 - all sinks are made alike
        self._config = config
        self._gateway = gateway
        self._link = HttpLink(config)
        self._url = _template(config.url)
        self._body = _compiled(config.body)
        self._content_type = config.content_type or _content_type(config.body)

    async def connect(self) -> None:
        """Get ready; that the peer answers is seen at the first write.

        Raises:
            ConfigError: a secret, or a file of `tls`, is not there.
        """
        await self._link.open()

    async def write(self, records: Sequence[Record]) -> None:
        """Send the requests, one after the other.

        Raises:
            NotConnected: no answer, or none that says whether it has an event.
            Backoff: the peer said when to come back.
            Rejected: the peer finds fault with these.
        """
        refused: dict[int, str] = {}
        for place, record in enumerate(records):
            try:
                told = await self._send(record)
            except (TypeError, ValueError) as error:
                told = f"cannot be written as JSON: {error}"
            except (NotConnected, Backoff) as error:
                error.taken = min([*refused, place])
                raise
            if told is not None:
                refused[place] = told
        if refused:
            raise Rejected(sorted(refused), next(iter(refused.values())))

    async def close(self) -> None:
        """Let go of the connections."""
        await self._link.close()

    async def _send(self, record: Record) -> str | None:
        """Make the request; returns what the peer finds fault with."""
        document = event.decode(record)
        known: dict[str, Any] = {**facts(record, document, self._gateway), "data": document.get("data")}
        known["event"] = document
        body = orjson.dumps(document)
        if isinstance(self._body, Template):
            body = self._body.filled(lambda name: follow(name, known)).encode(errors="replace")
        elif self._body is not None:
            body = orjson.dumps(_filled(self._body, known))
        headers = {
            "Content-Type": self._content_type,
            "Idempotency-Key": f'"{event.identity(record.id)}"',
        }
        url = self._url.filled(lambda name: follow(name, known), lambda text: quote(text, safe=""))
        answer = await self._link.request(self._config.method, body, headers, url=url)
        return None if answer.taken() else answer.told


def _check(at: str, text: str) -> None:
    try:
        _template(text)
    except ConfigError as error:
        raise ValueError(f"{at}: {error}" if at else str(error)) from error


def _content_type(body: dict[str, Any] | str | None) -> str:
    match body:
        case None:
            return _CLOUD_EVENT
        case str():
            return "text/plain; charset=utf-8"
    return "application/json"


def _strings(value: Any, at: str) -> Iterator[tuple[str, str]]:
    """All strings in a body, with where they stand."""
    if isinstance(value, str):
        yield at, value
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield from _strings(each, f"{at}.{key}".lstrip("."))
    elif isinstance(value, list):
        for place, each in enumerate(value):
            yield from _strings(each, f"{at}.{place}".lstrip("."))


def _compiled(value: Any) -> Any:
    """The same with templates in place of strings."""
    match value:
        case str():
            return _template(value)
        case Mapping():
            return {key: _compiled(each) for key, each in value.items()}
        case list():
            return [_compiled(each) for each in value]
    return value


def _filled(value: Any, known: Document) -> Any:
    match value:
        case Template(sole=str(name)):
            return follow(name, known)
        case Template():
            return value.filled(lambda name: follow(name, known))
        case dict():
            return {key: _filled(each, known) for key, each in value.items()}
        case list():
            return [_filled(each, known) for each in value]
    return value


PLUGIN = Plugin(Config, Webhook)
