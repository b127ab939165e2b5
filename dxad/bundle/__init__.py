"""A model with all that is needed to use it: a folder with `model.tflite` and `manifest.json`.

`tried.json` beside them says that the bundle was tried in a process of its own, and where (see `trial`): what
was not never comes near the daemon's own interpreter.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson
from pydantic import ValidationError

from dxad.bundle.manifest import Manifest, canonical, upgraded
from dxad.bundle.signing import Policy, sign
from dxad.errors import ModelRefusedError
from dxad.types import Document

__all__ = [
    "Bundle",
    "current",
    "hashed",
    "is_tried",
    "read",
    "read_bare",
    "refuse_what_is_no_bundle",
    "sync",
    "tried",
    "write",
]

_SIZE_MAX: Final = 64 * 2**20
_MANIFEST_MAX: Final = 16 * 2**20
_MAGIC: Final = b"TFL3"
"""The file identifier of the schema, at byte 4 of the flatbuffer."""
_PICKLES: Final = (".pkl", ".pickle", ".joblib")


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle that was read whole into memory and is what its manifest says."""

    manifest: Manifest
    blob: bytes
    contents: str = ""
    """sha256 of the manifest's canonical bytes, which hold the model's hash."""

    @property
    def version(self) -> str:
        """The head of the hash of all it says: the same net with another limit is another version."""
        return (self.contents or self.manifest.sha256)[:12]


def refuse_what_is_no_bundle(path: Path) -> None:
    """Say what to do with a file that stands where a bundle should.

    Raises:
        ModelRefusedError: it is a pickle, or a bare model.
    """
    if path.suffix in _PICKLES:
        raise ModelRefusedError(
            f"{path}: a pickle runs whatever code it carries when it is opened, so dxad never opens one; "
            "export the model as TensorFlow Lite and make a bundle of it with `dxad models wrap`"
        )
    if path.suffix == ".tflite":
        raise ModelRefusedError(
            f"{path}: a bare model does not say what its numbers mean; make a bundle of it with "
            f"`dxad models wrap {path.name}`"
        )


def read(folder: Path, *, policy: Policy | None = None) -> Bundle:
    """Read a bundle once into bytes: a file that is overwritten later cannot hurt (facts: SIGBUS by path).

    Raises:
        ModelRefusedError: something is missing, too large, not what the manifest says, or not signed as
            `policy` wants it.
    """
    refuse_what_is_no_bundle(folder)
    try:
        blob = _capped(folder / "model.tflite", _SIZE_MAX)
        text = _capped(folder / "manifest.json", _MANIFEST_MAX)
    except OSError as error:
        raise ModelRefusedError(f"{error.filename}: {error.strerror}") from error
    document = _document(folder, text)
    try:
        manifest = Manifest.model_validate_json(orjson.dumps(upgraded(document)))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise ModelRefusedError(f"{folder}/manifest.json: {key}: {first['msg']}") from error
    found = hashed(blob)
    if found != manifest.sha256:
        raise ModelRefusedError(
            f"{folder}: model.tflite has sha256 {found[:12]}…, not {manifest.sha256[:12]}…"
        )
    said = canonical(document)
    contents = hashed(said)
    if manifest.checksum and manifest.checksum != contents:
        raise ModelRefusedError(f"{folder}/manifest.json: its values are not those it was written with")
    if blob[4:8] != _MAGIC:
        raise ModelRefusedError(f"{folder}: model.tflite is no TensorFlow Lite model")
    if policy is not None:
        policy.check(said, manifest.signature)
    return Bundle(manifest, blob, contents)


def read_bare(path: Path) -> bytes:
    """A `.tflite` file without a manifest, read once into bytes.

    Raises:
        ModelRefusedError: it cannot be read, is too large, or is none.
    """
    try:
        blob = _capped(path, _SIZE_MAX)
    except OSError as error:
        raise ModelRefusedError(f"{path}: {error.strerror}") from error
    if blob[4:8] != _MAGIC:
        raise ModelRefusedError(f"{path}: is no TensorFlow Lite model")
    return blob


def hashed(content: bytes) -> str:
    """Its sha256, in hex."""
    return hashlib.sha256(content).hexdigest()


def _capped(path: Path, most: int) -> bytes:
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ModelRefusedError(f"{path.parent}: {path.name} is larger than {most >> 20} MiB")
    return content


def _document(folder: Path, text: bytes) -> Document:
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ModelRefusedError(f"{folder}/manifest.json: is no JSON: {error}") from error
    if not isinstance(document, dict):
        raise ModelRefusedError(f"{folder}/manifest.json: is no JSON object")
    return document


def write(folder: Path, manifest: Manifest, blob: bytes, *, key: Path | None = None) -> Bundle:
    """Write a bundle into a new folder and make it last; signed where there is a private `key`.

    Raises:
        ModelRefusedError: the key is none.
    """
    document = manifest.model_dump(mode="json", exclude={"checksum", "signature"})
    document["sha256"] = hashed(blob)
    said = canonical(document)
    document["checksum"] = hashed(said)
    if key is not None:
        document["signature"] = sign(said, key).model_dump(mode="json")
    folder.mkdir(parents=True)
    text = orjson.dumps(document, option=orjson.OPT_INDENT_2)
    for name, content in (("model.tflite", blob), ("manifest.json", text)):
        _write(folder / name, content)
    sync(folder)
    return Bundle(Manifest.model_validate_json(text), blob, document["checksum"])


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync(folder: Path) -> None:
    """Make names that were given inside `folder` last (fsync(2): a new entry needs the directory's own)."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def current(path: Path) -> Path | None:
    """The bundle that a configured path means: itself, or the current one of a shelf; None without one."""
    if (path / "manifest.json").exists():
        return path
    link = path / "current"
    return link.resolve() if (link / "manifest.json").exists() else None


_tried_here: set[tuple[str, str]] = set()
"""What was tried and could not be stamped, its folder being read-only: contents and place."""


def tried(folder: Path, contents: str, place: str) -> None:
    """Remember that a bundle of these contents passed its trial at this place (machine and runtime)."""
    stamp = folder / "tried.json"
    new = folder / f".tried.{os.getpid()}.new"
    try:
        _write(new, orjson.dumps({"contents": contents, "place": place}))
        new.replace(stamp)
    except OSError:
        _tried_here.add((contents, place))


def is_tried(folder: Path, contents: str, place: str) -> bool:
    """Whether a bundle of these contents passed its trial at this place."""
    if (contents, place) in _tried_here:
        return True
    try:
        found = orjson.loads((folder / "tried.json").read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return False
    return isinstance(found, dict) and (found.get("contents"), found.get("place")) == (contents, place)
