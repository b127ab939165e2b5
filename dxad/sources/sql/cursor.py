"""Where a query goes on, in a file: `state_dir/sql/NAME.state`."""

import datetime as dt
import hashlib
import logging
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from dxad import statefile

__all__ = ["CursorFile"]

log = logging.getLogger(__name__)

_READ: Final[Mapping[str, Callable[[str], Any]]] = {
    "datetime": dt.datetime.fromisoformat,
    "date": dt.date.fromisoformat,
    "decimal": Decimal,
    "uuid": UUID,
}
_LARGEST: Final = 2**63


class CursorFile:
    """Keeps a value of one query; that of another query is none of ours. Blocking."""

    def __init__(self, path: Path, *what: str) -> None:
        """Keep it at `path`; `what` tells the query: its text, its cursor, its database."""
        self._path = path
        self._query = hashlib.sha256("\0".join(what).encode()).hexdigest()[:32]
        self._written: Any = None

    def read(self) -> Any:
        """The value; None where there is none, or none that is ours."""
        try:
            document = statefile.read(self._path)
        except statefile.StateError as error:
            log.warning("%s: %s; the query begins anew", self._path, error)
            return None
        if document is None or document.get("query") != self._query:
            return None
        kind, text = document.get("kind", ""), document.get("cursor")
        self._written = _READ[kind](text) if kind in _READ and isinstance(text, str) else text
        return self._written

    def write(self, cursor: Any) -> None:
        """Keep this value, if it is another one, and of a kind that a file can hold.

        Raises:
            OSError: the disk does not take it.
        """
        if cursor is None or cursor == self._written:
            return
        kind = type(cursor).__name__.lower()
        if kind in _READ:
            cursor_text: Any = cursor.isoformat() if isinstance(cursor, dt.date) else str(cursor)
        elif isinstance(cursor, str | float) or (isinstance(cursor, int) and abs(cursor) < _LARGEST):
            cursor_text = cursor
        else:
            return
        document = {"query": self._query, "kind": kind, "cursor": cursor_text}
        statefile.write(self._path, statefile.encode(document))
        self._written = cursor
