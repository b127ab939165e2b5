"""What is said of every untrained model."""

from pydantic import Field

from dxad.fields import ModelSection

__all__ = ["BaselineSection", "WarmUpSection"]


class BaselineSection(ModelSection):
    """Keys that all baselines understand alike."""

    false_alarm_rows: int = Field(
        864_000,
        ge=100,
        le=10**12,
        description="rows between two false alarms, were channels normal and independent: sets the limit; "
        "the default is a day at 10 Hz",
    )
    relearn_after: int | None = Field(
        None,
        ge=1,
        description="this many more rows above the limit than below it are the new normal, and a new warm-up "
        "begins; without it, never",
    )


class WarmUpSection(BaselineSection):
    """Likewise, of those that take their first rows as normal."""

    warm_up: int = Field(
        100, ge=10, le=100_000, description="rows that are taken as normal before the first score, per regime"
    )
