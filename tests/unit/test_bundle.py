"""A bundle is whole and what its manifest says, or it is refused; a shelf keeps the newest few."""

import hashlib
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from pydantic_core import to_json

from dxad import bundle
from dxad.bundle import shelf
from dxad.bundle.trial import ensure_tried_now
from dxad.errors import ModelError, ModelRefusedError
from dxad.models.tflite import TFLite
from dxad.training import Recording, learn
from dxad.types import NS_PER_S, Channel

CHANNELS = (Channel("s.a", "V"), Channel("s.b", "A"))


def make(folder: Path, seed: int = 0) -> bundle.Bundle:
    values = np.random.default_rng(seed).normal(size=(300, 2))
    return learn(Recording(CHANNELS, NS_PER_S, values, {}), folder, rows_most=3)


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bundle") / "pump"
    make(folder)
    return folder


@pytest.fixture
def folder(sound, tmp_path) -> Path:
    """A copy to do harm to."""
    return Path(shutil.copytree(sound, tmp_path / "pump"))


def flipped(path: Path, bit: int) -> bytes:
    """The file with one bit turned."""
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    return bytes(content)


def test_what_was_written_is_read(sound):
    found = bundle.read(sound)
    assert found.manifest.sha256 == hashlib.sha256(found.blob).hexdigest()
    assert found.version == found.contents[:12]
    assert found.manifest.channels == ("s.a", "s.b")
    assert bundle.read(sound).manifest == found.manifest


def test_any_flipped_bit_of_the_model_is_refused(folder):
    file = folder / "model.tflite"
    whole = file.read_bytes()
    for bit in np.random.default_rng(1).choice(8 * len(whole), 100, replace=False):
        file.write_bytes(flipped(file, int(bit)))
        with pytest.raises(ModelRefusedError, match=r"model\.tflite has sha256"):
            bundle.read(folder)
        file.write_bytes(whole)
    bundle.read(folder)


def test_any_flipped_bit_of_the_manifest_is_refused_or_changes_nothing(folder):
    file = folder / "manifest.json"
    whole, expected = file.read_bytes(), bundle.read(folder).manifest
    refused = 0
    for bit in np.random.default_rng(1).choice(8 * len(whole), 400, replace=False):
        file.write_bytes(flipped(file, int(bit)))
        try:
            assert bundle.read(folder).manifest == expected
        except ModelRefusedError:
            refused += 1
        file.write_bytes(whole)
    assert refused > 380


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("limit", 20.0),
        ("fill", [0.0, 1.0]),
        ("scales", [1.0, 1.0, 1.0]),
        ("stuck_rows", {"s.a": 10}),
        ("usual", {}),
    ],
)
def test_a_manifest_that_was_edited_is_refused(folder, key, value):
    document = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(document | {key: value}))
    with pytest.raises(ModelRefusedError, match="its values are not those it was written with"):
        bundle.read(folder)


def test_a_bundle_made_by_hand_may_do_without_a_checksum(folder):
    document = json.loads((folder / "manifest.json").read_text())
    del document["checksum"]
    (folder / "manifest.json").write_text(json.dumps(document | {"limit": 20.0}))
    assert bundle.read(folder).manifest.limit == 20.0


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"units": ["V"]}, "units and fill want one value for each channel"),
        ({"fill": [0.0]}, "units and fill want one value for each channel"),
        ({"spans": [1, 5]}, "spans and scales"),
        ({"spans": [], "scales": []}, "spans and scales"),
        ({"spans": [1, 10**9, 30]}, r"spans.1: Input should be less than or equal to 100000"),
        ({"spans": [1, 0, 30]}, "spans.1: "),
        ({"spans": [1] * 17, "scales": [1.0] * 17}, "spans: "),
        ({"scales": [1.0, 0.0, 1.0]}, "scales.1: "),
        ({"scales": [1.0, 1e-300, 1.0]}, "scales.1: "),
        ({"limit": 1e-300}, "limit: "),
        ({"limit": 1e300}, "limit: "),
        ({"fill": [0.0, 1e300]}, "fill.1: "),
        ({"normal": {"s.a": [0.0, -1.0]}}, "normal.s.a.1: "),
        ({"stuck_rows": {"s.a": 0}}, "stuck_rows.s.a: "),
        (
            {"score": {"rule": "output", "contribution_columns": [0, 2]}},
            "names a channel that is not there",
        ),
        ({"score": {"rule": "forecast", "horizon": 3}}, "a forecast of 3 rows leaves none of 3 to see"),
        ({"score": {"rule": "reconstruction", "spread": [1.0, 0.0]}}, "spread wants one positive value"),
        ({"score": {"rule": "probability"}}, "say which class is normal, or which are anomalous"),
        ({"score": {"rule": "guess"}}, "score: "),
        ({"input": {"mean": [0.0, 0.0]}}, "input.mean and input.std go together"),
        ({"input": {"mean": [0.0], "std": [1.0]}}, "want one value for each channel, or none"),
        ({"input": {"layout": "diagonal"}}, "input.layout: "),
        ({"by": "s.mode"}, "by and regimes go together"),
        ({"golden_contributions": [[1.0]]}, "golden_contributions want a golden window each"),
        ({"channels": ["s.a", "s.a"]}, "channels names one twice"),
        ({"golden_scores": [1.0]}, "golden_windows want one score each"),
        ({"rows": 2}, "golden_windows want one score each, and a value for each row and channel"),
        ({"rows": 0}, "rows: "),
        ({"channels": []}, "channels: "),
        ({"limit": "high"}, "limit: "),
        ({"format": 3}, "format: "),
        ({"colour": "red"}, "colour: unknown key"),
    ],
)
def test_a_manifest_that_makes_no_sense_is_refused_and_says_where(folder, keys, message):
    document = json.loads((folder / "manifest.json").read_text()) | {"checksum": ""}
    (folder / "manifest.json").write_text(json.dumps(document | keys))
    with pytest.raises(ModelRefusedError, match=message):
        bundle.read(folder)


@pytest.mark.parametrize("name", ["model.tflite", "manifest.json"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_truncated_file_is_refused(folder, name, share):
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ModelRefusedError, match=name):
        bundle.read(folder)


@pytest.mark.parametrize("name", ["model.tflite", "manifest.json"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(ModelRefusedError, match=rf"{name}: No such file"):
        bundle.read(folder)


def test_a_model_that_is_too_large_is_not_read(folder):
    with (folder / "model.tflite").open("r+b") as file:
        file.truncate(65 * 2**20)
    with pytest.raises(ModelRefusedError, match="larger than 64 MiB"):
        bundle.read(folder)


@pytest.mark.parametrize("name", ["detector.pkl", "detector.pickle", "detector.joblib"])
def test_a_pickle_is_never_opened(tmp_path, name):
    opened = tmp_path / "opened"

    class Trap:
        def __reduce__(self):
            return Path.touch, (opened,)

    (tmp_path / name).write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ModelRefusedError, match="a pickle runs whatever code it carries"):
        bundle.read(tmp_path / name)
    assert not opened.exists()


def test_a_bare_model_is_refused_and_says_what_to_do(tmp_path):
    with pytest.raises(ModelRefusedError, match=r"dxad models wrap pump\.tflite"):
        bundle.read(tmp_path / "pump.tflite")


def test_a_graph_that_is_not_the_manifest_s_is_refused_when_it_is_loaded(folder):
    other = make(folder.parent / "other", seed=1).manifest
    blob = (folder / "model.tflite").read_bytes()
    wider = bundle.Bundle(
        other.model_copy(update={"rows": 2, "golden_windows": (), "golden_scores": ()}), blob
    )
    with pytest.raises(
        ModelError, match=r"takes windows of shape \[6\]; the manifest promises \[4\]: 2 rows of 2 channels"
    ):
        TFLite(wider).load(CHANNELS, None)


def test_bytes_that_are_no_model_are_refused(folder):
    found = bundle.read(folder)
    with pytest.raises(ModelError, match="the runtime refuses the model"):
        TFLite(bundle.Bundle(found.manifest, b"nonsense")).load(CHANNELS, None)
    shutil.rmtree(folder)
    bundle.write(folder, found.manifest, b"nonsense")
    with pytest.raises(ModelRefusedError, match="is no TensorFlow Lite model"):
        bundle.read(folder)


def test_a_bundle_of_the_first_format_is_still_read(folder):
    """As version 0.1 wrote it: the values in the order of its class, and the checksum over them."""
    found = bundle.read(folder).manifest
    document = json.loads((folder / "manifest.json").read_text())
    older = {
        key: document[key]
        for key in (
            "channels", "units", "rows", "period", "fill", "limit", "spans", "scales", "normal", "usual",
            "stuck_rows", "left_out", "trained_rows", "calibrated_rows", "golden_windows", "golden_scores",
            "sha256",
        )
    }  # fmt: skip
    columns = document["score"]["contribution_columns"]
    older = {"format": 1, **older, "contribution_columns": columns}
    checksum = hashlib.sha256(to_json(older)).hexdigest()
    (folder / "manifest.json").write_bytes(to_json(older | {"checksum": checksum}, indent=1))
    again = bundle.read(folder).manifest
    assert again.score == found.score
    assert again == found.model_copy(update={"checksum": checksum, "golden_contributions": ()})
    (folder / "manifest.json").write_bytes(to_json(older | {"limit": 99.0, "checksum": checksum}))
    with pytest.raises(ModelRefusedError, match="not those it was written with"):
        bundle.read(folder)


def test_a_bundle_nobody_tried_here_is_refused_until_it_is(folder):
    with pytest.raises(ModelRefusedError, match="was not tried on this machine with this runtime"):
        TFLite.at(folder)
    ensure_tried_now(folder)
    assert TFLite.at(folder).load(CHANNELS, None) == 3


def test_a_trial_is_of_these_contents_on_this_machine(folder):
    ensure_tried_now(folder)
    stamp = json.loads((folder / "tried.json").read_text())
    (folder / "tried.json").write_text(json.dumps(stamp | {"place": "elsewhere"}))
    with pytest.raises(ModelRefusedError, match="was not tried"):
        TFLite.at(folder)
    (folder / "tried.json").write_text(json.dumps(stamp))
    document = json.loads((folder / "manifest.json").read_text()) | {"limit": 9.0, "checksum": ""}
    (folder / "manifest.json").write_text(json.dumps(document))
    with pytest.raises(ModelRefusedError, match="was not tried"):
        TFLite.at(folder)


def test_a_path_may_mean_a_bundle_or_a_shelf(sound, tmp_path):
    assert bundle.current(sound) == sound
    make(tmp_path / "new")
    placed = shelf.install(tmp_path / "shelf", tmp_path / "new")
    for path in (tmp_path / "shelf", sound):
        ensure_tried_now(path)
    assert TFLite.at(tmp_path / "shelf").version == bundle.read(placed).version
    assert TFLite.at(sound).version == bundle.read(sound).version
    with pytest.raises(ModelRefusedError, match="No such file"):
        TFLite.at(tmp_path / "nothing")


def test_a_file_that_is_overwritten_later_cannot_hurt(folder):
    ensure_tried_now(folder)
    model = TFLite.at(folder)
    (folder / "model.tflite").write_bytes(b"")
    assert model.load(CHANNELS, None) == 3
    model.close()


def test_the_same_net_with_another_limit_is_another_version(tmp_path, sound):
    found = bundle.read(sound)
    other = found.manifest.model_copy(update={"limit": 2 * found.manifest.limit})
    assert bundle.write(tmp_path / "other", other, found.blob).version != found.version
