"""What to write into the configuration: the table of a source, in TOML, with remarks."""

import json
import re
from collections.abc import Collection, Mapping
from typing import Any, Final

__all__ = ["fragment", "name_for"]

_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
_NO_NAME: Final = re.compile(r"[^A-Za-z0-9]+")
_LONGEST: Final = 60
"""Characters of a name, with room for a number behind it."""


def name_for(text: str, taken: Collection[str] = ()) -> str:
    """A name that a configuration takes, after `text`, and not one of the taken."""
    found = _NO_NAME.sub("_", text).strip("_")[:_LONGEST].rstrip("_") or "value"
    name, number = found, 2
    while name in taken:
        name, number = f"{found}_{number}", number + 1
    return name


def fragment(
    name: str,
    settings: Mapping[str, Any],
    channels: Mapping[str, Mapping[str, Any]],
    *,
    remarks: Mapping[str, str] | None = None,
    head: str = "",
) -> str:
    """The table `sources.NAME`.

    Args:
        name: of the source.
        settings: its keys, in their order.
        channels: by name, their keys.
        remarks: behind a key of the settings or a channel, what there is to say of it.
        head: a remark above it all.
    """
    remarks = remarks or {}
    lines = [f"# {_plain(line)}" for line in head.splitlines()]
    lines.append(f"[sources.{name}]")
    lines += [
        _remarked(f"{_key(key)} = {_value(value)}", remarks.get(key)) for key, value in settings.items()
    ]
    if channels:
        lines.append(f"[sources.{name}.channels]")
        lines += [
            _remarked(f"{_key(key)} = {_value(value)}", remarks.get(key)) for key, value in channels.items()
        ]
    return "\n".join(lines) + "\n"


def _remarked(line: str, remark: str | None) -> str:
    return f"{line}  # {_plain(remark)}" if remark else line


def _plain(text: str) -> str:
    """What may stand in a comment."""
    return "".join(each if each.isprintable() else " " for each in text)


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _value(name)


def _value(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case str():
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case Mapping():
            inside = ", ".join(f"{_key(str(key))} = {_value(each)}" for key, each in value.items())
            return f"{{ {inside} }}" if inside else "{}"
        case list() | tuple():
            return f"[{', '.join(map(_value, value))}]"
    raise TypeError(f"{type(value).__name__} has no place in a configuration")
