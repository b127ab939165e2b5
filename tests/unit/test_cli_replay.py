"""`dxad replay` and `dxad what-if`, as one calls them."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from dxad.__main__ import main

CONFIG = """
state_dir = "{folder}/state"
[sources.rig]
type = "mqtt"
url = "mqtt://127.0.0.1:1"
topic = "rig"
period = "1s"
[sources.rig.channels]
flow = {{ unit = "l/min" }}
pressure = {{ unit = "bar" }}
[pipelines.rig]
channels = ["rig.*"]
model = {{ type = "tflite", path = "models/rig" }}
learn = {{ span = "200s", window_rows = 2 }}
alarm = {{ on_delay = "2s", off_delay = "5s" }}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A configuration, ten minutes of data with two upsets that are labelled, and the same as quiet data."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "dxad.toml").write_text(CONFIG.format(folder=folder))
    rng = np.random.default_rng(0)
    flow, pressure = 100 + rng.normal(size=600), 3 + 0.1 * rng.normal(size=600)
    _write(folder / "quiet.csv", flow, pressure, np.zeros(600))
    wrong = np.zeros(600)
    wrong[300:360] = wrong[450:500] = 1
    flow[300:360] += 15
    flow[450:500] += 7
    _write(folder / "data.csv", flow, pressure, wrong)
    return folder


def _write(path: Path, flow, pressure, wrong) -> None:
    lines = [
        f"2024-05-01 10:{row // 60:02d}:{row % 60:02d};{flow[row]:.4f};{pressure[row]:.4f};{wrong[row]:.0f}"
        for row in range(len(flow))
    ]
    path.write_text("\n".join(["datetime;Flow;Pressure;anomaly", *lines]) + "\n")


def call(*arguments: object) -> Result:
    result = CliRunner().invoke(
        main, [str(each) for each in arguments], prog_name="dxad", env={"COLUMNS": "120"}
    )
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def replay(folder: Path, *arguments: object, data: str = "data.csv", command: str = "replay") -> Result:
    return call(command, "-c", folder / "dxad.toml", "--data", folder / data, *arguments)


def test_it_tells_what_was_found_and_how_that_stands_beside_the_labels(folder):
    told = replay(folder, "--labels", "anomaly")
    assert told.exit_code == 0, told.output
    assert "data.csv: 600 rows from 2024-05-01T10:00:00 to 2024-05-01T10:09:59 UTC" in told.output
    assert "learned from 200 rows" in told.output
    lines = told.output.splitlines()
    upsets = [line for line in lines if "process" in line]
    assert [line.split()[1][:8] for line in upsets[:2]] == ["10:05:00", "10:07:30"]
    assert all("rig.flow" in line for line in upsets[:2])
    (score,) = [line for line in lines if line.startswith("rig ")]
    assert score.replace(" %", "").split()[4] == "2"  # found, behind F1, FAR and MAR


def test_json_is_one_document_and_events_are_lines(folder, tmp_path):
    events = tmp_path / "events.jsonl"
    told = replay(folder, "--labels", "anomaly", "--json", "--events", events)
    document = json.loads(told.stdout)
    rig = document["pipelines"]["rig"]
    assert rig["score"]["found"] == 2
    assert rig["score"]["rows"] == 400
    assert document["recording"]["columns"] == {"rig.flow": "Flow", "rig.pressure": "Pressure"}
    lines = [json.loads(line) for line in events.read_text().splitlines()]
    opened = [each for each in lines if each["type"] == "dxad.incident.opened"]
    assert [each["subject"] for each in opened] == [each["id"] for each in rig["incidents"]]


def test_the_same_data_gives_the_same_bytes_in_any_process(folder, tmp_path):
    def run(number: int) -> tuple[bytes, bytes]:
        events = tmp_path / f"events{number}.jsonl"
        done = subprocess.run(
            [
                sys.executable, "-m", "dxad", "replay", "-c", folder / "dxad.toml", "--data",
                folder / "data.csv", "--labels", "anomaly", "--json", "--events", events,
            ],
            capture_output=True, check=True, cwd=tmp_path, timeout=60,
            env=os.environ | {"PYTHONHASHSEED": str(number), "TZ": ["UTC", "Asia/Tokyo"][number]},
        )  # fmt: skip
        return done.stdout, events.read_bytes()

    first, second = run(0), run(1)
    assert first == second
    assert len(first[0]) > 1000
    assert first[1].count(b"\n") >= 4


def test_it_may_be_slowed_down_and_the_answer_is_the_same(folder):
    began = time.monotonic()
    slow = replay(folder, "--from", "60s", "--to", "360s", "--json", "--speed", "300")
    assert time.monotonic() - began >= 0.9
    assert slow.stdout == replay(folder, "--from", "60s", "--to", "360s", "--json").stdout
    wrong = replay(folder, "--speed", "warp")
    assert wrong.exit_code == 2
    assert "'warp' is neither max nor a factor" in wrong.stderr


def test_learning_may_be_from_another_file_or_from_a_span(folder):
    from_file = json.loads(replay(folder, "--learn", folder / "quiet.csv", "--json").stdout)["pipelines"][
        "rig"
    ]
    assert from_file["scored"] > 590
    from_span = json.loads(replay(folder, "--learn", "150s", "--json").stdout)["pipelines"]["rig"]
    assert from_span["learned"][0]["rows"] == 150


def test_a_part_of_the_data_is_named_by_times_or_by_how_far_they_lie_in_it(folder):
    for begin, end in (("2024-05-01T10:01", "2024-05-01T10:03:00Z"), ("60s", "3min")):
        document = json.loads(replay(folder, "--from", begin, "--to", end, "--json").stdout)
        assert document["recording"]["rows"] == 120


def test_columns_are_mapped_by_hand(folder):
    told = replay(folder, "--map", "Pressure=rig.flow", "--map", "Flow=rig.pressure", "--json")
    assert json.loads(told.stdout)["recording"]["columns"] == {"rig.flow": "Pressure", "rig.pressure": "Flow"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--map", "Flow"], "--map Flow: wants COLUMN=CHANNEL"),
        (["--map", "Flw=rig.flow"], "no column 'Flw'; did you mean 'Flow'?"),
        (["--labels", "anomly"], "--labels anomly: no file, and no column of the data"),
        (["--learn", "5 fortnights"], "--learn: '5 fortnights' is not a number and one of the units"),
        (["--learn", "none.csv"], "none.csv: No such file"),
        (["--from", "soon"], "--from: Invalid isoformat string"),
        (["--from", "20min"], "has no rows in that span of time"),
        (["--period", "0s"], "--period: 0s is no time at all"),
        (["--time", "when"], "no column 'when'"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(folder, arguments, message):
    told = replay(folder, *arguments)
    assert told.exit_code == 2
    assert message in told.stderr
    assert told.stdout == ""


def test_nothing_to_learn_from_is_told(folder, tmp_path):
    short = tmp_path / "short.csv"
    short.write_text("datetime;Flow;Pressure\n2024-05-01 10:00:00;1;2\n")
    told = replay(folder, "--learn", short)
    assert told.exit_code == 2
    assert "too few to learn anything" in told.stderr


class TestWhatIf:
    def ask(self, folder: Path, *settings: str, flags=()) -> Result:
        named = [part for each in settings for part in ("--set", each)]
        return replay(folder, "--labels", "anomaly", *named, *flags, command="what-if")

    def test_it_shows_both_and_what_has_changed(self, folder):
        told = self.ask(folder, "pipelines.rig.alarm.limit=1000")
        assert told.exit_code == 0, told.output
        assert "with pipelines.rig.alarm.limit=1000" in told.output
        (found,) = [line.split() for line in told.output.splitlines() if line.startswith("FOUND")]
        assert found == ["FOUND", "2", "0"]
        assert "0 incidents would have been the same, " in told.output
        assert "0 new" in told.output

    def test_json_has_both_outcomes_and_the_ids_of_what_changed(self, folder):
        document = json.loads(
            self.ask(
                folder,
                "pipelines.rig.alarm.on_delay=79s",
                "pipelines.rig.alarm.off_delay=1s",
                flags=["--json"],
            ).stdout
        )
        assert document["set"] == ["pipelines.rig.alarm.on_delay=79s", "pipelines.rig.alarm.off_delay=1s"]
        before, after = (
            [each["id"] for each in document[when]["pipelines"]["rig"]["incidents"]]
            for when in ("before", "after")
        )
        assert document["incidents"]["same"] == [each for each in before if each in after]
        assert document["incidents"]["gone"] == [each for each in before if each not in after]
        assert len(after) < len(before)
        assert document["before"] == json.loads(replay(folder, "--labels", "anomaly", "--json").stdout)

    def test_settings_that_change_nothing_change_nothing(self, folder):
        document = json.loads(self.ask(folder, "pipelines.rig.alarm.on_delay=2s", flags=["--json"]).stdout)
        assert document["before"] == document["after"]
        assert document["incidents"]["gone"] == document["incidents"]["new"] == []

    def test_a_wrong_setting_is_told_by_its_name(self, folder):
        told = self.ask(folder, "pipelines.rig.alarm.limt=3")
        assert told.exit_code == 2
        assert told.stderr.startswith(
            "--set pipelines.rig.alarm.limt=3: pipelines.rig.alarm.limt: unknown key"
        )
