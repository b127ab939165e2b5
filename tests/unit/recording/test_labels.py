"""What was wrong, and when, from each kind of labels file."""

from pathlib import Path

import numpy as np
import orjson
import pytest

from dxad.errors import ConfigError
from dxad.recording.labels import read_labels
from dxad.types import NS_PER_S

TIMES = np.arange(10, dtype=np.int64) * NS_PER_S
DATA = Path("/data/nab/realTraffic/speed.csv")


def at(path):
    return "".join("01"[int(each)] for each in read_labels(path, DATA).at(TIMES))


def test_stretches_have_both_their_ends_and_may_overlap(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("start,end\n1970-01-01T00:00:02,1970-01-01T00:00:04\n3,5.5\n8,8\n")
    assert at(path) == "0011110010"


def test_rows_hold_until_the_next(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("time;anomaly\n1;0\n3;1\n6;0\n9;1\n")
    assert at(path) == "0001110001"


def test_json_holds_stretches_or_those_of_many_files(tmp_path):
    path = tmp_path / "windows.json"
    stretches = [["1970-01-01 00:00:02.000000", "1970-01-01 00:00:03.000000"]]
    path.write_bytes(orjson.dumps(stretches))
    assert at(path) == "0011000000"
    path.write_bytes(orjson.dumps({"other.csv": [], "realTraffic/speed.csv": stretches}))
    assert at(path) == "0011000000"


def test_no_stretches_are_never_wrong(tmp_path):
    path = tmp_path / "windows.json"
    path.write_bytes(b"[]")
    assert at(path) == "0000000000"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("l.csv", "start,end\nx,2\n", r"l\.csv:2: "),
        ("l.csv", "time,a,b\n1,2,3\n", "2 columns beside the time"),
        ("l.csv", "time,a\n1,high\n", r"l\.csv:2: a: 'high' is no number"),
        ("l.json", "{}", "has nothing for"),
        ("l.json", "[1]", "no list of"),
        ("l.json", "no", "no list of"),
    ],
)
def test_what_says_nothing_is_refused(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_labels(path, DATA)


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        read_labels(tmp_path / "none.csv", DATA)
