"""One client of a server: its secure channel, its session, and what it takes to have them.

    endpoints in the clear ─▶ pin ─▶ secure channel ─▶ session ─▶ login

Nothing is ever given up for the sake of a connection: another policy, another certificate or a password in
the clear is a refusal, in words.
"""

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Sequence
from typing import Any, Final, Self

from asyncua import ua
from asyncua.client.client import Client
from asyncua.client.ua_client import UaClientState
from asyncua.crypto import security_policies, uacrypto
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.uaerrors import (
    BadCertificateUntrusted,
    BadIdentityTokenInvalid,
    BadIdentityTokenRejected,
    BadSecurityChecksFailed,
    BadUserAccessDenied,
    UaError,
)
from cryptography import x509

from dxad.errors import ConfigError, NotConnected
from dxad.links import words
from dxad.sources.opcua.identity import Identity
from dxad.sources.opcua.section import Config, Policy
from dxad.sources.opcua.trust import Pin, fingerprint
from dxad.types import NS_PER_S

__all__ = ["FAULTS", "Connection", "Credentials"]

FAULTS: Final = (OSError, UaError)
"""What asyncua raises where the peer, or the network, is to blame."""

_POLICIES: Final[dict[Policy, type[security_policies.SecurityPolicy]]] = {
    "none": security_policies.SecurityPolicyNone,
    "Basic256Sha256": security_policies.SecurityPolicyBasic256Sha256,
    "Aes128_Sha256_RsaOaep": security_policies.SecurityPolicyAes128Sha256RsaOaep,
    "Aes256_Sha256_RsaPss": security_policies.SecurityPolicyAes256Sha256RsaPss,
}
_MODES: Final = {
    "sign": ua.MessageSecurityMode.Sign,
    "sign_and_encrypt": ua.MessageSecurityMode.SignAndEncrypt,
}
_CLOSE_S: Final = 2.0
_NODES_MOST: Final = 1000
"""Nodes in one request, of a server that does not say."""
_LOGIN_REFUSED: Final = (BadUserAccessDenied, BadIdentityTokenRejected, BadIdentityTokenInvalid)
_SESSION_MS: Final = 60_000
"""After so long without a word from us, the server may forget the session."""


class Credentials:
    """Who we are, and whom we expect: read anew for each connection, so that what was mended is seen.

    Made on a thread, as everything is here that reads a file: a card may take seconds.
    """

    def __init__(self, config: Config, identity: Identity | None, pin: Pin | None) -> None:
        """`identity` and `pin` are of a secure connection; both are None without security."""
        self.identity = identity
        self.pin = pin
        self.password = None if config.password is None else config.password.read()
        self.user = (
            None
            if config.user_certificate is None or config.user_key is None
            else Identity.load(config.user_certificate, config.user_key)
        )


class Connection:
    """A client in its session, from `open` on."""

    def __init__(self, config: Config, credentials: Credentials) -> None:
        self._config = config
        self._credentials = credentials
        self._timeout_s = config.timeout / NS_PER_S
        self._policy = _POLICIES[config.security]
        self._mode = (
            ua.MessageSecurityMode.None_ if config.security == "none" else _MODES[config.security_mode]
        )
        self._client = self._made()
        self._renewal: asyncio.Task[None] | None = None
        self.uris: Sequence[str] = ()
        """The server's namespaces, by index."""

    def _made(self) -> Client:
        # Its own reconnecting would hide an outage, and keep node indices that a new server gives otherwise.
        client = Client(self._config.url, timeout=self._timeout_s, auto_reconnect=False)
        client.session_timeout = _SESSION_MS
        client.name = client.description = "dxad"
        client.product_uri = "urn:dxad"
        client.application_uri = "urn:dxad"
        return client

    @property
    def client(self) -> Client:
        """The library's."""
        return self._client

    @property
    def up(self) -> bool:
        """Whether there is a connection and a session, as far as we know."""
        return self._client.uaclient.state is UaClientState.CONNECTED

    async def open(self) -> Self:
        """Have a session.

        Raises:
            NotConnected: the server is not there, or will not have us now.
            ConfigError: it will never have us like this, or is not to be trusted.
        """
        logging.getLogger("asyncua").setLevel(logging.CRITICAL + 1)  # it logs what it also raises
        try:
            await self._secure()
            await self._enter()
        except _LOGIN_REFUSED as error:
            raise ConfigError(f"{self._config.url}: the server refuses the login: {error}") from error
        except FAULTS as error:
            raise NotConnected(f"{self._config.url}: {self.told(error)}") from error
        return self

    async def _enter(self) -> None:
        """Go through all the doors; where a pinned certificate does not open the first, see why."""
        client = self._client
        await client.connect_socket()
        try:
            await client.send_hello()
            await client.open_secure_channel()
            await self.renew_session()
        except (ConnectionError, TimeoutError, UaError):
            client.disconnect_socket()
            if self._credentials.pin is not None:
                await self._blame()
            raise
        self._renewal = asyncio.create_task(self._renew_channel(), name="opcua.renewal")

    async def renew_session(self) -> None:
        """Create a session on the channel there is, in place of one that may be there; and log in.

        Raises:
            OSError, UaError: it cannot be had.
            ConfigError: the login would give the password away.
        """
        client, given = self._client, self._credentials
        if client.uaclient.has_session:
            with contextlib.suppress(*FAULTS):
                await client.uaclient.close_session(delete_subscriptions=True)
            client.uaclient.session.reset_authentication_token()
        await client.create_session()
        if self._config.username is not None:
            self._guard_password()
        if given.user is not None:
            client.user_certificate, client.user_private_key = given.user.certificate, given.user.key
        await client.activate_session(self._config.username, given.password, client.user_certificate)
        if given.pin is not None and self._seen is not None:
            await asyncio.to_thread(given.pin.keep_first, self._seen)
        self.uris = await client.get_namespace_array()

    def _guard_password(self) -> None:
        """Do not send it as it is over a wire that anybody can read."""
        token = self._client.server_policy(ua.UserTokenType.UserName).SecurityPolicyUri
        plain = not token or token == security_policies.SecurityPolicyNone.URI
        if (
            plain
            and self._mode is not ua.MessageSecurityMode.SignAndEncrypt
            and not self._config.plain_password
        ):
            raise ConfigError(
                f"{self._config.url}: the server would have the password as it is, for anybody on the wire "
                'to read: choose a security policy with security_mode = "sign_and_encrypt", or '
                "plain_password = true"
            )

    # --- whom we talk to ---

    _seen: x509.Certificate | None = None
    """The server's certificate, of this connection."""

    async def _secure(self) -> None:
        """Get ready to sign and encrypt for the server that is pinned, or for the one that is there."""
        given = self._credentials
        if given.pin is None or given.identity is None:
            return
        self._seen = await asyncio.to_thread(given.pin.read) or await self._offered()
        policy = self._policy(self._seen, given.identity.certificate, given.identity.key, self._mode)
        self._client.application_uri = given.identity.uri
        client: Any = self._client  # asyncua gives it the type of its default
        client.security_policy = policy
        self._client.uaclient.set_security(policy)

    async def _offered(self) -> x509.Certificate:
        """The certificate of the endpoint that is as configured.

        Raises:
            ConfigError: the server has no such endpoint.
            OSError, UaError: it cannot be asked.
        """
        endpoints = await self._made().connect_and_get_server_endpoints()
        found = next((each for each in endpoints if self._fits(each)), None)
        if found is None:
            raise ConfigError(
                f"{self._config.url}: the server does not offer {self._config.security} "
                f"({self._config.security_mode}); it offers {_offers(endpoints)}"
            )
        read: Any = uacrypto.x509_from_der  # which asyncua gives no types
        certificate: x509.Certificate | None = read(found.ServerCertificate)
        if certificate is None:
            raise ConfigError(f"{self._config.url}: the server's endpoint has no certificate")
        return certificate

    def _fits(self, endpoint: ua.EndpointDescription) -> bool:
        return bool(endpoint.SecurityPolicyUri == self._policy.URI and endpoint.SecurityMode == self._mode)

    async def _blame(self) -> None:
        """See whether the server has another certificate than we expect, or another policy.

        Raises:
            ConfigError: it has.
        """
        pin = self._credentials.pin
        assert pin is not None
        pinned = await asyncio.to_thread(pin.read)
        try:
            async with asyncio.timeout(self._timeout_s):
                offered = await self._offered()
        except FAULTS:
            return
        if pinned is not None and offered != pinned:
            raise ConfigError(f"{self._config.url}: {pin.refusal(pinned, offered)}")

    def told(self, error: OSError | UaError) -> str:
        """An error's own words, and what can be done about it; a bare timeout has none."""
        if isinstance(error, TimeoutError):
            return f"no answer within {self._timeout_s:g} s"
        if isinstance(error, OSError):
            return words(error)
        if isinstance(error, BadCertificateUntrusted | BadSecurityChecksFailed):
            identity = self._credentials.identity
            ours = "" if identity is None else f" ({fingerprint(identity.certificate)}, own.der)"
            return f"the server does not trust our certificate yet{ours}; tell it to: {error}"
        return str(error)

    # --- the channel ---

    async def _renew_channel(self) -> None:
        """Have new keys in time (OPC 10000-4, 5.5.2.1: after three quarters of their life)."""
        client = self._client
        with contextlib.suppress(*FAULTS):  # the connection ends, and that is told elsewhere
            while True:
                await asyncio.sleep(client.secure_channel_timeout * 0.75 / 1000)
                await client.open_secure_channel(renew=True)
                client.uaclient.revolve_security_token()

    async def limits(self, *which: int) -> list[int]:
        """How many nodes the server takes in one request of each of these kinds."""
        nodes = [ua.NodeId(ua.Int32(each)) for each in which]
        answers = await self._client.uaclient.session.read_attributes(nodes, AttributeIds.Value)
        return [_limit(each) for each in answers]

    async def close(self) -> None:
        """End the session as far as that is possible in bounded time; safe twice, and without `open`."""
        renewal, self._renewal = self._renewal, None
        client = self._client
        try:
            if renewal is not None:
                renewal.cancel()
                await asyncio.wait([renewal])
            async with asyncio.timeout(min(_CLOSE_S, self._timeout_s)):
                await client.uaclient.close_session(delete_subscriptions=True)
                await client.close_secure_channel()
        except FAULTS:
            pass  # whoever does not answer is left
        finally:
            client.disconnect_socket()


def _limit(answer: ua.DataValue) -> int:
    value = None if answer.Value is None else answer.Value.Value
    return min(value, _NODES_MOST) if isinstance(value, int) and value > 0 else _NODES_MOST


def _offers(endpoints: Iterable[ua.EndpointDescription]) -> str:
    """What an engineer may choose from."""
    found: list[str] = []
    names: dict[Any, Policy] = {each.URI: name for name, each in _POLICIES.items()}
    modes: dict[Any, str] = {each: name for name, each in _MODES.items()}
    for each in endpoints:
        policy = names.get(each.SecurityPolicyUri, str(each.SecurityPolicyUri).rpartition("#")[2])
        mode = modes.get(each.SecurityMode)
        text = policy if mode is None else f"{policy} ({mode})"
        if text not in found:
            found.append(text)
    return ", ".join(found) or "nothing"
