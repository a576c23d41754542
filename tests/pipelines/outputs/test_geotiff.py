import tracemalloc
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from rio_cogeo.cogeo import cog_validate

from models.errors import InputError, RunError
from models.spec import ClassDef
from pipelines.outputs import geotiff, parts
from pipelines.outputs.layout import Layout

WATER, WOOD, ICE = (
    ClassDef(10, "water", "#0000ff"),
    ClassDef(20, "wood & <wild>", "#00aa10"),
    ClassDef(90, "ice", "#fefefe"),
)


def write_rows(path, rows, *, overwrite=False, **layout):
    return geotiff.write_rows(path, rows, Layout(**layout), overwrite=overwrite)


def grid(height, width, crs="EPSG:32632"):
    return GeoBox((height, width), Affine(10, 0, 600000 + 1 / 3, 0, -10, 5200000.1), crs)


def strips(values, rows=100):
    for first in range(0, values.shape[1], rows):
        yield first, values[:, first : first + rows]


def codes(height, width, classes=(WATER, WOOD, ICE), dtype="uint8"):
    return np.random.default_rng(0).choice([c.code for c in classes], (1, height, width)).astype(dtype)


def as_gdal_sees(path, tmp_path):
    """The first band as GDAL describes it, colours and categories included."""
    rasterio.shutil.copy(path, tmp_path / "seen.vrt", driver="VRT")
    return ElementTree.parse(tmp_path / "seen.vrt").getroot().find("VRTRasterBand")


def test_a_class_map_is_a_valid_cog_with_colours_names_and_tags(tmp_path):
    path, values, box = tmp_path / "new" / "map.tif", codes(700, 1300), grid(700, 1300)
    values[0, :300] = 0
    result = write_rows(
        path,
        strips(values),
        geobox=box,
        dtype="uint8",
        nodata=0,
        classes=(WATER, WOOD, ICE),
        descriptions=("land cover",),
        units=("code",),
        tags={"model": "run 7", "scene": "é & <x>"},
    )
    assert result == 400 * 1300
    valid, errors, warnings = cog_validate(path, strict=True)
    assert (valid, errors, warnings) == (True, [], [])
    assert sorted(p.name for p in path.parent.iterdir()) == ["map.tif", "map.tif.aux.xml"]
    with rasterio.open(path) as written:
        np.testing.assert_array_equal(written.read(), values)
        assert GeoBox.from_rio(written) == box
        assert written.transform == box.transform
        assert written.crs.to_epsg() == 32632
        assert (written.nodata, written.descriptions, written.units) == (0, ("land cover",), ("code",))
        assert written.tags().items() >= {"model": "run 7", "scene": "é & <x>"}.items()
        assert written.block_shapes == [(512, 512)]
        assert written.overviews(1) == [2, 4]
        colours = written.colormap(1)
    assert [colours[code] for code in (0, 10, 20, 90)] == [
        (0, 0, 0, 0),
        (0, 0, 255, 255),
        (0, 170, 16, 255),
        (254, 254, 254, 255),
    ]
    names = [name.text or "" for name in as_gdal_sees(path, tmp_path).find("CategoryNames")]
    assert {code: name for code, name in enumerate(names) if name} == {10: "water", 20: "wood & <wild>", 90: "ice"}


@pytest.mark.parametrize("resampling", [None, "nearest"])
def test_overviews_of_classes_hold_only_codes(tmp_path, resampling):
    path = tmp_path / "map.tif"
    write_rows(
        path,
        strips(codes(600, 1100)),
        geobox=grid(600, 1100),
        dtype="uint8",
        classes=(WATER, WOOD, ICE),
        overview_resampling=resampling,
    )
    for level in (0, 1):
        with rasterio.open(path, overview_level=level) as overview:
            assert set(np.unique(overview.read())) <= {10, 20, 90}


def test_overviews_of_values_are_averages(tmp_path):
    path = tmp_path / "map.tif"
    values = np.random.default_rng(1).normal(size=(2, 600, 800)).astype(np.float32)
    values[:, :2, :2] = np.nan
    write_rows(path, strips(values), geobox=grid(600, 800), dtype="float32", bands=2, nodata=float("nan"))
    with rasterio.open(path) as written:
        np.testing.assert_array_equal(written.read(), values)
        assert np.isnan(written.nodata)
    with rasterio.open(path, overview_level=0) as overview:
        halves = values.reshape(2, 300, 2, 400, 2).mean(axis=(2, 4))
        np.testing.assert_allclose(overview.read(), halves, rtol=1e-5, atol=1e-6)
    assert cog_validate(path, strict=True)[0]


def test_classes_of_uint16_keep_names_and_colours_in_the_sidecar(tmp_path):
    path, far = tmp_path / "map.tif", ClassDef(523, "sea", "#010203")
    values = codes(40, 50, (WATER, far), "uint16")
    write_rows(path, strips(values), geobox=grid(40, 50), dtype="uint16", nodata=65535, classes=(WATER, far))
    band = as_gdal_sees(path, tmp_path)
    assert band.find("CategoryNames")[523].text == "sea"
    assert band.find("ColorInterp").text == "Palette"
    with rasterio.open(path) as written:
        colours = written.colormap(1)
        assert (colours[10], colours[523]) == ((0, 0, 255, 255), (1, 2, 3, 255))
    assert path.stat().st_size < 20_000


def test_four_byte_bands_are_values_not_colours_with_transparency(tmp_path):
    path, values = tmp_path / "map.tif", np.random.default_rng(0).integers(0, 255, (4, 20, 30), dtype=np.uint8)
    write_rows(path, strips(values), geobox=grid(20, 30), dtype="uint8", bands=4)
    with rasterio.open(path) as written:
        np.testing.assert_array_equal(written.read(), values)
        assert {colour.name for colour in written.colorinterp} <= {"gray", "undefined"}
        assert all(flags == [rasterio.enums.MaskFlags.all_valid] for flags in written.mask_flag_enums)


@settings(max_examples=15, deadline=None)
@given(
    height=st.sampled_from([1, 2, 511, 512, 513, 1025]),
    width=st.sampled_from([1, 7, 513]),
    rows=st.sampled_from([1, 37, 512, 1000, 2000]),
    dtype=st.sampled_from(["uint8", "int16", "float32"]),
)
def test_what_is_written_is_read(tmp_path_factory, height, width, rows, dtype):
    path = tmp_path_factory.mktemp("map") / "map.tif"
    values = np.random.default_rng(height).integers(0, 100, (1, height, width)).astype(dtype)
    write_rows(path, strips(values, rows if height < 600 else max(rows, 37)), geobox=grid(height, width), dtype=dtype)
    with rasterio.open(path) as written:
        np.testing.assert_array_equal(written.read(), values)


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3035", "+proj=sinu +R=6371007.181 +units=m"])
def test_the_grid_comes_back_bit_for_bit(tmp_path, crs):
    box = GeoBox((3, 4), Affine(0.1, 0, 1 / 3, 0, -0.1, 7.7), crs)
    write_rows(tmp_path / "map.tif", [(0, np.ones((1, 3, 4), "uint8"))], geobox=box, dtype="uint8")
    with rasterio.open(tmp_path / "map.tif") as written:
        assert GeoBox.from_rio(written) == box


def test_a_grid_without_a_place_is_written(tmp_path):
    box = GeoBox((3, 4), Affine.identity(), None)
    write_rows(tmp_path / "map.tif", [(0, np.ones((1, 3, 4), "uint8"))], geobox=box, dtype="uint8")
    with rasterio.open(tmp_path / "map.tif") as written:
        assert written.crs is None
        assert written.transform == Affine.identity()


def test_a_map_is_replaced_only_when_asked_and_takes_its_old_sidecar_with_it(tmp_path):
    path = tmp_path / "map.tif"
    first, second = codes(30, 30), np.ones((1, 30, 30), np.uint8)
    write_rows(path, strips(first), geobox=grid(30, 30), dtype="uint8", classes=(WATER, WOOD, ICE))
    with pytest.raises(InputError, match=r"map\.tif: exists already"):
        write_rows(path, strips(second), geobox=grid(30, 30), dtype="uint8")
    write_rows(path, strips(second), geobox=grid(30, 30), dtype="uint8", overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["map.tif"]
    with rasterio.open(path) as written:
        np.testing.assert_array_equal(written.read(), second)
    with pytest.raises(InputError, match="it is a folder"):
        write_rows(tmp_path, strips(second), geobox=grid(30, 30), dtype="uint8", overwrite=True)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("the scene broke")])
def test_an_error_on_the_way_leaves_the_old_map_and_nothing_else(tmp_path, error):
    path = tmp_path / "map.tif"
    path.write_text("the old map")

    def rows():
        yield 0, np.zeros((1, 600, 30), np.uint8)
        raise error

    with pytest.raises(error if isinstance(error, type) else OSError) as caught:
        write_rows(path, rows(), geobox=grid(700, 30), dtype="uint8", overwrite=True)
    assert not isinstance(caught.value, RunError)  # an error of the rows is not blamed on the map
    assert [p.name for p in tmp_path.iterdir()] == ["map.tif"]
    assert path.read_text() == "the old map"


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([(0, (1, 5, 4)), (6, (1, 4, 4))], "wanted row 5 .*; row 6 came"),
        ([(0, (1, 5, 4)), (0, (1, 5, 4))], "wanted row 5 .*; row 0 came"),
        ([(0, (1, 5, 4))], "wanted 10 rows, only 5 came"),
        ([(0, (1, 11, 4))], "wanted 10 rows, 11 came"),
        ([(0, (1, 10, 4)), (10, (1, 1, 4))], "wanted 10 rows, 11 came"),
        ([(0, (2, 10, 4))], "wanted row 0 as uint8 of 1 bands, 4 wide"),
        ([(0, (1, 10, 3))], "wanted row 0 as uint8 of 1 bands, 4 wide"),
    ],
)
def test_rows_that_are_not_the_grids_are_refused(tmp_path, rows, said):
    given_ = [(first, np.zeros(shape, np.uint8)) for first, shape in rows]
    with pytest.raises(RunError, match=rf"map\.tif: {said}"):
        write_rows(tmp_path / "map.tif", given_, geobox=grid(10, 4), dtype="uint8")
    assert list(tmp_path.iterdir()) == []


def test_rows_of_another_type_are_refused(tmp_path):
    with pytest.raises(RunError, match=r"wanted row 0 as uint8.*came as float32"):
        write_rows(tmp_path / "m.tif", [(0, np.zeros((1, 2, 2), np.float32))], geobox=grid(2, 2), dtype="uint8")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dtype": "float32"}, "wants one band of uint8 or uint16"),
        ({"bands": 2}, "wants one band"),
        ({"nodata": 10}, "10 is nodata and the class water"),
        ({"classes": (WATER, ClassDef(300, "far", "#000000"))}, "class code 300"),
        ({"overview_resampling": "average"}, "would invent classes"),
    ],
)
def test_classes_that_the_map_cannot_show_are_refused_before_any_work(tmp_path, changes, said):
    def rows():
        pytest.fail("rows were asked for")
        yield

    settings_ = {"dtype": "uint8", "classes": (WATER, WOOD), "nodata": 0} | changes
    with pytest.raises(InputError, match=said):
        write_rows(tmp_path / "map.tif", rows(), geobox=grid(4, 4), **settings_)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"map\.tif: the map could not be written"):
        write_rows(tmp_path / "file" / "map.tif", iter(()), geobox=grid(4, 4), dtype="uint8")


def test_a_file_that_lost_rows_is_not_published(tmp_path, monkeypatch):
    copy = rasterio.shutil.copy

    def losing(source, target, **options):
        copy(source, target, **options)
        with rasterio.open(target, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as written:
            written.write(np.zeros((1, 10, 30), np.uint8), window=((520, 530), (0, 30)))

    monkeypatch.setattr(rasterio.shutil, "copy", losing)
    with pytest.raises(RunError, match="rows 512 to 599 were read back changed"):
        write_rows(tmp_path / "map.tif", strips(codes(600, 30)), geobox=grid(600, 30), dtype="uint8")
    assert list(tmp_path.iterdir()) == []


def test_without_zstd_the_map_is_deflated(tmp_path, monkeypatch):
    for module in (geotiff, parts):
        monkeypatch.setattr(module, "compression", lambda: "DEFLATE")
    values = codes(600, 30)
    write_rows(tmp_path / "map.tif", strips(values), geobox=grid(600, 30), dtype="uint8")
    with rasterio.open(tmp_path / "map.tif") as written:
        assert written.compression.name == "deflate"
        np.testing.assert_array_equal(written.read(), values)


def test_memory_does_not_grow_with_the_height(tmp_path):
    def peak(height):
        rows = ((first, np.zeros((1, 256, 600), np.float32)) for first in range(0, height, 256))
        tracemalloc.start()
        write_rows(tmp_path / f"{height}.tif", rows, geobox=grid(height, 600), dtype="float32")
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    peak(512)  # first call warms caches
    assert peak(8192) < peak(1024) + 600 * 512


# from 254 to about 400 kB GDAL 3.10 reports success and leaves a COG that is broken or holds other pixels
@pytest.mark.parametrize("kilobytes", [100, 240, 255, 256, 260, 310, 340, 380, 500, 2000])
def test_a_full_disk_is_noticed_and_left_clean(small_disk: Path, kilobytes):
    height, path = kilobytes * 2, small_disk / "map.tif"
    values = np.random.default_rng(0).integers(0, 256, (1, height, 512), dtype=np.uint8)  # cannot be compressed
    try:
        write_rows(path, strips(values), geobox=grid(height, 512), dtype="uint8")
    except RunError as error:
        assert kilobytes > 200
        assert "map.tif: the map could not be written" in str(error)
        assert "has space" in str(error)
        assert "\n" not in str(error)
        assert list(small_disk.iterdir()) == []
    else:
        assert kilobytes < 260  # the draft and the COG stand side by side
        with rasterio.open(path) as written:
            np.testing.assert_array_equal(written.read(), values)
