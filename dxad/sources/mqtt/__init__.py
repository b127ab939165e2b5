"""Readings over MQTT: JSON, or any other decoder's payload, from one topic or several.

section.py    what a configuration says of it
receipts.py   messages that the broker was not told of yet
inflight.py   how many of those it sends
topic.py      topics, filters, and templates in which a level names a device
devices.py    which device has which columns
liveness.py   which device is alive
"""

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import mqtt5

from dxad.errors import DecodeError, NotConnected
from dxad.links.looks import until_beat
from dxad.links.mqtt import MqttLink
from dxad.links.mqttdial import Dial
from dxad.links.mqttsession import Session
from dxad.plugin import Plugin
from dxad.runtime.clock import Clock
from dxad.sources import Inbox, Intake
from dxad.sources.mqtt.devices import Fleet, Places
from dxad.sources.mqtt.inflight import InFlight
from dxad.sources.mqtt.liveness import EVERYTHING, Liveness
from dxad.sources.mqtt.receipts import Receipts
from dxad.sources.mqtt.section import PORTS, Config, MqttChannel, Subscription
from dxad.sources.mqtt.topic import matches
from dxad.types import NS_PER_S, Block, Channel, Quality, Reason

__all__ = ["PLUGIN", "Config", "Mqtt", "MqttChannel"]

_PROOF: Final = 1.5
"""Keep-alives for which a packet proves the session alive."""
_EXACTLY_ONCE: Final = 2
_HEADER_MAX: Final = 65_536
"""Bytes of a packet beside its payload: a topic and its properties."""
_COALESCE_S: Final = 0.005
_READ_AT_ONCE: Final = 1_000
"""Values; so many do not wait for the rest of what came with them."""
_DOUBTFUL_NS: Final = 5 * NS_PER_S
"""After so long without any message, a shared subscription may be none."""
_ROUTES_MOST: Final = 10_000
"""Topics that are remembered."""
_UNACKNOWLEDGED_MAX: Final = 2_000
"""Messages that the broker may send before the first of them has been staged and acknowledged."""
_IN_FLIGHT_MAX: Final = 65_535
"""The same where the outbox takes its time: all that MQTT can count (MQTT 5, 3.1.2.11.3)."""


class Mqtt:
    """Subscribes, decodes, and acknowledges a message once its samples are in the ring, or in the outbox."""

    def __init__(self, name: str, config: Config, *, clock: Clock, state_dir: Path | None = None) -> None:
        """Read as `config` says; which device has which columns is kept below `state_dir`."""
        self.channels: Sequence[Channel] = config.declared(name)
        self._name = name
        self._config = config
        self._clock = clock
        self.coalesce_s, self.patience_s = _COALESCE_S, 0.0
        self._between_s = 0.0
        """From one look at the network to the next; 0: as soon as something comes."""
        self._inbox = Inbox(config, hold=self._hold)
        intakes = [(each, self._intake(each)) for each in config.subscriptions() if not each.by_device]
        self._plain = {each.topic: intake for each, intake in intakes if not each.wild}
        self._wild = [(each.topic, intake) for each, intake in intakes if each.wild]
        self._arrival = 0
        """When what is being taken in came, on the stream clock; 0 between two looks at the network."""
        self._routes: dict[str, Sequence[Intake]] = {}
        """By topic."""
        kept = None if state_dir is None else state_dir / "sources" / f"{name}.state"
        self._fleet: Fleet | None = None
        if config.groups:
            by_device = [each for each in config.subscriptions() if each.by_device]
            self._fleet = Fleet(by_device, Places(config.groups, kept), self._intake, self._reject)
        widest = max((len(each.columns) for each in config.subscriptions()), default=1)
        most = _IN_FLIGHT_MAX if config.awaits_outbox else _UNACKNOWLEDGED_MAX
        self._most = max(1, min(most, config.queue // widest))
        """Messages that the broker may send unacknowledged: all of them find room."""
        self._dial = Dial(config.version)
        self._session: Session | None = None
        if config.qos == _EXACTLY_ONCE or config.session is not None:
            self._session = Session(prompt=not config.awaits_outbox)
        self._link: MqttLink | None = None
        self._subscribed_at = 0
        self._came_before = 0
        """Messages that had come when the subscription was granted."""
        self._known = False
        """Whether there has been a session that the broker should remember."""
        self._receipts = Receipts()
        self._in_flight = InFlight(self._most, told=True)
        self._at_once = min(_READ_AT_ONCE, config.queue // 2)
        self._full = False
        """Whether as many of them wait as may, and the network keeps what else there is."""

        self._liveness: Liveness | None = None
        if config.heartbeat is not None or config.status is not None or config.max_age is not None:
            self._liveness = Liveness(config, clock, died=self._died, reject=self._reject)

    def _died(self, device: str, reason: Reason) -> None:
        """A device is not proved alive any more: say so of its channels, and hold nothing of it."""
        width, first, count = len(self._config.channels), 0, len(self.channels)
        if device != EVERYTHING and self._fleet is not None:
            place = self._fleet.places.known(device)
            if place is None:
                return
            first, count = place * width, width
        of = self.devices
        self._inbox.begin(self._clock.now())
        for column in range(first, first + count):
            if of[column]:  # else it is nobody's yet
                self._inbox.put(column, None, Quality.BAD, reason)

    def _intake(self, of: Subscription, place: int = 0) -> Intake:
        """What takes in the messages of a subscription, or those of the device at a place in the columns."""
        timed = self._config.time is not None
        columns = tuple(place * len(self._config.channels) + column for column in of.columns)
        whole = columns == tuple(range(len(self.channels)))
        return Intake(self._inbox, of.decoder, columns, timed=timed, all_columns=whole)

    @property
    def overflowed(self) -> int:
        """Samples dropped because nobody read them."""
        return self._inbox.overflowed

    @property
    def traffic(self) -> Mapping[str, int]:
        """Messages that came, also malformed ones; one that holds several samples is so many."""
        return {"messages": self._inbox.came}

    @property
    def devices(self) -> Sequence[str]:
        """By column, the device that the topic names; else the topic, since each device has its own."""
        if self._fleet is None:
            return [self._config.topic_of(each) for each in self._config.channels]
        return [each for each in self._fleet.places.devices for _ in self._config.channels]

    @property
    def faults(self) -> Mapping[str, int]:
        """Messages of devices for which there was no place; and how often devices were found dead."""
        refused = {} if self._fleet is None else self._fleet.places.refused
        return refused if self._liveness is None else {**refused, **self._liveness.ends}

    @property
    def advice(self) -> str:
        """Why nothing may come over a connection that is well, and what to do; nothing where something comes.

        MQTT 3.1.1 has no shared subscriptions. Many of its brokers know them all the same; others grant
        `$share/…` as if it were a topic like any other, to which nobody ever publishes.
        """
        if self._config.share is None or self._link is None or self._link.version != "3.1.1":
            return ""
        if self._inbox.came > self._came_before or self._clock.now() - self._subscribed_at < _DOUBTFUL_NS:
            return ""
        return (
            "no message has come over the shared subscription: the broker speaks MQTT 3.1.1, and may not know"
            " those; leave out `share`, or have a broker of MQTT 5"
        )

    @property
    def alive_until(self) -> int:
        """Up to when the session is proved alive, on the stream clock."""
        if self._link is None:
            return 0
        silent_s = asyncio.get_running_loop().time() - self._link.alive_at
        return self._clock.now() + int((_PROOF * self._link.keep_alive_s - silent_s) * NS_PER_S)

    async def connect(self) -> None:
        """Connect and subscribe, with a fresh connection.

        Raises:
            NotConnected: the broker is not there, or refuses the login or a subscription.
            ConfigError: the password, or a file of TLS, is not where the configuration says.
        """
        await self.close()
        if self._fleet is not None:
            await self._fleet.load()
        url = urlsplit(self._config.url)
        assert url.hostname is not None
        hello = self._hello()
        self._inbox.open()
        self._between_s = self.coalesce_s
        if self._config.period is not None:
            period_s = self._config.period / NS_PER_S
            self._between_s = min(self.coalesce_s, period_s / 2)  # what a look brings is of one arrival
            patience_s = min(self.patience_s, period_s / 10)
            # To wait until after the next look, or not so long, costs a wake-up and brings nothing together.
            self._inbox.patience_s = patience_s if patience_s >= 2 * self._between_s else 0.0
        port = url.port or PORTS[url.scheme]
        if self._liveness is not None:
            self._liveness.begin()
        self._link = await self._dial.open(
            url.hostname,
            port,
            hello,
            self._message,
            self._closed,
            on_again=self._inbox.open,
            on_looked=self._looked,
            on_too_large=self._reject,
            session=self._session,
            tls=self._config.secured,
            until_look=until_beat(self._clock, self._between_s) if self._between_s else None,
        )
        if not self._known:
            self._in_flight = InFlight(self._most, told=self._link.version == "5")
        if not self._link.session_present:
            self._receipts.end(keep=lambda _: False)
        if self._config.session is not None and self._known and not self._link.session_present:
            self._inbox.remark("the broker has forgotten the session, and what it had kept")
        await self._link.subscribe(self._config.filters(), self._config.qos)
        self._subscribed_at, self._came_before = self._clock.now(), self._inbox.came
        self._known = True
        self._settle()

    def _hello(self) -> mqtt5.ConnectPacket:
        config = self._config
        login: dict[str, Any] = {}
        if config.username is not None:
            login["username"] = config.username
        if config.password is not None:
            login["password"] = config.password.read().encode()
        return mqtt5.ConnectPacket(
            client_id=config.client_id or f"dxad-{self._name}-{secrets.token_hex(3)}",
            keep_alive=config.keep_alive // NS_PER_S,
            clean_start=config.session is None,
            session_expiry_interval=(config.session or 0) // NS_PER_S,
            receive_max=self._most,
            max_packet_size=config.decode.max_payload + _HEADER_MAX,
            **login,
        )

    def _hold(self, held: bool) -> None:  # noqa: FBT001 - called by the inbox alone
        """Leave what comes to the broker and the network, or take it again."""
        if self._link is not None and (held or not self._full):
            self._link.hold(held=held)

    def _closed(self, error: NotConnected) -> None:
        self._inbox.lose(str(error))

    def _reject(self, reason: str) -> None:
        self._inbox.reject(self._clock.now(), reason)

    def _message(self, packet: mqtt5.PublishPacket) -> None:
        """Take in one message; most are staged when all that came with them is there."""
        topic = packet.topic
        intakes = self._routes.get(topic) or self._route(topic)
        now = self._arrival or self._arriving()
        if packet.retain or len(intakes) != 1 or not intakes[0].gather(now, packet.payload):
            self._take(now, packet, intakes)
        if self._liveness is not None:
            self._liveness.hear(packet.topic, packet.payload, retained=packet.retain)
        if packet.packet_id is not None:
            self._receipts.stage(packet.packet_id)
            if self._unacknowledged >= self._most or self._inbox.idle:
                self._bound()

    def _arriving(self) -> int:
        """When what comes together does: one look at the clock for all of it."""
        self._arrival = self._clock.now()
        return self._arrival

    def _take(self, now: int, packet: mqtt5.PublishPacket, intakes: Sequence[Intake]) -> None:
        """Stage one message's samples; a malformed one is counted, and told at the next read."""
        for intake in intakes:
            if packet.retain:
                intake.take(now, packet.payload, Quality.UNCERTAIN, Reason.RETAINED)
            else:
                intake.take(now, packet.payload)

    def _looked(self, whole: bool) -> None:  # noqa: FBT001 - called by the link alone
        """That was all for now; or not `whole`: there is more to be read together with it."""
        if whole:
            self._arrival = 0
        if self._config.awaits_outbox:
            self._in_flight.look(asyncio.get_running_loop().time(), len(self._receipts))
        gathered = self._inbox.gathered
        if gathered.messages and (whole or gathered.width >= self._at_once):
            self._inbox.note_gathered()

    def _bound(self) -> None:
        """Wait with taking more, whatever the broker makes of our maximum; or nobody wants what came."""
        if self._inbox.idle:
            self._receipts.hand_over(as_block=False)
            self._settle()
        if self._unacknowledged >= self._most and not self._full and self._link is not None:
            self._full = True
            self._inbox.hurry()
            self._link.hold(held=True)

    @property
    def _unacknowledged(self) -> int:
        """How many messages count against what the broker may send."""
        return len(self._receipts) if self._config.awaits_outbox else self._receipts.staged

    def confirm(self, ticket: int) -> None:
        """All samples up to those of this block are stored where the broker need not keep them any more."""
        self._receipts.store(ticket)
        self._settle()

    def _settle(self) -> None:
        """Acknowledge what is due, and go on if there is room again."""
        if self._link is None:
            return
        due = self._receipts.due()
        if due:
            self._link.acknowledge(due)
            self._in_flight.tell(asyncio.get_running_loop().time(), len(self._receipts))
        if self._full and self._unacknowledged < self._most:
            self._full = False
            self._link.hold(held=False)

    @property
    def pressed(self) -> bool:
        """Whether the broker may soon send nothing more before something is acknowledged."""
        return 2 * len(self._receipts) >= self._in_flight.limit

    def _route(self, topic: str) -> Sequence[Intake]:
        """Who takes messages of a topic; kept for the next one, unless a device has no place."""
        found = [self._plain[topic]] if topic in self._plain else []
        found += [intake for pattern, intake in self._wild if matches(pattern, topic)]
        if self._fleet is not None:
            found += self._fleet.taking(topic)
        if found:
            if len(self._routes) >= _ROUTES_MOST:
                self._routes.clear()
            self._routes[topic] = found
        return found

    async def read(self) -> Block:
        """All samples that came since the last call.

        Raises:
            NotConnected: the connection is gone, and every sample that came before has been read.
            DecodeError: messages were malformed; the good ones among them have been read.
        """
        if self._link is None:
            raise NotConnected("not connected")
        if not self._config.awaits_outbox:  # whoever asks for more has what he was given
            self.confirm(self._receipts.block)
        if self._fleet is not None and self._fleet.places.unsaved:
            await self._fleet.save()
        try:
            block = await self._inbox.block()
        except DecodeError:
            self._receipts.hand_over(as_block=False)  # it would be malformed again
            self._settle()
            raise
        self._receipts.hand_over(as_block=True)
        self._settle()
        return Block(block.samples, ticket=self._receipts.block)

    async def close(self) -> None:
        """Leave the broker; safe twice, and without `connect`."""
        if self._liveness is not None:
            self._liveness.end()
        link, self._link = self._link, None
        self._full = False
        self._receipts.end(keep=self._half_received)
        if link is not None:
            await link.close()

    def _half_received(self, packet_id: int) -> bool:
        """Whether a message of QoS 2 is still on its way into the outbox: it is not taken a second time."""
        return self._config.awaits_outbox and self._session is not None and self._session.awaits(packet_id)


PLUGIN = Plugin(Config, Mqtt)
