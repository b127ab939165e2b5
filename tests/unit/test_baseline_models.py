"""Each untrained model against the same in plain Python, a row and a channel at a time: slow and obvious."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dxad import plugin
from dxad.baseline import Baseline, normal_limit
from dxad.models.cusum import siegmund_h
from dxad.types import NS_PER_S, Channel, Windows

NAN = float("nan")
PERIOD = NS_PER_S
CHANNELS = tuple(Channel(f"s.{name}", "V") for name in "abc")

KEYS: dict[str, dict[str, Any]] = {
    "zscore": {"warm_up": 40},
    "ewma": {"warm_up": 40, "span": 50, "weight": 0.3},
    "cusum": {"warm_up": 40, "k": 0.4, "cap": 3.0},
    "hampel": {"warm_up": 40, "span": 9, "relearn_after": None},
    "seasonal": {"season": "40s", "bins": 4, "seasons": 2, "memory": 3},
}

RELEARN: dict[str, dict[str, Any]] = {kind: {"relearn_after": 30} for kind in KEYS}
"""So short that it happens in these rows."""

every_baseline = pytest.mark.parametrize("kind", KEYS)


def make(kind: str, **keys: Any) -> Baseline:
    found = plugin.load("models", kind)
    model: Baseline = found.build(
        found.config.model_validate({"type": kind, **KEYS[kind], **keys}), state_dir=Path()
    )
    return model


def loaded(kind: str, *, by: int | None = None, **keys: Any) -> Baseline:
    model = make(kind, **keys)
    model.load(CHANNELS, None, by=by)
    return model


def windows_of(values: np.ndarray, first: int = 0, *, question: bool = False) -> Windows:
    single = values.astype(np.float32)[:, None, :]
    bad = np.isnan(single).mean(axis=(1, 2), dtype=np.float32)
    return Windows(first + np.arange(len(values)), single, bad, period=PERIOD, question=question)


def running(seed: int, n: int) -> np.ndarray:
    """Three channels with holes and something odd: noise, a motion with a season of 40 rows, a walk."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n, 3))
    values[:, 1] = 20 * np.sin(2 * np.pi * np.arange(n) / 40) + 0.3 * values[:, 1]
    values[:, 2] = 5 + np.cumsum(values[:, 2]) / 30
    values[rng.random(values.shape) < 0.05] = NAN
    at = rng.integers(0, n, 3)
    values[at, rng.integers(0, 3, 3)] += rng.choice([-60.0, 9.0, 300.0], 3)
    if rng.random() < 0.5:
        values[n // 2 : n // 2 + 25] += rng.choice([0.7, 4.0])
    return values.astype(np.float32).astype(np.float64)


# The same once more.


def known(values: Sequence[float]) -> list[float]:
    return [value for value in values if not math.isnan(value)]


def spread_of(values: Sequence[float], centre: float) -> float:
    away = [abs(value - centre) for value in known(values)]
    if 2 * len(away) < len(values):
        return 0.0
    return max(1.4826 * median(away), math.sqrt(sum(each**2 for each in away) / len(away)) / 4)


def widening_of(deviations: Sequence[float], limit: float) -> float:
    away = sorted(known(deviations))
    upper = max(away[math.ceil(0.975 * len(away)) - 1], 0.6744897501960817)
    theta = math.log(upper / 0.6744897501960817) / math.log(2.241402727604947 / 0.6744897501960817)
    return (limit / 0.6744897501960817) ** (min(max(theta, 1.0), 2.0) - 1.0)


def zscore_of(rows: np.ndarray, limit: float) -> list[list[float]]:
    scores = []
    for column in rows.T.tolist():
        warm = column[:40]
        centre = median(known(warm))
        spread = spread_of(warm, centre)
        spread *= widening_of([abs(value - centre) / spread for value in warm], limit)
        scores.append([abs(value - centre) / spread for value in column[40:]])
    return [[0.0 if math.isnan(each) else each for each in row] for row in zip(*scores, strict=True)]


def ewma_of(rows: np.ndarray, limit: float) -> list[list[float]]:
    state = []
    for column in rows.T.tolist():
        mean = chart = median(known(column[:40]))
        charts = []
        for value in column[:40]:
            chart += 0.0 if math.isnan(value) else 0.3 * (value - chart)
            charts.append(chart)
        seen = [NAN if math.isnan(value) else each for value, each in zip(column[:40], charts, strict=True)]
        spread = spread_of(seen, mean)
        width = widening_of([abs(each - mean) / spread for each in charts], limit)
        state.append([chart, mean, spread**2, spread**2, width])
    scores, gain = [], 2 / 51
    for row in rows[40:].tolist():
        score = []
        for value, each in zip(row, state, strict=True):
            each[0] += 0.0 if math.isnan(value) else 0.3 * (value - each[0])
            deviation = abs(each[0] - each[1]) / math.sqrt(each[2]) / each[4]
            score.append(0.0 if math.isnan(value) else deviation)
        scores.append(score)
        if max(score) <= limit:
            for value, each in zip(row, state, strict=True):
                if not math.isnan(value):
                    each[2] = max(each[2] + gain * ((each[0] - each[1]) ** 2 - each[2]), each[3] / 16)
                    each[1] += gain * (value - each[1])
    return scores


def cusum_of(rows: np.ndarray, limit: float) -> list[list[float]]:
    scores = []
    for column in rows.T.tolist():
        warm = known(column[:40])
        centre = median(warm)
        reach = 8 * spread_of(column[:40], centre)
        cut = [min(max(value, centre - reach), centre + reach) for value in warm]
        mean = sum(cut) / len(cut)
        std = math.sqrt(sum((value - mean) ** 2 for value in cut) / len(cut))
        pairs = [(a - mean, b - mean) for a, b in pairwise(column[:40]) if not math.isnan(a + b)]
        correlation = sum(a * b for a, b in pairs) / (sum(a * a + b * b for a, b in pairs) / 2)
        correlation = min(max(correlation, 0.0), 39 / 41)
        ratio = (1 + correlation) / (1 - correlation)
        k = 0.4 + 2 * math.sqrt(ratio / 40)
        sums, most, largest, score = [0.0, 0.0], math.inf, 0.0, []
        for place, value in enumerate(column):
            if place == 40:
                own = max(limit * ratio * 0.4 / k, 1.5 * largest)
                most, sums = 3.0 * own, [0.0, 0.0]
            if not math.isnan(value):
                z = (value - mean) / std
                sums = [
                    min(max(0.0, each + way * z - k), most) for each, way in zip(sums, (1, -1), strict=True)
                ]
            largest = max(largest, *sums)
            if place >= 40:
                score.append(0.0 if math.isnan(value) else max(sums) * limit / own)
        scores.append(score)
    return [list(row) for row in zip(*scores, strict=True)]


def hampel_of(rows: np.ndarray, limit: float) -> list[list[float]]:
    past, floor, width = [], [], []
    for column in rows.T.tolist():
        warm = known(column[:40])
        floor.append(spread_of(column[:40], median(warm)) / 4)
        filled = [warm[place % len(warm)] for place in range(40)]
        ring, away = filled[:9], []
        for value in column[9:40]:
            centre = median(ring)
            spread = max(1.4826 * median(abs(each - centre) for each in ring), floor[-1])
            away.append(0.0 if math.isnan(value) else abs(value - centre) / spread)
            ring = [*ring[1:], ring[0] if math.isnan(value) else value]
        width.append(widening_of(away, limit))
        past.append(filled[-9:])
    scores = []
    for row in rows[40:].tolist():
        score = []
        for value, ring, least, wide in zip(row, past, floor, width, strict=True):
            centre = median(ring)
            spread = max(1.4826 * median(abs(each - centre) for each in ring), least) * wide
            score.append(0.0 if math.isnan(value) else abs(value - centre) / spread)
        scores.append(score)
        if max(score) <= limit:
            past = [
                [*ring[1:], ring[0] if math.isnan(value) else value]
                for value, ring in zip(row, past, strict=True)
            ]
    return scores


SMALL = {2: 1.196, 3: 1.495}


def seasonal_of(rows: np.ndarray, limit: float) -> list[list[float]]:
    """Phases of ten rows; a row of NaN where no channel can be told yet."""
    channels = range(rows.shape[1])
    visits: dict[tuple[int, int], list[float]] = {(p, c): [] for p in range(4) for c in channels}
    mean_mad: dict[tuple[int, int], float] = {}
    scores, most = [], 0
    for begin in range(0, len(rows), 10):
        phase = begin // 10 % 4
        judges = {c: judge_of(visits, mean_mad, phase, c) for c in channels}
        accepted = []
        for row in rows[begin : begin + 10].tolist():
            score = [
                NAN
                if judges[c] is None
                else 0.0
                if math.isnan(row[c])
                else abs(row[c] - judges[c][0]) / judges[c][1]
                for c in channels
            ]
            scores.append(score)
            if all(not each > limit for each in score):
                accepted.append(row)
        if len(rows) - begin < 10:
            break
        most = max(most, len(accepted))
        if not accepted or 2 * len(accepted) < most:
            continue
        for c in channels:
            values = known([row[c] for row in accepted])
            if 2 * len(values) < len(accepted):
                visits[phase, c].append(NAN)
                visits[phase, c] = visits[phase, c][-3:]
                continue
            middle = np.float32(median(values))
            mad = median(abs(value - median(values)) for value in values)
            before = min(len(known(visits[phase, c])), 2)
            mean_mad[phase, c] = np.float32(
                mean_mad.get((phase, c), 0.0) + (mad - mean_mad.get((phase, c), 0.0)) / (before + 1)
            )
            visits[phase, c] = [*visits[phase, c], float(middle)][-3:]
    return scores


def between_of(levels: list[float]) -> float:
    return 1.4826 * SMALL[len(levels)] * median(abs(each - median(levels)) for each in levels)


def judge_of(
    visits: dict[tuple[int, int], list[float]], mads: dict[tuple[int, int], float], phase: int, c: int
) -> tuple[float, float] | None:
    """Level and spread of a channel in a phase."""
    levels = {p: known(visits[p, c]) for p in range(4) if len(known(visits[p, c])) >= 2}
    if phase not in levels:
        return None
    between = {p: between_of(each) for p, each in levels.items()}
    inside = {p: 1.4826 * float(mads[p, c]) for p in levels}
    own = math.hypot(inside[phase], max(between[phase], median(between.values())))
    rms = math.sqrt(sum(inside[p] ** 2 + between[p] ** 2 for p in levels) / len(levels))
    middles = [median(each) for each in levels.values()]
    mean = sum(middles) / len(middles)
    far = math.sqrt(sum((each - mean) ** 2 for each in middles) / len(middles))
    return median(levels[phase]), max(own, rms / 4, far / 20)


REFERENCES: dict[str, tuple[Callable[[np.ndarray, float], list[list[float]]], int]] = {
    "zscore": (zscore_of, 40),
    "ewma": (ewma_of, 40),
    "cusum": (cusum_of, 40),
    "hampel": (hampel_of, 40),
    "seasonal": (seasonal_of, 0),
}
"""What does the same, and how many rows go by before its first."""


@every_baseline
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_it_does_what_the_plain_reference_does(kind, seed):
    rows = running(seed, 250)
    model = loaded(kind)
    found = model.score(windows_of(rows))
    limit = siegmund_h(3, 864_000, 0.4) if kind == "cusum" else normal_limit(3, 864_000)
    assert model.calibration is not None
    assert model.calibration.limit == limit
    reference, silent = REFERENCES[kind]
    expected = np.array(reference(rows, limit))
    told = ~np.isnan(expected).all(axis=1)
    assert np.isnan(found.values[:silent]).all()
    np.testing.assert_array_equal(~np.isnan(found.values[silent:]), told)
    np.testing.assert_allclose(
        found.values[silent:][told], np.nanmax(expected[told], axis=1), rtol=1e-6, atol=1e-9
    )
    parts = found.contributions[silent:] if kind == "cusum" else np.sqrt(found.contributions[silent:])
    np.testing.assert_allclose(parts, np.nan_to_num(expected), rtol=1e-6, atol=1e-9)


@every_baseline
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), cuts=st.lists(st.integers(0, 60), max_size=12), regimes=st.booleans())
def test_no_cut_of_the_rows_changes_a_bit(kind, seed, cuts, regimes):
    rows = running(seed, 300)
    if regimes:
        rows[:, 2] = np.random.default_rng(seed).integers(0, 3, 300)
        rows[::17, 2] = NAN
    by = 2 if regimes else None
    whole, pieces = loaded(kind, by=by, **RELEARN[kind]), loaded(kind, by=by, **RELEARN[kind])
    expected = whole.score(windows_of(rows))
    edges = [0, *sorted(min(300, int(at)) for at in np.cumsum(cuts)), 300]
    found = [pieces.score(windows_of(rows[begin:end], begin)) for begin, end in pairwise(edges)]
    np.testing.assert_array_equal(np.concatenate([each.values for each in found]), expected.values)
    parts = np.concatenate([each.contributions for each in found])
    np.testing.assert_array_equal(parts, expected.contributions)
    assert pieces.state() == whole.state()


@every_baseline
@pytest.mark.parametrize("by", [None, 2])
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32), relearn=st.sampled_from([None, 5, 30]))
def test_what_was_normal_at_a_row_is_a_matter_of_the_rows_up_to_it(kind, by, seed, relearn):
    rows = running(seed, 300)
    if by is not None:
        rows[:, by] = np.random.default_rng(seed).integers(0, 3, 300)
        rows[::17, by] = NAN
    whole, single = (loaded(kind, by=by, relearn_after=relearn) for _ in range(2))
    whole.score(windows_of(rows))
    for at, row in enumerate(rows):
        single.score(windows_of(row[None], at))
        if single.calibration is None:
            assert whole.calibration is None or at < whole.calibration.since
        else:
            assert single.calibration.since == whole.calibration.since
            assert dict(whole.calibration.at(at).normal) == dict(single.calibration.normal)
