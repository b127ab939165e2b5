"""What the HTTP sink makes of each answer, from servers on loopback."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web
from pydantic import ValidationError

from dxad.errors import Backoff, ConfigError, NotConnected, Rejected
from dxad.event import Event, to_record
from dxad.sinks.http import Config, Http
from dxad.types import Record

Handler = Callable[[web.Request], Awaitable[web.Response]]


def record(id_: str, **data: object) -> Record:
    return to_record(Event(id_, "dxad.test", "/gw/pipelines/p", 1_700_000_000_123_456_789, data))


@asynccontextmanager
async def answering(handler: Handler) -> AsyncIterator[str]:
    """An HTTP server; gives its URL."""
    app = web.Application()
    app.router.add_post("/events", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/events"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def saying(
    reply: bytes, *, after: bytes = b"\r\n\r\n", hang: bool = False, tls: ssl.SSLContext | None = None
) -> AsyncIterator[str]:
    """A server that answers whatever comes with these bytes, and then hangs up, or does not."""
    done = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(after)
        writer.write(reply)
        if hang:
            await done.wait()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}/events"
    finally:
        done.set()
        server.close()
        await server.wait_closed()


@asynccontextmanager
async def connected(url: str, **config: object) -> AsyncIterator[Http]:
    sink = Http(
        "s", Config.model_validate({"type": "http", "url": url, **config}), state_dir=Path("/nonexistent")
    )
    await sink.connect()
    try:
        yield sink
    finally:
        await sink.close()


def always(status: int, text: str = "", **headers: str) -> Handler:
    async def handler(_: web.Request) -> web.Response:
        return web.Response(
            status=status, text=text, headers={name.replace("_", "-"): each for name, each in headers.items()}
        )

    return handler


class TestTaken:
    @pytest.mark.parametrize("status", [200, 201, 202, 204])
    async def test_any_2xx_acknowledges(self, status):
        async with answering(always(status)) as url, connected(url) as sink:
            await sink.write([record("a")])

    async def test_a_batch_is_one_post_of_cloud_events(self):
        seen = []

        async def handler(request: web.Request) -> web.Response:
            seen.append((request.content_type, dict(request.headers), await request.json()))
            return web.Response()

        async with (
            answering(handler) as url,
            connected(url, headers={"X-Plant": "7"}) as sink,
        ):
            await sink.write([record("a", flow=1.5), record("b")])
        ((content_type, headers, events),) = seen
        assert content_type == "application/cloudevents-batch+json"
        assert headers["X-Plant"] == "7"
        assert events[0] == {
            "specversion": "1.0",
            "id": "a",
            "type": "dxad.test",
            "source": "/gw/pipelines/p",
            "time": "2023-11-14T22:13:20.123456Z",
            "datacontenttype": "application/json",
            "data": {"flow": 1.5},
        }
        assert events[1]["id"] == "b"

    async def test_with_batch_1_each_event_is_a_post_of_its_own(self):
        seen = []

        async def handler(request: web.Request) -> web.Response:
            seen.append((request.content_type, (await request.json())["id"]))
            return web.Response()

        async with answering(handler) as url, connected(url, batch=1) as sink:
            await sink.write([record("a"), record("b")])
        assert seen == [("application/cloudevents+json", "a"), ("application/cloudevents+json", "b")]

    async def test_the_bearer_token_is_read_at_connect(self, tmp_path):
        seen = []

        async def handler(request: web.Request) -> web.Response:
            seen.append(request.headers["Authorization"])
            return web.Response()

        token = tmp_path / "token"
        token.write_text("s3cret\n")
        async with answering(handler) as url, connected(url, bearer={"file": str(token)}) as sink:
            await sink.write([record("a")])
            token.write_text("rotated\n")
            await sink.connect()
            await sink.write([record("a")])
        assert seen == ["Bearer s3cret", "Bearer rotated"]

    async def test_a_missing_token_is_a_config_error(self, tmp_path):
        with pytest.raises(ConfigError, match="token"):
            async with connected("http://127.0.0.1:1/", bearer={"file": str(tmp_path / "token")}):
                pass


class TestPoison:
    @pytest.mark.parametrize("status", [400, 413, 422])
    async def test_is_isolated_and_its_neighbours_are_delivered(self, status):
        taken: list[str] = []

        async def handler(request: web.Request) -> web.Response:
            ids = [each["id"] for each in await request.json()]
            if {"3", "6"} & set(ids):
                return web.Response(status=status, text="a field is missing")
            taken.extend(ids)
            return web.Response()

        async with answering(handler) as url, connected(url) as sink:
            with pytest.raises(Rejected) as caught:
                await sink.write([record(str(n)) for n in range(8)])
        assert caught.value.indices == (3, 6)
        assert f"{status}" in caught.value.reason
        assert "a field is missing" in caught.value.reason
        assert taken == ["0", "1", "2", "4", "5", "7"]

    async def test_too_large_a_batch_arrives_in_parts(self):
        taken: list[str] = []

        async def handler(request: web.Request) -> web.Response:
            events = await request.json()
            if len(events) > 3:
                return web.Response(status=413)
            taken.extend(each["id"] for each in events)
            return web.Response()

        async with answering(handler) as url, connected(url) as sink:
            await sink.write([record(str(n)) for n in range(8)])
        assert taken == [str(n) for n in range(8)]

    async def test_trouble_while_isolating_has_all_sent_again(self):
        answers = iter([400, 200, 500])

        async def handler(_: web.Request) -> web.Response:
            return web.Response(status=next(answers))

        async with answering(handler) as url, connected(url) as sink:
            with pytest.raises(NotConnected, match="500"):
                await sink.write([record("a"), record("b")])

    async def test_what_is_no_json_is_rejected_without_asking(self):
        async with answering(always(200)) as url, connected(url) as sink:
            for bad in (record("bad", raw=b"\x00"), Record("bad", record("x").lane, b"\xc1")):
                with pytest.raises(Rejected) as caught:
                    await sink.write([record("a"), bad])
                assert caught.value.indices == (1,)


class TestTrouble:
    @pytest.mark.parametrize("status", [301, 302, 307, 401, 403, 404, 405, 409, 410, 415, 500, 502, 503, 504])
    async def test_may_heal_and_costs_no_records(self, status):
        async with (
            answering(always(status, "says the server", Location="http://elsewhere/")) as url,
            connected(url) as sink,
        ):
            with pytest.raises(NotConnected, match=f"{status} .*: says the server"):
                await sink.write([record("a")])

    @pytest.mark.parametrize("status", [429, 503])
    async def test_with_a_time_to_come_back_is_a_backoff(self, status):
        async with answering(always(status, Retry_After="17")) as url, connected(url) as sink:
            with pytest.raises(Backoff) as caught:
                await sink.write([record("a")])
        assert caught.value.seconds == 17

    async def test_a_date_to_come_back_is_held_against_the_peers_own_clock(self):
        now = datetime(1999, 12, 31, 23, 0, tzinfo=UTC)
        text = "%a, %d %b %Y %H:%M:%S GMT"
        headers = {"Date": now.strftime(text), "Retry_After": (now + timedelta(seconds=40)).strftime(text)}
        async with answering(always(503, **headers)) as url, connected(url) as sink:
            with pytest.raises(Backoff) as caught:
                await sink.write([record("a")])
        assert caught.value.seconds == 40

    @pytest.mark.parametrize("nonsense", ["soon", "-5", "", "1e9"])
    async def test_a_senseless_time_is_none(self, nonsense):
        async with answering(always(429, Retry_After=nonsense)) as url, connected(url) as sink:
            with pytest.raises(NotConnected, match="429"):
                await sink.write([record("a")])

    async def test_nobody_is_sent_away_for_years(self):
        async with answering(always(429, Retry_After="99999999")) as url, connected(url) as sink:
            with pytest.raises(Backoff) as caught:
                await sink.write([record("a")])
        assert caught.value.seconds == 3600

    async def test_no_server(self, free_port):
        async with connected(f"http://127.0.0.1:{free_port}/events") as sink:
            with pytest.raises(NotConnected, match=r"^POST http://127.0.0.1:\d+/\S*: Connection refused$"):
                await sink.write([record("a")])

    async def test_no_such_host(self):
        async with connected("http://no.such.host.invalid/events") as sink:
            with pytest.raises(NotConnected, match=r"no\.such\.host\.invalid"):
                await sink.write([record("a")])

    @pytest.mark.parametrize(
        ("reply", "message"),
        [
            (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "POST http"),
            (b"\x00\xff" * 100, "POST http"),
            (b"", "hung up without an answer"),
            (b"HTTP/1.1 200 OK\r\nContent-Le", "hung up without an answer"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly so far", "POST http"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000, "does not end"),
        ],
        ids=["another protocol", "binary", "nothing", "half a head", "half a body", "endless"],
    )
    async def test_nonsense_acknowledges_nothing(self, reply, message):
        async with saying(reply) as url, connected(url) as sink:
            with pytest.raises(NotConnected, match=message):
                await sink.write([record("a")])

    async def test_silence(self):
        async with saying(b"", hang=True) as url, connected(url, timeout="100ms") as sink:
            with pytest.raises(NotConnected, match=r"no answer within 0\.1 s"):
                await sink.write([record("a")])

    async def test_silence_in_the_middle_of_an_answer(self):
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab"
        async with saying(head, hang=True) as url, connected(url, timeout="100ms") as sink:
            with pytest.raises(NotConnected, match=r"no answer within 0\.1 s"):
                await sink.write([record("a")])

    async def test_a_certificate_nobody_vouches_for(self, self_signed):
        async with saying(b"", tls=self_signed) as url, connected(url) as sink:
            with pytest.raises(NotConnected, match="certificate verify failed"):
                await sink.write([record("a")])

    async def test_plain_http_where_tls_is_asked_for(self):
        hello = b"\x16"
        async with (
            saying(b"HTTP/1.1 400 Bad Request\r\n\r\n", after=hello) as url,
            connected(url.replace("http:", "https:")) as sink,
        ):
            with pytest.raises(NotConnected, match=r"(?i)wrong.version"):
                await sink.write([record("a")])


class TestConfig:
    @pytest.mark.parametrize(
        "wrong",
        [
            {"url": "ftp://host/"},
            {"url": "https://user:password@host/"},
            {"url": "host:8080"},
            {"timeout": "0s"},
            {"headers": {"X-Bad": "two\r\nlines"}},
            {"headers": {"two words": "x"}},
            {"bearer": "secret in the file"},
        ],
        ids=str,
    )
    def test_refuses(self, wrong):
        with pytest.raises(ValidationError):
            Config.model_validate({"type": "http", "url": "http://host/", **wrong})


@pytest.fixture(scope="session")
def self_signed(tmp_path_factory) -> ssl.SSLContext:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context
