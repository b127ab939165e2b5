"""Exceptions whose type says what happens next.

==========================  ====================================================================
raised                      what its catcher does
==========================  ====================================================================
ConfigError                 refuse; no retry can help until somebody edits something
NotConnected                close, wait with a growing back-off, connect again
Backoff                     the same, after exactly the seconds it names
DecodeError                 count one bad message and go on
EndOfStream                 the source is finished; its service ends well
ModelError                  keep the old model, raise a condition
ModelRefusedError           the same for a model that was looked at and is not safe or not whole
Rejected                    dead-letter the records it names, go on with the others
OutboxFull                  apply the quota: the oldest of the least important lane goes
ResourceUnavailableError    the caller asked a pipeline that is not initialised or not reachable
RequestRefusedError         the daemon was reached and will not do what was asked: ask otherwise
LeaseLostError              stop what was done for the event: somebody else may have it
==========================  ====================================================================

Anything else is a bug: the supervisor logs it once, restarts the service, and gives up in the end.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

__all__ = [
    "FOREIGN_FAULTS",
    "Backoff",
    "ConfigError",
    "DecodeError",
    "DxadError",
    "EndOfStream",
    "LeaseLostError",
    "ModelError",
    "ModelRefusedError",
    "NotConnected",
    "OutboxFull",
    "Problem",
    "Rejected",
    "RequestRefusedError",
    "ResourceUnavailableError",
]


FOREIGN_FAULTS: Final = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    BufferError,
    ImportError,
    LookupError,
    MemoryError,
    NameError,
    OSError,
    RuntimeError,
    StopIteration,
    SystemExit,
    TypeError,
    ValueError,
)
"""What code of the user's own raises, a function or a model; anything else is a bug of dxad's."""


class DxadError(Exception):
    """The root of everything dxad raises on purpose."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a configuration: where it stands and what is wrong with it."""

    where: str
    """`file:line`, or the file alone where no line is known."""
    key: str
    """The dotted path of the key, e.g. `sources.plc.period`."""
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.key}: {self.message}" if self.key else f"{self.where}: {self.message}"


class ConfigError(DxadError):
    """Something is configured wrong; `problems` has every mistake that was found, one by one."""

    def __init__(self, message: str = "", problems: Sequence[Problem] = ()) -> None:
        self.problems = tuple(problems)
        super().__init__(message or "\n".join(map(str, self.problems)))


class NotConnected(DxadError):  # noqa: N818 - an instruction, worded as the benthos contract words it
    """The peer is not there (any more)."""

    def __init__(self, message: str = "", *, taken: int = 0) -> None:
        self.taken = taken
        """Of a write: how many of its first records the peer has all the same."""
        super().__init__(message)


class Backoff(DxadError):  # noqa: N818 - an instruction
    """The peer asked to be left alone for `seconds`."""

    def __init__(self, seconds: float, reason: str, *, taken: int = 0) -> None:
        self.seconds = seconds
        self.taken = taken
        """Of a write: how many of its first records the peer has all the same."""
        super().__init__(reason)


class DecodeError(DxadError):
    """Messages were malformed, `rejected` of them; the connection is sound."""

    def __init__(self, message: str, *, rejected: int = 1) -> None:
        self.rejected = rejected
        super().__init__(message)


class EndOfStream(DxadError):  # noqa: N818 - an instruction
    """The source has nothing more, ever."""


class ModelError(DxadError):
    """A model cannot be used or failed while scoring."""


class ModelRefusedError(ModelError):
    """A model file is not one that dxad will load; the message says why and what to do."""


class Rejected(DxadError):  # noqa: N818 - an instruction
    """A sink will never take the records at `indices` of the batch it was given."""

    def __init__(self, indices: Sequence[int], reason: str) -> None:
        self.indices = tuple(indices)
        self.reason = reason
        super().__init__(f"{len(self.indices)} records rejected: {reason}")


class OutboxFull(DxadError):  # noqa: N818 - an instruction
    """The outbox is at its quota and holds nothing less important than what was offered."""


class ResourceUnavailableError(DxadError):
    """The pipeline is not initialised, or its daemon does not answer."""


class RequestRefusedError(ResourceUnavailableError):
    """The daemon answers, but not what was asked: it says why."""

    def __init__(self, status: int, detail: str) -> None:
        self.status = status
        """The HTTP status: 403 not allowed, 404 no such pipeline, 409 not in this configuration …"""
        super().__init__(detail)


class LeaseLostError(DxadError):
    """An event that was worked on is ours no more: its lease ended, or was not known any more."""
