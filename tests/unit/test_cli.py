"""The commands, with a control socket behind them that is real and a gateway that is not."""

import asyncio
import copy
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

import dxad.daemon
from dxad.__main__ import COMMANDS, main
from dxad.config import ControlSection
from dxad.control import Control
from dxad.errors import ConfigError, Problem
from tests.patience import PATIENCE_S, until

ROOT = Path(__file__).parent.parent.parent
DEMO = ROOT / "config" / "examples" / "demo.toml"

FAST = """\
[sources.vib]
type = "serial"
port = "/dev/ttyUSB0"
period = "1ms"
decode = { kind = "csv", columns = ["x", "y"] }

[pipelines.p]
channels = ["vib.*"]
period = "100ms"
model = { type = "zscore" }
"""
WRONG = """\
[gateway]
idd = "plant7"
[sources.plc]
type = "modbas"
[pipelines.pump]
channels = ["plc.flow"]
model = { type = "zscore" }
window = 5
"""

ANSWER = {
    "result": {
        "anomaly_score": 0.99871,
        "is_anomaly": True,
        "threshold": 0.95,
        "score": 4.4412,
        "limit": 2.0,
        "model": "3fa9c2d1",
    },
    "input_data": {
        "rows": 100,
        "channels": {
            "plc.flow": {"last": 12.5, "mean": 12.25, "min": 12.0, "max": 13.0, "unit": "l/min"},
            "plc.valve[1]": {"last": None, "unit": ""},
        },
    },
}


ALARMS = [
    {"id": "pump.score", "state": "normal", "worst": None, "limit": 2.0, "severity": "high"},
    {
        "id": "pump.pressure.high", "state": "shelved", "worst": 8.25, "limit": 8.0, "unit": "bar",
        "severity": "high", "shelved_until_utc_ns": 1_700_000_000_000_000_000,
    },
]  # fmt: skip

INCIDENT = {
    "incident": "5b" * 16,
    "state": "closed",
    "phase": "closed",
    "kind": "process",
    "severity": "high",
    "pipeline": "pump",
    "onset_utc_ns": 1_700_000_000_000_000_000,
    "after_onset_s": 42.5,
    "peak_score": 9.5,
    "limit": 2.0,
    "first_out": {"alarm": "pump.score", "channel": "plc.flow"},
    "quality": {"good": 0.99, "bad": 0.01},
    "alarms": [{"id": "pump.score", "after_onset_s": 0.0, "worst": 9.5, "limit": 2.0, "cleared": True}],
    "contributors": [{"channel": "plc.flow", "unit": "l/min", "share": 0.8, "seen": 12.5, "typical": 20.0}],
}


class Gateway:
    def __init__(self) -> None:
        self.conditions: list[dict[str, Any]] = []
        self.answer: dict[str, Any] = {"success": True, "content": ANSWER, "error": None}
        self.asked: list[object] = []
        self.mistakes: ConfigError | None = None

    def status(self) -> dict[str, Any]:
        return {
            "gateway": "plant7-gw3",
            "state": "running",
            "uptime_s": 50.0,
            "conditions": self.conditions,
            "sources": {"plc": {"connected": True, "rows": 500, "samples": 1500}},
            "pipelines": {"pump": {"score": 0.5, "limit": 2.0}},
        }

    def metrics(self) -> str:
        return ""

    def pipelines(self) -> tuple[str, ...]:
        return ("pump",)

    async def query(self, pipeline: str, request: dict[str, Any]) -> dict[str, Any]:
        self.asked.append((pipeline, request))
        return copy.deepcopy(self.answer)

    async def reload(self, *, dry_run: bool) -> dict[str, Any]:
        self.asked.append(("reload", dry_run))
        if self.mistakes is not None:
            raise self.mistakes
        lines = ["pipelines.pump changed: alarm.limit", "sources.vib added"]
        return {"applied": not dry_run, "lines": lines, "changes": [], "restart": [], "untouched": 3}

    def learn(self, pipeline: str, span_s: float | None) -> dict[str, Any]:
        self.asked.append((pipeline, span_s))
        return {"pipeline": pipeline, "of_rows": 36_000}

    def alarms(self) -> list[dict[str, Any]]:
        return ALARMS

    async def act(self, alarm: str, action: str, for_s: float | None = None) -> dict[str, Any]:
        self.asked.append((alarm, action, for_s))
        until = None if for_s is None else 1_700_000_000_000_000_000
        return {"id": alarm, "state": "shelved" if for_s else "acknowledged", "shelved_until_utc_ns": until}

    def incidents(self) -> list[dict[str, Any]]:
        return [INCIDENT]

    async def window(self, incident: str, rows: int | None) -> dict[str, Any] | str | None:
        return "time,score\n2023-11-14T22:13:20Z,1.5\n" if rows is None else {"incident": incident}


@pytest.fixture
def path(monkeypatch) -> Iterator[Path]:
    monkeypatch.setenv("COLUMNS", "80")
    with tempfile.TemporaryDirectory(prefix="dxad-") as folder:
        monkeypatch.setenv("DXAD_SOCKET", f"{folder}/control.sock")
        yield Path(folder) / "control.sock"


@pytest.fixture
async def gateway(path):
    """The gateway of a daemon that answers at $DXAD_SOCKET."""
    found = Gateway()
    async with Control(found, ControlSection(socket=path)):
        yield found


def call(*arguments: object, **env: str) -> Result:
    result = CliRunner().invoke(main, [str(each) for each in arguments], prog_name="dxad", env=env)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


async def ask(*arguments: object, **env: str) -> Result:
    """The same while the daemon answers in this thread."""
    return await asyncio.to_thread(call, *arguments, **env)


class TestHelp:
    def test_lists_every_command_in_the_order_of_a_users_day(self):
        text = call("--help").output
        places = [text.index(f"  {name} ") for name in COMMANDS]
        assert places == sorted(places)
        assert "_DXAD_COMPLETE" in text

    @pytest.mark.parametrize("name", COMMANDS)
    def test_of_a_command_says_what_the_list_says_and_shows_an_example(self, name):
        command = main.get_command(click.Context(main), name)
        assert command.help.splitlines()[0] == COMMANDS[name]
        assert "Example: dxad " in call(name, "--help").output

    def test_imports_nothing_that_is_slow(self):
        code = (
            "import sys; from dxad.__main__ import main; main(['--help'], standalone_mode=False);"
            "print(*{'aiohttp', 'asyncio', 'numpy', 'pydantic', 'rich'} & set(sys.modules))"
        )
        done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
        assert done.stdout.splitlines()[-1] == ""

    def test_imports_so_little_that_it_comes_at_once(self):
        code = (
            "import sys; from dxad.__main__ import main; main(['--help'], standalone_mode=False);"
            "print(len(sys.modules))"
        )
        done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
        assert int(done.stdout.splitlines()[-1]) < 150  # 110 cost a tenth of a second

    def test_completion_knows_the_commands_without_importing_them(self):
        env = {"_DXAD_COMPLETE": "bash_complete", "COMP_WORDS": "dxad ", "COMP_CWORD": "1"}
        assert [each.split(",")[1] for each in call(**env).output.split()] == list(COMMANDS)

    def test_a_command_that_is_none(self):
        assert call("stats").exit_code == 2


class TestCheck:
    def test_tells_every_mistake_on_a_line_of_its_own(self, tmp_path):
        (file := tmp_path / "dxad.toml").write_text(WRONG)
        result = call("check", "-c", file)
        assert result.exit_code == 2
        assert result.output.splitlines() == [
            f"{file}:2: gateway.idd: unknown key, did you mean 'id'?",
            f"{file}:4: sources.plc.type: no source of type 'modbas', did you mean 'modbus'?",
            f'{file}:8: pipelines.pump.window: 5 has no unit; write "5ms" or "5s"',
            "3 mistakes",
        ]

    def test_tells_the_memory_of_a_right_one(self):
        result = call("check", "-c", DEMO)
        assert result.exit_code == 0
        assert "sources.vib" in result.output
        assert "of 128.0 MiB" in result.output
        assert f"{DEMO} is right: 4 sources, 1 pipeline, 2 sinks" in result.output

    def test_refuses_one_that_needs_more_memory_than_it_may(self, tmp_path):
        (file := tmp_path / "dxad.toml").write_text('memory_max = "1MiB"\n' + DEMO.read_text())
        result = call("check", "-c", file)
        assert result.exit_code == 2
        assert f"{file}: memory_max: allows 1.0 MiB, the buffers need " in result.output
        assert "the largest is sources.vib" in result.output
        assert result.output.endswith("\n1 mistake\n")

    def test_refuses_a_window_that_no_memory_can_hold(self, tmp_path):
        demo = DEMO.read_text()
        assert "[pipelines.pump]\n" in demo
        (file := tmp_path / "dxad.toml").write_text(
            demo.replace("[pipelines.pump]\n", '[pipelines.pump]\nwindow = "24h"\n')
        )
        result = call("check", "-c", file)
        assert result.exit_code == 2
        assert "the largest is pipelines.pump" in result.output

    def test_warns_of_a_row_that_keeps_the_last_of_many_values(self, tmp_path):
        (file := tmp_path / "dxad.toml").write_text(FAST)
        result = call("check", "-c", file)
        told = "a row keeps the last of 100 values of 'vib.x' and 1 more; give the channel a fold"
        assert f"warning: pipelines.p.period: {told}" in result.output
        assert result.exit_code == 0
        found = json.loads(call("check", "--json", "-c", file).output)
        assert [each["key"] for each in found["warnings"]] == ["pipelines.p.period"]

    def test_a_file_that_is_not_there(self, tmp_path):
        result = call("check", "-c", tmp_path / "none.toml")
        assert (result.exit_code, "No such file" in result.output) == (2, True)

    def test_as_json(self, tmp_path):
        (file := tmp_path / "dxad.toml").write_text(WRONG)
        wrong, right = call("check", "--json", "-c", file), call("check", "--json", "-c", DEMO)
        assert (wrong.exit_code, right.exit_code) == (2, 0)
        found = json.loads(wrong.output)
        assert not found["valid"]
        assert [each["key"] for each in found["problems"]] == [
            "gateway.idd", "sources.plc.type", "pipelines.pump.window"
        ]  # fmt: skip
        found = json.loads(right.output)
        assert (found["valid"], found["problems"]) == (True, [])
        assert found["memory_total_bytes"] == sum(found["memory_bytes"].values()) < found["memory_max_bytes"]

    def test_in_a_process_of_its_own(self):
        command = [sys.executable, "-m", "dxad", "check", "-c", "config/examples/demo.toml"]
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
        assert (done.stderr, "is right" in done.stdout) == ("", True)


class TestRun:
    def test_runs_the_daemon(self, monkeypatch):
        ran = []
        monkeypatch.setattr(dxad.daemon, "run", lambda config: ran.append(config) or 0)
        assert call("run", "-c", "some.toml").exit_code == 0
        assert ran == [Path("some.toml")]

    def test_tells_every_mistake_on_a_line_of_its_own(self, tmp_path):
        (file := tmp_path / "dxad.toml").write_text(WRONG)
        result = call("run", "-c", file)
        assert result.exit_code == 2
        assert len(result.stderr.splitlines()) == 3

    @pytest.mark.parametrize(
        ("error", "told"),
        [
            (ConfigError("another dxad runs"), "another dxad runs\n"),
            (ConfigError(problems=[Problem("f:1", "k", "m")]), "f:1: k: m\n"),
        ],
    )
    def test_tells_what_is_wrong_outside_the_file(self, monkeypatch, error, told):
        def refuse(_config: Path) -> int:
            raise error

        monkeypatch.setattr(dxad.daemon, "run", refuse)
        result = call("run", "-c", "some.toml")
        assert (result.exit_code, result.stderr) == (2, told)


class TestStatus:
    @pytest.mark.usefixtures("gateway")
    async def test_of_a_daemon_that_is_well(self):
        result = await ask("status")
        assert result.exit_code == 0
        assert result.output.startswith("dxad plant7-gw3   running 50.0 s")
        assert "● plc" in result.output

    @pytest.mark.parametrize(("severity", "status"), [("warning", 0), ("error", 1)])
    async def test_is_its_exit_status_too(self, gateway, severity, status):
        gateway.conditions = [{"code": "sink.down", "severity": severity, "subject": "s", "detail": "gone"}]
        result = await ask("status")
        assert (result.exit_code, "sink.down s" in result.output) == (status, True)

    async def test_as_json(self, gateway):
        assert json.loads((await ask("status", "--json")).output) == gateway.status()

    def test_of_no_daemon(self, path):
        result = call("status")
        assert (result.exit_code, result.stdout) == (3, "")
        assert f"{path}: there is no such socket" in result.stderr

    @pytest.mark.usefixtures("gateway")
    async def test_at_a_socket_that_is_named(self, path):
        assert (await ask("status", "--socket", path, DXAD_SOCKET="/nowhere")).exit_code == 0
        assert (await ask("status", "--socket", "/nowhere")).exit_code == 3

    @pytest.mark.usefixtures("gateway")
    async def test_at_the_socket_of_a_configuration(self, path, tmp_path):
        text = DEMO.read_text().replace("/tmp/dxad-demo/control.sock", str(path))
        (file := tmp_path / "dxad.toml").write_text(text)
        assert (await ask("status", "-c", file, DXAD_SOCKET="/nowhere")).exit_code == 0

    def test_of_a_configuration_that_is_wrong(self, tmp_path):
        (file := tmp_path / "dxad.toml").write_text(WRONG)
        assert call("status", "-c", file).exit_code == 2

    def test_at_the_usual_place(self):
        result = call("status", DXAD_SOCKET="")
        assert (result.exit_code, "/run/dxad/control.sock" in result.stderr) == (3, True)


class TestTop:
    @pytest.mark.usefixtures("gateway")
    async def test_without_a_terminal_is_a_line_for_each_look(self):
        result = await ask("top", "-n", 2, "--every", 0.1)
        assert result.exit_code == 0
        assert [each[8:] for each in result.output.splitlines()] == [
            " running, all sources up, pump 0.50/2.00, incidents 0, outbox 0"
        ] * 2

    @pytest.mark.usefixtures("gateway")
    async def test_on_a_terminal_is_the_picture(self):
        result = await ask("top", "-n", 2, "--every", 0.1, FORCE_COLOR="1", TERM="xterm")
        assert result.exit_code == 0
        assert result.output.count("plant7-gw3") >= 2
        assert result.output.count("\x1b[?25l") == result.output.count("\x1b[?25h") == 1  # the cursor is back

    async def test_goes_on_when_the_daemon_does_not(self, path):
        looks = []

        class Looked(Gateway):
            def status(self):
                looks.append(1)
                return super().status()

        async with Control(Looked(), ControlSection(socket=path)):
            asking = asyncio.create_task(ask("top", "-n", 4, "--every", 0.3))
            await until(lambda: looks)
        result = await asking
        lines = result.output.splitlines()
        assert (result.exit_code, len(lines)) == (0, 4)
        assert "running" in lines[0]
        assert "there is no such socket" in lines[3]

    @pytest.mark.usefixtures("path")
    def test_of_no_daemon_at_all(self):
        assert call("top").exit_code == 3

    @pytest.mark.usefixtures("gateway")
    async def test_ends_well_with_ctrl_c(self):
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "dxad", "top", "--every", "0.1", cwd=ROOT, stdout=PIPE, stderr=PIPE,
            # A shell that runs the tests in the background has it ignored, and children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        try:
            assert b"running" in await child.stdout.readline()
            child.send_signal(signal.SIGINT)
            async with asyncio.timeout(PATIENCE_S):
                _, told = await child.communicate()
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
        assert (child.returncode, told) == (0, b"")


class TestAlarms:
    @pytest.mark.usefixtures("gateway")
    async def test_are_a_table_or_json(self):
        told = (await ask("alarms")).output
        assert "pump.score" in told
        assert "shelved" in told
        assert json.loads((await ask("alarms", "--json")).output) == {"alarms": ALARMS}

    @pytest.mark.parametrize(
        ("command", "action"),
        [
            ("ack", "ack"),
            ("unshelve", "unshelve"),
            ("out-of-service", "out_of_service"),
            ("in-service", "in_service"),
        ],
    )
    async def test_are_acted_on_by_id(self, gateway, command, action):
        result = await ask("alarms", command, "pump.score")
        assert (result.exit_code, result.output) == (0, "pump.score is acknowledged\n")
        assert gateway.asked == [("pump.score", action, None)]

    async def test_are_shelved_for_a_time_that_must_be_given(self, gateway):
        result = await ask("alarms", "shelve", "pump.score", "--for", "1h")
        assert result.output == "pump.score is shelved until 2023-11-14T22:13:20Z\n"
        assert gateway.asked == [("pump.score", "shelve", 3600.0)]
        assert (await ask("alarms", "shelve", "pump.score")).exit_code == 2

    @pytest.mark.usefixtures("gateway")
    async def test_an_alarm_that_is_not_there_is_refused(self):
        result = await ask("alarms", "ack", "pump.scor")
        assert (result.exit_code, "did you mean pump.score?" in result.stderr) == (1, True)

    @pytest.mark.usefixtures("gateway")
    async def test_the_socket_may_stand_before_the_subcommand(self, path):
        there = str(path)
        assert (await ask("alarms", "--socket", there, "ack", "pump.score", DXAD_SOCKET="/no")).exit_code == 0
        assert (await ask("alarms", "ack", "pump.score", DXAD_SOCKET="/no")).exit_code == 3


class TestIncidents:
    @pytest.mark.usefixtures("gateway")
    async def test_are_a_table_or_json(self):
        told = (await ask("incidents")).output
        assert INCIDENT["incident"] in told
        assert "pump.score (plc.flow)" in told
        brief = json.loads((await ask("incidents", "--json")).output)["incidents"]
        assert [each["incident"] for each in brief] == [INCIDENT["incident"]]

    @pytest.mark.usefixtures("gateway")
    async def test_one_is_shown_with_its_evidence(self):
        told = (await ask("incidents", "show", INCIDENT["incident"])).output
        for fact in ("plc.flow", "80%", "99.0% good", "2023-11-14T22:13:20Z", "pump.score", "9.50"):
            assert fact in told
        assert json.loads((await ask("incidents", "show", INCIDENT["incident"], "--json")).output) == INCIDENT

    @pytest.mark.usefixtures("gateway")
    async def test_its_rows_go_to_a_file(self, tmp_path):
        result = await ask("incidents", "show", INCIDENT["incident"], "--window", tmp_path / "rows.csv")
        assert (result.exit_code, "1 rows" in result.output) == (0, True)
        assert (tmp_path / "rows.csv").read_text() == "time,score\n2023-11-14T22:13:20Z,1.5\n"

    @pytest.mark.usefixtures("gateway")
    async def test_one_that_is_not_there_is_refused(self):
        assert (await ask("incidents", "show", "00")).exit_code == 1


class TestQuery:
    async def test_asks_for_a_score_of_the_last_rows(self, gateway):
        result = await ask("query", "pump", "--window-size", 100, "--threshold", 0.9)
        assert result.exit_code == 0
        assert gateway.asked == [
            ("pump", {"execute": True, "config": {"window_size": 100, "threshold": 0.9}})
        ]  # fmt: skip
        assert result.output.startswith("pump: anomalous, anomaly score 0.999 against 0.95; score 4.441 ")
        assert "plc.flow      12.5  12.25   12   13  l/min" in result.output
        assert "plc.valve[1]     -      -    -    -" in result.output

    async def test_as_json(self, gateway):
        assert json.loads((await ask("query", "pump", "--json")).output) == gateway.answer
        assert gateway.asked == [("pump", {"execute": True, "config": {"threshold": 0.95}})]

    @pytest.mark.parametrize("flags", [(), ("--json",)])
    async def test_says_why_there_is_no_score(self, gateway, flags):
        gateway.answer = {"success": False, "content": None, "error": "pipeline 'pump' has no model yet"}
        result = await ask("query", "pump", *flags)
        assert (result.exit_code, "has no model yet" in result.output) == (1, True)

    @pytest.mark.usefixtures("gateway")
    async def test_says_which_pipelines_there_are(self):
        result = await ask("query", "pmp")
        assert (result.exit_code, result.stderr) == (1, "dxad: no pipeline 'pmp'; there is only pump\n")


class TestLearn:
    async def test_says_how_much_it_learns_from(self, gateway):
        result = await ask("learn", "pump", "--span", "1h")
        assert (result.exit_code, gateway.asked) == (0, [("pump", 3600.0)])
        assert result.output == "pump learns from the next 36,000 rows in which nothing is missing\n"

    async def test_leaves_the_span_to_the_configuration(self, gateway):
        await ask("learn", "pump")
        assert gateway.asked == [("pump", None)]

    @pytest.mark.usefixtures("gateway")
    async def test_says_what_is_wrong_with_a_span(self):
        result = await ask("learn", "pump", "--span", "1 fortnight")
        assert (result.exit_code, "one of the units" in result.stderr) == (1, True)


class TestReload:
    @pytest.mark.parametrize(("flags", "dry_run"), [((), False), (("--dry-run",), True)])
    async def test_says_what_changed(self, gateway, flags, dry_run):
        result = await ask("reload", *flags)
        assert (result.exit_code, gateway.asked) == (0, [("reload", dry_run)])
        assert result.output.splitlines() == [
            "pipelines.pump changed: alarm.limit", "sources.vib added", "3 nodes untouched"
        ]  # fmt: skip

    async def test_tells_every_mistake_on_a_line_of_its_own(self, gateway):
        problems = [Problem("f:1", "a", "wrong\x1b[2J"), Problem("f:2", "b", "wrong too")]
        gateway.mistakes = ConfigError(problems=problems)
        result = await ask("reload")
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr.splitlines() == ["f:1: a: wrong [2J", "f:2: b: wrong too"]

    async def test_as_json(self, gateway):
        done = json.loads((await ask("reload", "--json")).output)
        assert (done["applied"], len(done["lines"])) == (True, 2)
        gateway.mistakes = ConfigError(problems=[Problem("f:1", "a", "wrong")])
        result = await ask("reload", "--json")
        assert (result.exit_code, json.loads(result.output)) == (
            2, {"applied": False, "problems": ["f:1: a: wrong"]}
        )  # fmt: skip

    def test_of_no_daemon(self, path):
        result = call("reload")
        assert (result.exit_code, f"{path}: there is no such socket" in result.stderr) == (3, True)


def test_the_version_says_what_a_bug_report_needs():
    result = call("version")
    assert result.exit_code == 0
    assert [each.split()[0] for each in result.output.splitlines()][:3] == ["dxad", "Python", "numpy"]
