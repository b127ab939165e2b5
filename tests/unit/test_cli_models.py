"""`dxad models`: a bare model becomes a bundle that scores as it does; bundles are looked at and tried."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import orjson
import pytest
from click.testing import CliRunner, Result

import dxad.bundle.trial
import dxad.cli.wrap
from dxad import bundle
from dxad.bundle import shelf
from dxad.bundle.inference import Scorer
from dxad.bundle.trial import Trial
from dxad.cli.models import models
from dxad.models.tflite import TFLite
from dxad.training import Recording, learn
from dxad.training.wrap import answer
from dxad.types import NS_PER_S, Channel

IDS = ("plc.flow", "plc.pressure", "plc.speed")
NAMED = ["--channels", "plc.flow:l/min,plc.pressure:bar,plc.speed"]
CELLS = 12


def rows(n: int = 600) -> np.ndarray:
    rng = np.random.default_rng(1)
    return np.array([100.0, 5.0, 50.0]) + np.array([10.0, 0.1, 2.0]) * rng.normal(size=(n, 3))


@pytest.fixture
def folder(tmp_path, dense_net) -> Path:
    """A folder with a model of each kind, and data as CSV and as NPZ."""
    for name, sizes, keys in (
        ("back", (CELLS, 6, CELLS), {}),
        ("whole", (CELLS, 6, CELLS), {"kind": "int8"}),
        ("ahead", (CELLS - 3, 6, 3), {}),
        ("score", (CELLS, 6, 1), {"name": "score"}),
        ("classes", (CELLS, 6, 3), {"softmax": True}),
    ):
        (tmp_path / f"{name}.tflite").write_bytes(dense_net(sizes, **keys))
    values = rows()
    lines = [",".join(("time", *reversed(IDS)))]
    lines += [f"{n}," + ",".join(repr(float(each)) for each in row[::-1]) for n, row in enumerate(values)]
    lines[7] = "6,bad,,1"
    (tmp_path / "normal.csv").write_text("\n".join(lines) + "\n")
    np.savez(tmp_path / "normal.npz", channels=np.array(IDS), values=values, time_ns=np.arange(600))
    return tmp_path


@pytest.fixture
def run() -> Callable[..., Result]:
    def invoked(*arguments: object) -> Result:
        return CliRunner().invoke(models, [str(each) for each in arguments])

    return invoked


@pytest.fixture
def in_process(monkeypatch) -> None:
    """Where a process of its own would tell nothing more, its half a second is saved."""
    monkeypatch.setattr(dxad.cli.wrap, "_answer", answer)
    monkeypatch.setattr(dxad.bundle.trial, "try_bundles_now", tried_here)


def tried_here(folders: list[Path]) -> list[Trial]:
    (folder,) = folders
    told = list(dxad.bundle.trial._examined(folder, dxad.bundle.trial._examined_bundle))[-1]
    return dxad.bundle.trial._answers([folder], orjson.dumps(told, option=orjson.OPT_NON_STR_KEYS))


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("back", ["--score", "reconstruction"]),
        ("back", ["--score", "reconstruction", "--normalise"]),
        ("whole", ["--score", "reconstruction", "--normalise"]),
        ("ahead", ["--score", "forecast", "--horizon", "1"]),
        ("score", ["--score", "output"]),
        ("classes", ["--score", "probability", "--normal", "0"]),
        ("classes", ["--score", "probability", "--anomalous", "1,2"]),
    ],
)
def test_a_bare_model_becomes_a_bundle_that_is_tried_and_can_be_used(name, said, folder, run):
    data = folder / ("normal.csv" if name == "back" else "normal.npz")
    common = [*NAMED, "--rows", "4", "--period", "100ms", "--data", data]
    done = run("wrap", folder / f"{name}.tflite", *common, *said)
    assert done.exit_code == 0, done.output
    assert f"{folder / name}: version" in done.output
    found = bundle.read(folder / name)
    manifest = found.manifest
    assert (manifest.channels, manifest.units) == (IDS, ("l/min", "bar", ""))
    assert (manifest.rows, manifest.period, manifest.spans) == (4, NS_PER_S // 10, (1, 5, 30))
    np.testing.assert_allclose(manifest.fill, np.median(rows(), axis=0), rtol=0.01)
    assert len(manifest.golden_windows) == 8
    model = TFLite.at(folder / name)
    channels = (Channel("plc.flow", "l/min"), Channel("plc.pressure", "bar"), Channel("plc.speed"))
    assert model.load(channels, None) == 4
    assert not list(folder.glob(".wrap-*"))


def test_it_is_done_and_tried_in_processes_of_their_own(folder, run):
    said = ["--rows", "4", "--period", "1s", "--score", "reconstruction", "--data", folder / "normal.csv"]
    done = run("wrap", folder / "back.tflite", *NAMED, *said)
    assert done.exit_code == 0, done.output
    assert "600 rows of 3 channels" in done.output
    assert TFLite.at(folder / "back").version in done.output


@pytest.mark.usefixtures("in_process")
def test_the_scores_of_normal_rows_lie_below_the_limit_that_was_calibrated_on_them(folder, run):
    said = ["--rows", "4", "--period", "1s", "--score", "reconstruction", "--normalise"]
    run("wrap", folder / "back.tflite", *NAMED, *said, "--data", folder / "normal.npz")
    found = bundle.read(folder / "back")
    scores, parts = Scorer(found.manifest, found.blob).score(rows().astype(np.float32), 597)
    share = np.mean(scores / found.manifest.scales[0] > 1.0)
    assert 0.002 < share < 0.02
    assert found.manifest.limit > 2.0
    assert parts is not None
    np.testing.assert_allclose([found.manifest.usual[name] for name in IDS], parts.mean(axis=0), rtol=1e-5)


@pytest.mark.usefixtures("in_process")
def test_a_limit_may_be_said_instead(folder, run):
    said = ["--rows", "4", "--period", "1s", "--score", "probability", "--normal", "0", "--limit", "0.9"]
    assert run("wrap", folder / "classes.tflite", *NAMED, *said, "--out", folder / "c").exit_code == 0
    manifest = bundle.read(folder / "c").manifest
    assert (manifest.limit, manifest.spans, manifest.scales) == (0.9, (1,), (1.0,))


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize(
    ("changed", "status", "message"),
    [
        ({"--rows": "5"}, 1, "takes windows of shape [12]; the manifest promises [15]: 5 rows of 3 channels"),
        ({"--data": None}, 1, "without rows of normal running, say above which score a row is anomalous"),
        ({"--channels": "plc.flow,plc.x,plc.y"}, 2, "normal.npz: has no column plc.x, plc.y"),
        ({"--channels": "plc.flow,plc.flow,plc.speed"}, 1, "channels names one twice"),
        ({"--period": "100"}, 2, "100"),
        ({"--score": "probability"}, 1, "say which class is normal, or which are anomalous"),
        ({"--score": "output"}, 1, "output 'out' has shape [12]; a score is one number per window"),
        ({"--output": "odd"}, 1, "the graph has no output 'odd', but 'out'"),
        ({"--sign": "normal.csv"}, 1, "is no PEM file of an unencrypted private key"),
        ({"--data": "back.tflite"}, 2, "back.tflite: has no column plc.flow"),
        ({"--out": "."}, 2, "exists; say another --out"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_and_nothing_is_left(changed, status, message, folder, run):
    said = {
        "--channels": ",".join(IDS), "--rows": "4", "--period": "100ms", "--score": "reconstruction",
        "--data": "normal.npz",
    } | changed  # fmt: skip
    files = {"--data", "--sign", "--out"}
    options = [
        part
        for name, value in said.items()
        if value is not None
        for part in (name, folder / value if name in files else value)
    ]
    done = run("wrap", folder / "back.tflite", *options)
    assert (done.exit_code, message in done.output) == (status, True), done.output
    assert not (folder / "back").exists()
    assert not list(folder.glob(".wrap-*"))


def test_a_file_that_crashes_the_runtime_is_refused_with_a_reason(folder, run, dense_net):
    rng = np.random.default_rng(3)
    whole = dense_net((CELLS, 6, CELLS))
    for _ in range(2):
        content = bytearray(whole)
        for at in rng.integers(8, 400, size=20):
            content[at] = int(rng.integers(256))
        (folder / "bad.tflite").write_bytes(bytes(content))
        said = ["--rows", "4", "--period", "1s", "--score", "reconstruction", "--data", folder / "normal.npz"]
        done = run("wrap", folder / "bad.tflite", *NAMED, *said)
        assert done.exit_code == 1
        assert done.output.splitlines()[-1].startswith(f"dxad: {folder / 'bad.tflite'}: ")
        assert not (folder / "bad").exists()


@pytest.fixture
def stocked(tmp_path) -> Path:
    """A shelf with two learned versions."""
    for seed in range(2):
        values = np.random.default_rng(seed).normal(size=(300, 2))
        learn(
            Recording((Channel("s.a", "V"), Channel("s.b")), NS_PER_S, values, {}),
            tmp_path / "new",
            rows_most=3,
        )
        shelf.install(tmp_path / "models" / "pump", tmp_path / "new", why="learned")
    return tmp_path / "models" / "pump"


def test_the_versions_of_a_shelf_are_listed_with_how_they_came(stocked, run):
    done = run("list", "--shelf", stocked, "--json")
    (found,) = json.loads(done.output).values()
    assert [each["version"][:5] for each in found] == ["0001-", "0002-"]
    assert [each["current"] for each in found] == [False, True]
    assert {each["why"] for each in found} == {"learned"}
    assert not any(each["tried"] for each in found)
    shown = run("list", "--shelf", stocked)
    assert shown.exit_code == 0
    assert "learned" in shown.output


def test_the_models_of_a_configuration_are_listed_by_pipeline(stocked, run, tmp_path):
    config = tmp_path / "dxad.toml"
    config.write_text(
        f'state_dir = "{tmp_path}"\n[gateway]\nid = "g"\n'
        '[sources.s]\ntype = "mqtt"\nurl = "mqtt://h"\ntopic = "t"\nperiod = "1s"\n'
        'channels = { a = { unit = "V" }, b = {} }\n'
        '[pipelines.pump]\nchannels = ["s.*"]\nmodel = { type = "tflite", path = "models/pump" }\n'
        '[pipelines.other]\nchannels = ["s.*"]\nmodel = { type = "zscore" }\n'
    )
    done = run("list", "-c", config, "--json")
    assert done.exit_code == 0, done.output
    assert list(json.loads(done.output)) == ["pump"]


def test_a_bundle_says_what_it_is(stocked, run):
    done = run("show", stocked)
    assert done.exit_code == 0
    for text in ("3 rows of 1 s, flat", "score         output", "on 180 rows, calibrated on 120", "s.a [V]:"):
        assert text in done.output
    assert json.loads(run("show", stocked, "--json").output)["channels"] == ["s.a", "s.b"]
    assert run("show", stocked / "nothing").exit_code == 1


def test_bundles_are_tried_and_the_refused_ones_told(stocked, run):
    first, second = shelf.versions(stocked)
    assert run("verify", first.folder, stocked).exit_code == 0
    (first.folder / "model.tflite").write_bytes(b"")
    done = run("verify", first.folder, stocked)
    assert done.exit_code == 1
    assert done.output.startswith(f"refused: {first.folder}: model.tflite has sha256")
    assert f"passed: {second.folder}: {bundle.read(second.folder).version}" in done.output
    assert json.loads(run("list", "--shelf", stocked, "--json").output)[str(stocked)][1]["tried"]
