"""What the HTTP sink makes of each answer, from servers on loopback."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web
from pydantic import ValidationError

from dxad.errors import Backoff, ConfigError, NotConnected, Rejected
from dxad.sinks.http import Config, Http
from dxad.types import Record
from tests.httppeers import always, answering, record, saying

pytestmark = pytest.mark.one_loop


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
            (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "the answer is no HTTP: Bad status line"),
            (b"\x00\xff" * 100, "the answer is no HTTP"),
            (b"", "hung up without an answer"),
            (b"HTTP/1.1 200 OK\r\nContent-Le", "hung up without an answer"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly so far", "the answer breaks off"),
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

    async def test_plain_http_where_tls_is_asked_for(self):
        hello = b"\x16"
        async with (
            saying(b"HTTP/1.1 400 Bad Request\r\n\r\n", after=hello) as url,
            connected(url.replace("http:", "https:")) as sink,
        ):
            with pytest.raises(NotConnected, match="does not speak TLS on this port"):
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
