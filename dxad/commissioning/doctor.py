"""Everything that a configuration and this machine are looked at for, as one list of checks.

running daemon? ─▶ its status ─┐
configuration ─────────────────┼─▶ checks ─▶ checkup.examine
machine ───────────────────────┘
"""

import asyncio
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from dxad.client import Client
from dxad.commissioning import checkends, checkfiles, checkmachine, checkoutbox
from dxad.commissioning.checkfiles import Whom
from dxad.commissioning.checkup import Check, Finding, failed, fine, warned
from dxad.config import Config
from dxad.errors import ResourceUnavailableError
from dxad.fields import SourceSection
from dxad.runtime.clock import Clock
from dxad.types import Document

__all__ = ["checks_of", "daemon_status", "machine_checks"]

_STATUS_S: Final = 3.0
_LEARNED: Final = "tflite"
_MQTTS: Final = 8883


def _blocking(kind: str, subject: str, look: Callable[[], Iterable[Finding]], within_s: float = 5.0) -> Check:
    """A check that asks the operating system, on a thread of its own."""

    async def looked() -> Iterable[Finding]:
        return await asyncio.to_thread(lambda: list(look()))

    return Check(kind, subject, looked, within_s)


async def daemon_status(path: Path) -> tuple[Document | None, list[Finding]]:
    """What a running daemon says at this socket, and what is to be said of the socket."""
    try:
        if _absent(path):
            return None, [_room_for(path)]
    except PermissionError as error:
        told = f"this user may not look at {error.filename}"
        return None, [
            warned("daemon", str(path), told, "run doctor as root, or as a member of the group dxad")
        ]
    try:
        async with Client(path, timeout_s=_STATUS_S) as client:
            status = await client.status()
    except ResourceUnavailableError as error:
        return None, [_odd_socket(path, str(error))]
    told = f"dxad {status['version']} runs here with {status['config']}, process {status['pid']}"
    conditions = [each["code"] for each in status["conditions"]]
    if conditions:
        return status, [
            warned("daemon", str(path), f"{told}: {', '.join(conditions)}", "dxad status tells more")
        ]
    return status, [fine("daemon", str(path), told)]


def _absent(path: Path) -> bool:
    """Whether there is nothing.

    Raises:
        PermissionError: nobody can tell.
    """
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    return False


def _room_for(path: Path) -> Finding:
    if path.parent.is_dir():
        return fine("daemon", str(path), "none runs, and there is room for its socket")
    mend = "systemd makes it by RuntimeDirectory=; else set control.socket to another place"
    return warned("daemon", str(path), f"none runs, and {path.parent} is not there", mend)


def _odd_socket(path: Path, told: str) -> Finding:
    if not path.is_socket():
        return failed("daemon", str(path), "is no socket", "move it away, or set control.socket")
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return fine("daemon", str(path), "none runs; one that died has left its socket, which is no harm")
        except OSError as error:
            mend = "run doctor as root, or as a member of the group dxad"
            return warned("daemon", str(path), f"cannot be asked: {error.strerror}", mend)
    return failed(
        "daemon", str(path), f"something answers there that is no dxad: {told}", "set control.socket"
    )


def locked(state_dir: Path, status: Document | None) -> Iterable[Finding]:
    """Whether another dxad works in the state directory, which nobody has told of."""
    if status is not None or not state_dir.is_dir():
        return
    found = state_dir.stat()
    place = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    try:
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        parts = line.split()
        if parts[1] == "FLOCK" and place in parts:
            told = f"another dxad works there, process {parts[4]}, with another socket"
            yield failed("daemon", str(state_dir), told, "stop it, or give this one a state_dir of its own")


def machine_checks(path: Path, clock: Clock) -> Iterator[Check]:
    """What needs no configuration."""
    yield _blocking("clock", "system", lambda: checkmachine.clock(clock))
    yield _blocking("python", "version", checkmachine.python)
    yield _blocking("userland", "machine", checkmachine.userland)
    yield _blocking("unit", "dxad.service", lambda: checkmachine.unit(path))


def checks_of(
    path: Path, config: Config, whom: Whom, *, seconds: float, clock: Clock, status: Document | None
) -> Iterator[Check]:
    """All checks of a configuration.

    Args:
        path: of its file.
        config: what it says.
        whom: the user whom dxad runs as.
        seconds: for each source.
        clock: asked for every time.
        status: of the daemon that runs with it, if one does.
    """
    yield from _of_files(path, config, whom, clock)
    yield from _of_machine(config, clock, status)
    for name, section in config.sources.items():
        seen = None if status is None else checkends.as_daemon_sees(name, status)
        if seen is not None:
            yield Check("source", name, partial(_just, seen))
        else:
            look = partial(
                checkends.source, name, section, seconds=seconds, state_dir=config.state_dir, clock=clock
            )
            yield Check("source", name, look, within_s=2 * seconds + 20)
        yield from _of_wire(name, section, config.state_dir, whom, clock)
    for name, each in config.sinks.items():
        yield Check(
            "sink", name, partial(checkends.sink, name, each, state_dir=config.state_dir, clock=clock), 15.0
        )


async def _just(finding: Finding) -> list[Finding]:
    return [finding]


def _of_files(path: Path, config: Config, whom: Whom, clock: Clock) -> Iterator[Check]:
    paths = [path, *sorted((path.parent / "conf.d").glob("*.toml"))]
    yield _blocking("user", whom.name, lambda: checkfiles.user(whom))
    yield _blocking("file", str(path), lambda: checkfiles.configuration(paths, whom))
    yield _blocking("file", str(config.state_dir), lambda: checkfiles.state(config.state_dir, whom))
    yield _blocking("group", "control", lambda: checkfiles.groups(config))
    for key, each in checkfiles.secrets(config):
        yield _blocking("secret", key, partial(checkfiles.secret, key, each, whom))
    for key, file, private in checkfiles.certificates(config):
        yield _blocking("certificate", key, partial(checkfiles.certificate, key, file, private, whom, clock))


def _of_machine(config: Config, clock: Clock, status: Document | None) -> Iterator[Check]:
    state_dir = config.state_dir
    models = [
        name
        for name, each in config.pipelines.items()
        if getattr(each.model, "type", "") == _LEARNED or each.learn
    ]
    yield _blocking("disk", "room", lambda: checkmachine.disk(state_dir, config.outbox.max_size))
    yield _blocking("disk", "durability", lambda: checkmachine.sync_rate(state_dir, clock), 15.0)
    yield _blocking("disk", "flash", lambda: checkmachine.flash(state_dir, config.profile))
    yield _blocking("outbox", "file", lambda: checkoutbox.outbox(state_dir / config.outbox.path), 15.0)
    yield _blocking("memory", "memory_max", lambda: checkmachine.memory_need(config))
    yield _blocking("runtime", "TensorFlow Lite", lambda: checkmachine.tflite(models))
    yield _blocking("daemon", str(state_dir), lambda: locked(state_dir, status))


def _of_wire(name: str, section: SourceSection, state_dir: Path, whom: Whom, clock: Clock) -> Iterator[Check]:
    """The terminal of a source, the certificate of its broker, or those that it keeps."""
    place: Any = getattr(section, "place", None)
    tty = getattr(section, "port", None) or getattr(place, "tty", None)
    if isinstance(tty, str) and tty and not set("*?[") & set(tty):
        yield _blocking("device", name, partial(checkfiles.device, name, tty, whom))
    if getattr(section, "keeps_state", False) and getattr(section, "security", "none") != "none":
        yield _blocking(
            "certificate", name, partial(checkfiles.kept, name, state_dir / checkends.KEPT, whom, clock)
        )
    url = str(getattr(section, "url", ""))
    if url.startswith("mqtts://"):
        split = urlsplit(url)
        host, port = split.hostname or "", split.port or _MQTTS
        yield Check("certificate", name, partial(checkends.server_certificate, name, host, port, clock), 10.0)
