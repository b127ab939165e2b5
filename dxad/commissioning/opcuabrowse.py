"""The tree of an OPC-UA server: its variables, with what they show. Browse and Read are all that is asked.

Objects ─ level by level, many nodes a question ─▶ variables ─ their attributes ─▶ Variable
"""

import fnmatch
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeVar

from asyncua import ua
from asyncua.client.client import Client
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.uaerrors import (
    BadEncodingLimitsExceeded,
    BadRequestTooLarge,
    BadResponseTooLarge,
    BadTooManyOperations,
    UaError,
)

from dxad.commissioning import Patience, Watcher
from dxad.errors import ConfigError

__all__ = ["Browser", "Tree", "Variable", "halved"]

_Asked = TypeVar("_Asked")
_Answer = TypeVar("_Answer")

_NODES: Final = 50
"""In one question; some servers take no more."""
_CHILDREN_MOST: Final = 20_000
"""Of one node."""
_TOO_MUCH: Final = (
    BadTooManyOperations, BadResponseTooLarge, BadRequestTooLarge, BadEncodingLimitsExceeded,
)  # fmt: skip
"""What a server says that would answer a shorter question."""
_REFERENCES: Final = 1000
"""Of one node, in one answer."""
_ATTRIBUTES: Final = (
    AttributeIds.DataType, AttributeIds.ValueRank,
    AttributeIds.UserAccessLevel, AttributeIds.MinimumSamplingInterval,
)  # fmt: skip
_TYPES: Final[dict[Any, str]] = {each.value: each.name for each in ua.VariantType}
"""By the number of a built-in type in namespace 0 (OPC 10000-6, 5.1.2)."""
_NUMERIC: Final = frozenset(
    {"Boolean", "SByte", "Byte", "Int16", "UInt16", "Int32", "UInt32", "Int64", "UInt64", "Float", "Double"}
)
_HISTORY: Final = 2
"""A bit of an access level (OPC 10000-3, 8.57)."""
_ELEMENTS_MOST: Final = 16
"""Of an array, that are looked at."""
_BEGINNING: Final = f"0:{_ELEMENTS_MOST - 1}"
"""The same, as OPC 10000-4, 7.27 writes it."""
_ARRAYS_MOST: Final = 50
"""That are read of each part: one by one, since each may be large."""
_WORDS: Final = 60
"""Characters of a value that are kept."""


@dataclass(slots=True)
class Variable:
    """One that was found."""

    path: tuple[str, ...]
    """The names from below Objects down to its own."""
    namespace: str
    """The URI."""
    identifier: str
    """In its namespace: s=Name, i=42 …"""
    type: str = ""
    value: Any = None
    """A number, bool or text; None where there is none."""
    array: bool = False
    flat: bool = False
    """It is an array of one dimension."""
    sizes: tuple[int, ...] = ()
    """Of an array that was read: how many elements in each dimension, 16 at most."""
    readable: bool = True
    status: str = ""
    """What is wrong with its value, if anything is."""
    unit: str = ""
    sampling_ms: float | None = None
    """The fastest it can be sampled: 0 whenever it changes; None: the server does not say."""
    history: bool = False
    """Whether the server keeps its past."""

    @property
    def numeric(self) -> bool:
        """Whether it, or its elements, can be channels; one without a value now is taken by its type."""
        if self.array:
            return bool(self.sizes) and self.type in _NUMERIC
        return isinstance(self.value, bool | int | float) or (self.value is None and self.type in _NUMERIC)


@dataclass(slots=True)
class Tree:
    """What was found."""

    namespaces: Sequence[str]
    variables: list[Variable] = field(default_factory=list)
    nodes: int = 0
    """How many were looked at."""
    cut: str = ""
    """Why this is not all, if it is not."""


@dataclass(slots=True)
class _Place:
    """A node whose children are to be looked at."""

    node: ua.NodeId
    path: tuple[str, ...]
    variable: Variable | None = None


class Browser:
    """Looks through a server, level by level."""

    def __init__(
        self,
        client: Client,
        *,
        under: str | None,
        match: str | None,
        depth: int,
        nodes_most: int,
        patience: Patience,
        watcher: Watcher,
    ) -> None:
        """Say where to look.

        Args:
            client: in its session.
            under: where to begin: names with `/` between them, below Objects; or a node id.
            match: variables of interest: a pattern of their path, or a part of it.
            depth: how many levels below the beginning.
            nodes_most: how many nodes to look at.
            patience: how long it may take.
            watcher: who is told of it.
        """
        self._client = client
        self._under = under
        self._match = match
        self._depth = depth
        self._nodes_most = nodes_most
        self._patience = patience
        self._watcher = watcher
        self._tree = Tree(())
        self._found: list[tuple[ua.NodeId, Variable]] = []
        self._units: list[tuple[ua.NodeId, Variable]] = []
        self._seen: set[ua.NodeId] = set()

    async def run(self) -> Tree:
        """All that there was time for.

        Raises:
            ConfigError: there is no such beginning.
            OSError, UaError: the server is gone, or refuses.
        """
        tree = self._tree
        tree.namespaces = await self._client.get_namespace_array()
        level = [await _beginning(self._client, self._under, tree.namespaces)]
        for below in range(self._depth):
            level = await self._below(level, below + 1)
            if tree.cut or not level:
                break
        else:
            tree.cut = f"there is more below {self._depth} levels"
        await self._describe_all()
        await self._measure_all()
        tree.variables = [variable for _, variable in self._found]
        return tree

    async def _below(self, level: Sequence[_Place], number: int) -> list[_Place]:
        """The next level."""
        following: list[_Place] = []
        for begin in range(0, len(level), _NODES):
            self._watcher.doing(f"level {number}: {self._tree.nodes} nodes, {len(self._found)} variables")
            places = level[begin : begin + _NODES]
            for place, references in zip(places, await _children(self._client, places), strict=True):
                for each in references:
                    if self._over():
                        return following
                    child = self._child(place, each)
                    if child is not None:
                        following.append(child)
        return following

    def _over(self) -> bool:
        if self._patience.over:
            self._tree.cut = "the time is over"
        elif self._tree.nodes >= self._nodes_most:
            self._tree.cut = f"{self._nodes_most} nodes were looked at"
        return bool(self._tree.cut)

    def _child(self, place: _Place, reference: ua.ReferenceDescription) -> _Place | None:
        """What a reference leads to, if it is of interest what is below it."""
        node, name = _local(reference.NodeId), str(reference.BrowseName.Name)
        if name == "EngineeringUnits" and place.variable is not None:
            self._units.append((node, place.variable))
        if node in self._seen or _is_property(reference) or _is_of_the_server(node, self._under):
            return None
        self._seen.add(node)
        self._tree.nodes += 1
        child = _Place(node, (*place.path, name))
        if reference.NodeClass is ua.NodeClass.Variable:
            child.variable = _variable(child.path, node, self._tree.namespaces)
            if _wanted(child.path, self._match):
                self._found.append((node, child.variable))
        return child

    async def _describe_all(self) -> None:
        for done, part in _parts(self._found):
            if self._patience.over:
                self._tree.cut = "the time is over"
                return
            self._watcher.doing(f"reading variable {done + 1} of {len(self._found)}")
            asked = [(node, attribute) for node, _ in part for attribute in _ATTRIBUTES]
            answers = iter(await _read(self._client, asked))
            for _, variable in part:
                _describe(variable, [next(answers) for _ in _ATTRIBUTES])
            scalars = [each for each in part if not each[1].array]
            values = await _read(self._client, [(node, AttributeIds.Value) for node, _ in scalars])
            for (_, variable), value in zip(scalars, values, strict=True):
                _show(variable, value)
            arrays = [each for each in part if each[1].array and each[1].readable and not each[1].sizes]
            for node, variable in arrays[:_ARRAYS_MOST]:
                _show(variable, await _array_of(self._client, node, flat=variable.flat))

    async def _measure_all(self) -> None:
        wanted = {id(variable) for _, variable in self._found}
        for _, part in _parts([each for each in self._units if id(each[1]) in wanted]):
            if self._patience.over:
                return
            answers = await _read(self._client, [(node, AttributeIds.Value) for node, _ in part])
            for (_, variable), answer in zip(part, answers, strict=True):
                told = _plain(answer)
                if isinstance(told, ua.EUInformation):
                    variable.unit = str(told.DisplayName.Text or "")


async def _beginning(client: Client, under: str | None, namespaces: Sequence[str]) -> _Place:
    place = _Place(ua.NodeId(ua.Int32(ObjectIds.ObjectsFolder)), ())
    if under is None:
        return place
    if under.startswith(("ns=", "nsu=", "i=", "s=", "g=", "b=")):
        return _Place(_node_id(under, namespaces), (under,))
    for name in filter(None, under.split("/")):
        if name == "Objects" and not place.path:
            continue
        (children,) = await _children(client, [place])
        known = {str(each.BrowseName.Name): each for each in children}
        if name not in known:
            there = ", ".join(sorted(known)[:20]) or "nothing"
            raise ConfigError(
                f"--under: no {name!r} in {'/'.join(place.path) or 'Objects'}; there is {there}"
            )
        place = _Place(_local(known[name].NodeId), (*place.path, name))
    return place


def _node_id(text: str, namespaces: Sequence[str]) -> ua.NodeId:
    try:
        if not text.startswith("nsu="):
            return ua.NodeId.from_string(text)
        uri, _, identifier = text.removeprefix("nsu=").partition(";")
        return ua.NodeId.from_string(f"ns={namespaces.index(uri)};{identifier}")
    except (ValueError, UaError) as error:
        raise ConfigError(f"--under: {text!r} is no node of this server: {error}") from error


async def halved(
    ask: Callable[[Sequence[_Asked]], Awaitable[list[_Answer]]], asked: Sequence[_Asked]
) -> list[_Answer]:
    """The answers to all of these, in halves where a server finds them too many at once.

    Raises:
        UaError: one alone is too much for it, or something else is wrong.
    """
    if not asked:
        return []
    try:
        return await ask(asked)
    except _TOO_MUCH:
        if len(asked) == 1:
            raise
    middle = len(asked) // 2
    return await halved(ask, asked[:middle]) + await halved(ask, asked[middle:])


async def _children(client: Client, places: Sequence[_Place]) -> list[list[ua.ReferenceDescription]]:
    """The hierarchical references of each, all of them; nothing of a node that may not be browsed."""
    return await halved(partial(_browsed, client), places)


async def _browsed(client: Client, places: Sequence[_Place]) -> list[list[ua.ReferenceDescription]]:
    asked = ua.BrowseParameters(
        RequestedMaxReferencesPerNode=ua.UInt32(_REFERENCES),
        NodesToBrowse=[
            ua.BrowseDescription(
                NodeId=each.node,
                ReferenceTypeId=ua.NodeId(ua.Int32(ObjectIds.HierarchicalReferences)),
                NodeClassMask=ua.UInt32(ua.NodeClass.Object | ua.NodeClass.Variable),
                ResultMask=ua.UInt32(ua.BrowseResultMask.All),
            )
            for each in places
        ],
    )
    found: list[list[ua.ReferenceDescription]] = []
    for answer in await client.uaclient.browse(asked):
        references = list(answer.References or ())
        point = answer.ContinuationPoint
        while point:
            enough = len(references) >= _CHILDREN_MOST
            more = ua.BrowseNextParameters(ReleaseContinuationPoints=enough, ContinuationPoints=[point])
            (following,) = await client.uaclient.browse_next(more)
            if enough:
                break
            references += following.References or ()
            point = following.ContinuationPoint
        found.append(references)
    return found


def _local(node: ua.NodeId) -> ua.NodeId:
    """The id without what an expanded one has besides."""
    return ua.NodeId(node.Identifier, node.NamespaceIndex, node.NodeIdType)


def _is_property(reference: ua.ReferenceDescription) -> bool:
    return bool(reference.ReferenceTypeId == ua.NodeId(ua.Int32(ObjectIds.HasProperty)))


def _is_of_the_server(node: ua.NodeId, under: str | None) -> bool:
    """Whether it is what every server tells of itself: of no interest, unless it was asked for."""
    return under is None and node == ua.NodeId(ua.Int32(ObjectIds.Server))


def _wanted(path: tuple[str, ...], match: str | None) -> bool:
    if match is None:
        return True
    text, pattern = "/".join(path).lower(), match.lower()
    if not set("*?[") & set(pattern):
        return pattern in text
    return fnmatch.fnmatchcase(text, pattern) or fnmatch.fnmatchcase(path[-1].lower(), pattern)


def _variable(path: tuple[str, ...], node: ua.NodeId, namespaces: Sequence[str]) -> Variable:
    index = int(node.NamespaceIndex)
    uri = namespaces[index] if index < len(namespaces) else f"ns={index}"
    return Variable(path, uri, node.to_string().removeprefix(f"ns={index};"))


def _parts(
    every: Sequence[tuple[ua.NodeId, Variable]],
) -> Iterator[tuple[int, Sequence[tuple[ua.NodeId, Variable]]]]:
    for begin in range(0, len(every), _NODES):
        yield begin, every[begin : begin + _NODES]


async def _read(client: Client, asked: Sequence[tuple[ua.NodeId, AttributeIds]]) -> list[ua.DataValue]:
    return await halved(partial(_read_at_once, client), asked)


async def _read_at_once(
    client: Client, asked: Sequence[tuple[ua.NodeId, AttributeIds]]
) -> list[ua.DataValue]:
    parameters = ua.ReadParameters(
        NodesToRead=[
            ua.ReadValueId(NodeId=node, AttributeId=ua.UInt32(attribute)) for node, attribute in asked
        ]
    )
    return list(await client.uaclient.read(parameters))


async def _array_of(client: Client, node: ua.NodeId, *, flat: bool) -> ua.DataValue:
    """An array; of one that is `flat`, which may be large, the first elements, where the server can."""
    if flat:
        some = ua.ReadValueId(NodeId=node, AttributeId=ua.UInt32(AttributeIds.Value), IndexRange=_BEGINNING)
        (answer,) = await client.uaclient.read(ua.ReadParameters(NodesToRead=[some]))
        if answer.Value is not None and answer.Value.Value is not None:
            return answer
    (answer,) = await _read(client, [(node, AttributeIds.Value)])
    return answer


def _sizes(value: Any) -> tuple[int, ...]:
    """How many elements it has in each dimension, as far as they are looked at."""
    found = []
    while isinstance(value, list) and value:
        found.append(min(len(value), _ELEMENTS_MOST))
        value = value[0]
    return tuple(found)


def _describe(variable: Variable, answers: Sequence[ua.DataValue]) -> None:
    kind, rank, access, sampling = map(_plain, answers)
    variable.array = isinstance(rank, int) and rank >= 0
    variable.flat = rank == 1
    if isinstance(kind, ua.NodeId):
        own = not kind.NamespaceIndex and kind.Identifier in _TYPES
        variable.type = _TYPES[kind.Identifier] if own else str(kind.to_string())
    if isinstance(access, int):
        variable.readable, variable.history = bool(access & 1), bool(access >> _HISTORY & 1)
    if isinstance(sampling, int | float) and sampling >= 0:
        variable.sampling_ms = float(sampling)


def _show(variable: Variable, data: ua.DataValue) -> None:
    status = data.StatusCode
    if status is not None and not status.is_good():
        variable.status = str(status.name)
    value = None if data.Value is None else data.Value.Value
    variable.array = isinstance(value, list) or (value is None and variable.array)
    variable.sizes = _sizes(value)
    variable.value = _shown(value)
    if value is not None and data.Value is not None and data.Value.VariantType is not None:
        variable.type = str(getattr(data.Value.VariantType, "name", ""))


def _plain(answer: ua.DataValue) -> Any:
    good = answer.StatusCode is None or answer.StatusCode.is_good()
    return answer.Value.Value if good and answer.Value is not None else None


def _shown(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, list):
        shown = ", ".join(str(_shown(each)) for each in value[:_ELEMENTS_MOST])
        return f"[{shown}{', …' if len(value) >= _ELEMENTS_MOST else ''}]"[:_WORDS]
    return str(value)[:_WORDS]
