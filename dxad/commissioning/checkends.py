"""Whether what a configuration names answers: sources by the plug-ins themselves, sinks without an event.

A source is connected and read for a few seconds as the daemon would, with one difference: to a broker it is
somebody else, so that the daemon's own session is neither taken over nor robbed of what is kept for it.
Sources that a running daemon has connected are asked of the daemon: many devices take one client alone.
"""

import asyncio
import contextlib
import shutil
import ssl
import tempfile
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from cryptography import x509

from dxad import plugin
from dxad.commissioning.checkfiles import validity
from dxad.commissioning.checkup import Finding, failed, fine, warned
from dxad.errors import Backoff, ConfigError, DecodeError, EndOfStream, NotConnected
from dxad.fields import SourceSection
from dxad.links import words
from dxad.links.tls import TlsSection
from dxad.runtime.clock import Clock
from dxad.sinksection import SinkSection
from dxad.types import NS_PER_S, Document, Quality, Reason, Sink, Source

__all__ = ["KEPT", "as_daemon_sees", "server_certificate", "sink", "source"]

_CLOSE_S: Final = 5.0
_NAMES: Final = 6
"""Of channels, in a finding."""
KEPT: Final = "opcua"
"""What is below the state directory for sources: their certificates."""
_COPIED: Final = (KEPT, "sources")
"""The same, and which devices they have met."""
_MENDS: Final = (
    ("Connection refused", "nobody listens there: is the port right, the device on, a firewall between?"),
    ("No route to host", "the network does not lead there: address, cable, VLAN, gateway"),
    ("Network is unreachable", "the network does not lead there: address, cable, VLAN, gateway"),
    ("no connection within", "it does not answer: address, cable, firewall"),
    ("Name or service not known", "no DNS server knows the name; an address would do"),
    ("name resolution", "no DNS server answers; an address would do"),
    ("BAD_USER_NAME", "username, password: the broker knows them otherwise"),
    ("NOT_AUTHORIZED", "the broker's access list does not allow it to this user"),
    ("BadUserAccessDenied", "username, password: the server knows them otherwise"),
    ("BadIdentityToken", "this kind of login is not offered: dxad browse shows which are"),
    ("not to be trusted", "tls.ca: the authority that has signed the broker's certificate"),
    ("hostname", "tls.server_name: whom the certificate is for; or use that name in the url"),
    ("is not for", "tls.server_name: whom the certificate is for; or use that name in the url"),
    ("expired", "the peer's certificate is to be renewed; or this clock is wrong"),
    (
        "does not trust our certificate",
        "trust what is in state_dir/opcua on the server; dxad makes it at its first start",
    ),
    ("another program", "lsof tells who; a running dxad has it, too"),
    ("permission denied", "usermod -aG dialout dxad, and a new login"),
    ("Permission denied", "usermod -aG dialout dxad, and a new login"),
    ("No such file", "is it plugged in? ls -l /dev/serial/by-id"),
    ("no answer within", "device_id, baud rate, parity, wiring; dxad probe modbus finds who answers"),
    ("CREDENTIALS_DIRECTORY", "the unit alone has it: systemd-run -p LoadCredential=… dxad doctor …"),
    ("MQTT 3.1.1 only", 'version = "3.1.1", or username and password'),
)
"""What errors have in them, and what helps."""


_FILE_MENDS: Final = (
    ("No such file", "path, or url: the file is not there; a relative one begins where dxad is started"),
    ("unable to open database file", "url: the file, or its folder, is not there, or dxad may not read it"),
    ("ermission denied", "the file's owner, group and mode: dxad's user must be able to read it"),
    ("Is a directory", "path: name a file in it"),
)
"""The same, of sources that read a file."""
_OF_FILES: Final = ("replay", "sql")


def _mend(
    told: str, otherwise: str = "compare the section with what the device says of itself", *, kind: str = ""
) -> str:
    mends = (*_FILE_MENDS, *_MENDS) if kind in _OF_FILES else _MENDS
    return next((mend for mark, mend in mends if mark in told), otherwise)


def as_daemon_sees(name: str, status: Document) -> Finding | None:
    """A source that the running daemon has connected, in its words; None where it has not."""
    found = status["sources"].get(name)
    if not found or not found["connected"]:
        return None
    age = found["age_s"]
    told = (
        f"the running daemon has it, {found['samples']:,} samples, the last {age:g} s ago"
        if age is not None
        else ("the running daemon has it, and no sample yet")
    )
    faults = "; ".join(f"{text} ({count}×)" for text, count in list(found["faults"].items())[:3])
    if age is None or faults:
        return warned("source", name, "; ".join(filter(None, (told, faults))), "dxad status tells more")
    return fine("source", name, told)


async def source(
    name: str, section: SourceSection, *, seconds: float, state_dir: Path, clock: Clock
) -> list[Finding]:
    """Connect and read for so long at most, until every channel has shown a value."""
    async with _copied(section, state_dir) as kept:
        kind = section.model_dump()["type"]
        try:
            found = plugin.load("sources", kind)
            node: Source = found.build(name, _unnoticed(section), clock=clock, **kept)
        except ConfigError as error:
            return [failed("source", name, str(error), _mend(str(error), kind=kind))]
        trial = _Trial(name, section, node, kind)
        try:
            return await trial.run(seconds)
        finally:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_S):
                    await node.close()


def _unnoticed(section: SourceSection) -> SourceSection:
    """The section with a session of its own: no name, nothing kept, and no share of what others read."""
    changes: dict[str, Any] = {}
    known = type(section).model_fields
    changes |= {key: None for key in ("client_id", "session", "share") if key in known}
    topic = getattr(section, "topic", None)
    if isinstance(topic, str):
        changes["topic"] = _unshared(topic)
    channels = getattr(section, "channels", None)
    if isinstance(channels, Mapping) and any(getattr(each, "topic", None) for each in channels.values()):
        changes["channels"] = {
            key: each.model_copy(update={"topic": _unshared(each.topic)}) if each.topic else each
            for key, each in channels.items()
        }
    return section.model_copy(update=changes)


def _unshared(topic: str) -> str:
    """The filter of a shared subscription (MQTT 5, 4.8.2)."""
    return topic.split("/", 2)[2] if topic.startswith("$share/") and topic.count("/") > 1 else topic


@asynccontextmanager
async def _copied(section: SourceSection, state_dir: Path) -> AsyncIterator[dict[str, Path]]:
    """For a source that keeps something below the state directory: a copy, gone in the end."""
    if not getattr(section, "keeps_state", False):
        yield {}
        return
    with tempfile.TemporaryDirectory(prefix="dxad-doctor-") as folder:
        for each in _COPIED:
            with contextlib.suppress(OSError, shutil.Error):
                shutil.copytree(state_dir / each, Path(folder) / each)
        yield {"state_dir": Path(folder)}


class _Trial:
    def __init__(self, name: str, section: SourceSection, node: Source, kind: str) -> None:
        self._name = name
        self._kind = kind
        self._node = node
        self._good: set[int] = set()
        self._bad: dict[int, Reason] = {}
        self._samples = 0
        self._rejected = 0
        self._first_rejected = ""
        self._period_s = (section.period or 0) / NS_PER_S
        self._names = [each.id.partition(".")[2] for each in node.channels]

    async def run(self, seconds: float) -> list[Finding]:
        connected = False
        try:
            async with asyncio.timeout(seconds + _CLOSE_S):
                await self._node.connect()
            connected = True
            async with asyncio.timeout(seconds):
                while len(self._good) < len(self._names):
                    await self._read()
        except TimeoutError:
            if not connected:
                told = f"no connection within {seconds + _CLOSE_S:g} s"
                return [failed("source", self._name, told, _mend(told, kind=self._kind))]
        except (NotConnected, Backoff, ConfigError) as error:
            if not self._samples:
                told = f"{error}"
                return [failed("source", self._name, told, _mend(told, kind=self._kind))]
        except EndOfStream:
            pass
        return list(self._findings(seconds))

    async def _read(self) -> None:
        try:
            block = await self._node.read()
        except DecodeError as error:
            self._rejected += error.rejected
            self._first_rejected = self._first_rejected or str(error)
            return
        samples = block.samples
        self._samples += len(samples)
        good = samples["quality"] != Quality.BAD
        self._good |= set(samples["column"][good].tolist())
        for column, reason in zip(
            samples["column"][~good].tolist(), samples["reason"][~good].tolist(), strict=True
        ):
            self._bad[column] = Reason(reason)

    def _findings(self, seconds: float) -> Iterable[Finding]:
        told = f"{len(self._good)} of {len(self._names)} channels, {self._samples:,} samples"
        devices = getattr(self._node, "devices", ())
        silent = [
            place
            for place in range(len(self._names))
            if place not in self._good and place not in self._bad
            if not self._samples
            or place >= len(devices)
            or devices[place]  # else no device has taken it, and none need do so
        ]
        bad = [place for place in self._bad if place not in self._good]
        if self._rejected:
            first = self._first_rejected
            yield warned(
                "source", self._name, f"{self._rejected} messages cannot be read, the first: {first}",
                "decode: compare it with what comes; dxad sniff shows that",
            )  # fmt: skip
        if bad:
            faults = "; ".join(list(getattr(self._node, "faults", {}))[:3])
            named = ", ".join(
                f"{self._names[each]} ({self._bad[each].name.lower()})" for each in bad[:_NAMES]
            )
            more = f"{named}: no good value{f'; {faults}' if faults else ''}"
            mend = "address, encoding, node or path: compare with the device's manual"
            yield (warned if self._good else failed)("source", self._name, more, mend)
        if silent:
            named = ", ".join(self._names[each] for each in silent[:_NAMES])
            slow = (
                f"; its period is {self._period_s:g} s: give --for more" if self._period_s >= seconds else ""
            )
            more = f"{named}: nothing came within {seconds:g} s{slow}"
            mend = "topic, path or node; or the device sends it seldom: hold"
            yield (warned if self._good or self._period_s >= seconds else failed)(
                "source", self._name, more, mend
            )
        if not (bad or silent):
            yield fine("source", self._name, told)


async def sink(name: str, section: SinkSection, *, state_dir: Path, clock: Clock) -> list[Finding]:
    """Whether it could take an event: it is connected to, and sent none."""
    url = getattr(section, "url", "")
    if isinstance(url, str) and url.startswith(("http://", "https://")):
        return await _http(name, url, clock, getattr(section, "tls", None))
    if isinstance(url, str) and url.startswith(("mqtt://", "mqtts://")):
        return await _broker(name, url, section, state_dir)
    path = getattr(section, "path", None)
    if isinstance(path, Path):
        return [_file(name, state_dir / path, state_dir)]
    return [fine("sink", name, "is not tried: it is connected to with the first event")]


def _file(name: str, path: Path, state_dir: Path) -> Finding:
    folder = path.parent
    if folder == state_dir and not folder.exists():
        return fine("sink", name, f"{path}: dxad makes its folder")
    if path.is_dir():
        return failed("sink", name, f"{path} is a directory", "name a file in it")
    if not folder.is_dir():
        return failed("sink", name, f"{folder} is not there", f"install -d -o dxad -m 750 {folder}")
    return fine("sink", name, f"{path}: its folder is there")


async def _broker(name: str, url: str, section: SinkSection, state_dir: Path) -> list[Finding]:
    """Connect as somebody who says nothing: no status, no last will, and not the daemon's own name."""
    quiet = section.model_copy(update={"status": "", "client_id": None})
    try:
        made = plugin.load("sinks", section.model_dump()["type"])
        node: Sink = made.build(name, quiet, state_dir=state_dir, gateway="doctor")
        try:
            await node.connect()
        finally:
            await node.close()
    except (NotConnected, ConfigError) as error:
        return [
            failed("sink", name, str(error), _mend(str(error), "events wait in the outbox until it answers"))
        ]
    return [fine("sink", name, f"{url} takes us; nothing was published")]


async def _http(name: str, url: str, clock: Clock, tls: TlsSection | None) -> list[Finding]:
    split = urlsplit(url)
    secure = split.scheme == "https"
    host, port = split.hostname or "", split.port or (443 if secure else 80)
    where = f"{host}:{port}"
    known_as = host if tls is None else tls.server_name or host
    try:
        context = (tls or TlsSection()).context() if secure else None
        writer = await _connected(host, port, context, known_as)
    except ConfigError as error:
        return [failed("sink", name, str(error), "tls: name the files, and let dxad read them")]
    except ssl.SSLCertVerificationError as error:
        told = f"{where}: its certificate is not to be trusted: {error.verify_message}"
        return [failed("sink", name, told, "tls.ca: the authority that has signed it")]
    except (OSError, ssl.SSLError) as error:
        told = f"{where}: {words(error)}"
        return [failed("sink", name, told, _mend(told, "events wait in the outbox until it answers"))]
    await _hung_up(writer)
    found = [fine("sink", name, f"{where} answers{' over TLS' if secure else ''}; no event was sent")]
    return found + (await server_certificate(name, host, port, clock) if secure else [])


async def server_certificate(subject: str, host: str, port: int, clock: Clock) -> list[Finding]:
    """How long a server's certificate is good, whoever has signed it; nothing where it shows none."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        writer = await _connected(host, port, context, host)
    except (OSError, ssl.SSLError):
        return []  # which is told by whoever wants to speak with it
    raw = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    await _hung_up(writer)
    found = x509.load_der_x509_certificate(raw)
    return [validity("certificate", f"{subject}, {host}:{port}", found, clock, "have the server's renewed")]


async def _connected(
    host: str, port: int, context: ssl.SSLContext | None, known_as: str
) -> asyncio.StreamWriter:
    _, writer = await asyncio.open_connection(
        host, port, ssl=context, server_hostname=known_as if context else None
    )
    return writer


async def _hung_up(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError, ssl.SSLError, TimeoutError):
        async with asyncio.timeout(1.0):
            await writer.wait_closed()
