"""Fill that nothing declares: what it is, what it is not, and that it is left out of everything."""

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.enums import ColorInterp
from scipy import ndimage

from pipelines.scenes import fill
from pipelines.scenes.scene import open_scene
from tests.pipelines.scenes.test_scene import AFFINE, SIX, write

ALL = (slice(0, 40), slice(0, 50))


def ground(dtype=np.int16, size=(40, 50)):
    """Six bands of values from 300 to 3000."""
    return np.random.default_rng(0).integers(300, 3000, (6, *size)).astype(dtype)


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(1, 30), st.sampled_from([0.3, 0.6, 0.9]))
def test_fill_is_what_scipy_labels_from_the_edge(seed, height, width, share):
    rng = np.random.default_rng(seed)
    x = rng.integers(1, 9, (3, height, width)).astype(np.float32)
    x[:, rng.random((height, width)) < share] = 0
    void = (x == 0).all(axis=0)
    numbers, _ = ndimage.label(void)
    edge = np.concatenate([numbers[0], numbers[-1], numbers[:, 0], numbers[:, -1]])
    right = np.isin(numbers, edge[edge > 0])
    found = fill.find_fill(lambda w: x[:, w[0], w[1]], (height, width), (0.0, -9999.0))
    window = (slice(height // 3, height), slice(width // 4, max(width // 2, width // 4 + 1)))
    if found is None:
        assert not right.any()
    else:
        np.testing.assert_array_equal(found.mask((slice(0, height), slice(0, width))), right)
        np.testing.assert_array_equal(found.mask(window), right[window])
        assert found.pixels == right.sum() and found.values == (0.0,)


@pytest.mark.parametrize(
    ("dtype", "value", "declared", "filled"),
    [
        ("int16", 0, None, True),
        ("int16", -9999, None, True),
        ("int16", -32768, None, True),
        ("uint16", 65535, None, True),
        ("float32", -9999, None, True),
        ("float32", float(np.finfo("float32").min), None, True),
        ("int16", 0, -9999, True),  # another value than the declared one
        ("int16", 1, None, False),
        ("int16", 255, None, False),
    ],
)
def test_listed_values_are_fill_in_all_bands_from_the_edge(tmp_path, dtype, value, declared, filled):
    x = ground(dtype)
    x[:, :, :9] = value
    scene = open_scene(write(tmp_path / "a.tif", x, names=SIX, nodata=declared), SIX)
    valid = scene.read(ALL)[1]
    assert valid[:, 9:].all() and (not valid[:, :9].any() if filled else valid.all())
    told = [note for note in scene.remarks if "taken as fill" in note]
    assert len(told) == filled and all(f"18.00% of the pixels hold {value:g} " in note for note in told)
    assert open_scene(tmp_path / "a.tif", SIX, find_fill=False).read(ALL)[1].all() == (value != declared)


def test_a_shadow_inside_and_a_dark_band_at_the_edge_are_no_fill(tmp_path):
    x = ground()
    x[:, 10:20, 10:20] = 0  # all bands, but it does not touch the edge
    x[4:, :6] = 0  # water at the edge: no infrared, but some blue
    scene = open_scene(write(tmp_path / "a.tif", x, names=SIX), SIX)
    assert scene.read(ALL)[1].all() and not scene.remarks and scene.fills == (None,)
    one = open_scene(write(tmp_path / "b.tif", x[:1] * 0, names=SIX[:1]), SIX[:1])
    assert one.read(ALL)[1].all()  # zero in a single band may be a value


def test_an_inner_patch_stays_where_the_edge_is_filled_with_the_same_value(tmp_path):
    x = ground()
    x[:, :, :9] = 0
    x[:, 10:20, 20:30] = 0
    x[:, 30, 9:40] = 0  # a path from the edge
    x[:, 30, 15] = 500  # that is cut
    valid = open_scene(write(tmp_path / "a.tif", x, names=SIX), SIX).read(ALL)[1]
    right = np.ones((40, 50), bool)
    right[:, :9] = right[30, 9:15] = False
    np.testing.assert_array_equal(valid, right)


def test_fill_of_one_date_hides_the_pixel_and_bands_of_other_grids_are_not_mixed_with_it(tmp_path):
    x = ground()
    full = write(tmp_path / "a_20210101.tif", x, names=SIX)
    x[:, :, :10] = 0
    half = write(tmp_path / "b_20210201.tif", x, names=SIX)
    valid = open_scene([full, half], SIX).read(ALL)[1]
    assert valid[:, 10:].all() and not valid[:, :10].any()
    folder = tmp_path / "bands"
    for name, band in zip(("blue", "green"), x[:2], strict=True):
        write(folder / f"{name}.tif", band)
    coarse = np.where(np.arange(25) < 5, 0, 2000).astype(np.int16) * np.ones((20, 1), np.int16)
    write(folder / "swir1.tif", coarse, affine=AFFINE * Affine.scale(2))
    scene = open_scene(folder, ["BLUE", "SWIR_1"])
    values, valid = scene.read(ALL)
    assert not valid[:, :10].any() and valid[:, 13:].all()
    assert np.all(values[1, 0][valid] == 2000)  # bilinear beside the fill would give less


def write_with_alpha(path, x, alpha):
    """A file whose last band is transparency, as `gdalwarp -dstalpha` writes it: marked before pixels are written."""
    count, height, width = len(x) + 1, *alpha.shape
    profile = {"dtype": x.dtype, "crs": "EPSG:32633", "transform": AFFINE}
    with rasterio.open(path, "w", "GTiff", width, height, count, **profile) as out:
        out.colorinterp = [ColorInterp.gray] + [ColorInterp.undefined] * (count - 2) + [ColorInterp.alpha]
        out.write(np.concatenate([x, alpha[None]]))
        out.descriptions = (*SIX[: count - 1], None)
    with rasterio.open(path) as source:
        assert source.colorinterp[-1] == ColorInterp.alpha
    return path


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_alpha_hides_whatever_its_place(tmp_path, count):
    alpha = np.where(np.arange(50) < 20, 0, 65535).astype("uint16") * np.ones((40, 1), "uint16")
    scene = open_scene(write_with_alpha(tmp_path / "a.tif", ground("uint16")[:count], alpha), SIX[:count])
    valid = scene.read(ALL)[1]
    assert not valid[:, :20].any() and valid[:, 20:].all()
    assert f"band {count + 1} is marked as transparency: pixels where it is 0 are left out" in scene.notes[0]


def test_a_band_marked_as_transparency_by_chance_is_said(tmp_path):
    x = (ground("uint8") % 200 + 1).astype("uint8")[:4]  # four bands of bytes: GDAL takes the fourth for alpha
    path = write(tmp_path / "a.tif", x, names=("blue", "green", "red", ""))
    assert "band 4 is marked as transparency" in open_scene(path, ["BLUE"]).notes[0]
    scene = open_scene(path, ["NIR_NARROW"], file_bands=["blue", "green", "red", "nir"])
    assert scene.read(ALL)[1].all() and "band 4 is marked as transparency: taken as data" in scene.notes[0]


def test_the_tag_nodata_values_holds_where_all_bands_have_theirs(tmp_path):
    x = ground()
    x[:, 5:8, 20:25] = np.arange(6).reshape(6, 1, 1)  # not at the edge, and not one value: only the tag tells
    x[0, 30] = 0
    path = write(tmp_path / "a.tif", x, names=SIX, tags={"NODATA_VALUES": "0 1 2 3 4 5"})
    valid = open_scene(path, SIX).read(ALL)[1]
    right = np.ones((40, 50), bool)
    right[5:8, 20:25] = False
    np.testing.assert_array_equal(valid, right)


def test_a_value_that_a_person_names_is_nodata_besides_the_declared_one(tmp_path):
    x = ground()
    x[2, 3, 4], x[:, 8, 9] = 7, -9999
    path = write(tmp_path / "a.tif", x, names=SIX, nodata=-9999)
    valid = open_scene(path, SIX, nodata=7).read(ALL)[1]
    assert np.argwhere(~valid).tolist() == [[3, 4], [8, 9]]


@pytest.mark.parametrize(("dtype", "rim"), [("int16", -9999), ("float32", np.nan)])
def test_what_is_known_to_have_no_data_leads_inwards(tmp_path, dtype, rim):
    x = ground(dtype)
    x[:, 5:30, 5:20] = 0
    x[:, 33:36, 40:44] = 0  # a shadow
    x[:, :5] = x[:, :, :5] = rim
    path = write(tmp_path / "a.tif", x, names=SIX, nodata=None if dtype == "float32" else rim)
    scene = open_scene(path, SIX)
    valid = scene.read(ALL)[1]
    right = np.ones((40, 50), bool)
    right[:5] = right[:, :5] = right[5:30, 5:20] = False
    np.testing.assert_array_equal(valid, right)
    assert scene.fills[0].values == (0.0,) and scene.fills[0].pixels == 25 * 15


def test_fills_of_two_values_side_by_side_are_both_told(tmp_path):
    x = ground()
    x[:, :, :5], x[:, :, 5:9] = -9999, 0
    scene = open_scene(write(tmp_path / "a.tif", x, names=SIX), SIX)
    assert scene.fills[0].values == (-9999.0, 0.0) and not scene.read(ALL)[1][:, :9].any()
