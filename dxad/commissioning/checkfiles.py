"""Whether files are there, whole, in time, and for the eyes they are meant for: configuration, secrets, keys.

Access is judged for the user whom dxad runs as, by owner, group and mode, whoever runs the check-up.
"""

import datetime as dt
import grp
import os
import pwd
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from pydantic import BaseModel

from dxad.commissioning.checkup import Finding, failed, fine, warned
from dxad.config import Config
from dxad.errors import ConfigError
from dxad.fields import Secret
from dxad.links import words
from dxad.runtime.clock import Clock

__all__ = [
    "Whom", "certificate", "certificates", "configuration", "device", "groups", "kept", "key", "secret",
    "secrets", "state", "user", "validity",
]  # fmt: skip

_UDEV: Final = 'a udev rule: SUBSYSTEM=="tty", GROUP="dialout", MODE="0660"; and usermod -aG dialout dxad'
_SOON: Final = dt.timedelta(days=30)
_DXAD: Final = "dxad"
_UNIT_DIRS: Final = ("/etc/systemd/system/dxad.service", "/usr/lib/systemd/system/dxad.service")
_PAIRS: Final = {"certificate": "key", "user_certificate": "user_key"}
"""By the key of a certificate in a section, that of its private key."""
_TRUSTED: Final = ("ca", "server_certificate")


@dataclass(frozen=True, slots=True)
class Whom:
    """The user whom dxad runs as."""

    name: str
    uid: int
    gids: frozenset[int]

    @classmethod
    def named(cls, name: str) -> Self:
        """A user of this machine.

        Raises:
            KeyError: there is none of that name.
        """
        entry = pwd.getpwnam(name)
        return cls(name, entry.pw_uid, frozenset(os.getgrouplist(name, entry.pw_gid)))

    @classmethod
    def usual(cls) -> Self:
        """The user dxad; where there is none, whoever asks."""
        try:
            return cls.named(_DXAD)
        except KeyError:
            entry = pwd.getpwuid(os.getuid())
            return cls(entry.pw_name, entry.pw_uid, frozenset(os.getgroups()) | {entry.pw_gid})

    def may(self, path: Path, wanted: int) -> bool:
        """Whether it may do this (`os.R_OK` and its kin) with a file, and may come so far."""
        if self.uid == 0:
            return path.exists()
        path = path.absolute()
        return (
            all(self._bits(each) & os.X_OK for each in path.parents) and self._bits(path) & wanted == wanted
        )

    def _bits(self, path: Path) -> int:
        try:
            found = path.stat()
        except OSError:
            return 0
        shift = 6 if found.st_uid == self.uid else 3 if found.st_gid in self.gids else 0
        return found.st_mode >> shift & 7


def user(whom: Whom) -> Iterable[Finding]:
    """Whether there is a user for the daemon."""
    if whom.name == _DXAD:
        yield fine("user", _DXAD, f"is there, of {len(whom.gids)} groups")
    else:
        told = f"is not there; access is judged for {whom.name}"
        mend = "install systemd/dxad.sysusers as /usr/lib/sysusers.d/dxad.conf, then systemd-sysusers"
        yield warned("user", _DXAD, told, mend)


def configuration(paths: Iterable[Path], whom: Whom) -> Iterable[Finding]:
    """The files themselves."""
    for path in paths:
        if not path.exists():
            continue
        mode = path.stat().st_mode
        if not whom.may(path, os.R_OK):
            mend = f"chgrp {_DXAD} {path} && chmod 640 {path}, and x for its folders"
            yield failed("file", str(path), f"{whom.name} may not read it", mend)
        elif mode & stat.S_IWOTH:
            yield failed("file", str(path), "everybody may change it", f"chmod o-w {path}")
        else:
            yield fine("file", str(path), f"{whom.name} may read it")


def state(state_dir: Path, whom: Whom) -> Iterable[Finding]:
    """Where dxad keeps what must last."""
    if not state_dir.exists():
        parent = next(each for each in state_dir.absolute().parents if each.is_dir())
        if whom.may(parent, os.W_OK | os.X_OK):
            yield fine("file", str(state_dir), "is not there yet; dxad makes it")
        else:
            mend = f"install -d -o {whom.name} -m 750 {state_dir}; systemd does so by StateDirectory="
            yield warned("file", str(state_dir), f"is not there, and {whom.name} may not make it", mend)
        return
    if not whom.may(state_dir, os.R_OK | os.W_OK | os.X_OK):
        mend = f"chown -R {whom.name}: {state_dir}"
        yield failed("file", str(state_dir), f"{whom.name} may not write there", mend)
    elif state_dir.stat().st_mode & stat.S_IWOTH:
        yield failed("file", str(state_dir), "everybody may write there", f"chmod o-w {state_dir}")
    else:
        yield fine("file", str(state_dir), f"{whom.name} may write there")
    foreign = [each for each in state_dir.glob("*") if not whom.may(each, os.R_OK | os.W_OK)]
    if foreign:
        told = f"{foreign[0].name} and {len(foreign) - 1} more" if len(foreign) > 1 else foreign[0].name
        mend = f"chown -R {whom.name}: {state_dir}; somebody has run dxad as another user"
        yield failed("file", str(state_dir), f"{whom.name} may not write {told} in it", mend)


def groups(config: Config) -> Iterable[Finding]:
    """The groups of the control socket."""
    for key, name in (
        ("control.group", config.control.group),
        ("control.admin_group", config.control.admin_group),
    ):
        if name is None:
            continue
        try:
            grp.getgrnam(name)
        except KeyError:
            told = f"there is no group {name}: only root and dxad's own user may do it"
            yield warned("group", key, told, f"groupadd --system {name}")


# --- secrets -----------------------------------------------------------------------------------------------


def secrets(config: Config) -> Iterator[tuple[str, Secret]]:
    """All secrets of a configuration, with their keys."""
    for key, each in _walk(config, ""):
        if isinstance(each, Secret):
            yield key, each


def secret(key: str, given: Secret, whom: Whom) -> Iterable[Finding]:
    """Whether one is there, and is one."""
    try:
        value = given.read()
    except ConfigError as error:
        yield _missing(key, given, str(error))
        return
    if not value:
        yield failed("secret", key, "is empty", "write it into the file, on one line")
    elif given.file is not None and given.file.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH):
        yield warned("secret", key, f"everybody may read {given.file}", f"chmod o= {given.file}")
    elif given.file is not None and not whom.may(given.file, os.R_OK):
        mend = f"chgrp {_DXAD} {given.file} && chmod 640 {given.file}"
        yield failed("secret", key, f"{whom.name} may not read {given.file}", mend)
    else:
        yield fine("secret", key, "can be read")


def _missing(key: str, given: Secret, told: str) -> Finding:
    if given.credential is None:
        mend = (
            "set it in the unit, Environment="
            if given.env
            else "write the secret there, chmod 640, chgrp dxad"
        )
        return failed("secret", key, told, mend)
    name = given.credential
    if "CREDENTIALS_DIRECTORY" in os.environ:
        return failed("secret", key, told, f"LoadCredential={name}:/etc/dxad/{name} in the unit")
    for unit in map(Path, _UNIT_DIRS):
        drop_ins = [unit, *sorted(unit.with_name("dxad.service.d").glob("*.conf"))]
        if any(f"Credential={name}:" in each.read_text() for each in drop_ins if each.is_file()):
            return fine("secret", key, f"the unit hands {name} over; it can be read there alone")
    return warned("secret", key, told, f"systemctl edit dxad: LoadCredential={name}:/etc/dxad/{name}")


# --- certificates and keys ---------------------------------------------------------------------------------


def certificates(config: Config) -> Iterator[tuple[str, Path, Path | None]]:
    """All certificates of a configuration: key, file, and that of its private key, if it is our own."""
    for key, each in _walk(config, ""):
        if not isinstance(each, BaseModel):
            continue
        for name in _TRUSTED:
            if (path := _file_of(getattr(each, name, None))) is not None:
                yield f"{key}.{name}", path, None
        for name, private in _PAIRS.items():
            if (path := _file_of(getattr(each, name, None))) is not None:
                yield f"{key}.{name}", path, _file_of(getattr(each, private, None))


def _file_of(value: Any) -> Path | None:
    """Where it is; None where nobody can tell here, which is told with the secrets."""
    if not isinstance(value, Secret):
        return value if isinstance(value, Path) else None
    try:
        return value.path()
    except ConfigError:
        return None


def certificate(
    key_name: str, path: Path, private: Path | None, whom: Whom, time: Clock
) -> Iterable[Finding]:
    """Whether one is there, readable, in time, and has its private key."""
    try:
        raw = path.read_bytes()
        pem = b"-----BEGIN" in raw
        chain = x509.load_pem_x509_certificates(raw) if pem else [x509.load_der_x509_certificate(raw)]
    except OSError as error:
        yield failed(
            "certificate", key_name, f"{path}: {words(error)}", "put the file there, or correct the key"
        )
        return
    except ValueError:
        yield failed(
            "certificate", key_name, f"{path}: is no certificate", "PEM is wanted, or DER for OPC-UA"
        )
        return
    if not whom.may(path, os.R_OK):
        yield failed("certificate", key_name, f"{whom.name} may not read {path}", f"chmod 644 {path}")
    first = min(chain, key=lambda each: each.not_valid_after_utc) if private is None else chain[0]
    yield validity("certificate", key_name, first, time, "have it renewed")
    if private is not None:
        yield from key(key_name, private, chain[0], whom)


def validity(check: str, subject: str, found: x509.Certificate, time: Clock, mend: str) -> Finding:
    """Whether a certificate is in time."""
    now = dt.datetime.fromtimestamp(time.utc(time.now()) / 1e9, dt.UTC)
    name = found.subject.rfc4514_string() or "a certificate without a name"
    until = found.not_valid_after_utc
    if until < now:
        return failed(check, subject, f"{name} ended on {until:%Y-%m-%d}", mend)
    if found.not_valid_before_utc > now:
        begins = f"{found.not_valid_before_utc:%Y-%m-%d %H:%M}"
        return failed(check, subject, f"{name} begins on {begins}", "is the clock right?")
    if until < now + _SOON:
        return warned(check, subject, f"{name} ends on {until:%Y-%m-%d}", mend)
    return fine(check, subject, f"{name}, until {until:%Y-%m-%d}")


def key(subject: str, path: Path, belongs_to: x509.Certificate, whom: Whom) -> Iterable[Finding]:
    """Whether a private key is there, private, and that of its certificate."""
    try:
        raw, mode = path.read_bytes(), path.stat().st_mode
    except OSError as error:
        yield failed(
            "key", subject, f"{path}: {words(error)}", f"chown {whom.name}: {path} && chmod 600 {path}"
        )
        return
    if not whom.may(path, os.R_OK):
        yield failed(
            "key", subject, f"{whom.name} may not read {path}", f"chgrp {_DXAD} {path} && chmod 640 {path}"
        )
        return
    try:
        private: Any = load_pem_private_key(raw, None)
    except (ValueError, TypeError):
        yield failed(
            "key", subject, f"{path}: is no private key in PEM without a password", "openssl pkey -in …"
        )
        return
    ours, theirs = (
        each.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        for each in (private.public_key(), belongs_to.public_key())
    )
    if ours != theirs:
        yield failed(
            "key", subject, f"{path} is not the key of its certificate", "put both of one pair there"
        )
    elif mode & (stat.S_IROTH | stat.S_IWOTH):
        yield warned("key", subject, f"everybody may read {path}", f"chmod o= {path}")
    else:
        yield fine("key", subject, f"{path} is that of its certificate")


def kept(subject: str, folder: Path, whom: Whom, time: Clock) -> Iterable[Finding]:
    """What dxad has made for OPC-UA servers, and what it trusts of them."""
    ours, private = folder / "own.pem", folder / "own-key.pem"
    if not ours.exists():
        yield fine("certificate", subject, f"{ours} is made at the first start; servers must trust it then")
        return
    yield from certificate(f"{subject}, {ours.name}", ours, private, whom, time)
    for path in sorted(folder.glob("trusted/*.pem")):
        yield from certificate(f"{subject}, {path.stem}", path, None, whom, time)


# --- serial devices ----------------------------------------------------------------------------------------


def device(subject: str, port: str, whom: Whom) -> Iterable[Finding]:
    """Whether a terminal is there, and the daemon may open it."""
    path = Path(port)
    if not path.exists():
        there = sorted(str(each) for each in Path("/dev/serial/by-id").glob("*"))
        mend = (
            f"there are {', '.join(there[:4])}" if there else "plug it in; dmesg tells what the kernel sees"
        )
        yield failed("device", subject, f"{port}: no such device", mend)
        return
    real = path.resolve()
    if not stat.S_ISCHR(real.stat().st_mode):
        yield failed("device", subject, f"{port} is no device", "name one of /dev/serial/by-id")
    elif not whom.may(real, os.R_OK | os.W_OK):
        group = _group(real.stat().st_gid)
        yield failed(
            "device",
            subject,
            f"{whom.name} may not open {port}",
            f"usermod -aG {group} {whom.name}" if group != "root" else _UDEV,
        )
    elif real.name.startswith(("ttyUSB", "ttyACM")) and path == real:
        told = f"{port} has another name when it is plugged in anew"
        yield warned("device", subject, told, "name it by its link in /dev/serial/by-id")
    else:
        yield fine("device", subject, f"{port} may be opened by {whom.name}")


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _walk(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    """A section and all that is below it, with dotted keys."""
    yield key, value
    if isinstance(value, Secret):
        return
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _walk(getattr(value, name), f"{key}.{name}" if key else name)
    elif isinstance(value, Mapping):
        for name, each in value.items():
            yield from _walk(each, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple):
        for place, each in enumerate(value):
            yield from _walk(each, f"{key}[{place}]")
