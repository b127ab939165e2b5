"""What the models of several pipelines must not share, and what nobody can sign."""

import os
from collections.abc import Iterator, Mapping

from dxad.fields import ModelSection

__all__ = ["mistaken"]


def mistaken(
    models: Mapping[str, tuple[ModelSection | None, bool]],
) -> Iterator[tuple[str, tuple[str, ...], str]]:
    """Each mistake: the pipeline, the key of its model, what is wrong.

    Args:
        models: by pipeline, its model if it has one, and whether it learns on the spot.
    """
    owner: dict[str, str] = {}
    for name, (model, learns) in models.items():
        if model is None:
            continue
        for path in model.bundles():
            first = owner.setdefault(os.path.normpath(path), name)
            if first != name:
                text = f"{path} is that of pipeline {first!r} too; one would replace the other's model"
                yield name, ("path",) if hasattr(model, "path") else (), text
        if learns and getattr(model, "require_signature", False):
            yield name, ("require_signature",), "nobody signs what is learned here; leave out this, or learn"
