"""How the HTTP sink puts events into requests, whom it trusts, and what it learns from answers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from pydantic import ValidationError

from dxad.errors import Backoff, ConfigError, NotConnected, Rejected
from dxad.event import Event, to_record
from dxad.sinks.http import Config, Http
from hw_sim import pki
from tests.certificates import expired
from tests.httppeers import Receiver, always, answering, record, saying
from tests.peers import listening

pytestmark = pytest.mark.one_loop


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """An authority, a server's certificate on loopback, a client's."""
    return pki.make(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def peer() -> Receiver:
    return Receiver()


@asynccontextmanager
async def connected(url: str, **config: object) -> AsyncIterator[Http]:
    settings = Config.model_validate({"type": "http", "url": url, **config})
    sink = Http("s", settings, state_dir=Path("/nonexistent"))
    await sink.connect()
    try:
        yield sink
    finally:
        await sink.close()


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def many(count: int, **data: object) -> list:
    return [record(str(n), **data) for n in range(count)]


class TestModes:
    async def test_structured_is_one_event_in_each_request(self, peer):
        async with answering(peer.take) as url, connected(url, mode="structured") as sink:
            await sink.write(many(3))
        assert peer.header("Content-Type") == ["application/cloudevents+json"] * 3
        assert peer.ids == ["0", "1", "2"]

    async def test_binary_has_the_data_as_body_and_the_rest_in_headers(self, peer):
        event = Event("a", "dxad.test", "/gw/ü%/p", 1_700_000_000_123_456_789, {"flow": 1.5}, subject='"1 2"')
        async with answering(peer.take) as url, connected(url, mode="binary") as sink:
            await sink.write([to_record(event)])
        ((_, headers, body),) = peer.requests
        assert body == {"flow": 1.5}
        assert headers["Content-Type"] == "application/json"
        assert {name: each for name, each in headers.items() if name.startswith("ce-")} == {
            "ce-specversion": "1.0",
            "ce-id": "a",
            "ce-type": "dxad.test",
            "ce-source": "/gw/%C3%BC%25/p",
            "ce-time": "2023-11-14T22:13:20.123456Z",
            "ce-subject": "%221%202%22",
        }

    async def test_a_failure_in_the_middle_says_how_many_the_peer_has(self, peer):
        peer.answers = [200, 200, 500]
        async with answering(peer.take) as url, connected(url, mode="structured") as sink:
            with pytest.raises(NotConnected) as told:
                await sink.write(many(5))
        assert told.value.taken == 2

    async def test_what_was_refused_before_the_failure_does_not_count_as_taken(self, peer):
        peer.answers = [200, 400, 200, 500]
        async with answering(peer.take) as url, connected(url, mode="binary") as sink:
            with pytest.raises(NotConnected) as told:
                await sink.write(many(5))
        assert told.value.taken == 1

    async def test_what_was_taken_while_halves_were_tried_counts(self, peer):
        peer.answers = [400, 200, 400, 200, 500]  # all; 0-3; 4-7; 4-5; 6-7
        async with answering(peer.take) as url, connected(url) as sink:
            with pytest.raises(NotConnected) as told:
                await sink.write(many(8))
        assert told.value.taken == 6

    async def test_a_limit_of_the_peer_s_in_the_middle_says_so_too(self):
        left = 3

        async def handler(_: web.Request) -> web.Response:
            nonlocal left
            left -= 1
            return web.Response() if left >= 0 else web.Response(status=429, headers={"Retry-After": "9"})

        async with answering(handler) as url, connected(url, mode="structured") as sink:
            with pytest.raises(Backoff) as told:
                await sink.write(many(5))
        assert (told.value.seconds, told.value.taken) == (9, 3)


class TestCompression:
    async def test_a_body_is_sent_as_gzip_where_that_is_asked_for(self, peer):
        async with answering(peer.take) as url, connected(url, compress="gzip") as sink:
            await sink.write(many(20, text="x" * 100))
        assert peer.header("Content-Encoding") == ["gzip"]
        assert int(peer.header("Content-Length")[0] or 0) < 1000
        assert peer.ids == [str(n) for n in range(20)]

    async def test_a_small_one_is_not_worth_it(self, peer):
        async with answering(peer.take) as url, connected(url, compress="gzip") as sink:
            await sink.write(many(1))
        assert peer.header("Content-Encoding") == [None]

    async def test_a_peer_that_does_not_know_it_is_told_of(self):
        async with answering(always(415)) as url, connected(url, compress="gzip") as sink:
            with pytest.raises(NotConnected, match="or no compress"):
                await sink.write(many(20))


class TestIdempotency:
    async def test_the_same_events_have_the_same_key_whatever_was_answered(self, peer):
        peer.answers = [500, 200]
        async with answering(peer.take) as url, connected(url) as sink:
            with pytest.raises(NotConnected):
                await sink.write(many(3))
            await sink.write(many(3))
            await sink.write(many(4))
        first, again, others = peer.header("Idempotency-Key")
        assert first == again != others
        assert len(first.strip('"')) == 32

    async def test_an_event_alone_has_a_key_of_its_own(self, peer):
        async with answering(peer.take) as url, connected(url, mode="binary") as sink:
            await sink.write(many(2))
            await sink.write(many(2))
        keys = peer.header("Idempotency-Key")
        assert keys[:2] == keys[2:]
        assert keys[0] != keys[1]


class TestSize:
    async def test_too_large_a_body_is_remembered(self):
        counts: list[int] = []

        async def handler(request: web.Request) -> web.Response:
            counts.append(len(await request.json()))
            return web.Response(status=413 if request.content_length > 2000 else 200)

        async with answering(handler) as url, connected(url) as sink:
            await sink.write(many(16))
            first, counts[:] = list(counts), []
            await sink.write(many(16))
            assert first[0] == 16
            assert sum(counts) == 16
            assert max(counts) < 16
            assert 16 not in counts

    async def test_one_event_that_is_too_large_alone_is_rejected(self):
        async def handler(request: web.Request) -> web.Response:
            return web.Response(status=413 if request.content_length > 2000 else 200)

        async with answering(handler) as url, connected(url) as sink:
            with pytest.raises(Rejected, match="413") as told:
                await sink.write([record("a"), record("b", text="x" * 3000), record("c")])
        assert told.value.indices == (1,)

    async def test_no_request_is_larger_than_a_mebibyte_unless_its_one_event_is(self, peer):
        sizes: list[int] = []

        async def handler(request: web.Request) -> web.Response:
            sizes.append(int(request.content_length or 0))
            while await request.content.readany():
                pass
            return web.Response()

        async with answering(handler) as url, connected(url) as sink:
            await sink.write(many(5, text="x" * 400_000))
        assert len(sizes) == 3
        assert max(sizes) <= 2**20


class TestConnections:
    async def test_one_connection_serves_many_writes(self):
        ports: set[int] = set()

        async def handler(request: web.Request) -> web.Response:
            assert request.transport is not None
            ports.add(request.transport.get_extra_info("peername")[1])
            return web.Response()

        async with answering(handler) as url, connected(url) as sink:
            for _ in range(5):
                await sink.write(many(2))
        assert len(ports) == 1

    async def test_one_that_was_closed_while_it_was_idle_is_no_outage(self):
        served: list[int] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            """Answer once, and hang up at the head of the next request."""
            served.append(0)
            while True:
                try:
                    head = await reader.readuntil(b"\r\n\r\n")
                except asyncio.IncompleteReadError:
                    break
                if served[-1]:
                    break
                length = int(head.lower().split(b"content-length: ")[1].split()[0])
                await reader.readexactly(length)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                served[-1] += 1
            writer.close()

        async with listening(serve) as port, connected(f"http://127.0.0.1:{port}/events") as sink:
            for _ in range(3):
                await sink.write(many(1))
        assert served == [1, 1, 1]

    async def test_a_peer_that_answers_drop_by_drop_is_given_up(self):
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            try:
                for each in b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" * 10:
                    writer.write(bytes([each]))
                    await writer.drain()
                    await asyncio.sleep(0.02)
            except ConnectionError:
                pass
            writer.close()

        async with (
            listening(serve) as port,
            connected(f"http://127.0.0.1:{port}/events", timeout="100ms") as sink,
        ):
            with pytest.raises(NotConnected, match=r"no answer within 0\.1 s"):
                await sink.write(many(1))

    async def test_an_answer_that_comes_twice_does_not_count_for_the_next_request(self):
        twice = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" * 2
        requests = 0

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal requests
            await reader.readuntil(b"\r\n\r\n")
            requests += 1
            writer.write(twice if requests == 1 else b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
            await asyncio.sleep(0.05)
            writer.close()

        async with listening(serve) as port, connected(f"http://127.0.0.1:{port}/events") as sink:
            await sink.write(many(1))
            with pytest.raises(NotConnected):
                await sink.write(many(1))

    async def test_a_hundred_connections_leave_nothing_behind(self, peer):
        async with answering(peer.take) as url, connected(url) as sink:
            await sink.write(many(1))
            before = descriptors()
            for _ in range(100):
                await sink.connect()
                await sink.write(many(1))
            await asyncio.sleep(0.01)
            assert descriptors() <= before + 2


class TestWords:
    @pytest.mark.parametrize(
        ("status", "mend"),
        [
            (401, "bearer, basic, or the peer's own list of users"),
            (403, "the peer's access list"),
            (404, "is the path in the url right"),
            (308, r"it has moved to https://elsewhere/; change the url"),
        ],
    )
    async def test_an_answer_that_somebody_has_to_mend_says_how(self, status, mend):
        handler = always(status, Location="https://elsewhere/")
        async with answering(handler) as url, connected(url) as sink:
            with pytest.raises(NotConnected, match=mend):
                await sink.write(many(1))


class TestWhoWeAre:
    async def test_a_name_and_a_password_by_reference(self, peer, tmp_path):
        (tmp_path / "password").write_text("s3crét\n")
        basic = {"username": "gw", "password": {"file": str(tmp_path / "password")}}
        async with answering(peer.take) as url, connected(url, basic=basic) as sink:
            await sink.write(many(1))
        assert peer.header("Authorization") == ["Basic Z3c6czNjcsOpdA=="]

    async def test_both_sides_show_certificates(self, keys, peer, monkeypatch):
        certificate, key = keys.client
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(key.parent))
        context = keys.server_context(client_certificate="required")
        async with answering(peer.take, tls=context) as url:
            ours = {"certificate": {"file": str(certificate)}, "key": {"credential": key.name}}
            async with connected(url, tls={"ca": {"file": str(keys.ca)}, **ours}) as sink:
                await sink.write(many(2))
            async with connected(url, tls={"ca": str(keys.ca)}) as sink:
                with pytest.raises(NotConnected, match="certificate"):
                    await sink.write(many(1))
        assert peer.ids == ["0", "1"]

    async def test_a_missing_file_of_tls_is_named(self):
        with pytest.raises(ConfigError, match=r"tls\.ca: /nowhere/ca\.pem: No such file"):
            async with connected("https://127.0.0.1:1/", tls={"ca": "/nowhere/ca.pem"}):
                pass

    async def test_the_authorities_may_stand_in_a_variable_which_had_better_not_be_empty(
        self, keys, peer, monkeypatch
    ):
        tls = {"ca": {"env": "PLANT_CA"}}
        monkeypatch.setenv("PLANT_CA", keys.ca.read_text())
        async with answering(peer.take, tls=keys.server_context(client_certificate="optional")) as url:
            async with connected(url, tls=tls) as sink:
                await sink.write(many(1))
            monkeypatch.setenv("PLANT_CA", "")
            with pytest.raises(ConfigError, match=r"tls\.ca: \$PLANT_CA: is empty"):
                async with connected(url, tls=tls):
                    pass


class TestWhomItTrusts:
    async def test_an_authority_that_nobody_trusts_is_refused(self, keys):
        context = keys.server_context(client_certificate="optional")
        async with saying(b"", tls=context) as url, connected(url) as sink:
            with pytest.raises(NotConnected, match="its certificate is not to be trusted: "):
                await sink.write(many(1))

    async def test_a_certificate_of_another_host_is_refused_and_a_name_may_be_given(self, keys, peer):
        context = keys.server_context(client_certificate="optional")
        async with answering(peer.take, tls=context) as url:
            async with connected(url, tls={"ca": str(keys.ca), "server_name": "plant.example"}) as sink:
                with pytest.raises(NotConnected, match=r"not valid for 'plant\.example'"):
                    await sink.write(many(1))
            async with connected(url, tls={"ca": str(keys.ca), "server_name": "localhost"}) as sink:
                await sink.write(many(1))
        assert peer.ids == ["0"]

    async def test_nothing_is_ever_sent_in_plain_where_tls_is_meant(self):
        heard: list[bytes] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heard.append(await reader.read(65_536))
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            writer.close()

        async with listening(serve) as port, connected(f"https://127.0.0.1:{port}/events") as sink:
            with pytest.raises(NotConnected, match="it does not speak TLS on this port"):
                await sink.write([record("a", text="CONFIDENTIAL")])
        assert not any(b"CONFIDENTIAL" in each for each in heard)

    async def test_tls_where_plain_is_meant_is_told(self, keys):
        context = keys.server_context(client_certificate="optional")
        async with saying(b"", tls=context) as url, connected(url.replace("https:", "http:")) as sink:
            with pytest.raises(NotConnected):
                await sink.write(many(1))

    async def test_an_expired_certificate_is_refused(self, tmp_path):
        context, old = expired(tmp_path)
        async with saying(b"", tls=context) as url, connected(url, tls={"ca": str(old)}) as sink:
            with pytest.raises(NotConnected, match="certificate has expired"):
                await sink.write(many(1))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"tls": {"ca": "/ca.pem"}}, "tls: the url says http; write https"),
        (
            {
                "bearer": {"env": "T"},
                "basic": {"username": "u", "password": {"env": "P"}},
            },
            "bearer and basic are two logins",
        ),
        ({"mode": "batched"}, "'batch', 'structured' or 'binary'"),
    ],
)
def test_what_does_not_fit_together_is_refused(settings, says):
    with pytest.raises(ValidationError) as told:
        Config.model_validate({"type": "http", "url": "http://h/", **settings})
    assert says in str(told.value)
