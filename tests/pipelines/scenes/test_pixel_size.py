"""Scenes on pixels of another size: against block means by numpy, GDAL's warper, and geodesics."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Geod
from rasterio.enums import Resampling
from rasterio.transform import from_origin
from rasterio.warp import reproject

from pipelines.grids.areas import pixel_sides
from pipelines.scenes.pixel_size import at_size, resampling_of, size_notes
from pipelines.scenes.scene import open_scene
from tests.runs import write

BANDS = ("RED", "SWIR_1")


def opened(path, values, *, trained=30.0, size=10.0, resample="train", **profile):
    """A scene of float32 reflectance, NaN where invalid, on pixels of a training's size."""
    write(path, values.astype(np.float32), names=BANDS[: len(values)], size=size, nodata=np.nan, **profile)
    return at_size(open_scene(path, BANDS[: len(values)]), trained, resample)


def speckled(shape, seed=0):
    """Values of two bands with holes, some of one band only."""
    rng = np.random.default_rng(seed)
    values = rng.uniform(100, 5000, (2, *shape))
    values[:, rng.random(shape) < 0.3] = np.nan
    values[0, 5:20, 7:31] = np.nan
    return values


@pytest.mark.parametrize("shape", [(60, 90), (61, 89)])
def test_smaller_pixels_become_block_means_of_what_is_valid(tmp_path, shape):
    values = speckled(shape)
    scene = opened(tmp_path / "a.tif", values)
    x, valid = scene.read(scene.window)
    values[:, np.isnan(values).any(axis=0)] = np.nan  # a pixel is valid in all bands, or not at all
    padded = np.pad(values, ((0, 0), (0, -shape[0] % 3), (0, -shape[1] % 3)), constant_values=np.nan)
    blocks = padded.reshape(2, len(padded[0]) // 3, 3, -1, 3).swapaxes(2, 3).reshape(2, *valid.shape, 9)
    known = np.isfinite(blocks[0]).sum(axis=-1)
    np.testing.assert_array_equal(valid, known >= 5)
    np.testing.assert_allclose(x[:, 0][:, valid], np.nanmean(blocks[:, valid], axis=-1), rtol=1e-6)
    assert (x[:, 0][:, ~valid] == 0).all() and 0.1 < valid.mean() < 0.9


@pytest.mark.parametrize("size", [20.0, 13.0, 7.3])
def test_means_are_those_of_the_warper_of_gdal(tmp_path, size):
    values = np.random.default_rng(1).uniform(100, 5000, (2, 70, 80)).astype(np.float32)
    scene = opened(tmp_path / "a.tif", values, size=size)
    x, valid = scene.read(scene.window)
    wanted = np.full((2, *scene.shape), np.nan, np.float32)
    crs, here = "EPSG:32632", from_origin(500000, 5000000, size, size)
    there = from_origin(500000, 5000000, 30, 30)
    how = {"src_crs": crs, "dst_crs": crs, "src_transform": here, "dst_transform": there}
    reproject(values, wanted, resampling=Resampling.average, dst_nodata=np.nan, **how)
    assert tuple(scene.geobox.affine)[:6] == pytest.approx(tuple(there)[:6])
    inside = x[:, 0, :-1, :-1]
    np.testing.assert_allclose(inside, wanted[:, :-1, :-1], rtol=2e-3)
    assert valid[:-1, :-1].all()


@settings(max_examples=15)
@given(st.sampled_from([6.0, 7.3, 12.0, 20.0, 60.0, 77.0]), st.floats(1, 9999, width=32))
def test_a_constant_stays_constant(tmp_path_factory, size, level):
    path = tmp_path_factory.mktemp("flat") / "a.tif"
    scene = opened(path, np.full((1, 33, 41), level), size=size)
    x, valid = scene.read(scene.window)
    np.testing.assert_allclose(x[0, 0][valid], level, rtol=1e-6)
    assert valid.mean() > 0.5 and valid[:-1, :-1].all()


def test_sums_over_the_area_are_kept(tmp_path):
    values = np.random.default_rng(2).uniform(100, 5000, (1, 24, 36))
    scene = opened(tmp_path / "a.tif", values, size=12.5)  # 24 x 12.5 m = 10 x 30 m
    x, _ = scene.read(scene.window)
    assert scene.shape == (10, 15)
    assert x.sum(dtype=float) * 30**2 == pytest.approx(values.sum() * 12.5**2, rel=1e-6)


@settings(max_examples=20)
@given(st.data(), st.sampled_from([7.3, 10.0, 20.0, 64.0]))
def test_a_window_reads_as_the_crop_of_the_whole(tmp_path_factory, data, size):
    scene = opened(tmp_path_factory.mktemp("windows") / "a.tif", speckled((50, 64)), size=size)
    rows, cols = (
        slice(*sorted(data.draw(st.lists(st.integers(0, side), min_size=2, max_size=2, unique=True))))
        for side in scene.shape
    )
    whole, part = scene.read(scene.window), pickle.loads(pickle.dumps(scene)).read((rows, cols))
    np.testing.assert_array_equal(part[0], whole[0][:, :, rows, cols])
    np.testing.assert_array_equal(part[1], whole[1][rows, cols])


def test_between_larger_pixels_a_plane_stays_a_plane(tmp_path):
    rows, cols = np.mgrid[:20, :30]
    values = (1000 + 60 * rows + 30 * cols)[None]  # a unit a metre east, two south
    values = np.where((rows > 12) & (cols > 20), np.nan, values)
    scene = opened(tmp_path / "a.tif", values, size=90.0)
    x, valid = scene.read(scene.window)
    rows, cols = (np.mgrid[: scene.shape[0], : scene.shape[1]] + 0.5) / 3 - 0.5
    inside = (rows > 0) & (cols > 0) & (rows < 12) & (cols < 20)
    np.testing.assert_allclose(x[0, 0][inside], (1000 + 60 * rows + 30 * cols)[inside], rtol=1e-5)
    np.testing.assert_array_equal(valid, ~np.isnan(values[0]).repeat(3, axis=0).repeat(3, axis=1))


@pytest.mark.parametrize(("latitude", "step"), [(0.0, 1e-4), (47.3, 1e-4), (-68.0, 2e-4)])
def test_pixels_in_degrees_get_the_training_s_size_on_the_ground(tmp_path, latitude, step):
    place = {"crs": "EPSG:4326", "corner": (11.0, latitude)}
    scene = opened(tmp_path / "a.tif", np.full((1, 300, 200), 500.0), size=step, **place)
    (left, top), (right, bottom) = (scene.geobox.affine * (100 * n / 3, 100 * n / 3) for n in (0, 3))
    geod, middle = Geod(ellps="WGS84"), latitude - 150 * step
    across = geod.inv(left, middle, right, middle)[2] / 100
    down = geod.inv(left, top, left, bottom)[2] / 100
    assert (across, down) == (pytest.approx(30, rel=0.01), pytest.approx(30, rel=0.01))
    assert pixel_sides(scene.geobox) == pytest.approx((30, 30), rel=0.01)


def test_what_lies_somewhere_stays_there(tmp_path):
    values = np.full((1, 90, 90), 1000.0)
    values[0, 45:48, 61] = 9000  # of a 10 m grid with its corner at 500000, 5000000
    scene = opened(tmp_path / "a.tif", values)
    x, _ = scene.read(scene.window)
    column, row = ~scene.geobox.affine * (500000 + 615, 5000000 - 465)
    assert np.unravel_index(x[0, 0].argmax(), scene.shape) == (int(row), int(column))
    with rasterio.open(tmp_path / "a.tif") as given:
        assert given.index(500000 + 615, 5000000 - 465) == (46, 61)


@pytest.mark.parametrize(
    ("size", "trained", "resample", "crs", "note"),
    [
        (10.0, 30.0, "never", "EPSG:32632", "WARNING: its pixels are 10 m, those of the training 30 m"),
        (25.0, 30.0, "train", "EPSG:32632", ""),
        (10.0, None, "train", "EPSG:32632", "pixel sizes were not compared: 10 m here, not known in training (data"),
        (10.0, 30.0, "train", None, "pixel sizes were not compared: not known here, 30 m in training"),
    ],
)
def test_scenes_that_stay_as_they_are(tmp_path, size, trained, resample, crs, note):
    values = np.random.default_rng(3).uniform(100, 5000, (1, 9, 12)).astype(np.float32)
    scene = opened(tmp_path / "a.tif", values, size=size, trained=trained, resample=resample, crs=crs)
    np.testing.assert_array_equal(scene.read(scene.window)[0][0], values)
    notes = size_notes(scene, trained)
    assert len(notes) == bool(note) and all(line.startswith(note) for line in notes)
    assert scene.own is None and resampling_of(scene) == ""


def test_what_was_done_is_told(tmp_path):
    scene = opened(tmp_path / "a.tif", np.full((1, 9, 12), 500.0))
    assert resampling_of(scene) == "10 m to 30 m" and size_notes(scene, 30.0) == []
    assert "its pixels are 10 m, those of the training 30 m: resampled to 30 m" in scene.remarks[-1]
