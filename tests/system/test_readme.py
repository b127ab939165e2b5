"""The README's commands and snippets, as they stand there, on the bench that they describe."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from dxad import config
from dxad.resource import PipelineResource
from hw_sim import scenario
from hw_sim.cli.faults import markdown
from tests.patience import PATIENCE_S

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
EXAMPLE = "config/examples/demo.toml"
SOCKET = "/tmp/dxad-demo/control.sock"

ENDPOINTS = {
    "plc": "tcp://127.0.0.1:15020", "drive": "opc.tcp://127.0.0.1:14840/pump-skid", "motor": "mqtt://127.0.0.1:18830",
}  # fmt: skip
"""Of the simulator's devices, where the README has them."""

BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
COMMANDS = [line for kind, text in BLOCKS if kind == "sh" for line in text.splitlines()]
DEMO, SIMULATE, RUN, TEST = (
    next(each for each in COMMANDS if mark in each) for mark in ("dxad demo", "hw_sim", "dxad run", "pytest")
)


class Stage:
    """The simulator and the daemon, started as the README says, but at free ports, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.example = folder / "demo.toml"
        self.socket = folder / "c.sock"
        self.bin = Path(sys.executable).parent
        self.environment = os.environ | {"PATH": f"{self.bin}:{os.environ['PATH']}"}
        self.endpoints: dict[str, str] = {}

    def here(self, command: str) -> list[str]:
        """A command of the README for this stage."""
        for name, endpoint in self.endpoints.items():
            if name in ENDPOINTS and command.startswith("dxad"):
                command = command.replace(ENDPOINTS[name], endpoint)
        told = shlex.split(command.replace(EXAMPLE, str(self.example)).replace(SOCKET, str(self.socket)))
        return told + self.apart(told) if "hw_sim" in told else told

    def apart(self, told: list[str]) -> list[str]:
        """What keeps a simulator away from others that run at the same time."""
        control = ["--control", str(self.folder / "sim.sock")]
        match told[3]:
            case "ctl":
                return control
            case "run" if told == shlex.split(SIMULATE):
                return ["--json", "--any-port", "--links", str(self.folder), *control]
            case "run" | "replay" | "load":
                return ["--any-port", "--control", str(self.folder / "another.sock")]
        return []

    def start(self, command: list[str]) -> subprocess.Popen[str]:
        log = (self.folder / f"{Path(command[0]).name}.log").open("w")
        with log:
            return subprocess.Popen(
                command, cwd=self.folder, env=self.environment, stdout=subprocess.PIPE, stderr=log, text=True
            )

    def run(self, command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=self.folder, env=self.environment | environment, capture_output=True, text=True,
            timeout=2 * PATIENCE_S, check=False,
        )  # fmt: skip

    def configure(self) -> None:
        shutil.copyfile(ROOT / EXAMPLE, self.example)
        (self.folder / "conf.d").mkdir()
        (self.folder / "conf.d" / "here.toml").write_text(
            f'state_dir = "{self.folder}/state"\ncontrol.socket = "{self.socket}"\n'
            f'sources.motor.url = "{self.endpoints["motor"]}"\nsources.plc.url = "{self.endpoints["plc"]}"\n'
            f'sources.drive.url = "{self.endpoints["drive"]}"\nsources.vib.port = "{self.endpoints["vib"]}"\n'
            'sources.vib.lateness = "2s"\n'  # the machine may stand still
            'pipelines.pump.learn.span = "12s"\n'
        )


def _end(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGINT)
    try:
        process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    stage = Stage(tmp_path_factory.mktemp("r"))
    simulator = stage.start(stage.here(SIMULATE))
    try:
        stage.endpoints = json.loads(simulator.stdout.readline())
        stage.configure()
        daemon = stage.start(stage.here(RUN))
        try:
            _wait_for_a_score(stage)
            yield stage
        finally:
            _end(daemon)
    finally:
        _end(simulator)


def _wait_for_a_score(stage: Stage) -> None:
    deadline = time.monotonic() + 4 * PATIENCE_S
    while stage.run(["dxad", "query", "pump", "-c", str(stage.example)]).returncode != 0:
        assert time.monotonic() < deadline, (stage.folder / "dxad.log").read_text()
        time.sleep(0.2)


def test_every_block_says_what_it_is():
    assert {kind for kind, _ in BLOCKS} == {"sh", "toml", "python", "text"}


def test_the_two_commands_install_what_the_project_offers_and_run_it():
    assert DEMO.split(" && ") == [
        "python3 -m venv .venv", ".venv/bin/pip install -q '.[sim]'", ".venv/bin/dxad demo",
    ]  # fmt: skip
    assert TEST.split(" && ") == [
        "python3 -m venv .venv", ".venv/bin/pip install -q -e '.[dev]'", ".venv/bin/pytest -q",
    ]  # fmt: skip
    marked = README[README.index("<!-- test -->") :]
    assert TEST in marked, "which is what .ci/run looks for"


LOOKS = [each for each in COMMANDS if each not in {DEMO, SIMULATE, RUN, TEST}]


@pytest.mark.parametrize("command", LOOKS, ids=[" ".join(each.split()[:2]) for each in LOOKS])
def test_a_command_does_what_it_is_there_for(stage, command):
    if command.startswith("curl") and shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    done = stage.run(stage.here(command))
    if command.startswith("dxad doctor"):  # on this bench nobody listens at the sink
        assert (done.returncode, "1 failure" in done.stdout) == (1, True), done.stdout
        return
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    if "/v1/" in command:
        found = json.loads(done.stdout)
        assert found.get("success", True), found


def test_the_scenario_is_whole():
    _, text = (text for kind, text in BLOCKS if kind == "toml")
    bench, known = scenario.of(tomllib.loads(text), scenario.Origin("README.md", text)).bench()
    assert set(known.wires) == {"bus", "box"}
    assert [fault.name for fault in bench.faults] == ["drift", "modbus.late"]


def test_the_catalogue_of_faults_is_the_programs():
    _, _, after = README.partition("<!-- faults -->\n")
    told, mark, _ = after.partition("<!-- /faults -->")
    assert mark
    assert told == markdown(), "python -m hw_sim faults --markdown prints it"


def test_the_configuration_is_whole(tmp_path):
    text, _ = (text for kind, text in BLOCKS if kind == "toml")
    (tmp_path / "dxad.toml").write_text(text)
    found = config.load(tmp_path / "dxad.toml")
    assert set(found.sources) == {"plc", "vib"}
    assert config.shape(found.pipelines["pump"], found.sources).outputs.channels


SNIPPETS = [text for kind, text in BLOCKS if kind == "python"]


@pytest.mark.parametrize("text", SNIPPETS, ids=["agent", "inside", "outside"])
def test_a_snippet_prints_what_it_says(stage, text):
    endpoint = f"{stage.endpoints['motor']}/plant/motor"
    done = stage.run(
        [sys.executable, "-c", text.replace(SOCKET, str(stage.socket))], DXAD_ENDPOINT_MOTOR=endpoint
    )
    assert done.returncode == 0, done.stderr
    if "deliveries" in text:
        assert done.stdout.startswith("dxad.")
    else:
        assert 0 <= float(done.stdout) <= 1


def test_the_picture_has_the_words_of_the_program():
    picture = next(text for kind, text in BLOCKS if kind == "text" and "dxad demo" in text)
    for source in ("dxad/cli/view.py", "dxad/cli/verdict.py"):
        words = set(re.findall(r'"([A-Z]{4,}|injected|verdict|events)"', (ROOT / source).read_text()))
        assert words, source
        assert all(word in picture for word in words), words


def test_the_tree_names_only_what_is_there():
    tree = next(text for kind, text in BLOCKS if kind == "text" and text.startswith("dxad/\n"))
    inside = re.findall(r"(\S+\.py|\w+/)(?=\s)", tree[: tree.index("\nconfig/")].removeprefix("dxad/\n"))
    assert len(inside) > 20
    for name in inside:
        assert (ROOT / "dxad" / name).exists(), name
    linked = re.findall(r"\]\(([^)#:]+)\)", README)
    assert linked
    for path in linked:
        assert (ROOT / path).exists(), path


def test_the_remote_face_is_the_one_of_the_readme():
    assert callable(PipelineResource.connect)
