"""The shape of the tree is a promise: layers, names, sizes, and where things may stand."""

import ast
import re
import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path

import pytest

from dxad import plugin

ROOT = Path(__file__).parent.parent
SOURCES = sorted(chain((ROOT / "dxad").rglob("*.py"), (ROOT / "hw_sim").rglob("*.py")))
TOP = {
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "CHANGELOG.md",
    "dxad",
    "hw_sim",
    "config",
    "systemd",
    "tests",
}
VAGUE = {"utils", "util", "helpers", "common", "base", "manager", "misc"}


def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def test_the_import_contracts_hold():
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_top_level_is_as_the_design_gives_it():
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.splitlines()
    if not tracked:
        pytest.skip("not a git checkout: nothing tells tracked files from others")
    found = {name.split("/")[0] for name in tracked}
    assert {name for name in found if not name.startswith(".")} == TOP


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_is_read_in_one_sitting(path: Path):
    assert len(path.read_text().splitlines()) <= 500


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_says_what_it_is_and_has_a_name_that_means_something(path: Path):
    assert ast.get_docstring(_parsed(path))
    assert path.stem not in VAGUE


def test_broad_excepts_stand_in_the_supervisor_alone():
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in SOURCES
        for node in ast.walk(_parsed(path))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or (isinstance(node.type, ast.Name) and node.type.id == "Exception"))
    ]
    assert [each.split(":")[0] for each in found] == ["dxad/runtime/supervisor.py"]


def test_only_the_clock_is_asked_for_the_time():
    allowed = {
        "dxad/runtime/clock.py": "it is the clock",
        "dxad/runtime/systemd.py": "sd_notify wants CLOCK_MONOTONIC by name",
        "dxad/cli": "commands are people's time",
    }
    asked = re.compile(r"\btime\.(time|monotonic|perf_counter|clock_gettime|sleep)|datetime\.(now|utcnow)")
    found = [
        str(path.relative_to(ROOT))
        for path in SOURCES
        if path.is_relative_to(ROOT / "dxad") and asked.search(path.read_text())
    ]
    assert [name for name in found if not name.startswith(tuple(allowed))] == []


def test_config_text_is_never_evaluated():
    calls = {"eval", "exec", "compile"}
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in SOURCES
        for node in ast.walk(_parsed(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in calls
    ]
    assert found == []


@pytest.mark.parametrize("family", ["sources", "sinks", "transforms", "models", "decode"])
def test_a_plug_in_is_one_file_with_a_config_a_class_and_a_plugin(family: plugin.Family):
    assert plugin.names(family)
    for name in plugin.names(family):
        found = plugin.load(family, name)
        assert found.config.model_config["frozen"]
        assert found.config.__doc__, f"{family}/{name}: its config shows no example"


def test_the_versions_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert re.search(
        rf"^## {re.escape(project['version'])}\b", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    )
