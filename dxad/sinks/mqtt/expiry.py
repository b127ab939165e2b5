"""How long a message is of use: an event that says until when it counts need not reach anybody later.

Source: MQTT 5.0 (OASIS, 2019) §3.3.2.3.3, Message Expiry Interval.
"""

from typing import Final

from dxad.event import utc_ns
from dxad.runtime.clock import Clock
from dxad.types import NS_PER_S, Document, Record

__all__ = ["expiry_s"]

_MOST: Final = 2**32 - 1


def expiry_s(record: Record, document: Document, clock: Clock, boot: str) -> int | None:
    """The seconds that are left of an event's life, 1 at least; None where it counts for ever.

    Of an event of this boot they are counted on the boot clock, whoever sets the wall clock. Some brokers
    take 0 for ever, so that one which is over has another second.

    Args:
        record: the event as it is stored.
        document: the event, with or without `expiresat`.
        clock: says how old it is.
        boot: the id of this boot.
    """
    until = document.get("expiresat")
    if until is None:
        return None
    try:
        life = utc_ns(until) - utc_ns(document["time"])
    except (KeyError, TypeError, ValueError):
        return None
    now = clock.now()
    age = now - record.at_ns if record.boot.id == boot else clock.utc(now) - record.utc_ns
    return min(max(1, -(-(life - age) // NS_PER_S)), _MOST)
