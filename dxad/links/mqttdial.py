"""Connecting to a broker in the version of the protocol that it speaks, which is remembered."""

from collections.abc import Callable
from typing import Any, Literal

import mqtt5

from dxad.errors import NotConnected
from dxad.links.mqtt import MqttLink, Version, VersionRefusedError, open_link

__all__ = ["Dial", "Versions"]

Versions = Literal["auto", "5", "3.1.1"]
"""What a configuration says; auto: 5, or 3.1.1 where the broker refuses that."""


class Dial:
    """Opens links to one broker."""

    def __init__(self, version: Versions) -> None:
        self._versions: tuple[Version, ...] = ("5", "3.1.1") if version == "auto" else (version,)
        """In the order in which they are tried."""

    async def open(
        self,
        host: str,
        port: int,
        connect: mqtt5.ConnectPacket,
        on_publish: Callable[[mqtt5.PublishPacket], None],
        on_closed: Callable[[NotConnected], None],
        *,
        on_again: Callable[[], None],
        **how: Any,
    ) -> MqttLink:
        """A link in the first of our versions that the broker does not refuse; the next begins with that.

        Args:
            host: of the broker.
            port: likewise.
            connect: how we introduce ourselves.
            on_publish: called for every message.
            on_closed: called once for each attempt, with the reason.
            on_again: called before another version is tried, since `on_closed` has been called then.
            how: see `links.mqtt.open_link`.

        Raises:
            NotConnected: there is none, it is not to be trusted, or it refuses us.
            ConfigError: a file of TLS is not there, or is not what it should be.
        """
        refusal: VersionRefusedError | None = None
        for version in self._versions:
            try:
                link = await open_link(
                    host, port, connect, on_publish, on_closed,
                    version=version, sole=len(self._versions) == 1, **how,
                )  # fmt: skip
            except VersionRefusedError as error:
                refusal = refusal or error
                on_again()
                continue
            self._versions = (version, *(each for each in self._versions if each != version))
            return link
        assert refusal is not None
        if len(self._versions) == 1:
            raise refusal
        raise NotConnected(f"{refusal}; nor does it take MQTT {self._versions[-1]}")
