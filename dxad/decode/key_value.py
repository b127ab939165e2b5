"""Names and values: `temp=21.5,hum=40`."""

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import Field, model_validator

from dxad.decode import DecodeSection, bounded, number_in
from dxad.errors import DecodeError
from dxad.plugin import Plugin

__all__ = ["PLUGIN", "Config", "KeyValue"]


class Config(DecodeSection):
    """`decode = { kind = "key_value" }`."""

    kind: Literal["key_value"] = "key_value"
    separator: str = Field(
        ",", min_length=1, max_length=8, description="between two pairs; a blank is any white space"
    )
    assign: str = Field("=", min_length=1, max_length=8, description="between a name and its value")
    decimal: Literal[".", ","] = Field(".", description="what stands before the fraction of a number")

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if self.separator == self.assign:
            raise ValueError("separator: is the same as assign")
        if self.decimal in {self.separator, self.assign}:
            raise ValueError(f"decimal: {self.decimal!r} does not stand within the numbers alone")
        return self


class KeyValue:
    """Finds each channel's value by its name."""

    def __init__(self, config: Config, paths: Sequence[str]) -> None:
        """Look for the names `paths`, one per channel."""
        self._paths = list(paths)
        self._max = config.max_payload
        self._separator = None if config.separator == " " else config.separator
        self._assign = config.assign
        self._decimal = config.decimal

    def decode(self, payload: bytes) -> list[float | None]:
        """Each channel's number; None where its name is missing, or its value empty or not finite.

        Raises:
            DecodeError: the payload is not made of pairs, has none that is wanted, or a name twice; a value
                that is wanted is no number.
        """
        try:
            text = bounded(payload, self._max).decode()
        except UnicodeDecodeError as error:
            raise DecodeError(f"not UTF-8 at byte {error.start}") from error
        found: dict[str, str] = {}
        for pair in text.split(self._separator):
            name, assign, value = pair.partition(self._assign)
            name = name.strip()
            if not assign or not name:
                raise DecodeError(f"{pair.strip()[:20]!r} is no name{self._assign}value")
            if name in found:
                raise DecodeError(f"{name[:20]!r} stands there twice")
            found[name] = value
        values = [number_in(found[path], self._decimal) if path in found else None for path in self._paths]
        if not any(path in found for path in self._paths):
            raise DecodeError(f"none of {', '.join(self._paths[:4])} in it")
        return values


PLUGIN = Plugin(Config, KeyValue)
