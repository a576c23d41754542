"""A review read to be learned from: what counts, and what is refused in one line."""

from __future__ import annotations

import contextlib
import sqlite3
import warnings

import geopandas
import numpy as np
import pandas
import pyogrio
import pytest
import rasterio
import shapely
from odc.geo.geobox import GeoBox
from rasterio.transform import from_origin

from models.errors import InputError
from models.runtime.hashes import sha256_now
from models.spec import Classes
from pipelines.commands.review import review
from pipelines.review import corrections
from pipelines.review.answers import Answer, open_answers, read_header, read_lines
from pipelines.review.corrections import read_corrections
from pipelines.review.review import Page
from tests.pipelines.review.scenes_to_review import CLASSES, make_map, write_review
from tests.pipelines.review.test_package import change

GRID = GeoBox((40, 40), from_origin(500000, 5000000, 10, 10), "EPSG:32633")
KNOWN = Classes(CLASSES)


def inside(top, left, size=6):
    held = np.zeros((40, 40), bool)
    held[top : top + size, left : left + size] = True
    return held


@pytest.fixture
def package(tmp_path):
    say = [(inside(2, 2), Answer("class", 30)), (inside(20, 2), Answer("unsure")), (inside(2, 20), Answer())]
    return write_review(tmp_path / "scene_review.gpkg", GRID, say)


def test_a_review_on_its_map_is_read_with_the_scene_that_it_is_of(tmp_path):
    path = make_map(tmp_path)
    review(path, page=Page(no_page=True))
    lines = tmp_path / "scene_review.ndjson"
    said = open_answers(lines, read_header(lines, read_lines(lines)), frozenset(KNOWN.codes), frozenset(range(4)))
    said.take(1, Answer("agree"))
    review(path, page=Page(no_page=True))
    package = tmp_path / "scene_review.gpkg"
    change(package, "UPDATE regions SET label = 40 WHERE id = 2")  # as QGIS leaves a class without its word
    found = read_corrections(package, KNOWN, 4)
    table = pyogrio.read_dataframe(package, layer="regions").set_index("id")
    (one, two) = sorted(found.pieces, key=lambda piece: piece.region)
    assert (one.region, KNOWN.codes[one.label]) == ("1", table["code"][1]) and one.shape.equals(table.geometry[1])
    assert (two.file, two.region, KNOWN.codes[two.label]) == (4, "2", 40) and two.shape.equals(table.geometry[2])
    assert found.scene == (tmp_path / "scene.tif",) and found.map == "scene_map.tif"
    assert found.sha256 == sha256_now(package) and found.notes == ()
    change(package, "UPDATE regions SET answer = 'agree', label = NULL WHERE id IN (2, 3)")
    assert "2 regions were agreed to since" in read_corrections(package, KNOWN, 0).notes[0]
    with rasterio.open(path, "r+") as file:
        file.write(np.full((1, 5, 5), 10, np.uint8), window=rasterio.windows.Window(60, 60, 5, 5))
    with pytest.raises(InputError, match=r"scene_review.gpkg: a review of before scene_map.tif changed"):
        read_corrections(package, KNOWN, 0)


def test_names_that_lead_to_other_folders_are_not_followed(tmp_path):
    (tmp_path / "a").mkdir()
    secret = make_map(tmp_path)
    for name, named in (("../scene_map.tif", "scene.tif"), ("scene_map.tif", "../scene.tif")):
        target = tmp_path / "a" / "scene_map.tif"
        target.write_bytes(secret.read_bytes())
        with rasterio.open(target, "r+") as file:
            file.update_tags(EARTHTUNE_INPUT=named)
        header = {"format": 1, "map": name, "hashes": {"map": sha256_now(target)}}
        say = [(inside(2, 2), Answer("class", 30))]
        found = read_corrections(write_review(tmp_path / "a" / "x.gpkg", GRID, say, header=header), KNOWN, 0)
        assert found.scene == ()


def test_new_columns_are_left_aside_and_polygons_that_cross_themselves_mended(package):
    change(package, "ALTER TABLE regions ADD COLUMN note TEXT")
    x, y = GRID.affine * (10, 10)
    bow = shapely.Polygon([(x, y), (x + 100, y - 100), (x + 100, y), (x, y - 100)])
    drawn = geopandas.GeoDataFrame({"region": [None], "label": [10]}, geometry=[bow], crs=32633)
    pyogrio.write_dataframe(drawn.astype({"region": "Int32", "label": "Int32"}), package, layer="drawn", append=True)
    found = read_corrections(package, KNOWN, 0)
    assert [KNOWN.codes[piece.label] for piece in found.pieces] == [30, 10]
    assert found.pieces[1].shape.is_valid and found.pieces[1].shape.area == pytest.approx(5000)
    assert any("note left aside" in note for note in found.notes)


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("UPDATE regions SET label = 77 WHERE id = 1", r"region 1: label 77.* wanted one of 10, 30, 40"),
        ("UPDATE regions SET answer = 'maybe' WHERE id = 1", "region 1: an answer wants one of agree"),
        ("UPDATE regions SET id = 2 WHERE id = 1", "region 2 is there twice"),
        ("UPDATE regions SET answer = '', label = NULL", "holds no answer that tells a class"),
        ("ALTER TABLE regions RENAME COLUMN label TO klass", "layer regions wants a column label, it has .*klass"),
        ("ALTER TABLE drawn RENAME COLUMN label TO klass", "layer drawn wants a column label"),
        ("DELETE FROM gpkg_contents WHERE table_name = 'regions'; ALTER TABLE regions RENAME TO r", "[Rr]egions"),
        ("UPDATE review SET value = '{' WHERE key = 'header'", "its table `review` was changed"),
    ],
)
def test_what_a_person_may_break_in_qgis_is_one_line(package, script, told):
    change(package, script)
    with pytest.raises(InputError, match=f"scene_review.gpkg: .*{told}") as error:
        read_corrections(package, KNOWN, 0)
    assert "\n" not in str(error.value)


def test_an_unknown_class_is_told_with_the_known_ones(package):
    box = shapely.box(500010, 4999900, 500100, 4999990)
    drawn = geopandas.GeoDataFrame({"region": [0], "label": [55]}, geometry=[box], crs=32633)
    pyogrio.write_dataframe(drawn.astype({"region": "Int32", "label": "Int32"}), package, layer="drawn", append=True)
    wanted = r"layer drawn, row 1: label 55: no such class; wanted one of 10 tree cover, 30 grassland, 40 cropland"
    with pytest.raises(InputError, match=wanted):
        read_corrections(package, KNOWN, 0)


def test_polygons_without_a_place_or_numbers_are_refused(package, tmp_path):
    grid = GeoBox(GRID.shape, GRID.affine, None)
    with pytest.warns(UserWarning, match="'crs' was not provided"):
        nowhere = write_review(tmp_path / "nowhere.gpkg", grid, [(inside(2, 2), Answer("class", 30))])
    with pytest.raises(InputError, match="layer regions has no coordinate system"):
        read_corrections(nowhere, KNOWN, 0)
    drawn = geopandas.GeoDataFrame({"region": [0], "label": [10]}, geometry=[shapely.box(0, 0, 1, 1)], crs=4326)
    pyogrio.write_dataframe(drawn, package, layer="drawn")
    with pytest.raises(InputError, match="in different coordinate systems"):
        read_corrections(package, KNOWN, 0)
    broken = shapely.Polygon([(0, 0), (1, 0), (np.inf, 1)])
    pyogrio.write_dataframe(drawn.set_geometry([broken]).set_crs(32633, allow_override=True), package, layer="drawn")
    with pytest.raises(InputError, match="coordinates that are no numbers"):
        read_corrections(package, KNOWN, 0)


def drawn_on(package, *shapes, label=10):
    table = geopandas.GeoDataFrame({"region": [0] * len(shapes), "label": label}, geometry=[*shapes], crs=32633)
    pyogrio.write_dataframe(table, package, layer="drawn")
    return read_corrections(package, KNOWN, 0)


def test_drawn_ground_may_have_holes_parts_and_heights_and_what_has_no_area_is_told(package):
    box, far = shapely.box(500010, 4999900, 500100, 4999990), shapely.box(500200, 4999900, 500250, 4999950)
    holed = box.difference(shapely.box(500030, 4999920, 500050, 4999940))
    line = shapely.LineString([(500010, 4999900), (500100, 4999990)])
    mixed = shapely.GeometryCollection([line, box, shapely.box(500050, 4999900, 500150, 4999990)])
    shapes = [holed, shapely.MultiPolygon([box, far]), shapely.force_3d(box, 7), mixed, line, None, shapely.Polygon()]
    found = drawn_on(package, *shapes)
    areas = {region: 0.0 for _, region in (piece.ground for piece in found.pieces)}
    for region in areas:
        areas[region] = shapely.union_all([piece.shape for piece in found.pieces if piece.region == region]).area
    wanted = {f"drawn {i}": area for i, area in enumerate((8100 - 400, 8100 + 2500, 8100, 90 * 140))}
    assert areas == pytest.approx({"1": 3600.0, **wanted})
    assert any("layer drawn: rows without an area are left aside: 5, 6, 7" in note for note in found.notes)


def test_what_would_take_hours_or_memory_is_refused(package):
    """Crossings grow with the square of the corners; a view may compute without end."""
    rng = np.random.default_rng(0)
    crossing = shapely.Polygon(np.array([500000, 4999700]) + rng.uniform(0, 300, (1200, 2)))
    with pytest.raises(InputError, match=r"layer drawn, row 2: polygons with over 1,000 corners .*Fix geometries"):
        drawn_on(package, shapely.box(500010, 4999900, 500100, 4999990), crossing)
    few = shapely.Polygon(np.array([500000, 4999700]) + rng.uniform(0, 300, (300, 2)))
    assert drawn_on(package, few).pieces[-1].shape.is_valid
    change(package, "ALTER TABLE drawn ADD COLUMN note TEXT GENERATED ALWAYS AS (hex(zeroblob(400000000)))")
    with pytest.raises(InputError, match="drawn is a view or has a computed column; wanted plain tables"):
        read_corrections(package, KNOWN, 0)


def test_layers_that_lost_their_place_or_their_numbers_are_one_line(package, tmp_path):
    box = shapely.box(500010, 4999900, 500100, 4999990)
    with pytest.raises(InputError, match="layer drawn, row 1: has no label; wanted one of 10 tree cover"):
        drawn_on(package, box, label=pandas.array([None], "Int32"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        broken = shapely.Polygon([(500010, 4999900), (np.nan, 1), (500100, 4999990), (500010, 4999990)])
        with pytest.raises(InputError, match="layer drawn: a polygon has coordinates that are no numbers"):
            drawn_on(package, broken)
    agreed = [(inside(2, 2), Answer("agree"))]
    for name, moved, told in (
        ("moved", lambda t: t.to_crs(4326), "regions and corrections are in different coordinate systems"),
        ("flat", lambda t: pandas.DataFrame(t.drop(columns="geometry")), "layer corrections has no polygons"),
    ):
        file = write_review(tmp_path / f"{name}.gpkg", GRID, agreed, codes=np.full((40, 40), 10, np.uint8))
        pyogrio.write_dataframe(moved(pyogrio.read_dataframe(file, layer="corrections")), file, layer="corrections")
        with pytest.raises(InputError, match=f"{name}.gpkg: .*{told}"):
            read_corrections(file, KNOWN, 0)
    header = {"format": 1, "map": "x" * 300, "hashes": {}}
    long = write_review(tmp_path / "long.gpkg", GRID, [(inside(2, 2), Answer("class", 30))], header=header)
    assert read_corrections(long, KNOWN, 0).scene == ()
    content = package.read_bytes()
    for seed in range(25):
        damaged, rng = bytearray(content), np.random.default_rng(seed)
        for place in rng.integers(100, len(content), 200):
            damaged[place] = rng.integers(256)
        (tmp_path / "damaged.gpkg").write_bytes(damaged)
        with contextlib.suppress(InputError):  # whatever is left of it
            read_corrections(tmp_path / "damaged.gpkg", KNOWN, 0)


def test_what_is_no_review_is_refused(package, tmp_path, monkeypatch):
    (tmp_path / "text.gpkg").write_text("hello")
    (tmp_path / "cut.gpkg").write_bytes(package.read_bytes()[:5000])
    pyogrio.write_dataframe(pandas.DataFrame({"a": [1]}), tmp_path / "other.gpkg", layer="other", driver="GPKG")
    for name, told in {
        "none.gpkg": "cannot be opened",
        "text.gpkg": "not a polygon file",
        "cut.gpkg": "cannot be read",
        "other.gpkg": "wanted a layer regions, it has other",
        "review.csv": "wanted a GeoPackage",
    }.items():
        with pytest.raises(InputError, match=f"{name}: .*{told}") as error:
            read_corrections(tmp_path / name, KNOWN, 0)
        assert "\n" not in str(error.value)
    monkeypatch.setattr(corrections, "MOST", 2)
    with pytest.raises(InputError, match="layer regions has over 2 rows"):
        read_corrections(package, KNOWN, 0)
    monkeypatch.setattr(corrections, "BYTES", 1000)
    with pytest.raises(InputError, match="larger than"):
        read_corrections(package, KNOWN, 0)
    (tmp_path / "scene_review.gpkg-wal").write_bytes(b"x")
    with pytest.raises(InputError, match="open in another program"):
        read_corrections(package, KNOWN, 0)


def test_sqlite_is_closed_after_reading(package):
    read_corrections(package, KNOWN, 0)
    connection = sqlite3.connect(package)
    connection.execute("SELECT count(*) FROM regions")
    connection.close()
    assert not package.with_name(package.name + "-wal").exists()
