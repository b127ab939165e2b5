"""The control socket from its clients' side, and behind it a gateway that only remembers."""

import asyncio
import json
import shutil
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dxad.config import ControlSection
from dxad.control import Control
from dxad.control.limits import Limits
from dxad.errors import ConfigError, ModelRefusedError
from tests.patience import PATIENCE_S

CURL = shutil.which("curl")


class RememberingDesk:
    """An outbox with one event and one dead letter."""

    def __init__(self) -> None:
        self.done: list[tuple[str, Any]] = []

    def wanted(self, **asked: Any) -> dict[str, Any]:
        return asked

    def wanted_letters(self, **asked: Any) -> dict[str, Any]:
        return asked

    async def overview(self) -> dict[str, Any]:
        return {"lanes": {}, "sinks": {}, "dead_letters": []}

    async def page(self, wanted: Any, *, after: int, limit: int, whole: bool) -> dict[str, Any]:
        return {"records": [wanted], "next": after + limit, "damaged": int(whole)}

    async def follow(self, wanted: Any, *, after: int | None, lines: int | None) -> AsyncIterator[Any]:
        yield {"records": [{"seq": 1, "event": {"type": "dxad.x"}}], "next": after or 1, "remark": ""}

    async def record(self, id_: str) -> dict[str, Any] | None:
        return {"id": id_} if id_ == "pump" else None

    async def letters(self, wanted: Any, *, after: int, limit: int, whole: bool) -> dict[str, Any]:
        return {"letters": [wanted], "next": after + limit + whole}

    async def replay(self, sink: str, wanted: Any, *, dry_run: bool) -> dict[str, Any]:
        if sink != "reasoning":
            raise ConfigError(f"no sink {sink!r}; there are reasoning")
        self.done.append(("replay", (sink, wanted)))
        return {"sink": sink, "records": 1, "dry_run": dry_run}

    async def retry(self, wanted: Any) -> dict[str, Any]:
        self.done.append(("retry", wanted))
        return {"retried": 1, "stay": []}

    async def drop(self, wanted: Any) -> dict[str, Any]:
        self.done.append(("drop", wanted))
        return {"dropped": 1}


class RememberingConsumers:
    """One consumer, who is given one event."""

    def __init__(self) -> None:
        self.done: list[tuple[str, Any]] = []
        self.extra: dict[str, Any] = {}

    async def lease(self, name: str, **asked: Any) -> list[dict[str, Any]]:
        self.done.append((name, asked))
        return [{"lease": "token", "for_s": 30.0, "attempts": 1, "event": {"id": "one", **self.extra}}]

    def release(self, name: str, tokens: Any) -> None:
        self.done.append((name, tokens))

    async def ack(self, name: str, tokens: Any) -> dict[str, Any]:
        return {"acked": len(tokens), "stale": []}

    async def nack(self, name: str, tokens: Any, *, reason: str, delay_ns: int) -> dict[str, Any]:
        self.done.append((name, (reason, delay_ns)))
        return {"nacked": len(tokens), "dead_letters": 0, "stale": []}

    def extend(self, name: str, tokens: Any, lease_ns: int) -> dict[str, Any]:
        return {"extended": len(tokens), "stale": []}

    async def drop(self, name: str) -> dict[str, Any]:
        if name != "pump":
            raise ConfigError(f"no consumer {name!r}; there are pump")
        return {"dropped": name}

    def snapshot(self) -> list[dict[str, Any]]:
        return []


class Remembering:
    """A gateway with one pipeline, unless told otherwise."""

    def __init__(self) -> None:
        self.names: tuple[str, ...] = ("pump",)
        self.conditions: list[dict[str, str]] = []
        self.extra: dict[str, Any] = {}
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.learned: list[tuple[str, float | None]] = []
        self.acts: list[tuple[str, str, float | None]] = []
        self.models_changed: list[tuple[str, str, str, str]] = []
        self.reloaded: list[bool] = []
        self.mistakes: str | None = None
        self.outbox = RememberingDesk()
        self.consumers = RememberingConsumers()
        self.busy = asyncio.Event()
        self.busy.set()

    def status(self) -> dict[str, Any]:
        return {
            "gateway": "test",
            "state": "running",
            "conditions": self.conditions,
            "sources": {"plc": {"rows": 7}},
            "pipelines": {name: {"score": 0.5} for name in self.names},
            "sinks": {"log": {"pending": 0}},
            "outbox": {"bytes": 4096},
            **self.extra,
        }

    def metrics(self) -> str:
        return "dxad_uptime_seconds 1\n"

    def pipelines(self) -> tuple[str, ...]:
        return self.names

    def sources(self) -> tuple[str, ...]:
        return ("plc",)

    def source_rows(self, name: str, start: int | None, limit: int) -> dict[str, Any]:
        return {"of": name, "from": start, "limit": limit}

    pipeline_rows = source_rows

    async def query(self, pipeline: str, request: dict[str, Any]) -> dict[str, Any]:
        await self.busy.wait()
        self.asked.append((pipeline, request))
        if request.get("execute") == "fail":
            return {"success": False, "content": None, "error": "no model yet"}
        return {"success": True, "content": {"echo": len(str(request))}, "error": None}

    async def models(self, pipeline: str) -> dict[str, Any]:
        return {"pipeline": pipeline, "live": "1fdc5742db88", "beside": None, "versions": []}

    async def model(self, pipeline: str, verb: str, *, path: str = "", version: str = "") -> dict[str, Any]:
        if version == "gone":
            raise ModelRefusedError("no version is called 'gone'")
        self.models_changed.append((pipeline, verb, path, version))
        return {"pipeline": pipeline, "version": version}

    def alarms(self) -> list[dict[str, Any]]:
        return [{"id": name, "state": "unacknowledged"} for name in self.names]

    async def act(self, alarm: str, action: str, for_s: float | None = None) -> dict[str, Any]:
        if action == "ack" and self.acts:
            raise ConfigError(f"alarm {alarm!r} is acknowledged: there is nothing to acknowledge")
        self.acts.append((alarm, action, for_s))
        return {"id": alarm, "state": action}

    def incidents(self) -> list[dict[str, Any]]:
        told = {"phase": "opened", "kind": "process", "series": {"after_onset_s": []}}
        return [{"incident": name, "state": "open", **told} for name in self.names]

    async def window(self, incident: str, rows: int | None) -> dict[str, Any] | str | None:
        if incident not in self.names:
            return None
        return "time,score\n" if rows is None else {"incident": incident, "rows": rows}

    async def reload(self, *, dry_run: bool) -> dict[str, Any]:
        await self.busy.wait()
        if self.mistakes is not None:
            raise ConfigError(self.mistakes)
        self.reloaded.append(dry_run)
        return {"applied": not dry_run, "lines": [], "changes": [], "restart": [], "untouched": 3}

    def learn(self, pipeline: str, span_s: float | None) -> dict[str, Any]:
        if pipeline == "fixed":
            raise ConfigError("pipeline 'fixed' has no [pipelines.fixed.learn] in its configuration")
        self.learned.append((pipeline, span_s))
        return {"pipeline": pipeline, "of_rows": 200}


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def detail(self) -> str:
        assert self.headers["content-type"].startswith("application/problem+json")
        assert self.json["status"] == self.status
        return self.json["detail"]


@asynccontextmanager
async def serving(gateway, path: Path, *, limits: Limits | None = None, **section) -> AsyncIterator[Control]:
    async with Control(gateway, ControlSection(socket=path, **section), limits=limits) as control:
        yield control


@asynccontextmanager
async def connected(path: Path) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_unix_connection(str(path), limit=2**24)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def say(path: Path, data: bytes) -> Reply:
    """Send these bytes, and take what comes until the end; status 0 if nothing does."""
    async with connected(path) as (reader, writer), asyncio.timeout(PATIENCE_S):
        with suppress(OSError):  # it may have heard enough
            writer.write(data)
            await writer.drain()
        raw = await hear(reader)
    if not raw:
        return Reply(0, {}, b"")
    head, _, body = raw.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:])
    return Reply(int(lines[0].split()[1]), headers, body)


async def hear(reader: asyncio.StreamReader) -> bytes:
    heard = b""
    with suppress(OSError):
        while data := await reader.read(65536):
            heard += data
    return heard


async def ask(path: Path, method: str, target: str, body: object = None, *headers: str) -> Reply:
    raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    head = [f"{method} {target} HTTP/1.1", "Host: dxad", "Connection: close", f"Content-Length: {len(raw)}"]
    return await say(path, "\r\n".join([*head, *headers, "", ""]).encode() + raw)


async def soon(true) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not true():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.005)


@contextmanager
def asking_and_not_listening(path: Path) -> Iterator[None]:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        client.sendall(b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n")
        yield
