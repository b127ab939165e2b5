"""What the devices of a server show: their namespaces, objects and variables, kept up to date.

Objects
  └── Pump                    ns=2;s=Pump          an object of a device
        ├── power             ns=2;s=Pump.Power    its variables
        └── running           ns=2;s=Pump.Running
"""

import asyncio
import math
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, timedelta
from typing import Final

from asyncua import ua
from asyncua.common.node import Node
from asyncua.server.server import Server
from asyncua.ua.attribute_ids import AttributeIds

from hw_sim.bench import Bench
from hw_sim.opcua.section import Device, Settings
from hw_sim.opcua.variable import PLAIN, Look, Variable
from hw_sim.wire import Due

__all__ = ["Space"]

_ANOTHER: Final = "urn:hw-sim:another"
"""The namespace that shifts the others."""
_BREATH: Final = 20
"""Nodes that are made without letting others have their turn: about 5 ms."""
_HISTORY_AT_MOST: Final = 100_000


class _Folder:
    """A device's object with its variables."""

    def __init__(self, name: str, device: Device, fields: Mapping[str, str]) -> None:
        self.name = name
        self.device = device
        self.object = device.object or name
        self.node_id = ua.NodeId()
        self.due = Due(device.period, device.phase)
        past = min(_HISTORY_AT_MOST, math.ceil(device.history / device.period))
        self.variables = {each: Variable(node, fields[each], past) for each, node in device.nodes.items()}


class Space:
    """The devices' part of a server's address space."""

    def __init__(self, settings: Settings, bench: Bench, counts: Counter[str]) -> None:
        self.pasts: dict[ua.NodeId, deque[ua.DataValue]] = {}
        """The last values of each node that has a history."""
        self._bench = bench
        self._counts = counts
        self._folders = [
            _Folder(name, device, settings.fields[name]) for name, device in settings.devices.items()
        ]
        self._arrays = [
            each for folder in self._folders for each in folder.variables.values() if each.recent is not None
        ]
        self._server: Server | None = None
        self._removed: dict[Variable, list[ua.ReferenceDescription]] = {}
        """The variables that are deleted, with how their parents knew them."""

    @property
    def uris(self) -> Sequence[str]:
        """The namespaces, in the order of their indices."""
        return tuple(dict.fromkeys(folder.device.namespace for folder in self._folders))

    async def build(self, server: Server, *, shifted: bool, now_s: float) -> None:
        """Make all nodes, in place of what was made before; nobody may be connected.

        Args:
            server: whose address space it is.
            shifted: whether the indices of all namespaces are greater by one.
            now_s: the plant's time, in unix seconds.
        """
        self._server = server
        self._clear(server)
        namespaces = await server.get_namespace_array()
        uris = [*namespaces[:2], *((_ANOTHER,) if shifted else ()), *self.uris]
        await server.nodes.namespace_array.write_value(uris)
        self.pasts.clear()
        self._removed.clear()
        made = 0
        for folder in self._folders:
            index = uris.index(folder.device.namespace)
            folder.node_id = _node_id(folder.object, index)
            node = await server.nodes.objects.add_object(
                folder.node_id, ua.QualifiedName(folder.object, index)
            )
            for name, variable in folder.variables.items():
                node_id = _node_id(variable.settings.identifier, index)
                first = variable.first(self._bench.readings[variable.channel])
                made_node = await node.add_variable(node_id, ua.QualifiedName(name, index), first)
                await _describe(made_node, variable)
                if variable.past is not None:
                    self.pasts[node_id] = variable.past
                variable.place(server.iserver.aspace, node_id)
                if variable.look.removed:
                    self._remove(folder, variable)
                made += 1
                if made % _BREATH == 0:
                    await asyncio.sleep(0)
        self._show_all(now_s)

    def _clear(self, server: Server) -> None:
        aspace = server.iserver.aspace
        mine = {folder.node_id for folder in self._folders}
        objects = aspace[server.nodes.objects.nodeid]
        objects.references[:] = [each for each in objects.references if each.NodeId not in mine]
        for folder in self._folders:
            for node_id in (folder.node_id, *(each.node_id for each in folder.variables.values())):
                if node_id in aspace:
                    del aspace[node_id]

    def look(self, of: Callable[[str, str, Look], Look], now_s: float) -> None:
        """Have the faults' effect on each variable, told by device, channel and the effect until now."""
        for folder in self._folders:
            for variable in folder.variables.values():
                look = of(folder.name, variable.channel, variable.look)
                if look == variable.look:
                    continue
                if look.removed and variable not in self._removed:
                    self._remove(folder, variable)
                elif not look.removed and variable in self._removed:
                    self._restore(folder, variable)
                variable.changed(look)
        self._show_all(now_s)

    def _remove(self, folder: _Folder, variable: Variable) -> None:
        references = self._references(folder)
        self._removed[variable] = [each for each in references if each.NodeId == variable.node_id]
        references[:] = [each for each in references if each.NodeId != variable.node_id]
        variable.remove()

    def _restore(self, folder: _Folder, variable: Variable) -> None:
        self._references(folder).extend(self._removed.pop(variable))
        variable.restore()

    def _references(self, folder: _Folder) -> list[ua.ReferenceDescription]:
        """What a browse of the object finds."""
        assert self._server is not None
        return self._server.iserver.aspace[folder.node_id].references

    def _show_all(self, now_s: float) -> None:
        stamp = ua.DateTime.fromtimestamp(now_s, UTC)
        for folder in self._folders:
            self._show(folder, stamp)

    def step(self, now: Callable[[], float]) -> None:
        """The bench has made a step: write what is due and has changed."""
        if self._arrays:
            self._collect()
        stamp: ua.DateTime | None = None
        for folder in self._folders:
            if folder.due.passed(self._bench.at_s):
                stamp = stamp or ua.DateTime.fromtimestamp(now(), UTC)
                self._show(folder, stamp)

    def _collect(self) -> None:
        """Note what arrays show: each reading once, however many steps of the bench are between them."""
        fresh = {channel for rig in self._bench.stepped for channel in rig.channels}
        for variable in self._arrays:
            if variable.channel in fresh and variable.recent is not None:
                variable.recent.append(self._bench.readings[variable.channel])

    def _show(self, folder: _Folder, stamp: ua.DateTime) -> None:
        readings, counts = self._bench.readings, self._counts
        for variable in folder.variables.values():
            look, source_stamp = variable.look, stamp
            if look is not PLAIN:
                if look.frozen or look.removed:
                    continue
                source_stamp = stamp + timedelta(seconds=look.ahead_s)
            status = variable.show(readings[variable.channel], stamp, source_stamp if look.stamped else None)
            if status is not None:
                counts["values"] += 1
                if status:
                    counts["bad" if status & 1 << 31 else "uncertain"] += 1


async def _describe(node: Node, variable: Variable) -> None:
    """Say what clients may expect of a variable beside its value."""
    if variable.settings.array is not None:
        await node.write_attribute(AttributeIds.ValueRank, ua.DataValue(ua.Variant(1, ua.VariantType.Int32)))
        dimensions = ua.Variant([variable.settings.array], ua.VariantType.UInt32)
        await node.write_attribute(AttributeIds.ArrayDimensions, ua.DataValue(dimensions))
    if variable.past is not None:
        await node.write_attribute(AttributeIds.Historizing, ua.DataValue(ua.Variant(True)))
        for attribute in (AttributeIds.AccessLevel, AttributeIds.UserAccessLevel):
            await node.set_attr_bit(attribute, ua.AccessLevel.HistoryRead)


def _node_id(identifier: str | int, index: int) -> ua.NodeId:
    known = ua.Int32(identifier) if isinstance(identifier, int) else ua.String(identifier)
    return ua.NodeId(known, ua.Int16(index))
