"""One source's flood is its own trouble; how little it is to others, `tests.bench.sources` measures."""

from tests.bench.sources_flood import _round


def test_while_one_source_is_flooded_another_is_polled_in_each_of_its_slots():
    jitter_ms, _, per_s, _ = _round(1.0, flooded=True)
    assert per_s > 1_000, "samples a second that were taken in of the flood"
    assert jitter_ms < 20, "how late 99 of 100 polls begin; they are 10 ms apart"
