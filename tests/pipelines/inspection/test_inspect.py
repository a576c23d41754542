"""What inspect says of files and folders, and whether it tells inputs that fit a model from those that do not."""

import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.errors import NotGeoreferencedWarning

from models.bundle import Bundle, write_bundle
from models.errors import InputError, RunError
from models.spec import ClassDef
from models.training.settings import Architecture
from pipelines.inspection.inspect import format_text, inspect
from pipelines.scenes.reading import Reading
from tests.specs import scene_spec

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.exists(), reason="real data is not here (../shared/data)")
SIX = ("BLUE", "GREEN", "RED", "NIR_NARROW", "SWIR_1", "SWIR_2")
MEAN = (775.0, 1081.0, 1229.0, 2497.0, 2204.0, 1611.0)
NAMES = ("blue", "green", "red", "nir narrow", "swir 1", "swir 2")


def write(path, values, *, names=(), crs="EPSG:32633", **profile):
    values = values[None] if values.ndim == 2 else values
    affine = Affine(10, 0, 500000, 0, -10, 5000000) if crs else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        out = rasterio.open(path, "w", "GTiff", *values.shape[:0:-1], len(values), crs, affine, values.dtype, **profile)
    with out:
        out.write(values)
        for index, name in enumerate(names, 1):
            out.set_band_description(index, name)
    return path


def reflectance(scale=1.0, dtype=np.int16, size=(300, 260)):
    rng = np.random.default_rng(0)
    return (np.array(MEAN)[:, None, None] * rng.uniform(0.5, 1.5, (6, *size)) * scale).astype(dtype)


def run_folder(path, **changes):
    path.mkdir()
    classes = (ClassDef(0, "dry", "#000000"), ClassDef(1, "wet", "#0000ff"))
    fields = {"task": "segmentation", "bands": SIX, "mean": MEAN, "std": (300.0,) * 6, "classes": classes}
    write_bundle(path, Bundle(scene_spec(**(fields | changes)), "prithvi_eo_tiny", Architecture()))
    return path


def needs(found):
    return {need.need: need.ok for need in found.needs}


def test_ranges_are_those_of_the_pixels(tmp_path):
    values = reflectance()
    values[:, :30] = -9999
    found = inspect(write(tmp_path / "20210705.tif", values, names=NAMES, nodata=-9999))
    assert (found.driver, found.height, found.width, found.crs) == ("GTiff", 300, 260, "EPSG:32633")
    assert found.resolution == (10, 10) and found.dates == ("2021-07-05",) and found.frames == 1
    assert tuple(band.name for band in found.bands) == SIX and found.codes is None and found.ok
    for band, pixels in zip(found.bands, values[:, 30:], strict=True):
        assert band.valid == pytest.approx(0.9) and band.nodata == -9999 and "x10000" in band.unit
        got = (band.minimum, band.low, band.median, band.high, band.maximum)
        np.testing.assert_allclose(got, np.percentile(pixels, (0, 2, 50, 98, 100)))
    text = format_text(found)
    assert "300 rows x 260 columns, EPSG:32633" in text and "NIR_NARROW" in text and "2021-07-05" in text
    json.dumps(found.to_json())


def test_a_file_that_fits_the_model(tmp_path):
    run = run_folder(tmp_path / "run", uses_time=True, uses_location=True)
    names = ("swir 2", "green", "red", "nir", "swir 1", "blue")
    path = write(tmp_path / "20210705.tif", reflectance()[[5, 1, 2, 3, 4, 0]], names=names)
    found = inspect(path, for_run=run)
    assert found.ok and needs(found) == dict.fromkeys(("bands", "frames", "size", "unit", "dates", "location"), True)
    assert "another order, which is put right" in format_text(found)
    assert format_text(found).endswith("the model can read this")


@pytest.mark.parametrize(
    ("changes", "values", "names", "crs", "unmet"),
    [
        ({}, reflectance(1e-4, np.float32), NAMES, "EPSG:32633", "unit"),
        ({}, reflectance(0.05, np.uint8), NAMES, "EPSG:32633", "unit"),
        ({}, reflectance(), NAMES[:5], "EPSG:32633", "bands"),
        ({}, reflectance(), (), "EPSG:32633", "bands"),
        ({"frames": 3}, reflectance(), NAMES, "EPSG:32633", "frames"),
        ({"uses_time": True}, reflectance(), NAMES, "EPSG:32633", "dates"),
        ({"uses_location": True}, reflectance(), NAMES, None, "location"),
        ({}, np.full((6, 8, 8), -1, np.int16), NAMES, "EPSG:32633", "unit"),
    ],
)
def test_what_a_model_misses_is_named(tmp_path, changes, values, names, crs, unmet):
    nodata = {"nodata": -1} if values.max() < 0 else {}
    found = inspect(
        write(tmp_path / "a.tif", values, names=names, crs=crs, **nodata),
        for_run=run_folder(tmp_path / "run", **changes),
    )
    assert not found.ok and [need for need, ok in needs(found).items() if not ok] == [unmet]
    assert "the model cannot read this" in format_text(found)


def test_names_given_by_the_caller(tmp_path):
    path = write(tmp_path / "a.tif", reflectance())
    assert any("nothing names the bands" in note for note in inspect(path).notes)
    assert inspect(path, reading=Reading(NAMES), for_run=run_folder(tmp_path / "run")).ok


def test_dates_and_units_given_by_the_caller(tmp_path):
    path = write(tmp_path / "a.tif", reflectance(1e-4, np.float32), names=NAMES)
    run = run_folder(tmp_path / "run", uses_time=True)
    assert needs(inspect(path, for_run=run)) == dict.fromkeys(("bands", "frames", "size"), True) | dict.fromkeys(
        ("unit", "dates"), False
    )
    assert inspect(path, for_run=run, reading=Reading(dates=["2021-07-05"], scale=1.0, offset=0.0)).ok


@pytest.mark.parametrize(("trained", "warned"), [(None, False), (10.0, False), (30.0, True), (4.0, True)])
def test_pixels_of_another_size_than_the_training_s_are_told(tmp_path, trained, warned):
    path = write(tmp_path / "a.tif", reflectance(size=(40, 40)), names=NAMES)  # 10 m
    found = inspect(path, for_run=run_folder(tmp_path / "run", pixel=trained))
    assert found.ok and ("its pixels are 10 m, those of the training" in format_text(found)) == warned
    assert ("note: pixel sizes were not compared: 10 m here, not known in training" in format_text(found)) == (
        trained is None
    )


def test_one_band_is_one_band(tmp_path):
    text = format_text(inspect(write(tmp_path / "a.tif", reflectance()[:1], names=NAMES[:1])))
    assert "  1 band, named by" in text and "  1 frame: " in text


def test_labels_are_told_by_their_few_whole_numbers(tmp_path):
    codes = np.repeat(np.array([10, 80, 80, 255], np.uint8), 25).reshape(10, 10)
    found = inspect(write(tmp_path / "l.tif", codes, nodata=255))
    assert found.codes == {10: pytest.approx(1 / 3), 80: pytest.approx(2 / 3)}
    assert "looks like class labels: 10 (33.3%), 80 (66.7%)" in format_text(found)


def test_folders_points_and_things_that_are_no_raster(tmp_path):
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(3):
        write(folder / f"c{number}_hls.tif", reflectance(size=(8, 8)))
    write(folder / "c0_mask.tif", reflectance(size=(8, 8))[0])
    run = run_folder(tmp_path / "run")
    found = inspect(folder, for_run=run)
    assert found.contents == {"*_hls.tif": 3, "*_mask.tif": 1} and not found.ok
    assert list(needs(found)) == ["c0_hls.tif", "c0_mask.tif", "c1_hls.tif", "c2_hls.tif"]  # as `score` takes them
    found = inspect(folder, for_run=run, reading=Reading(NAMES))
    assert [need for need, ok in needs(found).items() if not ok] == ["c0_mask.tif"]
    assert "the model can read 3 of 4 scenes" in format_text(found)
    points = [GroundControlPoint(r, c, c * 10.0, r * -10.0) for r, c in ((0, 0), (0, 8), (8, 0), (8, 8))]
    with rasterio.open(tmp_path / "g.tif", "w", "GTiff", 8, 8, 1, dtype="uint8", gcps=points, crs="EPSG:32633") as out:
        out.write(np.ones((1, 8, 8), np.uint8))
    found = inspect(tmp_path / "g.tif", for_run=run)
    assert found.gcps == 4 and not found.ok and "gdalwarp" in format_text(found)
    (tmp_path / "t.tif").write_text("text")
    (tmp_path / "void").mkdir()
    for path, message in (
        (tmp_path / "t.tif", "not a raster"),
        (tmp_path / "void", "no raster"),
        (tmp_path / "no", "no such"),
    ):
        with pytest.raises(InputError, match=message):
            inspect(path)


def test_a_file_cut_short(tmp_path):
    path = write(tmp_path / "cut.tif", np.random.default_rng(0).integers(0, 9999, (300, 300), np.int16), names=["red"])
    path.write_bytes(path.read_bytes()[:100000])
    with pytest.raises((RunError, InputError), match=r"cut\.tif"):
        inspect(path)


@pytest.mark.parametrize(("text", "message"), [(None, "no bundle.json"), ("{", "damaged"), ("{}", "damaged")])
def test_a_run_without_model(tmp_path, text, message):
    path = write(tmp_path / "a.tif", reflectance(size=(8, 8)), names=NAMES)
    if text is not None:
        (tmp_path / "bundle.json").write_text(text)
    with pytest.raises(InputError, match=message):
        inspect(path, for_run=tmp_path)


def test_the_module_imports_nothing_heavy():
    heavy = ("numpy", "rasterio", "torch", "geopandas")
    code = f"import sys, pipelines.inspection.inspect; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3]
    )
    assert done.stdout.strip() == "[]"


@needs_data
def test_real_files(tmp_path):
    run = run_folder(tmp_path / "run")
    chip = inspect(DATA / "hls_worldcover" / "chip_000_hls.tif", for_run=run)
    assert chip.ok and chip.bands[0].scale == 0.0001 and chip.crs is None
    assert set(inspect(DATA / "terramind" / "LULC" / "282D_485L_3_3.tif").codes) == {1, 2, 6, 9}
    tile = inspect(DATA / "rasters" / "ESA_WorldCover_10m_2021_v200_N00E006_Map.tif")
    assert set(tile.codes) <= {10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 100} and tile.height == 36000
    # Landsat 7 counts of 8 bits, and a float file of reflectance 0..1, are not what the model eats.
    names = ["blue", "green", "red", "nir", "swir 1", "swir 2"]
    assert needs(inspect(DATA / "rasters" / "L7_ETMs.tif", for_run=run, reading=Reading(names)))["unit"] is False
    assert inspect(DATA / "hls_worldcover").contents == {"*_hls.tif": 193, "*_worldcover.tif": 193, "*_fmask.tif": 193}
