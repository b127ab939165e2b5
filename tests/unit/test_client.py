"""The client of the control socket: against the real server, and against what else may listen there."""

import asyncio
import socket
import tempfile
from collections.abc import Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from dxad.client import Client, SyncClient
from dxad.config import ControlSection
from dxad.control import Control
from dxad.errors import ConfigError, RequestRefusedError, ResourceUnavailableError
from tests.patience import PATIENCE_S


class Gateway:
    def status(self) -> dict[str, Any]:
        return {"state": "running"}

    def metrics(self) -> str:
        return "dxad_uptime_seconds 1\n"

    def pipelines(self) -> tuple[str, ...]:
        return ("pump",)

    def sources(self) -> tuple[str, ...]:
        return ("plc",)

    def source_rows(self, name: str, start: int | None, limit: int) -> dict[str, Any]:
        return {"source": name, "start": start, "limit": limit}

    def pipeline_rows(self, name: str, start: int | None, limit: int) -> dict[str, Any]:
        return {"pipeline": name, "start": start, "limit": limit}

    async def query(self, pipeline: str, request: dict[str, Any]) -> dict[str, Any]:
        return {"success": True, "content": {"pipeline": pipeline, **request}, "error": None}

    async def reload(self, *, dry_run: bool) -> dict[str, Any]:
        if not dry_run:
            raise ConfigError("dxad.toml:1: a: wrong")
        return {"applied": False}

    def learn(self, pipeline: str, span_s: float | None) -> dict[str, Any]:
        return {"pipeline": pipeline, "span_s": span_s}

    def alarms(self) -> list[dict[str, Any]]:
        return [{"id": "pump.x.high"}]

    async def act(self, alarm: str, action: str, for_s: float | None = None) -> dict[str, Any]:
        return {"id": alarm, "action": action, "for_s": for_s}

    def incidents(self) -> list[dict[str, Any]]:
        return [{"incident": "00ff", "evidence": 1}]

    async def window(self, incident: str, rows: int | None) -> dict[str, Any] | str:
        return f"time {incident}\n" if rows is None else {"incident": incident, "rows": rows}


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="dxad-") as folder:
        yield Path(folder) / "control.sock"


@pytest.fixture
async def daemon(path):
    async with Control(Gateway(), ControlSection(socket=path)):
        yield


@asynccontextmanager
async def answering(path: Path, answer: bytes):
    """Something that answers whatever it hears."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_unix_server(serve, str(path)):
        yield


@pytest.mark.usefixtures("daemon")
class TestAsking:
    async def test_status_metrics_query_and_learn(self, path):
        async with Client(path) as client:
            assert await client.status() == {"state": "running"}
            assert await client.metrics() == "dxad_uptime_seconds 1\n"
            assert await client.rows("sources", "plc") == {"source": "plc", "start": None, "limit": 10_000}
            found = await client.rows("pipelines", "pump", start=7, limit=0)
            assert found == {"pipeline": "pump", "start": 7, "limit": 0}
            assert await client.learn("pump", span="2min") == {"pipeline": "pump", "span_s": 120.0}
            assert await client.learn("pump") == {"pipeline": "pump", "span_s": None}
            answer = await client.query("pump", {"execute": True})
        assert answer == {"success": True, "content": {"pipeline": "pump", "execute": True}, "error": None}

    async def test_alarms_and_incidents(self, path):
        async with Client(path) as client:
            assert await client.alarms() == [{"id": "pump.x.high"}]
            done = await client.act("pump.x.high", "shelve", for_="1min")
            assert done == {"id": "pump.x.high", "action": "shelve", "for_s": 60.0}
            assert await client.incidents() == [{"incident": "00ff"}]
            assert (await client.incident("00ff"))["evidence"] == 1
            assert await client.window("00ff", rows=9) == {"incident": "00ff", "rows": 9}
            assert await client.window_csv("00ff") == "time 00ff\n"
            with pytest.raises(RequestRefusedError, match="no alarm"):
                await client.act("pump.x", "ack")

    async def test_a_reload_and_one_that_is_refused(self, path):
        async with Client(path) as client:
            assert await client.reload(dry_run=True) == {"applied": False}
            with pytest.raises(RequestRefusedError, match=r"dxad\.toml:1: a: wrong") as refused:
                await client.reload()
        assert refused.value.status == 422
        assert await asyncio.to_thread(SyncClient(path).reload, dry_run=True) == {"applied": False}

    async def test_without_an_event_loop(self, path):
        def ask() -> tuple[object, ...]:
            client = SyncClient(path)
            learned = client.learn("pump", span="20s")["span_s"]
            return client.status()["state"], client.metrics(), client.query("pump", {})["success"], learned

        def look() -> tuple[object, ...]:
            client = SyncClient(path)
            act, found = client.act("pump.x.high", "ack")["action"], client.incidents() + client.alarms()
            return act, len(found), client.incident("00ff"), client.window("00ff"), client.window_csv("00ff")

        assert (await asyncio.to_thread(look))[:2] == ("ack", 2)
        assert await asyncio.to_thread(ask) == ("running", "dxad_uptime_seconds 1\n", True, 20.0)

    async def test_by_url(self, path):
        async with Client(f"unix://{path}") as client:
            assert client.path == path
            assert await client.status()

    async def test_again_after_it_was_closed(self, path):
        client = Client(path)
        await client.status()
        await client.close()
        await client.close()
        await client.status()
        await client.close()

    @pytest.mark.parametrize("name", ["fan", "a/b", "../status", "ä ?#"])
    async def test_for_what_there_is_not_is_refused_in_the_daemons_words(self, path, name):
        async with Client(path) as client:
            with pytest.raises(RequestRefusedError, match=r"there is only pump|no such path") as refused:
                await client.query(name, {})
        assert refused.value.status == 404

    async def test_a_refusal_is_something_that_is_not_available(self, path):
        async with Client(path) as client:
            with pytest.raises(ResourceUnavailableError, match="did you mean"):
                await client._document("GET", "/v1/stats")


async def test_the_daemon_may_restart_between_two_requests(path):
    async with Client(path) as client:
        for _ in range(2):
            async with Control(Gateway(), ControlSection(socket=path)):
                assert await client.query("pump", {})


@pytest.mark.parametrize("url", ["http://localhost/x", "unix://host/path", "unix://"])
def test_an_address_is_a_path_or_a_url_of_one(url):
    with pytest.raises(ConfigError, match="unix:///path"):
        Client(url)


class TestNobodyThere:
    async def told(self, path: Path, **options: float) -> str:
        """What a failing client says; it is not closed, as nobody does whose first request fails."""
        with pytest.raises(ResourceUnavailableError) as told:
            await Client(path, **options).status()
        assert str(path) in str(told.value)
        assert not isinstance(told.value, RequestRefusedError)
        return str(told.value)

    async def test_no_socket(self, path):
        assert "there is no such socket" in await self.told(path)

    async def test_the_socket_of_a_daemon_that_was_killed(self, path):
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
        assert "nobody listens" in await self.told(path)

    async def test_a_file_that_is_no_socket(self, path):
        path.touch()
        assert "this is no socket" in await self.told(path)

    @pytest.mark.usefixtures("denied")
    async def test_a_socket_we_may_not_open(self, path):
        path.touch()
        assert f"permission denied; only members of the group {path.group()} may" in await self.told(path)

    @pytest.mark.usefixtures("denied")
    async def test_a_folder_we_may_not_look_into(self, path):
        assert "not even look into its folder" in await self.told(path)


@pytest.fixture
async def denied(monkeypatch):
    """The kernel says no; tests may run as root, to whom it never does."""

    async def refuse(*_args: object, **_options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(asyncio.get_running_loop(), "create_unix_connection", refuse)


class TestSomethingElseThere:
    async def told(self, path: Path, answer: bytes, *, timeout_s: float = PATIENCE_S) -> str:
        async with answering(path, answer), Client(path, timeout_s=timeout_s) as client:
            with pytest.raises(ResourceUnavailableError) as told:
                await client.status()
        return str(told.value)

    async def test_that_hangs_up(self, path):
        assert "hung up" in await self.told(path, b"")

    async def test_that_speaks_no_http(self, path):
        assert "hung up" in await self.told(path, b"220 mail.example.org ESMTP\r\n\r\n")

    @pytest.mark.parametrize("body", [b"<html>", b"[1]", b""])
    async def test_that_speaks_no_dxad(self, path, body):
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
        assert "is no dxad" in await self.told(path, head + body)

    async def test_that_fails_without_words(self, path):
        assert await self.told(path, b"HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\n{}") == "500 Oops"

    async def test_that_says_nothing(self, path):
        with socket.socket(socket.AF_UNIX) as silent:
            silent.bind(str(path))
            silent.listen()
            async with Client(path, timeout_s=0.1) as client:
                with pytest.raises(ResourceUnavailableError, match=r"no answer within 0\.1 s"):
                    await client.status()
