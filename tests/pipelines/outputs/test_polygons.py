from xml.etree import ElementTree

import geopandas
import numpy as np
import pyogrio
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Geod

from models.errors import InputError, RunError
from pipelines.grids.areas import area_table
from pipelines.outputs.polygons import write_polygons
from tests.pipelines.outputs.test_sieve import grown
from tests.runs import CLASSES, write

NAMES = {entry.code: entry.name for entry in CLASSES}


def scene(folder, codes, name="a", *, confidence=None, **place):
    """A map of codes (rows, columns) with nodata 0, and its confidence."""
    if confidence is None:
        confidence = np.where(codes > 0, np.random.default_rng(0).random(codes.shape), np.nan)
    codes, confidence = codes.astype(np.uint8)[None], confidence.astype(np.float32)[None]
    return (
        write(folder / f"{name}_map.tif", codes, nodata=0, **place),
        write(folder / f"{name}_confidence.tif", confidence, nodata=np.nan, **place),
    )


def noise(seed, height, width, chunk=1):
    codes = np.random.default_rng(seed).choice([0, 10, 30, 80], (-(-height // chunk), -(-width // chunk)))
    return codes.repeat(chunk, axis=0).repeat(chunk, axis=1)[:height, :width]


def read(path):
    return geopandas.read_file(path, layer="polygons")


@settings(max_examples=15)
@given(seed=st.integers(0, 999), height=st.integers(1, 25), width=st.integers(1, 25))
def test_each_patch_is_one_valid_polygon_of_its_pixels(tmp_path_factory, seed, height, width):
    folder, codes = tmp_path_factory.mktemp("p"), noise(seed, height, width)
    pair = scene(folder, codes)
    count = write_polygons([pair], CLASSES, folder / "p.gpkg")
    table = read(folder / "p.gpkg")
    expected = grown(codes, codes > 0)
    assert count == len(table) == len(expected)
    assert table.crs == "EPSG:32632"
    assert table.is_valid.all()
    assert set(table.geom_type) <= {"Polygon"}
    pixels = (table.area / 900).round(9)
    assert pixels.sum() == (codes > 0).sum()
    to_pixels = ~Affine(30, 0, 500000, 0, -30, 5000000)
    by_pixel = {at: patch for patch in expected for at in patch}
    confidence = np.random.default_rng(0).random(codes.shape).astype(np.float32)
    for row in table.itertuples():
        inside = row.geometry.representative_point()
        column, line = to_pixels * (inside.x, inside.y)
        patch = by_pixel[int(line), int(column)]
        rows, columns = np.array(sorted(patch)).T
        boxes = [shapely.box(x, -y - 1, x + 1, -y) for y, x in patch]
        moved = shapely.affinity.affine_transform(row.geometry, [1 / 30, 0, 0, 1 / 30, -500000 / 30, -5000000 / 30])
        assert shapely.union_all(boxes).symmetric_difference(moved).area == pytest.approx(0, abs=1e-6)
        assert (row.scene, row.code, row._3) == ("a", codes[rows[0], columns[0]], NAMES[row.code])
        assert row.confidence == pytest.approx(confidence[rows, columns].mean(dtype=np.float64), rel=1e-6)


@pytest.mark.parametrize(
    "place",
    [
        {},
        {"crs": "EPSG:4326", "corner": (6, 63), "size": 0.001},
        {"crs": "EPSG:3857", "corner": (700000, 9000000), "size": 50.0},
        {"crs": "EPSG:3413", "corner": (-1000, 1200), "size": 25.0},
        {"crs": "+proj=sinu +R=6371007.181 +units=m", "corner": (700000, 5000000), "size": 463.3},
    ],
    ids=["utm", "degrees", "mercator", "pole", "sinusoidal"],
)
def test_hectares_are_geodesic_and_add_up_to_the_table(tmp_path, place):
    pair = scene(tmp_path, noise(3, 60, 80, 5), **place)
    write_polygons([pair], CLASSES, tmp_path / "p.gpkg")
    table = read(tmp_path / "p.gpkg")
    rows = area_table(pair[:1], CLASSES, tmp_path / "t.csv")
    assert table.crs == place.get("crs", "EPSG:32632")
    for row in rows:
        assert table.hectares[table.code == row["code"]].sum() == pytest.approx(row["hectares"], rel=1e-9)
    if place.get("crs") == "EPSG:3413":
        return  # no polygon in degrees holds a pole
    degrees = table.segmentize(place.get("size", 30.0)).to_crs("EPSG:4326").make_valid()
    geod = Geod(ellps="WGS84")
    for polygon, hectares in zip(degrees.orient_polygons(), table.hectares, strict=True):
        assert geod.geometry_area_perimeter(polygon)[0] / 1e4 == pytest.approx(hectares, rel=1e-4)


def test_scenes_of_two_zones_meet_in_degrees_and_the_antimeridian_cuts(tmp_path):
    codes = np.full((300, 500), 10)
    codes[2:298, 2:498] = 30
    codes[100:200, 100:200] = 0
    codes[150, 150] = 80
    pairs = [
        scene(tmp_path, codes, "west", crs="EPSG:32660", corner=(702000, 5710000), size=90.0),
        scene(tmp_path, codes, "home"),
    ]
    write_polygons(pairs, CLASSES, tmp_path / "p.gpkg")
    table = read(tmp_path / "p.gpkg")
    assert table.crs == "EPSG:4326"
    assert table.scene.value_counts().to_dict() == {"west": 3, "home": 3}
    assert table.is_valid.all()
    parts = table.explode()
    assert (parts.bounds.maxx - parts.bounds.minx).max() < 1
    assert (parts.bounds.minx.min(), parts.bounds.maxx.max()) == (-180, 180)
    geod = Geod(ellps="WGS84")
    measured = [geod.geometry_area_perimeter(part)[0] / 1e4 for part in parts.geometry.orient_polygons()]
    assert parts.assign(measured=measured).groupby(level=0).measured.sum().to_numpy() == pytest.approx(
        table.hectares.to_numpy(), rel=1e-3
    )
    home = table.geometry[table.scene == "home"].to_numpy()
    assert shapely.union_all(home).area == pytest.approx(shapely.area(home).sum(), rel=1e-8)  # neighbours meet


def test_confidence_is_the_mean_of_the_pixels_that_have_one(tmp_path):
    codes = np.array([[10, 10, 30, 30, 80]])
    pair = scene(tmp_path, codes, confidence=np.array([[0.5, np.nan, 0.25, 1, np.nan]]))
    write_polygons([pair], CLASSES, tmp_path / "p.gpkg")
    table = read(tmp_path / "p.gpkg").set_index("code").confidence
    assert table[10] == 0.5
    assert table[30] == 0.625
    assert np.isnan(table[80])


def test_maps_without_a_pixel_or_without_nodata_are_written(tmp_path):
    assert write_polygons([scene(tmp_path, np.zeros((3, 4)))], CLASSES, tmp_path / "none.gpkg") == 0
    info = pyogrio.read_info(tmp_path / "none.gpkg", layer="polygons")
    assert (info["crs"], info["geometry_type"], info["features"]) == ("EPSG:32632", "Polygon", 0)
    assert info["fields"].tolist() == ["scene", "code", "class", "hectares", "confidence"]
    assert info["ogr_types"] == ["OFTString", "OFTInteger", "OFTString", "OFTReal", "OFTReal"]
    full = write(tmp_path / "full_map.tif", np.full((1, 3, 4), 10, np.uint16))
    sure = write(tmp_path / "full_confidence.tif", np.ones((1, 3, 4), np.float32))
    assert write_polygons([(full, sure)], CLASSES, tmp_path / "full.gpkg") == 1


def test_qgis_finds_the_colours_of_the_classes(tmp_path):
    write_polygons([scene(tmp_path, noise(0, 5, 5))], CLASSES, tmp_path / "p.gpkg")
    (style,) = pyogrio.read_dataframe(tmp_path / "p.gpkg", layer="layer_styles").to_dict("records")
    assert (style["f_table_name"], style["f_geometry_column"], style["useAsDefault"]) == ("polygons", "geom", True)
    renderer = ElementTree.fromstring(style["styleQML"]).find("renderer-v2[@type='categorizedSymbol'][@attr='code']")
    colours = {
        symbol.get("name"): symbol.find("layer/Option/Option[@name='color']").get("value")
        for symbol in renderer.iter("symbol")
    }
    shown = {(c.get("value"), c.get("label"), colours[c.get("symbol")]) for c in renderer.iter("category")}
    assert shown == {
        ("10", "tree", "0,100,0,255"),
        ("30", "grass", "255,255,76,255"),
        ("80", "water", "0,100,200,255"),
    }


def test_more_patches_than_a_batch_are_all_written(tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.outputs.polygons._BATCH", 7)
    codes = noise(1, 20, 20)
    count = write_polygons([scene(tmp_path, codes)], CLASSES, tmp_path / "p.gpkg")
    assert count == len(read(tmp_path / "p.gpkg")) == len(grown(codes, codes > 0)) > 50


def test_maps_that_do_not_go_together_are_refused(tmp_path):
    codes, sure = scene(tmp_path, noise(0, 6, 5))
    small = scene(tmp_path / "small", noise(0, 5, 5))[1]
    moved = scene(tmp_path / "moved", noise(0, 6, 5), corner=(500030, 5000000))[1]
    nowhere = scene(tmp_path / "nowhere", noise(0, 6, 5), crs=None)
    strange = scene(tmp_path / "strange", np.full((6, 5), 77))
    faults = [
        ((codes, small), "a_confidence.tif: 5 x 5 pixels on another grid than a_map.tif, 6 x 5"),
        ((codes, moved), "another grid"),
        ((codes, codes), "a_map.tif: wanted a map of confidence .*came 1 of uint8"),
        ((sure, sure), "a_confidence.tif: wanted a map of classes .*came 1 of float32"),
        (nowhere, "place on the ground"),
        (strange, "holds code 77"),
    ]
    for pair, said in faults:
        with pytest.raises(InputError, match=said):
            write_polygons([pair], CLASSES, tmp_path / "p.gpkg")
    assert not list(tmp_path.glob("*.gpkg*"))
    assert not list(tmp_path.glob(".*"))


def test_a_file_is_replaced_only_when_asked(tmp_path):
    pair, path = scene(tmp_path, noise(0, 5, 5)), tmp_path / "p.gpkg"
    path.write_text("old")
    with pytest.raises(InputError, match=r"p\.gpkg: exists already"):
        write_polygons([pair], CLASSES, path)
    with pytest.raises(InputError, match=r"ends in \.gpkg, came \.shp"):
        write_polygons([pair], CLASSES, tmp_path / "p.shp")
    write_polygons([pair], CLASSES, path, overwrite=True)
    assert len(read(path))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a_confidence.tif", "a_map.tif", "p.gpkg"]


@pytest.mark.parametrize("side", [10, 35, 40, 44, 50, 100])
def test_a_full_disk_is_noticed_and_left_clean(small_disk, tmp_path, side):
    pair, path, codes = scene(tmp_path, noise(0, side, side)), small_disk / "p.gpkg", noise(0, side, side)
    path.write_text("old")
    try:
        write_polygons([pair], CLASSES, path, overwrite=True)
    except RunError as error:
        assert side > 10
        assert "p.gpkg: " in str(error)
        assert "space" in str(error)
        assert "\n" not in str(error)
        assert path.read_text() == "old"
        assert [p.name for p in small_disk.iterdir()] == ["p.gpkg"]
    else:
        assert side < 100
        assert len(read(path)) == len(grown(codes, codes > 0))
