"""Signatures of bundles: ed25519 (RFC 8032), by the `cryptography` package.

It comes with asyncua, and is imported only when a signature is made or checked.
"""

import base64
import binascii
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dxad.bundle.manifest import Signature
from dxad.errors import ModelRefusedError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

__all__ = ["Policy", "sign"]

_KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class Policy:
    """Whose bundles are used."""

    public_key: str
    """32 bytes in base64 or hex, or the path of a PEM file."""
    required: bool = True
    """Whether an unsigned bundle is refused too, and not only one that is signed by somebody else."""
    folder: Path = Path()
    """What a path is relative to."""

    def check(self, message: bytes, signature: Signature | None) -> None:
        """Hold a signature against the policy.

        Raises:
            ModelRefusedError: there is none and one is required, or it is not by this key of this message.
        """
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - only where signatures are used

        if signature is None:
            if self.required:
                raise ModelRefusedError("the bundle is not signed, and require_signature asks for it")
            return
        key = self._key()
        if signature.key != key.public_bytes_raw().hex():
            raise ModelRefusedError(
                f"the bundle is signed by key {signature.key[:12]}…, which is not trusted here"
            )
        try:
            key.verify(bytes.fromhex(signature.value), message)
        except (InvalidSignature, ValueError) as error:
            raise ModelRefusedError("the bundle's signature is not one of its contents") from error

    def _key(self) -> "Ed25519PublicKey":
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415 - likewise
        from cryptography.hazmat.primitives.serialization import load_pem_public_key  # noqa: PLC0415

        raw = _raw_key(self.public_key)
        if raw is not None:
            return Ed25519PublicKey.from_public_bytes(raw)
        path = self.folder / self.public_key
        try:
            key = load_pem_public_key(path.read_bytes())
        except OSError as error:
            raise ModelRefusedError(f"public_key {path}: {error.strerror}") from error
        except ValueError as error:
            raise ModelRefusedError(f"public_key {path}: is no PEM file of a public key") from error
        if not isinstance(key, Ed25519PublicKey):
            raise ModelRefusedError(f"public_key {path}: is no ed25519 key")
        return key


def _raw_key(text: str) -> bytes | None:
    """The 32 bytes that are written as hex or base64, if they are."""
    for decode in (binascii.unhexlify, base64.b64decode):
        try:
            raw = decode(text)
        except (binascii.Error, ValueError):
            continue
        if len(raw) == _KEY_BYTES:
            return raw
    return None


def sign(message: bytes, key: Path) -> Signature:
    """Sign with the private key in a PEM file (`openssl genpkey -algorithm ed25519`).

    Raises:
        ModelRefusedError: it holds none.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415 - see above
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

    try:
        found = load_pem_private_key(key.read_bytes(), password=None)
    except OSError as error:
        raise ModelRefusedError(f"{key}: {error.strerror}") from error
    except (ValueError, TypeError) as error:
        raise ModelRefusedError(f"{key}: is no PEM file of an unencrypted private key") from error
    if not isinstance(found, Ed25519PrivateKey):
        raise ModelRefusedError(f"{key}: is no ed25519 key")
    return Signature(key=found.public_key().public_bytes_raw().hex(), value=found.sign(message).hex())
