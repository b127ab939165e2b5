"""A recorded data set on the bench: the file's rows, its labels, its end, and what is said of a bad file."""

import csv
import io
import json
import math

import numpy as np
import pytest

from hw_sim.bench import Bench, Rig
from hw_sim.labels import Labels
from hw_sim.plants import replay
from hw_sim.replay import csvfile, record
from hw_sim.replay.csvfile import FileError
from hw_sim.scenario import Origin, ScenarioError, of

SKAB = """\
datetime;Pressure;Volume Flow RateRMS;anomaly;changepoint\r
2020-03-09 10:34:33;0.054711;32.0;0.0;0.0\r
2020-03-09 10:34:34;0.38;31.5;0.0;0.0\r
2020-03-09 10:34:36;-0.27;31.0;1.0;1.0\r
2020-03-09 10:34:37;0.1;30.5;1.0;0.0\r
2020-03-09 10:34:38;0.2;30.0;0.0;1.0\r
"""
NAB = """\
timestamp,value
2014-04-01 00:00:00,20.0
2014-04-01 00:05:00,18.324918539200002
2014-04-01 00:10:00,21.970327182
2014-04-01 00:15:00,0
"""
TSB = """\
c0,c1,Label
-1,0.5,0
0.25,0.5,1
1e-3,-0.5,1
"""
TEP = """\
XMEAS_1,XMV_11
0.25025,18.1
0.24889,17.9
0.251,18
"""
TRACE = """\
t_s,motor.current,anomaly
0.0,16.25,0
0.01,,0
0.02,16.5,1
"""


@pytest.fixture
def written(tmp_path):
    def write(text, name="data.csv"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text.encode())
        return path

    return write


def played(path, **settings):
    """All that the bench shows of a file until it is over, as an array, and the plant."""
    plant = replay.build(replay.Settings(file=path, **settings), "1")
    bench = Bench([Rig("record", plant)], seed=1)
    shown = [list(bench.readings.values())]
    while not bench.over:
        bench.step()
        shown.append(list(bench.readings.values()))
    return np.array(shown), plant


def edges(path, *, as_csv=False, **settings):
    """What the labels' file of a run says."""
    plant = replay.build(replay.Settings(file=path, **settings), "1")
    bench, file = Bench([Rig("record", plant)], seed=1), io.StringIO()
    labels = Labels(file, bench, now=lambda: 1e9 + bench.at_s, as_csv=as_csv)
    labels.start()
    while not bench.over:
        bench.step()
        labels.step()
    file.seek(0)
    if as_csv:
        return list(csv.DictReader(file))
    return [line for line in map(json.loads, file) if line["type"] == "label"]


@pytest.mark.parametrize(
    ("text", "names", "labels", "period_s", "values"),
    [
        (
            SKAB, ["Pressure", "Volume_Flow_RateRMS"], ["anomaly", "changepoint"], 1.0,
            [[0.054711, 32.0], [0.38, 31.5], [-0.27, 31.0], [0.1, 30.5], [0.2, 30.0]],
        ),
        (NAB, ["value"], [], 300.0, [[20.0], [18.324918539200002], [21.970327182], [0.0]]),
        (TSB, ["c0", "c1"], ["Label"], 1.0, [[-1, 0.5], [0.25, 0.5], [1e-3, -0.5]]),
        (TEP, ["XMEAS_1", "XMV_11"], [], 1.0, [[0.25025, 18.1], [0.24889, 17.9], [0.251, 18]]),
        (TRACE, ["motor_current"], ["anomaly"], 0.01, [[16.25], [math.nan], [16.5]]),
    ],
    ids=["skab", "nab", "tsb", "tep", "trace"],
)  # fmt: skip
def test_every_row_of_every_dialect_is_a_step(written, text, names, labels, period_s, values):  # noqa: PLR0917
    shown, plant = played(written(text))
    np.testing.assert_array_equal(shown, values)
    assert list(plant.channels) == names
    assert list(plant.record.labels) == labels
    assert plant.step_s == period_s
    assert plant.played == plant.rows == len(values)


def test_only_times_say_how_long_a_row_is(written):
    assert played(written(TEP))[1].record.assumed
    assert not played(written(TEP), period="3min")[1].record.assumed
    assert played(written(TEP), period="3min")[1].step_s == 180.0
    assert not played(written(NAB))[1].record.assumed


@pytest.mark.parametrize(
    ("cells", "form", "period_s"),
    [
        (["2015-12-28T10:00:00Z", "2015-12-28T10:00:00.25Z"], "", 0.25),
        (["2015-12-28 10:00:00+01:00", "2015-12-28 09:00:02+00:00"], "", 2.0),
        ([" 28/12/2015 10:00:00 AM", "28/12/2015 10:00:01 AM"], "%d/%m/%Y %I:%M:%S %p", 1.0),
        (["1451296800", "1451296830"], "", 30.0),
        (["1451296800000", "1451296800100"], "", 0.1),
        (["1451296800000000", "1451296800001000"], "", 0.001),
        (["1451296800000000000", "1451296801000000000"], "", 1.0),
        (["0", "0.5"], "", 0.5),
    ],
)
def test_times_are_dates_or_numbers(written, cells, form, period_s):
    path = written("ts,x\n" + "".join(f"{cell},1\n" for cell in cells))
    assert played(path, time_format=form)[1].step_s == pytest.approx(period_s, abs=1e-6)


def test_dates_are_found_under_any_name(written):
    assert record.time_column(csvfile.read(written("x,when\n1,2020-03-09 10:34:33\n2,2020-03-09 10:34:34\n")))


def test_numbers_alone_are_no_header(written):
    shown, plant = played(written("1,2\n3,4\n"))
    assert list(plant.channels) == ["c0", "c1"]
    np.testing.assert_array_equal(shown, [[1, 2], [3, 4]])


def test_columns_may_be_chosen_and_renamed(written):
    shown, plant = played(written(SKAB), columns={"flow": "Volume Flow RateRMS"})
    assert list(plant.channels) == ["flow"]
    np.testing.assert_array_equal(shown[:, 0], [32.0, 31.5, 31.0, 30.5, 30.0])


def test_names_become_identifiers_and_stay_apart(written):
    plant = played(written('"1st",T °C,T_C,x,x,\n1,2,3,4,5,6\n'))[1]
    assert list(plant.channels) == ["_1st", "T_C", "T_C_2", "x", "x_2", "c5"]


def test_columns_of_words_are_left_out(written):
    assert list(played(written("x,state\n1,open\n2,\n"))[1].channels) == ["x"]


def test_a_channels_range_and_deviation_are_the_datas(written):
    channel = played(written("x,y\n1,7\n5,7\n"))[1].channels
    assert (channel["x"].low, channel["x"].high, channel["x"].usual) == (1.0, 5.0, 2.0)
    assert (channel["y"].low, channel["y"].high, channel["y"].usual) == (7.0, 8.0, 1.0)


def test_rows_count_from_0_and_the_last_is_not_among_them(written):
    shown, plant = played(written(SKAB), rows="1..3")
    np.testing.assert_array_equal(shown[:, 1], [31.5, 31.0])
    assert plant.place.row == 2
    assert plant.place.time == "2020-03-09 10:34:36"


def test_recorded_times_keep_their_gaps(written):
    shown, _ = played(written(SKAB), times="recorded")
    np.testing.assert_array_equal(shown[:, 1], [32.0, 31.5, math.nan, 31.0, 30.5, 30.0])


def test_rows_that_are_too_close_or_go_back_follow_one_another(written):
    seconds = [0, 1, 2, 2, 1, 3, 8, 9, 10]
    path = written("t_s,x\n" + "".join(f"{at},{row}\n" for row, at in enumerate(seconds)))
    shown, _ = played(path, times="recorded")
    assert shown[:6, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert np.isnan(shown[6:8]).all()
    assert shown[8:, 0].tolist() == [6, 7, 8]


def test_at_the_end_the_sensors_show_nothing(written):
    plant = replay.build(replay.Settings(file=written(TSB)), "1")
    for left in (2, 1, 0):
        assert not any(map(math.isnan, plant.step().values()))
        assert plant.left == left
        assert not plant.exhausted
    assert all(map(math.isnan, plant.step().values()))
    assert plant.exhausted


@pytest.mark.parametrize("times", ["rows", "recorded"])
def test_a_loop_begins_again_and_is_never_over(written, times):
    plant = replay.build(replay.Settings(file=written(NAB), loop=True, times=times), "1")
    shown = [plant.step()["value"] for _ in range(9)]
    assert shown[4:8] == shown[:4]
    assert shown[8] == shown[0]
    assert plant.left
    assert not plant.exhausted
    assert plant.place.row == 0


def test_a_bench_is_over_when_all_its_records_have_had_their_time(written):
    plants = [
        replay.build(replay.Settings(file=written(text, name), period=period), "1")
        for text, name, period in ((TSB, "short.csv", "1s"), (NAB, "long.csv", "2s"))
    ]
    bench = Bench([Rig(str(at), plant) for at, plant in enumerate(plants)], seed=1)
    shown = [(bench.readings["c1"], bench.readings["value"])]
    while not bench.over:
        bench.step()
        shown.append((bench.readings["c1"], bench.readings["value"]))
    assert bench.at_s == 7.0
    np.testing.assert_array_equal([each[0] for each in shown], [0.5, 0.5, -0.5, *[math.nan] * 5])
    assert [each[1] for each in shown[6:]] == [0.0, 0.0]


def test_a_bench_without_records_is_never_over():
    assert not Bench([], seed=1).over


def test_labels_are_written_at_their_edges(written):
    lines = edges(written(SKAB))
    told = [(each["label"], each["phase"], each["row"], each["t_s"], each["recorded"][-2:]) for each in lines]
    assert told == [
        ("anomaly", "onset", 2, 2.0, "36"),
        ("changepoint", "onset", 2, 2.0, "36"),
        ("changepoint", "end", 3, 3.0, "37"),
        ("anomaly", "end", 4, 4.0, "38"),
        ("changepoint", "onset", 4, 4.0, "38"),
    ]
    assert lines[0] == {
        "type": "label", "label": "anomaly", "phase": "onset", "time": 1e9 + 2, "t_s": 2.0,
        "plant": "record", "row": 2, "recorded": "2020-03-09 10:34:36", "says": "1",
    }  # fmt: skip


def test_labels_keep_to_their_rows_over_a_gap(written):
    lines = edges(written(SKAB), times="recorded")
    assert [(each["row"], each["t_s"]) for each in lines[:2]] == [(2, 3.0), (2, 3.0)]


def test_labels_as_a_table(written):
    first = edges(written(SKAB), as_csv=True)[0]
    assert (first["phase"], first["fault"], first["channel"]) == ("onset", "label:anomaly", "")
    assert json.loads(first["parameters"])["row"] == 2


def test_labels_may_be_words(written):
    path = written("x,Normal/Attack\n1,Normal\n2,Attack\n3,Other\n4,Normal\n")
    told = [(each["phase"], each["row"], each["says"]) for each in edges(path)]
    assert told == [("onset", 1, "Attack"), ("end", 2, "Attack"), ("onset", 2, "Other"), ("end", 3, "Other")]


def test_windows_are_labels_with_both_their_times(written, tmp_path):
    path = written(NAB, "realKnownCause/nyc_taxi.csv")
    windows = tmp_path / "windows.json"
    windows.write_text(
        json.dumps(
            {"realKnownCause/nyc_taxi.csv": [["2014-04-01 00:05:00.000000", "2014-04-01 00:10:00.000000"]]}
        )
    )
    lines = edges(path, windows=windows)
    assert [(each["label"], each["phase"], each["row"]) for each in lines] == [
        ("anomaly", "onset", 1),
        ("anomaly", "end", 3),
    ]


def test_rows_may_be_labelled(written):
    lines = edges(written(TEP), labelled_rows=["0..1", "2.."])
    assert [(each["phase"], each["row"]) for each in lines] == [("onset", 0), ("end", 1), ("onset", 2)]


def test_rows_that_are_labelled_are_the_files_rows(written):
    assert edges(written(TEP), labelled_rows=["2.."], rows="1..")[0]["row"] == 2


def test_labels_may_be_left_out(written):
    assert not edges(written(SKAB), labels=[])
    assert "anomaly" in played(written(SKAB), labels=[])[1].channels


def test_a_cell_without_a_number_is_a_hole_and_a_wrong_one_is_told(written):
    shown, plant = played(written("x,y\n1,2\n,3\nNaN,4\nfoo,5\ninf,6\n7,8\n9,9\n"), columns={"x": "x"})
    np.testing.assert_array_equal(shown[:, 0], [1, math.nan, math.nan, math.nan, math.nan, 7, 9])
    assert plant.record.holes == 4
    assert plant.record.bad == ["line 5, column 'x': 'foo' is no number"]


@pytest.mark.parametrize(
    ("text", "settings", "said"),
    [
        ("", {}, "data.csv: no rows"),
        ("x,y\n", {}, "data.csv: no rows"),
        ("x,y\n1,2\n\n3\n", {}, "data.csv, line 4: 1 cells, but 2 in line 1"),
        ('x\n"1"2\n', {}, "data.csv, line 2: ',' expected after '\"'"),
        ("x\nfoo\n", {}, "no column of numbers; there are x"),
        ("x,y\nfoo,1\n", {"columns": {"x": "x"}}, "line 2, column 'x': 'foo' is no number, nor is any other"),
        (TEP, {"columns": {"flow": "Flow"}}, "no column 'Flow'; there are XMEAS_1, XMV_11"),
        (TEP, {"time": "Time"}, "no column 'Time'"),
        (TEP, {"labels": ["Label"]}, "no column 'Label'"),
        (TEP, {"rows": "3.."}, "no row 3; its 3 rows count from 0"),
        (TEP, {"times": "recorded"}, "needs a column of times"),
        (TEP, {"windows": "windows.json"}, "windows are times, and this file has none"),
        ("time,x\n10:30,1\n", {}, "line 2, column 'time': '10:30' is no time: neither a date of ISO 8601"),
        ("time,x\n1,1\nnan,2\n", {}, "line 3, column 'time': 'nan' is no time"),
        ("time,x\n10:30,1\n", {"time_format": "%Y"}, "no time: not as '%Y' says"),
        ("time,x\n5,1\n5,2\n", {}, "the times of column 'time' mostly do not rise"),
    ],
)
def test_a_bad_file_is_told_with_its_place(written, text, settings, said):
    with pytest.raises(FileError) as told:
        played(written(text), **settings)
    assert str(told.value).startswith(str(written(text)))
    assert said in str(told.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file"),
        ("{", "not by file a list of pairs of times"),
        ("{}", "has no 'g/data.csv'"),
        ('{"g/data.csv": [["soon", "later"]]}', "not by file a list of pairs of times"),
        ('{"g/data.csv": [3]}', "not by file a list of pairs of times"),
        ("[]", "not by file a list of pairs of times"),
    ],
)
def test_a_bad_file_of_windows_is_told(written, tmp_path, content, said):
    windows = tmp_path / "windows.json"
    if content is not None:
        windows.write_text(content)
    with pytest.raises(FileError, match=said):
        played(written(NAB, "g/data.csv"), windows=windows)


def test_no_file_and_no_text_are_told(tmp_path):
    with pytest.raises(FileError, match="No such file"):
        played(tmp_path / "none.csv")
    (tmp_path / "latin.csv").write_bytes(b"T \xb0C\n1\n")
    with pytest.raises(FileError, match=r"no text in UTF-8: .* at byte 2"):
        played(tmp_path / "latin.csv")


def test_in_a_scenario_a_file_stands_beside_it(written, tmp_path):
    written(NAB)
    document = {"plants": {"taxi": {"kind": "replay", "file": "data.csv", "period": "auto"}}}
    bench, _ = of(document, Origin(str(tmp_path / "scenario.toml"))).bench()
    assert bench.readings == {"value": 20.0}


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("file", "none.csv", "none.csv: No such file"),
        ("rows", "5..2", "plants.taxi.rows: '5..2' ends before it begins"),
        ("rows", "5", "plants.taxi.rows: '5' is not START..END"),
        ("labelled_rows", ["x.."], "plants.taxi.labelled_rows.0: 'x..' is not START..END"),
        ("period", 5, "plants.taxi.period: a duration is a string with a unit"),
        ("period", "0s", "plants.taxi.period: input should be greater than 0"),
    ],
)
def test_a_scenario_is_told_what_is_wrong(written, tmp_path, key, value, said):
    written(NAB)
    document = {"plants": {"taxi": {"kind": "replay", "file": "data.csv", key: value}}}
    with pytest.raises(ScenarioError) as told:
        of(document, Origin(str(tmp_path / "scenario.toml"))).bench()
    assert said in str(told.value)


def test_sensors_of_a_record_can_break_but_its_machine_cannot(written):
    path = written(SKAB)
    document = {
        "plants": {"pump": {"kind": "replay", "file": str(path)}},
        "faults": [{"fault": "step", "onset": "1s", "channel": "Pressure", "size": 2}],
    }
    bench, _ = of(document, Origin("replay")).bench()
    bench.step()
    assert bench.readings["Pressure"] == pytest.approx(2.38)
    assert bench.healthy["Pressure"] == 0.38
    document["faults"] = [{"fault": "blockage"}]
    with pytest.raises(ScenarioError, match="no plant for it"):
        of(document, Origin("replay")).bench()
