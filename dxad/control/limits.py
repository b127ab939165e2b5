"""What one client may take from a daemon that has better things to do."""

from dataclasses import dataclass
from typing import Final

__all__ = ["BODY_BYTES", "QUERY_BYTES", "Limits"]

BODY_BYTES: Final = 64 * 2**10
QUERY_BYTES: Final = 2**20
"""A query may bring rows of its own."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Of the server as a whole; tests make them smaller."""

    clients: int = 32
    streams: int = 8
    """Of these, who may follow something without end."""
    head_s: float = 5.0
    """From the connection, or the answer before, to the end of a request's head."""
    body_s: float = 5.0
    request_s: float = 75.0
    """From a request's head until its answer is taken; a query may wait 60 s for rows.
    Of a stream, until each part is taken."""
    line_bytes: int = 4096
    """Of the request line, and of each header."""
    shutdown_s: float = 1.0
    """How long a request that is being answered may hold up the end."""
