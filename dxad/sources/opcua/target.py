"""Which nodes the channels are of, and where a server has them today.

Each node is asked for once, however many channels it serves. What a pattern finds is numbered, and keeps its
number: the list is kept in the state directory, since a column must mean the same for as long as a model has
learned it.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from asyncua import ua
from asyncua.ua.object_ids import ObjectIds

from dxad import statefile
from dxad.errors import ConfigError
from dxad.sources.opcua import browsing
from dxad.sources.opcua.connection import Connection
from dxad.sources.opcua.element import Element
from dxad.sources.opcua.node import NodeName
from dxad.sources.opcua.section import Config, OpcuaChannel
from dxad.sources.opcua.subscription import Monitored
from dxad.types import Document

__all__ = ["Target", "Targets"]

_NODES_PER_BROWSE = ObjectIds.Server_ServerCapabilities_OperationLimits_MaxNodesPerBrowse


@dataclass(frozen=True, slots=True)
class Target:
    """A node, and how it is to be sampled."""

    label: str
    """What it is called in faults."""
    columns: tuple[int, ...]
    """The channels that it serves."""
    sampling_ms: float
    queue: int
    filter: ua.DataChangeFilter | None
    name: NodeName | None
    """Its name; or where the way to it begins."""
    channel: str = ""
    path: str | None = None
    number: int = 0
    """Which of those that the way leads to."""
    elements: tuple[Element | None, ...] = ()
    """For each channel, which element of an array it is; None where it is the value itself."""
    indexed: bool = False
    """Whether any is an element."""

    def monitored(self, handle: int, node: ua.NodeId) -> Monitored:
        """The item to subscribe to."""
        return Monitored(handle, node, self.sampling_ms, self.queue, self.filter)


class Targets:
    """All of a source."""

    def __init__(self, config: Config, memory: Path | None) -> None:
        """`memory` is the file in which what patterns found is kept; None keeps it while this lives."""
        self._config = config
        self._memory = memory
        self._known: dict[str, list[str]] | None = None
        """By channel, the ways that have numbers."""
        self.all = _targets(config)
        """In the order of the channels."""
        self.left_out: dict[str, int] = {}
        """By channel, how many of those that its pattern found have no number."""

    async def resolve(self, connection: Connection) -> list[ua.NodeId | str]:
        """Where each is on this server; or why it is not there.

        Raises:
            OSError, UaError: the server does not say.
            ConfigError: what was found cannot be kept.
        """
        uris, default = connection.uris, self._config.namespace
        ways: dict[str, browsing.Found | str] = {}
        for target in self.all:
            if target.path is not None and target.channel not in ways:
                ways[target.channel] = await self._find(connection, target)
        self._remember({each: found for each, found in ways.items() if not isinstance(found, str)})
        return [
            self._placed(target, ways) if target.path is not None else _by_name(target.name, uris, default)
            for target in self.all
        ]

    async def _find(self, connection: Connection, target: Target) -> browsing.Found | str:
        start: ua.NodeId | str = browsing.ROOT
        if target.name is not None:
            start = _by_name(target.name, connection.uris, self._config.namespace)
        if isinstance(start, str):
            return start
        (at_once,) = await connection.limits(_NODES_PER_BROWSE)
        session = connection.client.uaclient.session
        assert target.path is not None
        return await browsing.find(session, start, target.path, at_once=at_once)

    def _placed(self, target: Target, ways: dict[str, browsing.Found | str]) -> ua.NodeId | str:
        found = ways[target.channel]
        if isinstance(found, str):
            return found
        if not target.number:
            if len(found) == 1:
                return next(iter(found.values()))
            return f"{len(found)} variables" if found else "no such variable"
        assert self._known is not None
        known = self._known.get(target.channel, [])
        if target.number > len(known):
            return "no further variable"
        way = known[target.number - 1]
        return found.get(way, f"{way} is not there any more")

    def _remember(self, ways: dict[str, browsing.Found]) -> None:
        """Give numbers to what is new, as far as there are any."""
        known = self._recalled()
        before = {each: list(paths) for each, paths in known.items()}
        self.left_out = {}
        for name, channel in self._config.channels.items():
            if channel.count is None or name not in ways:
                continue
            paths = known.setdefault(name, [])
            fresh = [way for way in ways[name] if way not in paths]
            room = channel.count - len(paths)
            paths += fresh[:room]
            if fresh[room:]:
                self.left_out[name] = len(fresh[room:])
        if known != before and self._memory is not None:
            self._write(known)

    def _recalled(self) -> dict[str, list[str]]:
        if self._known is None:
            document = self._read()
            self._known = {
                name: list(document[name]["ways"])[: channel.count]
                for name, channel in self._config.channels.items()
                if channel.count is not None and document.get(name, {}).get("browse") == channel.browse
            }
        return self._known

    def _read(self) -> Document:
        if self._memory is None:
            return {}
        try:
            return statefile.read(self._memory) or {}
        except statefile.StateError as error:
            raise ConfigError(
                f"{self._memory} {error}: which variable has which number is lost; "
                "remove it to number them anew"
            ) from error

    def _write(self, known: dict[str, list[str]]) -> None:
        assert self._memory is not None
        document = {
            name: {"browse": self._config.channels[name].browse, "ways": ways} for name, ways in known.items()
        }
        try:
            statefile.write(self._memory, statefile.encode(document))
        except OSError as error:
            raise ConfigError(f"{self._memory}: {error.strerror}") from error


def _by_name(name: NodeName | None, uris: Sequence[str], default: str | None) -> ua.NodeId | str:
    assert name is not None
    return name.place(uris, default) or f"no namespace {name.namespace or default!r}"


def _targets(config: Config) -> list[Target]:
    found: dict[object, Target] = {}
    column = 0
    for key, channel in config.channels.items():
        numbers = range(1, channel.count + 1) if channel.count is not None else (0,)
        for number, element in itertools.product(numbers, channel.elements):
            target = _target(config, key, channel, column, number)
            same = _sameness(target, channel, config.namespace)
            if same in found:
                target = replace(found[same], columns=(*found[same].columns, column))
            elements = (*target.elements, element)
            indexed = any(each is not None for each in elements)
            found[same] = replace(target, elements=elements, indexed=indexed)
            column += 1
    return list(found.values())


def _sameness(target: Target, channel: OpcuaChannel, default: str | None) -> object:
    """What two channels must have in common to be served by one item."""
    if target.path is not None or target.name is None:
        return target.channel, target.number
    uri, identifier = target.name.namespace or default, target.name.identifier
    how = target.sampling_ms, target.queue, channel.deadband, channel.deadband_kind
    return uri, type(identifier), str(identifier), how


def _target(config: Config, key: str, channel: OpcuaChannel, column: int, number: int) -> Target:
    sampling = channel.sampling_interval or config.sampling_interval or config.publish_interval // 2
    label = channel.browse if channel.browse is not None else str(channel.node)
    return Target(
        label=f"{label} ({number})" if number else label,
        columns=(column,),
        sampling_ms=sampling / 1e6,
        queue=channel.queue_size or config.queue_size,
        filter=_filter(channel),
        name=channel.name,
        channel=key,
        path=channel.browse,
        number=number,
    )


def _filter(channel: OpcuaChannel) -> ua.DataChangeFilter | None:
    """What the server must think a change (OPC 10000-4, 7.22.2)."""
    if channel.deadband is None:
        return None
    kind = ua.DeadbandType.Absolute if channel.deadband_kind == "absolute" else ua.DeadbandType.Percent
    return ua.DataChangeFilter(
        Trigger=ua.DataChangeTrigger.StatusValue,
        DeadbandType=ua.UInt32(kind.value),
        DeadbandValue=ua.Double(channel.deadband),
    )
