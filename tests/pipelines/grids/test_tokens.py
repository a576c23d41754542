"""Tokens on their grid: components and likeness beside scikit-learn's, and the token at a place."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.warp import transform
from sklearn.decomposition import PCA
from sklearn.metrics.pairwise import cosine_similarity

from models.errors import InputError
from pipelines.grids.tokens import Tokens, components, similarity

GRID = GeoBox((5, 7), Affine(480, 0, 500000, 0, -480, 5000000 + 5 * 480), "EPSG:32632")


@pytest.fixture
def tokens():
    """(6, 5, 7) random features of unequal size; one token saw nothing."""
    values = np.random.default_rng(0).normal(3, [[[1]], [[2]], [[3]], [[4]], [[5]], [[6]]], (6, 5, 7))
    values[:, 1, 2] = np.nan
    return Tokens(values.astype(np.float32), GRID)


def degrees(row, column):
    """A place in the lower left corner of a token."""
    x, y = 500000 + 480 * (column + 0.1), 5000000 + 5 * 480 - 480 * (row + 0.9)
    (lon,), (lat,) = transform("EPSG:32632", "EPSG:4326", [x], [y])
    return lon, lat


def rows(tokens):
    return tokens.values[:, tokens.known].T


def test_components_are_those_of_scikit_learn_up_to_their_sign(tokens):
    values, explained = components(tokens, 3)
    oracle = PCA(3, svd_solver="full").fit(rows(tokens))
    np.testing.assert_allclose(explained, oracle.explained_variance_ratio_, rtol=1e-5)
    signs = np.sign(oracle.components_[range(3), np.abs(oracle.components_).argmax(axis=1)])
    np.testing.assert_allclose(values[:, tokens.known].T, oracle.transform(rows(tokens)) * signs, atol=1e-4)
    assert np.isnan(values[:, 1, 2]).all()


@pytest.mark.parametrize(("row", "column"), [(0, 0), (4, 6), (2, 3)])
def test_a_place_is_in_the_token_whose_ground_holds_it(tokens, row, column):
    assert tokens.at(*degrees(row, column)) == (row, column)


@pytest.mark.parametrize(("row", "column"), [(0, 0), (4, 6), (2, 3)])
def test_likeness_is_the_cosine_of_what_differs_from_the_mean(tokens, row, column):
    likeness, known = similarity(tokens, *degrees(row, column)), tokens.known
    centred = tokens.values - rows(tokens).mean(axis=0)[:, None, None]
    oracle = cosine_similarity(centred[:, row, column][None], centred[:, known].T)
    assert likeness[row, column] == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(likeness[known], oracle[0], atol=1e-5)
    assert np.isnan(likeness[1, 2])


def test_likeness_of_many_tokens_takes_no_more_memory_than_they_do():
    values = np.random.default_rng(0).normal(0, 1, (4, 100, 100)).astype(np.float32)
    tracemalloc.start()
    similarity(Tokens(values, GRID), *degrees(0, 0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50 * values.nbytes  # each token beside each other would take 400 MB


def test_places_that_hold_no_token_are_refused(tokens):
    with pytest.raises(InputError, match="outside of the scene"):
        tokens.at(0, 0)
    x, y = 500000 + 480 * 2.5, 5000000 + 5 * 480 - 480 * 1.5
    (lon,), (lat,) = transform("EPSG:32632", "EPSG:4326", [x], [y])
    with pytest.raises(InputError, match="no valid pixel there"):
        similarity(tokens, lon, lat)
    with pytest.raises(InputError, match="without a coordinate system"):
        Tokens(tokens.values, GeoBox((5, 7), GRID.affine, None)).at(9, 45)


def test_more_components_than_there_are_and_nothing_seen_are_refused(tokens):
    with pytest.raises(InputError, match="7 components"):
        components(tokens, 7)
    with pytest.raises(InputError, match="no token saw"):
        components(Tokens(np.full((6, 5, 7), np.nan, np.float32), GRID), 1)
