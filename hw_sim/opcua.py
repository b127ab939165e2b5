"""The drive, on OPC-UA: power ten times a second, set-point and state when they change.

Namespace `urn:hw-sim:pump-skid`, nodes `s=Pump.Power` (kW), `s=Pump.SetPoint` (rpm), `s=Pump.Running`.
"""

import asyncio
import logging

from asyncua import ua
from asyncua.common.node import Node
from asyncua.server.server import Server

from hw_sim.bench import Bench

__all__ = ["NAMESPACE", "OpcuaWire"]

NAMESPACE = "urn:hw-sim:pump-skid"
_PERIOD_S = 0.1


class OpcuaWire:
    """A server; down means that nothing listens."""

    device = "drive"

    def __init__(self, bench: Bench, *, port: int) -> None:
        logging.getLogger("asyncua").setLevel(logging.CRITICAL + 1)
        self.endpoint = f"opc.tcp://127.0.0.1:{port}/pump-skid"
        self._bench = bench
        self._server: Server | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen, and keep the nodes up to date."""
        server = Server()
        await server.init()
        server.set_endpoint(self.endpoint)
        await server.set_application_uri("urn:hw-sim:server")
        server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        namespace = await server.register_namespace(NAMESPACE)
        pump = await server.nodes.objects.add_object(_node("Pump", namespace), "Pump")
        readings = self._bench.readings
        power = await pump.add_variable(
            _node("Pump.Power", namespace), "Power", readings["drive.power"], ua.VariantType.Double
        )
        setpoint = await pump.add_variable(
            _node("Pump.SetPoint", namespace),
            "SetPoint",
            readings["drive.setpoint"],
            ua.VariantType.Double,
        )
        await pump.add_variable(_node("Pump.Running", namespace), "Running", True, ua.VariantType.Boolean)
        await server.start()
        self._server = server
        self._task = asyncio.create_task(self._update(server, power, setpoint), name="drive")

    async def _update(self, server: Server, power: Node, setpoint: Node) -> None:
        loop = asyncio.get_running_loop()
        due, shown = loop.time(), self._bench.readings["drive.setpoint"]
        while True:
            readings = self._bench.readings
            await _write(server, power, readings["drive.power"])
            if readings["drive.setpoint"] != shown:
                shown = readings["drive.setpoint"]
                await _write(server, setpoint, shown)
            due = max(due + _PERIOD_S, loop.time())
            await asyncio.sleep(due - loop.time())

    async def stop(self) -> None:
        """Stop listening and drop the sessions; safe twice."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        server, self._server = self._server, None
        if server is not None:
            await server.stop()


def _node(name: str, namespace: int) -> ua.NodeId:
    return ua.NodeId.from_string(f"ns={namespace};s={name}")


async def _write(server: Server, node: Node, value: float) -> None:
    variant = ua.Variant(value, ua.VariantType.Double)
    await server.write_attribute_value(
        node.nodeid, ua.DataValue(variant, SourceTimestamp=ua.DateTime.utcnow())
    )
