"""What the control socket answers, asked over a real Unix socket."""

import asyncio
import json
import logging
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from dxad.control import openapi, routes
from dxad.control.peer import Peer
from tests.unit.control.asking import ask, connected, serving, soon

CURL = shutil.which("curl")
NOBODY = 65534


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
        ],
    )
    async def test_parts_of_it_have_the_names_they_have_there(self, gateway, path, target, keys):
        async with serving(gateway, path):
            reply = await ask(path, "GET", target)
        assert reply.json == {key: gateway.status()[key] for key in keys}

    async def test_one_pipeline_by_name(self, gateway, path):
        async with serving(gateway, path):
            assert (await ask(path, "GET", "/v1/pipelines/pump")).json == {"score": 0.5}

    @pytest.mark.parametrize("kind", ["sources", "pipelines"])
    async def test_rows_are_asked_for_by_cursor(self, gateway, path, kind):
        name = {"sources": "plc", "pipelines": "pump"}[kind]
        async with serving(gateway, path):
            some = await ask(path, "GET", f"/v1/{kind}/{name}/rows?from=17&limit=5")
            all_of_them = await ask(path, "GET", f"/v1/{kind}/{name}/rows")
            nobody = await ask(path, "GET", f"/v1/{kind}/none/rows")
        assert some.json == {"of": name, "from": 17, "limit": 5}
        assert all_of_them.json == {"of": name, "from": None, "limit": 10_000}
        assert nobody.status == 404
        assert f"there is only {name}" in nobody.detail

    @pytest.mark.parametrize(
        ("query", "detail"),
        [
            ("from=-1", "from: Input should be greater than or equal to 0"),
            ("limit=many", "limit: Input should be a valid integer"),
            ("form=1", "form: unknown key, did you mean 'from'?"),
        ],
    )
    async def test_what_stands_behind_the_question_mark_is_checked(self, gateway, path, query, detail):
        async with serving(gateway, path):
            reply = await ask(path, "GET", f"/v1/sources/plc/rows?{query}")
        assert reply.status == 422
        assert detail in reply.detail

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
            reply = await ask(
                path,
                route.method,
                route.path.replace("{name}", "plc" if "/sources/" in route.path else "pump"),
                route.example,
            )
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


class TestAlarms:
    async def test_are_listed(self, gateway, path):
        async with serving(gateway, path):
            reply = await ask(path, "GET", "/v1/alarms")
        assert reply.json == {"alarms": [{"id": "pump", "state": "unacknowledged"}]}

    @pytest.mark.parametrize("action", ["ack", "unshelve", "out_of_service", "in_service"])
    async def test_are_acted_on_without_a_body(self, gateway, path, action):
        async with serving(gateway, path):
            reply = await ask(path, "POST", f"/v1/alarms/pump/{action}")
        assert (reply.status, reply.json["state"]) == (200, action)
        assert gateway.acts == [("pump", action, None)]

    async def test_are_shelved_for_a_time(self, gateway, path):
        async with serving(gateway, path):
            assert (await ask(path, "POST", "/v1/alarms/pump/shelve", {"for": "90s"})).status == 200
            for body in ({}, {"for": "0s"}, {"for": "8d"}, {"for": 60}, {"until": "1h"}):
                assert (await ask(path, "POST", "/v1/alarms/pump/shelve", body)).status == 422, body
        assert gateway.acts == [("pump", "shelve", 90.0)]

    async def test_that_do_not_exist_are_404_and_those_in_no_state_for_it_409(self, gateway, path):
        async with serving(gateway, path):
            reply = await ask(path, "POST", "/v1/alarms/pmp/ack")
            assert (reply.status, "did you mean pump" in reply.detail) == (404, True)
            assert (await ask(path, "POST", "/v1/alarms/pump/ack")).status == 200
            reply = await ask(path, "POST", "/v1/alarms/pump/ack")
        assert (reply.status, "nothing to acknowledge" in reply.detail) == (409, True)

    async def test_a_body_that_says_what_nobody_asked_is_refused(self, gateway, path):
        async with serving(gateway, path):
            assert (await ask(path, "POST", "/v1/alarms/pump/ack", {"for": "1h"})).status == 422
        assert gateway.acts == []


class TestIncidents:
    async def test_are_listed_in_brief_and_shown_one_by_one(self, gateway, path):
        async with serving(gateway, path):
            brief = (await ask(path, "GET", "/v1/incidents")).json["incidents"]
            whole = (await ask(path, "GET", "/v1/incidents/pump")).json
            missing = await ask(path, "GET", "/v1/incidents/fan")
        assert brief == [{"incident": "pump", "state": "open", "phase": "opened", "kind": "process"}]
        assert whole["series"] == {"after_onset_s": []}
        assert missing.status == 404

    async def test_have_their_rows_as_json_or_csv(self, gateway, path):
        async with serving(gateway, path):
            as_json = await ask(path, "GET", "/v1/incidents/pump/window?rows=7")
            as_csv = await ask(path, "GET", "/v1/incidents/pump/window?format=csv")
            missing = await ask(path, "GET", "/v1/incidents/fan/window")
        assert as_json.json == {"incident": "pump", "rows": 7}
        assert (as_csv.headers["content-type"], as_csv.body) == ("text/csv; charset=utf-8", b"time,score\n")
        assert (missing.status, "no rows are stored" in missing.detail) == (404, True)

    @pytest.mark.parametrize("query", ["rows=0", "rows=x", "format=xml", "row=5"])
    async def test_a_question_that_is_none_is_refused(self, gateway, path, query):
        async with serving(gateway, path):
            assert (await ask(path, "GET", f"/v1/incidents/pump/window?{query}")).status == 422


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
            ({"span": "0s"}, "'0s' is not more than 0s"),
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

    @pytest.mark.parametrize(("body", "dry_run"), [(None, False), ({}, False), ({"dry_run": True}, True)])
    async def test_a_reload_answers_when_it_is_done(self, gateway, path, body, dry_run):
        async with serving(gateway, path):
            reply = await ask(path, "POST", "/v1/reload", body)
        assert (reply.status, reply.json["applied"], gateway.reloaded) == (200, not dry_run, [dry_run])

    async def test_a_configuration_that_is_refused_is_422_with_every_mistake_on_a_line(self, gateway, path):
        gateway.mistakes = "dxad.toml:3: a: wrong\ndxad.toml:4: b: wrong too"
        async with serving(gateway, path):
            reply = await ask(path, "POST", "/v1/reload")
        assert (reply.status, reply.detail) == (422, gateway.mistakes)

    async def test_a_reload_takes_no_words_it_does_not_know(self, gateway, path):
        async with serving(gateway, path):
            reply = await ask(path, "POST", "/v1/reload", {"dryrun": True})
        assert (reply.status, "did you mean 'dry_run'?" in reply.detail) == (422, True)
        assert gateway.reloaded == []

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
