"""The drive, on OPC-UA: power ten times a second, set-point and state when they change.

Namespace `urn:hw-sim:pump-skid`; nodes `s=Pump.Power` (kW, Double), `s=Pump.SetPoint` (rpm, Double) and
`s=Pump.Running` (Boolean). Anonymous, no security.
"""

import asyncio
import logging
from collections.abc import Mapping
from datetime import UTC
from typing import Final

from asyncua import ua
from asyncua.server.server import Server

from hw_sim.bench import Bench
from hw_sim.pace import Pace
from hw_sim.scenario import LOOPBACK
from hw_sim.tasks import background, end
from hw_sim.wire import Wire

__all__ = ["NAMESPACE", "OpcuaWire"]

NAMESPACE: Final = "urn:hw-sim:pump-skid"
_PERIOD_S: Final = 0.1
_NODES: Final[Mapping[str, tuple[str, ua.VariantType]]] = {
    "drive.power": ("Power", ua.VariantType.Double),
    "drive.setpoint": ("SetPoint", ua.VariantType.Double),
    "drive.running": ("Running", ua.VariantType.Boolean),
}


class OpcuaWire(Wire):
    """A server; away means that nothing listens and all sessions are gone.

    Its address space takes seconds to build, so it is built once: away, only the network side is.
    """

    device = "drive"
    about = f"OPC-UA, {NAMESPACE}, s=Pump.Power s=Pump.SetPoint s=Pump.Running"

    def __init__(self, bench: Bench, *, port: int) -> None:
        self.endpoint = f"opc.tcp://{LOOPBACK}:{port}/pump-skid"
        self._bench = bench
        self._server: Server | None = None
        self._updates: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen, and keep the nodes up to date."""
        logging.getLogger("asyncua").setLevel(logging.CRITICAL + 1)  # it logs each client that leaves
        if self._server is None:
            server = Server()
            nodes = await self._build(server)
            await server.start()
            self._server = server
            self._updates = background(self._update(server, nodes), name="drive")
        else:
            assert self._server.bserver is not None
            await self._server.bserver.start()

    async def _build(self, server: Server) -> Mapping[str, ua.NodeId]:
        """The address space; returns the node of each channel."""
        await server.init()
        server.set_endpoint(self.endpoint)
        await server.set_application_uri("urn:hw-sim:server")
        server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        namespace = await server.register_namespace(NAMESPACE)
        pump = await server.nodes.objects.add_object(_node_id("Pump", namespace), "Pump")
        nodes = {}
        for channel, (name, kind) in _NODES.items():
            nodes[channel] = _node_id(f"Pump.{name}", namespace)
            await pump.add_variable(nodes[channel], name, _variant(self._bench.readings[channel], kind))
        return nodes

    async def _update(self, server: Server, nodes: Mapping[str, ua.NodeId]) -> None:
        shown: dict[str, float] = {}
        pace = Pace(_PERIOD_S)
        while True:
            for channel, node in nodes.items():
                value = self._bench.readings[channel]
                if shown.get(channel) != value:
                    shown[channel] = value
                    variant = _variant(value, _NODES[channel][1])
                    await server.write_attribute_value(
                        node, ua.DataValue(variant, SourceTimestamp=ua.DateTime.now(UTC))
                    )
            await pace.beat()

    async def stop(self) -> None:
        """Stop listening and drop the sessions."""
        if self._server is not None and self._server.bserver is not None:
            await self._server.bserver.stop()

    async def close(self) -> None:
        """Stop for good."""
        updates, self._updates = self._updates, None
        if updates is not None:
            await end(updates)
        server, self._server = self._server, None
        if server is not None:
            await server.stop()


def _node_id(name: str, namespace: int) -> ua.NodeId:
    return ua.NodeId.from_string(f"ns={namespace};s={name}")


def _variant(value: float, kind: ua.VariantType) -> ua.Variant:
    return ua.Variant(bool(value) if kind is ua.VariantType.Boolean else value, kind)
