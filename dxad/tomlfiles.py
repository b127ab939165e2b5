"""TOML files that go over each other, and what a command line puts over them, as one document."""

import tomllib
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Final

from dxad.errors import ConfigError, Problem
from dxad.tomlines import Key, assignment, locate

__all__ = ["FOLDER", "beside", "read"]

FOLDER: Final[ContextVar[Path]] = ContextVar("FOLDER", default=Path())
"""Of the configuration that is being checked: what other files it names are beside it."""


def beside(path: Path) -> Path:
    """A file that a configuration names, wherever that is checked."""
    return FOLDER.get() / path


def read(path: Path, overrides: Sequence[str] = ()) -> tuple[dict[str, Any], dict[Key, str]]:
    """The document of a file and the `conf.d/*.toml` beside it, merged, and the place of each of its keys.

    Args:
        path: the file.
        overrides: `dotted.key=value` as on a command line; they go before what the files say.

    Raises:
        ConfigError: with every file that cannot be read.
    """
    document: dict[str, Any] = {}
    lines: dict[Key, str] = {}
    problems: list[Problem] = []
    for file in (path, *sorted((path.parent / "conf.d").glob("*.toml"))):
        try:
            text = file.read_text()
            overlay = tomllib.loads(text)
        except OSError as error:
            problems.append(Problem(str(file), "", error.strerror or "cannot be read"))
        except UnicodeDecodeError as error:
            problems.append(Problem(str(file), "", f"is not UTF-8: {error.reason} at byte {error.start}"))
        except tomllib.TOMLDecodeError as error:
            problems.append(Problem(*_syntax(file, str(error))))
        else:
            _merge(document, overlay)
            lines.update({key: f"{file}:{line}" for key, line in locate(text).items()})
    for text in overrides:
        problems += _override(text, document, lines)
    if problems:
        raise ConfigError(problems=problems)
    return document, lines


def _merge(into: dict[str, Any], overlay: Mapping[str, Any]) -> None:
    for key, value in overlay.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def _override(text: str, document: dict[str, Any], lines: dict[Key, str]) -> list[Problem]:
    """Put the value of one assignment of the command line, which then is the place of all that is in it."""
    where = f"--set {text}"
    try:
        path, value = assignment(text)
    except ValueError as error:
        return [Problem(where, "", str(error).partition(" (at line ")[0])]
    table: Any = document
    place: Key = ()
    for name, following in zip(path, [*path[1:], None], strict=True):
        step: str | int = name
        if isinstance(table, list):
            if not name.isdigit() or int(name) >= len(table):
                known = f"0 to {len(table) - 1}" if table else "none"
                return [Problem(where, ".".join(path), f"{name!r} is no place in it; there are {known}")]
            step = int(name)
        elif not isinstance(table, dict):
            return [Problem(where, ".".join(path), f"{place[-1]} is no table")]
        place = (*place, step)
        if following is None:
            table[step] = value
        elif isinstance(table, list):
            table = table[int(name)]
        else:
            table = table.setdefault(name, {})
    for key in [each for each in lines if each[: len(place)] == place]:
        del lines[key]
    lines[place] = where
    return []


def _syntax(file: Path, message: str) -> tuple[str, str, str]:
    """`tomllib` says "... (at line 3, column 5)"."""
    text, _, place = message.partition(" (at line ")
    line = place.partition(",")[0]
    return (f"{file}:{line}" if line.isdigit() else str(file), "", text)
