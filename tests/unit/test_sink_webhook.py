"""What a webhook makes of an event, and of what it is answered."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from pydantic import ValidationError

from dxad.errors import Backoff, ConfigError, NotConnected, Rejected
from dxad.event import Event, to_record
from dxad.placeholders import Template
from dxad.sinks.webhook import Config, Webhook
from dxad.types import Lane, Record
from tests.httppeers import Receiver, answering, record


@pytest.fixture
def peer() -> Receiver:
    return Receiver()


@asynccontextmanager
async def connected(url: str, **config: object) -> AsyncIterator[Webhook]:
    settings = Config.model_validate({"type": "webhook", "url": url, **config})
    sink = Webhook("s", settings, state_dir=Path("/nonexistent"), gateway="gw3")
    await sink.connect()
    try:
        yield sink
    finally:
        await sink.close()


def incident() -> Record:
    data = {
        "severity": "high",
        "pipeline": "pump",
        "peak_score": 4.5,
        "first_out": {"channel": "plc.flow"},
        "contributors": [{"channel": "plc.flow", "share": 0.75}],
    }
    event = Event(
        "a1", "dxad.incident.opened", "/gw3/pipelines/pump", 1, data, subject="i/7", lane=Lane.CRITICAL
    )
    return to_record(event)


async def test_without_a_body_of_its_own_the_request_is_the_event(peer):
    async with answering(peer.take) as url, connected(url) as sink:
        await sink.write([incident()])
    ((method, headers, body),) = peer.requests
    assert (method, headers["Content-Type"]) == ("POST", "application/cloudevents+json")
    assert body["id"] == "a1"


async def test_a_table_becomes_json_with_the_places_filled(peer):
    body = {
        "text": "{severity} on {gateway}/{pipeline}: {data.first_out.channel} {{now}}",
        "score": "{data.peak_score}",
        "share": "{data.contributors.0.share}",
        "missing": "{data.nothing.here}",
        "none of it": "<{data.nothing}>",
        "tags": ["{type}", "{lane}", 7],
        "raw": {"event": "{data.first_out}", "all": "{event.subject}"},
    }
    async with answering(peer.take) as url, connected(url, method="PUT", body=body) as sink:
        await sink.write([incident()])
    ((method, headers, filled),) = peer.requests
    assert (method, headers["Content-Type"]) == ("PUT", "application/json")
    assert filled == {
        "text": "high on gw3/pump: plc.flow {now}",
        "score": 4.5,
        "share": 0.75,
        "missing": None,
        "none of it": "<>",
        "tags": ["dxad.incident.opened", "critical", 7],
        "raw": {"event": {"channel": "plc.flow"}, "all": "i/7"},
    }


async def test_a_text_is_sent_as_such_and_a_value_cannot_break_out_of_its_string(peer):
    seen = []

    async def handler(request: web.Request) -> web.Response:
        seen.append((request.content_type, await request.text()))
        return web.Response()

    async with answering(handler) as url, connected(url, body="{id} {data.first_out}") as sink:
        await sink.write([incident()])
    assert seen == [("text/plain", 'a1 {"channel":"plc.flow"}')]
    async with answering(peer.take) as url, connected(url, body={"text": "{data.text}!"}) as sink:
        await sink.write([record("b", text='", "admin": true, "x": "')])
    assert peer.bodies == [{"text": '", "admin": true, "x": "!'}]


async def test_a_path_may_name_the_event_and_stays_one_level():
    paths = []

    async def handler(request: web.Request) -> web.Response:
        paths.append(request.raw_path)
        return web.Response()

    app_url = "{subject}?of={pipeline}"
    async with answering(handler, path="/events/{tail:.*}") as url, connected(f"{url}/{app_url}") as sink:
        await sink.write([incident()])
    assert paths == ["/events/i%2F7?of=pump"]


async def test_each_event_is_a_request_with_a_key_that_stays_the_same(peer):
    peer.answers = [200, 503, 200, 200]
    async with answering(peer.take) as url, connected(url) as sink:
        with pytest.raises(NotConnected) as told:
            await sink.write([record("a"), record("b")])
        assert told.value.taken == 1
        await sink.write([record("b")])
    first, lost, again = peer.header("Idempotency-Key")
    assert lost == again != first


async def test_a_chat_that_takes_few_a_minute_gets_each_event_once():
    taken, room = [], 2

    async def handler(request: web.Request) -> web.Response:
        nonlocal room
        if not room:
            return web.Response(status=429, headers={"Retry-After": "30"})
        room -= 1
        taken.append((await request.json())["id"])
        return web.Response()

    events = [record(str(n)) for n in range(5)]
    async with answering(handler) as url, connected(url) as sink:
        while events:
            try:
                await sink.write(events)
            except Backoff as error:
                events, room = events[error.taken :], 2
            else:
                events = []
    assert taken == ["0", "1", "2", "3", "4"]


async def test_what_the_peer_finds_fault_with_is_rejected_and_its_neighbours_are_taken(peer):
    peer.answers = [200, 400, 200]
    async with answering(peer.take) as url, connected(url) as sink:
        with pytest.raises(Rejected, match="400") as told:
            await sink.write([record("a"), record("b"), record("c")])
    assert told.value.indices == (1,)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"body": {"a": {"b": ["{pipelin}"]}}}, "a.b.0: '{pipelin}': there is no {pipelin}; known:"),
        ({"body": "{severity"}, "a brace that is meant is written twice"),
        ({"body": {"x": "{severity:>5}"}}, "stands alone, without a format"),
        ({"url": "http://{gateway}.example/"}, "its host is one for all events"),
        ({"url": "http://host/{nothing}"}, "there is no {nothing}"),
        ({"method": "GET"}, "'POST', 'PUT' or 'PATCH'"),
    ],
)
def test_what_cannot_be_filled_is_refused_at_check(settings, says):
    with pytest.raises(ValidationError) as told:
        Config.model_validate({"type": "webhook", "url": "http://h/", **settings})
    assert says in str(told.value)


def test_a_template_names_its_places():
    assert Template("a/{x}/{y.z}", ["x"], deep=["y"]).places == {"x", "y.z"}
    with pytest.raises(ConfigError, match=r"known: \{x\}, \{y\.…\}"):
        Template("{z}", ["x"], deep=["y"])
