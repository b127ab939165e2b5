"""Who we are to a server: the application's certificate and key, made once and kept.

    state_dir/opcua/own.pem  own.der  own-key.pem      for all servers: they are told to trust it but once

A key takes 30 ms of the processor and more, so a child process makes it.
"""

import asyncio
import contextlib
import datetime as dt
import fcntl
import os
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from dxad.errors import ConfigError
from dxad.runtime.clock import SystemClock
from dxad.types import NS_PER_S

__all__ = ["Identity", "child", "load_certificate", "make", "own"]

_YEARS: Final = 20
_SKEW: Final = dt.timedelta(days=1)
"""It begins so much earlier: the server's clock may be behind."""
_CHILD: Final = "from dxad.sources.opcua.identity import child; child()"
_CHILD_S: Final = 15.0
_USAGES: Final = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
    "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
)  # fmt: skip
_MEANT: Final = frozenset(_USAGES[:4]) | {"key_cert_sign"}
"""What the certificate of an application is for (OPC 10000-6, 6.2.2); it signs itself."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate with its private key."""

    certificate: x509.Certificate
    key: rsa.RSAPrivateKey

    @classmethod
    def load(cls, certificate: Path, key: Path) -> Self:
        """Read both.

        Raises:
            ConfigError: they are not there, not what they should be, or do not belong together.
        """
        found = load_certificate(certificate)
        try:
            # It is our own: to prove its primes again would take 30 ms.
            private = load_pem_private_key(key.read_bytes(), None, unsafe_skip_rsa_key_validation=True)
        except OSError as error:
            raise ConfigError(f"{key}: {error.strerror}") from error
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{key}: is no private key in PEM without a password") from error
        if not isinstance(private, rsa.RSAPrivateKey):
            raise ConfigError(f"{key}: is no RSA key, and OPC-UA knows no other")
        if private.public_key() != found.public_key():
            raise ConfigError(f"{key}: is not the key of {certificate}")
        if found.not_valid_after_utc < _now():
            raise ConfigError(f"{certificate}: ended on {found.not_valid_after_utc:%Y-%m-%d}")
        return cls(found, private)

    @property
    def uri(self) -> str:
        """The application's: a server compares it with what the client says of itself."""
        try:
            names = self.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        except x509.ExtensionNotFound:
            uris: list[str] = []
        else:
            uris = names.value.get_values_for_type(x509.UniformResourceIdentifier)
        if not uris:
            raise ConfigError(
                "the certificate has no application URI among its alternative names (OPC 10000-6, 6.2.2)"
            )
        return uris[0]


def _now() -> dt.datetime:
    clock = SystemClock()
    return dt.datetime.fromtimestamp(clock.utc(clock.now()) / NS_PER_S, dt.UTC)


def load_certificate(path: Path) -> x509.Certificate:
    """Read a certificate, PEM or DER.

    Raises:
        ConfigError: it is not there, or none.
    """
    try:
        raw = path.read_bytes()
        if b"-----BEGIN" in raw:
            return x509.load_pem_x509_certificate(raw)
        return x509.load_der_x509_certificate(raw)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path}: is no certificate in PEM or DER") from error


async def own(folder: Path) -> Identity:
    """The daemon's own, made in a child process if there is none yet.

    Raises:
        ConfigError: it cannot be made, or what is there cannot be used; it is never replaced by itself,
            since servers trust this one.
    """
    certificate, key = _files(folder)
    if not await asyncio.to_thread(lambda: certificate.exists() and key.exists()):
        await _made(folder)
    try:
        return await asyncio.to_thread(Identity.load, certificate, key)
    except ConfigError as error:
        raise ConfigError(
            f"our own certificate cannot be used: {error}. Remove {certificate} and {key} for new ones, "
            "which every server must be told to trust"
        ) from error


async def _made(folder: Path) -> None:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _CHILD, str(folder),
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(_CHILD_S):
            _, said = await child.communicate()
    except TimeoutError as error:
        raise ConfigError(f"no certificate was made in {folder} within {_CHILD_S:g} s") from error
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    if child.returncode:
        last = said.decode(errors="replace").strip().rpartition("\n")[2]
        raise ConfigError(f"no certificate could be made in {folder}: {last}")


def _files(folder: Path) -> tuple[Path, Path]:
    return folder / "own.pem", folder / "own-key.pem"


def make(folder: Path) -> None:
    """Make certificate and key, unless they are there; processes that do so together make one.

    Raises:
        OSError: the folder cannot be made or written.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    certificate, key = _files(folder)
    with _alone(folder):
        if certificate.exists() and key.exists():
            return
        private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        made = _self_signed(private)
        pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        _write(key, pem, 0o600)
        _write(folder / "own.der", made.public_bytes(Encoding.DER), 0o644)
        _write(certificate, made.public_bytes(Encoding.PEM), 0o644)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write(path: Path, data: bytes, mode: int) -> None:
    """Put a file there whole, or not at all."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def _self_signed(key: rsa.RSAPrivateKey) -> x509.Certificate:
    """The certificate of this machine's dxad (OPC 10000-6, 6.2.2)."""
    host = socket.gethostname()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"dxad@{host}"[:64])])
    now = _now()
    public = key.public_key()
    names = [x509.UniformResourceIdentifier(f"urn:{host}:dxad"), x509.DNSName(host)]
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + dt.timedelta(days=365 * _YEARS))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**{each: each in _MEANT for each in _USAGES}), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )


def child() -> None:
    """What the child process does: make what is missing in the folder of its argument, or say why not."""
    os.nice(19)
    try:
        make(Path(sys.argv[1]))
    except OSError as error:
        sys.exit(f"{error.filename}: {error.strerror}")
