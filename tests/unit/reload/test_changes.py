"""The difference of two configurations: what becomes of each node, and nothing about the others."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dxad.changes import diff
from dxad.config import Config
from tests.unit.reload.rig import edited

TWO = {"type": "memory", "period": "10ms", "channels": {"x": {}, "y": {"unit": "mm"}}}
JOINED = {
    "channels": ["*.*"],
    "model": {"type": "zscore"},
    "features": [{"type": "summarize", "channels": ["a.x"], "stat": "rms", "every": "20ms"}],
}
FULL = edited(sources__c=TWO, pipelines__all=JOINED)


def config(document=FULL) -> Config:
    return Config.model_validate(document)


def told(**edits) -> str:
    return str(diff(config(), config(edited(FULL, **edits))))


def fates(**edits) -> dict[str, str]:
    return {each.node: each.fate for each in diff(config(), config(edited(FULL, **edits))).found}


@pytest.mark.parametrize(
    ("edits", "expected"),
    [
        ({}, "nothing changed; 7 nodes untouched"),
        (
            {"pipelines__a__alarm__limit": 3.0, "sinks__two": {"type": "memory"}},
            "pipelines.a changed: alarm.limit; sinks.two added; 6 nodes untouched",
        ),
        (
            {"sources__b__channels__x__unit": "mm"},
            (
                "sources.b changed: channels.x.unit; pipelines.b changed: it reads sources.b; "
                "pipelines.all changed: it reads sources.b; 4 nodes untouched"
            ),
        ),
        (
            {"sources__d": TWO},
            "sources.d added; pipelines.all changed: it reads sources.d; 6 nodes untouched",
        ),
        (
            {"sources__b": None, "pipelines__b": None},
            (
                "sources.b removed; pipelines.b removed; pipelines.all changed: it reads sources.b; "
                "4 nodes untouched"
            ),
        ),
        (
            {"pipelines__all__features": [{**JOINED["features"][0], "over": "40ms"}], "profile": "sd_card"},
            "pipelines.all changed: features.0.over; profile changed; 6 nodes untouched",
        ),
        (
            {"sources__c__channels": {"y": {"unit": "mm"}, "x": {}}},
            "sources.c changed: channels; pipelines.all changed: it reads sources.c; 5 nodes untouched",
        ),
        (
            {"gateway__id": "other", "outbox__path": "o.db", "outbox__max_size": "2MiB"},
            (
                "outbox.max_size changed; gateway.id changed: this wants a restart; "
                "outbox.path changed: this wants a restart; 7 nodes untouched"
            ),
        ),
        (
            {"outbox__keep": "1h", "outbox__lanes": {"bulk": {"max_size": "1MiB"}}},
            "outbox.keep changed; outbox.lanes.bulk.max_size changed; 7 nodes untouched",
        ),
        (
            {"outbox__consumers": "declared", "consumers": {"agent": {"max_attempts": 3}}},
            "outbox.consumers changed; consumers.agent changed; 7 nodes untouched",
        ),
        (
            {"gateway__heartbeat": "1min", "gateway__tell": ["warning"], "gateway__tell_after": "0s"},
            (
                "gateway.heartbeat changed; gateway.tell.0 changed; gateway.tell_after changed; "
                "7 nodes untouched"
            ),
        ),
    ],
)
def test_it_reads_as_what_a_person_did(edits, expected):
    assert told(**edits) == expected


@pytest.mark.parametrize(
    ("edits", "fate", "rescored", "relearned"),
    [
        ({"alarm__severity": "low"}, "adjusted", False, False),
        ({"learn": {"span": "10s"}}, "adjusted", False, True),
        ({"model": {"type": "zscore", "warm_up": 20}}, "adjusted", True, True),
        ({"hop": 3}, "adjusted", True, False),
        ({"window": "100ms"}, "adjusted", True, False),
        ({"required": ["a.x"]}, "adjusted", True, False),
        ({"period": "20ms"}, "rebuilt", False, True),
        ({"transforms": [{"type": "scale"}]}, "rebuilt", False, True),
        ({"channels": ["a.*", "b.*"]}, "rebuilt", False, True),
    ],
)
def test_a_pipeline_goes_on_unless_its_rows_are_others(edits, fate, rescored, relearned):
    changes = diff(
        config(), config(edited(FULL, **{f"pipelines__a__{key}": value for key, value in edits.items()}))
    )
    assert [each.node for each in changes.found] == ["pipelines.a"]
    change = changes.of("pipelines", "a")
    assert (change.fate, change.rescored, change.relearned) == (fate, rescored, relearned)


def test_another_order_of_the_sources_is_another_order_of_columns():
    turned = {**FULL, "sources": dict(reversed(FULL["sources"].items()))}
    changes = diff(config(), config(turned))
    assert str(changes) == "pipelines.all changed: the order of its channels; 6 nodes untouched"


def test_another_order_of_pipelines_and_sinks_is_no_difference():
    turned = {**FULL, "pipelines": dict(reversed(FULL["pipelines"].items()))}
    assert not diff(config(), config(turned))


def test_as_a_document_it_is_json():
    document = diff(config(), config(edited(FULL, sources__d=TWO, gateway__id="x"))).document()
    assert json.loads(json.dumps(document)) == document
    assert document["restart"] == ["gateway.id"]
    assert document["changes"][0] == {"node": "sources.d", "fate": "added", "keys": [], "because": []}


SOURCES = st.dictionaries(
    st.sampled_from("abcd"),
    st.fixed_dictionaries(
        {
            "type": st.just("memory"),
            "period": st.sampled_from(["10ms", "20ms"]),
            "channels": st.sampled_from([{"x": {}}, {"x": {}, "y": {}}, {"x": {"unit": "mm"}}]),
        }
    ),
    min_size=1,
)


@st.composite
def documents(draw):
    sources = draw(SOURCES)
    patterns = st.lists(
        st.sampled_from([f"{name}.*" for name in sources] + ["*.*"]), min_size=1, max_size=2, unique=True
    )
    section = st.fixed_dictionaries(
        {
            "channels": patterns,
            "model": st.sampled_from([{"type": "zscore"}, {"type": "zscore", "warm_up": 20}]),
            "alarm": st.sampled_from([{}, {"limit": 3.0}]),
        }
    )
    return {
        "sources": sources,
        "pipelines": draw(st.dictionaries(st.sampled_from("pqr"), section)),
        "sinks": draw(
            st.dictionaries(
                st.sampled_from("st"), st.sampled_from([{"type": "memory"}, {"type": "memory", "batch": 2}])
            )
        ),
    }


@given(documents())
def test_a_configuration_does_not_differ_from_itself(document):
    changes = diff(config(document), config(document))
    assert not changes
    assert changes.untouched == sum(len(document[kind]) for kind in ("sources", "pipelines", "sinks"))


@given(documents(), documents())
def test_every_node_has_one_fate_and_there_and_back_are_mirrored(one, other):
    there, back = diff(config(one), config(other)), diff(config(other), config(one))
    mirrored = {"added": "removed", "removed": "added", "rebuilt": "rebuilt", "adjusted": "adjusted"}
    assert len({each.node for each in there.found}) == len(there.found)
    assert {each.node: mirrored[each.fate] for each in there.found} == {
        each.node: each.fate for each in back.found
    }
    kinds = ("sources", "pipelines", "sinks")
    assert there.untouched + sum(each.fate != "removed" for each in there.found) == sum(
        len(other[kind]) for kind in kinds
    )


@given(documents(), documents())
def test_what_has_no_change_is_equal_and_reads_only_what_is_equal(one, other):
    old, new = config(one), config(other)
    changes = diff(old, new)
    for kind in ("sources", "pipelines", "sinks"):
        for name, section in getattr(new, kind).items():
            if changes.fate(kind, name) is None:
                assert getattr(old, kind)[name] == section
    for name, pipeline in new.pipelines.items():
        if changes.fate("pipelines", name) in (None, "adjusted"):
            for source in {each.partition(".")[0] for each in pipeline.channels} & set(new.sources):
                assert changes.fate("sources", source) is None
