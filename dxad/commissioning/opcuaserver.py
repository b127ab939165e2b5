"""How an OPC-UA server may be entered, and by whom: its endpoints, and a session while a block lasts.

Nothing is kept: where a policy wants a certificate of ours and none is given, one is made for this session.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from asyncua import ua
from asyncua.client.client import Client
from asyncua.crypto import security_policies
from asyncua.crypto.cert_gen import generate_private_key, generate_self_signed_app_certificate
from asyncua.ua.uaerrors import BadCertificateUntrusted, BadSecurityChecksFailed, UaError
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from dxad.errors import ConfigError, NotConnected
from dxad.links import words

__all__ = ["FAULTS", "MODES", "POLICIES", "Endpoint", "Login", "address", "endpoints_of", "session"]

FAULTS: Final = (OSError, UaError)
"""What asyncua raises where the peer or the network is to blame."""
POLICIES: Final[dict[str, type[security_policies.SecurityPolicy]]] = {
    "none": security_policies.SecurityPolicyNone,
    "Basic256Sha256": security_policies.SecurityPolicyBasic256Sha256,
    "Aes128_Sha256_RsaOaep": security_policies.SecurityPolicyAes128Sha256RsaOaep,
    "Aes256_Sha256_RsaPss": security_policies.SecurityPolicyAes256Sha256RsaPss,
}
"""By the last part of their URIs."""
MODES: Final = {
    "sign_and_encrypt": ua.MessageSecurityMode.SignAndEncrypt, "sign": ua.MessageSecurityMode.Sign,
}  # fmt: skip
_LOGINS: Final = {
    ua.UserTokenType.Anonymous: "anonymous", ua.UserTokenType.UserName: "user",
    ua.UserTokenType.Certificate: "certificate", ua.UserTokenType.IssuedToken: "token",
}  # fmt: skip
_ANSWER_S: Final = 5.0
_URI: Final = "urn:dxad:browse"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A way into the server."""

    policy: str
    """As POLICIES has it, or the last part of another URI."""
    mode: str
    """none, sign or sign_and_encrypt."""
    logins: tuple[str, ...]
    """Of anonymous, user, certificate and token."""
    level: int
    """How secure the server thinks it is."""
    plain_password: bool
    """Whether a password would cross the wire for anybody to read."""
    certificate: bytes
    """The server's, DER; empty where it shows none."""


@dataclass(frozen=True, slots=True)
class Login:
    """How to enter."""

    username: str | None = None
    password: str | None = None
    policy: str = "none"
    mode: str = "sign_and_encrypt"
    certificate: Path | None = None
    """Our own, PEM or DER; without it, one is made."""
    key: Path | None = None
    plain_password: bool = False
    """Whether the password may cross the wire as it is."""


def _client(url: str) -> Client:
    logging.getLogger("asyncua").setLevel(logging.CRITICAL + 1)  # it logs what it also raises
    client = Client(url, timeout=_ANSWER_S, watchdog_intervall=_ANSWER_S, auto_reconnect=False)
    client.application_uri = _URI
    return client


async def endpoints_of(url: str) -> list[Endpoint]:
    """All ways into the server, the most secure first.

    Raises:
        NotConnected: there is no such server.
    """
    try:
        found = await _client(url).connect_and_get_server_endpoints()
    except FAULTS as error:
        raise NotConnected(f"{url}: {_told(error)}") from error
    made = [_endpoint(each) for each in found if str(each.EndpointUrl).startswith("opc.tcp")]
    return sorted(made, key=lambda each: -each.level)


def _endpoint(found: ua.EndpointDescription) -> Endpoint:
    policy = _policy(found.SecurityPolicyUri)
    mode = {each: name for name, each in MODES.items()}.get(found.SecurityMode, "none")
    tokens = list(found.UserIdentityTokens or ())
    logins = dict.fromkeys(_LOGINS[each.TokenType] for each in tokens if each.TokenType in _LOGINS)
    passwords = [
        _policy(each.SecurityPolicyUri or found.SecurityPolicyUri)
        for each in tokens
        if each.TokenType is ua.UserTokenType.UserName
    ]
    plain = bool(passwords) and passwords[0] == "none" and mode != "sign_and_encrypt"
    certificate = bytes(found.ServerCertificate or b"")
    return Endpoint(policy, mode, tuple(logins), int(found.SecurityLevel), plain, certificate)


def _policy(uri: Any) -> str:
    name = str(uri).rpartition("#")[2]
    return "none" if name == "None" else name


@asynccontextmanager
async def session(url: str, login: Login, endpoints: Sequence[Endpoint]) -> AsyncIterator[Client]:
    """A session until the block is left.

    Raises:
        NotConnected: the server is not there (any more), or does not let us in.
        ConfigError: it offers no such endpoint, or a password would be read by others.
    """
    client = _client(url)
    endpoint = _chosen(url, login, endpoints)
    if login.username is not None:
        client.set_user(login.username)
        client.set_password(login.password or "")
        if endpoint.plain_password and not login.plain_password:
            raise ConfigError(
                f"{url}: the server would have the password as it is, for anybody on the wire to read: "
                f"choose --security, or say --plain-password; it offers {_offers(endpoints)}"
            )
    if endpoint.policy != "none":
        _secure(client, login, endpoint)
    try:
        await client.connect()
    except FAULTS as error:
        with contextlib.suppress(*FAULTS):
            client.disconnect_socket()
        raise NotConnected(f"{url}: {_told(error)}") from error
    try:
        yield client
    except FAULTS as error:
        raise NotConnected(f"{url}: {_told(error)}") from error
    finally:
        with contextlib.suppress(*FAULTS):
            async with asyncio.timeout(_ANSWER_S):
                await client.disconnect()


def _chosen(url: str, login: Login, endpoints: Sequence[Endpoint]) -> Endpoint:
    mode = "none" if login.policy == "none" else login.mode
    for each in endpoints:
        if (each.policy, each.mode) == (login.policy, mode):
            return each
    raise ConfigError(f"{url}: the server does not offer {login.policy}; it offers {_offers(endpoints)}")


def _offers(endpoints: Iterable[Endpoint]) -> str:
    found = dict.fromkeys(
        each.policy if each.mode == "none" else f"{each.policy} ({each.mode})" for each in endpoints
    )
    return ", ".join(found) or "nothing"


def _secure(client: Client, login: Login, endpoint: Endpoint) -> None:
    try:
        server = x509.load_der_x509_certificate(_first(endpoint.certificate))
    except ValueError as error:
        raise ConfigError("the server's endpoint has no certificate to encrypt for") from error
    if login.certificate is not None and login.key is not None:
        certificate, key = _loaded(login.certificate, login.key)
        client.application_uri = _uri_of(certificate)
    else:
        certificate, key = _made()
    policy = POLICIES[login.policy](server, certificate, key, MODES[login.mode])
    client.security_policy = policy  # type: ignore[assignment]  # annotated as the first of them
    client.uaclient.set_security(policy)


def _first(chain: bytes) -> bytes:
    """The first of the certificates that follow each other (X.690, 8.1.3: a length in two bytes)."""
    return chain[: 4 + int.from_bytes(chain[2:4])] if chain[:2] == b"\x30\x82" else chain


def _made() -> tuple[x509.Certificate, rsa.RSAPrivateKey]:
    key = generate_private_key()
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(_URI), x509.DNSName(socket.gethostname())]
    made = generate_self_signed_app_certificate(
        key, "dxad browse", {}, names, [ExtendedKeyUsageOID.CLIENT_AUTH], days=2
    )
    return made, key


def _loaded(certificate: Path, key: Path) -> tuple[x509.Certificate, rsa.RSAPrivateKey]:
    try:
        raw, secret = certificate.read_bytes(), key.read_bytes()
    except OSError as error:
        raise ConfigError(f"{error.filename}: {words(error)}") from error
    try:
        pem = raw.lstrip().startswith(b"-----BEGIN")
        found = x509.load_pem_x509_certificate(raw) if pem else x509.load_der_x509_certificate(raw)
        private = load_pem_private_key(secret, None)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{certificate}, {key}: no certificate and its private key: {error}") from error
    if not isinstance(private, rsa.RSAPrivateKey):
        raise ConfigError(f"{key}: is no RSA key, and OPC-UA knows no other")
    return found, private


def _uri_of(certificate: x509.Certificate) -> str:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return _URI
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    return uris[0] if uris else _URI


def _told(error: OSError | UaError) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {_ANSWER_S:g} s"
    if isinstance(error, OSError):
        return words(error)
    if isinstance(error, BadCertificateUntrusted | BadSecurityChecksFailed):
        return f"the server does not trust our certificate: tell it to, or give --certificate: {error}"
    return str(error)


def address(url: str) -> str:
    """The url.

    Raises:
        ConfigError: it is none of OPC-UA.
    """
    split = urlsplit(url)
    if split.scheme != "opc.tcp" or not split.hostname or not split.port:
        raise ConfigError(f"{url!r} is not opc.tcp://host:port/path")
    if split.username is not None:
        raise ConfigError("a user does not stand in the url: give --user")
    return url
