"""What the control socket is asked about the outbox, and what it makes of it."""

from pathlib import Path

import pytest

from tests.unit.control.asking import Remembering, ask, serving


@pytest.fixture
def gateway() -> Remembering:
    return Remembering()


async def test_everything_in_one_answer(gateway, path: Path):
    async with serving(gateway, path):
        reply = await ask(path, "GET", "/v1/outbox")
    assert set(reply.json) == {"outbox", "sinks", "overview"}


async def test_a_question_for_records_is_checked_and_handed_on(gateway, path):
    async with serving(gateway, path):
        reply = await ask(
            path,
            "GET",
            "/v1/outbox/records?lane=bulk&type=dxad.*&since=2h&until=2026-11-25T08:30:00Z&limit=7",
        )
        assert reply.json["records"] == [
            {
                "lanes": ["bulk"],
                "selection": {
                    "types": ["dxad.*"],
                    "severities": [],
                    "subjects": [],
                    "sources": [],
                    "pipelines": [],
                },
                "since": -7_200_000_000_000,
                "until": 1_795_595_400_000_000_000,
                "sink": "",
            }
        ]
        for wrong, told in (
            ("lane=slow", "lane"),
            ("since=yesterday", "neither a duration"),
            ("since=2026-11-25T08:30:00", "no time zone"),
            ("limit=0", "limit"),
            ("colour=red", "unknown key"),
        ):
            refused = await ask(path, "GET", f"/v1/outbox/records?{wrong}")
            assert (refused.status, told in refused.json["detail"]) == (422, True), refused.json


async def test_a_record_that_is_not_there_is_told(gateway, path):
    async with serving(gateway, path):
        assert (await ask(path, "GET", "/v1/outbox/records/none")).status == 404


async def test_dead_letters_are_retried_and_dropped_when_it_is_said_which(gateway, path):
    async with serving(gateway, path):
        assert (await ask(path, "POST", "/v1/outbox/dead_letters/drop", {})).status == 422
        assert (await ask(path, "POST", "/v1/outbox/dead_letters/drop", {"all": True})).status == 200
        assert (await ask(path, "POST", "/v1/outbox/dead_letters/retry", {"numbers": [3, 4]})).status == 200
    assert [(verb, wanted["numbers"]) for verb, wanted in gateway.outbox.done] == [
        ("drop", ()),
        ("retry", (3, 4)),
    ]


async def test_a_replay_needs_a_sink_that_there_is(gateway, path):
    async with serving(gateway, path):
        body = {"sink": "resoning", "since": "2h"}
        reply = await ask(path, "POST", "/v1/outbox/replay", body)
        assert (reply.status, reply.json["detail"]) == (404, "no sink 'resoning'; there are reasoning")
        reply = await ask(path, "POST", "/v1/outbox/replay", {**body, "sink": "reasoning", "lanes": ["bulk"]})
        assert reply.json == {"sink": "reasoning", "records": 1, "dry_run": False}
