"""A time as people write it: when, or how long ago."""

from datetime import datetime
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, TypeAdapter, ValidationError, WithJsonSchema

from dxad.fields import Duration

__all__ = ["Moment", "moment"]

_DURATION: Final[TypeAdapter[int]] = TypeAdapter(Duration)


def moment(value: Any) -> int:
    """UTC nanoseconds, or, below 0, so long before the time it is looked at; see `Moment`.

    Raises:
        ValueError: it is neither a time nor a duration.
    """
    try:
        return -_DURATION.validate_python(value)
    except ValidationError:
        pass
    try:
        found = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise ValueError(
            f'{value!r} is neither a duration ("2h": so long ago) nor a time ("2026-11-25T08:30:00Z")'
        ) from None
    if found.tzinfo is None:
        raise ValueError(f"{value!r} says no time zone; write Z for UTC")
    return round(found.timestamp() * 1_000_000) * 1000


Moment = Annotated[
    int,
    BeforeValidator(moment),
    WithJsonSchema({"type": "string", "examples": ["2h", "2026-11-25T08:30:00Z"]}),
]
"""UTC nanoseconds, written as RFC 3339 has it; or, below 0, a duration before the time it is looked at."""
