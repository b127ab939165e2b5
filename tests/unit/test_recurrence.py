"""The recurrence y[t] = k[t] · y[t-1] + b[t], against the loop that it stands for."""

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dxad.signal.recurrence import Recurrence


def slow(k, b):
    y, made = np.zeros(k.shape[1]), []
    for factor, added in zip(k, b, strict=True):
        y = factor * y + added
        made.append(y)
    return np.array(made).reshape(k.shape)


cases = given(
    seed=st.integers(0, 2**32),
    n=st.integers(0, 150),
    first=st.integers(-100, 10**12),
    at=st.lists(st.integers(0, 150), max_size=6),
)


def drawn(seed, n):
    rng = np.random.default_rng(seed)
    return rng.choice([0.0, 0.3, 0.99, 1.0], size=(n, 3)), rng.normal(size=(n, 3))


@cases
@settings(max_examples=100, deadline=None)
def test_it_is_the_loop_over_rows(seed, n, first, at):
    k, b = drawn(seed, n)
    np.testing.assert_allclose(Recurrence(3).push(first, k, b), slow(k, b), rtol=1e-9, atol=1e-12)


@cases
@settings(max_examples=100, deadline=None)
def test_no_cut_changes_a_bit(seed, n, first, at):
    k, b = drawn(seed, n)
    pieces = Recurrence(3)
    edges = [0, *sorted(min(each, n) for each in at), n]
    found = [pieces.push(first + begin, k[begin:end], b[begin:end]) for begin, end in pairwise(edges)]
    np.testing.assert_array_equal(np.concatenate(found), Recurrence(3).push(first, k, b))


def test_a_factor_of_zero_begins_anew_to_the_bit():
    k, b = np.full((100, 3), 0.9), np.full((100, 3), 0.1)
    k[70], b[70] = 0.0, 1 / 3
    assert (Recurrence(3).push(5, k, b)[70] == 1 / 3).all()


def test_it_goes_on_over_slots_that_were_left_out():
    whole = Recurrence(1)
    k, b = np.full((5, 1), 0.5), np.ones((5, 1))
    before = whole.push(3, k, b)[-1]
    after = whole.push(1000, k[:1], b[:1])[0]
    np.testing.assert_allclose(after, before * 0.5 + 1)
