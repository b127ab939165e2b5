"""How large everything is made, and the bytes it takes: known from the configuration alone.

Of a source: its ring; the queue, and a copy while it is read; samples that wait for their slots to end, and a
copy while they are sealed; those that wait for the outbox; its newest samples, where a pipeline's rows are
finer than its slots.

Of a pipeline: rings of features, rows, scores and contributions; the slots that fold into a batch of rows,
and those rows; what its transforms look back on; windows of the model and of one beside it, gathered in one
batch; what is recorded to learn; tapes of incidents.

Of telemetry: the rows that are copied at once, and what is made of them; records that wait for the disk.

What a model's own interpreter takes is not among it.
"""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Final

from dxad.config import RING_BYTES_MAX, Config, PipelineSection, shape
from dxad.fields import SourceSection, TransformSection, matching
from dxad.frame import CELLS_AT_ONCE
from dxad.incident.evidence import Tape
from dxad.ingest import waiting_most
from dxad.pipeline import BATCH
from dxad.ring.duplicates import Duplicates
from dxad.ring.journal import Journal
from dxad.ring.newest import Newest
from dxad.ring.ringbuffer import RingBuffer
from dxad.shape import FeatureShape, Shape
from dxad.telemetry import FILLED_BYTES, WAITING_MOST, rows_at_once
from dxad.telemetrysection import TelemetrySection
from dxad.types import SAMPLE, Schema
from dxad.window import WindowBuffer

__all__ = ["HISTORY", "feature_slots", "memory", "ring_slots"]

HISTORY: Final = 1000
"""Rows of each pipeline that queries and evidence can look back on."""

_ROW_CELL: Final = 8 + 1
"""A value and its state."""
_SCORES: Final = 2
"""Channels of a pipeline's scores."""
_TOLD_CELL: Final = 100
"""A cell, its marks, its value and its row as Python objects, and the two in a record."""
_SUMMED_CELL: Final = 30
"""A cell, its marks, and what of it is good; twice for the extremes."""
_TAPES: Final = 3
"""Of a process and a sensor incident, and a copy that waits for the disk."""
_STAGES: Final = 4
"""Copies of a batch of rows that live at once: joined, checked, reshaped, scored."""


def ring_slots(section: SourceSection) -> int:
    """How many slots a source's ring has."""
    assert section.period is not None
    by_size = RING_BYTES_MAX // max(1, RingBuffer.size_bytes(len(section.channel_sections()), 1))
    return max(16, min(section.keep // section.period, by_size))


def feature_slots(feature: FeatureShape, ring_span: int) -> int:
    """A feature's ring reaches as far back as its source's, in its own period."""
    return max(16, min(ring_span // feature.outputs.period, HISTORY))


def memory(config: Config) -> dict[str, int]:
    """The bytes of every node's buffers, known before anything runs."""
    shapes = {name: shape(each, config.sources) for name, each in config.pipelines.items()}
    sizes = {f"sources.{name}": _source(name, each, shapes) for name, each in config.sources.items()}
    for name, pipeline in config.pipelines.items():
        sizes[f"pipelines.{name}"] = _pipeline(pipeline, shapes[name], config)
    for name, telemetry in config.telemetry.items():
        sizes[f"telemetry.{name}"] = _telemetry(telemetry, config, shapes)
    return sizes


def _source(name: str, section: SourceSection, shapes: dict[str, Shape]) -> int:
    channels = len(section.channel_sections())
    size = RingBuffer.size_bytes(channels, ring_slots(section))
    queue = channels if section.polled else section.queue
    waiting = 2 * channels if section.polled else waiting_most(section)
    size += 2 * SAMPLE.itemsize * queue + 2 * (SAMPLE.itemsize + 8) * waiting
    if section.awaits_outbox:
        size += Journal.size_bytes(2 * section.queue)
    if section.clock == "device":
        size += Duplicates.size_bytes(channels)
    period = section.period or 1
    if any(name in dict(found.feeds) and found.joined.period < period for found in shapes.values()):
        size += Newest.size_bytes(channels)
    return size


def _pipeline(section: PipelineSection, found: Shape, config: Config) -> int:
    width, period = len(found.outputs.channels), found.outputs.period
    size = RingBuffer.size_bytes(2 * width + 2, HISTORY)
    for feature in found.features:
        source = config.sources[feature.source]
        slots = feature_slots(feature, ring_slots(source) * feature.inputs.period)
        size += RingBuffer.size_bytes(len(feature.outputs.channels), slots)
        finer = slots * feature.outputs.period // feature.inputs.period
        size += _ROW_CELL * min(finer * len(feature.columns), CELLS_AT_ONCE)
        size += _remembered(feature.section, feature.inputs)
    size += _ROW_CELL * BATCH * (len(found.joined.channels) + _STAGES * width)
    for name, columns in found.feeds:
        slots = -(-found.joined.period // (config.sources[name].period or 1))
        if slots > 1:
            row = slots * len(columns)
            size += 2 * _ROW_CELL * max(row, min(BATCH * row, CELLS_AT_ONCE))
    size += sum(_remembered(each, found.joined) for each in section.transforms)
    size += _windows(section, width, period)
    size += _TAPES * Tape.size_bytes(width)
    if section.learn is not None:
        size += 8 * width * (section.learn.span // period)
    return size


def _telemetry(section: TelemetrySection, config: Config, shapes: Mapping[str, Shape]) -> int:
    read = [
        (len(columns), each.period or 1, ring_slots(each))
        for name, each in config.sources.items()
        if (columns := matching(section.channels, each.declared(name)))
    ]
    read += [
        (_SCORES, shapes[name].outputs.period, HISTORY)
        for name in config.pipelines
        if any(fnmatchcase(name, pattern) for pattern in section.pipelines)
    ]
    cell = _TOLD_CELL if section.mode in ("all", "deadband") else _SUMMED_CELL
    cells = [columns * min(slots, rows_at_once(section, columns, period)) for columns, period, slots in read]
    filled = FILLED_BYTES * len(config.sources) if section.mode == "all" else 0
    return WAITING_MOST + filled + cell * max(cells, default=0)  # one after the other


def _remembered(section: TransformSection, inputs: Schema) -> int:
    """The rows that a transform looks back on, and a copy while it takes in the next."""
    rows = section.reach // inputs.period
    return 2 * _ROW_CELL * rows * len(matching(section.channels, inputs.channels))


def _windows(section: PipelineSection, width: int, period: int) -> int:
    rows = 1 if section.learn is None else section.learn.window_rows
    if section.window is not None:
        rows = max(1, section.window // period)
    return 2 * WindowBuffer.size_bytes(rows, width) + 4 * BATCH * rows * width
