"""From `type = "modbus"` to the class that does it: one file per plug-in, imported when a config names it.

A plug-in is a module of `dxad.sources`, `.sinks`, `.transforms`, `.models` or `.decode` that holds a frozen
config class, the class itself and `PLUGIN = Plugin(Config, Class)`. Third parties add theirs by an entry
point in the group `dxad.sources` (and so on) that points at such a `PLUGIN`. A plain Python function over
columns, for the transform `call`, is an entry point in the group `dxad.functions`.
"""

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import Any, Literal

from pydantic import GetPydanticSchema, ValidationError
from pydantic_core import PydanticCustomError, core_schema

from dxad.errors import ConfigError
from dxad.fields import Section

__all__ = ["Family", "Plugin", "function", "load", "names", "section"]

Family = Literal["sources", "sinks", "transforms", "models", "decode"]


@dataclass(frozen=True, slots=True)
class Plugin:
    """What a plug-in module offers."""

    config: type[Section]
    build: Callable[..., Any]
    """Makes the node of its config; which further arguments it takes is the family's convention."""


@cache
def names(family: Family) -> tuple[str, ...]:
    """All types of a family that are installed, in alphabetical order."""
    package = importlib.import_module(f"dxad.{family}")
    own = {module.name for module in pkgutil.iter_modules(package.__path__)}
    return tuple(sorted(own | {point.name for point in entry_points(group=f"dxad.{family}")}))


@cache
def load(family: Family, name: str) -> Plugin:
    """Import the plug-in of this name.

    Raises:
        ConfigError: there is none, or a library it needs is missing.
    """
    kind = family.removesuffix("s")
    if name not in names(family):
        close = difflib.get_close_matches(name, names(family), 1)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names(family))}"
        raise ConfigError(f"no {kind} of type {name!r}, {hint}")
    try:
        for point in entry_points(group=f"dxad.{family}", name=name):
            found = point.load()
            break
        else:
            found = importlib.import_module(f"dxad.{family}.{name}").PLUGIN
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{kind} {name!r} needs the Python package {error.name!r}, which is not installed"
        ) from error
    if not isinstance(found, Plugin):
        raise ConfigError(f"{kind} {name!r}: its entry point is a {type(found).__name__}, not a Plugin")
    return found


def function(name: str) -> Callable[..., Any]:
    """The function that somebody has registered under this name in the group `dxad.functions`.

    Raises:
        ConfigError: there is none, or it cannot be imported.
    """
    points = {point.name: point for point in entry_points(group="dxad.functions")}
    if name not in points:
        close = difflib.get_close_matches(name, points, 1)
        known = f"known: {', '.join(sorted(points))}" if points else "no installed package has any"
        hint = f"did you mean {close[0]!r}?" if close else known
        raise ConfigError(f"no entry point {name!r} in the group dxad.functions, {hint}")
    try:
        found = points[name].load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"function {name!r}: {points[name].value} cannot be imported: {error}") from error
    if not callable(found):
        raise ConfigError(f"function {name!r}: its entry point is a {type(found).__name__}, not a function")
    made: Callable[..., Any] = found
    return made


def _allowed(family: Family, name: str, without: Collection[str]) -> Plugin:
    if name in without:
        raise ConfigError(f"no {name!r} inside another one")
    return load(family, name)


def section(
    family: Family, parent: type[Section], *, key: str = "type", without: Collection[str] = ()
) -> GetPydanticSchema:
    """The type of a configuration table whose `key` names a plug-in: that plug-in's config checks it.

    Args:
        family: of which it is.
        parent: what all configs of the family are.
        key: that names the plug-in.
        without: plug-ins that have no place there; a plug-in that holds others must not hold itself.
    """

    def validated(value: Any) -> Section:
        if isinstance(value, parent):
            return value
        if not isinstance(value, Mapping):
            raise PydanticCustomError("config", "expected a table")
        name = value.get(key)
        if not isinstance(name, str):
            text = f"{key} is missing; known: {', '.join(names(family))}"
            raise PydanticCustomError("config", "{text}", {"text": text})
        try:
            found = _allowed(family, name, without)
        except ConfigError as error:
            fault = PydanticCustomError("config", "{text}", {"text": str(error)})
            raise ValidationError.from_exception_data(
                family, [{"type": fault, "loc": (key,), "input": name}]
            ) from error
        return found.config.model_validate(value)

    def schema(_source: Any, _handler: Any) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(validated)

    def json_schema(_schema: Any, handler: Any) -> dict[str, Any]:
        kinds = [load(family, name).config for name in names(family) if name not in without]
        shown = [each for each in kinds if not getattr(each, "in_process", False)]
        return {"anyOf": [handler(each.__pydantic_core_schema__) for each in shown]}

    return GetPydanticSchema(schema, json_schema)
