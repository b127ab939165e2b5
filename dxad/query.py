"""Answers to the questions that the DXA API and the control socket ask of a pipeline.

================================================  =====================================================
request                                           answer
================================================  =====================================================
``{}``                                            the pipeline's status
``{"execute": true, "config": {...}}``            the last rows, scored now with these overrides
``{"data": {channel: [...]}, "options": {...}}``  the given rows, through transforms and model
================================================  =====================================================
"""

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

import numpy as np
from pydantic import Field, ValidationError

from dxad.detector import anomaly_score
from dxad.errors import ModelError
from dxad.event import rfc3339
from dxad.fields import Section
from dxad.pipeline import Pipeline
from dxad.runtime.clock import Clock
from dxad.runtime.worker import Worker
from dxad.types import F8, Document, Rows, State

__all__ = ["answer", "failure", "success"]

_POLL_S: Final = 0.05
_CELLS_MOST: Final = 20_000
"""Values in a request of one's own rows: all its windows are scored in one go, on the daemon's thread."""


class _Overrides(Section):
    """What `config` and `options` may hold."""

    window_size: int | None = Field(None, ge=1, description="look at this many of the last rows")
    threshold: float = Field(0.95, gt=0, lt=1, strict=False, description="0.95 is the calibrated limit")
    timeout_s: float = Field(5.0, ge=0, le=60, strict=False, description="wait so long for enough rows")


class _Request(Section):
    execute: bool = False
    config: _Overrides = _Overrides()
    data: dict[str, list[float]] | None = Field(None, strict=False)
    options: _Overrides = _Overrides()


def success(content: Document) -> Document:
    """A ResourceResponse as JSON."""
    return {"success": True, "content": content, "error": None}


def failure(error: str) -> Document:
    """A ResourceResponse that says what went wrong."""
    return {"success": False, "content": None, "error": error}


async def answer(
    pipeline: Pipeline, request: Mapping[str, Any], *, worker: Worker, clock: Clock, status: Document
) -> Document:
    """Answer one request; mistakes in it are an answer too."""
    try:
        asked = _Request.model_validate(dict(request))
    except ValidationError as error:
        return failure("; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()))
    try:
        if asked.data is not None:
            return await worker.run(partial(_score_data, pipeline, asked.data, asked.options))
        if asked.execute:
            return await _execute(pipeline, asked.config, worker, clock)
    except ModelError as error:
        return failure(str(error))
    return success(status)


async def _execute(pipeline: Pipeline, asked: _Overrides, worker: Worker, clock: Clock) -> Document:
    """Score the last rows; wait for the first window if there is none yet."""
    waited = 0.0
    while True:
        found = await worker.run(partial(_score_last, pipeline, asked, clock))
        if found is not None:
            return success(found)
        if waited >= asked.timeout_s:
            return failure(_why_not(pipeline, asked))
        await asyncio.sleep(_POLL_S)
        waited += _POLL_S


def _why_not(pipeline: Pipeline, asked: _Overrides) -> str:
    have = pipeline.rows.sealed - pipeline.rows.oldest
    if pipeline.detector is None:
        return f"pipeline {pipeline.name!r} has no model yet; it has seen {have} rows"
    need = pipeline.detector.rows
    if have < need:
        return f"the model wants {need} rows, there are {have} after {asked.timeout_s:g} s"
    if pipeline.detector.calibration is None:
        return f"the model is still warming up: {have} rows so far"
    return (
        f"none of the last {asked.window_size or need} rows can be scored: too much of them is missing or bad"
    )


def _score_last(pipeline: Pipeline, asked: _Overrides, clock: Clock) -> Document | None:
    detector, ring = pipeline.detector, pipeline.rows
    if detector is None:
        return None
    size = max(asked.window_size or detector.rows, detector.rows)
    reading = ring.read(max(ring.oldest, ring.sealed - size), ring.sealed)
    rows = Rows(reading.first, ring.period, reading.values, reading.states)
    result = _judged(pipeline, rows, asked)
    if result is None:
        return None
    seen = {
        channel.id: _summary(rows.values[:, place], channel.unit)
        for place, channel in enumerate(ring.channels)
    }
    content: Document = {"result": result, "input_data": {"rows": len(rows), "channels": seen}}
    if ring.period > 1:
        content["input_data"]["from"] = rfc3339(clock.utc(rows.first * ring.period))
        content["input_data"]["to"] = rfc3339(clock.utc((rows.first + len(rows)) * ring.period))
    return content


def _judged(pipeline: Pipeline, rows: Rows, asked: _Overrides) -> Document | None:
    detector, limit = pipeline.detector, pipeline.limit
    best = None if detector is None else detector.best(rows)
    if detector is None or best is None or limit is None:
        return None
    raw, judged = best
    score = anomaly_score(judged, limit)
    known = ~np.isnan(rows.values)
    return {
        "anomaly_score": round(score, 6),
        "is_anomaly": score >= asked.threshold,
        "threshold": asked.threshold,
        "score": round(judged, 6),
        "raw_score": round(raw, 6),
        "limit": round(limit, 6),
        "channels": [channel.id for channel in pipeline.rows.channels],
        "model": detector.model.version,
        "window_rows": detector.rows,
        "quality": {
            "good": round(float(np.isin(rows.states, (State.GOOD, State.HELD)).mean()), 4),
            "known": round(float(known.mean()), 4),
        },
    }


def _summary(column: F8, unit: str) -> Document:
    known = column[~np.isnan(column)]
    if not len(known):
        return {"last": None, "unit": unit}
    numbers = {"last": known[-1], "mean": known.mean(), "min": known.min(), "max": known.max()}
    return {name: float(f"{value:.6g}") for name, value in numbers.items()} | {"unit": unit}


def _score_data(pipeline: Pipeline, data: Mapping[str, list[float]], asked: _Overrides) -> Document:
    """Run rows of the caller's through fresh transforms and the model; nothing remembers them."""
    channels = pipeline.stages.frame.schema.channels
    by_id = {channel.id: channel.id for channel in channels}
    short = {channel.id.partition(".")[2]: channel.id for channel in channels}
    columns = {by_id.get(name) or short.get(name) or name: values for name, values in data.items()}
    unknown = [name for name in columns if name not in by_id]
    if unknown:
        return failure(f"no channel {unknown[0]!r}; there are {', '.join(by_id)}")
    missing = [name for name in by_id if name not in columns]
    if missing:
        return failure(f"data for channel {missing[0]!r} is missing")
    cells = sum(map(len, columns.values()))
    if cells > _CELLS_MOST:
        return failure(f"{cells} values are too many at once; {_CELLS_MOST} at most")
    if len({len(values) for values in columns.values()}) > 1:
        return failure("the channels have different numbers of rows")
    values = np.array([columns[channel.id] for channel in channels], dtype=np.float64).T
    states = np.where(np.isnan(values), np.uint8(State.BAD), np.uint8(State.GOOD))
    rows = Rows(0, pipeline.stages.schema.period, values, states)
    for transform in pipeline.stages.transforms():
        rows = transform.apply(rows)
    result = _judged(pipeline, rows, asked)
    if result is None:
        need = 1 if pipeline.detector is None else pipeline.detector.rows
        return failure(f"{len(rows)} rows cannot be scored; the model wants at least {need} good ones")
    return success({"result": result, "input_data": {"rows": len(rows)}})
