"""A review's GeoPackage, by pyogrio and sqlite3: written, edited as QGIS would, and read again."""

from __future__ import annotations

import sqlite3

import geopandas
import numpy as np
import pyogrio
import pytest
import shapely

from models.errors import InputError
from pipelines.commands.review import review
from pipelines.outputs import forms
from pipelines.review import package as module
from pipelines.review.answers import Answer, open_answers, read_header, read_lines
from pipelines.review.review import Page
from tests.pipelines.review.scenes_to_review import CLASSES, make_map

CODES = frozenset(entry.code for entry in CLASSES)
ONLY_FILE = {"page": Page(no_page=True)}


@pytest.fixture
def begun(tmp_path):
    """A map, its GeoPackage, and its answers so far."""
    path = make_map(tmp_path)
    review(path, **ONLY_FILE)
    lines = tmp_path / "scene_review.ndjson"

    def answers():
        return open_answers(lines, read_header(lines, read_lines(lines)), CODES, frozenset(range(4)))

    return path, tmp_path / "scene_review.gpkg", answers


def change(package, script):
    """Change a GeoPackage as QGIS does, whose SQLite knows what the triggers ask for."""
    connection = sqlite3.connect(package)
    for name in ("ST_IsEmpty", "ST_MinX", "ST_MaxX", "ST_MinY", "ST_MaxY"):
        connection.create_function(name, 1, lambda place: 0)
    with connection:
        connection.executescript(script)
    connection.close()


def test_layers_columns_and_forms(begun):
    _, package, _ = begun
    assert {name for name, _ in pyogrio.list_layers(package)} == {
        "regions",
        "drawn",
        "corrections",
        "review",
        "layer_styles",
    }
    table = pyogrio.read_dataframe(package, layer="regions")
    wanted = ["id", "scene", "reason", "code", "class", "hectares", "confidence", "unfamiliar", "answer", "label"]
    assert [*table.columns] == [*wanted, "geometry"]
    assert table.crs.to_epsg() == 32633 and table["id"].tolist() == [1, 2, 3] and table.is_valid.all()
    assert (table.area / 1e4).tolist() == pytest.approx(table["hectares"].tolist(), rel=2e-3)
    styles = pyogrio.read_dataframe(package, layer="layer_styles").set_index("f_table_name")["styleQML"]
    assert forms.choices_of(styles["regions"], "label") == {entry.name: str(entry.code) for entry in CLASSES}
    assert set(forms.choices_of(styles["regions"], "answer").values()) == {"", "agree", "class", "unsure"}


def test_answers_become_corrections(begun):
    path, package, answers = begun
    table = pyogrio.read_dataframe(package, layer="regions").set_index("id")
    left, bottom, right, top = table.geometry[3].bounds
    ring = ((left, bottom), (right, bottom), (right, (top + bottom) / 2), (left, (top + bottom) / 2))
    said = answers()
    for number, answer in {
        1: Answer("agree"),
        2: Answer("class", 30),
        3: Answer("unsure", None, ((40, ring),)),
    }.items():
        said.take(number, answer)
    assert review(path, **ONLY_FILE)["answered"] == 3
    made = pyogrio.read_dataframe(package, layer="corrections")
    assert sorted(zip(made["region"], made["label"], made["class"], made["source"], strict=True)) == [
        (1, table["code"][1], table["class"][1], "agree"),
        (2, 30, "grassland", "class"),
        (3, 40, "cropland", "drawn"),
    ]
    areas = made.set_index("region").area
    assert areas[1] == pytest.approx(table.area[1]) and areas[2] == pytest.approx(table.area[2])
    assert areas[3] == pytest.approx(shapely.Polygon(ring).area)
    assert not any(one.overlaps(other) for one in made.geometry for other in made.geometry if one is not other)


def test_what_is_edited_in_qgis_is_taken_up_and_nothing_older_is_lost(begun, capsys):
    path, package, answers = begun
    answers().take(2, Answer("agree"))  # on the disk, but not in the GeoPackage: the process was killed
    change(package, "UPDATE regions SET label = 40 WHERE id = 1; ALTER TABLE regions ADD COLUMN note TEXT")
    square = shapely.box(450500, 5549500, 450550, 5549550)
    drawn = geopandas.GeoDataFrame({"region": [None], "label": [10]}, geometry=[square], crs=32633)
    pyogrio.write_dataframe(drawn.astype({"region": "Int32", "label": "Int32"}), package, layer="drawn", append=True)
    notes = []
    review(path, say=notes.append, **ONLY_FILE)
    said = answers().said
    assert said[1] == Answer("class", 40) and said[2] == Answer("agree")
    (polygon,) = [polygon for answer in said.values() for polygon in answer.polygons]
    assert polygon[0] == 10 and shapely.Polygon(polygon[1]).equals(square)
    assert any("note left aside" in note for note in notes)
    count = len(answers().past)
    review(path, **ONLY_FILE)
    assert len(answers().past) == count  # what was taken up is not taken twice


def test_an_edited_copy_is_taken(begun, tmp_path):
    path, package, answers = begun
    copy = tmp_path / "edited.gpkg"
    copy.write_bytes(package.read_bytes())
    change(copy, "UPDATE regions SET answer = 'unsure' WHERE id = 3")
    review(path, take=copy, **ONLY_FILE)
    assert answers().said[3] == Answer("unsure")
    with pytest.raises(InputError, match="no such file"):
        review(path, take=tmp_path / "none.gpkg", **ONLY_FILE)


def test_ground_with_holes_and_many_polygons_are_taken_and_stay(begun, monkeypatch):
    path, package, answers = begun
    ring = shapely.Point(450700, 5549300).buffer(60)
    holes = [shapely.Point(450700 + 20 * i, 5549300 + 3 * i).buffer(8) for i in (-2, -1, 0, 1, 2)]
    holed = ring.difference(shapely.union_all(holes))
    assert len(holed.interiors) == 5
    many = [shapely.box(450500 + i, 5549600, 450500.5 + i, 5549601) for i in range(150)]
    drawn = geopandas.GeoDataFrame({"region": [None] * 151, "label": [10] * 151}, geometry=[holed, *many], crs=32633)
    pyogrio.write_dataframe(drawn.astype({"region": "Int32", "label": "Int32"}), package, layer="drawn")
    for _ in range(2):  # what was taken up is read again
        review(path, **ONLY_FILE)
        table = pyogrio.read_dataframe(package, layer="drawn")
        ground = shapely.union_all(table.geometry.to_numpy())
        assert not any(len(shape.interiors) for shape in table.geometry)
        assert ground.symmetric_difference(shapely.union_all([holed, *many])).area == pytest.approx(0, abs=1e-6)
    count = len(answers().past)
    monkeypatch.setattr(module, "MOST_POLYGONS", 3)
    drawn = drawn.iloc[:4].astype({"region": "Int32", "label": "Int32"})
    pyogrio.write_dataframe(drawn.set_geometry([many[0]] * 4).set_crs(32633), package, layer="drawn")
    with pytest.raises(InputError, match="4 polygons in region 3: wanted at most 3; join some"):
        review(path, **ONLY_FILE)
    assert len(answers().past) == count


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("ALTER TABLE regions DROP COLUMN answer", "wants a column answer"),
        ("UPDATE regions SET label = 7, answer = 'class' WHERE id = 1", "region 1: label 7.0: no such class"),
        ("UPDATE regions SET answer = 'class' WHERE id = 1", "region 1: label None"),
        ("UPDATE regions SET answer = 'yes' WHERE id = 2", "region 2: an answer wants one of"),
        ("UPDATE regions SET id = 1 WHERE id = 2", "region 1 is there twice"),
        ("UPDATE regions SET id = 99 WHERE id = 2", "region 99 is none of this review"),
        ("UPDATE review SET value = replace(value, 'scene_map', 'other_map')", "a review of another map"),
        ("UPDATE review SET value = 'x'", "its table `review` was changed"),
        ("UPDATE review SET value = '\"x\"'", "its table `review` was changed"),
        (
            'UPDATE review SET value = \'{"x": {"answer": "agree"}}\' WHERE key = \'answers\'',
            "its table `review` was chan",
        ),
        (
            "CREATE VIEW more AS WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x FROM c) SELECT x FROM c",
            "more is a v",
        ),
    ],
)
def test_edits_that_make_no_sense_are_one_line_and_nothing_is_lost(begun, script, told):
    path, package, answers = begun
    answers().take(3, Answer("agree"))
    change(package, script)
    before = package.read_bytes()
    with pytest.raises(InputError, match=told) as error:
        review(path, **ONLY_FILE)
    assert "\n" not in str(error.value)
    assert package.read_bytes() == before and answers().said == {3: Answer("agree")}


def test_open_elsewhere_other_settings_and_changed_maps_are_refused(begun, tmp_path):
    path, package, _ = begun
    beside = package.with_name(package.name + "-wal")
    beside.write_bytes(b"x")
    with pytest.raises(InputError, match="open in another program"):
        review(path, **ONLY_FILE)
    beside.unlink()
    with pytest.raises(InputError, match="begun with --most 500 --side 32"):
        review(path, side=16, **ONLY_FILE)
    (tmp_path / "scene_unfamiliar.tif").write_bytes((tmp_path / "scene_confidence.tif").read_bytes())
    review(path, **ONLY_FILE)  # what came later does not change what is reviewed
    make_map(tmp_path, low=((1, 60, 9, 9, 0.2),))
    with pytest.raises(InputError, match=r"scene_\w+.tif has changed; restore it, or give another --out"):
        review(path, **ONLY_FILE)
    assert review(path, out=tmp_path / "new.v2.gpkg", **ONLY_FILE)["file"].endswith("new.v2.gpkg")
    assert (tmp_path / "new.v2.ndjson").exists()


@pytest.mark.parametrize(
    ("column", "value", "told"),
    [
        ("id", np.inf, "region inf is none of this review"),
        ("id", "one", "region one is none of this review"),
        ("label", "wood", "region 1: label wood: wanted one of 10, 30, 40"),
    ],
)
def test_columns_of_another_type_are_one_line(begun, column, value, told):
    path, package, _ = begun
    table = pyogrio.read_dataframe(package, layer="regions")
    pyogrio.write_dataframe(table.assign(**{column: value}), package, layer="regions")
    with pytest.raises(InputError, match=told):
        review(path, **ONLY_FILE)


@pytest.mark.parametrize("name", ["a!b", "a;b", "a\tb"])
def test_a_name_that_means_another_file_is_refused_and_that_file_stays(tmp_path, monkeypatch, name):
    (tmp_path / "maps").mkdir()
    (tmp_path / "b_review.gpkg").write_text("of somebody else")
    monkeypatch.chdir(tmp_path)
    make_map(tmp_path / "maps")
    for file in sorted((tmp_path / "maps").iterdir()):
        file.rename(file.with_name(file.name.replace("scene", name, 1)))
    with pytest.raises(InputError, match="means another file to the reader; rename it"):
        review(tmp_path / "maps" / f"{name}_map.tif", **ONLY_FILE)
    assert (tmp_path / "b_review.gpkg").read_text() == "of somebody else"
    assert not list((tmp_path / "maps").glob("*.gpkg"))
