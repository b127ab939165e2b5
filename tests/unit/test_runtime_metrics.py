"""Counters by name and labels, and the text that Prometheus reads."""

import re

import pytest

from dxad.runtime.metrics import METRICS, Metrics, Sample, prometheus


def test_a_name_and_labels_are_one_counter_however_they_are_written():
    metrics = Metrics()
    metrics.counter("dxad_samples_rejected_total", source="a", reason="range").add(2)
    metrics.counter("dxad_samples_rejected_total", reason="range", source="a").add()
    assert metrics.counter("dxad_samples_rejected_total", source="a", reason="range").value == 3
    assert metrics.counter("dxad_samples_rejected_total", source="b", reason="range").value == 0


def test_counters_can_be_summed_and_told_apart_by_a_label():
    metrics = Metrics()
    for source, reason, n in (("a", "range", 1), ("a", "type", 2), ("b", "type", 4)):
        metrics.counter("dxad_samples_rejected_total", source=source, reason=reason).add(n)
    assert metrics.total("dxad_samples_rejected_total") == 7
    assert metrics.total("dxad_samples_rejected_total", source="a") == 3
    assert metrics.total("dxad_samples_rejected_total", source="c") == 0
    assert metrics.total("dxad_samples_late_total") == 0
    assert metrics.by_label("dxad_samples_rejected_total", "reason", source="a") == {"range": 1, "type": 2}
    assert metrics.by_label("dxad_samples_rejected_total", "colour") == {}


@pytest.mark.parametrize("name", ["dxad_unheard_of_total", "dxad_source_up"])
def test_only_counters_of_the_table_can_be_counted(name):
    with pytest.raises(KeyError):
        Metrics().counter(name)


def test_the_text_is_grouped_by_metric_in_the_order_of_the_table():
    samples = [
        Sample("dxad_uptime_seconds", 12.5),
        Sample("dxad_samples_received_total", 3, (("source", "a"),)),
        Sample("dxad_source_up", 1, (("source", "a"),)),
        Sample("dxad_samples_received_total", 10**15, (("source", "b"),)),
    ]
    assert prometheus(samples) == (
        "# HELP dxad_samples_received_total samples read from the wire\n"
        "# TYPE dxad_samples_received_total counter\n"
        'dxad_samples_received_total{source="a"} 3\n'
        'dxad_samples_received_total{source="b"} 1e+15\n'
        "# HELP dxad_source_up 1 while the source is connected\n"
        "# TYPE dxad_source_up gauge\n"
        'dxad_source_up{source="a"} 1\n'
        "# HELP dxad_uptime_seconds time since the daemon was ready\n"
        "# TYPE dxad_uptime_seconds gauge\n"
        "dxad_uptime_seconds 12.5\n"
    )


def test_a_label_can_hold_any_text():
    text = prometheus([Sample("dxad_conditions", 1, (("code", 'a"b\\c\nd'),))])
    assert 'dxad_conditions{code="a\\"b\\\\c\\nd"} 1\n' in text


def test_numbers_that_are_not_finite_are_written_as_prometheus_reads_them():
    text = prometheus([Sample("dxad_pipeline_score", float("nan"))])
    assert float(text.splitlines()[-1].split()[-1]) != float(text.splitlines()[-1].split()[-1])


def test_counters_are_offered_as_samples():
    metrics = Metrics()
    metrics.counter("dxad_connects_total", source="a").add()
    assert list(metrics.samples()) == [Sample("dxad_connects_total", 1, (("source", "a"),))]


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_has_a_name_that_prometheus_takes_and_a_text(name):
    assert re.fullmatch("dxad_[a-z_]+", name)
    assert METRICS[name]
