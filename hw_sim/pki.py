"""Certificates for the bench: an authority of its own, a server's on loopback, and a client's.

X.509 version 3 as RFC 5280 (section 4.2.1) has it. Python 3.13 verifies strictly: it wants a
key usage on the authority and key identifiers on all (`ssl.VERIFY_X509_STRICT`).
"""

import datetime as dt
import fcntl
import ipaddress
import os
import ssl
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hw_sim.section import LOOPBACK

__all__ = ["Authority", "Identity", "KeyKind", "Pki", "alone", "default_folder", "make", "self_signed"]

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
KeyKind = Literal["ec", "rsa"]
"""P-256, which is made at once, or 2048 bits of RSA, for protocols that have nothing else."""

_VALID: Final = dt.timedelta(days=3650)
_SKEW: Final = dt.timedelta(days=1)
"""Certificates begin so much before they are made, and are made anew so long before they end."""
_USAGES: Final = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
    "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate with its private key."""

    certificate: x509.Certificate
    key: Key

    def save(self, certificate: Path, key: Path) -> None:
        """Write both as PEM; the key for its owner alone.

        Raises:
            OSError: a file cannot be written.
        """
        private = self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        key.unlink(missing_ok=True)
        with os.fdopen(os.open(key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(private)
        certificate.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))


class Authority:
    """Issues certificates; its key is in memory only."""

    def __init__(self, identity: Identity) -> None:
        self.identity = identity

    @classmethod
    def new(cls, name: str) -> Self:
        """A new one that signs itself."""
        key = _key("ec")
        builder = _builder(name, name, key, key).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        return cls(Identity(_usable(builder, "key_cert_sign", "crl_sign").sign(key, hashes.SHA256()), key))

    def issue(
        self,
        name: str,
        *,
        dns: Sequence[str] = (),
        addresses: Sequence[str] = (),
        uris: Sequence[str] = (),
        server: bool = False,
        client: bool = False,
        kind: KeyKind = "ec",
    ) -> Identity:
        """A certificate of a host's names and addresses, or an application's URI, to serve or call with."""
        key = _key(kind)
        builder = _builder(name, self.identity.certificate.subject, key, self.identity.key).add_extension(
            x509.BasicConstraints(ca=False, path_length=None), critical=True
        )
        builder = _meant(builder, dns=dns, addresses=addresses, uris=uris, server=server, client=client)
        usages = ["digital_signature"]
        if kind == "rsa":
            usages += ["content_commitment", "key_encipherment", "data_encipherment"]
        return Identity(_usable(builder, *usages).sign(self.identity.key, hashes.SHA256()), key)


@dataclass(frozen=True, slots=True)
class Pki:
    """A folder of certificates for one bench, as PEM files."""

    folder: Path

    @property
    def ca(self) -> Path:
        """The authority's certificate: what a client must trust."""
        return self.folder / "ca.pem"

    @property
    def server(self) -> tuple[Path, Path]:
        """Certificate and key of a server on localhost and 127.0.0.1."""
        return self.folder / "server.pem", self.folder / "server.key"

    @property
    def client(self) -> tuple[Path, Path]:
        """Certificate and key that a client may show."""
        return self.folder / "client.pem", self.folder / "client.key"

    @property
    def good(self) -> bool:
        """Whether all files are there, belong together, and last for another day."""
        files = (self.ca, *self.server, *self.client)
        if not all(each.is_file() for each in files):
            return False
        try:
            ca, *leaves = (
                x509.load_pem_x509_certificate(each.read_bytes())
                for each in (self.ca, self.server[0], self.client[0])
            )
            for leaf in leaves:
                leaf.verify_directly_issued_by(ca)
        except (ValueError, TypeError) as error:
            raise OSError(f"{self.folder} has certificates that are not the bench's: {error}") from error
        end = min(each.not_valid_after_utc for each in (ca, *leaves))
        return end > dt.datetime.now(dt.UTC) + _SKEW

    def server_context(self, *, client_certificate: Literal["optional", "required"]) -> ssl.SSLContext:
        """For a server; a client's certificate may or must be shown, and must be of this authority."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.server)
        context.load_verify_locations(self.ca)
        required = client_certificate == "required"
        context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
        return context


def self_signed(
    name: str, *, dns: Sequence[str] = (), addresses: Sequence[str] = (), uris: Sequence[str] = ()
) -> Identity:
    """A certificate of RSA without an authority, to serve and to call with.

    It is what an application of OPC-UA has (OPC 10000-6, 6.2.2); `uris` has the application's.
    """
    key = _key("rsa")
    builder = _builder(name, name, key, key).add_extension(
        x509.BasicConstraints(ca=False, path_length=None), critical=True
    )
    builder = _meant(builder, dns=dns, addresses=addresses, uris=uris, server=True, client=True)
    usages = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment")
    return Identity(_usable(builder, *usages, "key_cert_sign").sign(key, hashes.SHA256()), key)


def default_folder() -> Path:
    """Where certificates are if nothing is said: this user's folder among the temporary files."""
    return Path(tempfile.gettempdir()) / f"hw_sim-pki-{os.geteuid()}"


def make(folder: Path) -> Pki:
    """The certificates of a folder, made if there are none yet or if they are about to end.

    Raises:
        OSError: the folder cannot be made or written, is another user's, or has other certificates in it.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.geteuid():
        raise PermissionError(f"{folder} belongs to another user")
    pki = Pki(folder)
    with alone(folder):
        if not pki.good:
            authority = Authority.new("hw_sim bench authority")
            server = authority.issue("localhost", dns=["localhost"], addresses=[LOOPBACK], server=True)
            server.save(*pki.server)
            authority.issue("hw_sim client", client=True).save(*pki.client)
            pki.ca.write_bytes(authority.identity.certificate.public_bytes(serialization.Encoding.PEM))
    return pki


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep other simulators that make certificates in this folder at the same time waiting."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _key(kind: KeyKind) -> Key:
    if kind == "rsa":
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return ec.generate_private_key(ec.SECP256R1())


def _builder(name: str, issuer: str | x509.Name, key: Key, signer: Key) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_named(name))
        .issuer_name(_named(issuer) if isinstance(issuer, str) else issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + _VALID)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
    )


def _meant(
    builder: x509.CertificateBuilder,
    *,
    dns: Sequence[str],
    addresses: Sequence[str],
    uris: Sequence[str],
    server: bool,
    client: bool,
) -> x509.CertificateBuilder:
    """Say whom a certificate is of, and what it is for."""
    names: list[x509.GeneralName] = [
        *(x509.DNSName(each) for each in dns),
        *(x509.IPAddress(ipaddress.ip_address(each)) for each in addresses),
        *(x509.UniformResourceIdentifier(each) for each in uris),
    ]
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    purposes = [
        *([ExtendedKeyUsageOID.SERVER_AUTH] if server else []),
        *([ExtendedKeyUsageOID.CLIENT_AUTH] if client else []),
    ]
    if purposes:
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    return builder


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _usable(builder: x509.CertificateBuilder, *usages: str) -> x509.CertificateBuilder:
    return builder.add_extension(x509.KeyUsage(**{each: each in usages for each in _USAGES}), critical=True)
