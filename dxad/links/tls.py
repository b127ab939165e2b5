"""TLS in front of a plain transport, so that pausing the one pauses the socket.

    socket ── ciphertext ──▶ TlsFilter (ssl.MemoryBIO) ── plaintext ──▶ the protocol of the link

asyncio's own TLS transport goes on reading the socket while it is paused: the wake-ups, which are what a busy
link costs, would stay.
"""

import asyncio
import contextlib
import ssl
from pathlib import Path
from typing import Annotated, Any, Final, Protocol, Self

from pydantic import Field, model_validator

from dxad.errors import ConfigError
from dxad.fields import Secret, Section

__all__ = ["TlsFilter", "TlsSection", "said"]

_CHUNK: Final = 65_536
_PLAIN: Final = {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "PACKET_LENGTH_TOO_LONG"}
"""OpenSSL's reasons where the peer has answered with something else than TLS."""


class TlsSection(Section):
    """Whom to trust, and who we are."""

    ca: Annotated[Path, Field(strict=False)] | Secret | None = Field(
        None,
        description="PEM file of the authorities to trust: a path, or a secret by reference; default: the "
        "system's",
    )
    certificate: Annotated[Path, Field(strict=False)] | Secret | None = Field(
        None, description="PEM file of our own certificate, for peers that want one: likewise"
    )
    key: Annotated[Path, Field(strict=False)] | Secret | None = Field(
        None, description="PEM file of its private key: a path, or a secret by reference"
    )
    server_name: str | None = Field(
        None, min_length=1, description="what the peer's certificate must be for; default: the url's host"
    )

    @model_validator(mode="after")
    def _both(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together")
        return self

    def context(self) -> ssl.SSLContext:
        """Read the files; what they say is checked at every connection, host name included.

        What is no file, a variable of the environment, can only be the authorities: PEM as text.

        Raises:
            ConfigError: one is not there, or is not what it should be.
        """
        context = self._trusting()
        if self.certificate is not None:
            certificate, key = _file(self.certificate), None if self.key is None else _file(self.key)
            try:
                context.load_cert_chain(certificate, key)
            except (OSError, ssl.SSLError) as error:
                raise ConfigError(
                    f"tls.certificate, tls.key: {certificate}, {key}: {_words(error)}"
                ) from error
        return context

    def _trusting(self) -> ssl.SSLContext:
        where: object = self.ca
        try:
            if isinstance(self.ca, Secret) and self.ca.env is not None:
                where = f"${self.ca.env}"
                authorities = self.ca.read()
                if not authorities:  # which would mean the system's
                    raise ConfigError(f"tls.ca: {where}: is empty")
                return ssl.create_default_context(cadata=authorities)
            where = None if self.ca is None else _file(self.ca)
            return ssl.create_default_context(cafile=where)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"tls.ca: {where}: {_words(error)}") from error


def _file(given: Path | Secret) -> Path:
    return given.path() if isinstance(given, Secret) else given


class _Inner(Protocol):
    """What a filter stands in front of: an `asyncio.Protocol` that can be told why it is over."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None: ...
    def data_received(self, data: bytes) -> None: ...
    def connection_lost(self, error: Exception | None) -> None: ...
    def fail(self, reason: str) -> None: ...


class TlsFilter(asyncio.Protocol):
    """Speaks TLS with the peer and plaintext with the protocol behind it."""

    def __init__(self, inner: _Inner, context: ssl.SSLContext, server_name: str) -> None:
        self._inner = inner
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_name)
        self._transport: asyncio.Transport | None = None
        self._secured = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """TCP is up: shake hands."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._step()

    def data_received(self, data: bytes) -> None:
        """Pass on what can be read of it."""
        self._incoming.write(data)
        self._step()

    def _step(self) -> None:
        plain: list[bytes] = []
        try:
            if not self._secured:
                self._object.do_handshake()
                self._secured = True
                self.flush()
                assert self._transport is not None
                self._inner.connection_made(_Secured(self, self._transport, self._object))
            while data := self._object.read(_CHUNK):
                plain.append(data)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:  # the peer's goodbye; its FIN follows
            pass
        except ssl.SSLError as error:
            self._refuse(error)
        if plain:
            self._inner.data_received(b"".join(plain))
        self.flush()

    def _refuse(self, error: ssl.SSLError) -> None:
        """Say in words what is wrong, and hang up."""
        self.flush()  # the alert, which tells the peer
        self._inner.fail(said(error, secured=self._secured))
        if self._transport is not None:
            self._transport.abort()

    def flush(self) -> None:
        """Send what TLS has to say."""
        data = self._outgoing.read()
        if data and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def connection_lost(self, error: Exception | None) -> None:
        """The peer, or the network, is gone."""
        if not self._secured:
            self._inner.fail(
                "the connection ended in the TLS handshake; does the peer speak TLS on this port?"
            )
        self._inner.connection_lost(error)


class _Secured(asyncio.Transport):
    """What the protocol behind the filter sees."""

    def __init__(self, owner: TlsFilter, under: asyncio.Transport, tls: ssl.SSLObject) -> None:
        super().__init__()
        self._owner = owner
        self._under = under
        self._object = tls

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._object if name == "ssl_object" else self._under.get_extra_info(name, default)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._object.write(data)
        self._owner.flush()

    def get_write_buffer_size(self) -> int:
        return self._under.get_write_buffer_size()

    def pause_reading(self) -> None:
        self._under.pause_reading()

    def resume_reading(self) -> None:
        self._under.resume_reading()

    def is_closing(self) -> bool:
        return self._under.is_closing()

    def close(self) -> None:
        with contextlib.suppress(ssl.SSLError):  # it would wait for the peer's goodbye
            self._object.unwrap()
        self._owner.flush()
        self._under.close()

    def abort(self) -> None:
        self._under.abort()


def said(error: ssl.SSLError, *, secured: bool) -> str:
    """What a person can do something with."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not to be trusted: {error.verify_message}"
    if error.reason in _PLAIN and not secured:
        return "it does not speak TLS on this port"
    return f"TLS: {_words(error)}"


def _words(error: OSError) -> str:
    """OpenSSL's own words, or the system's."""
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).replace("_", " ").lower()
    return error.strerror or str(error)
