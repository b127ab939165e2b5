"""dxad: sensors in, explained incidents out.

    field ─▶ sources ─▶ ring ─┬─▶ features ─▶ frame ─▶ transforms ─▶ window ─▶ model ─▶ alarm
             1          2     │   3                    4                       5        6  │
                              └─ … one ring per source                                     ▼
    an agent ◀─ sinks ◀─ deliver ◀─ outbox (SQLite) ◀─ event ◀───────────────────────── incident
                8                   7

Where things live, in the order of the data:

    sources/ decode/ links/     1  bring readings in; payload to values; one physical connection
    ingest.py                      source -> ring: connect, back off, count
    ring/                       2  the recent past of one source: staged, timed, folded, sealed, remembered
    frame.py join.py            3  rows of several rings on one grid; one ring's part in them
    gate.py                        rows in which the machine runs as it is watched
    transforms/ shape.py        4  reshape rows (verbs); what rows will look like, before there are any
    signal/                        sums, recurrences, stretches and spectra, the same however rows are cut
    window.py models/           5  stretches of rows; what scores them
    baseline/                      what the untrained models share: warm-up, regimes, guard, limit
    bundle/                        a model with its manifest: read, signed, tried in a child, on its shelf
    detector.py succession.py      a model at work; which one counts: swap, shadow, promote, roll back
    modeldesk.py                   the same by hand, while it runs
    training/ learning.py          learn normal from rows, write .tflite; the service that does it
    recorder.py                    rows kept to learn from
    incident/                   6  scores -> alarms (ISA-18.2) -> incidents with their evidence
    event.py                       what leaves, as CloudEvents
    outbox/                     7  store and forward: SQLite WAL, lanes, cursors, dead letters
    sinks/ deliver.py           8  carry records out; probe, batch, pace, retry, acknowledge
    telemetry/                  2-> 7  readings in bulk, as the configuration asks
    pulling/ tailing.py            consumers that lease and acknowledge; events for whoever looks
    selection.py                   which events somebody wants
    placeholders.py                texts that events fill: topics, bodies
    pipeline.py scoring.py         3 -> 7 for a batch of rows; all pipelines that are due, together
    plausibility.py                channels that transforms have called implausible
    sightedness.py                 what is told of the gateway when rows are not scored
    query.py excerpt.py            answers; rows by cursor
    gateway.py control/ client.py  the running system as others see it; HTTP on a Unix socket; its client
    gatewayevents/                 what the gateway tells of itself: it starts, lives, is unwell, stops
    timekeeping.py                 a wall clock that somebody sets, and the events that it dated wrongly
    resource/                      the DXA API: the same nodes in process
    config.py fields.py octets.py  TOML -> one valid Config; field types
    quantity.py mistakes.py        durations and sizes; what is wrong with a value, in words
    plugin.py                      type = "mqtt" -> sources/mqtt/
    alarmsection.py sharing.py     what a configuration says of alarms; what pipelines must not share
    sinksection.py topics.py       … of every sink; and that none publishes what a source reads
    writing.py                     … or writes into the outbox's file, or another's
    telemetrysection.py            what it says of telemetry
    gatewaysection.py              what it says of the gateway itself
    tomlfiles.py tomlines.py       files that go over each other; the line of every key
    template.py expression.py      for_each: one text for many machines; arithmetic over channels
    nodes.py sizes.py              sections -> nodes; the memory they take, known before
    assembly.py daemon.py          Config -> services; starts, answers, stops
    changes.py reloading.py        what differs between two configs; swaps that, and nothing else
    keeping.py statefile.py        what pipelines know survives a restart; the file it is in
    recording/ replay/             rows of the past, in files; through the same nodes in virtual time
    commissioning/                 the first hour: probe, browse, sniff, and the doctor's checks
    cli/ runtime/                  commands; clock, supervisor, health, metrics, logs
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dxad.resource import (
        AnomalyDetector,
        ExecutionNodeStatus,
        IoTResource,
        ModelResource,
        PipelineConfig,
        PipelineContext,
        PipelineResource,
        PipelineState,
        ReasoningInput,
        ReasoningInputResource,
        ResourceResponse,
        TransformResource,
    )

__all__ = [
    "AnomalyDetector",
    "ExecutionNodeStatus",
    "IoTResource",
    "ModelResource",
    "PipelineConfig",
    "PipelineContext",
    "PipelineResource",
    "PipelineState",
    "ReasoningInput",
    "ReasoningInputResource",
    "ResourceResponse",
    "TransformResource",
]


def __getattr__(name: str) -> object:
    """Import the API when it is asked for (PEP 562): a submodule's import must not load everything."""
    if name in __all__:
        return getattr(import_module("dxad.resource"), name)
    raise AttributeError(f"module 'dxad' has no attribute {name!r}")
