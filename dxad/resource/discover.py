"""Which fields a topic's messages have, when nobody has said so."""

import asyncio
from urllib.parse import urlsplit

import mqtt5

from dxad.decode.json import discover
from dxad.errors import ConfigError, DecodeError, NotConnected
from dxad.links.mqtt import open_link
from dxad.runtime.backoff import Backoff
from dxad.runtime.clock import Clock
from dxad.types import NS_PER_S, Document

__all__ = ["discovered"]


async def discovered(name: str, document: Document, clock: Clock) -> list[str]:
    """Wait for a message of an MQTT source; returns its numeric top-level fields, sorted, at most 64.

    Raises:
        ConfigError: the message has no such field.
    """
    waits = Backoff()
    while True:
        try:
            payload = await _first_message(document)
            fields = discover(payload)
        except NotConnected:
            await clock.sleep_until(clock.now() + int(waits.next_s() * NS_PER_S))
            continue
        except DecodeError as error:
            raise ConfigError(f"source {name!r}: its messages are not JSON objects: {error}") from error
        if not fields:
            raise ConfigError(f"source {name!r}: its messages have no numeric top-level field")
        return fields


async def _first_message(document: Document) -> bytes:
    arrived: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def message(packet: mqtt5.PublishPacket) -> None:
        if not arrived.done():
            arrived.set_result(bytes(packet.payload))

    def closed(error: NotConnected) -> None:
        if not arrived.done():
            arrived.set_exception(error)

    url = urlsplit(document["url"])
    hello = mqtt5.ConnectPacket(client_id="", keep_alive=15, clean_start=True)
    link = await open_link(url.hostname or "localhost", url.port or 1883, hello, message, closed)
    try:
        await link.subscribe([document["topic"]], 0)
        return await arrived
    finally:
        arrived.cancel()
        await link.close()
