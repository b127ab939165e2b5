"""What a pipeline is told, and what it tells of itself: the DXA nouns."""

import asyncio
from dataclasses import dataclass, field
from enum import Enum

from dxad.types import Document

__all__ = ["ExecutionNodeStatus", "PipelineConfig", "PipelineContext", "PipelineState", "ResourceResponse"]


class ExecutionNodeStatus(Enum):
    """How far a node is; a pipeline that runs is IN_PROGRESS."""

    NONE = "none"
    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    SKIPPED = "skipped"
    BLOCKED = "blocked"


@dataclass(frozen=True, slots=True)
class PipelineConfig:
    """Defaults for the nodes of a pipeline."""

    name: str
    buffer_size: int = 1000
    """Rows that each source's ring, and the pipeline's past, hold."""
    batch_size: int = 32
    """Rows taken at once."""
    metadata: Document = field(default_factory=dict)
    """The caller's own; dxad only shows it."""


@dataclass(slots=True)
class PipelineState:
    """How a pipeline is doing."""

    status: ExecutionNodeStatus = ExecutionNodeStatus.NONE
    metrics: Document = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)


@dataclass(slots=True)
class PipelineContext:
    """A running pipeline looked into: a queue per node that fills while the context is held."""

    config: PipelineConfig
    state: PipelineState
    buffers: dict[str, asyncio.Queue[Document]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ResourceResponse:
    """The answer to a query."""

    success: bool
    content: Document | None = None
    error: str | None = None
