import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.grids.windows import Tiles, cells, enlarged, starts

sides = st.integers(1, 60)


@st.composite
def layouts(draw):
    tile = draw(st.integers(1, 20))
    return tile, draw(st.integers(0, tile - 1))


@given(size=sides, layout=layouts())
def test_starts_cover_the_side_and_share_at_least_the_overlap(size, layout):
    tile, overlap = layout
    first = starts(size, tile, overlap)
    assert first[0] == 0
    assert first[-1] == max(size - tile, 0)
    steps = np.diff(first)
    assert (steps > 0).all()
    assert (tile - steps >= overlap).all()


@given(size=sides, layout=layouts(), begin=st.integers(-(10**7), 10**7), cut=st.integers(0, 40))
def test_a_crop_has_the_tiles_of_the_whole(size, layout, begin, cut):
    """All but those flush with its edges, when tiles are counted from a place on the ground."""
    tile, overlap = layout
    whole = starts(size + cut, tile, overlap, begin)
    inner = starts(size, tile, overlap, begin - cut)
    assert {cut + first for first in inner[1:-1]} <= {*whole}
    assert inner[0] == 0 and inner[-1] == max(size - tile, 0) and (np.diff(inner) <= tile - overlap).all()
    assert all((first - begin + cut) % (tile - overlap) == 0 for first in inner[1:-1])


@given(size=sides, layout=layouts())
def test_no_tile_is_superfluous(size, layout):
    tile, overlap = layout
    fewest = 1 + -(-max(size - tile, 0) // (tile - overlap))
    assert len(starts(size, tile, overlap)) == fewest


@given(height=sides, width=sides, layout=layouts())
def test_tiles_cover_every_pixel_row_by_row(height, width, layout):
    tile, overlap = layout
    seen = np.zeros((height, width), int)
    windows = Tiles((height, width), tile, overlap)
    assert len(windows) == len(list(windows))
    assert windows[-1] == list(windows)[-1] and windows[:2] == list(windows)[:2]
    for window in windows:
        assert seen[window].shape == (min(tile, height), min(tile, width))
        seen[window] += 1
    assert seen.min() >= 1
    corners = [(rows.start, cols.start) for rows, cols in windows]
    assert corners == sorted(set(corners))


@given(height=sides, width=sides, layout=layouts(), data=st.data())
def test_tiles_of_some_rows_are_all_that_touch_them(height, width, layout, data):
    first = data.draw(st.integers(0, height - 1))
    end = data.draw(st.integers(first + 1, height))
    every = Tiles((height, width), *layout)
    assert list(Tiles((height, width), *layout, rows=(first, end))) == [
        window for window in every if window[0].start < end and window[0].stop > first
    ]


def test_a_large_scene_has_no_list_of_windows():
    windows = Tiles((10**6, 10**6), 32, 8)
    assert len(windows) > 10**9
    assert windows[len(windows) - 1] == (slice(10**6 - 32, 10**6), slice(10**6 - 32, 10**6))
    with pytest.raises(IndexError):
        windows[len(windows)]


def test_a_window_on_a_finer_grid_ends_with_it():
    assert enlarged((slice(1, 3), slice(0, 2)), 16, (40, 100)) == (slice(16, 40), slice(0, 32))


def test_tiles_share_nothing_where_nothing_is_said_and_end_with_the_grid():
    assert starts(10, 4) == [0, 4, 6]
    assert Tiles((4, 10), 4).cols == [0, 4, 6]
    assert [*Tiles((3, 5), 4)] == [(slice(0, 3), slice(0, 4)), (slice(0, 3), slice(1, 5))]
    assert [*Tiles((5, 3), 4)] == [(slice(0, 4), slice(0, 3)), (slice(1, 5), slice(0, 3))]


def test_cells_of_a_hand_worked_grid():
    rows, cols = (slice(0, 2), slice(2, 4), slice(4, 5)), (slice(0, 2), slice(2, 3))
    assert cells(5, 3, 2) == [(row, col) for row in rows for col in cols]
    assert cells(2, 4, 4) == [(slice(0, 2), slice(0, 4))]


@given(height=sides, width=sides, tile=st.integers(1, 70))
def test_cells_hold_every_pixel_once(height, width, tile):
    seen = np.zeros((height, width), int)
    for window in cells(height, width, tile):
        seen[window] += 1
    assert (seen == 1).all()


def test_a_hand_worked_side():
    assert starts(10, 4, 1) == [0, 3, 6]
    assert starts(11, 4, 1) == [0, 3, 6, 7]
    assert starts(4, 4) == starts(3, 4) == [0]


@pytest.mark.parametrize(("size", "tile", "overlap"), [(0, 4, 0), (4, 0, 0), (4, 4, 4), (4, 4, -1)])
def test_impossible_layouts_are_refused(size, tile, overlap):
    with pytest.raises(ValueError, match=f"size {size}, tile {tile}, overlap {overlap}"):
        starts(size, tile, overlap)
