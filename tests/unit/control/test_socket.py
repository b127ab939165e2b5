"""How the control socket begins and ends, and what it does with clients that want too much."""

import asyncio
import gzip
import logging
import os
import shutil
import socket
import stat
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from pydantic import ValidationError

from dxad.config import ControlSection
from dxad.control import Control
from dxad.control.limits import Limits
from dxad.errors import ConfigError
from tests.patience import PATIENCE_S
from tests.unit.control.asking import ask, asking_and_not_listening, connected, hear, say, serving, soon

CURL = shutil.which("curl")
NOBODY = 65534


class TestBounds:
    async def test_a_head_that_does_not_come_is_not_waited_for(self, gateway, path):
        async with serving(gateway, path, limits=Limits(head_s=0.1)), connected(path) as (reader, writer):
            writer.write(b"GET /v1/sta")
            async with asyncio.timeout(PATIENCE_S):
                assert await hear(reader) == b""

    async def test_nor_one_that_comes_letter_by_letter_after_a_good_request(self, gateway, path):
        limits = Limits(head_s=0.2)
        async with serving(gateway, path, limits=limits) as control, connected(path) as (reader, writer):
            writer.write(b"GET /v1/sources HTTP/1.1\r\nHost: x\r\n\r\n")
            await reader.readuntil(b"}}\n")
            async with asyncio.timeout(PATIENCE_S):
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

    async def test_events_that_are_leased_and_not_taken_are_free_again(self, gateway, path):
        gateway.consumers.extra = {"long": "x" * 5_000_000}
        lease = b"POST /v1/consumers/agent/lease HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
        async with serving(gateway, path):
            async with connected(path) as (reader, writer):
                writer.write(lease)
                await reader.readexactly(100)
            await soon(lambda: gateway.consumers.done[-1] == ("agent", ["token"]))

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
                async with asyncio.timeout(PATIENCE_S):
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

    def test_has_a_path_of_107_bytes_at_most(self, path):
        with pytest.raises(ValidationError, match="107 bytes at most"):
            ControlSection(socket=path.with_name("x" * 200))


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
            async with asyncio.timeout(PATIENCE_S):
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
        async with asyncio.timeout(PATIENCE_S):
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
