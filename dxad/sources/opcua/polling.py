"""Asking for all values on the source's grid, in as few requests as the server takes."""

from collections.abc import Sequence
from typing import Any, Final

from asyncua import ua
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.object_ids import ObjectIds

from dxad.runtime.clock import Clock
from dxad.sources.opcua.connection import Connection
from dxad.sources.opcua.pieces import pieces
from dxad.sources.opcua.wire import Item, read_answers

__all__ = ["Poll"]

_NODES_PER_READ: Final = ObjectIds.Server_ServerCapabilities_OperationLimits_MaxNodesPerRead


class Poll:
    """Reads nodes over one connection, once per slot."""

    def __init__(self, connection: Connection, *, period: int, clock: Clock) -> None:
        self._connection = connection
        self._session: Any = connection.client.uaclient.session
        self._period = period
        self._clock = clock
        self._requests: list[tuple[Sequence[int], ua.ReadParameters]] = []
        self._slot: int | None = None
        """The one that was polled last."""

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

    async def next_slot(self) -> tuple[int, int]:
        """Wait until a slot begins that was not polled yet; returns it, and how many were passed over."""
        last = self._slot
        slot = -(-self._clock.now() // self._period)
        if last is not None:
            slot = max(slot, last + 1)
        await self._clock.sleep_until(slot * self._period)
        slot = max(slot, self._clock.now() // self._period)  # the loop may have been busy elsewhere
        self._slot = slot
        return slot, 0 if last is None else slot - last - 1

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
            answers = read_answers(await self._session._send_request(request))  # noqa: SLF001 - asyncua reads each answer itself, see wire.py
            found += [(handle, *answer) for handle, answer in zip(handles, answers, strict=True)]
        return found
