"""Variables found by their way through the address space: `Objects/Pump*/Temperature`.

Each part is a browse name, whatever its namespace, in which `*`, `?` and `[…]` stand for others; `&/` is a
slash that belongs to a name (OPC 10000-4, A.2). The way goes along hierarchical references.
"""

import fnmatch
import re
from collections.abc import Sequence
from typing import Any, Final

from asyncua import ua
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.uaerrors import UaError

from dxad.sources.opcua.pieces import pieces

__all__ = ["ROOT", "Found", "find", "is_pattern", "parts_of"]

ROOT: Final = ua.NodeId(ua.Int32(ObjectIds.RootFolder), ua.Int16(0))
Found = dict[str, ua.NodeId]
"""Variables by their way, in the order of numbers and letters: Pump2 before Pump10."""

_SEEN_MOST: Final = 50_000
"""References that are looked at."""
_DEEP_MOST: Final = 20
_HIERARCHICAL: Final = ua.NodeId(ua.Int32(ObjectIds.HierarchicalReferences), ua.Int16(0))
_PER_BROWSE: Final = 1000
"""References in one answer."""


def parts_of(path: str) -> list[str]:
    """The parts of a way.

    Raises:
        ValueError: it is none.
    """
    parts = [re.sub("&(.)", r"\1", each) for each in re.findall(r"((?:&.|[^/&])+)(?:/|$)", path)]
    if "/".join(re.findall(r"(?:&.|[^/&])+", path)) != path or not parts:
        raise ValueError(f"{path!r} is no way through the address space, such as Objects/Pump*/Temperature")
    if len(parts) > _DEEP_MOST:
        raise ValueError(f"{path!r} has more than {_DEEP_MOST} parts")
    return parts


def is_pattern(path: str) -> bool:
    """Whether it may lead to several variables."""
    return any(each in path for each in "*?[")


async def find(session: Any, start: ua.NodeId, path: str, *, at_once: int) -> Found:
    """The variables that a way leads to.

    Args:
        session: asyncua's.
        start: where it begins.
        path: the way.
        at_once: nodes that the server browses in one request.

    Raises:
        OSError, UaError: the server does not say, or there is too much to look at.
    """
    here: Found = {"": start}
    parts = parts_of(path)
    seen = 0
    for depth, part in enumerate(parts, 1):
        there: list[tuple[str, ua.NodeId]] = []
        for some in pieces(list(here.items()), at_once):
            for way, references in zip(
                (way for way, _ in some), await _children(session, [node for _, node in some]), strict=True
            ):
                seen += len(references)
                if seen > _SEEN_MOST:
                    raise UaError(f"{path}: more than {_SEEN_MOST} nodes to look at; say it more exactly")
                there += [
                    (f"{way}/{name}".removeprefix("/"), each.NodeId)
                    for each in references
                    if fnmatch.fnmatchcase(name := each.BrowseName.Name or "", part)
                    and (depth < len(parts) or each.NodeClass is ua.NodeClass.Variable)
                ]
        here = {way: _local(node) for way, node in sorted(there, key=lambda each: _natural(each[0]))}
    return here


def _local(node: ua.NodeId) -> ua.NodeId:
    """A reference's target, which is an expanded id, as the id of a node of this server."""
    return ua.NodeId(node.Identifier, node.NamespaceIndex, node.NodeIdType)


def _natural(way: str) -> list[tuple[int, str]]:
    return [(int(each), "") if each.isdigit() else (-1, each) for each in re.split(r"(\d+)", way)]


async def _children(session: Any, nodes: Sequence[ua.NodeId]) -> list[list[ua.ReferenceDescription]]:
    """What stands below each of these."""
    asked = ua.BrowseParameters(
        RequestedMaxReferencesPerNode=ua.UInt32(_PER_BROWSE),
        NodesToBrowse=[
            ua.BrowseDescription(
                NodeId=node,
                BrowseDirection=ua.BrowseDirection.Forward,
                ReferenceTypeId=_HIERARCHICAL,
                IncludeSubtypes=True,
                NodeClassMask=ua.UInt32(ua.NodeClass.Object | ua.NodeClass.Variable),
                ResultMask=ua.UInt32(ua.BrowseResultMask.BrowseName | ua.BrowseResultMask.NodeClass),
            )
            for node in nodes
        ],
    )
    found: list[list[ua.ReferenceDescription]] = []
    for answer in await session.browse(asked):
        references = list(answer.References or ())
        more = answer.ContinuationPoint
        while more:
            following = ua.BrowseNextParameters(ReleaseContinuationPoints=False, ContinuationPoints=[more])
            (answer,) = await session.browse_next(following)  # noqa: PLW2901 - the rest of it
            references += answer.References or ()
            more = answer.ContinuationPoint
        found.append(references)
    return found
