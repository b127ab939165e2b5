"""The past of variables, for HistoryRead: the last values of each, in memory."""

from collections import deque
from collections.abc import Mapping
from datetime import datetime

from asyncua import ua
from asyncua.server.history import HistoryDict

__all__ = ["History"]


class History(HistoryDict):
    """Reads what the variables themselves note, by node; asyncua's would look at each value a second time."""

    def __init__(self, pasts: Mapping[ua.NodeId, deque[ua.DataValue]]) -> None:
        super().__init__()
        self.pasts = pasts
        """The values of each node that has a history, the oldest first."""

    async def read_node_history(
        self, node_id: ua.NodeId, start: datetime | None, end: datetime | None, nb_values: int
    ) -> tuple[list[ua.DataValue], datetime | None]:
        """What it showed between two times, both included; towards the first if that is the later one.

        Raises:
            UaStatusCodeError: the node has no history.
        """
        if node_id not in self.pasts:
            raise ua.uaerrors.BadHistoryOperationUnsupported
        self._datachanges = {node_id: [each for each in self.pasts[node_id] if each.SourceTimestamp]}
        return await super().read_node_history(node_id, start, end, nb_values)
