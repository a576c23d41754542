"""Windows of rasters on other grids: the window property, and values against numbers worked out by hand."""

import functools
import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from rasterio.control import GroundControlPoint
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning
from rasterio.warp import transform

from models.errors import InputError, RunError
from pipelines.grids import align, rasters

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.exists(), reason="real data is not here (../shared/data)")
UTM = "EPSG:32633"


def write(path, values, *, affine=None, crs=UTM, nodata=None, **profile):
    values = values[None] if values.ndim == 2 else values
    affine = affine or (Affine(10, 0, 500000, 0, -10, 5000000) if crs else None)
    count, height, width = values.shape
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        out = rasterio.open(path, "w", "GTiff", width, height, count, crs, affine, values.dtype, nodata, **profile)
    with out:
        out.write(values)
    return align.dataset(str(path))


def whole(geobox):
    return slice(0, geobox.shape[0]), slice(0, geobox.shape[1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("align")


@pytest.fixture(scope="module")
def speckled(folder):
    rng = np.random.default_rng(1)
    values = rng.random((2, 90, 110)).astype(np.float32)
    values[0, 20:40, 30:60] = np.nan
    return write(folder / "speckled.tif", values)


def elsewhere(crs, pixel, size=(40, 50)):
    (x,), (y,) = transform(UTM, crs, [500500], [4999600])
    return GeoBox(size, Affine(pixel, 0, x - pixel * size[1] / 2, 0, -pixel, y + pixel * size[0] / 2), crs)


GRIDS = {
    "equal": GeoBox((90, 110), Affine(10, 0, 500000, 0, -10, 5000000), UTM),
    "shifted": GeoBox((60, 60), Affine(10, 0, 499900, 0, -10, 5000100), UTM),
    "finer": GeoBox((80, 90), Affine(5, 0, 500200, 0, -5, 4999900), UTM),
    "coarser": GeoBox((20, 30), Affine(30, 0, 500005, 0, -30, 4999995), UTM),
    "other zone": elsewhere("EPSG:32632", 10.0),
    "other zone, coarser": elsewhere("EPSG:32632", 33.0),
    "degrees": elsewhere("EPSG:4326", 1e-4),
    "rotated": GeoBox((40, 40), Affine(10.4, 6, 500300, 6, -10.4, 4999800), UTM),
}


CASES = [(name, method) for name in sorted(GRIDS) for method in (Resampling.nearest, Resampling.bilinear, None)]


@functools.cache
def read_whole(path, name, method):
    return align.read_onto(align.dataset(path), GRIDS[name], whole(GRIDS[name]), indexes=[1, 2], resampling=method)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(CASES), st.data())
def test_a_window_reads_as_the_crop_of_the_whole(speckled, case, data):
    name, method = case
    rows, cols = (
        slice(*sorted(data.draw(st.lists(st.integers(0, size), min_size=2, max_size=2, unique=True))))
        for size in GRIDS[name].shape
    )
    full = read_whole(speckled.name, name, method)[:, rows, cols]
    part = align.read_onto(speckled, GRIDS[name], (rows, cols), indexes=[1, 2], resampling=method)
    np.testing.assert_array_equal(part, full)


def test_the_window_property_holds_through_cutting_in_chunks(speckled, monkeypatch):
    geobox = GRIDS["other zone, coarser"]
    full = read_whole(speckled.name, "other zone, coarser", None)
    monkeypatch.setattr(align, "_CHUNK_PIXELS", 4000)
    parts = align.read_onto(speckled, geobox, whole(geobox), indexes=[1, 2])
    np.testing.assert_array_equal(parts, full)


def test_equal_pixels_are_copied(speckled):
    geobox = GRIDS["shifted"]  # 10 columns west and 10 rows north of the raster
    values = align.read_onto(speckled, geobox, whole(geobox), indexes=[2])
    assert np.isnan(values[0, :10]).all() and np.isnan(values[0, :, :10]).all()
    np.testing.assert_array_equal(values[0, 10:, 10:], speckled.read(2)[:50, :50])


def test_a_plane_stays_a_plane_in_another_zone(folder):
    # A value that is linear in the ground's coordinates is kept by bilinear resampling, wherever the pixels fall.
    rows, cols = np.mgrid[:100, :100]
    source = write(folder / "plane.tif", (cols * 10 + 2 * (rows * 10)).astype(np.float32))
    geobox = GeoBox((30, 30), elsewhere("EPSG:32632", 9.0, (30, 30)).affine, "EPSG:32632")
    values = align.read_onto(source, geobox, whole(geobox), indexes=[1])[0]
    at_rows, at_cols = np.mgrid[:30, :30] + 0.5
    xs, ys = geobox.affine.a * at_cols + geobox.affine.c, geobox.affine.e * at_rows + geobox.affine.f
    x, y = transform("EPSG:32632", UTM, xs.ravel(), ys.ravel())
    wanted = (np.array(x) - 500005) + 2 * (4999995 - np.array(y))
    np.testing.assert_allclose(values.ravel(), wanted, atol=0.02)


def test_a_finer_raster_is_averaged(folder):
    values = np.arange(36, dtype=np.float32).reshape(6, 6)
    source = write(folder / "fine.tif", values)
    geobox = GeoBox((2, 2), Affine(30, 0, 500000, 0, -30, 5000000), UTM)
    got = align.read_onto(source, geobox, whole(geobox), indexes=[1])[0]
    np.testing.assert_allclose(got, values.reshape(2, 3, 2, 3).mean(axis=(1, 3)), rtol=1e-6)


def test_codes_are_never_mixed(folder):
    rng = np.random.default_rng(2)
    codes = rng.choice([10, 20, 80], (60, 60)).astype(np.uint8)
    source = write(folder / "codes.tif", codes)
    for name in ("finer", "coarser", "other zone", "degrees", "rotated"):
        values = align.read_onto(source, GRIDS[name], whole(GRIDS[name]), indexes=[1], resampling=Resampling.nearest)
        assert set(np.unique(values[np.isfinite(values)])) <= {10, 20, 80}
    geobox = GeoBox((20, 20), Affine(30, 0, 500000, 0, -30, 5000000), UTM)
    got = align.read_onto(source, geobox, whole(geobox), indexes=[1], resampling=Resampling.nearest)[0]
    np.testing.assert_array_equal(got, codes[1::3, 1::3])


def test_nodata_does_not_bleed(folder):
    values = np.full((40, 40), 1000, np.int16)
    values[10:20, 10:20] = -9999
    source = write(folder / "hole.tif", values, nodata=-9999)
    for name in ("finer", "coarser", "other zone"):
        got = align.read_onto(source, GRIDS[name], whole(GRIDS[name]), indexes=[1])
        assert np.all(got[np.isfinite(got)] == 1000)
        assert np.isnan(got).any()


@pytest.mark.parametrize("nodata", [0.0, -9999.0, -3.4028234663852886e38, np.nan])
def test_declared_nodata_and_infinities_are_nan(folder, nodata):
    values = np.ones((8, 8), np.float32)
    values[0, 0], values[1, 1], values[2, 2] = nodata, np.inf, np.nan
    source = write(folder / f"nodata{nodata}.tif", values, nodata=nodata)
    got = align.read_onto(source, align.grid(source), (slice(0, 8), slice(0, 8)), indexes=[1])[0]
    assert np.argwhere(np.isnan(got)).tolist() == [[0, 0], [1, 1], [2, 2]]


def test_mask_band_hides_pixels_and_masked_false_shows_them(folder):
    path = folder / "masked.tif"
    mask = np.full((8, 8), 255, np.uint8)
    mask[3, 4] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        write(path, np.full((8, 8), 7, np.int16))
        with rasterio.open(path, "r+") as out:
            out.write_mask(mask)
    source, window = align.dataset(str(path)), (slice(0, 8), slice(0, 8))
    assert np.argwhere(np.isnan(align.read_onto(source, align.grid(source), window, indexes=[1])[0])).tolist() == [
        [3, 4]
    ]
    assert np.all(align.read_onto(source, align.grid(source), window, indexes=[1], masked=False) == 7)


def test_without_coordinate_system_only_equal_sizes_meet(folder):
    source = write(folder / "plain.tif", np.ones((8, 8), np.uint8), crs=None, affine=None)
    assert align.grid(source).crs is None
    assert align.overlaps(source, GeoBox((8, 8), Affine.identity(), None))
    with pytest.raises(InputError, match=r"plain.tif: 8x8 pixels meet a grid of 9x8"):
        align.overlaps(source, GeoBox((9, 8), Affine.identity(), None))


def test_a_transform_that_counts_pixels_is_no_place(folder):
    source = write(folder / "pixels.tif", np.ones((8, 8), np.uint8), affine=Affine(1, 0, -0.5, 0, 1, -0.5))
    assert source.crs is not None and align.grid(source).crs is None


def test_overlap(speckled):
    far = GeoBox((9, 9), Affine(10, 0, 700000, 0, -10, 5000000), UTM)
    touching = GeoBox((9, 9), Affine(10, 0, 501100, 0, -10, 5000000), UTM)
    assert not align.overlaps(speckled, far)
    assert not align.overlaps(speckled, touching)
    assert all(align.overlaps(speckled, geobox) for geobox in GRIDS.values())
    assert np.isnan(align.read_onto(speckled, far, whole(far), indexes=[1])).all()


def test_missing_and_fake_files(tmp_path):
    with pytest.raises(InputError, match=r"gone.tif: no such file"):
        align.dataset(str(tmp_path / "gone.tif"))
    (tmp_path / "text.tif").write_text("not a raster")
    with pytest.raises(InputError, match=r"text.tif: not a raster"):
        align.dataset(str(tmp_path / "text.tif"))


def test_control_points_are_refused_with_advice(tmp_path):
    points = [GroundControlPoint(r, c, c * 10.0, r * -10.0) for r, c in ((0, 0), (0, 8), (8, 0), (8, 8))]
    path = tmp_path / "gcp.tif"
    with rasterio.open(path, "w", "GTiff", 8, 8, 1, dtype="uint8", gcps=points, crs=UTM) as out:
        out.write(np.ones((1, 8, 8), np.uint8))
    with pytest.raises(InputError, match=r"gcp.tif: located by 4 ground control points only.*gdalwarp"):
        align.grid(align.dataset(str(path)))


def test_a_truncated_file_names_the_window(tmp_path):
    path = tmp_path / "cut.tif"
    write(
        path, np.random.default_rng(0).integers(0, 9999, (256, 256), np.int16), tiled=True, blockxsize=64, blockysize=64
    )
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    source = align.dataset(str(path))
    with pytest.raises(RunError, match=r"cut.tif: rows 192-256, columns 0-256 cannot be read"):
        align.read_onto(source, align.grid(source), (slice(192, 256), slice(0, 256)), indexes=[1])


def test_handles_are_shared_renewed_and_few(tmp_path):
    path = tmp_path / "a.tif"
    write(path, np.ones((4, 4), np.uint8))
    assert align.dataset(str(path)) is align.dataset(str(path))
    write(path, np.full((5, 5), 2, np.uint8))
    assert align.dataset(str(path)).shape == (5, 5)
    for number in range(70):
        write(tmp_path / f"{number}.tif", np.ones((4, 4), np.uint8))
    assert len(rasters._handles.open) <= 64
    align.forget(str(path))
    assert not [key for key in rasters._handles.open if key[0] == str(path)]


@needs_data
def test_a_raster_across_the_antimeridian_meets_degrees_on_both_sides():
    source = align.dataset(str(DATA / "rasters" / "cog_dateline.tif"))
    for west in (178.6, -179.9):
        geobox = GeoBox((20, 20), Affine(0.005, 0, west, 0, -0.005, 51.9), "EPSG:4326")
        got = align.read_onto(source, geobox, whole(geobox), indexes=[1], resampling=Resampling.nearest)
        (x,), (y,) = transform("EPSG:4326", source.crs, [west + 0.0525], [51.9 - 0.0525])
        row, col = source.index(x, y)
        inside = 0 <= row < source.height and 0 <= col < source.width
        wanted = source.read(1)[row, col] if inside else np.nan
        np.testing.assert_equal(got[0, 10, 10], np.float32(wanted))


@needs_data
def test_a_window_of_an_enormous_file_reads_only_the_window():
    source = align.dataset(str(DATA / "rasters" / "ESA_WorldCover_10m_2021_v200_N00E006_Map.tif"))
    affine = Affine(30, 0, 480000, 0, -30, 9950000)
    geobox = GeoBox((64, 64), affine, "EPSG:32732")
    got = align.read_onto(source, geobox, whole(geobox), indexes=[1], resampling=Resampling.nearest)
    assert set(np.unique(got[np.isfinite(got)])) <= {10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 100}


GROUND = Affine(30, 0, 5e5, 0, -30, 5e6)


@pytest.mark.parametrize(("interleave", "side"), [("pixel", 10000), ("band", 17000)])
def test_a_small_file_whose_one_block_decodes_to_gigabytes_is_refused(tmp_path, interleave, side):
    path = tmp_path / "strip.tif"
    options = {
        "driver": "GTiff",
        "height": side,
        "width": side,
        "count": 3,
        "dtype": "uint16",
        "blockysize": side,
        "transform": GROUND,
    }
    with rasterio.open(path, "w", compress="deflate", interleave=interleave, SPARSE_OK="TRUE", **options):
        pass
    assert path.stat().st_size < 4096
    with pytest.raises(InputError, match=r"strip.tif: its pixels come in blocks of 0.[56] GiB.* TILED=YES"):
        align.dataset(str(path))


def test_large_files_in_small_blocks_are_opened(tmp_path):
    path = tmp_path / "tiled.tif"
    options = {
        "driver": "GTiff",
        "height": 40000,
        "width": 40000,
        "count": 3,
        "dtype": "complex_int16",
        "transform": GROUND,
    }
    with rasterio.open(path, "w", tiled=True, SPARSE_OK="TRUE", **options):
        pass
    assert align.dataset(str(path)).shape == (40000, 40000)
