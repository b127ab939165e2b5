"""A folder of keys and certificates, made once and kept.

    server.pem   server-key.pem      the server's, self-signed, with its application URI
    second.pem   second-key.pem      its others, while `opcua.certificate` is on
    client.pem   client-key.pem      for whoever wants to try: a client's own, and a user's
    trusted/*.pem, *.der             who is trusted: the client above; others may be put there

Each certificate is there as `.der`, too. Certificates are as OPC 10000-6, 6.2.2 asks for: the application URI
stands among the alternative names.
"""

import datetime as dt
import os
import socket
import stat
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from asyncua.crypto.cert_gen import (
    dump_private_key_as_pem,
    generate_private_key,
    generate_self_signed_app_certificate,
)
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from hw_sim.section import LOOPBACK

__all__ = ["CLIENT_URI", "Identity", "Pki", "default_folder", "load_trusted"]

CLIENT_URI: Final = "urn:hw-sim:client"
"""The application URI of the client's certificate."""

_DAYS: Final = 3650
_OWNER_ONLY: Final = 0o700


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate with its key."""

    certificate: x509.Certificate
    key: RSAPrivateKey


@dataclass(frozen=True, slots=True)
class Pki:
    """What is in the folder."""

    folder: Path
    server: Identity
    second: Identity

    @classmethod
    def load(cls, folder: Path, server_uri: str) -> "Pki":
        """Read the folder; what is missing, worn out or of another URI is made.

        Raises:
            OSError: it cannot be read or written, or belongs to another user.
        """
        folder.mkdir(mode=_OWNER_ONLY, parents=True, exist_ok=True)
        if folder.stat().st_uid != os.getuid():
            raise PermissionError(f"{folder}: the keys would be in a folder of another user")
        server, second = (_identity(folder, name, server_uri) for name in ("server", "second"))
        client = _identity(folder, "client", CLIENT_URI)
        trusted = folder / "trusted"
        trusted.mkdir(exist_ok=True)
        _write(trusted / "client.pem", client.certificate.public_bytes(Encoding.PEM))
        return cls(folder, server, second)


def default_folder(port: int) -> Path:
    """Where a server's keys are if a scenario does not say."""
    return Path(tempfile.gettempdir()) / f"hw_sim-opcua-{port}"


def load_trusted(folders: Iterable[Path]) -> frozenset[bytes]:
    """All certificates of these folders, DER; what is none is passed over."""
    found = set()
    for path in (path for folder in folders for path in folder.glob("*.*")):
        load = {".pem": x509.load_pem_x509_certificate, ".der": x509.load_der_x509_certificate}
        if path.suffix in load:
            try:
                found.add(load[path.suffix](path.read_bytes()).public_bytes(Encoding.DER))
            except (OSError, ValueError):
                continue
    return frozenset(found)


def _identity(folder: Path, name: str, uri: str) -> Identity:
    kept = _kept(folder, name, uri)
    if kept is not None:
        return kept
    key = generate_private_key()
    certificate = generate_self_signed_app_certificate(
        key,
        f"hw_sim {name}",
        {"organizationName": "hw_sim"},
        [
            x509.UniformResourceIdentifier(uri),
            x509.DNSName("localhost"),
            x509.DNSName(socket.gethostname()),
            x509.IPAddress(ip_address(LOOPBACK)),
        ],
        extended=[ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH],
        days=_DAYS,
    )
    _write(folder / f"{name}-key.pem", dump_private_key_as_pem(key))
    _write(folder / f"{name}.pem", certificate.public_bytes(Encoding.PEM))
    _write(folder / f"{name}.der", certificate.public_bytes(Encoding.DER))
    return Identity(certificate, key)


def _kept(folder: Path, name: str, uri: str) -> Identity | None:
    try:
        certificate = x509.load_pem_x509_certificate((folder / f"{name}.pem").read_bytes())
        key = load_pem_private_key((folder / f"{name}-key.pem").read_bytes(), password=None)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (FileNotFoundError, ValueError, x509.ExtensionNotFound):
        return None
    fits = (
        isinstance(key, RSAPrivateKey)
        and certificate.public_key() == key.public_key()
        and uri in names.get_values_for_type(x509.UniformResourceIdentifier)
        and certificate.not_valid_after_utc > dt.datetime.now(dt.UTC)
    )
    return Identity(certificate, key) if fits and isinstance(key, RSAPrivateKey) else None


def _write(path: Path, content: bytes) -> None:
    """Readable by the owner alone, and never half written."""
    part = path.with_name(f".{path.name}")
    with os.fdopen(
        os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, stat.S_IRUSR | stat.S_IWUSR), "wb"
    ) as file:
        file.write(content)
    part.replace(path)
