"""Lazy operations give what numpy gives, for any selection, and read no more than that."""

import itertools
import pickle

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from models.errors import InputError
from pipelines.weather import lazy

VALUES = np.arange(4 * 5 * 6, dtype=np.float32).reshape(4, 5, 6)


def item(size):
    whole = st.integers(-size, size - 1)
    # Empty slices that step backwards fail in xarray itself.
    filled = st.slices(size).filter(lambda s: len(range(size)[s]) > 0)
    return st.one_of(whole, filled, st.lists(whole, min_size=1, max_size=6).map(np.array))


selections = st.tuples(item(4), item(5), item(6))


def outer(array, selection):
    """Each dimension indexed by itself."""
    for axis in (2, 1, 0):
        array = array[(slice(None),) * axis + (selection[axis],)]
    return array


@given(selections)
def test_scaled(selection):
    source = xr.Variable(("a", "b", "c"), VALUES)
    got = lazy.scaled(source, 2.0, 1.0, missing=[7.0])[selection].values
    np.testing.assert_array_equal(got, outer(np.where(VALUES == 7, np.nan, VALUES * 2 + 1), selection))


@given(selections)
def test_scaled_along_a_dimension(selection):
    factors = np.array([1.0, 2.0, 3.0, 4.0]).reshape(4, 1, 1)
    got = lazy.scaled(xr.Variable(("a", "b", "c"), VALUES), factors)[selection].values
    np.testing.assert_array_equal(got, outer(VALUES * factors.astype(np.float32), selection))


@given(selections, st.sampled_from("abc"), st.lists(st.integers(0, 4), max_size=3))
def test_joined(selection, dim, cuts):
    axis = "abc".index(dim)
    edges = sorted({0, *(min(cut, VALUES.shape[axis]) for cut in cuts), VALUES.shape[axis]})
    source = xr.Variable(("a", "b", "c"), VALUES)
    spans = list(itertools.pairwise(edges))
    np.testing.assert_array_equal(lazy.runs(source, dim, spans)[selection].values, outer(VALUES, selection))


@given(selections)
def test_turned(selection):
    source = xr.Variable(("c", "a", "b"), VALUES.transpose(2, 0, 1))
    turned = lazy.turned(source, ("a", "new", "b", "c"))
    assert turned.shape == (4, 1, 5, 6)
    np.testing.assert_array_equal(turned[:, 0][selection].values, outer(VALUES, selection))


@given(selections)
def test_differences(selection):
    totals = np.cumsum(VALUES, axis=0)
    got = lazy.differences(xr.Variable(("a", "b", "c"), totals), "a", np.array([-1, 0, 1, 2]), slack=1e-6, where="f: v")
    np.testing.assert_array_equal(got[selection].values, outer(VALUES, selection))


def test_totals_that_fall():
    source = xr.Variable(("a",), np.array([1.0, 0.9999999, 0.5], np.float64))
    before = np.array([-1, 0, 1])
    amounts = lazy.differences(source, "a", before, slack=1e-4, where="f: v")
    np.testing.assert_array_equal(amounts[:2].values, [1.0, 0.0])
    with pytest.raises(InputError, match="f: v: a running total falls by 0.5"):
        _ = amounts[:].values


def test_reads_only_what_is_wanted_and_crosses_processes():
    asked = []

    def read(selection):
        asked.append(selection)
        return VALUES[np.ix_(*(lazy.positions(s, n) for s, n in zip(selection, VALUES.shape, strict=True)))]

    source = lazy.variable(("a", "b", "c"), VALUES.shape, np.float32, read)
    chain = lazy.scaled(lazy.joined([source, source], "a"), 3.0)
    assert not asked
    assert chain[5, 2, 3].values == VALUES[1, 2, 3] * 3
    assert asked == [(slice(1, 2), slice(2, 3), slice(3, 4))]
    stored = xr.Variable(("a", "b", "c"), VALUES)
    again = pickle.loads(pickle.dumps(lazy.scaled(lazy.runs(stored, "c", [(3, 6), (0, 3)]), 2.0)))
    np.testing.assert_array_equal(again.values, np.roll(VALUES, 3, axis=2) * 2)


def test_pieces_that_do_not_fit():
    one, two = xr.Variable(("a", "b"), VALUES[0]), xr.Variable(("a", "b"), VALUES[0, :, :5])
    with pytest.raises(ValueError, match="cannot follow"):
        lazy.joined([one, two], "a")
    whole = lazy.scaled(xr.Variable(("a",), np.array([1, 2, -1], np.int16)), missing=[-1])
    assert whole.dtype == np.float32
    np.testing.assert_array_equal(whole.values, [1, 2, np.nan])
