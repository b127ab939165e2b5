"""What the baselines' statistics are, against numpy column by column; and what their limits promise."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dxad.baseline import mean_and_std, medians, normal_limit, pack, spreads, unpack, unpack_single, widening
from dxad.baseline.robust import quantiles
from dxad.errors import ModelError
from dxad.models.cusum import siegmund_h

NAN = float("nan")


def holed(seed: int, n: int) -> np.ndarray:
    """Five channels with holes: noise, few values, one value, mostly unknown, unknown."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n, 5))
    values[:, 1] = rng.integers(0, 3, n)
    values[:, 2] = 7.0
    values[rng.random((n, 5)) < 0.2] = NAN
    values[rng.random(n) < 0.9, 3] = NAN
    values[:, 4] = NAN
    return values


@given(seed=st.integers(0, 2**32), n=st.integers(1, 40))
def test_statistics_are_those_of_each_column_s_known_values(seed, n):
    values = holed(seed, n)
    middle, spread, (mean, std) = medians(values), spreads(values, medians(values)), mean_and_std(values)
    upper = quantiles(values, 0.9)
    for column in range(5):
        known = values[:, column][~np.isnan(values[:, column])]
        if not len(known):
            assert math.isnan(middle[column])
            assert math.isnan(mean[column])
            assert math.isnan(upper[column])
            assert spread[column] == 0.0
            continue
        assert middle[column] == pytest.approx(np.median(known))
        assert mean[column] == pytest.approx(known.mean(), abs=1e-12)
        assert std[column] == pytest.approx(known.std(), abs=1e-12)
        assert upper[column] == sorted(known)[math.ceil(0.9 * len(known)) - 1]
        away = np.abs(known - np.median(known))
        expected = max(1.4826 * np.median(away), np.sqrt((away**2).mean()) / 4)
        assert spread[column] == pytest.approx(expected if 2 * len(known) >= n else 0.0, abs=1e-12)


def test_a_column_that_stands_still_has_no_spread_at_all():
    values = np.full((100, 1), np.float32(0.1), dtype=np.float64)
    assert spreads(values, medians(values)) == 0.0


def test_no_rows_have_no_median_and_no_quantile():
    assert np.isnan(medians(np.empty((0, 2)))).all()
    assert np.isnan(quantiles(np.empty((0, 2)), 0.5)).all()


@pytest.mark.parametrize(
    ("channels", "rows", "limit"),
    [(1, 370, 2.998), (1, 15_787, 3.999), (10, 1_000_000, 5.327), (1000, 1_000_000, 6.109)],
)
def test_the_limit_is_the_normal_quantile_shared_among_the_channels(channels, rows, limit):
    assert normal_limit(channels, rows) == pytest.approx(limit, abs=0.002)


@pytest.mark.parametrize("channels", [1, 10, 200])
def test_normal_channels_are_above_the_limit_as_often_as_was_asked_for(channels):
    rng = np.random.default_rng(1)
    highest = np.abs(rng.normal(size=(20_000, channels))).max(axis=1)
    found = (highest > normal_limit(channels, 100)).sum()
    assert found == pytest.approx(200, rel=0.25)


@pytest.mark.parametrize(("h", "run_length"), [(4.0, 168), (5.0, 465)])
def test_h_of_a_cusum_is_the_one_of_the_tables_for_its_run_length(h, run_length):
    """NIST/SEMATECH e-Handbook, 6.3.2.3.1: two-sided, k = 0.5."""
    assert siegmund_h(1, run_length, 0.5) == pytest.approx(h, abs=0.05)


def test_heavier_tails_widen_and_normal_and_lighter_ones_hardly_do():
    rng = np.random.default_rng(2)
    n, limit = 20_000, 5.0
    kinds = [rng.normal(size=n), rng.uniform(-1, 1, n), rng.laplace(size=n), rng.standard_t(3, n)]
    values = np.column_stack(kinds)
    away = np.abs(values) / spreads(values, np.zeros(4))
    normal, uniform, laplace, student = widening(away, limit)
    assert normal == pytest.approx(1.0, abs=0.05)
    assert uniform == 1.0
    assert 1.3 < laplace < 3
    assert 1.3 < student < 3
    assert (away[:, 2] > limit * laplace).mean() < 1e-4, "of the Laplacian, without: 0.7 %"
    assert (away[:, 2] > limit).mean() > 5e-3


def test_a_few_odd_rows_of_a_warm_up_widen_nothing():
    away = np.abs(np.random.default_rng(3).normal(size=(200, 1)))
    before = widening(away, 5.0)
    odd = away.copy()
    odd[np.argsort(away[:, 0])[-4:]] = 1000.0
    assert widening(odd, 5.0) == before


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_arrays_come_out_of_a_document_as_they_went_in(kind):
    array = np.array([[1.0, -0.0], [NAN, 1e-40], [0.1, np.inf]], dtype=kind)
    read = unpack_single if kind is np.float32 else unpack
    found = read({"a": pack(array)}, "a", (3, 2))
    assert found.dtype == kind
    assert found.tobytes() == array.tobytes()
    assert found.flags.writeable


@pytest.mark.parametrize(
    "document", [{}, {"a": 5}, {"a": "no base64"}, {"a": pack(np.zeros(3))}, {"a": "AAA="}]
)
def test_an_array_that_is_damaged_is_refused(document):
    with pytest.raises(ModelError, match="the saved state has no 'a' of 2 numbers"):
        unpack(document, "a", (2,))
