"""Regions by hand and by scipy: connected, capped, ranked by doubt times area."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from shapely.geometry import Polygon

from models.errors import InputError
from pipelines.review import beside
from pipelines.review.regions import Doubt, class_reason, find_regions, flagged, interval_reason, pieces
from pipelines.review.review import regions_of
from tests.pipelines.review.scenes_to_review import LOW, confidence_of, make_map


def words(inside, box, at_edge):
    return "edge" if at_edge else "unsure"


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(4, 12), st.floats(0.2, 0.8))
def test_pieces_are_what_scipy_labels_in_cells_of_each_set(seed, side, share):
    mask = np.random.default_rng(seed).random((40, 33)) < share
    got = pieces(mask, side=side, least=1)
    assert np.array_equal(got > 0, mask)
    whole, _ = ndimage.label(mask, np.ones((3, 3)))
    numbers = range(1, got.max() + 1)
    for number, (rows, columns) in zip(numbers, ndimage.find_objects(got), strict=True):
        here = got == number
        assert len(np.unique(whole[here])) == 1 and ndimage.label(here, np.ones((3, 3)))[1] == 1
        assert rows.stop - rows.start <= side and columns.stop - columns.start <= side
    small = [n for n in range(1, whole.max() + 1) if max(np.ptp(at) for at in np.nonzero(whole == n)) < side]
    assert all(len(np.unique(got[whole == n])) == 1 for n in small)  # what is small enough is not cut


def test_small_sets_are_left_out():
    mask = np.zeros((10, 10), bool)
    mask[1, 1:4] = mask[5:7, 5:7] = True
    assert pieces(mask, side=8, least=4).max() == 1


def test_ranked_by_doubt_times_area(tmp_path):
    mapped = beside.open_map(make_map(tmp_path))
    regions, codes = regions_of(mapped, most=500, side=32)
    inner = [height * width * (1 - value) for _, _, height, width, value in LOW]
    assert len(regions) == 3 and codes is not None
    order = [LOW[i] for i in np.argsort(inner)[::-1]]
    for region, (top, left, height, width, _) in zip(regions, order, strict=True):
        assert abs(region.bounds[0] - top) <= 1 and abs(region.bounds[1] - left) <= 1
        assert height * width <= region.pixels <= (height + 2) * (width + 2)  # means over 3 x 3 reach a pixel further
        assert region.hectares == pytest.approx(region.pixels * 0.01, rel=2e-3)
        area = sum(Polygon(rings[0], rings[1:]).area for rings in region.rings)
        assert area == region.pixels
    assert [region.weight for region in regions] == sorted((r.weight for r in regions), reverse=True)
    expected = ["tree cover" if left < 48 else "cropland" for _, left, *_ in order]
    for region, name in zip(regions, expected, strict=True):  # the likelier first; the other has the rest
        likely = (name, "grassland") if region.confidence > 0.5 else ("grassland", name)
        assert region.reason == f"not sure: {' or '.join(likely)}"
    assert len(regions_of(mapped, most=2, side=32)[0]) == 2


def test_unlike_the_training_and_edges_are_said():
    valid = np.ones((60, 60), bool)
    valid[:, :3] = False
    confidence, strange = confidence_of(size=60, low=((20, 3, 6, 2, 0.3),)), np.zeros((60, 60), np.float32)
    strange[40:50, 40:50] = 3
    doubt = Doubt(valid, np.ones((60, 60), np.uint8), confidence, strange)
    regions = find_regions(doubt, np.ones((60, 1)), words, most=9, side=32)
    assert [region.reason for region in regions] == ["unlike all training ground", "edge"]
    assert regions[0].weight == pytest.approx(regions[0].pixels, rel=0.2) and regions[0].unfamiliar > 2


def test_values_go_by_their_intervals():
    lower, upper = np.zeros((50, 50)), np.ones((50, 50))
    upper[10:20, 10:20] = 9
    doubt = Doubt(np.ones((50, 50), bool), None, None, None, lower, upper)
    (region, *_) = find_regions(doubt, np.ones((50, 1)), interval_reason(lower, upper, "t/ha"), most=9, side=32)
    assert region.reason.startswith("wide interval: 0 to ") and region.reason.endswith("t/ha")
    assert region.bounds[0] <= 10 and region.bounds[2] >= 20 and region.code is None


def test_surely_right_maps_have_none():
    unsure = np.full((20, 20), 0.01)
    assert not flagged(unsure, np.zeros((20, 20)), np.ones((20, 20), bool)).any()
    assert not flagged(unsure, np.zeros((20, 20)), np.zeros((20, 20), bool)).any()


def test_without_probabilities_the_class_is_named():
    codes = np.full((4, 4), 30)
    say = class_reason(codes, {30: "grassland", 40: "cropland"}, lambda inside, box: None)
    box = (slice(0, 4), slice(0, 4))
    assert say(np.ones((4, 4), bool), box, True) == "edge of cloud or no data; not sure of grassland"


@pytest.mark.parametrize("what", ["none", "grid", "run", "classes", "name"])
def test_what_lies_beside_has_to_belong_to_the_map(tmp_path, what):
    from pipelines.outputs.categories import sidecar
    from tests.pipelines.review.scenes_to_review import write

    path = make_map(tmp_path, probabilities=False)
    if what == "none":
        (tmp_path / "scene_confidence.tif").unlink()
    elif what == "grid":
        write(tmp_path / "scene_confidence.tif", np.ones((9, 9), np.float32), tags={"EARTHTUNE_BUNDLE": "abc"})
    elif what == "run":
        write(tmp_path / "scene_confidence.tif", confidence_of(), tags={"EARTHTUNE_BUNDLE": "other"})
    elif what == "classes":
        sidecar(path).unlink()
    else:
        path = path.rename(tmp_path / "x.tif")
    told = {
        "none": "wanted scene_prob",
        "grid": "9 x 9",
        "run": "by run other",
        "classes": "aux.xml",
        "name": "SCENE_map",
    }
    with pytest.raises(InputError, match=told[what]) as error:
        beside.open_map(path)
    assert "\n" not in str(error.value)
