"""Numbers about ourselves: counters, and the Prometheus text format.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/ (text format 0.0.4).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

__all__ = ["METRICS", "Counter", "Metrics", "Sample", "prometheus", "series"]

METRICS: Final = {
    "dxad_samples_received_total": "samples read from the wire",
    "dxad_samples_rejected_total": "samples that were refused, by reason",
    "dxad_samples_doubted_total": "samples that were taken as uncertain, by reason",
    "dxad_samples_stored_total": "samples that became a cell of the source's ring",
    "dxad_samples_duplicate_total": "samples that came before, with the same stamp of their device; dropped",
    "dxad_device_samples_total": "samples of each device of a source that has several, by their fate",
    "dxad_samples_late_total": "samples whose slot was sealed when they came",
    "dxad_samples_backfilled_total": "of these, the ones that filled a cell that was empty or held",
    "dxad_samples_folded_total": "samples combined with another of the same slot; nothing is lost by it",
    "dxad_samples_overflowed_total": "samples dropped because the staging buffer was full",
    "dxad_messages_rejected_total": "messages that could not be decoded",
    "dxad_connects_total": "connections made",
    "dxad_disconnects_total": "connections lost or refused",
    "dxad_timeouts_total": "times that a source was connecting, reading or closing for too long",
    "dxad_rows_sealed_total": "rows of the source's ring",
    "dxad_rows_overwritten_total": "rows of the source's ring that a pipeline did not come to read",
    "dxad_rows_scored_total": "rows whose window was scored",
    "dxad_rows_unscored_total": "rows whose window had too many bad cells, or that came before a model",
    "dxad_rows_idle_total": "rows in which the machine did not run as it is watched (`when`)",
    "dxad_rows_lost_total": "rows that the pipeline never read",
    "dxad_lost_total": "samples and rows that were lost, by place and reason",
    "dxad_transform_faults_total": "batches of rows for which a function of the user's own failed",
    "dxad_incidents_total": "incidents opened",
    "dxad_incidents_reopened_total": "incidents that came back soon after they were over",
    "dxad_incidents_merged_total": "incidents beyond the budget, which are only counted",
    "dxad_evidence_lost_total": "incidents whose rows were not stored, since a disk failed or was too slow",
    "dxad_alarms_withheld_total": "alarms that would have been raised, but were shelved",
    "dxad_records_stored_total": "records durable in the outbox",
    "dxad_records_delivered_total": "records a sink has acknowledged",
    "dxad_records_filtered_total": "records that a sink is configured not to carry",
    "dxad_records_refused_total": "times that a sink refused a record; it is offered again",
    "dxad_records_dropped_total": "records lost, by lane and reason: a quota, their age, memory",
    "dxad_records_dead_total": "records a sink refused for good",
    "dxad_events_leased_total": "Events that pull consumers were given.",
    "dxad_events_acked_total": "Events that they were done with.",
    "dxad_events_nacked_total": "Events that they gave back.",
    "dxad_states_rejected_total": "saved states that were damaged, or of another model, and not taken up",
    "dxad_reloads_total": "configurations that were read anew, by result",
    "dxad_source_up": "1 while the source is connected",
    "dxad_source_age_seconds": "how long ago the source's newest sample came",
    "dxad_sink_up": "1 while the sink takes records, as far as is known",
    "dxad_pipeline_score": "the newest smoothed score",
    "dxad_pipeline_limit": "the score above which the alarm is pending",
    "dxad_alarms_active": "alarms that are active now",
    "dxad_alarms_shelved": "alarms that are shelved now",
    "dxad_incidents_open": "incidents that are open now",
    "dxad_telemetry_records_total": "telemetry records that were stored in the outbox",
    "dxad_telemetry_bytes_total": "bytes of them",
    "dxad_telemetry_rows_lost_total": "rows that were overwritten before telemetry had read them",
    "dxad_telemetry_records_lost_total": "telemetry records that the outbox did not take",
    "dxad_records_salvaged_total": "records taken over from a damaged outbox",
    "dxad_outbox_pending": "records that wait for a sink",
    "dxad_outbox_bytes": "size of the outbox on disk",
    "dxad_outbox_written_bytes_per_day": "what the outbox writes to the disk, by the last day",
    "dxad_conditions": "conditions that hold now, by code",
    "dxad_uptime_seconds": "time since the daemon was ready",
    "dxad_resident_bytes": "resident memory of the process",
}
"""Every metric there is, with its help text; `_total` marks counters, all others are gauges."""


class Counter:
    """A number that only grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def add(self, n: int = 1) -> None:
        """Count `n` more."""
        self.value += n


@dataclass(frozen=True, slots=True)
class Sample:
    """One number, with its labels."""

    name: str
    value: float
    labels: tuple[tuple[str, str], ...] = ()


class Metrics:
    """The counters of the process; they live as long as it does, so that reloads do not reset them."""

    def __init__(self) -> None:
        self._counters: dict[tuple[str, tuple[tuple[str, str], ...]], Counter] = {}
        self.gauges: Callable[[], Iterable[Sample]] = tuple
        """Measures what is not counted; set by whoever can see it all."""

    def counter(self, name: str, **labels: str) -> Counter:
        """The counter of this name and these labels, made at first use."""
        if name not in METRICS or not name.endswith("_total"):
            raise KeyError(name)
        return self._counters.setdefault((name, tuple(sorted(labels.items()))), Counter())

    def forget(self, **labels: str) -> None:
        """What these labels are of is there no more: let go of all counters that have them."""
        gone = set(labels.items())
        for key in [key for key in self._counters if gone <= set(key[1])]:
            del self._counters[key]

    def total(self, name: str, **labels: str) -> int:
        """The sum of all counters of this name that have at least these labels."""
        asked = set(labels.items())
        return sum(
            each.value for (key, has), each in self._counters.items() if key == name and asked <= set(has)
        )

    def sums(self, name: str, *labels: str) -> dict[tuple[str, ...], int]:
        """The counters of this name, summed up by the values of these labels."""
        found: dict[tuple[str, ...], int] = {}
        for (key, has), each in self._counters.items():
            if key == name:
                values = tuple(dict(has).get(label, "") for label in labels)
                found[values] = found.get(values, 0) + each.value
        return found

    def by_label(self, name: str, label: str, **labels: str) -> dict[str, int]:
        """The counters of this name that have at least these labels, by the value of one further label."""
        asked = set(labels.items())
        found: dict[str, int] = {}
        for (key, has), each in self._counters.items():
            if key == name and asked <= set(has) and label in dict(has):
                found[dict(has)[label]] = found.get(dict(has)[label], 0) + each.value
        return found

    def samples(self) -> Iterable[Sample]:
        """All counters now."""
        return [Sample(name, each.value, labels) for (name, labels), each in self._counters.items()]

    def everything(self) -> Iterable[Sample]:
        """All counters and gauges now."""
        return [*self.samples(), *self.gauges()]


def prometheus(samples: Iterable[Sample]) -> str:
    """The samples as Prometheus text, grouped by metric in the order of `METRICS`."""
    by_name: dict[str, list[Sample]] = {}
    for sample in samples:
        by_name.setdefault(sample.name, []).append(sample)
    lines: list[str] = []
    for name, text in METRICS.items():
        if name in by_name:
            lines += [
                f"# HELP {name} {text}",
                f"# TYPE {name} {'counter' if name.endswith('_total') else 'gauge'}",
            ]
            lines += [_line(sample) for sample in by_name[name]]
    return "\n".join(lines) + "\n"


def series(sample: Sample) -> str:
    """The name of a number as Prometheus writes it, with its labels."""
    labels = ",".join(f'{name}="{_escaped(value)}"' for name, value in sample.labels)
    return f"{sample.name}{{{labels}}}" if labels else sample.name


def _line(sample: Sample) -> str:
    return f"{series(sample)} {sample.value:.15g}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
