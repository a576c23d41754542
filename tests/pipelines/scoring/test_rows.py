"""Rows of maps against plain loops over the whole scene in memory."""

from __future__ import annotations

import dataclasses
import threading

import numpy as np
import pytest

from models.bundle import read_bundle
from models.errors import InputError, RunError
from models.runtime.engines import Runtime, load_runtimes
from models.spec import ClassDef
from pipelines.grids.mosaic import weights
from pipelines.grids.positions import phase
from pipelines.scoring.opening import open_for
from pipelines.scoring.rows import draw, first_largest, grid_of_tiles, layouts, map_rows, map_type, predict_tiles
from tests.runs import BANDS, make_chip, write


@pytest.fixture
def scene(run, tmp_path):
    """A scene of 50 x 41 pixels with a hole, opened for the run."""
    bands = np.block([[make_chip(i)[0] for i in range(2)]] * 2)[:, :50, :41].copy()
    bands[:, :40, :34] = -9999
    path = write(tmp_path / "new.tif", bands, names=BANDS, tags={"ACQUISITION_DATE": "2022-03-04"}, nodata=-9999)
    return open_for(read_bundle(run), str(path))


@pytest.mark.parametrize("classes", [1, 2, 5, 300])
def test_the_first_largest_channel_is_numpys(classes):
    """Of numbers that are often the same, and of nothing at all."""
    block = np.random.default_rng(classes).integers(0, 4, (classes, 17, 23)).astype(np.float32)
    block[:, :5] = 0
    np.testing.assert_array_equal(first_largest(block), block.argmax(axis=0))


def test_probabilities_are_blended_by_weights_that_sum_to_one(run, scene):
    """Against a plain double loop over the tiles with the same weights, on the whole scene in memory."""
    spec, runtime = read_bundle(run).spec, load_runtimes([run])
    total, whole = np.zeros((3, 50, 41)), np.zeros((50, 41))
    rows, cols = (dict(weights(*how)) for how in zip((50, 41), (32, 32), (8, 8), phase(scene.geobox), strict=True))
    for window, y, valid in predict_tiles(scene, spec, runtime, grid_of_tiles(scene, spec, 8)):
        if y is not None:
            weight = np.outer(rows[window[0].start], cols[window[1].start])
            total[:, *window] += y * weight
            whole[window] += weight
        np.testing.assert_array_equal(valid, scene.read(window)[1])
    blended = list(map_rows(scene, [spec], runtime, overlap=8))
    np.testing.assert_allclose(np.concatenate([y for _, y, _ in blended], axis=1), total, atol=1e-5)
    valid = np.concatenate([v for _, _, v in blended])
    np.testing.assert_array_equal(valid, scene.read(scene.window)[1])
    np.testing.assert_allclose(whole[valid], 1, atol=1e-6)


def test_a_crop_of_a_scene_has_the_map_of_the_whole(run, tmp_path):
    """To the bit, but near its edges, where tiles are flush with them: others are counted from the ground."""
    spec, runtime = read_bundle(run).spec, load_runtimes([run])
    bands = np.concatenate([np.concatenate([make_chip(i + 5 * j)[0] for i in range(5)], 2) for j in range(4)], 1)
    tags, (top, left), maps = {"ACQUISITION_DATE": "2022-03-04"}, (13, 21), []
    for name, part, corner in (("whole", bands, (500000, 5000000)), ("crop", bands[:, top:, left:], None)):
        corner = corner or (500000 + 30 * left, 5000000 - 30 * top)
        path = write(tmp_path / f"{name}.tif", part, names=BANDS, tags=tags, corner=corner, nodata=-9999)
        rows = map_rows(open_for(read_bundle(run), str(path)), [spec], runtime, overlap=8)
        maps.append(np.concatenate([y for _, y, _ in rows], axis=1))
    whole, crop = maps[0][:, top:, left:], maps[1]
    np.testing.assert_array_equal(crop[:, 32:-32, 32:-32], whole[:, 32:-32, 32:-32])


@pytest.mark.parametrize("lanes", [1, 3])
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_tiles_come_in_order_and_once_whatever_the_lanes(run, scene, lanes, batch):
    spec = read_bundle(run).spec
    seen, lock = [], threading.Lock()

    def run_tiles(inputs):
        x, time, location = (inputs[name] for name in ("imagery", "time", "location"))
        with lock:
            seen.append(len(x))
        assert np.isfinite(x).all() and time.shape == (len(x), 1, 2) and location.shape == (len(x), 2)
        return [np.repeat(x[:, :1, 0], 3, axis=1)]  # the first band, as three classes

    runtime = Runtime(run_tiles, lanes, batch, "echo")
    tiles = grid_of_tiles(scene, spec, 20)
    answers = list(predict_tiles(scene, spec, runtime, tiles))
    assert [window for window, _, _ in answers] == list(tiles)
    empty = [window for window, y, _ in answers if y is None]
    assert empty and all(not scene.read(window)[1].any() for window in empty)
    assert sum(seen) == len(tiles) - len(empty) and max(seen) <= batch
    (rows, valid) = zip(*((y, v) for _, y, v in map_rows(scene, [spec], runtime, overlap=20)), strict=True)
    y, valid = np.concatenate(rows, axis=1), np.concatenate(valid)
    np.testing.assert_allclose(y[0][valid], scene.read(scene.window)[0][0, 0][valid], rtol=1e-4)


def test_errors_of_a_tile_end_the_work_and_name_the_window(run, scene):
    spec = read_bundle(run).spec
    runtime = Runtime(lambda inputs: [np.full((len(inputs["imagery"]), 3, 32, 32), np.nan, np.float32)], 2, 1, "nan")
    with pytest.raises(RunError, match="not finite near row 0, column 5"):
        list(map_rows(scene, [spec], runtime, overlap=0))


def test_map_types_leave_room_for_nodata(run):
    def coded(*codes):
        classes = tuple(ClassDef(code, str(code), "#000000") for code in codes)
        return map_type(read_bundle(run).spec.revised(answer={"classes": classes}))

    assert coded(1, 255) == ("uint8", 0)
    assert coded(0, 254) == ("uint8", 255)
    assert coded(0, 255) == ("uint16", 65535)
    assert coded(0, 65535) == ("uint16", 65534)
    assert coded(10, 300) == ("uint16", 0)


def test_rows_of_each_kind(run):
    sure = {"temperature": 2.0, "sets": {"0.9": 0.3}}
    bundle = dataclasses.replace(read_bundle(run), confidence={})
    block = np.array([[[0.5, 0.2]], [[0.3, 0.7]], [[0.2, 0.1]]], np.float32)
    valid = np.array([[True, False]])
    np.testing.assert_array_equal(draw("map", bundle, block, valid), [[[10, 0]]])
    np.testing.assert_array_equal(draw("confidence", bundle, block, valid), np.array([[[0.5, np.nan]]], np.float32))
    np.testing.assert_array_equal(draw("probabilities", bundle, block, valid)[:, 0, 0], block[:, 0, 0])
    np.testing.assert_array_equal(draw("unfamiliar", bundle, block[:1], valid), np.array([[[0.5, np.nan]]], np.float32))
    calibrated = dataclasses.replace(bundle, confidence=sure)
    np.testing.assert_array_equal(draw("map", calibrated, block, valid), draw("map", bundle, block, valid))
    roots = np.sqrt(block[:, 0, 0])  # at temperature 2
    np.testing.assert_allclose(draw("probabilities", calibrated, block, valid)[:, 0, 0], roots / roots.sum(), rtol=1e-5)
    np.testing.assert_allclose(draw("confidence", calibrated, block, valid)[0, 0, 0], roots[0] / roots.sum(), rtol=1e-5)
    np.testing.assert_array_equal(draw("sets", calibrated, block, valid)[:, 0], [[2, 0], [0b011, 0]])


def test_values_have_one_kind_only(value_run, run, scene):
    bundle = read_bundle(value_run)
    assert list(layouts(bundle, scene, ["map"], {})) == ["map"]
    with pytest.raises(InputError, match="biomass, not classes: it has no probabilities and no confidence"):
        layouts(bundle, scene, ["map", "probabilities", "confidence"], {})
