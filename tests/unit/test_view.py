"""What the picture of a status shows, in 80 columns and 25 lines."""

import copy
import io
from typing import Any

import pytest
from rich.console import Console

from dxad.cli.view import line, view

STATUS: dict[str, Any] = {
    "gateway": "plant7-gw3",
    "version": "0.1.0",
    "pid": 4711,
    "state": "running",
    "uptime_s": 50.0,
    "profile": "balanced",
    "config": "/etc/dxad/dxad.toml",
    "conditions": [
        {
            "code": "source.down",
            "severity": "error",
            "subject": "drive",
            "detail": "opc.tcp://127.0.0.1:4840: nobody answers there, not even after it was asked again",
            "meaning": "a source has no connection",
            "for_s": 4.2,
        },
        {
            "code": "sink.down",
            "severity": "warning",
            "subject": "reasoning",
            "detail": "HTTP 503",
            "meaning": "a sink does not take records",
            "for_s": 130.0,
        },
    ],
    "sources": {
        "motor": {"connected": True, "age_s": 0.031, "rows": 500, "samples": 1500, "late": 0, "rejected": {}},
        "drive": {"connected": False, "age_s": 4.2, "rows": 500, "samples": 700, "late": 0, "disconnects": 3},
        "vib": {
            "connected": True,
            "age_s": 0.012,
            "rows": 5000,
            "samples": 15_000,
            "late": 2,
            "rejected": {"range": 3, "type": 1},
            "messages_rejected": 4,
            "overflowed": 1,
            "disconnects": 0,
        },
    },
    "pipelines": {
        "pump": {
            "channels": ["vib.x.rms", "motor.current"],
            "period_ms": 100.0,
            "lost": 0,
            "score": 3.1241,
            "limit": 2.0,
            "model": {"version": "3fa9c2d1", "rows": 10},
            "learning": {"state": "recording", "rows": 120, "of_rows": 200, "error": None},
            "incidents": [
                {
                    "id": "a" * 32,
                    "kind": "process",
                    "severity": "high",
                    "for_s": 12.44,
                    "peak_score": 14.2211,
                    "contributors": [
                        {
                            "channel": "vib.x.rms",
                            "unit": "mm/s",
                            "share": 0.621,
                            "seen": 5.213,
                            "typical": 1.131,
                            "deviation_sd": 8.13,
                        },
                        {"channel": "vib.y.rms", "share": 0.2, "seen": 2.8},
                        {"channel": "motor.current", "share": 0.05},
                        {"channel": "the fourth is not shown", "share": 0.01},
                    ],
                }
            ],
            "incidents_total": 1,
        },
        "fan": {"score": 0.5, "limit": 2.0, "model": {"version": "zscore"}, "lost": 40, "incidents": []},
    },
    "sinks": {
        "reasoning": {"up": False, "reason": "HTTP 503", "pending": 3, "refused": 1, "delivered": 1200},
        "log": {"up": True, "reason": None, "pending": 0, "refused": 0, "delivered": 1203},
    },
    "outbox": {
        "stored": {"critical": 3, "normal": 1, "bulk": 0},
        "in_memory": 0,
        "bytes": 1_258_291,
        "max_bytes": 268_435_456,
        "written_per_day": 73_400_320,
        "wear_budget": 2_147_483_648,
        "dropped": {},
        "dead_letters": 2,
    },
    "memory": {"resident_bytes": 98_000_000, "buffers_bytes": 2_812_400},
}

GOLDEN = """\
dxad plant7-gw3   running 50.0 s · balanced · 93 MiB                   ✘ 1 error

  SOURCE    AGE  SAMPLES/S   ROWS  LATE  REJECTED  RETRIES
● motor   31 ms       30.0    500     0         0        0
○ drive   4.2 s       14.0    500     0         0        3
● vib     12 ms      300.0  5,000     2         9        0

  PIPELINE    SCORE                            LIMIT  MODEL
▲ pump        ████████████│███████░░░░░  3.12   2.00  3fa9c2d1
  └ learning  ███████████████░░░░░░░░░░   60%         120 of 200 rows
  fan         ███░░░░░░░░░│░░░░░░░░░░░░  0.50   2.00  zscore  40 rows lost

▲ pump  process incident, high, for 12.4 s, peak 14.22
    vib.x.rms      62%  5.213 mm/s, typically 1.131  +8.1 σ
    vib.y.rms      20%  2.8
    motor.current  5%

  SINK       DELIVERED  PENDING  REFUSED
○ reasoning      1,200        3        1
● log            1,203        0        0
  outbox: 4 stored, 2 dead letters, 0 dropped, 1.2 of 256 MiB, 70 MiB/day

✘ source.down drive, 4.2 s: opc.tcp://127.0.0.1:4840: nobody answers there, not
  even after it was asked again
● sink.down reasoning, 2 min: HTTP 503"""


def drawn(status, earlier=None, *, width: int = 80, **options) -> str:
    console = Console(file=io.StringIO(), width=width, height=25, **{"color_system": None, **options})
    console.print(view(status, earlier))
    return "\n".join(each.rstrip() for each in console.file.getvalue().splitlines())


def changed(**parts: Any) -> dict[str, Any]:
    return {**copy.deepcopy(STATUS), **parts}


def test_the_picture():
    assert drawn(STATUS) == GOLDEN


def test_it_fits_a_terminal():
    assert len(GOLDEN.splitlines()) <= 25


def test_in_colour_it_says_the_same():
    coloured = drawn(STATUS, force_terminal=True, color_system="standard", no_color=True)
    plain = "".join(part.split("m", 1)[-1] for part in coloured.split("\x1b["))
    assert plain.split() == GOLDEN.split()


def test_all_is_well():
    sources = {"motor": STATUS["sources"]["motor"]}
    text = drawn(changed(conditions=[], sources=sources, pipelines={"fan": STATUS["pipelines"]["fan"]}))
    assert "● healthy" in text
    assert "no incident is open, 0 since the start" in text
    assert "✘" not in text


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        (
            {"clock_ok": True, "heartbeat": {"every_s": 300.0, "last_s": 12.0}},
            "boot 81371d52 · clock synchronised · heartbeat every 5 min, last 12.0 s ago",
        ),
        (
            {"clock_ok": False, "heartbeat": {"every_s": None, "last_s": None}},
            "boot 81371d52 · clock not synchronised · no heartbeat",
        ),
    ],
)
def test_by_which_clock_events_are_dated_and_when_it_last_told_that_it_lives(parts, text):
    assert text in drawn(changed(boot="81371d52d4c94f33b4e13157e3ccc73b", **parts))


def test_warnings_alone_are_no_error():
    assert "● 1 warning" in drawn(changed(conditions=STATUS["conditions"][1:]))


def test_rates_are_since_the_earlier_look():
    later = changed(uptime_s=52.0)
    later["sources"]["motor"]["samples"] += 30
    assert "15.0" in drawn(later, STATUS)


def test_there_is_no_rate_since_before_a_restart():
    assert "● motor   31 ms          -" in drawn(changed(uptime_s=1.0), STATUS)


@pytest.mark.parametrize(
    ("score", "limit", "bar"),
    [
        (0.0, 2.0, "░░░░░░░░░░░░│░░░░░░░░░░░░"),
        (2.0, 2.0, "████████████│░░░░░░░░░░░░"),
        (1e9, 2.0, "████████████│████████████"),
        (None, 2.0, "░░░░░░░░░░░░░░░░░░░░░░░░░"),
        (1.0, None, "░░░░░░░░░░░░░░░░░░░░░░░░░"),
    ],
)
def test_the_bar_is_full_at_twice_the_limit(score, limit, bar):
    assert bar in drawn(changed(pipelines={"pump": {"score": score, "limit": limit}}))


def test_a_pipeline_that_fits_its_model_says_so():
    fitting = {"learning": {"state": "fitting", "rows": 200, "of_rows": 200}}
    text = drawn(changed(pipelines={"pump": fitting}))
    assert "none yet" in text
    assert "█████████████████████████" in text
    assert "fitting" in text


def test_a_sensor_incident_says_what_is_wrong_with_the_sensor():
    incident = {"kind": "sensor", "contributors": [{"channel": "plc.flow", "share": 1.0, "trouble": "stuck"}]}
    text = drawn(changed(pipelines={"pump": {"incidents": [incident]}}))
    assert "    plc.flow  stuck" in text
    assert "100%" not in text


def test_many_incidents_are_short():
    incidents = STATUS["pipelines"]["pump"]["incidents"] * 7
    text = drawn(changed(pipelines={"pump": {"incidents": incidents, "incidents_total": 9}}))
    assert text.count("process incident") == 5
    assert "… and 2 more" in text
    assert "vib.y.rms" not in text


@pytest.mark.parametrize("part", sorted(STATUS))
def test_what_is_missing_is_not_shown(part):
    status = changed()
    del status[part]
    assert drawn(status)
    assert line(status)


@pytest.mark.parametrize("part", ["sources", "pipelines", "sinks"])
def test_nor_what_is_missing_in_a_part(part):
    text = drawn(changed(**{part: {"bare": {}}}))
    assert "bare" in text
    assert line(changed(**{part: {"bare": {}}}))


def test_an_empty_status():
    assert "● healthy" in drawn({})


def test_what_comes_from_the_field_is_shown_and_not_obeyed():
    rude = "\x1b[2J\x07[red]x[/red]\r\n"
    condition = {"code": "source.down", "severity": "error", "subject": rude, "detail": rude}
    status = changed(
        gateway=rude, conditions=[condition], sources={rude: {}}, pipelines={rude: {}}, sinks={rude: {}}
    )
    for text in (drawn(status), line(status)):
        assert "\x1b" not in text
        assert "\x07" not in text
        assert "[red]x[/red]" in text


def test_long_names_leave_the_numbers_alone():
    name = "x" * 64
    status = changed(
        sources={name: STATUS["sources"]["vib"]},
        pipelines={name: STATUS["pipelines"]["pump"]},
        sinks={name: {}},
    )
    text = drawn(status)
    assert max(len(each) for each in text.splitlines()) <= 80
    for number in ("5,000", "████████████│███████░░░░░  3.12   2.00", "3fa9c2d1"):
        assert number in text


def test_a_narrow_terminal_gets_what_fits():
    assert max(len(each) for each in drawn(STATUS, width=30).splitlines()) <= 30


def test_one_line_says_the_most_important():
    assert line(STATUS) == "running, down: drive, pump 3.12/2.00, fan 0.50/2.00, incidents 1, outbox 3"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0004, "0 ms"),
        (0.5, "500 ms"),
        (90.0, "90.0 s"),
        (7000.0, "117 min"),
        (86_400.0, "24 h"),
        (9e5, "10 d"),
    ],
)
def test_durations_are_in_the_largest_unit_there_are_two_of(seconds, text):
    assert f"running {text}" in drawn(changed(uptime_s=seconds))


def test_alarms_that_are_not_plain_normal_are_told_in_a_line():
    quiet = {"active": 0, "shelved": 0, "out_of_service": 0, "unacknowledged": 0}
    shelved = quiet | {"shelved": 2, "unacknowledged": 1}
    text = drawn(changed(pipelines={"pump": {"alarms": shelved}, "fan": {"alarms": shelved}}))
    assert "no incident is open, 0 since the start; 2 unacknowledged, 4 shelved" in text
    assert "shelved" not in drawn(changed(pipelines={"pump": {"alarms": quiet}}))
    incident = {"id": "a", "kind": "process", "severity": "high", "for_s": 1.0, "peak_score": None}
    text = drawn(changed(pipelines={"pump": {"alarms": quiet | {"active": 3}, "incidents": [incident]}}))
    assert "alarms: 3 active" in text
    assert "peak -" in text


def test_a_pipeline_without_a_model_says_that_it_has_limits_only():
    assert "limits only" in drawn(changed(pipelines={"pump": {"model": None, "limits_only": True}}))


def test_a_source_of_several_devices_has_a_line_for_each_of_the_first():
    devices = {f"line{n}/oven": {"received": 1500 + n, "rejected": {}} for n in range(7)}
    devices["line1/oven"] |= {"late": 3, "rejected": {"range": 2, "type": 2}}
    motor = {**STATUS["sources"]["motor"], "devices": devices}
    shown = drawn({**STATUS, "sources": {"motor": motor}}).splitlines()
    assert shown[4].split() == ["└", "line0/oven", "1,500", "in", "all", "0", "0"]
    assert shown[5].split()[-2:] == ["3", "4"]
    assert shown[9].strip() == "└ and 2 more devices"
