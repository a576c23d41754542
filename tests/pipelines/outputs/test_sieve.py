import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from pipelines.outputs.sieve import patches, sieve

CODES = st.tuples(st.integers(1, 12), st.integers(1, 12)).flatmap(
    lambda shape: arrays(np.uint16, shape, elements=st.sampled_from([0, 1, 7, 300]))
)


def grown(codes, valid):
    """The patches as a list of sets of pixels, by flooding from each pixel."""
    left, found = {(int(row), int(column)) for row, column in np.argwhere(valid)}, []
    while left:
        patch, edge = set(), [min(left)]
        while edge:
            row, column = edge.pop()
            if (row, column) in left:
                left.remove((row, column))
                patch.add((row, column))
                beside = [(row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)]
                edge += [at for at in beside if at in left and codes[at] == codes[row, column]]
        found.append(patch)
    return found


def beside(patch, shape):
    """Pixels that border on a patch."""
    mask = np.zeros(shape, bool)
    mask[tuple(np.array(sorted(patch)).T)] = True
    return ndimage.binary_dilation(mask) & ~mask


@given(codes=CODES, least=st.integers(0, 20))
def test_no_small_patch_is_left_unless_nothing_borders_on_it(codes, least):
    valid = codes > 0
    before = codes.copy()
    out = sieve(codes, valid=valid, least_pixels=least)
    np.testing.assert_array_equal(codes, before)
    assert out.dtype == codes.dtype
    np.testing.assert_array_equal(out[~valid], codes[~valid])
    assert set(np.unique(out[valid])) <= set(np.unique(codes[valid]))
    for patch in grown(out, valid):
        assert len(patch) >= least or not (beside(patch, codes.shape) & valid).any()


@given(codes=CODES, least=st.integers(2, 20))
def test_what_is_sieved_stays(codes, least):
    out = sieve(codes, valid=codes > 0, least_pixels=least)
    np.testing.assert_array_equal(sieve(out, valid=codes > 0, least_pixels=least), out)


def test_a_patch_takes_the_code_of_its_largest_neighbour():
    codes = np.array([[1, 1, 1, 2, 2], [1, 1, 3, 2, 2], [1, 1, 1, 1, 1]], np.uint8)
    out = sieve(codes, valid=np.ones_like(codes, bool), least_pixels=2)
    np.testing.assert_array_equal(out, np.where(codes == 3, 1, codes))
    np.testing.assert_array_equal(sieve(codes, valid=np.ones_like(codes, bool), least_pixels=5), np.ones_like(codes))


def test_nodata_is_not_merged_into_nor_a_bridge():
    codes = np.array([[5, 5, 5, 0, 7, 0, 5, 5, 5]], np.uint8)
    np.testing.assert_array_equal(sieve(codes, valid=codes > 0, least_pixels=3), codes)
    np.testing.assert_array_equal(sieve(codes, valid=codes > 0, least_pixels=1000), codes)


def test_small_patches_among_themselves_take_their_commonest_code():
    codes = np.indices((6, 7)).sum(axis=0) % 2 + 1
    codes[0] = 1
    out = sieve(codes.astype(np.uint8), valid=np.ones(codes.shape, bool), least_pixels=20)
    np.testing.assert_array_equal(out, np.ones_like(out))


@given(codes=CODES)
def test_patches_are_those_that_flooding_finds(codes):
    labels, kinds = patches(codes, codes > 0)
    assert labels.dtype == np.int32
    found = [{tuple(at) for at in np.argwhere(labels == label).tolist()} for label in range(1, len(kinds))]
    assert sorted(map(sorted, found)) == sorted(map(sorted, grown(codes, codes > 0)))
    np.testing.assert_array_equal(kinds[labels], codes)


@pytest.mark.parametrize("side", [600, 1200])
def test_memory_is_what_the_docstring_says(side):
    rng = np.random.default_rng(0)
    codes = rng.integers(1, 4, (side // 4, side // 4)).repeat(4, axis=0).repeat(4, axis=1).astype(np.uint8)
    valid = np.ones(codes.shape, bool)
    tracemalloc.start()
    sieve(codes, valid=valid, least_pixels=50)
    assert tracemalloc.get_traced_memory()[1] < 12 * codes.size + (10 << 20)
    tracemalloc.stop()
