"""The DXA API: the snippets as its users write them, on a real broker."""

import asyncio
import json
import math
import random
import threading

import paho.mqtt.client as paho
import pytest

from dxad import (
    AnomalyDetector,
    ExecutionNodeStatus,
    IoTResource,
    ModelResource,
    PipelineConfig,
    PipelineResource,
    ReasoningInput,
    ReasoningInputResource,
    TransformResource,
)
from dxad.errors import ConfigError, ModelError, ModelRefusedError, ResourceUnavailableError
from tests.patience import PATIENCE_S


@pytest.fixture
def sensor(broker, monkeypatch):
    """A simulated sensor that publishes {"value", "humidity"} to the topic sensor1, 200 times a second."""
    monkeypatch.setenv("DXAD_ENDPOINT_SENSOR1", f"mqtt://127.0.0.1:{broker}")
    rng, stop = random.Random(1), threading.Event()
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    client.connect("127.0.0.1", broker)
    client.loop_start()

    def publish():
        while not stop.wait(0.005):
            values = {"value": rng.gauss(10.0, 1.0), "humidity": rng.gauss(50.0, 2.0), "name": "s1"}
            client.publish("sensor1", json.dumps(values))

    thread = threading.Thread(target=publish)
    thread.start()
    yield
    stop.set()
    thread.join()
    client.disconnect()
    client.loop_stop()


async def test_the_first_snippet_as_written(sensor):
    pipeline = PipelineResource("anomaly_detection")
    pipeline.add_source(IoTResource("sensor1", endpoint="mqtt://sensor1"))
    pipeline.add_model(AnomalyDetector("detector1"))
    pipeline.add_sink(ReasoningInput("reasoning"))

    await pipeline.initialize()
    try:
        response = await pipeline.query({"execute": True})
        assert response.success, response.error
        assert 0.0 <= response.content["result"]["anomaly_score"] < 1.0
        assert response.content["result"]["channels"] == ["sensor1.humidity", "sensor1.value"]
        assert "input_data" in response.content
    finally:
        await pipeline.cleanup()


async def test_schemas_buffers_and_overrides_as_written(sensor):
    config = PipelineConfig(
        name="anomaly_detection", buffer_size=1000, batch_size=32, metadata={"owner": "me"}
    )
    pipeline = PipelineResource(config)
    pipeline.add_source(
        IoTResource("sensor1", endpoint="mqtt://sensor1"),
        buffer_size=500,
        batch_size=16,
        input_schema={"value": "float"},
        output_schema={"normalized": "float"},
    )
    pipeline.add_model(
        AnomalyDetector("detector1"),
        input_schema={"normalized": "float"},
        output_schema={"score": "float"},
    )
    pipeline.add_sink(ReasoningInputResource("reasoning"))
    async with pipeline:
        response = await pipeline.query({"execute": True, "config": {"window_size": 100, "threshold": 0.95}})
        assert response.success, response.error
        result = response.content["result"]
        assert result["channels"] == ["sensor1.normalized"]
        assert result["is_anomaly"] == (result["anomaly_score"] >= 0.95)
        assert 1 <= response.content["input_data"]["rows"] <= 100
        status = await pipeline.query({})
        assert status.content["metadata"] == {"owner": "me"}
        assert pipeline.state.status is ExecutionNodeStatus.IN_PROGRESS
    assert pipeline.state.status is ExecutionNodeStatus.COMPLETED


async def _pushed(pipeline: PipelineResource, resource: IoTResource, values) -> None:
    for value in values:
        await resource.push({"value": value})
        await asyncio.sleep(0)
    while (await pipeline.query({})).content["rows"] < len(values):  # noqa: ASYNC110 - it can only be asked
        await asyncio.sleep(0.01)


def _noise(n, seed=1):
    rng = random.Random(seed)
    return [rng.gauss(10.0, 1.0) for _ in range(n)]


def _in_memory(sink=None):
    resource = IoTResource("sensor")
    pipeline = PipelineResource("p").add_source(resource, input_schema={"value": "float"})
    pipeline.add_model(AnomalyDetector("d"))
    if sink is not None:
        pipeline.add_sink(sink)
    return pipeline, resource


async def test_an_in_memory_source_is_pushed_into_and_an_outlier_becomes_an_event():
    sink = ReasoningInput("reasoning")
    pipeline, resource = _in_memory(sink)
    async with pipeline:
        await _pushed(pipeline, resource, [*_noise(150), 40.0])
        async with asyncio.timeout(PATIENCE_S):
            event = await anext(aiter(sink))
        assert event["type"] == "dxad.incident.opened"
        assert event["data"]["contributors"][0]["channel"] == "sensor.value"
        high = await pipeline.query({"execute": True, "config": {"window_size": 1}})
        assert high.content["result"]["is_anomaly"]
    assert sink.dropped == 0


async def test_a_query_before_the_warm_up_is_over_says_how_far_it_is():
    pipeline, resource = _in_memory()
    async with pipeline:
        await _pushed(pipeline, resource, _noise(20))
        response = await pipeline.query({"execute": True, "config": {"timeout_s": 0.1}})
        assert not response.success
        assert "warming up: 20 rows" in response.error


async def test_rows_of_the_caller_are_scored_and_touch_nothing():
    pipeline, resource = _in_memory()
    async with pipeline:
        await _pushed(pipeline, resource, _noise(120))
        before = (await pipeline.query({})).content["rows"]
        quiet = await pipeline.query({"data": {"value": [10.0, 10.5]}})
        odd = await pipeline.query({"data": {"sensor.value": [10.0, 60.0]}})
        assert not quiet.content["result"]["is_anomaly"]
        assert odd.content["result"]["is_anomaly"]
        assert (await pipeline.query({})).content["rows"] == before


@pytest.mark.parametrize(
    ("request_", "complaint"),
    [
        ({"data": {"nonsense": [1.0]}}, "no channel 'nonsense'"),
        ({"data": {"value": ["x"]}}, "data.value.0"),
        ({"execute": True, "config": {"window_size": 0}}, "window_size"),
        ({"execute": True, "config": {"windowsize": 5}}, "did you mean 'window_size'"),
        ({"nonsense": 1}, "nonsense"),
    ],
)
async def test_a_wrong_request_is_answered_with_what_is_wrong(request_, complaint):
    pipeline, _ = _in_memory()
    async with pipeline:
        response = await pipeline.query(request_)
        assert not response.success
        assert complaint in response.error


async def test_a_query_before_initialize_is_refused():
    pipeline, resource = _in_memory()
    with pytest.raises(ResourceUnavailableError):
        await pipeline.query({"execute": True})
    with pytest.raises(ResourceUnavailableError):
        await resource.push({"value": 1.0})
    assert not pipeline.is_available
    assert pipeline.can_handle({"execute": True})
    assert not pipeline.can_handle({"fly": True})
    assert not pipeline.can_handle("execute")


async def test_two_sources_without_a_period_are_asked_for_one():
    pipeline = PipelineResource("p")
    for name in ("a", "b"):
        pipeline.add_source(IoTResource(name), input_schema={"value": "float"})
    with pytest.raises(ConfigError, match="period"):
        await pipeline.initialize()
    assert not pipeline.is_available


async def test_two_sources_with_a_period_are_joined():
    a, b = IoTResource("a", period="20ms"), IoTResource("b", period="20ms")
    pipeline = PipelineResource("p")
    pipeline.add_source(a, input_schema={"value": "float"}).add_source(b, input_schema={"value": "float"})
    async with pipeline:
        for value in _noise(30):
            await a.push({"value": value})
            await b.push({"value": 2 * value})
            await asyncio.sleep(0.01)
        while (await pipeline.query({})).content["rows"] <= 5:  # noqa: ASYNC110 - it can only be asked
            await asyncio.sleep(0.01)
        assert (await pipeline.query({})).content["channels"] == ["a.value", "b.value"]


async def test_a_detector_learns_from_what_it_has_seen():
    resource = IoTResource("sensor")
    detector = AnomalyDetector("d")
    pipeline = PipelineResource("p").add_source(resource, input_schema={"value": "float"}).add_model(detector)
    with pytest.raises(ResourceUnavailableError):
        await detector.learn()
    async with pipeline:
        await _pushed(pipeline, resource, _noise(5))
        with pytest.raises(ModelError, match=r"too few|nothing to learn"):
            await detector.learn()
        await _pushed(pipeline, resource, [10 + math.sin(i / 5) + v / 50 for i, v in enumerate(_noise(400))])
        version = await detector.learn()
        await _pushed(pipeline, resource, _noise(10))
        response = await pipeline.query({"execute": True})
        assert response.content["result"]["model"] == version


async def test_a_transform_reshapes_the_rows():
    resource = IoTResource("sensor")
    pipeline = PipelineResource("p").add_source(resource, input_schema={"value": "float"})
    pipeline.add_transform(TransformResource("scale", factor=10.0))
    async with pipeline:
        await _pushed(pipeline, resource, _noise(110))
        response = await pipeline.query({"execute": True})
        assert 50 < response.content["input_data"]["channels"]["sensor.value"]["mean"] < 150


async def test_a_pickle_is_never_opened_and_says_what_to_do(tmp_path):
    pickle = tmp_path / "detector.pkl"
    pickle.write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")
    pipeline = PipelineResource("p").add_source(IoTResource("s"), input_schema={"value": "float"})
    pipeline.add_model(ModelResource("m", model_path=str(pickle)))
    with pytest.raises(ModelRefusedError, match=r"never opens one.*detector\.tflite"):
        await pipeline.initialize()


async def test_a_bare_model_beside_a_pickle_is_used_with_a_warning(tmp_path, bare_tflite):
    (tmp_path / "detector.pkl").write_bytes(b"not read")
    (tmp_path / "detector.tflite").write_bytes(bare_tflite(channels=1))
    resource = IoTResource("s")
    pipeline = PipelineResource("p").add_source(resource, input_schema={"value": "float"})
    pipeline.add_model(ModelResource("m", model_path=str(tmp_path / "detector.pkl")))
    with pytest.warns(UserWarning, match="never opened|bare model"):
        await pipeline.initialize()
    try:
        await _pushed(pipeline, resource, _noise(150))
        response = await pipeline.query({"execute": True})
        assert response.success, response.error
    finally:
        await pipeline.cleanup()


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ({"input_schema": {"a": "float"}, "output_schema": {"b": "float", "c": "float"}}, "paired in order"),
        ({"input_schema": {"a": "blob"}}, "'blob'"),
    ],
)
def test_schemas_that_do_not_pair_are_refused(source, complaint):
    with pytest.raises(ConfigError, match=complaint):
        PipelineResource("p").add_source(IoTResource("s"), **source)


async def test_a_model_that_wants_what_is_not_there_is_refused():
    pipeline = PipelineResource("p").add_source(IoTResource("s"), input_schema={"value": "float"})
    pipeline.add_model(AnomalyDetector("d"), input_schema={"normalized": "float"})
    with pytest.raises(ConfigError, match="'normalized'"):
        await pipeline.initialize()
    assert not pipeline.is_available


async def test_a_held_context_fills_its_buffers():
    pipeline, resource = _in_memory()
    async with pipeline:
        async with pipeline.context() as context:
            await _pushed(pipeline, resource, _noise(5))
            async with asyncio.timeout(PATIENCE_S):
                first = await context.buffers["sensor"].get()
            assert first["values"].keys() == {"sensor.value"}
        assert context.config.name == "p"


async def test_nothing_is_written_to_the_current_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pipeline, resource = _in_memory(ReasoningInput("r"))
    async with pipeline:
        await _pushed(pipeline, resource, _noise(120))
    assert list(tmp_path.iterdir()) == []


async def test_a_state_dir_keeps_the_outbox(tmp_path):
    resource = IoTResource("sensor")
    pipeline = PipelineResource("p", state_dir=tmp_path).add_source(resource, input_schema={"value": "float"})
    async with pipeline:
        await _pushed(pipeline, resource, [*_noise(120), 50.0])
    assert (tmp_path / "outbox.db").exists()
