"""Whom we take for the server: its certificate, pinned at first sight or given.

state_dir/opcua/trusted/10.0.0.7_4840.pem
"""

import os
import re
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from dxad.errors import ConfigError
from dxad.sources.opcua.identity import load_certificate

__all__ = ["Pin", "fingerprint"]

_SHOWN: Final = 16
"""Bytes of a fingerprint that are shown."""


def fingerprint(certificate: x509.Certificate) -> str:
    """The head of its SHA-256, as other programs show it."""
    return certificate.fingerprint(hashes.SHA256())[:_SHOWN].hex(":").upper()


class Pin:
    """The certificate of one server, as a file."""

    def __init__(self, path: Path, *, given: bool) -> None:
        """Pinned at `path`; `given` is one that the configuration names: it is not to be written."""
        self.path = path
        self._given = given

    @classmethod
    def kept(cls, folder: Path, host: str, port: int) -> "Pin":
        """Where the certificate of this server is kept once it was seen."""
        name = re.sub(r"[^A-Za-z0-9.-]", "_", host)
        return cls(folder / "trusted" / f"{name}_{port}.pem", given=False)

    def read(self) -> x509.Certificate | None:
        """The certificate that the server must have; None before it was ever seen.

        Raises:
            ConfigError: the file cannot be read, or is none.
        """
        if not self._given and not self.path.exists():
            return None
        return load_certificate(self.path)

    def keep_first(self, certificate: x509.Certificate) -> None:
        """Pin this one unless the server has been seen before.

        Raises:
            ConfigError: as `read` and `keep`.
        """
        if self.read() is None:
            self.keep(certificate)

    def keep(self, certificate: x509.Certificate) -> None:
        """From now on the server must have this one.

        Raises:
            ConfigError: the file cannot be written; it would be trusted anew, unseen, at each start.
        """
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            fresh = self.path.with_name(f".{self.path.name}.new")
            with fresh.open("wb") as file:
                file.write(certificate.public_bytes(Encoding.PEM))
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self.path)
        except OSError as error:
            raise ConfigError(f"{self.path}: {error.strerror}") from error

    def refusal(self, pinned: x509.Certificate, seen: x509.Certificate) -> str:
        """What to tell whoever can decide that the server was given another certificate."""
        way = f"replace {self.path} (server_certificate) by it" if self._given else f"remove {self.path}"
        return (
            f"the server's certificate has changed: {fingerprint(seen)} "
            f"({seen.subject.rfc4514_string()}) in place of {fingerprint(pinned)}. If that was meant, {way}; "
            "if not, somebody stands between"
        )
