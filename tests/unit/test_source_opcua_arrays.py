"""Elements of OPC-UA arrays as channels: subscribed to, polled, and from the history."""

import pytest
import pytest_asyncio
from asyncua import ua
from pydantic import ValidationError

from dxad.sources.opcua.element import elements_of, picked
from dxad.types import NS_PER_S, Quality, Reason
from tests.unit.hw_sim.opcua_bed import DEVICES, bed
from tests.unit.opcua_rig import COUNT, connected, newest, source

pytestmark = pytest.mark.asyncio(loop_scope="module")
WAVE = "urn:hw-sim:tests:wave"
POLL = {"mode": "poll", "period": "20ms"}


def wave(index: int | str | None = None) -> dict[str, object]:
    return {"node": f"nsu={WAVE};s=Wave"} | ({} if index is None else {"index": index})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served():
    nodes = {"wave": {"node": "s=Wave", "kind": "Double", "channel": "count", "array": 4, "history": True}}
    device = {"namespace": WAVE, "period": "10ms", "nodes": nodes}
    async with bed(devices={**DEVICES, "wave": device}) as made:
        made.step(20)
        yield made


async def shown(served) -> list[float]:
    async with served.client() as client:
        return (await client.read((WAVE, "s=Wave"))).Value.Value


@pytest.mark.parametrize("mode", [{}, POLL], ids=["subscribed", "polled"])
async def test_each_element_is_a_channel_of_its_own(served, mode):
    channels = {"count": COUNT, "wave": wave("1:3"), "first": wave(0)}
    async with connected(served, channels=channels, **mode) as made:
        assert [each.id for each in made.channels] == [
            "pump.count", "pump.wave_1", "pump.wave_2", "pump.wave_3", "pump.first",
        ]  # fmt: skip
        assert len(made._targets.all) == 2, "the array is asked for once"
        found = await newest(made, 5)
        values = await shown(served)
        assert {column: value for column, (value, _, _) in found.items() if column} == {
            1: values[1], 2: values[2], 3: values[3], 4: values[0],
        }  # fmt: skip
        assert len(set(values)) == 4
        assert all(quality is Quality.GOOD for _, quality, _ in found.values())
        assert made.faults == {}


@pytest.mark.parametrize("mode", [{}, POLL], ids=["subscribed", "polled"])
async def test_an_array_without_an_index_and_an_index_without_an_array_are_told(served, mode):
    channels = {"whole": wave(), "beyond": wave(9), "scalar": {**COUNT, "index": 0}, "right": wave(3)}
    async with connected(served, channels=channels, **mode) as made:
        found = await newest(made, 4)
        assert [found[column][1:] for column in range(3)] == [(Quality.BAD, Reason.TYPE)] * 3
        assert found[3][1] is Quality.GOOD
        assert set(made.faults) == {
            f"nsu={WAVE};s=Wave: an array of 4: say which element, such as index = 0",
            f"nsu={WAVE};s=Wave: an array of 4: it has no element 9",
            "s=Pump.Count: no array: leave index out",
        }


async def test_what_was_missed_is_read_from_the_history_of_the_array(served):
    made = source(served.wire.url, channels={"wave": wave("0:1"), "far": wave(9)})
    made._inbox.open()
    made._put_past(1, [1.0, 2.0, 3.0, 4.0], 0, 5, 7 * NS_PER_S)
    samples = (await made.read()).samples
    assert samples["column"].tolist() == [0, 1]
    assert samples["value"].tolist() == [1.0, 2.0]
    assert made.traffic["past"] == 2


async def test_elements_of_a_matrix_are_found(served):
    server = served.wire._server
    index = await server.register_namespace("urn:tests:matrix")
    grid = ua.Variant([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], ua.VariantType.Double)
    node = await server.nodes.objects.add_variable(ua.NodeId("Grid", index), "Grid", grid)
    channels = {"grid": {"node": "nsu=urn:tests:matrix;s=Grid", "index": "1,0:2"}}
    async with connected(served, channels=channels) as made:
        assert [each.id for each in made.channels] == ["pump.grid_1_0", "pump.grid_1_1", "pump.grid_1_2"]
        assert [value for value, _, _ in (await newest(made, 3)).values()] == [4.0, 5.0, 6.0]
    await server.delete_nodes([node])


@pytest.mark.parametrize(
    ("index", "found"),
    [(2, [(2,)]), ("2", [(2,)]), ("0:2", [(0,), (1,), (2,)]), ("1,0:1", [(1, 0), (1, 1)])],
)
async def test_an_index_is_written_as_a_numeric_range(index, found):
    assert elements_of(index) == found


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"index": "3:1"}, "does not go upwards"),
        ({"index": "a"}, "is no index"),
        ({"index": ""}, "is no index"),
        ({"index": -1}, "greater than or equal to 0"),
        ({"index": "0:1000"}, "names more than 1000 elements"),
        ({"index": "0:1", "node": None, "browse": "Objects/*", "count": 2}, "this is a range"),
    ],
)
async def test_what_is_no_index_is_refused(settings, why):
    with pytest.raises(ValidationError, match=why):
        source("opc.tcp://127.0.0.1:4840", channels={"x": {**wave(), **settings}})


async def test_a_range_that_makes_a_channel_twice_is_refused():
    with pytest.raises(ValidationError, match="makes a channel that there is already"):
        source("opc.tcp://127.0.0.1:4840", channels={"wave": wave("0:1"), "wave_1": COUNT})


async def test_where_there_is_no_element_there_is_nothing():
    assert picked([1, 2], (1,)) == 2
    assert picked([1, 2], (2,)) is None
    assert picked([[1], [2]], (1,)) == [2]
    assert picked(5, (0,)) is None
