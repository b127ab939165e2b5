"""CloudEvents over MQTT: each record is a message of QoS 1, and its PUBACK means that the broker has it.

section.py    what a configuration says of it
topic.py      topics that an event fills
expiry.py     how long a broker has to keep a message

Source: CloudEvents 1.0.2, MQTT protocol binding, https://github.com/cloudevents/spec; MQTT 5.0 (OASIS, 2019)
§3.1.2.5 (last will), §3.4.2.1 (reason codes of PUBACK), §4.9 (flow control). In 3.1.1 a PUBACK has no reason:
a broker that drops what its access list forbids says nothing there.

==============================  ============================================================
PUBACK says                     what is made of it
==============================  ============================================================
success, nobody subscribes      the broker has it
not authorised                  somebody has to edit an access list: wait, lose nothing
quota exceeded                  wait
anything else                   it will not take this one: rejected
nothing, and hangs up           not connected; at the same message thrice: rejected
==============================  ============================================================
"""

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import mqtt5
import orjson

from dxad import event
from dxad.errors import Backoff, ConfigError, NotConnected, Rejected
from dxad.links import binarymode
from dxad.links.mqtt import MqttLink
from dxad.links.mqttdial import Dial
from dxad.links.mqttwindow import Window
from dxad.placeholders import facts
from dxad.plugin import Plugin
from dxad.runtime.clock import Clock, SystemClock, boot_id
from dxad.runtime.turns import in_turns
from dxad.sinks.mqtt.expiry import expiry_s
from dxad.sinks.mqtt.section import PORTS, Config
from dxad.sinks.mqtt.topic import TopicTemplate
from dxad.types import NS_PER_S, Record

__all__ = ["PLUGIN", "Config", "Mqtt"]

_CLOUD_EVENT: Final = "application/cloudevents+json; charset=utf-8"
_UNDER_WAY_BYTES: Final = 2**20
_TOGETHER_BYTES: Final = 2**16
"""Messages are sent in writes of about so much."""
_REFUSED: Final = 128
"""Reason codes from here on are refusals (MQTT 5, 2.4)."""
_NOT_AUTHORIZED: Final = 135
_PACKET_ID_IN_USE: Final = 145
_QUOTA_EXCEEDED: Final = 151
_WAITS_S: Final = {_NOT_AUTHORIZED: 30.0, _QUOTA_EXCEEDED: 10.0, _PACKET_ID_IN_USE: 1.0}
"""Reasons that have nothing to do with the message, and how long to stay away."""
_MENDS: Final = {
    _NOT_AUTHORIZED: "we may not publish there: look at the broker's access list",
    _QUOTA_EXCEEDED: "the broker's quota is used up",
}
_HANGS_UP_MOST: Final = 3
"""So often a broker may hang up at the same message, before that is taken for its answer."""
_GOODBYE_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class _Message:
    """What is published, but for its packet id."""

    topic: str
    payload: bytes
    retain: bool
    content_type: str | None = None
    properties: Sequence[tuple[str, str]] = ()
    expiry_s: int | None = None

    def packet(self, packet_id: int) -> mqtt5.PublishPacket:
        return mqtt5.PublishPacket(
            self.topic,
            self.payload,
            qos=mqtt5.QoS.AT_LEAST_ONCE,
            packet_id=packet_id,
            retain=self.retain,
            payload_format_indicator=1,  # it is UTF-8
            message_expiry_interval=self.expiry_s,
            content_type=self.content_type,
            user_properties=list(self.properties),
        )


class Mqtt:
    """Publishes records to a broker, over one connection."""

    def __init__(
        self,
        name: str,
        config: Config,
        *,
        state_dir: Path,  # noqa: ARG002 - likewise
        gateway: str,
        clock: Clock | None = None,
    ) -> None:
        self._config = config
        self._clock = clock or SystemClock()
        self._boot = boot_id()
        self._gateway = gateway
        self._topic = TopicTemplate(config.topic)
        self._status = TopicTemplate(config.status).filled({"gateway": gateway}) if config.status else None
        # The same for all connections, so that a broker which has not noticed the end of one ends it.
        self._client_id = config.client_id or f"dxad-{gateway}-{name}-{secrets.token_hex(3)}"
        self._dial = Dial(config.version)
        self._link: MqttLink | None = None
        self._window = Window(1, most_bytes=_UNDER_WAY_BYTES)
        self._lost: asyncio.Future[NotConnected] | None = None
        self._last_at: tuple[str, int] = "", 0
        """The message at which the connection has ended, and how often it did."""

    async def connect(self) -> None:
        """Connect, and say that we are there; a connection that stands is kept.

        Raises:
            NotConnected: the broker is not there, or refuses the login or the status.
            ConfigError: a file or a secret is not there, or the broker cannot do what is asked for.
        """
        if self._link is not None and self._lost is not None and not self._lost.done():
            return
        await self.close()
        url = urlsplit(self._config.url)
        assert url.hostname is not None
        hello = await asyncio.to_thread(self._hello)  # a secret may be on a slow card
        self._begin()
        self._link = await self._dial.open(
            url.hostname,
            url.port or PORTS[url.scheme],
            hello,
            lambda _message: None,  # we have asked for none
            self._ended,
            on_again=self._begin,
            on_receipt=self._answered,
            tls=self._config.secured,
            until_look=None,
        )
        answer = self._link.answer
        self._check(answer)
        self._window.allow(min(self._config.in_flight, answer.receive_max))
        await self._tell("online", within_s=self._config.timeout / NS_PER_S)

    async def write(self, records: Sequence[Record]) -> None:
        """Publish the records in order.

        Raises:
            NotConnected: the connection has ended, or the broker acknowledges nothing.
            Backoff: the broker takes nothing for now.
            Rejected: the broker will not take these.
        """
        link = self._link
        if link is None:
            raise NotConnected("not connected")
        refused: dict[int, str] = {}
        messages: dict[int, _Message] = {}
        async for place, record in in_turns(enumerate(records)):
            try:
                messages[place] = self._message(record)
            except (TypeError, ValueError) as error:
                refused[place] = f"cannot be written as JSON: {error}"
        try:
            await self._publish(link, messages, refused)
        except NotConnected as error:
            self._hung_up(records, refused, error)
        self._judge(records, refused)

    async def lost(self) -> None:
        """Wait until the connection has ended.

        Raises:
            NotConnected: it has, and why.
        """
        if self._lost is None:
            raise NotConnected("not connected")
        raise await asyncio.shield(self._lost)

    async def close(self) -> None:
        """Say that we go, and leave the broker; safe twice, and without `connect`."""
        link, self._link = self._link, None
        if link is None:
            return
        if self._lost is not None and not self._lost.done():
            with suppress(NotConnected, TimeoutError):
                await self._send_status(link, "offline", within_s=_GOODBYE_S)
        await link.close()

    # -- the connection -----------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._lost = asyncio.get_running_loop().create_future()
        self._window = Window(1, most_bytes=_UNDER_WAY_BYTES)

    def _answered(self, packet: mqtt5.PubAckPacket) -> None:
        self._window.answered(packet)

    def _ended(self, error: NotConnected) -> None:
        self._window.end(error)
        if self._lost is not None and not self._lost.done():
            self._lost.set_result(error)

    def _hello(self) -> mqtt5.ConnectPacket:
        config = self._config
        more: dict[str, Any] = {}
        if config.username is not None:
            more["username"] = config.username
        if config.password is not None:
            more["password"] = config.password.read().encode()
        if self._status is not None:
            more["will"] = mqtt5.Will(
                self._status, payload=b"offline", qos=mqtt5.QoS.AT_LEAST_ONCE, retain=True
            )
        return mqtt5.ConnectPacket(
            client_id=self._client_id, keep_alive=config.keep_alive // NS_PER_S, clean_start=True, **more
        )

    def _check(self, answer: mqtt5.ConnAckPacket) -> None:
        """Whether the broker can do what is asked for."""
        assert self._link is not None
        lacks = None
        if answer.max_qos == mqtt5.QoS.AT_MOST_ONCE:
            lacks = "takes messages of QoS 0 alone, which nobody acknowledges"
        elif not answer.retain_available and (self._config.retain or self._status is not None):
            lacks = 'keeps no messages: retain = false, status = ""'
        elif self._link.version == "3.1.1" and self._config.mode == "binary":
            lacks = 'speaks MQTT 3.1.1 alone, which has no user properties: mode = "structured"'
        if lacks is not None:
            raise ConfigError(f"{self._config.url}: the broker {lacks}")

    async def _tell(self, word: str, *, within_s: float) -> None:
        assert self._link is not None
        try:
            await self._send_status(self._link, word, within_s=within_s)
        except TimeoutError as error:
            told = f"{self._config.url}: the broker has not acknowledged {self._status} for {within_s:g} s"
            self._link.fail(told)
            raise NotConnected(told) from error

    async def _send_status(self, link: MqttLink, word: str, *, within_s: float) -> None:
        if self._status is None:
            return
        window = self._window
        window.begin()
        message = _Message(self._status, word.encode(), retain=True)
        link.transmit(link.encoded(message.packet(window.enter(0, 0))))
        while 0 not in window.answers:
            await window.moves(within_s)
        code = window.answers[0].reason_code
        if code.value >= _REFUSED:
            told = _refusal(self._status, window.answers[0])
            raise NotConnected(f'{self._config.url}: status: {told}; or status = ""')

    # -- messages -----------------------------------------------------------------------------------------

    def _message(self, record: Record) -> _Message:
        document = event.decode(record)
        topic = self._topic.filled(facts(record, document, self._gateway))
        expiry = expiry_s(record, document, self._clock, self._boot)
        if self._config.mode == "binary":
            body, content_type = binarymode.content(document)
            properties = list(binarymode.attributes(document).items())
            return _Message(topic, body, self._config.retain, content_type, properties, expiry)
        body = orjson.dumps(document)
        return _Message(topic, body, self._config.retain, _CLOUD_EVENT, expiry_s=expiry)

    async def _publish(
        self, link: MqttLink, messages: Mapping[int, _Message], refused: dict[int, str]
    ) -> None:
        """Send them all, as many at once as may be; returns when each was answered."""
        window, within_s = self._window, self._config.timeout / NS_PER_S
        window.begin()
        most = link.answer.max_packet_size
        together = bytearray()
        try:
            for place, message in messages.items():
                size = len(message.payload)
                while not window.has_room(size):
                    link.transmit(bytes(together))
                    together.clear()
                    await window.moves(within_s)
                packet_id = window.enter(place, size)
                data = link.encoded(message.packet(packet_id))
                if most is not None and len(data) > most:
                    window.leave(packet_id)
                    refused[place] = f"it is {len(data)} bytes, and the broker takes {most} at most"
                    continue
                together += data
                if len(together) >= _TOGETHER_BYTES:
                    link.transmit(bytes(together))
                    together.clear()
            link.transmit(bytes(together))
            while not window.empty:
                await window.moves(within_s)
        except TimeoutError as error:
            told = f"{self._config.url}: the broker has acknowledged nothing for {within_s:g} s"
            link.fail(told)
            raise NotConnected(told) from error

    def _hung_up(self, records: Sequence[Record], refused: dict[int, str], error: NotConnected) -> None:
        """The connection has ended: whether that is the broker's answer to a message.

        Raises:
            NotConnected: it is not; the first records that the broker has are told.
        """
        answers = self._window.answers
        taken = next(
            (
                place
                for place in range(len(records))
                if place in refused or place not in answers or answers[place].reason_code.value >= _REFUSED
            ),
            len(records),
        )
        waiting = next(
            (place for place in range(len(records)) if place not in answers and place not in refused), None
        )
        if waiting is not None:
            last, times = self._last_at
            id_ = records[waiting].id
            self._last_at = id_, times + 1 if last == id_ else 1
            if self._last_at[1] >= _HANGS_UP_MOST and len(records) == 1:
                self._last_at = "", 0
                refused[waiting] = f"the broker hangs up at it, time and again: {error}"
                return
        raise NotConnected(str(error), taken=min(taken, len(records))) from error

    def _judge(self, records: Sequence[Record], refused: dict[int, str]) -> None:
        """Say what the broker has not taken.

        Raises:
            Backoff: it is not the messages' fault.
            Rejected: it is.
        """
        answers = self._window.answers
        for place in range(len(records)):
            answer = answers.get(place)
            if answer is None or answer.reason_code.value < _REFUSED:
                continue
            told = _refusal(self._topic_of(records[place]), answer)
            seconds = _WAITS_S.get(answer.reason_code.value)
            if seconds is not None:
                raise Backoff(seconds, f"{self._config.url}: {told}", taken=min([*refused, place]))
            refused[place] = told
        if refused:
            raise Rejected(sorted(refused), next(iter(refused.values())))

    def _topic_of(self, record: Record) -> str:
        return self._topic.filled(facts(record, event.decode(record), self._gateway))


def _refusal(topic: str, answer: mqtt5.PubAckPacket) -> str:
    said = f"{answer.reason_code.name} {answer.reason_str or ''}".rstrip()
    mend = _MENDS.get(answer.reason_code.value)
    return f"the broker refuses {topic!r}: {said}" + (f" ({mend})" if mend else "")


PLUGIN = Plugin(Config, Mqtt)
