import tracemalloc

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from models.errors import RunError
from pipelines.grids.mosaic import blend, fill_invalid, pad_tile, weights
from pipelines.grids.windows import Tiles

sides = st.integers(1, 40)


@st.composite
def layouts(draw):
    tile = draw(st.integers(1, 16))
    return tile, draw(st.integers(0, tile - 1))


def mask(window, value=True):
    return np.full([side.stop - side.start for side in window], value)


def echo(scene, tiles):
    return [(window, scene[:, *window], mask(window)) for window in tiles]


def joined(strips):
    return np.concatenate([rows for _, rows, _ in strips], axis=1)


def blended(scene, tile, overlap):
    channels, height, _ = scene.shape
    tiles = Tiles(scene.shape[1:], tile, overlap)
    strips = list(blend(echo(scene, tiles), tiles, channels=channels))
    ends = np.cumsum([rows.shape[1] for _, rows, _ in strips])
    assert [first for first, _, _ in strips] == [0, *ends[:-1]]
    assert ends[-1] == height
    assert max(rows.shape[1] for _, rows, _ in strips) <= tile
    return joined(strips)


@given(size=sides, layout=layouts())
def test_weights_are_positive_and_sum_to_one_at_each_pixel(size, layout):
    total = np.zeros(size)
    for first, weight in weights(size, *layout):
        assert (weight > 0).all()
        total[first : first + len(weight)] += weight
    np.testing.assert_allclose(total, 1, atol=1e-6)


def test_two_tiles_cross_over_as_raised_cosines():
    # half overlap: sin^2 and cos^2 of the same angle, which sum to one without normalising
    (_, left), (first, right) = weights(12, 8, 4)
    assert first == 4
    angle = np.pi * (np.arange(4) + 0.5) / 8
    np.testing.assert_allclose(right, [*np.sin(angle) ** 2, 1, 1, 1, 1], rtol=1e-6)
    np.testing.assert_allclose(left, [1, 1, 1, 1, *np.cos(angle) ** 2], rtol=1e-6)


def test_tiles_side_by_side_count_alone():
    assert [(first, weight.tolist()) for first, weight in weights(8, 4)] == [(0, [1.0] * 4), (4, [1.0] * 4)]


@given(height=sides, width=sides, layout=layouts(), seed=st.integers(0, 99))
def test_predicting_the_input_returns_the_input(height, width, layout, seed):
    scene = np.random.default_rng(seed).normal(size=(2, height, width)).astype(np.float32)
    result = blended(scene, *layout)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, scene, atol=1e-5)


@given(height=sides, width=sides, layout=layouts())
def test_constants_and_ramps_show_no_seam(height, width, layout):
    ramp = np.add.outer(np.linspace(0, 1, height), np.linspace(1, 2, width))
    scene = np.stack([np.full((height, width), 0.25), ramp]).astype(np.float32)
    np.testing.assert_allclose(blended(scene, *layout), scene, atol=2e-6)


@given(height=sides, width=sides, layout=layouts(), seed=st.integers(0, 99))
def test_disagreeing_tiles_never_leave_their_range(height, width, layout, seed):
    rng = np.random.default_rng(seed)
    windows = Tiles((height, width), *layout)
    given_ = [(w, rng.uniform(size=(1, *mask(w).shape)), mask(w)) for w in windows]
    low, high = np.full((height, width), np.inf), np.full((height, width), -np.inf)
    for window, y, _ in given_:
        low[window] = np.minimum(low[window], y[0])
        high[window] = np.maximum(high[window], y[0])
    result = joined(blend(given_, windows, channels=1))[0]
    assert (result >= low - 1e-5).all()
    assert (result <= high + 1e-5).all()


def test_tiles_without_a_valid_pixel_leave_the_valid_pixels_whole():
    valid = np.zeros((40, 40), bool)
    valid[3:9, 30:40] = True
    windows = Tiles((40, 40), 16, 4)
    predictions = [(w, np.ones((1, 16, 16), np.float32) if valid[w].any() else None, valid[w]) for w in windows]
    assert any(y is None for _, y, _ in predictions)
    strips = list(blend(predictions, windows, channels=1))
    result = joined(strips)[0]
    np.testing.assert_array_equal(np.concatenate([rows for _, _, rows in strips]), valid)
    np.testing.assert_allclose(result[valid], 1, atol=1e-6)
    assert result[-1, 0] == 0


def test_rows_come_before_later_tiles_are_asked_for():
    asked = []

    tiles = Tiles((24, 8), 8)

    def predictions():
        for window in tiles:
            asked.append(window[0].start)
            yield window, np.zeros((1, 8, 8), np.float32), mask(window)

    strips = blend(predictions(), tiles, channels=1)
    assert next(strips)[0] == 0
    assert asked == [0]
    assert next(strips)[0] == 8
    assert asked == [0, 8]


@given(height=sides, width=sides, layout=layouts(), data=st.data())
def test_some_rows_are_the_same_to_the_bit_as_those_of_the_whole(height, width, layout, data):
    first = data.draw(st.integers(0, height - 1))
    end = data.draw(st.integers(first + 1, height))
    rng = np.random.default_rng(height * width)
    every = Tiles((height, width), *layout)
    given_ = [
        (w, rng.normal(size=(2, *mask(w).shape)).astype(np.float32), rng.random(mask(w).shape) > 0.5) for w in every
    ]
    whole = list(blend(given_, every, channels=2))
    some = Tiles((height, width), *layout, rows=(first, end))
    mine = [p for p in given_ if p[0] in list(some)]
    part = list(blend(mine, some, channels=2, rows=(first, end)))
    assert part[0][0] == first and all(rows.shape[1] for _, rows, _ in part)
    np.testing.assert_array_equal(joined(part), joined(whole)[:, first:end])
    masks = [np.concatenate([m for _, _, m in strips]) for strips in (part, whole)]
    np.testing.assert_array_equal(masks[0], masks[1][first:end])


def test_rows_given_out_do_not_change_afterwards():
    scene = np.arange(3 * 30 * 10, dtype=np.float32).reshape(3, 30, 10)
    tiles = Tiles((30, 10), 10, 3)
    strips = blend(echo(scene, tiles), tiles, channels=3)
    first = next(strips)[1]
    before = first.copy()
    first_again = first
    list(strips)
    np.testing.assert_array_equal(first_again, before)


def test_memory_does_not_grow_with_the_height():
    def peak(height):
        answer = np.ones((4, 64, 64), np.float32)
        tiles = Tiles((height, 256), 64, 16)
        feed = ((window, answer, mask(window)) for window in tiles)
        tracemalloc.start()
        for _ in blend(feed, tiles, channels=4):
            pass
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    strip = 4 * 64 * 256 * 4
    peak(64 * 4)  # first call warms caches
    low, tall = peak(64 * 4), peak(64 * 40)
    assert tall < low + strip / 2
    assert tall < 4 * strip


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda p: p[:-1], "the predictions ended"),
        (lambda p: [p[1], p[0], *p[2:]], "rows 0:4, columns 0:4, rows 0:4, columns 4:8 came"),
        (lambda p: [*p, p[-1]], "after the last of 4 windows"),
        (lambda p: [(p[0][0], p[0][1][:, :3], p[0][2]), *p[1:]], r"wanted \(1, 4, 4\).*\(1, 3, 4\) came"),
        (lambda p: [(p[0][0], np.ones((2, 4, 4)), p[0][2]), *p[1:]], r"wanted \(1, 4, 4\)"),
        (lambda p: [(p[0][0], None, np.ones((3, 4), bool)), *p[1:]], r"wanted \(1, 4, 4\).*\(3, 4\) came"),
    ],
)
def test_predictions_that_do_not_fit_are_refused(change, said):
    tiles = Tiles((8, 8), 4)
    predictions = change(echo(np.ones((1, 8, 8), np.float32), tiles))
    with pytest.raises(RunError, match=said):
        list(blend(predictions, tiles, channels=1))


@given(shape=hnp.array_shapes(min_dims=4, max_dims=4, max_side=6), extra=st.integers(0, 20))
@example(shape=(1, 1, 2, 3), extra=0)
@example(shape=(1, 1, 3, 2), extra=0)
def test_padding_reflects_and_is_invalid(shape, extra):
    height, width = shape[2:]
    tile = max(height, width) + extra
    x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    padded, valid = pad_tile(x, np.ones((height, width), bool), tile)
    assert padded.shape == (*shape[:2], tile, tile)
    assert valid.sum() == height * width
    assert valid[:height, :width].all()

    def source(index, side):  # a mirror at each end, the edge pixel repeated
        index %= 2 * side
        return index if index < side else 2 * side - 1 - index

    rows = [source(i, height) for i in range(tile)]
    cols = [source(i, width) for i in range(tile)]
    np.testing.assert_array_equal(padded, x[:, :, rows][:, :, :, cols])


def test_a_full_tile_is_not_copied_and_a_larger_one_refused():
    x, valid = np.ones((1, 1, 4, 4), np.float32), np.ones((4, 4), bool)
    assert pad_tile(x, valid, 4)[0] is x
    with pytest.raises(ValueError, match="4 x 4 cannot be padded to 3 x 3"):
        pad_tile(x, valid, 3)
    for shape in ((4, 2), (2, 4)):
        with pytest.raises(ValueError, match=f"{shape[0]} x {shape[1]} cannot be padded to 3 x 3"):
            pad_tile(np.ones((1, 1, *shape)), np.ones(shape, bool), 3)
    for shape in ((0, 2), (2, 0)):
        with pytest.raises(ValueError, match=f"{shape[0]} x {shape[1]} cannot be padded"):
            pad_tile(np.ones((1, 1, *shape)), np.ones(shape, bool), 3)
    assert fill_invalid(x, valid) is x


@given(
    valid=hnp.arrays(bool, (4, 5)).filter(lambda v: v.any()),
    x=hnp.arrays(np.float32, (2, 3, 4, 5), elements=st.floats(-1e4, 1e4, width=32)),
)
def test_invalid_pixels_get_the_mean_of_the_valid_ones(valid, x):
    dirty = np.where(valid, x, np.nan).astype(np.float32)
    filled = fill_invalid(dirty, valid)
    assert filled.dtype == np.float32
    np.testing.assert_array_equal(filled[..., valid], x[..., valid])
    if not valid.all():
        mean = np.nanmean(dirty.astype(float), axis=(2, 3))
        np.testing.assert_allclose(filled[..., ~valid], np.repeat(mean[..., None], (~valid).sum(), -1), atol=1e-2)


def test_a_tile_without_a_valid_pixel_is_refused():
    with pytest.raises(ValueError, match="skip the tile"):
        fill_invalid(np.ones((1, 1, 2, 2), np.float32), np.zeros((2, 2), bool))
