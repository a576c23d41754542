"""Labels onto a grid, by raster and by polygon, and the pairing of files."""

import warnings
from pathlib import Path

import geopandas
import numpy as np
import pyproj
import pytest
import rasterio
import xarray as xr
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from rasterio.errors import NotGeoreferencedWarning
from rasterio.warp import transform
from shapely.geometry import LineString, Point, Polygon, box

from models.errors import InputError
from pipelines.samples.labelling import labels
from pipelines.samples.labelling.polygons import Polygons
from pipelines.scenes.scene import open_scene

DATA = Path(__file__).resolve().parents[5] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.exists(), reason="real data is not here (../shared/data)")
UTM = "EPSG:32633"
GRID = GeoBox((20, 30), Affine(10, 0, 500000, 0, -10, 5000000), UTM)
ALL = (slice(0, 20), slice(0, 30))


def write(path, values, *, affine=GRID.affine, crs=UTM, nodata=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        out = rasterio.open(path, "w", "GTiff", *values.shape[::-1], 1, crs, affine, values.dtype, nodata=nodata)
    with out:
        out.write(values, 1)
    return path


# --- class codes --------------------------------------------------------------------------------------------------


def test_codes_become_the_index_of_their_class(tmp_path):
    codes = np.random.default_rng(0).choice([10, 20, 80, 99, 255], (20, 30)).astype(np.uint8)
    path = write(tmp_path / "l.tif", codes, nodata=255)
    got = labels.read_labels(path, GRID, ALL, codes=[80, 10, 20], ignore=[99])
    for index, code in enumerate([80, 10, 20]):
        np.testing.assert_array_equal(got == index, codes == code)
    np.testing.assert_array_equal(got == -1, (codes == 99) | (codes == 255))
    part = labels.read_labels(path, GRID, (slice(3, 9), slice(5, 30)), codes=[80, 10, 20], ignore=[99])
    np.testing.assert_array_equal(part, got[3:9, 5:30])


@pytest.mark.parametrize("rising", [True, False])
def test_a_variable_of_several_is_named_and_its_rows_lie_where_their_coordinates_say(tmp_path, rising):
    codes = np.random.default_rng(0).choice([0, 10, 20], (20, 30)).astype(np.uint16)
    x, y = (start + step * np.arange(n) for start, step, n in ((500005, 10, 30), (4999995, -10, 20)))
    order = slice(None, None, -1 if rising else 1)
    data = xr.Dataset(
        {name: (("y", "x"), codes[order] + add, {"grid_mapping": "crs"}) for name, add in (("LC", 5), ("CT", 0))},
        {"x": x, "y": y[order], "crs": ((), 0, {"crs_wkt": pyproj.CRS(UTM).to_wkt()})},
    )
    data.to_netcdf(tmp_path / "l.nc", encoding={"CT": {"_FillValue": 0}})
    got = labels.read_labels(tmp_path / "l.nc", GRID, ALL, codes=[10, 20], polygons=Polygons(layer="CT"))
    np.testing.assert_array_equal(got, np.array([-1, 0, 1])[codes // 10])
    values = labels.read_values(tmp_path / "l.nc", GRID, ALL, layer="LC")
    np.testing.assert_array_equal(values, codes + 5)
    for layer, told in ((None, "LC, CT, none is named"), ("IRR", "IRR is none of them")):
        with pytest.raises(InputError, match=told):
            labels.read_labels(tmp_path / "l.nc", GRID, ALL, codes=[10], polygons=Polygons(layer=layer))


def test_a_class_code_that_is_also_the_declared_nodata_is_a_class(tmp_path):
    codes = np.tile(np.array([0, 1], np.uint8), (20, 15))
    path = write(tmp_path / "l.tif", codes, nodata=0)
    np.testing.assert_array_equal(labels.read_labels(path, GRID, ALL, codes=[0, 1]), codes)
    assert set(np.unique(labels.read_labels(path, GRID, ALL, codes=[1]))) == {-1, 0}


def test_an_unknown_code_is_refused_by_name(tmp_path):
    codes = np.full((20, 30), 10, np.uint8)
    codes[0, 0], codes[1, 1] = 7, 77
    path = write(tmp_path / "l.tif", codes)
    with pytest.raises(InputError, match=r"l\.tif: holds code 7, 77, classes are 10; add the code to the classes or"):
        labels.read_labels(path, GRID, ALL, codes=[10])
    assert (labels.read_labels(path, GRID, ALL, codes=[10], ignore=[7, 77]) == -1).sum() == 2
    assert (labels.read_labels(path, GRID, ALL, codes=[10, 20], ignore=[7, 10, 77]) == -1).all()


def test_unknown_codes_are_listed_up_to_eight(tmp_path):
    for count, told in ((8, "1, 2, 3, 4, 5, 6, 7, 8, classes"), (10, "1, 2, 3, 4, 5, 6, 7, 8 and 2 more, classes")):
        codes = np.resize(np.arange(1, count + 1, dtype=np.uint8), (20, 30))
        path = write(tmp_path / f"{count}.tif", codes)
        with pytest.raises(InputError, match=rf"{count}\.tif: holds code {told} are 90, 91; add"):
            labels.read_labels(path, GRID, ALL, codes=[90, 91])


def test_values_are_those_of_the_first_band_in_its_unit(tmp_path):
    path = tmp_path / "v.tif"
    with rasterio.open(path, "w", "GTiff", 30, 20, 2, UTM, GRID.affine, "int16") as file:
        file.write(np.stack([np.full((20, 30), 7, np.int16), np.full((20, 30), 9, np.int16)]))
        file.scales, file.offsets = (0.5, 3.0), (1.0, 4.0)
    assert (labels.read_values(path, GRID, ALL) == 4.5).all()


def test_labels_on_another_grid_come_by_nearest_pixel(tmp_path):
    codes = np.random.default_rng(1).choice([1, 2], (60, 90)).astype(np.uint8)
    path = write(tmp_path / "l.tif", codes, affine=Affine(10 / 3, 0, 500000, 0, -10 / 3, 5000000))
    np.testing.assert_array_equal(labels.read_labels(path, GRID, ALL, codes=[1, 2]), codes[1::3, 1::3] - 1)
    half = write(tmp_path / "h.tif", codes[:10, :10], affine=Affine(10, 0, 500000, 0, -10, 5000000))
    got = labels.read_labels(half, GRID, ALL, codes=[1, 2])
    assert (got[:10, :10] >= 0).all() and (got[10:] == -1).all() and (got[:, 10:] == -1).all()


def test_labels_of_other_ground_are_refused(tmp_path):
    far = write(tmp_path / "l.tif", np.ones((20, 30), np.uint8), affine=Affine(10, 0, 600000, 0, -10, 5000000))
    with pytest.raises(InputError, match=r"l\.tif: labels of other ground"):
        labels.read_labels(far, GRID, ALL, codes=[1])
    with pytest.raises(InputError, match=r"l\.tif: labels of other ground"):
        labels.read_values(far, GRID, ALL)


def test_a_coordinate_system_of_its_own_is_refused(tmp_path):
    crs = 'LOCAL_CS["a site",UNIT["metre",1],AXIS["Easting",EAST],AXIS["Northing",NORTH]]'
    path = write(tmp_path / "l.tif", np.ones((20, 30), np.uint8), crs=crs)
    with pytest.raises(InputError, match=r"l\.tif: nothing leads from its coordinate system to that of the scene"):
        labels.read_labels(path, GRID, ALL, codes=[1])


def test_values_keep_their_holes(tmp_path):
    values = np.arange(600, dtype=np.float32).reshape(20, 30)
    values[0, :4] = (-9999, -1, np.nan, np.inf)
    got = labels.read_values(write(tmp_path / "v.tif", values, nodata=-9999), GRID, ALL, nodata=[-1])
    assert np.isnan(got[0, :4]).all() and np.isnan(got).sum() == 4
    np.testing.assert_array_equal(got[1:], values[1:])


def test_values_are_read_as_images_are(tmp_path):
    raw = np.random.default_rng(0).integers(1, 3000, (20, 30)).astype(np.int16)
    raw[:, :4], raw[5, 7], raw[6, 8], raw[9, 20] = -9999, -1, -32767, -9999
    path = write(tmp_path / "v.tif", raw, nodata=-32767)
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = (0.01,), (5.0,)
    values = labels.read_values(path, GRID, ALL, nodata=[-1])
    void = np.isin(raw, [-9999, -1, -32767])  # the fill of the edge, wherever else it lies; named; declared
    np.testing.assert_array_equal(np.isnan(values), void)
    np.testing.assert_allclose(values[~void], raw[~void] * 0.01 + 5, rtol=1e-6)


def test_zero_along_the_edge_of_values_is_a_value(tmp_path):
    values = np.zeros((20, 30), np.float32)
    np.testing.assert_array_equal(labels.read_values(write(tmp_path / "v.tif", values), GRID, ALL), values)


# --- polygons -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson", ".shp"])
@pytest.mark.parametrize("crs", [UTM, "EPSG:4326"])
def test_polygons_label_the_pixels_whose_centre_they_hold(tmp_path, suffix, crs):
    shapes = [box(500000, 4999900, 500100, 5000000), box(500203, 4999803, 500297, 4999947)]
    table = geopandas.GeoDataFrame({"name": ["a", "b"], "kind": [5, 7]}, geometry=shapes, crs=UTM).to_crs(crs)
    path = tmp_path / f"p{suffix}"
    table.to_file(path)
    got = labels.read_labels(path, GRID, ALL, codes=[7, 5], polygons=Polygons("kind"))
    wanted = np.full((20, 30), -1)
    wanted[:10, :10] = 1
    wanted[5:20, 20:30] = 0  # centres at 5..295 m east and down: 205..295 and 55..195 lie inside
    np.testing.assert_array_equal(got, wanted)
    part = labels.read_labels(path, GRID, (slice(4, 9), slice(7, 22)), codes=[7, 5], polygons=Polygons("kind"))
    np.testing.assert_array_equal(part, wanted[4:9, 7:22])


def squares(path, codes=(1, 2), layer=None, key="kind", **columns):
    """Two squares of 100 m, west and east, in a layer of a file."""
    shapes = [box(500000 + 150 * i, 4999900, 500100 + 150 * i, 5000000) for i in range(2)]
    table = geopandas.GeoDataFrame({key: list(codes), **columns}, geometry=shapes, crs=UTM)
    table.to_file(path, **({"layer": layer} if layer else {}))
    return path


def test_a_layer_is_named_where_there_are_several(tmp_path):
    path = squares(squares(tmp_path / "a.gpkg", (2, 1), "draft"), (1, 2), "final")
    with pytest.raises(InputError, match=r"a\.gpkg: has 2 layers \(draft, final\); .*--data\.layer"):
        labels.read_labels(path, GRID, ALL, codes=[1, 2])
    with pytest.raises(InputError, match="no layer x; it has draft, final"):
        labels.read_labels(path, GRID, ALL, codes=[1, 2], polygons=Polygons(layer="x"))
    got = [labels.read_labels(path, GRID, ALL, codes=[1, 2], polygons=Polygons(layer=n)) for n in ("final", "draft")]
    assert [set(np.unique(g[:10, :10])) for g in got] == [{0}, {1}] and [g[0, 20] for g in got] == [1, 0]


def test_names_of_classes_stand_for_their_codes(tmp_path):
    path = squares(tmp_path / "a.geojson", ("Tree", " water "))
    how = Polygons("kind", codes={"tree": 10, "Water": 80})
    got = labels.read_labels(path, GRID, ALL, codes=[10, 80], polygons=how)
    assert (got[0, 0], got[0, 20], got[0, 12]) == (0, 1, -1)
    with pytest.raises(InputError, match="holds 'Tree'; wanted class codes, or the names of classes: wood"):
        labels.read_labels(path, GRID, ALL, codes=[1], polygons=Polygons("kind", codes={"wood": 1, "Water": 2}))


def test_a_polygon_without_a_code_and_a_line_are_refused(tmp_path):
    path = squares(tmp_path / "a.gpkg", (1.0, None))
    with pytest.raises(InputError, match="1 polygons have no kind"):
        labels.read_labels(path, GRID, ALL, codes=[1, 3], polygons=Polygons("kind", background=3))
    line = LineString([(500000, 4999900), (500100, 5000000)])
    geopandas.GeoDataFrame({"kind": [1]}, geometry=[line], crs=UTM).to_file(tmp_path / "l.gpkg")
    with pytest.raises(InputError, match="holds LineString; wanted polygons, or points"):
        labels.read_labels(tmp_path / "l.gpkg", GRID, ALL, codes=[1])


def test_text_that_is_not_utf_8_is_refused(tmp_path):
    path = squares(tmp_path / "a.geojson", name=["west", "east"])
    path.write_bytes(path.read_bytes().replace(b"east", b"e\xf0st"))
    with pytest.raises(InputError, match=r"a\.geojson: holds text that is not UTF-8"):
        labels.read_labels(path, GRID, ALL, codes=[1, 2], polygons=Polygons("kind"))


def test_what_no_polygon_covers_may_be_a_class(tmp_path):
    path = squares(tmp_path / "a.fgb")
    got = labels.read_labels(path, GRID, ALL, codes=[0, 1, 2], polygons=Polygons(background=0))
    assert (got[0, 0], got[0, 20], got[0, 12], got[15, 0]) == (1, 2, 0, 0)


def test_blocks_that_are_burnt_at_once_meet(tmp_path, monkeypatch):
    from pipelines.samples.labelling import polygons

    path = squares(tmp_path / "a.gpkg")
    whole = polygons.polygon_codes(path, GRID, ALL, Polygons())
    polygons._burnt.cache_clear()
    monkeypatch.setattr(polygons, "_BLOCK", 7)
    np.testing.assert_array_equal(polygons.polygon_codes(path, GRID, ALL, Polygons()), whole)
    window = (slice(3, 17), slice(5, 23))
    np.testing.assert_array_equal(polygons.polygon_codes(path, GRID, window, Polygons()), whole[window])
    polygons._burnt.cache_clear()


@pytest.mark.filterwarnings("ignore:invalid value", "ignore:Infinite or NaN")
def test_files_that_are_empty_broken_or_of_another_format_say_so(tmp_path):
    for name in ("a.geojson", "a.gpkg", "a.tif"):
        (tmp_path / name).touch()
        with pytest.raises(InputError, match=rf"{name}: is empty \(0 bytes\)"):
            labels.read_labels(tmp_path / name, GRID, ALL, codes=[1])
    with pytest.raises(InputError, match=r"a\.gml: polygons are taken as .*ogr2ogr"):
        labels.read_labels(tmp_path / "a.gml", GRID, ALL, codes=[1])
    nan = float("nan")
    shape = Polygon([(500000, 4999900), (nan, nan), (500050, 4999950), (500000, 4999900)])
    geopandas.GeoDataFrame({"kind": [1]}, geometry=[shape], crs=UTM).to_file(tmp_path / "n.fgb")
    with pytest.raises(InputError, match="1 corners of polygons have coordinates that are no numbers"):
        labels.read_labels(tmp_path / "n.fgb", GRID, ALL, codes=[1])


def test_polygon_files_that_do_not_fit(tmp_path):
    def save(name, columns, shape, crs=UTM):
        path = tmp_path / f"{name}.gpkg"
        geopandas.GeoDataFrame(columns, geometry=[shape], crs=crs).to_file(path)
        return path

    here = box(500000, 4999900, 500100, 5000000)
    far = save("far", {"kind": [1]}, box(600000, 4999900, 600100, 5000000))
    two = save("two", {"kind": [1], "other": [2]}, here)
    text = save("text", {"kind": ["forest"]}, here)
    fake = tmp_path / "fake.gpkg"
    fake.write_text("nothing")
    cases = [
        (far, None, r"far\.gpkg: labels of other ground"),
        (two, None, r"two\.gpkg: which column holds the class\? it has kind, other"),
        (two, "clas", r"two\.gpkg: no column clas; it has kind, other"),
        (text, "kind", r"text\.gpkg: column kind holds 'forest'; wanted class codes"),
        (fake, None, r"fake\.gpkg: not a polygon file"),
        (tmp_path / "gone.gpkg", None, r"gone\.gpkg: no such file"),
    ]
    for path, column, message in cases:
        with pytest.raises(InputError, match=message):
            labels.read_labels(path, GRID, ALL, codes=[1], polygons=Polygons(column))
    with pytest.raises(InputError, match="the image has none"):
        labels.read_labels(two, GeoBox((20, 30), Affine.identity(), None), ALL, codes=[1], polygons=Polygons("kind"))


def test_points_label_their_pixel(tmp_path):
    path = tmp_path / "points.gpkg"
    geopandas.GeoDataFrame({"kind": [3]}, geometry=[Point(500047, 4999962)], crs=UTM).to_file(path)
    assert np.argwhere(labels.read_labels(path, GRID, ALL, codes=[3]) == 0).tolist() == [[3, 4]]


# --- pairing ------------------------------------------------------------------------------------------------------


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


@settings(max_examples=30, deadline=None)
@given(st.sets(st.from_regex(r"[a-z0-9_.]{1,8}", fullmatch=True), min_size=1, max_size=6))
def test_every_image_meets_its_own_label(tmp_path_factory, stems):
    root = tmp_path_factory.mktemp("pair")
    touch(root, *(f"S2/x{stem}_S2Hand.tif" for stem in stems), *(f"Labels/x{stem}_LabelHand.tif" for stem in stems))
    pairs = labels.pair(root, "S2/*_S2Hand.tif", "Labels/*_LabelHand.tif")
    assert {(i.name, m.name) for i, m in pairs} == {(f"x{s}_S2Hand.tif", f"x{s}_LabelHand.tif") for s in stems}
    assert [i for i, _ in pairs] == sorted(i for i, _ in pairs)


def test_pairing_in_one_folder_in_subfolders_and_with_one_polygon_file(tmp_path):
    touch(tmp_path, "a_hls.tif", "b_hls.tif", "a_wc.tif", "b_wc.tif", "fields.gpkg", "x/1/i.tif", "y/1.tif")
    names = [(i.name, m.name) for i, m in labels.pair(tmp_path, "*_hls.tif", "*_wc.tif")]
    assert names == [("a_hls.tif", "a_wc.tif"), ("b_hls.tif", "b_wc.tif")]
    assert {m.name for _, m in labels.pair(tmp_path, "*_hls.tif", "fields.gpkg")} == {"fields.gpkg"}
    assert labels.pair(tmp_path, "x/*/i.tif", "y/*.tif") == [(tmp_path / "x/1/i.tif", tmp_path / "y/1.tif")]
    assert labels.pair(tmp_path, "**/*_hls.tif", "*_wc.tif")[1][1].name == "b_wc.tif"
    assert [m for _, m in labels.pair(tmp_path, "*_hls.tif", None)] == [None, None]


@pytest.mark.parametrize(
    ("files", "images", "marks", "message"),
    [
        (["a_i.tif", "b_i.tif", "a_l.tif"], "*_i.tif", "*_l.tif", r"2 images .*1 labels .*no label for b_i\.tif"),
        (["a_i.tif", "b_l.tif", "a_l.tif"], "*_i.tif", "*_l.tif", r"1 images .*2 labels .*no image for b_l\.tif"),
        ([f"{n}_i.tif" for n in range(6)] + ["z_l.tif"], "*_i.tif", "*_l.tif", r"0_i.tif, 1_i.tif, 2_i.tif and 3 more"),
        (["a_i.tif"], "*_i.tif", "*_l.tif", r"no labels match \*_l\.tif"),
        (["a_i.tif"], "*_i.tif", "l.gpkg", r"no labels match l\.gpkg"),
        (["a_l.tif"], "*_i.tif", "*_l.tif", r"no images match \*_i\.tif"),
        (["a.tif"], "*.tif", "*.tif", r"a\.tif both image .* and label"),
        (["a.tif", "a_l.tif"], "*.tif", "*_l.tif", r"a_l\.tif both image .* and label"),
        (["x/a.tif", "y/a.tif", "a.png"], "**/*.tif", "*.png", r"a\.tif and a\.tif match .* as the same"),
        (["a_i.tif"], "/abs/*.tif", None, r"wanted a pattern that starts from"),
        (["a_i.tif"], "", None, r"images '': wanted a pattern that starts from"),
    ],
)
def test_pairs_that_do_not_work_out(tmp_path, files, images, marks, message):
    with pytest.raises(InputError, match=message) as caught:
        labels.pair(touch(tmp_path, *files), images, marks)
    assert "\n" not in str(caught.value)


def test_sets_of_letters_pair_by_the_letter(tmp_path):
    touch(tmp_path, *(f"{letter}_{kind}_{i}.tif" for letter in "abx" for i in (1, 2) for kind in ("hls", "lc")))
    for images, marks in (("[ab]_hls_*.tif", "[ab]_lc_*.tif"), ("[!x]_hls_*.tif", "[!x]_lc_*.tif")):
        names = [(i.name, m.name) for i, m in labels.pair(tmp_path, images, marks)]
        assert names == [(f"{letter}_hls_{i}.tif", f"{letter}_lc_{i}.tif") for letter in "ab" for i in (1, 2)]


def test_a_folder_called_like_an_image_is_none(tmp_path):
    touch(tmp_path, "a.tif", "b.tif/c.txt")
    assert labels.pair(tmp_path, "*.tif", None) == [(tmp_path / "a.tif", None)]


def test_a_mark_within_a_set_of_letters_is_a_letter(tmp_path):
    touch(tmp_path, *(f"{letter}_{kind}.tif" for letter in "a[!" for kind in ("hls", "lc")))
    names = [(i.name, m.name) for i, m in labels.pair(tmp_path, "[a[!]_hls.tif", "[a[!]_lc.tif")]
    assert names == [(f"{letter}_hls.tif", f"{letter}_lc.tif") for letter in "![a"]


def test_folders_name_classes(tmp_path):
    touch(tmp_path, "forest/1.tif", "forest/2.tif", "water/1.tif")
    assert [(p.name, c) for p, c in labels.folder_classes(tmp_path, "*/*.tif")] == [
        ("1.tif", "forest"),
        ("2.tif", "forest"),
        ("1.tif", "water"),
    ]
    with pytest.raises(InputError, match=r"1 class folder \(forest\)"):
        labels.folder_classes(tmp_path, "forest/*.tif")
    touch(tmp_path, "loose.tif")
    with pytest.raises(InputError, match=r"loose\.tif in no class folder"):
        labels.folder_classes(tmp_path, "**/*.tif")
    with pytest.raises(InputError, match="no such folder"):
        labels.folder_classes(tmp_path / "gone", "*/*.tif")


# --- real files ---------------------------------------------------------------------------------------------------


@needs_data
def test_real_worldcover_labels_of_a_chip():
    root = DATA / "hls_worldcover"
    pairs = labels.pair(root, "*_hls.tif", "*_worldcover.tif")
    assert len(pairs) == 193 and all(i.name[:8] == m.name[:8] for i, m in pairs)
    scene = open_scene(pairs[0][0], ["RED"])
    codes = [10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 100]
    got = labels.read_labels(pairs[0][1], scene.geobox, (slice(0, 128), slice(0, 128)), codes=codes, ignore=[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(pairs[0][1]) as source:
            wanted = source.read(1)
    np.testing.assert_array_equal(np.array([*codes, 0])[got], wanted)


@needs_data
def test_real_worldcover_tile_onto_a_small_grid_in_metres():
    path = DATA / "rasters" / "ESA_WorldCover_10m_2021_v200_N00E006_Map.tif"
    (x,), (y,) = transform("EPSG:4326", "EPSG:32632", [6.6], [0.35])  # Sao Tome
    grid = GeoBox((64, 64), Affine(30, 0, x, 0, -30, y), "EPSG:32632")
    codes = [10, 20, 30, 40, 50, 60, 80, 90, 95]
    got = labels.read_labels(path, grid, (slice(0, 64), slice(0, 64)), codes=codes)
    with rasterio.open(path) as source:
        for row, col in ((0, 0), (10, 50), (63, 63)):
            (lon,), (lat,) = transform("EPSG:32632", "EPSG:4326", [x + 30 * (col + 0.5)], [y - 30 * (row + 0.5)])
            (value,) = next(source.sample([(lon, lat)]))
            assert (codes[got[row, col]] if got[row, col] >= 0 else 0) == value


@needs_data
def test_real_masks():
    hand = DATA / "sen1floods11" / "Labels" / "Spain_7370579_LabelHand.tif"
    scene = open_scene(DATA / "sen1floods11" / "S1" / "Spain_7370579_S1Hand.tif", ["VV"])
    got = labels.read_labels(hand, scene.geobox, (slice(0, 512), slice(0, 512)), codes=[0, 1], ignore=[-1])
    assert set(np.unique(got)) <= {-1, 0, 1} and (got == 1).any()
    other = DATA / "s2_scene" / "mask.tif"
    image = open_scene(DATA / "s2_scene" / "inference-img.tif", ["RED"], file_bands=["B", "G", "RED", "N", *"STUV"])
    with pytest.raises(InputError, match=r"mask\.tif: labels of other ground"):
        labels.read_labels(other, image.geobox, (slice(0, 9), slice(0, 9)), codes=[0, 1, 2])
    sparse = DATA / "hls_regression" / "regression_test_0_label.tif"
    with rasterio.open(sparse) as source:
        grid = GeoBox(source.shape, source.transform, source.crs.to_wkt())
    assert 0 < np.isfinite(labels.read_values(sparse, grid, (slice(0, 224),) * 2, nodata=[-1])).mean() < 0.5
