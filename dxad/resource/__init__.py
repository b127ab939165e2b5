"""The DXA Pipeline API: the daemon's own nodes, built in code and run in process, or reached in a daemon.

pipeline = PipelineResource("anomaly_detection")
pipeline.add_source(IoTResource("sensor1", endpoint="mqtt://sensor1"))
pipeline.add_model(AnomalyDetector("detector1"))
pipeline.add_sink(ReasoningInput("reasoning"))
async with pipeline:
    response = await pipeline.query({"execute": True})
"""

from dxad.resource.nodes import (
    AnomalyDetector,
    IoTResource,
    ModelResource,
    ReasoningInput,
    ReasoningInputResource,
    TransformResource,
)
from dxad.resource.pipeline import PipelineResource
from dxad.resource.remote import RemotePipeline
from dxad.resource.state import (
    ExecutionNodeStatus,
    PipelineConfig,
    PipelineContext,
    PipelineState,
    ResourceResponse,
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
    "RemotePipeline",
    "ResourceResponse",
    "TransformResource",
]
