"""From maps to points, from labels to areas, on small maps whose truth is known; and what bad input gets."""

from __future__ import annotations

import json
import shutil
import sqlite3

import geopandas
import numpy as np
import pandas
import pyogrio
import pytest
import shapely
from odc.geo.geobox import GeoBox
from rasterio.transform import from_origin

from models.errors import InputError
from pipelines.cli.main import main
from pipelines.grids.areas import area_table
from pipelines.outputs.categories import read_categories
from pipelines.surveys.areas import areas
from pipelines.surveys.draw import sample
from tests.benchmarks.area_intervals import simulate
from tests.runs import CLASSES, write_map

CODES = np.array([entry.code for entry in CLASSES])


def write_rows(path, values, *, corner, crs, size, **layout):
    geobox = GeoBox(values.shape[1:], from_origin(*corner, size, size), crs)
    return write_map(path, [(0, values)], geobox=geobox, bands=len(values), **layout)


def scene(folder, codes, name="a", *, classes=CLASSES, chances=None, run="r1", **place):
    """A map as `score` writes it (codes (rows, columns), nodata 0), with its probabilities where given."""
    place = {"corner": (500000, 5000000), "crs": "EPSG:32632", "size": 30.0} | place
    tags = {"EARTHTUNE_BUNDLE": run}
    path = folder / f"{name}_map.tif"
    folder.mkdir(exist_ok=True)
    write_rows(path, codes.astype(np.uint8)[None], dtype="uint8", nodata=0, classes=classes, tags=tags, **place)
    if chances is not None:
        named = {"descriptions": [f"{entry.code} {entry.name}" for entry in classes], "tags": tags}
        file = folder / f"{name}_probabilities.tif"
        write_rows(file, chances.astype(np.float32), dtype="float32", nodata=np.nan, **named, **place)
    return path


def ground(seed=0, height=60, width=80, wrong=0.2):
    """Truth and map as codes (rows, columns), probabilities (3, rows, columns); a corner without data."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(3, (height, width), p=[0.5, 0.3, 0.2])
    chances = np.full((3, height, width), 0.15)
    np.put_along_axis(chances, truth[None], 0.7, axis=0)
    mapped = np.where(rng.random(truth.shape) < wrong, rng.integers(0, 3, truth.shape), truth)
    codes = CODES[mapped]
    codes[:5, :9] = 0
    return CODES[truth], codes, chances


def label(path, truth, *, change=None):
    """Label the points by the truth at their row and column, as QGIS would; `change` has the last word on the layer."""
    key = pyogrio.read_dataframe(path, layer="sample_key").set_index("point")
    table = pyogrio.read_dataframe(path, layer="points")
    rows, columns = (key.loc[table["point"], name].to_numpy() for name in ("row", "column"))
    table["label"] = truth[rows, columns]
    table = table if change is None else change(table)
    pyogrio.write_dataframe(table, path, layer="points", driver="GPKG")
    return path


@pytest.fixture
def drawn(tmp_path):
    """A sample of 120 points of a map with probabilities, and the truth."""
    truth, codes, chances = ground()
    path = scene(tmp_path, codes, chances=chances)
    sample([path], out=tmp_path / "s.gpkg", n=120)
    return tmp_path / "s.gpkg", truth


def test_classes_of_a_map_are_read_as_they_were_written(tmp_path):
    assert read_categories(scene(tmp_path, ground()[1])) == tuple(CLASSES)


def test_points_are_pixels_of_their_stratum_and_hide_it(drawn, tmp_path):
    path, _ = drawn
    codes = ground()[1]
    points, key = (pyogrio.read_dataframe(path, layer=name) for name in ("points", "sample_key"))
    assert list(points.columns) == ["point", "label", "note", "geometry"] and points["label"].isna().all()
    assert points["point"].tolist() == list(range(1, 121)) and points.crs == "EPSG:32632"
    assert (codes[key["row"], key["column"]] == key["code"]).all()
    assert not key.duplicated(["row", "column"]).any()
    columns, rows = (points.geometry.x - 500000) / 30, (5000000 - points.geometry.y) / 30
    assert np.allclose(columns, key["column"] + 0.5) and np.allclose(rows, key["row"] + 0.5)
    for stratum, code in enumerate(CODES):
        here = key[key["stratum"] == stratum]
        assert (here["code"] == code).all()
        assert here["inclusion_probability"].tolist() == pytest.approx([len(here) / (codes == code).sum()] * len(here))
    assert len(set(key["stratum"][:20])) > 1  # not in order of the strata
    style = pyogrio.read_dataframe(path, layer="layer_styles")["styleQML"][0]
    assert "ValueMap" in style and all(entry.name in style for entry in CLASSES)
    table = pandas.read_csv(path.with_suffix(".csv"))
    assert table["stratum"].tolist() == [CLASSES[number].name for number in key["stratum"]]


def test_the_same_seed_draws_the_same_points(drawn, tmp_path):
    path, _ = drawn
    one = path.with_suffix(".csv").read_bytes()
    sample([tmp_path / "a_map.tif"], out=path, n=120, overwrite=True)
    assert path.with_suffix(".csv").read_bytes() == one
    sample([tmp_path / "a_map.tif"], out=path, n=120, seed=1, overwrite=True)
    assert path.with_suffix(".csv").read_bytes() != one


@pytest.mark.parametrize("design", ["random", "stratified"])
def test_all_pixels_of_two_overlapping_maps_are_each_ground_once(tmp_path, design, monkeypatch):
    """A sample of everything has the true areas; the maps share a third, in degrees, block by block."""
    monkeypatch.setattr("pipelines.surveys.population.BLOCK", 16)
    place = {"crs": "EPSG:4326", "size": 0.01}
    truth = CODES[np.random.default_rng(1).choice(3, (24, 60))]
    first = scene(tmp_path, truth[:, :40], "a", corner=(6, 63), **place)
    second = scene(tmp_path, truth[:, 20:], "b", corner=(6.2, 63), **place)
    whole = area_table([scene(tmp_path / "w", truth, "w", corner=(6, 63), **place)], CLASSES, tmp_path / "t.csv")
    made = sample([first, second], out=tmp_path / "s.gpkg", n=truth.size, design=design)
    assert made["hectares"] == pytest.approx(sum(row["hectares"] for row in whole), rel=1e-6)
    key = pyogrio.read_dataframe(tmp_path / "s.gpkg", layer="sample_key").set_index("point")

    def by_map(table):
        rows = key.loc[table["point"]]
        shift = np.where(rows["map"] == "b_map.tif", 20, 0)
        return table.assign(label=truth[rows["row"], rows["column"] + shift])

    label(tmp_path / "s.gpkg", np.zeros((24, 60), int), change=by_map)
    found = areas(tmp_path / "s.gpkg")
    assert [row["hectares"] for row in found["classes"]] == pytest.approx([r["hectares"] for r in whole], rel=1e-6)
    assert found["overall"]["accuracy"] == pytest.approx(1) and found["overall"]["se"] == pytest.approx(0)
    assert not (key["map"] == "b_map.tif").where(key["column"] < 20, False).any()


@pytest.mark.parametrize("design", ["random", "stratified"])
def test_estimates_are_near_the_truth_by_labels_and_by_probabilities(tmp_path, design):
    """Within 4 standard errors, and powered ones are the surer where probabilities tell the truth."""
    truth, codes, chances = ground(3)
    sample([scene(tmp_path, codes, chances=chances)], out=tmp_path / "s.gpkg", n=300, design=design)
    label(tmp_path / "s.gpkg", truth)
    wanted = np.array([0.09 * (truth[codes > 0] == code).sum() for code in CODES])
    counted, powered = (areas(tmp_path / "s.gpkg", estimator=how)["classes"] for how in ("counted", "powered"))
    for rows in (counted, powered):
        value, se = (np.array([row[name] for row in rows]) for name in ("hectares", "se"))
        assert (np.abs(value - wanted) <= 4 * se + 0.01).all()
    assert all(one["se"] < two["se"] for one, two in zip(powered, counted, strict=True))


def test_intervals_hold_the_truth():
    """The benchmark's simulation, on less: over 250 samples 95 % intervals hold 0.92 to 0.98 of the areas."""
    rng = np.random.default_rng(0)
    truth = rng.choice(4, 20_000, p=[0.4, 0.3, 0.2, 0.1])
    mapped = np.where(rng.random(20_000) < 0.25, rng.integers(0, 4, 20_000), truth)
    chances = 0.1 + 0.6 * np.eye(4)[mapped]
    _, found, _ = simulate(truth, mapped, chances, rng.uniform(0.5, 1.5, 20_000), samples=250, n=200)
    assert {name: 0.92 <= np.mean([row[0] for row in rows]) <= 0.98 for name, rows in found.items()} == dict.fromkeys(
        found, True
    )


def test_strata_that_are_regions_have_areas_of_their_own(tmp_path):
    truth, codes, _ = ground()
    path = scene(tmp_path, codes)
    boxes = [shapely.box(500000, 4990000, 501200, 5000000), shapely.box(501200, 4990000, 502100, 5000000)]
    geopandas.GeoDataFrame({"name": ["west", "east"]}, geometry=boxes, crs="EPSG:32632").to_file(tmp_path / "d.gpkg")
    said = []
    made = sample(
        [path], out=tmp_path / "s.gpkg", n=200, strata=str(tmp_path / "d.gpkg"), strata_column="name", say=said.append
    )
    assert {row["stratum"]: row["pixels"] for row in made["strata"]} == {"east": 30 * 60, "west": 40 * 60 - 45}
    assert "lie in no stratum" in said[0]
    found = areas(label(tmp_path / "s.gpkg", truth), out=tmp_path / "a.csv", figure=tmp_path / "a.png")
    assert found["estimator"] == "Stehman 2014"
    for name, hectares in (("east", 162), ("west", 0.09 * 2355)):
        rows = [row for row in found["regions"] if row["region"] == name]
        assert sum(row["hectares"] for row in rows) == pytest.approx(hectares, rel=1e-3)
    sums = [sum(row["hectares"] for row in found["regions"] if row["code"] == code) for code in CODES]
    assert sums == pytest.approx([row["hectares"] for row in found["classes"]])
    table = pandas.read_csv(tmp_path / "a.csv")
    assert table["region"].tolist() == ["all"] * 3 + ["east"] * 3 + ["west"] * 3
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"


def test_an_earlier_map_can_give_the_strata(tmp_path):
    codes = ground()[1]
    earlier = scene(tmp_path / "old", ground(5)[1], "old")
    sample([scene(tmp_path, codes)], out=tmp_path / "s.gpkg", n=60, strata=str(earlier))
    key = pyogrio.read_dataframe(tmp_path / "s.gpkg", layer="sample_key")
    assert (CODES[key["stratum"]] == ground(5)[1][key["row"], key["column"]]).all()


def table(path, statement):
    """Change a GeoPackage behind everybody's back."""
    with sqlite3.connect(path) as base:
        base.execute(statement)
    base.close()


def moved(layer):
    there = layer.geometry.iloc[0]
    return layer.set_geometry([shapely.Point(there.x + 40, there.y), *layer.geometry.iloc[1:]], crs=layer.crs)


EDITS = {
    "added": (lambda layer: pandas.concat([layer, layer.iloc[:1].assign(point=999)]), "1 points are not of the sample"),
    "twice": (lambda layer: pandas.concat([layer, layer.iloc[:1]]), "point 1 comes twice"),
    "moved": (moved, "1 points were moved, point 1 by 40 m"),
    "unknown": (lambda layer: layer.assign(label=77), "is labelled 77, which is no class; wanted one of 10 tree"),
    "renamed": (lambda layer: layer.rename(columns={"label": "klasse"}), "has no column label any more"),
    "blank": (lambda layer: layer.assign(label=layer["label"].where(layer["point"] > 7)), "7 of 120 points have no"),
    "gone": (lambda layer: layer.iloc[5:], "5 of 120 points have no label"),
    "nothing": (lambda layer: layer.assign(label=None), "no point has a label"),
    "flat": (lambda layer: pandas.DataFrame(layer.drop(columns="geometry")), "has no column geometry any more"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_what_was_edited_wrongly_is_one_line(drawn, edit):
    path, truth = drawn
    change, told = EDITS[edit]
    label(path, truth, change=change)
    with pytest.raises(InputError, match=told):
        areas(path, out=path.with_name("a.csv"))
    assert not path.with_name("a.csv").exists()


def test_names_new_columns_and_another_order_are_taken(drawn):
    path, truth = drawn
    names = {entry.code: entry.name for entry in CLASSES}
    plain = areas(label(path, truth))

    def change(layer):
        return layer.assign(label=layer["label"].map(names), by="somebody").iloc[::-1].to_crs("EPSG:4326")

    assert areas(label(path, truth, change=change)) == plain


def test_left_out_points_are_told_of(drawn):
    path, truth = drawn
    label(path, truth, change=EDITS["blank"][0])
    found = areas(path, unlabelled="leave_out")
    assert (found["points"], found["unlabelled"]) == (113, 7) and "7 of 120 points have no label" in found["warnings"][
        0
    ]


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("DROP TABLE sample_key", "is no probability sample"),
        ("UPDATE sample_key SET inclusion_probability = 0.5", "only sample writes"),
        ("ALTER TABLE sample_key DROP COLUMN hectares", "lacks hectares"),
        ("UPDATE sample_design SET content = '{'", "cannot be read"),
        ("UPDATE sample_design SET content = replace(hex(zeroblob(9000)), '0', '[')", "cannot be read"),
        ("UPDATE sample_design SET content = json_set(content, '$.pixels[0][0]', -5)", "its numbers make no sense"),
        ("UPDATE sample_design SET content = json_set(content, '$.hectares[0][0]', -1)", "its numbers make no sense"),
        ("UPDATE sample_design SET content = json_remove(content, '$.names[0]')", "its numbers make no sense"),
        ("UPDATE sample_design SET content = json_set(content, '$.classes', json('[]'))", "its numbers make no sense"),
        ("CREATE VIEW more AS WITH c(x) AS (SELECT 1 UNION ALL SELECT x FROM c) SELECT x FROM c", "more is a view"),
    ],
)
def test_a_sample_whose_design_was_changed_is_none(drawn, statement, told):
    path, truth = drawn
    label(path, truth)
    table(path, statement)
    if "DROP TABLE" in statement:
        table(path, "DELETE FROM gpkg_contents WHERE table_name = 'sample_key'")
    with pytest.raises(InputError, match=told):
        areas(path)


def test_a_map_that_changed_or_has_gone(drawn, tmp_path):
    path, truth = drawn
    label(path, truth)
    plain, said = areas(path), []
    shutil.move(tmp_path / "a_map.tif", tmp_path / "elsewhere.tif")
    assert areas(path, say=said.append) == plain and "a_map.tif: is not there any more" in said[0]
    scene(tmp_path, ground(9)[1])
    with pytest.raises(InputError, match=r"a_map.tif: changed since s.gpkg was drawn"):
        areas(path)


def test_points_of_others_are_no_probability_sample(tmp_path):
    points = geopandas.GeoDataFrame({"label": [10]}, geometry=[shapely.Point(1, 2)], crs="EPSG:4326")
    points.to_file(tmp_path / "review.gpkg", layer="points")
    with pytest.raises(InputError, match="is no probability sample"):
        areas(tmp_path / "review.gpkg")
    (tmp_path / "text.gpkg").write_text("not a database")
    with pytest.raises(InputError, match="begins as no .gpkg"):
        areas(tmp_path / "text.gpkg")


def test_maps_that_do_not_go_together(tmp_path):
    truth, codes, chances = ground()
    one = scene(tmp_path, codes, "a")
    others = {
        "of another run": scene(tmp_path, codes, "b", run="r2", corner=(600000, 5000000)),
        "classes are 10 tree, 30 grass;": scene(tmp_path, np.full((9, 9), 10), "c", classes=CLASSES[:2]),
        "given twice": one,
    }
    for told, other in others.items():
        with pytest.raises(InputError, match=told):
            sample([one, other], out=tmp_path / "s.gpkg")
    with pytest.raises(InputError, match="--n 500000: the maps have 4755 pixels"):
        sample([one], out=tmp_path / "s.gpkg", n=500_000)
    with pytest.raises(InputError, match="for --design stratified"):
        sample([one], out=tmp_path / "s.gpkg", design="random", strata=str(one))
    scene(tmp_path, codes, "d", chances=chances, size=20.0)
    (tmp_path / "d_map.tif").unlink()
    scene(tmp_path, codes, "d")
    with pytest.raises(InputError, match="lies on another grid than d_map.tif"):
        sample([tmp_path / "d_map.tif"], out=tmp_path / "s.gpkg")
    assert not [*tmp_path.glob("s.*")] and not [*tmp_path.glob(".s*")]
    sample([one], out=tmp_path / "s.gpkg", n=50)
    with pytest.raises(InputError, match="has no probabilities"):
        areas(label(tmp_path / "s.gpkg", truth), estimator="powered")


def test_thin_strata_and_rare_classes_are_told(tmp_path):
    codes = np.full((40, 40), 10)
    codes[0, :3], codes[1:11] = 30, 80
    sample([scene(tmp_path, codes)], out=tmp_path / "s.gpkg", n=60, least=1)
    found = areas(label(tmp_path / "s.gpkg", codes))
    told = "\n".join(found["warnings"])
    assert "stratum grass has 1 labelled point" in told and "stratum tree: all 44 points are tree" in told
    assert "fewer than 5 points are grass" in told
    label(tmp_path / "s.gpkg", np.full((40, 40), 10))
    found = areas(tmp_path / "s.gpkg")
    assert "no interval for tree, grass, water" in "\n".join(found["warnings"])
    assert found["classes"][0]["high"] is None and found["classes"][1]["users"] == 0


def test_as_it_is_typed(drawn, capsys):
    path, truth = drawn
    label(path, truth)
    assert main(["areas", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["estimator"].startswith("prediction-powered") and len(found["classes"]) == 3
    assert main(["areas", str(path)]) == 0
    out = capsys.readouterr().out
    assert "overall accuracy" in out and max(map(len, out.splitlines())) <= 120
    assert main(["sample", str(path.with_name("a_map.tif")), "--out", str(path)]) == 2
    assert "exists already" in capsys.readouterr().err
