"""What a server thinks of a value: its StatusCode, as a quality with a reason (OPC 10000-4, 7.39)."""

import math
from functools import lru_cache
from typing import Final

from asyncua.ua.status_codes import StatusCodes, get_name_and_doc

from dxad.types import Quality, Reason

__all__ = ["Judged", "judged", "overflown", "status_name"]

Judged = tuple[float | None, Quality, Reason]
"""A number, or None where there is none; and how far it can be trusted, and why no further."""

_QUALITY: Final = (Quality.GOOD, Quality.UNCERTAIN, Quality.BAD, Quality.BAD)
"""By the two highest bits."""
_CODE: Final = 0xFFFF_0000
"""The bits that say what is wrong; the others are of the value, such as that a queue was full."""
_OVERFLOW: Final = 0x0480
"""InfoType DataValue, and Overflow."""
_REASONS: Final = {
    getattr(StatusCodes, name): reason
    for reason, names in {
        Reason.TIMEOUT: (
            "BadTimeout", "BadRequestTimeout", "BadNoCommunication", "BadCommunicationError",
            "BadNotConnected", "BadServerNotConnected",
            "UncertainNoCommunicationLastUsableValue",
        ),
        Reason.RANGE: ("BadOutOfRange", "UncertainEngineeringUnitsExceeded"),
        Reason.TYPE: ("BadTypeMismatch", "BadNoData", "BadWaitingForInitialData"),
    }.items()
    for name in names
}  # fmt: skip
"""By code; all others are the device's own affair."""
_NO_NUMBER: Final[Judged] = (None, Quality.BAD, Reason.TYPE)


def judged(value: object, status: int) -> Judged:
    """A value with its status; an array of one counts as what is in it."""
    if status & _CODE:
        return _doubtful(value, status)
    if type(value) is float:
        return (value, Quality.GOOD, Reason.NONE) if math.isfinite(value) else _NO_NUMBER
    number = _number(value)
    return _NO_NUMBER if number is None else (number, Quality.GOOD, Reason.NONE)


def _doubtful(value: object, status: int) -> Judged:
    quality = _QUALITY[status >> 30]
    reason = _REASONS.get(status & _CODE, Reason.DEVICE)
    if quality is Quality.BAD:
        return None, quality, reason
    number = _number(value)
    if number is None:
        return _NO_NUMBER
    return number, quality, Reason.NONE if quality is Quality.GOOD else reason


def _number(value: object) -> float | None:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, bool | int | float) or not math.isfinite(value):
        return None
    return float(value)


def overflown(status: int) -> bool:
    """Whether the server lost values before this one, because the item's queue was full."""
    return status & _OVERFLOW == _OVERFLOW


@lru_cache(256)
def status_name(status: int) -> str:
    """What the standard calls it."""
    name: str = get_name_and_doc(status & _CODE)[0]
    return name
