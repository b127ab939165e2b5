"""A model with all that is needed to use it: a folder with `model.tflite` and `manifest.json`.

Models live in a *shelf*, a folder per name: one folder per version and a link `current` to the one in use,
so that a version is installed by one atomic rename and the older ones stay to go back to.
"""

import hashlib
import os
import shutil
from pathlib import Path
from typing import Self

from pydantic import Field, ValidationError, model_validator

from dxad.errors import ModelRefusedError
from dxad.fields import Section
from dxad.types import Calibration

__all__ = ["Bundle", "Manifest", "current", "install", "read", "write"]

_SIZE_MAX = 64 * 2**20
_FORMAT = 1


class Manifest(Section, strict=False):
    """What `manifest.json` says."""

    format: int = Field(_FORMAT, le=_FORMAT)
    channels: tuple[str, ...] = Field(min_length=1, description="ids of the columns of a window")
    units: tuple[str, ...]
    rows: int = Field(ge=1, description="rows of a window")
    period: int = Field(gt=0, description="nanoseconds per row")
    fill: tuple[float, ...] = Field(description="by channel: what stands for a bad cell, the training median")
    contribution_columns: tuple[int, ...] = Field(description="which channel each contribution output is of")
    limit: float = Field(gt=0)
    spans: tuple[int, ...]
    scales: tuple[float, ...]
    normal: dict[str, tuple[float, float]] = Field(description="mean and standard deviation in training")
    usual: dict[str, float] = Field(description="what a channel adds to the score of a row in normal running")
    stuck_rows: dict[str, int] = Field(description="rows without change that mean a stuck sensor")
    left_out: dict[str, str] = Field({}, description="channels that were offered and not learned, and why")
    trained_rows: int = Field(ge=0)
    calibrated_rows: int = Field(ge=0)
    golden_windows: tuple[tuple[float, ...], ...] = Field(
        description="flat windows, and what they must score"
    )
    golden_scores: tuple[float, ...]
    sha256: str = Field("", description="of model.tflite")
    checksum: str = Field("", description="sha256 of all other values; without it, none of them is checked")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        width, inputs = len(self.channels), self.rows * len(self.channels)
        if not len(self.units) == len(self.fill) == width:
            raise ValueError("units and fill want one value for each channel")
        if not len(self.spans) == len(self.scales) > 0 or min(*self.spans, *self.scales) <= 0:
            raise ValueError("spans and scales want the same number of positive values")
        if any(not 0 <= column < width for column in self.contribution_columns):
            raise ValueError("contribution_columns names a channel that is not there")
        if len(self.golden_windows) != len(self.golden_scores) or any(
            len(each) != inputs for each in self.golden_windows
        ):
            raise ValueError("golden_windows want one score each, and a value for each row and channel")
        return self

    @property
    def calibration(self) -> Calibration:
        """How scores of this model are judged."""
        return Calibration(self.limit, self.spans, self.scales, self.normal, self.usual, self.stuck_rows)


class Bundle:
    """A bundle that was read whole into memory and is what its manifest says."""

    def __init__(self, manifest: Manifest, blob: bytes) -> None:
        self.manifest = manifest
        self.blob = blob

    @property
    def version(self) -> str:
        """The head of the model's hash."""
        return self.manifest.sha256[:12]


def read(folder: Path) -> Bundle:
    """Read a bundle once into bytes: a file that is overwritten later cannot hurt (facts: SIGBUS by path).

    Raises:
        ModelRefusedError: something is missing, too large, or not what the manifest says.
    """
    if folder.suffix in (".pkl", ".pickle", ".joblib"):
        raise ModelRefusedError(
            f"{folder}: a pickle runs whatever code it carries when it is opened, so dxad never opens one; "
            "export the model as TensorFlow Lite"
        )
    try:
        if (folder / "model.tflite").stat().st_size > _SIZE_MAX:
            raise ModelRefusedError(f"{folder}: model.tflite is larger than {_SIZE_MAX >> 20} MiB")
        blob = (folder / "model.tflite").read_bytes()
        manifest = Manifest.model_validate_json((folder / "manifest.json").read_bytes())
    except OSError as error:
        raise ModelRefusedError(f"{error.filename}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise ModelRefusedError(f"{folder}/manifest.json: {key}: {first['msg']}") from error
    found = hashlib.sha256(blob).hexdigest()
    if found != manifest.sha256:
        raise ModelRefusedError(
            f"{folder}: model.tflite has sha256 {found[:12]}…, not {manifest.sha256[:12]}…"
        )
    if manifest.checksum and manifest.checksum != _checksum(manifest):
        raise ModelRefusedError(f"{folder}/manifest.json: its values are not those it was written with")
    return Bundle(manifest, blob)


def _checksum(manifest: Manifest) -> str:
    return hashlib.sha256(manifest.model_dump_json(exclude={"checksum"}).encode()).hexdigest()


def write(folder: Path, manifest: Manifest, blob: bytes) -> Bundle:
    """Write a bundle into a new folder and make it last."""
    manifest = manifest.model_copy(update={"sha256": hashlib.sha256(blob).hexdigest()})
    manifest = manifest.model_copy(update={"checksum": _checksum(manifest)})
    folder.mkdir(parents=True)
    for name, content in (
        ("model.tflite", blob),
        ("manifest.json", manifest.model_dump_json(indent=1).encode()),
    ):
        with (folder / name).open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    return Bundle(manifest, blob)


def current(path: Path) -> Path | None:
    """The bundle that a configured path means: itself, or the current one of a shelf; None without one."""
    if (path / "manifest.json").exists():
        return path
    link = path / "current"
    return link.resolve() if (link / "manifest.json").exists() else None


def install(shelf: Path, bundle: Path, *, keep: int = 5) -> Path:
    """Put a bundle that was tried on the shelf and make it current; the oldest beyond `keep` go."""
    version = read(bundle).version
    numbers = [int(each.name.split("-")[0]) for each in shelf.glob("[0-9]*-*") if each.name[0].isdigit()]
    target = shelf / f"{max(numbers, default=0) + 1:04d}-{version}"
    shelf.mkdir(parents=True, exist_ok=True)
    shutil.move(bundle, target)
    link = shelf / ".current.new"
    link.unlink(missing_ok=True)
    link.symlink_to(target.name)
    link.replace(shelf / "current")
    by_number = sorted(shelf.glob("[0-9]*-*"), key=lambda each: int(each.name.split("-")[0]))
    for old in by_number[:-keep]:
        if old != target:
            shutil.rmtree(old)
    return target
