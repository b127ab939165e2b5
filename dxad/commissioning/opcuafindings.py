"""What a browsed OPC-UA server is told as: a document, and the configuration that reads it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from dxad.commissioning.fragment import fragment, name_for
from dxad.commissioning.opcuabrowse import Tree, Variable
from dxad.commissioning.opcuaserver import Endpoint
from dxad.sources.opcua import OpcuaChannel
from dxad.types import Document

__all__ = ["opcua_fragment", "server_document"]

_CHANNELS: Final = 64
"""That a fragment proposes."""


def opcua_fragment(name: str, url: str, tree: Tree, login: Mapping[str, Any]) -> str:
    """The configuration that reads the numbers among the variables.

    Args:
        name: of the source.
        url: of the server.
        tree: what was found.
        login: the keys by which to enter.
    """
    usable = [each for each in tree.variables if each.numeric and each.readable and _takes(each)]
    home = _home(usable[:_CHANNELS])
    channels: dict[str, dict[str, Any]] = {}
    remarks: dict[str, str] = {}
    for each in usable[:_CHANNELS]:
        channel = name_for(each.path[-1], channels)
        if channel != name_for(each.path[-1]) and len(each.path) > 1:  # its name is another's
            channel = name_for(f"{each.path[-2]}_{each.path[-1]}", channels)
        made: dict[str, Any] = {"node": each.identifier if each.namespace == home else _full(each)}
        if each.array:
            *outer, last = each.sizes
            made["index"] = ",".join(["0"] * len(outer) + [f"0:{last - 1}" if last > 1 else "0"])
        channels[channel] = made | ({"unit": each.unit} if each.unit else {})
        remarks[channel] = f"{each.type} {each.status if each.value is None else each.value}"
    settings: dict[str, Any] = {"type": "opcua", "url": url}
    settings |= login
    if home:
        settings["namespace"] = home
    settings |= {"period": "1s", "hold": "session"}
    head = [] if channels else ["no variable with a number was found"]
    if len(usable) > _CHANNELS:
        head.append(f"{len(usable) - _CHANNELS} more variables hold numbers: name those you want")
    return fragment(name, settings, channels, remarks=remarks, head="\n".join(head))


def _home(variables: Sequence[Variable]) -> str | None:
    """The namespace in which most of them are."""
    counted = Counter(each.namespace for each in variables)
    return counted.most_common(1)[0][0] if counted else None


def _full(variable: Variable) -> str:
    return f"nsu={variable.namespace};{variable.identifier}"


def _takes(variable: Variable) -> bool:
    """Whether a configuration can name it."""
    try:
        OpcuaChannel(node=_full(variable))
    except ValueError:
        return False
    return True


def server_document(url: str, endpoints: Sequence[Endpoint], tree: Tree | None) -> Document:
    """All of it, for programs."""
    return {
        "url": url,
        "endpoints": [
            {
                "policy": each.policy,
                "mode": each.mode,
                "logins": list(each.logins),
                "level": each.level,
                "plain_password": each.plain_password,
            }
            for each in endpoints
        ],
        "namespaces": [] if tree is None else list(tree.namespaces),
        "nodes_looked_at": 0 if tree is None else tree.nodes,
        "cut": "" if tree is None else tree.cut,
        "variables": [] if tree is None else [_document(each) for each in tree.variables],
    }


def _document(variable: Variable) -> Document:
    return {
        "path": "/".join(variable.path),
        "node": _full(variable),
        "type": variable.type,
        "value": variable.value,
        "array": variable.array,
        "readable": variable.readable,
        "status": variable.status,
        "unit": variable.unit,
        "sampling_ms": variable.sampling_ms,
        "history": variable.history,
    }
