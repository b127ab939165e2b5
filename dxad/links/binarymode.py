"""An event in the binary mode of CloudEvents' protocol bindings: its data is the body, the rest beside it.

Source: CloudEvents 1.0.2, https://github.com/cloudevents/spec: type system §3.1 (string form of values), HTTP
protocol binding §3.1, MQTT protocol binding §3.1.
"""

import base64
from typing import Any, Final

import orjson

from dxad.types import Document

__all__ = ["attributes", "content", "headers"]

_OF_THE_BODY: Final = frozenset({"data", "data_base64", "datacontenttype"})


def content(event: Document) -> tuple[bytes, str]:
    """The body, and its content type.

    Raises:
        TypeError: the data cannot be written as JSON.
        ValueError: likewise.
    """
    return orjson.dumps(event.get("data")), event.get("datacontenttype", "application/json")


def attributes(event: Document) -> dict[str, str]:
    """All attributes that are not about the body, as strings: MQTT's user properties."""
    return {name: _text(value) for name, value in event.items() if name not in _OF_THE_BODY}


def headers(event: Document) -> dict[str, str]:
    """The attributes as HTTP headers, percent-encoded (HTTP protocol binding §3.1.3.2)."""
    return {f"ce-{name}": _encoded(value) for name, value in attributes(event).items()}


def _text(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case bytes():
            return base64.b64encode(value).decode()
    return str(value)


def _encoded(text: str) -> str:
    """With all but printable ASCII, and with spaces, quotes and percent signs, as %XX of their UTF-8."""
    return "".join(
        each
        if "!" <= each <= "~" and each not in '"%'
        else "".join(f"%{byte:02X}" for byte in each.encode(errors="replace"))
        for each in text
    )
