"""A recorded data set on its way: what goes on which wire, and the command that plays it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from hw_sim.bench import Bench, Rig
from hw_sim.catalogue import Known
from hw_sim.cli import main
from hw_sim.cli.desk import Desk
from hw_sim.plants import replay
from hw_sim.replay.playing import WIRES, Line, MapError, Playing, line, topic_of, wires_of
from hw_sim.scenario import Origin, of
from hw_sim.station import Station
from tests.patience import PATIENCE_S
from tests.unit.hw_sim.rig import Recorder

ROOT = Path(__file__).parents[3]
SKAB = """\
datetime;Current;Volume Flow RateRMS;anomaly
2020-03-09 10:34:33;0.054711;32.0;0.0
2020-03-09 10:34:34;-0.38;31.5;1.0
2020-03-09 10:34:35;;31.25;1.0
"""


@pytest.fixture
def skab(tmp_path):
    path = tmp_path / "valve 1.csv"
    path.write_text(SKAB)
    return path


def playing(path, *lines, wires=("mqtt",), **more):
    return Playing(replay.read(replay.Settings(file=path)), wires=wires, lines=[*map(line, lines)], **more)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("Current", Line("", "Current", "Current")),
        ("Volume Flow RateRMS", Line("", "Volume_Flow_RateRMS", "Volume Flow RateRMS")),
        ("flow=Volume Flow RateRMS", Line("", "flow", "Volume Flow RateRMS")),
        ("modbus:flow=Flow", Line("modbus", "flow", "Flow")),
        ("modbus:Flow", Line("modbus", "Flow", "Flow")),
        ("flow=modbus:Flow", Line("", "flow", "modbus:Flow")),
        ("a=b=c", Line("", "a", "b=c")),
        ("a b=c", Line("", "a_b_c", "a b=c")),
    ],
)
def test_a_column_is_mapped_by_name_and_wire(text, read):
    assert line(text) == read


def test_the_wires_are_those_that_are_asked_for_or_mapped_or_mqtt():
    assert list(wires_of((), ())) == ["mqtt"]
    assert list(wires_of((), [line("modbus:x"), line("x"), line("serial:x")])) == ["modbus", "serial"]
    assert list(wires_of(("opcua", "mqtt", "opcua"), [line("mqtt:x")])) == ["opcua", "mqtt"]
    with pytest.raises(MapError, match="mapped to serial, but the wires are mqtt"):
        wires_of(("mqtt",), [line("serial:x")])


def test_without_a_map_every_column_is_on_every_wire(skab):
    found = playing(skab, wires=WIRES)
    assert found.columns == {"Current": "Current", "Volume_Flow_RateRMS": "Volume Flow RateRMS"}
    assert found.places() == {
        "mqtt": {"Current": "$.Current", "Volume_Flow_RateRMS": "$.Volume_Flow_RateRMS"},
        "modbus": {"Current": "input:0 float32", "Volume_Flow_RateRMS": "input:2 float32"},
        "opcua": {"Current": "s=Current Double", "Volume_Flow_RateRMS": "s=Volume_Flow_RateRMS Double"},
        "serial": {"Current": "value 0 of the line", "Volume_Flow_RateRMS": "value 1 of the line"},
    }


def test_a_wire_with_a_map_of_its_own_carries_that(skab):
    found = playing(skab, "flow=Volume Flow RateRMS", "serial:i=Current", wires=("mqtt", "serial"))
    assert found.names == {"mqtt": ["flow"], "serial": ["i"]}
    assert found.columns == {"flow": "Volume Flow RateRMS", "i": "Current"}
    found = playing(skab, "serial:i=Current", wires=("mqtt", "serial"))
    assert found.names == {"mqtt": ["Current", "Volume_Flow_RateRMS"], "serial": ["i"]}


def test_a_name_stands_for_one_column(skab):
    with pytest.raises(MapError, match="x is both 'Current' and 'Volume Flow RateRMS'"):
        playing(skab, "mqtt:x=Current", "modbus:x=Volume Flow RateRMS", wires=("mqtt", "modbus"))
    with pytest.raises(MapError, match="Current is both 'Current' and 'Volume Flow RateRMS'"):
        playing(skab, "modbus:Current=Volume Flow RateRMS", wires=("mqtt", "modbus"))


def test_the_time_of_a_message_is_none_of_its_fields(skab):
    found = playing(skab, "ts=Current", "Volume Flow RateRMS")
    assert found.about()["mqtt"]["time"] == "ts_"
    of(found.document({}), Origin("replay"))


def test_registers_follow_one_another_in_their_size(skab):
    found = playing(skab, wires=("modbus",), encoding="float64")
    assert found.places()["modbus"]["Volume_Flow_RateRMS"] == "input:4 float64"


def test_text_has_the_decimals_of_the_file(skab):
    assert playing(skab).plain.decimals == 6


def test_a_topic_has_no_wildcards():
    assert topic_of(Path("x/a+b #1.csv")) == "replay/a_b _1"


@pytest.mark.parametrize("wire", WIRES)
def test_each_wires_scenario_is_right_and_shows_the_channels(skab, wire):
    document = playing(skab, wires=(wire,)).document({"loop": True})
    scenario = of(document, Origin("replay"))
    bench, _ = scenario.bench()
    assert bench.readings == {"Current": 0.054711, "Volume_Flow_RateRMS": 32.0}
    assert scenario.wires[wire].fields == {wire: {name: name for name in bench.readings}}


async def test_a_station_shows_the_first_row_and_the_last_and_no_more(skab):
    bench = Bench([Rig("record", replay.build(replay.Settings(file=skab), "1"))], seed=1)

    class Reader(Recorder):
        def step(self):
            super().step()
            self.seen.append(bench.readings["Volume_Flow_RateRMS"])

    wire = Reader(bench, "plc")
    wire.seen = []
    station = Station(bench, Known({}, {}), [wire], speed=float("inf"))
    await station.run([], duration_s=None)
    assert wire.seen == [32.0, 31.5, 31.25]


def invoke(*arguments):
    return CliRunner().invoke(main, ["replay", *map(str, arguments)])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none.csv"], "none.csv: No such file or directory"),
        (["{file}", "--map", "flow=Flow"], "no column 'Flow'; there are datetime, Current"),
        (["{file}", "--wire", "mqtt", "--map", "serial:Current"], "mapped to serial, but the wires are mqtt"),
        (["{file}", "--map", "x=Current", "--map", "x=anomaly"], "x is both 'Current' and 'anomaly'"),
        (["{file}", "--rows", "7"], "'7' is not START..END"),
        (["{file}", "--rows", "7.."], "no row 7; its 3 rows count from 0"),
        (["{file}", "--labelled-rows", "x"], "'x' is not START..END"),
        (["{file}", "--period", "5"], "'5' has no unit"),
        (["{file}", "--speed", "0"], "'0' is no speed"),
        (["{file}", "--delimiter", ";;"], "delimiter"),
        (["{file}", "--set", "wires.mqtt.porte=1"], "replay: wires.mqtt.porte: there is no such key"),
        (["{file}", "--fault", "blockage@1s"], "the scenario has no plant for it"),
    ],
)
def test_a_mistake_is_told_without_a_traceback(skab, arguments, said):
    done = invoke(*(each.format(file=skab) for each in arguments))
    assert done.exit_code != 0
    assert said in done.output
    assert isinstance(done.exception, SystemExit)


async def test_who_reads_slowly_is_stayed_for(skab):
    class Slow(Recorder):
        looked = 0

        @property
        def delivered(self):
            self.looked += 1
            return min(self.looked, 4)

    wire = Slow(Bench([], seed=1), "plc")
    station = Station(wire.bench, Known({}, {}), [wire])
    desk = Desk(playing(skab), as_json=True, hold_s=0.0, linger_s=0.001, loop=False)
    async with desk.around(station):
        assert wire.looked == 0
    assert wire.looked == 5, "until nothing more has gone"


def test_a_file_goes_through_a_terminal_as_fast_as_it_is_read_with_its_labels(skab, tmp_path):
    command = [
        *(sys.executable, "-m", "hw_sim", "replay", skab, "--json", "--wire", "serial", "--speed", "max"),
        *("--links", tmp_path, "--control", tmp_path / "c.sock", "--labels", tmp_path / "labels.jsonl"),
        *("--trace", tmp_path / "trace.csv", "--map", "flow=Volume Flow RateRMS", "--map", "Current"),
        *("--hold", "10ms", "--linger", "100ms"),
    ]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        try:
            endpoints, placed = (json.loads(child.stdout.readline()) for _ in range(2))
            terminal = os.open(endpoints["serial"], os.O_RDWR | os.O_NOCTTY)
            sent = b"".join(iter(lambda: _read(terminal), b""))
            os.close(terminal)
            said, errors = child.communicate(timeout=PATIENCE_S)
        finally:
            child.kill()
    assert [each.partition(b"*")[0] for each in sent.splitlines()] == [
        b"32.000000,0.054711",
        b"31.500000,-0.380000",
        b"31.250000,",
    ]
    assert placed["wires"]["serial"]["fields"]["flow"] == {
        "column": "Volume Flow RateRMS",
        "at": "value 0 of the line",
    }
    summary = json.loads(said)
    assert (summary["type"], summary["rows"]) == ("summary", 3)
    assert summary["labels"] == {"anomaly": {"rows": 2, "onsets": 1}}
    assert summary["wires"]["serial"]["sent"] == 3
    assert "valve 1.csv: 3 rows, one each 1 s; labels: anomaly" in errors
    assert "1 cells have no value, 0 of them a wrong one" in errors
    labels = [json.loads(each) for each in (tmp_path / "labels.jsonl").read_text().splitlines()]
    assert [(each["label"], each["phase"], each["row"]) for each in labels[1:]] == [("anomaly", "onset", 1)]
    assert (tmp_path / "trace.csv").read_text().splitlines() == [
        "t_s,flow,Current,anomaly",
        "0.0,32.0,0.054711,0",
        "1.0,31.5,-0.38,1",
        "2.0,31.25,,1",
    ]


def _read(terminal):
    try:
        return os.read(terminal, 4096)
    except OSError:  # its other end has gone
        return b""
