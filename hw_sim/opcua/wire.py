"""The OPC-UA wire: a server with the nodes of its devices.

Its address space takes a second to build, so it is built once. What stops and starts is its network side; all
sessions end with it, as those of a killed process do. Whatever faults are on or off, `_settle` brings the
server from how it is to how it should be.

It counts `starts`, `connections`, `sessions`, what it `refused` of sessions and logins, `values` that were
written to variables and how many of these were `bad` or `uncertain`, how many values were `notified` to
subscribers, how many of those were `unsent` since their connection was gone, how many attributes were `read`,
how many of them were `polled`, values of the devices' own variables, and how many messages were `delayed`
or `held`.
"""

import asyncio
import copy
import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, cast

from asyncua import ua
from asyncua.server.server import Server
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.status_codes import StatusCodes

from hw_sim.bench import Bench
from hw_sim.fault import Fault
from hw_sim.fault import Settings as FaultSettings
from hw_sim.opcua.gate import Line, Listener
from hw_sim.opcua.history import History
from hw_sim.opcua.pki import Pki, default_folder, load_trusted
from hw_sim.opcua.section import Kind, Settings
from hw_sim.opcua.session import Doors, Sessions
from hw_sim.opcua.space import Space
from hw_sim.opcua.variable import PLAIN, Look, at_once
from hw_sim.ports import free_port
from hw_sim.section import LOOPBACK
from hw_sim.wire import Due, Endpoint, Wire

__all__ = ["OpcuaWire", "Patience", "build"]

_PATIENCE_S: Final = 2.0
_LOOK_AGAIN_S: Final = 0.002
_LAST_USABLE: Final = "LastUsableValue"
_MODES: Final = ("Sign", "SignAndEncrypt")

_log = logging.getLogger(__name__)


def build(name: str, settings: Settings, bench: Bench) -> Wire:
    """The wire of a section."""
    return OpcuaWire(name, settings, bench)


class Patience:
    """How long to wait for a client: for ever, as long as it fetches anything at all."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._least = math.inf
        self._deadline = 0.0

    def lost(self, waiting: int, now_s: float) -> bool:
        """Whether for so long nothing has been fetched of what waits."""
        if waiting < self._least:
            self._least, self._deadline = waiting, now_s + self._limit_s
        return now_s > self._deadline


class OpcuaWire(Wire):
    """A server on loopback and whatever is wrong with it."""

    kind = "opcua"

    def __init__(self, name: str, settings: Settings, bench: Bench) -> None:
        super().__init__(name, settings, bench)
        self.uri = f"urn:hw-sim:server:{name}"
        """Of the application."""
        self._settings = settings
        self._port = settings.port
        self._line = Line(self.counts)
        self._space = Space(settings, bench, self.counts)
        self._sessions = Sessions(settings, Doors(), self._trusted, self._line)
        self._server = Server(iserver=self._sessions)
        self._pki: Pki | None = None
        self._listener: Listener | None = None
        self._started = False
        self._shifted = False
        self._second = False
        self._clock = Due(1.0)
        self._stopped_at_s: float | None = None
        """What the server's clock shows while it stands."""
        self._stuck: set[int] = set()
        """Subscriptions whose client does not fetch what there is."""

    @property
    def url(self) -> str:
        """Of the server."""
        return f"opc.tcp://{LOOPBACK}:{self._port}/{self._settings.path}"

    @property
    def delivered(self) -> int:
        """In values."""
        return self.counts["notified"]

    @property
    def endpoints(self) -> dict[str, Endpoint]:
        """By device, the server and the device's nodes."""
        security = ", ".join(self._settings.security)
        logins = [
            *(["anonymous"] if self._settings.by_nothing else []),
            *(f"user {user}" for user in self._settings.users),
            *(["certificate"] if self._settings.by_certificate else []),
        ]
        keys = f"; keys in {self._folder}" if self._settings.has_keys else ""
        return {
            name: Endpoint(
                self.url,
                f"OPC-UA, {device.namespace}, "
                f"{' '.join(each.node for each in device.nodes.values())}; {security}; "
                f"{', '.join(logins)}{keys}",
            )
            for name, device in self._settings.devices.items()
        }

    async def start(self) -> None:
        """Build the address space and listen.

        Raises:
            OSError: the port is taken, or the folder of the keys is not to be used.
        """
        logging.getLogger("asyncua").setLevel(logging.CRITICAL + 1)  # it logs each client that leaves
        self._port = self._port or free_port()
        if self._settings.has_keys:
            self._pki = await asyncio.to_thread(Pki.load, self._folder, self.uri)
        server = self._server
        await server.init()
        server.set_endpoint(self.url)
        server.set_server_name(f"hw_sim {self.name}")
        await server.set_application_uri(self.uri)
        server.set_security_policy(self._policies)
        self._sessions.history_manager.set_storage(History(self._space.pasts))
        self._started = True
        await self._space.build(server, shifted=False, now_s=self.now())
        await self._listen()

    async def close(self) -> None:
        """Stop for good."""
        await self._hang_up()
        if self._started:
            self._started = False
            await self._server.stop()

    def step(self) -> None:
        """The plant has gone on: write what is due."""
        self._space.step(self._time)
        if self._stopped_at_s is None and self._clock.passed(self.bench.at_s):
            self._tell_time(self.now())

    async def ready(self) -> None:
        """Wait until no subscription has a full queue, but not for a client that fetches nothing."""
        if self._listener is None or self._line.held:
            return
        loop = asyncio.get_running_loop()
        patience = Patience(_PATIENCE_S)
        while (full := self._full()).keys() - self._stuck:
            if patience.lost(sum(full.values()), loop.time()):
                _log.warning("wire %s: a client fetches nothing of what it has subscribed to", self.name)
                self._stuck |= full.keys()
                return
            await asyncio.sleep(_LOOK_AGAIN_S)
        self._stuck &= full.keys()

    def _full(self) -> dict[int, int]:
        """The subscriptions that would lose a value if there were one more; how many wait in each."""
        found: dict[int, int] = {}
        for number, subscription in self._sessions.subscription_service.subscriptions.items():
            items = subscription.monitored_item_srv._monitored_items  # noqa: SLF001 - asyncua tells it nowhere
            queues = subscription._triggered_datachanges  # noqa: SLF001
            if any(
                item in items and 0 < items[item].queue_size <= len(queue) for item, queue in queues.items()
            ):
                found[number] = sum(map(len, queues.values()))
        return found

    async def switch(self, active: Sequence[Fault]) -> None:
        """Have these faults on, and no others."""
        await super().switch(active)
        await self._settle()

    async def _settle(self) -> None:
        """Bring the server to how the faults want it."""
        wanted = not self._on("stop") and not all(self.off(device) for device in self.devices)
        shifted, second = self._on("namespace"), self._on("certificate")
        if not wanted or (shifted, second) != (self._shifted, self._second):
            await self._hang_up()
        self._set_clock(stands=self._on("stopped_clock"))
        if shifted != self._shifted:
            self._shifted = shifted
            await self._space.build(self._server, shifted=shifted, now_s=self._time())
        self._second = second
        self._space.look(self._look, self._time())
        slow = self.fault("slow")
        self._line.set(held=self._on("half_open"), delay_s=float(slow["delay"]) if slow else 0.0)
        await self._sessions.shut(
            Doors(
                sessions=self._on("no_sessions"),
                logins=self._on("no_login"),
                subscriptions=self._on("no_subscriptions"),
            )
        )
        if wanted and self._listener is None:
            await self._listen()

    async def _listen(self) -> None:
        """Have a network side, with the endpoints and the certificate of now."""
        server, sessions = self._server, self._sessions
        if self._pki is not None:
            identity = self._pki.second if self._second else self._pki.server
            sessions.certificate, sessions.private_key = identity.certificate, identity.key
        sessions.endpoints.clear()
        server._policies.clear()  # noqa: SLF001 - else it makes them once, at its own start
        await server._setup_server_nodes()  # noqa: SLF001
        listener = Listener(sessions, server._policies, server.limits, self._line)  # noqa: SLF001
        await listener.open(self._port)
        self._listener = listener
        self.counts["starts"] += 1
        await sessions.start()

    async def _hang_up(self) -> None:
        """Have no network side, no connection and no session."""
        listener, self._listener = self._listener, None
        if listener is not None:
            await listener.close()
            await self._sessions.end_sessions()
            self._stuck.clear()

    def _look(self, device: str, channel: str, before: Look) -> Look:
        """What the faults make of a variable; a frozen one stays as it was."""
        removed = bool(self._fault("node_removed", device, channel))
        if self._on("frozen", device):
            return replace(before, frozen=True, removed=removed)
        look = replace(PLAIN, removed=removed)
        if bad := self._fault("bad_status", device, channel):
            look = replace(look, status=_code(bad["code"]))
        elif self.off(device):
            look = replace(look, status=StatusCodes.BadNoCommunication)
        elif uncertain := self._fault("uncertain_status", device, channel):
            holds = str(uncertain["code"]).endswith(_LAST_USABLE)
            look = replace(look, status=_code(uncertain["code"]), holds=holds)
        if retyped := self._fault("wrong_type", device, channel):
            look = replace(look, kind=cast("Kind", retyped["kind"]))
        if stamps := self.fault("wrong_timestamps", device):
            look = replace(look, ahead_s=float(stamps["by"]))
        if self._on("no_timestamps", device):
            look = replace(look, stamped=False)
        return PLAIN if look == PLAIN else look

    def _on(self, name: str, device: str = "") -> bool:
        return self.fault(name, device) is not None

    def _fault(self, name: str, device: str, channel: str) -> FaultSettings | None:
        """The settings of a fault, while it is on for this variable."""
        for fault in self.active:
            settings = fault.settings
            if (
                (fault.kind.wire, fault.kind.short) == (self.kind, name)
                and settings["device"] in {"", device}
                and settings["channel"] in {"", channel}
            ):
                return settings
        return None

    def _time(self) -> float:
        """What the server's clock shows."""
        return self.now() if self._stopped_at_s is None else self._stopped_at_s

    def _set_clock(self, *, stands: bool) -> None:
        if not stands:
            self._stopped_at_s = None
        elif self._stopped_at_s is None:
            self._stopped_at_s = self.now()
            self._tell_time(self._stopped_at_s)

    def _tell_time(self, now_s: float) -> None:
        """Write the server's CurrentTime."""
        now = datetime.fromtimestamp(now_s, UTC)
        at_once(self._sessions.current_time_node.write_value(now))
        aspace, status_id = self._sessions.aspace, ua.NodeId(ua.Int32(ObjectIds.Server_ServerStatus))
        value = aspace.read_attribute_value(status_id, AttributeIds.Value).Value
        if value is not None and value.Value is not None:
            status = copy.copy(value.Value)
            status.CurrentTime = now
            at_once(self._sessions.server_status_node.write_value(status))

    def _trusted(self) -> frozenset[bytes]:
        folders = [self._folder / "trusted", self._settings.trusted]
        return load_trusted(folder for folder in folders if folder is not None)

    @property
    def _folder(self) -> Path:
        return self._settings.pki or default_folder(self._port)

    @property
    def _policies(self) -> list[ua.SecurityPolicyType]:
        """As asyncua names them: the policies, each with its modes."""
        found = []
        for policy in self._settings.security:
            if policy == "None":
                found.append(ua.SecurityPolicyType.NoSecurity)
            else:
                found += [ua.SecurityPolicyType[f"{policy}_{mode}"] for mode in _MODES]
        return found


def _code(name: str | float) -> int:
    return cast("int", getattr(StatusCodes, str(name)))
