"""Physical connections that several sources share."""

import os
import socket

__all__ = ["words"]


def words(error: OSError) -> str:
    """The operating system's words for an error, such as `Connection refused`; asyncio puts its own there."""
    if error.errno is None or isinstance(error, socket.gaierror):
        return error.strerror or str(error) or type(error).__name__
    return os.strerror(error.errno)
