"""The simulator's own small socket: a JSON object a line in, one a line back.

    {"do": "status"}                                                      what it does now
    {"do": "fault", "fault": "modbus.crc", "on": true, "settings": {}}    answered once it is so
    {"do": "stop"}                                                        end the run

An answer has `ok` and, where that is false, `error`.
"""

import asyncio
import json
import os
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from hw_sim.fault import FaultError
from hw_sim.station import Station

__all__ = ["ControlError", "ask", "default_path", "serving", "taken"]

_LINE_BYTES: Final = 65_536
_PATIENCE_S: Final = 30.0


class ControlError(Exception):
    """No simulator answers there, or it says no."""


def default_path() -> Path:
    """Where the socket of this user's simulator is, if nothing else is said."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and Path(runtime).is_dir():
        return Path(runtime) / "hw_sim.sock"
    return Path(tempfile.gettempdir()) / f"hw_sim-{os.getuid()}.sock"


def ask(path: Path, **question: Any) -> dict[str, Any]:
    """Ask a running simulator.

    Raises:
        ControlError: none answers there, or it says no.
    """
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(_PATIENCE_S)
        try:
            link.connect(str(path))
            link.sendall(json.dumps(question).encode() + b"\n")
            with link.makefile("rb") as lines:
                answer: dict[str, Any] = json.loads(
                    lines.readline() or b'{"ok": false, "error": "it hung up"}'
                )
        except OSError as error:
            said = error.strerror or str(error)
            raise ControlError(
                f"no simulator answers at {path} ({said}); start one, or say --control"
            ) from error
    if not answer["ok"]:
        raise ControlError(str(answer["error"]))
    return answer


@contextmanager
def taken(path: Path) -> Iterator[socket.socket]:
    """This place, for this user alone, until the block is left; who asks meanwhile waits to be served.

    Raises:
        FileExistsError: another simulator answers there.
    """
    listener = _listen(path)
    try:
        yield listener
    finally:
        listener.close()
        path.unlink(missing_ok=True)


@asynccontextmanager
async def serving(listener: socket.socket, station: Station, stop: Callable[[], None]) -> AsyncIterator[None]:
    """Answer who asks there, until the block is left."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, ValueError):  # ValueError: a line without end
            while line := await reader.readline():
                writer.write(json.dumps(await _answer(line, station, stop)).encode() + b"\n")
                await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(serve, sock=listener, limit=_LINE_BYTES)
    try:
        yield
    finally:
        server.close()


def _listen(path: Path) -> socket.socket:
    """A bound socket; a stale one in its place is removed, a live one is left alone."""
    if path.is_socket():
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(path))
            except OSError:
                path.unlink(missing_ok=True)
            else:
                raise FileExistsError(f"another simulator answers at {path}; give this one --control PATH")
    listener = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)  # no moment in which others may connect
    try:
        listener.bind(str(path))
        listener.listen()
    except OSError as error:
        listener.close()
        raise OSError(f"{path}: {error.strerror or error}") from error
    finally:
        os.umask(before)
    return listener


async def _answer(line: bytes, station: Station, stop: Callable[[], None]) -> dict[str, Any]:
    try:
        question = json.loads(line)
        assert isinstance(question, dict)
    except (ValueError, AssertionError):
        return {"ok": False, "error": "that is no JSON object"}
    match question.get("do"):
        case "status":
            return {"ok": True, **station.document()}
        case "fault":
            return await _fault(question, station)
        case "stop":
            stop()
            return {"ok": True}
        case other:
            return {"ok": False, "error": f"cannot do {other!r}: status, fault or stop"}


async def _fault(question: Mapping[str, Any], station: Station) -> dict[str, Any]:
    name = str(question.get("fault"))
    settings = {key: str(value) for key, value in dict(question.get("settings") or {}).items()}
    try:
        if question.get("on", True):
            fault = await station.break_(name, settings)
            return {"ok": True, "t_s": fault.onset_s, "channels": fault.channels, "settings": fault.settings}
        ended = await station.mend(name, settings)
    except FaultError as error:
        return {"ok": False, "error": str(error)}
    return {"ok": True, "ended": len(ended)}
