"""No model comes near the daemon that crashes, hangs, or does not score as its bundle says."""

import errno
import faulthandler
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from dxad import bundle
from dxad.bundle import trial
from dxad.bundle.inference import Scorer, verify
from dxad.bundle.manifest import Manifest, ReconstructionRule
from dxad.bundle.trial import ensure_tried, ensure_tried_now, try_bundle, try_bundles_now, try_file_now
from dxad.errors import ModelError, ModelRefusedError

ROWS, CHANNELS = 4, 4
CELLS = ROWS * CHANNELS


def sound_bundle(folder: Path, blob: bytes, **keys) -> bundle.Bundle:
    """A bundle of a net that gives its input back, with the golden scores it really has."""
    manifest = Manifest(
        channels=tuple(f"s.c{place}" for place in range(CHANNELS)), units=("",) * CHANNELS, rows=ROWS,
        period=1, fill=(0.0,) * CHANNELS, score=ReconstructionRule(), limit=1.0, spans=(1,), scales=(1.0,),
        normal={},
    )  # fmt: skip
    golden = np.random.default_rng(0).normal(size=(8, ROWS, CHANNELS)).astype(np.float32)
    scores, parts = Scorer(manifest, blob).score(golden.reshape(-1, CHANNELS), 8, step=ROWS, holed=False)
    assert parts is not None
    told = {
        "golden_windows": tuple(tuple(each) for each in golden.reshape(8, -1).tolist()),
        "golden_scores": tuple(scores.tolist()),
        "golden_contributions": tuple(tuple(each) for each in parts.tolist()),
    }
    return bundle.write(folder, manifest.model_copy(update=told | keys), blob)


@pytest.fixture
def make(dense_net, tmp_path) -> Callable[..., bundle.Bundle]:
    def made(name: str = "pump", kind: str = "float", **keys) -> bundle.Bundle:
        return sound_bundle(tmp_path / name, dense_net((CELLS, 8, CELLS), kind=kind), **keys)

    return made


def damaged(blob: bytes, n: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """The model with something done to it, in `n` ways."""
    rng = np.random.default_rng(seed)
    for number in range(n):
        content = bytearray(blob)
        way = ("bit", "zeroed", "truncated", "swapped", "number")[number % 5]
        at = int(rng.integers(8, len(content) - 8))
        length = int(rng.integers(4, 64))
        if way == "bit":
            content[at] ^= 1 << int(rng.integers(8))
        elif way == "zeroed":
            content[at : at + length] = bytes(len(content[at : at + length]))
        elif way == "truncated":
            del content[at:]
        elif way == "swapped":
            other = int(rng.integers(8, len(content) - 8))
            content[at : at + 4], content[other : other + 4] = (
                content[other : other + 4],
                content[at : at + 4],
            )
        else:  # a shape, an index, an offset or a weight
            content[at // 4 * 4 : at // 4 * 4 + 4] = int(rng.integers(0, 2**31)).to_bytes(4, "little")
        yield way, bytes(content)


def harmed(made: bundle.Bundle, folder: Path, n: int, seed: int = 0) -> tuple[list[str], list[Path]]:
    """Bundles of damaged models, each with a hash that is right: what was done, and where they are."""
    ways, folders = [], []
    for number, (way, blob) in enumerate(damaged(made.blob, n, seed)):
        bundle.write(folder / f"{number:03d}", made.manifest, blob)
        ways.append(way)
        folders.append(folder / f"{number:03d}")
    return ways, folders


@pytest.mark.parametrize("kind", ["float", "int8", "hybrid"])
def test_no_damaged_model_is_accepted_that_scores_its_golden_windows_wrongly(kind, make, tmp_path):
    made = make(kind=kind)
    _, folders = harmed(made, tmp_path / "harmed", 30)
    found = try_bundles_now(folders)
    assert [each.path for each in found] == folders
    for each in found:
        if each.ok:
            accepted = bundle.read(each.path)
            verify(Scorer(accepted.manifest, accepted.blob), accepted.manifest)
        else:
            assert each.refused
    refused = sum(not each.ok for each in found)
    assert refused >= 15
    assert try_bundles_now([tmp_path / "pump"])[0].ok, "and the sound one passes"


async def test_a_sound_bundle_passes_and_is_told_of(make, tmp_path):
    made = make()
    found = await try_bundle(tmp_path / "pump")
    assert found.refused is None
    assert (found.version, found.rule) == (made.version, "reconstruction")
    assert set(found.latency_us) == {1, 8, 32, 256}
    assert all(0 < each < 1e5 for each in found.latency_us.values())
    assert found.runtime


async def test_what_was_tried_is_not_tried_again(make, tmp_path, monkeypatch):
    make()
    await ensure_tried(tmp_path / "pump")
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    await ensure_tried(tmp_path / "pump")
    ensure_tried_now(tmp_path / "pump")
    (tmp_path / "pump" / "tried.json").unlink()
    with pytest.raises(FileNotFoundError):
        await ensure_tried(tmp_path / "pump")


async def test_a_bundle_that_does_not_pass_is_refused_each_time(make, tmp_path):
    made = make()
    off = tuple(1.001 * each for each in made.manifest.golden_scores)
    bundle.write(tmp_path / "off", made.manifest.model_copy(update={"golden_scores": off}), made.blob)
    for _ in range(2):
        with pytest.raises(
            ModelRefusedError, match="off: the model does not score its golden windows: off by"
        ):
            await ensure_tried(tmp_path / "off")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"golden_windows": (), "golden_scores": (), "golden_contributions": ()}, "it has no golden windows"),
        ({"golden_contributions": ((0.0,) * CHANNELS,)}, "does not score its golden contributions"),
        ({"score": ReconstructionRule(output="odd")}, "the graph has no output 'odd', but 'out'"),
    ],
)
def test_a_manifest_that_promises_something_else_is_refused(keys, message, make, tmp_path):
    made = make("other")
    bundle.write(tmp_path / "pump", made.manifest.model_copy(update=keys), made.blob)
    refused = try_bundles_now([tmp_path / "pump"])[0].refused
    assert refused is not None
    assert message in refused


def test_a_graph_of_another_shape_is_refused_and_both_are_named(make, dense_net, tmp_path):
    made = make()
    bundle.write(tmp_path / "wide", made.manifest, dense_net((CELLS + 4, 8, CELLS + 4)))
    refused = try_bundles_now([tmp_path / "wide"])[0].refused
    assert refused is not None
    assert "takes windows of shape [20]; the manifest promises [16]: 4 rows of 4 channels" in refused


def test_a_model_that_answers_with_what_is_no_number_is_refused(make, dense_net, tmp_path):
    made = make()
    weights = [(np.full((CELLS, CELLS), 1e38), np.zeros(CELLS))]
    bundle.write(tmp_path / "inf", made.manifest, dense_net((), layers=weights, shape=(CELLS,)))
    refused = try_bundles_now([tmp_path / "inf"])[0].refused
    assert refused is not None
    assert "numbers that are not finite" in refused


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("detector.pkl", "a pickle runs whatever code it carries when it is opened"),
        ("net.tflite", "make a bundle of it with `dxad models wrap net.tflite`"),
        ("nothing", "No such file"),
    ],
)
async def test_what_is_no_bundle_is_refused_and_says_why(name, message, tmp_path):
    found = await try_bundle(tmp_path / name)
    assert found.refused is not None
    assert message in found.refused


def test_a_bare_model_is_tried_for_whether_it_runs(dense_net, tmp_path):
    (tmp_path / "good.tflite").write_bytes(dense_net((4, 2, 1)))
    (tmp_path / "bad.tflite").write_bytes(dense_net((4, 2, 1))[:200])
    good, bad = try_file_now(tmp_path / "good.tflite"), try_file_now(tmp_path / "bad.tflite")
    assert good.ok
    assert bad.refused is not None
    assert not (tmp_path / "tried.json").exists()


# What the child does is done by a stand-in here: no model can be relied on to die of a certain signal.


@pytest.mark.parametrize(
    ("deed", "message"),
    [
        (
            lambda: os.kill(os.getpid(), signal.SIGSEGV),
            r"crashed \(SIGSEGV\) while loading it: the file is damaged",
        ),
        (lambda: os.kill(os.getpid(), signal.SIGBUS), r"crashed \(SIGBUS\) while loading it"),
        (os.abort, r"gave up \(SIGABRT\) while loading it"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "was killed while loading it: it needs more memory"),
        (lambda: os.kill(os.getpid(), signal.SIGUSR1), "died of SIGUSR1 while loading it"),
        (signal.pause, r"took longer than 0.2 s, loading it"),
        (lambda: 1 / 0, "ended without an answer while loading it"),
        (lambda: bytearray(4 * 2**30), "needs more than 2 GiB of memory"),
        (lambda: os._exit(0), "ended without an answer while loading it"),
    ],
)  # fmt: skip
def test_whatever_a_model_does_a_reason_comes_of_it(deed, message, tmp_path, capfd):
    def examined(path):
        faulthandler.disable()  # pytest's
        yield {"phase": "loading it"}
        deed()

    told = trial._isolated(tmp_path / "pump", 0.2, examined)
    assert set(told) == {"refused"}
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(told["refused"])
    capfd.readouterr()


def test_a_model_cannot_write_a_file(tmp_path):
    def examined(path):
        yield {"phase": "loading it"}
        try:
            (path.parent / "written").write_bytes(b"x" * 10)
        except OSError as error:
            raise ModelError(f"could not write: {error.strerror}") from error

    assert "could not write: File too large" in trial._isolated(tmp_path / "pump", 5.0, examined)["refused"]


@pytest.mark.parametrize("answer", [b"", b"nonsense\n", b"[]\n", b'{"phase": "loading it"}\n', b"{}\n"])
def test_an_answer_that_makes_no_sense_is_a_refusal(answer, tmp_path):
    found = trial._answers([tmp_path / "pump"], answer)
    assert found[0].refused == f"{tmp_path / 'pump'}: the trial gave no answer"


def test_a_bundle_in_a_folder_that_cannot_be_written_is_remembered_as_tried(make, tmp_path, monkeypatch):
    made = make()
    folder = Path(shutil.copytree(tmp_path / "pump", tmp_path / "read-only"))
    monkeypatch.setattr(bundle, "_tried_here", set())

    def refusing(path, content):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(bundle, "_write", refusing)
    ensure_tried_now(folder)
    assert not (folder / "tried.json").exists()
    assert bundle.is_tried(folder, made.contents, trial.place())


def test_the_stamp_says_nothing_but_what_and_where(make, tmp_path):
    made = make()
    ensure_tried_now(tmp_path / "pump")
    stamp = json.loads((tmp_path / "pump" / "tried.json").read_text())
    assert stamp == {"contents": made.contents, "place": trial.place()}
