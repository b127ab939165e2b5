"""Which events somebody wants."""

import pytest

from dxad.consumersection import ConsumerSection
from dxad.selection import Selection
from dxad.sinksection import SinkSection

EVENT = {
    "type": "dxad.incident.opened",
    "subject": "00ff",
    "source": "/gw3/pipelines/pump1",
    "data": {"severity": "high"},
}


@pytest.mark.parametrize(
    ("wanted", "taken"),
    [
        ({}, True),
        ({"types": ("dxad.model.*", "*.opened")}, True),
        ({"types": ("dxad.model.*",)}, False),
        ({"severities": ("high",)}, True),
        ({"severities": ("low",)}, False),
        ({"subjects": ("00*",)}, True),
        ({"subjects": ("ff*",)}, False),
        ({"sources": ("/*/pipelines/pump*",)}, True),
        ({"sources": ("/gw3",)}, False),
        ({"pipelines": ("pump?",)}, True),
        ({"pipelines": ("fan*",)}, False),
        ({"types": ("*",), "subjects": ("00ff",), "sources": ("/gw3/*",), "severities": ("low",)}, False),
    ],
)
def test_one_of_each_kind_of_pattern_has_to_fit(wanted, taken):
    assert Selection(**wanted).takes(EVENT) is taken


def test_an_event_without_a_subject_has_an_empty_one():
    assert Selection(subjects=("*",)).takes({"type": "x"})
    assert not Selection(subjects=("?*",)).takes({"type": "x"})


def test_sinks_and_consumers_are_configured_alike():
    sink = SinkSection(subjects=["00*"], sources=["/gw3/*"])
    assert sink.selection.picks
    assert sink.selection.takes(EVENT)
    assert not SinkSection(sources=["/gw4/*"]).selection.takes(EVENT)
    assert ConsumerSection(subjects=["00*"], max_attempts=3).max_attempts == 3
    assert not SinkSection().selection.picks
