"""dxad: sensors in, explained incidents out.

    field ─▶ sources ─▶ ring ─┬─▶ features ─▶ frame ─▶ transforms ─▶ window ─▶ model ─▶ alarm
             1          2     │   3                    4                       5        6  │
                              └─ … one ring per source                                     ▼
    an agent ◀─ sinks ◀─ deliver ◀─ outbox (SQLite) ◀─ event ◀───────────────────────── incident
                8                   7

Where things live, in the order of the data:

    sources/ decode/ links/     1  bring readings in; payload to values; one physical connection
    ingest.py stage.py sealer.py   source -> ring: connect, back off, count; stage; fold, hold, seal, fill
    sampleclock.py                 when a sample was taken
    ringbuffer.py newest.py     2  the recent past of one source on a fixed time grid; its newest samples
    frame.py join.py            3  rows of several rings, joined on one grid; one ring's part in them
    transforms/ shape.py        4  reshape rows (verbs); what rows will look like, before there are any
    derive.py recurrence.py        channels made of channels; y[t] = k[t] y[t-1] + b[t]
    stretch.py fourier.py          stretches of rows, each reduced to a few numbers; power spectra
    bearing.py                     how often the parts of a bearing strike
    channelcheck.py                sensors that are stuck or missing
    gate.py                        rows in which the machine runs as it is watched
    moving.py                      sums over a moving window, the same however rows are cut
    window.py models/           5  stretches of rows; what scores them
    baseline/                      what the untrained models share: warm-up, regimes, guard, limit
    detector.py                    a model at work
    bundle.py manifest.py          a model with all that is needed to use it; what its manifest says
    signing.py shelf.py            who vouches for it; its versions, and which one is in use
    interpreter.py inference.py    the TensorFlow Lite runtime; from windows to scores
    trial.py                       a new bundle runs in a process of its own first
    detector.py bundle.py          a model at work; a model with its manifest, on a shelf
    modeldesk.py                   install, shadow, promote and roll back while it runs
    succession.py                  which model counts: swap, shadow, promote, roll back
    training/ learning.py          learn normal from rows, write .tflite; the service that does it
    alarm.py incident.py        6  scores -> alarms (ISA-18.2) -> incidents with evidence
    threshold.py watch.py          what alarms look at; all alarms and incidents of one pipeline
    episode.py docket.py           how alarms become incidents; what all pipelines' incidents share
    processepisode.py              an odd process, as one incident
    sensorepisode.py               sensors that cannot be believed, as one incident
    evidence.py archive.py         the rows around an incident: taped, packed, kept in files
    event.py                       what leaves, as CloudEvents
    outbox/                     7  store and forward: SQLite WAL, lanes, cursors, dead letters
    sinks/ deliver.py           8  carry records out; batch, retry, acknowledge
    pipeline.py scoring.py         3 -> 7 for a batch of rows; all pipelines that are due, together
    query.py excerpt.py gateway.py answers; rows by cursor; the running system as others see it
    control/ client.py             HTTP over a Unix socket; its client
    resource/                      the DXA API: the same nodes in process
    nodes.py assembly.py daemon.py sections -> nodes; Config -> services; starts, answers, stops
    changes.py reloading.py        what differs between two configs; swaps that, and nothing else
    keeping.py statefile.py        what pipelines know survives a restart; the file it is in
    assembly.py daemon.py sizes.py Config -> services; starts, answers, stops; what memory it takes
    sharing.py                     what the models of several pipelines must not share
    recording/ replay/             rows of the past, in files; through the same nodes in virtual time
    assembly.py daemon.py          Config -> services; starts, answers, stops
    recording/ replay/             rows of the past, in files; through the same nodes in virtual time
    assembly.py daemon.py          Config -> services; starts, answers, stops
    assembly.py daemon.py          Config -> services; starts, answers, stops
    alarmsection.py                what a configuration says of alarms and incidents
    assembly.py daemon.py sizes.py Config -> services; starts, answers, stops; what memory it takes
    nodes.py assembly.py daemon.py sections -> nodes; Config -> services; starts, answers, stops
    changes.py reloading.py        what differs between two configs; swaps that, and nothing else
    keeping.py statefile.py        what pipelines know survives a restart; the file it is in
    recorder.py                    rows kept to learn from
    tomlfiles.py tomlines.py       files that go over each other; the line of every key
    config.py fields.py plugin.py  TOML -> one valid Config; field types; type = "mqtt" -> sources/mqtt.py
    template.py                    for_each: a pipeline written once for many machines
    expression.py                  arithmetic over channels, written as text
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
