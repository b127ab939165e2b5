"""What a demonstration must show to end well: the labels against the events that arrived."""

import copy
import io

import pytest
from rich.console import Console

from dxad.cli.verdict import injected, judge, summary

ONSET = 1_700_000_000.0
LABELS = [
    {"type": "run", "seed": 1},
    {
        "type": "fault",
        "phase": "onset",
        "fault": "bearing_wear",
        "time": ONSET,
        "channels": ["vib.x", "vib.y"],
    },
    *(
        {
            "type": "effect",
            "since_onset_s": float(second),
            "channels": {
                name: {
                    "healthy": {"mean": 0.0, "rms": 0.7},
                    "actual": {"mean": 0.0, "rms": 0.7 + 0.01 * second},
                }
                for name in ("vib.x", "vib.y")
            },
        }
        for second in range(1, 13)
    ),
]
NORMAL = {"vib.x.rms": (0.7, 0.05), "vib.y.rms": (0.7, 0.1), "plc.flow": (890.0, 20.0)}
STATUS = {
    "sources": {
        "vib": {"rows": 500, "samples": 1500, "connected": True, "late": 0, "overflowed": 0},
        "plc": {"rows": 50, "samples": 250, "connected": True, "late": 0, "overflowed": 0},
    },
    "pipelines": {"pump": {"lost": 0}},
    "outbox": {"dropped": {}},
}


def opened(*channels: str, kind: str = "process", after_s: float = 12.0) -> dict:
    seconds = round(after_s * 1000)
    return {
        "subject": "abc",
        "time": f"2023-11-14T22:13:{20 + seconds // 1000:02}.{seconds % 1000:03}Z",
        "data": {
            "kind": kind,
            "peak_score": 4.0,
            "limit": 2.5,
            "contributors": [{"channel": each, "share": 0.4, "deviation_sd": 2.0} for each in channels],
        },
    }


FOUND = opened("vib.y.rms", "vib.x.rms", "vib.z.rms")


def verdict(*events: dict, wanted: str = "bearing_wear", status: dict = STATUS, labels: list = LABELS):
    return judge(
        wanted=wanted,
        status=status,
        opened=events,
        delivered=len(events),
        fault=injected(labels, NORMAL),
        duration_s=55.0,
    )


def changed(source: str, **counts: int) -> dict:
    status = copy.deepcopy(STATUS)
    status["sources"][source] |= counts
    return status


def test_a_fault_that_was_found_is_told_with_its_size_and_the_delay():
    found = verdict(FOUND)
    assert found.ok
    assert found.document["injected"]["size_sd_after_10s"] == {"vib.x": 2.0, "vib.y": 1.0}
    assert found.document["found"]["after_s"] == 12.0
    assert found.document["lost"] == {}


@pytest.mark.parametrize(
    ("events", "keys", "reason"),
    [
        ([], {}, "bearing_wear was not found"),
        ([opened("plc.flow", "vib.x.rms", "vib.z.rms")], {}, "the label's channels are not the top"),
        ([opened("a", "b", "vib.x.rms", "vib.y.rms")], {}, "the label's channels are not the top"),
        ([opened("vib.y.rms", "vib.x.rms", kind="sensor")], {}, "taken for a fault of another kind: sensor"),
        ([opened("plc.flow", after_s=-3.0), FOUND], {}, "an incident was open before the fault: plc.flow"),
        ([FOUND], {"labels": LABELS[:1]}, "the fault was never injected"),
        ([FOUND], {"status": changed("plc", samples=0)}, "source plc delivered nothing"),
        ([FOUND], {"status": changed("plc", late=5)}, "lost: plc late: 5"),
        ([FOUND], {"status": STATUS | {"pipelines": {"pump": {"lost": 7}}}}, "lost: pump rows: 7"),
        ([FOUND], {"status": STATUS | {"outbox": {"dropped": {"bulk": 2}}}}, "lost: outbox bulk: 2"),
    ],
)
def test_everything_that_was_not_as_promised_is_a_reason(events, keys, reason):
    found = verdict(*events, **keys)
    assert not found.ok
    assert any(reason in each for each in found.document["reasons"]), found.document["reasons"]


def test_a_wire_that_went_is_named_by_all_its_channels():
    channels = [f"plc.{name}" for name in ("flow", "pressure", "valve", "level", "running")]
    labels = [LABELS[1] | {"fault": "source_down", "channels": channels}]
    event = opened(*channels[2:], kind="sensor")
    assert verdict(event, wanted="source_down", labels=labels).ok
    other = opened("plc.flow", "vib.x", kind="sensor")
    assert not verdict(other, wanted="source_down", labels=labels).ok


def test_without_a_fault_silence_is_what_is_shown():
    assert verdict(wanted="none", labels=LABELS[:1]).ok
    assert not verdict(FOUND, wanted="none", labels=LABELS[:1]).ok


@pytest.mark.parametrize("events", [[], [FOUND]])
def test_the_summary_has_a_line_for_each_question(events):
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(summary(verdict(*events).document))
    text = console.export_text()
    for word in ("rows", "injected", "found", "events", "lost", "verdict"):
        assert f"\n{word} " in text
