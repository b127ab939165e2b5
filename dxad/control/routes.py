"""Every question the control socket answers: one table, and a function for each of its rows.

Nothing here knows of HTTP but the names of methods and the numbers of statuses.
"""

import difflib
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field

from dxad.alarmsection import Action
from dxad.control import openapi
from dxad.control.consumers import CONSUMER_ROUTES
from dxad.control.events import EVENT_ROUTES
from dxad.control.limits import QUERY_BYTES
from dxad.control.outbox import OUTBOX_ROUTES
from dxad.control.problem import Refusal
from dxad.control.route import Answer, Call, Handler, ModelVerb, Route, asked_of, body_of, known, listed
from dxad.errors import ConfigError, ModelError
from dxad.fields import Duration, Section
from dxad.types import NS_PER_S, Document

__all__ = ["ROUTES", "find"]

_CSV_TYPE: Final = "text/csv; charset=utf-8"  # RFC 7111


def find(method: str, path: str) -> tuple[Route, str]:
    """The route that is meant, and the name in the path.

    Raises:
        Refusal: there is none, 404 or 405.
    """
    here = [(route, name) for route in ROUTES if (name := route.match(path)) is not None]
    if not here:
        paths = sorted({route.path for route in ROUTES})
        close = difflib.get_close_matches(path, paths, 1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(paths)}"
        raise Refusal(404, f"no such path; {hint}")
    for route, name in here:
        if route.method == ("GET" if method == "HEAD" else method):
            return route, name
    allowed = ", ".join(route.method for route, _ in here)
    raise Refusal(405, f"{path} takes {allowed}, not {method}", headers={"Allow": allowed})


# -- what is read -----------------------------------------------------------------------------------------


async def _status(call: Call) -> Answer:
    return Answer(call.gateway.status())


async def _health(call: Call) -> Answer:
    status = call.gateway.status()
    wrong = [
        {"code": each["code"], "subject": each["subject"], "detail": each["detail"]}
        for each in status["conditions"]
        if each["severity"] == "error"
    ]
    return Answer(
        {"healthy": not wrong, "state": status["state"], "errors": wrong}, status=503 if wrong else 200
    )


def _part(*keys: str) -> Handler:
    """Answers with these parts of the status, under the names they have there."""

    async def part(call: Call) -> Answer:
        status = call.gateway.status()
        return Answer({key: status[key] for key in keys})

    return part


async def _pipeline(call: Call) -> Answer:
    found: Document = call.gateway.status()["pipelines"][known(call, call.name)]
    return Answer(found)


async def _metrics(call: Call) -> Answer:
    return Answer(call.gateway.metrics())


async def _openapi(_call: Call) -> Answer:
    return Answer(openapi.document(ROUTES))


class _RowsAsked(Section, strict=False):
    """What a question for rows may hold."""

    start: int | None = Field(None, alias="from", ge=0, description="the first slot; without it, the oldest")
    limit: int = Field(10_000, ge=0, description="rows at most; fewer come where they are wide")


async def _source_rows(call: Call) -> Answer:
    names = call.gateway.sources()
    if call.name not in names:
        raise Refusal(404, f"no source {call.name!r}; {listed(names)}")
    asked = asked_of(call, _RowsAsked)
    return Answer(call.gateway.source_rows(call.name, asked.start, asked.limit))


async def _pipeline_rows(call: Call) -> Answer:
    name, asked = known(call, call.name), asked_of(call, _RowsAsked)
    return Answer(call.gateway.pipeline_rows(name, asked.start, asked.limit))


# -- what is asked of a pipeline --------------------------------------------------------------------------


async def _query(call: Call) -> Answer:
    return Answer(await call.gateway.query(known(call, call.name), call.body))


async def _query_one(call: Call) -> Answer:
    request = dict(call.body)
    name = request.pop("pipeline", None)
    if name is None:
        names = call.gateway.pipelines()
        if len(names) != 1:
            raise Refusal(422, f'{listed(names)}; say which is meant, {{"pipeline": "…"}}')
        name = names[0]
    return Answer(await call.gateway.query(known(call, name), request))


class _Learn(Section):
    """What the body of `learn` may hold."""

    span: Annotated[Duration, Field(gt=0)] | None = None


async def _learn(call: Call) -> Answer:
    name, asked = known(call, call.name), body_of(call, _Learn)
    try:
        return Answer(call.gateway.learn(name, None if asked.span is None else asked.span / NS_PER_S), 202)
    except ConfigError as error:
        raise Refusal(409, str(error)) from error


# -- what is asked of the daemon --------------------------------------------------------------------------


class _Model(Section):
    """What the body of a change of models may hold."""

    path: str = Field("", description="a folder with a bundle, on the gateway's own disk")
    version: str = Field(
        "", description="of a bundle on the shelf: its name, its number or the head of its hash"
    )


def _model(verb: ModelVerb) -> Handler:
    async def changed(call: Call) -> Answer:
        name, asked = known(call, call.name), body_of(call, _Model)
        if verb in ("install", "shadow") and not Path(asked.path).is_absolute():
            raise Refusal(422, "path: the whole path of a folder with a bundle is wanted")
        try:
            done = await call.gateway.model(name, verb, path=asked.path, version=asked.version)
        except (ConfigError, ModelError) as error:
            raise Refusal(409, str(error)) from error
        return Answer(done, 202)

    return changed


async def _models(call: Call) -> Answer:
    return Answer(await call.gateway.models(known(call, call.name)))


class _Reload(Section):
    """What the body of `reload` may hold."""

    dry_run: bool = False


async def _reload(call: Call) -> Answer:
    asked = body_of(call, _Reload)
    try:
        return Answer(await call.gateway.reload(dry_run=asked.dry_run))
    except ConfigError as error:
        raise Refusal(422, str(error)) from error


# -- alarms and incidents ---------------------------------------------------------------------------------


async def _alarms(call: Call) -> Answer:
    return Answer({"alarms": list(call.gateway.alarms())})


class _Nothing(Section):
    """A body without anything in it."""


class _Shelve(Section):
    """What the body of `shelve` has to hold."""

    for_: Annotated[Duration, Field(gt=0, le=7 * 86_400 * NS_PER_S)] = Field(alias="for")


def _action(action: Action) -> Handler:
    async def act(call: Call) -> Answer:
        ids = [each["id"] for each in call.gateway.alarms()]
        if call.name not in ids:
            close = difflib.get_close_matches(call.name, ids, 1)
            raise Refusal(404, f"no alarm {call.name!r}" + (f"; did you mean {close[0]}?" if close else ""))
        if action == "shelve":
            for_s = body_of(call, _Shelve).for_ / NS_PER_S
        else:
            body_of(call, _Nothing)
            for_s = None
        try:
            return Answer(await call.gateway.act(call.name, action, for_s))
        except ConfigError as error:
            raise Refusal(409, str(error)) from error

    return act


_BRIEF: Final = (
    "incident", "state", "phase", "kind", "severity", "pipeline", "onset_utc_ns", "after_onset_s",
    "peak_score", "limit", "first_out", "merged", "interrupted",
)  # fmt: skip


async def _incidents(call: Call) -> Answer:
    found = call.gateway.incidents()
    return Answer({"incidents": [{key: each[key] for key in _BRIEF if key in each} for each in found]})


async def _incident(call: Call) -> Answer:
    for each in call.gateway.incidents():
        if each["incident"] == call.name:
            return Answer(each)
    raise Refusal(404, f"no incident {call.name!r} among those that are open and the last that are over")


class _WindowAsked(Section, strict=False):
    """What a question for the rows around an incident may hold."""

    rows: int = Field(
        500, ge=1, le=20_000, description="rows at most, as JSON; fewer come where they are wide"
    )
    format: Literal["json", "csv"] = Field("json", description="csv has all rows that are stored")


async def _window(call: Call) -> Answer:
    asked = asked_of(call, _WindowAsked)
    found = await call.gateway.window(call.name, asked.rows if asked.format == "json" else None)
    if found is None:
        raise Refusal(
            404,
            f"no rows are stored of an incident {call.name!r}: they are some time after it is over, and the "
            "oldest go when there are too many",
        )
    return Answer(found, text_type=_CSV_TYPE)


_ASK: Final = {"execute": True, "config": {"window_size": 100, "threshold": 0.95}}

ROUTES: Final = (
    Route("GET", "/v1/status", _status, "Everything there is to see."),
    Route("GET", "/v1/health", _health, "200 while nothing is wrong with the gateway, else 503."),
    Route("GET", "/v1/conditions", _part("conditions"), "What is wrong with the gateway now."),
    Route("GET", "/v1/sources", _part("sources"), "All sources: connected, age, counts."),
    Route("GET", "/v1/pipelines", _part("pipelines"), "All pipelines: score, limit, model, open incidents."),
    Route("GET", "/v1/pipelines/{name}", _pipeline, "One pipeline."),
    Route(
        "GET", "/v1/sources/{name}/rows", _source_rows, "Rows of a source as they were sealed; `next` is "
        "where to go on.", query=_RowsAsked,
    ),
    Route(
        "GET", "/v1/pipelines/{name}/rows", _pipeline_rows, "Rows of a pipeline, after its transforms.",
        query=_RowsAsked,
    ),
    Route(
        "POST", "/v1/pipelines/{name}/query", _query, "Ask a pipeline: {} for its status, execute for a "
        "score of its last rows, data for one of your own.", body_bytes=QUERY_BYTES, example=_ASK,
    ),
    Route(
        "POST", "/v1/query", _query_one, "The same, of the only pipeline or of the one the body names.",
        body_bytes=QUERY_BYTES, example={"pipeline": "pump", **_ASK},
    ),
    Route(
        "POST", "/v1/pipelines/{name}/learn", _learn, "Learn anew what is normal, from rows that come now.",
        admin=True, example={"span": "20s"},
    ),
    Route("GET", "/v1/alarms", _alarms, "All alarms: state, limit, the worst of an excursion."),
    Route("POST", "/v1/alarms/{name}/ack", _action("ack"), "Somebody has seen it.", admin=True, example={}),
    Route(
        "POST", "/v1/alarms/{name}/shelve", _action("shelve"), "Tell nothing of it, a week at most.",
        admin=True, example={"for": "1h"},
    ),
    Route(
        "POST", "/v1/alarms/{name}/unshelve", _action("unshelve"), "Tell of it again.", admin=True, example={}
    ),
    Route(
        "POST", "/v1/alarms/{name}/out_of_service", _action("out_of_service"), "Do not look at it until "
        "it is put into service again.", admin=True, example={},
    ),
    Route(
        "POST", "/v1/alarms/{name}/in_service", _action("in_service"), "Look at it again.", admin=True,
        example={},
    ),
    Route("GET", "/v1/incidents", _incidents, "The incidents that are open, and the last 100 that are over."),
    Route("GET", "/v1/incidents/{name}", _incident, "All that was told of an incident."),
    Route(
        "GET", "/v1/incidents/{name}/window", _window, "The rows around an incident that is over.",
        query=_WindowAsked,
    ),
    Route(
        "POST", "/v1/reload", _reload, "Take up the configuration as it is on disk now: what changed is "
        "swapped, all else goes on; or refuse it, and change nothing.", admin=True, example={"dry_run": True},
    ),
    Route("GET", "/v1/pipelines/{name}/models", _models, "The versions of its model, live, beside and kept."),
    Route(
        "POST", "/v1/pipelines/{name}/models/install", _model("install"), "Try a bundle, keep it on "
        "the shelf, and let it score from the next row on; the one before stays beside it for its probation.",
        admin=True, example={"path": "/srv/models/new"},
    ),
    Route(
        "POST", "/v1/pipelines/{name}/models/shadow", _model("shadow"), "The same, but beside the live "
        "model: its scores are compared, and do not count.", admin=True, example={"path": "/srv/models/new"},
    ),
    Route(
        "POST", "/v1/pipelines/{name}/models/promote", _model("promote"), "Let the shadow count.", admin=True,
    ),
    Route(
        "POST", "/v1/pipelines/{name}/models/rollback", _model("rollback"), "Let the version before count "
        "again, or the one that is named.", admin=True, example={"version": "0001"},
    ),
    Route(
        "POST", "/v1/pipelines/{name}/models/dismiss", _model("dismiss"), "Let go of the model beside the "
        "live one.", admin=True,
    ),
    *OUTBOX_ROUTES,
    *CONSUMER_ROUTES,
    *EVENT_ROUTES,
    Route(
        "GET", "/metrics", _metrics, "Counters and gauges as Prometheus text.", answers="text/plain"
    ),
    Route("GET", "/v1/openapi.json", _openapi, "This table, as OpenAPI."),
)  # fmt: skip
"""All routes."""
