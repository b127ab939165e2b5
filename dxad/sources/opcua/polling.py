"""Asking for all values at once, in as few requests as the server takes."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from asyncua import ua
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.object_ids import ObjectIds

from dxad.sources.opcua.connection import Connection
from dxad.sources.opcua.pieces import pieces
from dxad.sources.opcua.wire import Item, read_answers

__all__ = ["Poll"]

_NODES_PER_READ: Final = ObjectIds.Server_ServerCapabilities_OperationLimits_MaxNodesPerRead


class Poll:
    """Reads nodes over one connection."""

    def __init__(self, connection: Connection, *, asked: Callable[[int], None]) -> None:
        """Over this; `asked` is told how many values each request is for, when it is sent."""
        self._connection = connection
        self._asked = asked
        self._session: Any = connection.client.uaclient.session
        self._requests: list[tuple[Sequence[int], ua.ReadParameters]] = []

    async def start(self, nodes: Sequence[ua.NodeId | None]) -> None:
        """Ask for these from now on, by their handles from 1 on; None is no node.

        Raises:
            OSError, UaError: the server does not say how many it takes at once.
        """
        (at_once,) = await self._connection.limits(_NODES_PER_READ)
        there = [(handle, node) for handle, node in enumerate(nodes, 1) if node is not None]
        self._requests = [
            (
                [handle for handle, _ in some],
                ua.ReadParameters(
                    MaxAge=ua.Double(0),
                    TimestampsToReturn=ua.TimestampsToReturn.Source,
                    NodesToRead=[
                        ua.ReadValueId(NodeId=node, AttributeId=AttributeIds.Value) for _, node in some
                    ],
                ),
            )
            for some in pieces(there, at_once)
        ]

    async def values(self) -> list[Item]:
        """All values as they are now.

        Raises:
            OSError, UaError: the server does not answer, or refuses.
            struct.error, IndexError, ValueError: its answer cannot be read.
        """
        found: list[Item] = []
        for handles, parameters in self._requests:
            request = ua.ReadRequest()
            request.Parameters = parameters
            self._asked(len(handles))
            answers = read_answers(await self._session._send_request(request))  # noqa: SLF001 - asyncua reads each answer itself, see wire.py
            found += [(handle, *answer) for handle, answer in zip(handles, answers, strict=True)]
        return found
