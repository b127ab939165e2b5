"""Whether a file that a sink writes is somebody else's already: the outbox's, or another sink's."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Protocol, runtime_checkable

from dxad.outboxsection import OutboxSection

__all__ = ["mistaken"]

_BESIDE: Final = ("", "-wal", "-shm", "-ballast")
"""What belongs to the outbox's file."""


@runtime_checkable
class _Writing(Protocol):
    @property
    def path(self) -> Path: ...


def mistaken(
    sinks: Mapping[str, Any], *, state_dir: Path, outbox: object
) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """What is wrong with the files of these sinks, where `outbox` is its path: the key, and the reason."""
    box = state_dir / (outbox if isinstance(outbox, str) else OutboxSection().path)
    users = {box.with_name(box.name + suffix): "the outbox" for suffix in _BESIDE}
    for name, sink in sinks.items():
        if isinstance(sink, _Writing):
            path = state_dir / sink.path
            if path in users:
                yield ("sinks", name, "path"), f"{path} belongs to {users[path]}; give this sink another file"
            users.setdefault(path, f"sinks.{name}")
