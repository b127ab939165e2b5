"""Which nodes the channels are of: each is asked for once, however many channels it serves."""

from collections.abc import Sequence
from dataclasses import dataclass

from asyncua import ua

from dxad.sources.opcua.node import NodeName
from dxad.sources.opcua.section import Config, OpcuaChannel
from dxad.sources.opcua.subscription import Monitored

__all__ = ["Target", "targets"]


@dataclass(frozen=True, slots=True)
class Target:
    """A node, and how it is to be sampled."""

    name: NodeName
    columns: tuple[int, ...]
    """The channels that it serves."""

    def place(self, uris: Sequence[str], default: str | None) -> ua.NodeId | None:
        """Its id on a server with these namespaces; None where it has no such namespace."""
        return self.name.place(uris, default)

    def monitored(self, handle: int, node: ua.NodeId, *, sampling_ms: float, queue: int) -> Monitored:
        """The item to subscribe to."""
        return Monitored(handle, node, sampling_ms, queue)


def targets(config: Config) -> list[Target]:
    """What is to be read, in the order of the channels."""
    found: dict[object, tuple[OpcuaChannel, list[int]]] = {}
    for column, channel in enumerate(config.channels.values()):
        name = channel.name
        key = name.namespace or config.namespace, type(name.identifier), str(name.identifier)
        found.setdefault(key, (channel, []))[1].append(column)
    return [Target(channel.name, tuple(columns)) for channel, columns in found.values()]
