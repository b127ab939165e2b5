"""The service manager's side of being a service: `sd_notify(3)` and the watchdog.

Source: the protocol section of `man sd_notify`; a datagram with lines to the socket in $NOTIFY_SOCKET.
"""

import os
import socket
import time

__all__ = ["notify", "ready", "reloading", "stopping", "watchdog", "watchdog_s"]


def notify(*lines: str) -> bool:
    """Tell systemd, when it asked to be told; False when it did not or does not listen."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):
        return False
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.settimeout(0.1)
            sock.connect("\0" + address[1:] if address[0] == "@" else address)
            sock.send("\n".join(lines).encode())
    except OSError:
        return False
    return True


def ready(status: str) -> bool:
    """Started, or reloaded."""
    return notify("READY=1", f"STATUS={status}")


def reloading() -> bool:
    """A reload begins; `ready` ends it. Type=notify-reload wants the time with it, `man sd_notify`."""
    return notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


def stopping() -> bool:
    """An orderly stop begins."""
    return notify("STOPPING=1")


def watchdog() -> bool:
    """A sign of life."""
    return notify("WATCHDOG=1")


def watchdog_s() -> float | None:
    """The seconds within which systemd expects a sign of life of this process; None when it does not."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    return int(microseconds) / 1e6 if microseconds.isdigit() and int(microseconds) else None
