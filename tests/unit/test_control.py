"""The control socket, asked over a real Unix socket; behind it, a gateway that only remembers."""

import asyncio
import gzip
import json
import logging
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dxad.config import ControlSection
from dxad.control import Control, openapi, routes
from dxad.control.limits import Limits
from dxad.control.peer import Peer
from dxad.errors import ConfigError

CURL = shutil.which("curl")
NOBODY = 65534


class Remembering:
    """A gateway with one pipeline, unless told otherwise."""

    def __init__(self) -> None:
        self.names: tuple[str, ...] = ("pump",)
        self.conditions: list[dict[str, str]] = []
        self.extra: dict[str, Any] = {}
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.learned: list[tuple[str, float | None]] = []
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

    async def query(self, pipeline: str, request: dict[str, Any]) -> dict[str, Any]:
        await self.busy.wait()
        self.asked.append((pipeline, request))
        if request.get("execute") == "fail":
            return {"success": False, "content": None, "error": "no model yet"}
        return {"success": True, "content": {"echo": len(str(request))}, "error": None}

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


@pytest.fixture
def gateway() -> Remembering:
    return Remembering()


@pytest.fixture
def path() -> Iterator[Path]:
    """In a folder of its own that others may look into, and short: a socket's path has 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="dxad-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder) / "control.sock"


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
    async with connected(path) as (reader, writer), asyncio.timeout(5):
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
    async with asyncio.timeout(3):
        while not true():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.005)


class TestWhatIsRead:
    async def test_the_status_is_the_gateways(self, gateway, path):
        async with serving(gateway, path):
            reply = await ask(path, "GET", "/v1/status")
        assert reply.status == 200
        assert reply.headers["content-type"] == "application/json"
        assert reply.json == gateway.status()

    @pytest.mark.parametrize(
        ("target", "keys"),
        [
            ("/v1/conditions", ["conditions"]),
            ("/v1/sources", ["sources"]),
            ("/v1/pipelines", ["pipelines"]),
            ("/v1/outbox", ["outbox", "sinks"]),
        ],
    )
    async def test_parts_of_it_have_the_names_they_have_there(self, gateway, path, target, keys):
        async with serving(gateway, path):
            reply = await ask(path, "GET", target)
        assert reply.json == {key: gateway.status()[key] for key in keys}

    async def test_one_pipeline_by_name(self, gateway, path):
        async with serving(gateway, path):
            assert (await ask(path, "GET", "/v1/pipelines/pump")).json == {"score": 0.5}

    async def test_health_is_ok_while_there_are_only_warnings(self, gateway, path):
        gateway.conditions = [{"code": "sink.down", "severity": "warning", "subject": "s", "detail": "d"}]
        async with serving(gateway, path):
            reply = await ask(path, "GET", "/v1/health")
        assert (reply.status, reply.json) == (200, {"healthy": True, "state": "running", "errors": []})

    async def test_health_is_503_and_says_what_is_wrong(self, gateway, path):
        gateway.conditions = [{"code": "source.down", "severity": "error", "subject": "plc", "detail": "?"}]
        async with serving(gateway, path):
            reply = await ask(path, "GET", "/v1/health")
        assert reply.status == 503
        assert reply.json["errors"] == [{"code": "source.down", "subject": "plc", "detail": "?"}]

    async def test_metrics_are_prometheus_text(self, gateway, path):
        async with serving(gateway, path):
            reply = await ask(path, "GET", "/metrics")
        assert reply.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert reply.body == b"dxad_uptime_seconds 1\n"

    async def test_head_has_the_head_of_get(self, gateway, path):
        async with serving(gateway, path):
            reply = await ask(path, "HEAD", "/v1/status")
        assert (reply.status, reply.body) == (200, b"")

    async def test_numbers_of_numpy_and_numbers_that_are_none(self, gateway, path):
        gateway.extra = {"peak": np.float64(1.5), "nothing": float("nan")}
        async with serving(gateway, path):
            reply = await ask(path, "GET", "/v1/status")
        assert (reply.json["peak"], reply.json["nothing"]) == (1.5, None)

    async def test_a_connection_serves_many_requests(self, gateway, path):
        async with serving(gateway, path), connected(path) as (reader, writer):
            for _ in range(3):
                writer.write(b"GET /v1/sources HTTP/1.1\r\nHost: x\r\n\r\n")
                assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
                await reader.readuntil(b"}}\n")

    async def test_openapi_lists_every_route(self, gateway, path):
        async with serving(gateway, path):
            document = (await ask(path, "GET", "/v1/openapi.json")).json
        listed = {(method.upper(), at) for at, methods in document["paths"].items() for method in methods}
        assert listed == {(route.method, route.path) for route in routes.ROUTES}
        assert document == openapi.document(routes.ROUTES)

    @pytest.mark.parametrize("route", routes.ROUTES, ids=lambda each: f"{each.method} {each.path}")
    async def test_every_route_answers(self, gateway, path, route):
        async with serving(gateway, path):
            reply = await ask(path, route.method, route.path.replace("{name}", "pump"), route.example)
        assert reply.status in {200, 202}

    @pytest.mark.skipif(CURL is None, reason="curl is not installed")
    async def test_curl_just_works(self, gateway, path):
        async with serving(gateway, path):
            done = await curl(path, "http://dxad/v1/query", "-d", '{"execute": true}')
        assert json.loads(done) == {"success": True, "content": {"echo": 17}, "error": None}


async def curl(path: Path, *arguments: str, **options) -> bytes:
    command = [CURL, "--silent", "--unix-socket", str(path), *arguments]
    child = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, **options)
    return (await child.communicate())[0]


@contextmanager
def asking_and_not_listening(path: Path) -> Iterator[None]:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        client.sendall(b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n")
        yield


class TestQueries:
    async def test_go_to_the_pipeline_in_the_path(self, gateway, path):
        async with serving(gateway, path):
            reply = await ask(path, "POST", "/v1/pipelines/pump/query", {"execute": True})
        assert reply.status == 200
        assert gateway.asked == [("pump", {"execute": True})]

    async def test_no_body_asks_for_the_status(self, gateway, path):
        async with serving(gateway, path):
            assert (await ask(path, "POST", "/v1/pipelines/pump/query")).json["success"]
        assert gateway.asked == [("pump", {})]

    async def test_that_fail_are_answers_too(self, gateway, path):
        async with serving(gateway, path):
            reply = await ask(path, "POST", "/v1/query", {"execute": "fail"})
        assert reply.status == 200
        assert reply.json == {"success": False, "content": None, "error": "no model yet"}

    async def test_need_no_name_while_there_is_one_pipeline(self, gateway, path):
        async with serving(gateway, path):
            await ask(path, "POST", "/v1/query", {"execute": True})
        assert gateway.asked == [("pump", {"execute": True})]

    async def test_name_the_pipeline_in_the_body_where_there_are_two(self, gateway, path):
        gateway.names = ("pump", "fan")
        async with serving(gateway, path):
            await ask(path, "POST", "/v1/query", {"pipeline": "fan", "execute": True})
            reply = await ask(path, "POST", "/v1/query", {"execute": True})
        assert gateway.asked == [("fan", {"execute": True})]
        assert (reply.status, "there are pump, fan" in reply.detail) == (422, True)

    async def test_without_any_pipeline(self, gateway, path):
        gateway.names = ()
        async with serving(gateway, path):
            reply = await ask(path, "POST", "/v1/query", {})
        assert (reply.status, "there are none" in reply.detail) == (422, True)

    async def test_end_when_who_asked_has_gone(self, gateway, path):
        gateway.busy.clear()
        async with serving(gateway, path) as control:
            async with connected(path) as (_, writer):
                writer.write(b"POST /v1/query HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
                await soon(lambda: control._clients)
            await soon(lambda: not control._clients)
        assert gateway.asked == []


class TestMistakes:
    async def test_an_unknown_path_has_a_suggestion(self, gateway, path):
        async with serving(gateway, path):
            reply = await ask(path, "GET", "/v1/stats")
        assert (reply.status, reply.detail) == (404, "no such path; did you mean /v1/status?")

    async def test_a_path_like_no_other_has_the_list(self, gateway, path):
        async with serving(gateway, path):
            reply = await ask(path, "GET", "/")
        assert "/v1/pipelines/{name}/learn" in reply.detail

    @pytest.mark.parametrize(
        ("method", "target", "allow"),
        [("POST", "/v1/status", "get"), ("GET", "/v1/query", "post"), ("DELETE", "/metrics", "get")],
    )
    async def test_a_wrong_method_is_told_the_right_one(self, gateway, path, method, target, allow):
        async with serving(gateway, path):
            reply = await ask(path, method, target)
        assert (reply.status, reply.headers["allow"]) == (405, allow)
        assert method in reply.detail

    @pytest.mark.parametrize(
        ("method", "target"),
        [
            ("GET", "/v1/pipelines/pmp"),
            ("POST", "/v1/pipelines/pmp/query"),
            ("POST", "/v1/pipelines/pmp/learn"),
        ],
    )
    async def test_an_unknown_pipeline_is_told_which_there_are(self, gateway, path, method, target):
        gateway.names = ("pump", "fan")
        async with serving(gateway, path):
            reply = await ask(path, method, target)
        assert (reply.status, reply.detail) == (404, "no pipeline 'pmp'; there are pump, fan")

    @pytest.mark.parametrize("name", [3, ["pump"], {}])
    async def test_a_name_that_is_none(self, gateway, path, name):
        async with serving(gateway, path):
            assert (await ask(path, "POST", "/v1/query", {"pipeline": name})).status == 404

    @pytest.mark.parametrize("body", [b"{", b"{]", b"\xff", b'{"a": NaN}', b"[" * 5000])
    async def test_a_body_that_is_no_json_is_400(self, gateway, path, body):
        async with serving(gateway, path):
            reply = await ask(path, "POST", "/v1/query", body)
        assert (reply.status, "not JSON" in reply.detail) == (400, True)

    @pytest.mark.parametrize(("body", "kind"), [("[1]", "a list"), ("3", "a number"), ("null", "null")])
    async def test_json_that_is_no_object_is_422(self, gateway, path, body, kind):
        async with serving(gateway, path):
            reply = await ask(path, "POST", "/v1/query", body.encode())
        assert (reply.status, kind in reply.detail) == (422, True)

    async def test_a_bug_is_500_and_logged_and_the_next_request_is_answered(self, gateway, path, caplog):
        async with serving(gateway, path):
            gateway.extra = {"a set": {1, 2}}
            assert (await ask(path, "GET", "/v1/status")).status == 500
            gateway.extra = {}
            assert (await ask(path, "GET", "/v1/status")).status == 200
        assert [each.exc_info[0] for each in caplog.records if each.exc_info] == [TypeError]


class TestChanges:
    async def test_learning_starts_for_the_daemons_own_user(self, gateway, path):
        async with serving(gateway, path):
            reply = await ask(path, "POST", "/v1/pipelines/pump/learn", {"span": "20s"})
        assert (reply.status, reply.json) == (202, {"pipeline": "pump", "of_rows": 200})
        assert gateway.learned == [("pump", 20.0)]

    async def test_the_span_may_be_left_to_the_configuration(self, gateway, path):
        async with serving(gateway, path):
            await ask(path, "POST", "/v1/pipelines/pump/learn")
        assert gateway.learned == [("pump", None)]

    async def test_a_pipeline_that_does_not_learn_is_a_conflict(self, gateway, path):
        gateway.names = ("fixed",)
        async with serving(gateway, path):
            reply = await ask(path, "POST", "/v1/pipelines/fixed/learn")
        assert (reply.status, "[pipelines.fixed.learn]" in reply.detail) == (409, True)

    @pytest.mark.parametrize(
        ("body", "told"),
        [
            ({"span": 20}, 'write "20ms" or "20s"'),
            ({"span": "0s"}, "greater than 0"),
            ({"spam": "20s"}, "did you mean 'span'?"),
        ],
    )
    async def test_a_wrong_body_is_422(self, gateway, path, body, told):
        async with serving(gateway, path):
            reply = await ask(path, "POST", "/v1/pipelines/pump/learn", body)
        assert (reply.status, told in reply.detail) == (422, True)
        assert gateway.learned == []

    async def test_each_is_logged_with_uid_pid_and_what(self, gateway, path, caplog):
        caplog.set_level(logging.INFO, "dxad.control")
        async with serving(gateway, path):
            await ask(path, "POST", "/v1/pipelines/pump/learn", {"span": "20s"})
        expected = f'uid {os.geteuid()}, pid {os.getpid()}: /v1/pipelines/pump/learn, done: {{"span":"20s"}}'
        assert expected in caplog.messages

    async def test_web_pages_may_not(self, gateway, path):
        async with serving(gateway, path):
            reply = await ask(path, "POST", "/v1/pipelines/pump/learn", {}, "Origin: http://localhost:8080")
        assert (reply.status, gateway.learned) == (403, [])

    def test_who_may(self):
        root, own, member, other = (Peer(uid, 1, frozenset({7})) for uid in (0, os.geteuid(), 54321, 54321))
        member = Peer(54321, 1, frozenset({7, 0}))
        assert [each.may_change("root") for each in (root, own, member, other)] == [True, True, True, False]

    def test_nobody_is_in_a_group_that_does_not_exist(self):
        assert not Peer(54321, 1, frozenset({0, 7})).may_change("no-such-group")

    @pytest.mark.skipif(os.geteuid() != 0 or CURL is None, reason="only root can be somebody else")
    async def test_who_can_open_the_socket_may_read_and_no_more(self, gateway, path, caplog):
        learn = ("http://dxad/v1/pipelines/pump/learn", "-X", "POST")
        async with serving(gateway, path, group="nogroup"):
            seen = await curl(path, "http://dxad/v1/status", user=NOBODY, group=NOBODY, extra_groups=[])
            refused = await curl(path, *learn, user=NOBODY, group=NOBODY, extra_groups=[])
        assert json.loads(seen) == gateway.status()
        assert json.loads(refused)["status"] == 403
        assert "dxad-admin" in json.loads(refused)["detail"]
        assert gateway.learned == []
        assert f"uid {NOBODY}, pid" in caplog.text

    @pytest.mark.skipif(os.geteuid() != 0 or CURL is None, reason="only root can be somebody else")
    async def test_a_member_of_the_admin_group_may_change(self, gateway, path):
        learn = ("http://dxad/v1/pipelines/pump/learn", "-X", "POST")
        async with serving(gateway, path, group="nogroup", admin_group="daemon"):
            await curl(path, *learn, user=NOBODY, group=NOBODY, extra_groups=["daemon"])
        assert gateway.learned == [("pump", None)]

    @pytest.mark.skipif(os.geteuid() != 0 or CURL is None, reason="only root can be somebody else")
    async def test_who_is_not_in_the_group_cannot_even_connect(self, gateway, path):
        async with serving(gateway, path):
            assert (
                await curl(path, "http://dxad/v1/status", user=NOBODY, group=NOBODY, extra_groups=[]) == b""
            )


class TestBounds:
    async def test_a_head_that_does_not_come_is_not_waited_for(self, gateway, path):
        async with serving(gateway, path, limits=Limits(head_s=0.1)), connected(path) as (reader, writer):
            writer.write(b"GET /v1/sta")
            async with asyncio.timeout(2):
                assert await hear(reader) == b""

    async def test_nor_one_that_comes_letter_by_letter_after_a_good_request(self, gateway, path):
        limits = Limits(head_s=0.2)
        async with serving(gateway, path, limits=limits) as control, connected(path) as (reader, writer):
            writer.write(b"GET /v1/sources HTTP/1.1\r\nHost: x\r\n\r\n")
            await reader.readuntil(b"}}\n")
            async with asyncio.timeout(3):
                writer.write(b"GET /")
                while control._clients:
                    writer.write(b"x")
                    await asyncio.sleep(0.05)

    async def test_a_body_that_does_not_come_is_408(self, gateway, path):
        head = b"POST /v1/query HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 10\r\n\r\n{"
        async with serving(gateway, path, limits=Limits(body_s=0.1)):
            assert (await say(path, head)).status == 408

    async def test_answers_that_are_not_taken_end_the_connection(self, gateway, path):
        gateway.extra = {"long": "x" * 5_000_000}
        async with serving(gateway, path, limits=Limits(request_s=0.2)) as control:
            with asking_and_not_listening(path):
                await soon(lambda: control._clients)
                await soon(lambda: not control._clients)

    async def test_one_client_too_many_is_told_so(self, gateway, path):
        async with serving(gateway, path, limits=Limits(clients=2)) as control:
            async with connected(path), connected(path):
                await soon(lambda: len(control._clients) == 2)
                reply = await ask(path, "GET", "/v1/status")
                assert (reply.status, "2 clients" in reply.detail) == (503, True)
            await soon(lambda: not control._clients)
            assert (await ask(path, "GET", "/v1/status")).status == 200

    async def test_a_storm_of_clients_leaves_room_for_the_next(self, gateway, path):
        async with serving(gateway, path) as control:
            replies = await asyncio.gather(*(ask(path, "GET", "/v1/status") for _ in range(300)))
            await soon(lambda: not control._clients)
            assert {each.status for each in replies} <= {200, 503, 0}  # 0: turned away while it still spoke
            assert (await ask(path, "GET", "/v1/status")).status == 200

    @pytest.mark.parametrize(
        "line", [b"GET /" + b"a" * 10_000_000, b"GET / HTTP/1.1\r\nX: " + b"a" * 10_000_000]
    )
    async def test_a_line_of_10_mb_is_not_read_to_its_end(self, gateway, path, line, caplog):
        async with serving(gateway, path):
            assert (await say(path, line)).status in {400, 0}
            assert (await ask(path, "GET", "/v1/status")).status == 200
        assert not [each for each in caplog.records if each.levelno >= logging.WARNING]

    async def test_headers_without_end_end(self, gateway, path):
        head = b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(100_000))
        async with serving(gateway, path):
            assert (await say(path, head)).status in {400, 0}

    @pytest.mark.parametrize(
        "junk",
        [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\x00" * 9999, b"hello\r\n\r\n", b"\r\n\r\n\r\n?"],
    )
    async def test_junk_is_no_news(self, gateway, path, junk, caplog):
        async with serving(gateway, path, limits=Limits(head_s=0.2)):
            async with connected(path) as (reader, writer):
                writer.write(junk)
                async with asyncio.timeout(2):
                    assert not (await hear(reader)).startswith(b"HTTP/1.1 2")
            assert (await ask(path, "GET", "/v1/status")).status == 200
        assert not [each for each in caplog.records if each.levelno >= logging.WARNING]

    @pytest.mark.parametrize(
        ("target", "size", "status"),
        [
            ("/v1/query", 1_000_000, 200),
            ("/v1/query", 2_000_000, 413),
            ("/v1/pipelines/pump/learn", 100_000, 413),
        ],
    )
    async def test_long_bodies_are_refused(self, gateway, path, target, size, status):
        async with serving(gateway, path):
            reply = await ask(path, "POST", target, {"data": "x" * size})
        assert reply.status == status

    async def test_long_bodies_are_refused_that_do_not_say_how_long_they_are(self, gateway, path):
        head = (
            b"POST /v1/query HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        )
        chunks = b"10000\r\n" + b" " * 65536 + b"\r\n"
        async with serving(gateway, path):
            assert (await say(path, head + chunks * 40)).status == 413

    async def test_and_those_that_are_long_once_they_are_unpacked(self, gateway, path):
        async with serving(gateway, path):
            bomb = gzip.compress(b" " * 20_000_000)
            reply = await ask(path, "POST", "/v1/query", bomb, "Content-Encoding: gzip")
        assert reply.status in {400, 413}

    @pytest.mark.parametrize("lie", [b"Content-Encoding: gzip", b"Transfer-Encoding: chunked"])
    async def test_a_body_that_is_not_what_it_says(self, gateway, path, lie):
        head = b"POST /v1/query HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + lie
        length = b"" if b"chunked" in lie else b"\r\nContent-Length: 6"
        async with serving(gateway, path):
            assert (await say(path, head + length + b"\r\n\r\nzzzzzz")).status == 400


class TestTheSocketFile:
    async def test_is_open_to_its_group_and_nobody_else(self, gateway, path):
        async with serving(gateway, path):
            found = path.stat()
        assert stat.S_IMODE(found.st_mode) == 0o660
        assert found.st_gid == os.getegid()

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
    async def test_belongs_to_the_group_of_the_configuration(self, gateway, path):
        async with serving(gateway, path, group="nogroup"):
            assert path.group() == "nogroup"

    async def test_is_gone_afterwards(self, gateway, path):
        async with serving(gateway, path):
            assert path.is_socket()
        assert not path.exists()

    async def test_makes_the_folder_it_needs(self, gateway, path):
        async with serving(gateway, path.parent / "run" / "dxad" / "control.sock"):
            assert (path.parent / "run" / "dxad").is_dir()

    async def test_of_a_daemon_that_was_killed_is_replaced(self, gateway, path):
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
        async with serving(gateway, path):
            assert (await ask(path, "GET", "/v1/health")).status == 200

    async def test_of_a_living_daemon_is_left_alone(self, gateway, path):
        async with serving(gateway, path):
            with pytest.raises(ConfigError, match=rf"another dxad .* pid {os.getpid()}"):
                await Control(gateway, ControlSection(socket=path)).start()
            assert (await ask(path, "GET", "/v1/health")).status == 200

    async def test_of_a_living_daemon_that_is_too_busy_to_answer_likewise(self, gateway, path):
        with socket.socket(socket.AF_UNIX) as alive, socket.socket(socket.AF_UNIX) as waiting:
            alive.bind(str(path))
            alive.listen(0)
            waiting.connect(str(path))
            with pytest.raises(ConfigError, match="is busy"):
                await Control(gateway, ControlSection(socket=path)).start()
            assert path.is_socket()

    async def test_does_not_replace_what_is_no_socket(self, gateway, path):
        path.write_text("precious")
        with pytest.raises(ConfigError, match="left alone"):
            await Control(gateway, ControlSection(socket=path)).start()
        assert path.read_text() == "precious"

    async def test_of_a_successor_is_not_removed(self, gateway, path):
        async with serving(gateway, path):
            path.rename(path.with_suffix(".old"))
            path.write_text("the successor's")
        assert path.exists()

    @pytest.mark.parametrize(
        ("wrong", "told"),
        [
            ({"group": "no-such-group"}, "no group 'no-such-group'"),
            ({"socket": Path("/proc/x/control.sock")}, "/proc"),
        ],
    )
    async def test_that_cannot_be_made_is_a_mistake_of_the_configuration(self, gateway, path, wrong, told):
        with pytest.raises(ConfigError, match=told):
            await Control(gateway, ControlSection(**{"socket": path, **wrong})).start()
        assert not path.exists()

    async def test_has_a_path_of_107_bytes_at_most(self, gateway, path):
        with pytest.raises(ConfigError, match="too long"):
            await Control(gateway, ControlSection(socket=path.with_name("x" * 200))).start()


class TestTheEnd:
    async def test_comes_twice_and_without_a_start(self, gateway, path):
        control = Control(gateway, ControlSection(socket=path))
        await control.close()
        await control.start()
        await control.close()
        await control.close()

    async def test_comes_while_clients_are_connected(self, gateway, path):
        async with connected_after(gateway, path) as (control, readers):
            await control.close()
            assert control._clients == set()
            assert [await hear(each) for each in readers] == [b"", b"", b""]

    async def test_comes_while_a_client_does_not_take_its_answer(self, gateway, path):
        gateway.extra = {"long": "x" * 5_000_000}
        control = Control(gateway, ControlSection(socket=path), limits=Limits(shutdown_s=0.1))
        await control.start()
        with asking_and_not_listening(path):
            await soon(lambda: control._clients)
            await asyncio.sleep(0.05)
            async with asyncio.timeout(2):
                await control.close()

    async def test_leaves_no_timer(self, gateway, path):
        async with connected_after(gateway, path) as (control, _):
            await ask(path, "GET", "/v1/status")
            await control.close()
        assert [each for each in asyncio.get_running_loop()._scheduled if not each.cancelled()] == []

    async def test_waits_for_a_query_but_not_for_long(self, gateway, path):
        gateway.busy.clear()
        control = Control(gateway, ControlSection(socket=path), limits=Limits(shutdown_s=0.1))
        await control.start()
        asking = asyncio.create_task(ask(path, "POST", "/v1/query", {}))
        await soon(lambda: control._clients)
        await asyncio.sleep(0.05)
        async with asyncio.timeout(1):
            await control.close()
        await asyncio.wait([asking])
        asking.exception()

    async def test_lets_a_query_finish_that_is_almost_done(self, gateway, path):
        gateway.busy.clear()
        control = Control(gateway, ControlSection(socket=path))
        await control.start()
        asking = asyncio.create_task(ask(path, "POST", "/v1/query", {}))
        await soon(lambda: control._clients)
        await asyncio.sleep(0.05)
        asyncio.get_running_loop().call_later(0.05, gateway.busy.set)
        await control.close()
        assert (await asking).status == 200


@asynccontextmanager
async def connected_after(gateway, path):
    control = Control(gateway, ControlSection(socket=path))
    await control.start()
    async with (
        connected(path) as (idle, _),
        connected(path) as (half, writer),
        connected(path) as (silent, _),
    ):
        writer.write(b"GET /v1")
        await soon(lambda: len(control._clients) == 3)
        yield control, (idle, half, silent)


def test_aiohttp_is_not_imported_before_it_is_needed():
    code = "import sys, dxad.control; sys.exit('aiohttp' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
