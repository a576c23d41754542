"""Units by a product's own metadata and bands by wavelength; what cannot be known is refused."""

import math

import numpy as np
import pytest
import rasterio

from models.errors import InputError
from pipelines.scenes.scene import open_scene
from tests.pipelines.scenes.test_scene import SIX, flat, per_band, stac_item, write

LEVEL1 = "LC08_L1TP_044034_20210705_20210713_02_T1"
MTL = """GROUP = LEVEL1_RADIOMETRIC_RESCALING
    REFLECTANCE_MULT_BAND_2 = 2.0000E-05
    REFLECTANCE_MULT_BAND_4 = 4.0000E-05
    REFLECTANCE_ADD_BAND_2 = -0.100000
    REFLECTANCE_ADD_BAND_4 = -0.200000
    SUN_ELEVATION = 30.00000000
"""


def test_landsat_level_1_is_read_by_its_mtl(tmp_path):
    folder = tmp_path / LEVEL1
    for code in (2, 4):
        write(folder / f"{LEVEL1}_B{code}.TIF", flat(10000, np.uint16))
    (folder / f"{LEVEL1}_MTL.txt").write_text(MTL)
    scene = open_scene(folder, ["BLUE", "RED"])
    # (10000 * 2e-5 - 0.1) / sin(30 degrees) = 0.2; (10000 * 4e-5 - 0.2) / 0.5 = 0.4
    assert per_band(scene) == pytest.approx([2000, 4000], rel=1e-5)
    assert any("top-of-atmosphere" in note for note in scene.notes)


def test_landsat_level_1_without_its_mtl_is_refused(tmp_path):
    write(tmp_path / LEVEL1 / f"{LEVEL1}_B2.TIF", flat(10000, np.uint16))
    for source in (tmp_path / LEVEL1, tmp_path / LEVEL1 / f"{LEVEL1}_B2.TIF"):
        with pytest.raises(InputError, match=r"Level-1 without its MTL file.*--scale and --offset"):
            open_scene(source, ["BLUE"])
    assert per_band(open_scene(tmp_path / LEVEL1, ["BLUE"], scale=2e-5, offset=-0.1)) == pytest.approx([1000])


@pytest.mark.parametrize(("platform", "band"), [("LC08", "GREEN"), ("LE07", "RED")])
def test_collection_1_surface_reflectance_has_its_own_scale(tmp_path, platform, band):
    name = f"{platform}_L1TP_044034_20210705_20210718_01_T1"
    write(tmp_path / name / f"{name}_sr_band3.tif", flat(1234), nodata=-9999)
    assert per_band(open_scene(tmp_path / name, [band])) == pytest.approx([1234])


@pytest.mark.parametrize(("elevation", "right"), [(30.0, 2000.0), (None, None), (-3, None), ("x", None)])
def test_an_item_of_level_1_wants_the_sun(tmp_path, elevation, right):
    properties = {"view:sun_elevation": elevation}
    write(tmp_path / f"{LEVEL1}_B2.TIF", flat(10000, np.uint16))
    assets = {"blue": {"href": f"./{LEVEL1}_B2.TIF", "type": "image/tiff", "eo:bands": [{"common_name": "blue"}]}}
    item = stac_item(tmp_path, assets=assets, properties=properties)
    if right is None:
        with pytest.raises(InputError, match="Level-1 item that tells neither"):
            open_scene(item, ["BLUE"])
    else:
        assert per_band(open_scene(item, ["BLUE"])) == pytest.approx([right], rel=1e-5)


def test_an_item_that_declares_one_and_zero_says_nothing(tmp_path):
    write(tmp_path / "blue.tif", flat(1500))
    asset = {"href": "./blue.tif", "type": "image/tiff", "eo:bands": [{"common_name": "blue"}]}
    asset["raster:bands"] = [{"scale": 1.0, "offset": 0.0}]
    assert per_band(open_scene(stac_item(tmp_path, assets={"blue": asset}), ["BLUE"])) == [1500]


def test_sentinel_2_has_an_offset_and_a_divisor_of_its_own_for_each_band(tmp_path):
    folder = tmp_path / "S2A_MSIL2A_20220705T100000_N0400_R098_T33TVN_20220705T120000.SAFE"
    for code in ("B02", "B8A", "B12"):
        write(folder / "GRANULE" / f"T33TVN_20220705T100000_{code}_20m.jp2.tif", flat(4000, np.uint16))
    offsets = {1: -1000, 8: -500, 12: 0}  # B02, B8A, B12: numbered in the order of their names
    added = "".join(f'<BOA_ADD_OFFSET band_id="{i}">{offset}</BOA_ADD_OFFSET>' for i, offset in offsets.items())
    quantity = '<BOA_QUANTIFICATION_VALUE unit="none">20000</BOA_QUANTIFICATION_VALUE>'
    (folder / "MTD_MSIL2A.xml").write_text(f"<x>{quantity}{added}</x>")
    scene = open_scene(folder, ["BLUE", "NIR_NARROW", "SWIR_2"])
    assert per_band(scene) == pytest.approx([1500, 1750, 2000])


def hyperspectral(path, middles, **options):
    """Bands 1, 2, 3 ... told by their wavelength alone, each holding its number times 100."""
    x = np.stack([flat(100 * (i + 1)) for i in range(len(middles))])
    write(path, x, names=options.get("names", ()))
    with rasterio.open(path, "r+") as out:
        for i, tags in enumerate(options.get("tags", ()), 1):
            out.update_tags(i, **tags)
    return path


MIDDLES = (418.24, 488.0, 495.0, 561.0, 664.0, 867.0, 1615.0, 2201.0)


@pytest.mark.parametrize(
    "options",
    [
        {"names": [f"{m} Nanometers" for m in MIDDLES]},
        {"tags": [{"wavelength": str(m), "wavelength_units": "Nanometers"} for m in MIDDLES]},
        {"tags": [{"wavelength": f"{m / 1000:.5f}", "wavelength_units": "Micrometers"} for m in MIDDLES]},
        {"tags": [{"center_wavelength": f"{m / 1000:.5f}"} for m in MIDDLES]},
    ],
)
def test_bands_are_found_by_their_wavelength_and_told(tmp_path, options):
    scene = open_scene(hyperspectral(tmp_path / "a.tif", MIDDLES, **options), SIX)
    assert per_band(scene) == [200, 400, 500, 600, 700, 800]
    assert "BLUE (490 nm) is taken from band 2, of 488 nm" in scene.notes


def test_a_band_too_far_in_wavelength_is_refused(tmp_path):
    names = ["418.24 Nanometers", "521 Nanometers"]
    with pytest.raises(InputError, match=r"BLUE \(490 nm\) is wanted, the nearest is band 2 of 521 nm; .*30 nm"):
        open_scene(hyperspectral(tmp_path / "a.tif", names, names=names), ["BLUE"])
    assert per_band(open_scene(tmp_path / "a.tif", ["COASTAL_AEROSOL"])) == [100]


def test_a_name_goes_before_a_wavelength_and_bands_without_one_are_refused(tmp_path):
    names = ["blue", "488 Nanometers", "664 Nanometers"]
    path = hyperspectral(tmp_path / "a.tif", names, names=names)
    assert per_band(open_scene(path, ["BLUE", "RED"])) == [100, 300]
    with pytest.raises(InputError, match=r"a\.tif: band VV is wanted, it has BLUE"):
        open_scene(path, ["VV"])


@pytest.mark.parametrize("scale", [0.0, 1e308, float("nan"), float("inf")])
def test_a_scale_that_no_value_survives_is_refused(tmp_path, scale):
    path = write(tmp_path / "a.tif", flat(1500), names=["blue"])
    with pytest.raises(InputError, match="scale .*wanted what turns raw values into reflectance"):
        open_scene(path, ["BLUE"], scale=scale)
    if not math.isfinite(scale):
        header = write(tmp_path / "b.tif", flat(1500), names=["blue"], scales=(scale, 0.0))
        with pytest.raises(InputError, match=r"b\.tif: band 1 declares scale"):
            open_scene(header, ["BLUE"])
        assert per_band(open_scene(header, ["BLUE"], scale=0.0001)) == [1500]  # as the line says


def test_complex_numbers_are_refused(tmp_path):
    path = write(tmp_path / "a.tif", flat(1, np.complex64), names=["VV"])
    with pytest.raises(InputError, match="band 1 holds complex numbers"):
        open_scene(path, ["VV"])


def band_files(folder, suffix=""):
    """Three bands under names that tell nothing, one of them the second of its file."""
    write(folder / f"p{suffix}_one.tif", flat(100))
    write(folder / f"p{suffix}_two.tif", np.stack([flat(200), flat(300)]))
    return folder


def test_files_of_any_name_are_one_scene(tmp_path):
    folder = band_files(tmp_path / "20210705")
    names = ["BLUE=p_one.tif", "green=*_two.tif:2", "RED=p_two.tif"]
    scene = open_scene(folder, ["RED", "GREEN", "BLUE"], file_bands=names)
    assert per_band(scene) == [200, 300, 100] and str(scene.dates[0]) == "2021-07-05"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["BLUE=none.tif"], "one file in the folder; came 0 files"),
        (["BLUE=*.tif"], "came 2 files"),
        (["BLUE=../a.tif"], "came a file outside"),
        (["BLUE=/etc/passwd"], "came a file outside"),
        (["=p_one.tif"], "wanted NAME=FILE"),
        (["BLUE=p_one.tif:2"], "band 2 is wanted, it has 1"),
        (["BLUE=p_one.tif:0"], "from 1"),
        (["BLUE=p_one.tif", "GREEN"], "for every band"),
        (["BLUE=p_one.tif", "BLUE=p_two.tif"], "named twice"),
    ],
)
def test_files_that_are_not_what_they_are_said_to_be(tmp_path, names, message):
    with pytest.raises(InputError, match=message):
        open_scene(band_files(tmp_path / "s"), ["BLUE"], file_bands=names)
    with pytest.raises(InputError, match="give the folder that holds them"):
        open_scene(tmp_path / "s" / "p_one.tif", ["BLUE"], file_bands=["BLUE=p_one.tif"])


def test_files_of_a_product_keep_its_doubts(tmp_path):
    write(tmp_path / "s" / "T32TQM_20220705T100031_B02.tif", flat(1500, np.uint16))
    with pytest.raises(InputError, match="unknown processing baseline"):
        open_scene(tmp_path / "s", ["BLUE"], file_bands=["BLUE=*_B02.tif"])


def test_a_band_that_the_mtl_says_nothing_of_is_refused(tmp_path):
    for code in (2, 3):
        write(tmp_path / LEVEL1 / f"{LEVEL1}_B{code}.TIF", flat(10000, np.uint16))
    (tmp_path / LEVEL1 / f"{LEVEL1}_MTL.txt").write_text(MTL)  # tells bands 2 and 4
    with pytest.raises(InputError, match=r"_B3\.TIF: Landsat Level-1 without its MTL"):
        open_scene(tmp_path / LEVEL1, ["BLUE"])
