"""How a configuration names a node: by the URI of its namespace, since indices change with the server.

s=Pump.Power                       in the source's namespace; i=42, g=… and b=… likewise
nsu=urn:vendor:machine;s=Pump      in a namespace of its own
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from asyncua import ua

__all__ = ["NodeName"]

_PREFIX = "nsu="


@dataclass(frozen=True, slots=True)
class NodeName:
    """A node, whatever index its namespace has today."""

    text: str
    """As it is written."""
    namespace: str | None
    """The URI, if it names one."""
    identifier: ua.Int32 | ua.String | ua.Guid | ua.ByteString

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read one (OPC 10000-6, 5.3.1.10); asyncua's own parser stops at a `;`.

        Raises:
            ValueError: it is none.
        """
        if not text.startswith(_PREFIX):
            return cls(text, None, _identifier(text))
        uri, _, identifier = text.removeprefix(_PREFIX).partition(";")
        return cls(text, uri, _identifier(identifier))

    def place(self, uris: Sequence[str], default: str | None) -> ua.NodeId | None:
        """Its id on a server with these namespaces; None where it has no such namespace."""
        uri = self.namespace or default
        if uri is None:
            return ua.NodeId(self.identifier, ua.Int16(0))
        return ua.NodeId(self.identifier, ua.Int16(uris.index(uri))) if uri in uris else None


def _identifier(text: str) -> ua.Int32 | ua.String | ua.Guid | ua.ByteString:
    kind, _, rest = text.partition("=")
    match kind:
        case "i" if rest.isascii() and rest.isdigit() and int(rest) < 2**32:
            return ua.Int32(rest)
        case "g":
            return ua.Guid(rest)
        case "b":
            return ua.ByteString(base64.b64decode(rest, validate=True))
        case "s" if rest:
            return ua.String(rest)
    raise ValueError(
        f"{text!r} is no node id: s=Name, i=42, g=UUID or b=base64, perhaps behind nsu=URI; "
        "(an index, ns=2, would change with the server)"
    )
