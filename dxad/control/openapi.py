"""The route table as an OpenAPI document.

Source: OpenAPI 3.1, https://spec.openapis.org/oas/v3.1.0.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from dxad.control.problem import CONTENT_TYPE
from dxad.types import Document

if TYPE_CHECKING:
    from dxad.control.route import Route  # which serves this document among others

__all__ = ["document"]

_NAME = {
    "name": "name",
    "in": "path",
    "required": True,
    "description": "of a source, a pipeline, an alarm or an incident",
    "schema": {"type": "string"},
}
_PROBLEM = {
    "description": "a problem, RFC 9457",
    "content": {CONTENT_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
}
_COMPONENTS = {
    "schemas": {
        "Problem": {
            "type": "object",
            "required": ["type", "title", "status", "detail"],
            "properties": {
                "type": {"type": "string"},
                "title": {"type": "string"},
                "status": {"type": "integer"},
                "detail": {"type": "string"},
            },
        }
    }
}


def document(routes: Iterable["Route"]) -> Document:
    """Describe these routes."""
    paths: dict[str, Document] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {"title": "dxad control", "version": "1", "description": "HTTP over a Unix socket."},
        "paths": paths,
        "components": _COMPONENTS,
    }


def _operation(route: "Route") -> Document:
    operation: Document = {
        "summary": route.summary,
        "responses": {"2XX": {"description": "done", "content": {route.answers: {}}}, "default": _PROBLEM},
    }
    if route.admin:
        operation["description"] = "For root, the daemon's own user and the members of control.admin_group."
    parameters = [_NAME] if "{name}" in route.path else []
    for name, schema in _properties(route).items():
        description = schema.pop("description", "")
        parameters.append({"name": name, "in": "query", "description": description, "schema": schema})
    if parameters:
        operation["parameters"] = parameters
    if route.example is not None:
        schema = {"type": "object"}
        operation["requestBody"] = {
            "content": {"application/json": {"schema": schema, "example": route.example}}
        }
    return operation


def _properties(route: "Route") -> Document:
    """What may stand behind the `?`, by name."""
    found: Document = {} if route.query is None else route.query.model_json_schema()["properties"]
    return found
