"""What the kernel knows of its own wall clock: whether somebody keeps it right, and how far off it may be.

Source: adjtimex(2). systemd-timesyncd and ntpd tell it by themselves, chrony where its `rtcsync` is on, as
Debian has it (chrony.conf(5)). A sandbox may forbid even the question (ProtectClock= of systemd): then there
is only the file by which systemd-timesyncd says the same (systemd-timesyncd.service(8)), or nobody knows.
"""

import ctypes
import os
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["KernelTime", "kernel_time", "synchronised"]

_UNSYNC: Final = 0x40
"""STA_UNSYNC."""
_TIME_ERROR: Final = 5
_TIMESYNCD: Final = Path("/run/systemd/timesync/synchronized")


class KernelTime(NamedTuple):
    """How it stands with the wall clock."""

    synchronised: bool
    off_most_us: int
    """The most by which it may be off."""


class _Timex(ctypes.Structure):
    """`struct timex`, with room for what follows."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 512),
    )


def kernel_time() -> KernelTime:
    """Ask the kernel, without asking it to do anything.

    Raises:
        OSError: it does not tell.
    """
    timex = _Timex()
    state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(timex))
    if state < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return KernelTime(state != _TIME_ERROR and not timex.status & _UNSYNC, timex.maxerror)


def synchronised() -> bool:
    """Whether the wall clock is kept right; False where nobody knows."""
    try:
        return kernel_time().synchronised
    except OSError:
        return _TIMESYNCD.exists()
