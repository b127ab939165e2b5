"""Listens to an MQTT broker for a while. Subscribes and reads; publishes nothing, and leaves no session."""

import asyncio
import secrets
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import mqtt5

from dxad.commissioning import Patience, Watcher
from dxad.commissioning.topics import Tally
from dxad.errors import ConfigError, NotConnected
from dxad.links.mqtt import MqttLink, Version, open_link
from dxad.links.tls import TlsSection

__all__ = ["Broker", "broker_of", "listen"]

_PORTS: Final = {"mqtt": 1883, "mqtts": 8883}
_PACKET_MOST: Final = 1024 * 1024
_KEEP_ALIVE_S: Final = 30
_LOOK_S: Final = 0.2
_ALL: Final = "#"
_REFUSED: Final = "UNSUPPORTED_PROTOCOL_VERSION"


@dataclass(frozen=True, slots=True)
class Broker:
    """Where it is, and what to listen to."""

    scheme: str
    host: str
    port: int
    filter: str

    @property
    def url(self) -> str:
        """As a configuration has it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def broker_of(url: str) -> Broker:
    """Read `mqtt://HOST[:PORT][/TOPIC]`, in which a `#` is no fragment but part of the topic.

    Raises:
        ConfigError: it is none.
    """
    scheme, _, rest = url.partition("://")
    where, _, topic = rest.partition("/")
    wrong = ConfigError(f"{url!r} is not mqtt://host[:port][/topic], or mqtts://")
    try:
        split = urlsplit(f"{scheme}://{where}")
        port = split.port
    except ValueError as error:
        raise wrong from error
    if split.username is not None:
        raise ConfigError("a user does not stand in the url: give --user")
    if scheme not in _PORTS or not split.hostname or port == 0:
        raise wrong
    return Broker(scheme, split.hostname, port or _PORTS[scheme], unquote(topic) or _ALL)


async def listen(
    broker: Broker,
    tally: Tally,
    *,
    patience: Patience,
    watcher: Watcher,
    version: Version | None,
    username: str | None,
    password: str | None,
    tls: TlsSection,
) -> Version:
    """Count what comes until the time is over; returns the version of the protocol that was spoken.

    Raises:
        NotConnected: there is no broker, it refuses us, or it is gone.
        ConfigError: a file of TLS is not what it should be.
    """
    listening = _Listening(broker, tally, watcher)
    link, spoken = await listening.open(version, username=username, password=password, tls=tls)
    try:
        await link.subscribe([broker.filter], 0)
        while not (patience.over or tally.full):
            await asyncio.sleep(min(_LOOK_S, max(0.01, patience.left_s)))
            if listening.lost is not None:
                raise listening.lost
            watcher.doing(f"{tally.messages:,} messages on {len(tally.topics)} topics")
    finally:
        await link.close()
    return spoken


class _Listening:
    def __init__(self, broker: Broker, tally: Tally, watcher: Watcher) -> None:
        self.lost: NotConnected | None = None
        self._broker = broker
        self._tally = tally
        self._watcher = watcher
        self._loop = asyncio.get_running_loop()

    async def open(
        self, version: Version | None, *, username: str | None, password: str | None, tls: TlsSection
    ) -> tuple[MqttLink, Version]:
        """Connect in this version; without one, in the newest that the broker speaks."""
        if version is not None:
            return await self._open(version, username, password, tls), version
        try:
            return await self._open("5", username, password, tls), "5"
        except NotConnected as error:
            if "CONNECT" not in str(error) and _REFUSED not in str(error):
                raise
            try:
                return await self._open("3.1.1", username, password, tls), "3.1.1"
            except NotConnected:
                raise error from None

    async def _open(
        self, version: Version, username: str | None, password: str | None, tls: TlsSection
    ) -> MqttLink:
        login: dict[str, Any] = {} if username is None else {"username": username}
        if password is not None:
            login["password"] = password.encode()
        hello = mqtt5.ConnectPacket(
            client_id=f"dxad-sniff-{secrets.token_hex(4)}",
            keep_alive=_KEEP_ALIVE_S,
            clean_start=True,
            max_packet_size=_PACKET_MOST,
            **login,
        )
        self.lost = None
        return await open_link(
            self._broker.host,
            self._broker.port,
            hello,
            self._message,
            self._closed,
            version=version,
            tls=tls if self._broker.scheme == "mqtts" else None,
        )

    def _message(self, packet: mqtt5.PublishPacket) -> None:
        new = self._tally.message(
            packet.topic, bytes(packet.payload), retained=packet.retain, now=self._loop.time()
        )
        if new is not None:
            self._watcher.seen(f"{packet.topic}{' (retained)' if packet.retain else ''}")

    def _closed(self, error: NotConnected) -> None:
        self.lost = error
