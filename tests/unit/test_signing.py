"""Where signatures are required, only bundles signed by the one key are used."""

import base64
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import ValidationError

from dxad import bundle
from dxad.bundle.manifest import Manifest
from dxad.bundle.signing import Policy
from dxad.errors import ModelRefusedError
from dxad.models.tflite import Config

MANIFEST = Manifest(
    channels=("s.a",),
    units=("",),
    rows=1,
    period=1,
    fill=(0.0,),
    limit=1.0,
    spans=(1,),
    scales=(1.0,),
    normal={},
)
MODEL = b"\x1c\0\0\0TFL3"


def private(path: Path) -> tuple[Path, str]:
    """A new key as a PEM file, and its public half in hex."""
    key = Ed25519PrivateKey.generate()
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    (path.with_suffix(".pub")).write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    return path, key.public_key().public_bytes_raw().hex()


@pytest.fixture
def key(tmp_path) -> tuple[Path, str]:
    return private(tmp_path / "key.pem")


@pytest.mark.parametrize("written", ["hex", "base64", "file"])
def test_a_bundle_signed_by_the_trusted_key_is_used(written, key, tmp_path):
    bundle.write(tmp_path / "b", MANIFEST, MODEL, key=key[0])
    text = {"hex": key[1], "base64": base64.b64encode(bytes.fromhex(key[1])).decode(), "file": "key.pub"}[
        written
    ]
    assert bundle.read(tmp_path / "b", policy=Policy(text, folder=tmp_path)).manifest.signature is not None


def test_an_unsigned_bundle_is_refused_where_a_signature_is_required(key, tmp_path):
    bundle.write(tmp_path / "b", MANIFEST, MODEL)
    with pytest.raises(ModelRefusedError, match="is not signed, and require_signature asks for it"):
        bundle.read(tmp_path / "b", policy=Policy(key[1]))
    assert bundle.read(tmp_path / "b", policy=Policy(key[1], required=False))


@pytest.mark.parametrize("required", [True, False])
def test_a_bundle_signed_by_another_key_is_refused(required, key, tmp_path):
    other, _ = private(tmp_path / "other.pem")
    bundle.write(tmp_path / "b", MANIFEST, MODEL, key=other)
    with pytest.raises(ModelRefusedError, match="which is not trusted here"):
        bundle.read(tmp_path / "b", policy=Policy(key[1], required=required))


def test_a_signature_is_of_all_the_manifest_says_and_of_the_model(key, tmp_path):
    made = bundle.write(tmp_path / "b", MANIFEST, MODEL, key=key[0])
    path = tmp_path / "b" / "manifest.json"
    document = json.loads(path.read_text())
    longer = MODEL + b"\0"
    for changed in ({"limit": 50.0}, {"sha256": bundle.hashed(longer)}):
        path.write_text(json.dumps(document | changed | {"checksum": ""}))
        (tmp_path / "b" / "model.tflite").write_bytes(longer if "sha256" in changed else made.blob)
        with pytest.raises(ModelRefusedError, match="not one of its contents"):
            bundle.read(tmp_path / "b", policy=Policy(key[1]))


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "No such file"), ("nonsense", "is no PEM file of an unencrypted private key")],
)
def test_a_key_that_is_none_signs_nothing(content, message, tmp_path):
    if content is not None:
        (tmp_path / "key.pem").write_text(content)
    with pytest.raises(ModelRefusedError, match=message):
        bundle.write(tmp_path / "b", MANIFEST, MODEL, key=tmp_path / "key.pem")
    assert not (tmp_path / "b").exists()


def test_a_configuration_that_requires_signatures_says_whose():
    with pytest.raises(ValidationError, match="wants the public_key"):
        Config(type="tflite", path=Path("m"), require_signature=True)
    assert Config(type="tflite", path=Path("m")).policy(Path()) is None
