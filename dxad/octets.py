"""Bytes as a configuration writes them: a text, or hexadecimal digits after 0x."""

from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

__all__ = ["Octets", "octets_written"]


def _octets(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise ValueError('expected a text, or "0x" and hexadecimal digits')  # noqa: TRY004 - pydantic collects ValueErrors
    if not value.startswith("0x"):
        return value.encode()
    try:
        return bytes.fromhex(value[2:])
    except ValueError as error:
        raise ValueError(f"{value!r} is no even number of hexadecimal digits after 0x") from error


def octets_written(value: bytes) -> str:
    """Back to the string: a text where it is one that says the same."""
    text = value.decode("ascii", errors="replace")
    plain = (
        text.isascii()
        and not text.startswith("0x")
        and all(each.isprintable() or each in "\r\n" for each in text)
    )
    return text if plain else f"0x{value.hex()}"


Octets = Annotated[
    bytes,
    BeforeValidator(_octets),
    PlainSerializer(octets_written, when_used="json"),
    WithJsonSchema({"type": "string", "examples": ["READ?\r\n", "0x02"]}),
]
"""Bytes, written as a text, or as hexadecimal digits after 0x."""
