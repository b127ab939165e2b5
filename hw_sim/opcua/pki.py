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
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from hw_sim.pki import Identity, alone, self_signed
from hw_sim.section import LOOPBACK

__all__ = ["CLIENT_URI", "Pki", "default_folder", "load_trusted"]

CLIENT_URI: Final = "urn:hw-sim:client"
"""The application URI of the client's certificate."""


@dataclass(frozen=True, slots=True)
class Pki:
    """What is in the folder."""

    folder: Path
    server: Identity
    second: Identity

    @classmethod
    def load(cls, folder: Path, server_uri: str) -> Self:
        """Read the folder; what is missing, worn out or of another URI is made.

        Raises:
            OSError: it cannot be read or written, or belongs to another user.
        """
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_uid != os.geteuid():
            raise PermissionError(f"{folder} belongs to another user")
        with alone(folder):
            server, second = (_identity(folder, name, server_uri) for name in ("server", "second"))
            client = _identity(folder, "client", CLIENT_URI)
            trusted = folder / "trusted"
            trusted.mkdir(exist_ok=True)
            (trusted / "client.pem").write_bytes(client.certificate.public_bytes(Encoding.PEM))
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
    identity = _kept(folder, name, uri)
    if identity is None:
        names = ["localhost", socket.gethostname()]
        identity = self_signed(f"hw_sim {name}", dns=names, addresses=[LOOPBACK], uris=[uri])
        identity.save(folder / f"{name}.pem", folder / f"{name}-key.pem")
        (folder / f"{name}.der").write_bytes(identity.certificate.public_bytes(Encoding.DER))
    return identity


def _kept(folder: Path, name: str, uri: str) -> Identity | None:
    """What is there, if it can still be used."""
    try:
        certificate = x509.load_pem_x509_certificate((folder / f"{name}.pem").read_bytes())
        key = load_pem_private_key((folder / f"{name}-key.pem").read_bytes(), password=None)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (FileNotFoundError, ValueError, x509.ExtensionNotFound):
        return None
    if (
        isinstance(key, RSAPrivateKey)
        and certificate.public_key() == key.public_key()
        and uri in names.get_values_for_type(x509.UniformResourceIdentifier)
        and certificate.not_valid_after_utc > dt.datetime.now(dt.UTC)
    ):
        return Identity(certificate, key)
    return None
