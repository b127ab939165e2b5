"""Server-Sent Events on the wire.

Source: the WHATWG HTML standard, §9.2.5 "Parsing an event stream", https://html.spec.whatwg.org/.
"""

from typing import Final

import orjson

from dxad.types import Document

__all__ = ["CONTENT_TYPE", "RETRY", "encode"]

CONTENT_TYPE: Final = "text/event-stream"
RETRY: Final = b"retry: 2000\n\n"
"""How long a client waits before it connects again, in milliseconds."""


def encode(page: Document) -> bytes:
    """Some events, each with its place as its id; without any, a sign of life.

    A sign of life has an id and no data: a client notes the place, and tells nobody. So whoever wants rare
    events goes on from there, too.

    Args:
        page: `records`, each with `event`, and `seq` where it has a place; `next`, the place that is reached;
            `remark`.
    """
    parts = [f": {_line(page['remark'])}\n\n".encode()] if page["remark"] else []
    for each in page["records"]:
        kind = _line(each["event"].get("type", ""))
        place = "" if each["seq"] is None else f"id: {each['seq']}\n"
        parts.append(f"{place}event: {kind}\ndata: ".encode())
        parts += orjson.dumps(each["event"]), b"\n\n"
    if not page["records"]:
        parts.append(f": alive\nid: {page['next']}\n\n".encode())
    return b"".join(parts)


def _line(value: object) -> str:
    """On one line, whatever it is."""
    return " ".join(str(value).split())
