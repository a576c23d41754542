"""Mosaics beside plain sums over whole arrays; their grids, areas and errors; kills."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import numpy as np
import pystac
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from scipy.ndimage import distance_transform_edt

from models.errors import EarthtuneError
from models.spec import ClassDef
from pipelines.commands.score import score
from pipelines.mosaics import mosaic as module
from pipelines.mosaics import views
from pipelines.mosaics.ground import Ground
from pipelines.mosaics.mosaic import mosaic
from pipelines.scenes.scene import Scene
from pipelines.scoring.plan import Maps
from tests.runs import BANDS, make_chip, write, write_map

CLASSES = (ClassDef(10, "tree", "#006400"), ClassDef(30, "grass", "#ffff4c"), ClassDef(80, "water", "#0064c8"))
NAN = float("nan")
HEIGHT, WIDTH = 90, 610  # more than one block across
FEATHER = 8


def box(top, left, shape, *, crs="EPSG:32632", side=30.0):
    return GeoBox(shape, Affine(side, 0, 500010 + side * left, 0, -side, 5000010 - side * top), crs)


def write_view(folder, name, p, geobox, *, day="2024-07-01", classes=CLASSES, run="a" * 64):
    """A scene's maps as score writes them: probabilities p (K, H, W), NaN where nothing was seen."""
    tags = {"EARTHTUNE_BUNDLE": run} | ({"ACQUISITION_DATE": day} if day else {})
    known = np.isfinite(p).all(axis=0)
    codes = np.where(known, np.array([c.code for c in classes], np.uint8)[p.argmax(axis=0)], np.uint8(0))[None]
    how = {"geobox": geobox, "tags": tags}
    names = [f"{c.code} {c.name}" for c in classes]
    floats = {"dtype": "float32", "nodata": NAN, "bands": len(classes), "descriptions": names}
    write_map(folder / f"{name}_probabilities.tif", [(0, p.astype(np.float32))], **floats, **how)
    about = {"dtype": "uint8", "nodata": 0, "classes": classes, "descriptions": ["land cover"]}
    return write_map(folder / f"{name}_map.tif", [(0, codes)], **about, **how)


def shares(seed, shape):
    rng = np.random.default_rng(seed)
    return rng.dirichlet((1, 1, 1), shape).transpose(2, 0, 1).astype(np.float32)


PLACES = {"a": (0, 0, (70, 320)), "b": (20, 250, (70, 360)), "c": (5, 100, (60, 430))}
DAYS = {"a": "2024-06-01", "b": "2024-07-01", "c": "2024-08-30"}


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    """Three overlapping views with a cloud; and what each says of the whole grid, NaN where nothing."""
    folder, told = tmp_path_factory.mktemp("views"), {}
    for seed, (name, (top, left, shape)) in enumerate(PLACES.items()):
        p = shares(seed, shape)
        if name == "c":
            p[:, 20:40, 150:200] = np.nan
        write_view(folder, name, p, box(top, left, shape), day=DAYS[name])
        told[name] = np.full((3, HEIGHT, WIDTH), np.nan, np.float32)
        told[name][:, top : top + shape[0], left : left + shape[1]] = p
    return folder, told


def expected(told, date=None):
    """Mean, count and day by whole arrays."""
    total, weights = np.zeros((3, HEIGHT, WIDTH)), np.zeros((HEIGHT, WIDTH))
    count, most, day = np.zeros((HEIGHT, WIDTH)), np.zeros((HEIGHT, WIDTH)), np.zeros((HEIGHT, WIDTH))
    for name, p in told.items():
        known = np.isfinite(p[0])
        far = distance_transform_edt(np.pad(known, FEATHER))[FEATHER:-FEATHER, FEATHER:-FEATHER]
        seen_on = datetime.date.fromisoformat(DAYS[name])
        weight = np.where(known, np.sin(np.pi / 2 * np.minimum(far / FEATHER, 1)) ** 2, 0)
        weight *= 1.0 if date is None else 0.5 ** (abs((seen_on - date).days) / 30)
        total += np.nan_to_num(p) * weight
        weights += weight
        count += known
        day = np.where(weight > most, (seen_on - datetime.date(1970, 1, 1)).days, day)
        most = np.maximum(weight, most)
    with np.errstate(invalid="ignore"):
        return total / weights, count, day


def read(path):
    with rasterio.open(path) as dataset:
        return dataset.read()


@pytest.mark.parametrize("date", [None, "2024-06-10"])
def test_a_mosaic_is_the_mean_by_how_well_each_view_saw(ground, tmp_path, date):
    folder, told = ground
    out = tmp_path / "all_map.tif"
    made = mosaic([str(folder)], out=out, date=date, feather=FEATHER)
    mean, count, day = expected(told, date and datetime.date.fromisoformat(date))
    sure, seen = read(made["maps"]["confidence"])[0], read(made["maps"]["views"])
    np.testing.assert_allclose(sure, mean.max(axis=0), atol=1e-5)
    np.testing.assert_array_equal(seen[0], count)
    assert (seen[1] == day).mean() > 0.99  # ties of two views that both weigh almost 1
    clear = np.diff(np.sort(np.nan_to_num(mean), axis=0), axis=0)[-1] > 1e-4
    codes = np.where(count > 0, np.array([10, 30, 80])[np.nan_to_num(mean).argmax(axis=0)], 0)
    np.testing.assert_array_equal(read(out)[0][clear], codes[clear])
    assert made["views"] == 3 and made["valid"] == pytest.approx((count > 0).mean(), abs=1e-6)
    with rasterio.open(out) as dataset:
        assert dataset.colormap(1)[10] == (0, 100, 0, 255) and dataset.nodata == 0
        assert dataset.tags()["EARTHTUNE_BUNDLE"] == "a" * 64


def test_the_item_says_when_and_of_what(ground, tmp_path):
    folder, _ = ground
    (folder / "a.json").write_text("{}")
    made = mosaic([str(folder)], out=folder.parent / "item" / "x_map.tif", feather=FEATHER)
    item = pystac.Item.from_dict(json.loads(Path(made["item"]).read_text()))
    assert item.properties["start_datetime"] == "2024-06-01T00:00:00Z"
    assert item.properties["end_datetime"] == "2024-08-30T23:59:59Z" and item.properties["proj:code"] == "EPSG:32632"
    assert [link.href for link in item.get_links("derived_from")] == ["../views0/a.json"]
    assert {*item.assets} == {"map", "confidence", "views", "thumbnail"}
    assert [entry["value"] for entry in item.assets["map"].extra_fields["classification:classes"]] == [10, 30, 80, 0]


def test_other_zones_and_pixels_lie_where_they_are(tmp_path):
    """A boundary along a meridian-like line of zone 32, seen in zone 33 and with other pixels."""
    folder = tmp_path / "views"
    line = 500010 + 30 * 60  # m east in zone 32

    def told(geobox):
        rows, cols = np.mgrid[: geobox.shape[0], : geobox.shape[1]] + 0.5
        a, b, c, d, e, f = tuple(geobox.affine)[:6]
        x, y = a * cols + b * rows + c, d * cols + e * rows + f
        if geobox.crs != "EPSG:32632":
            x, y = geobox.crs.transformer_to_crs("EPSG:32632")(x, y)
        west = 1 / (1 + np.exp((x - line) / 30))
        return np.stack((west, 1 - west, np.zeros_like(west)))

    here = box(0, 0, (80, 80))
    x, y = here.crs.transformer_to_crs("EPSG:32633")(500010 + 30 * 40.0, 5000010 - 30 * 40.0)
    there = GeoBox((60, 70), Affine(40, 0, x - 1000, 0, -40, y + 1200), "EPSG:32633")
    for name, geobox in (("a", here), ("b", there)):
        write_view(folder, name, told(geobox), geobox, day="")
    made = mosaic([str(folder)], out=tmp_path / "all.tif", ground=Ground(crs="EPSG:3857", pixel=25), feather=FEATHER)
    with rasterio.open(made["map"]) as dataset:
        geobox = GeoBox(dataset.shape, dataset.transform, dataset.crs.to_wkt())
        assert dataset.crs.to_epsg() == 3857 and dataset.res == (25, 25)
    codes, count = read(made["map"])[0], read(made["maps"]["views"])[0]
    truth = told(geobox)
    sure = (truth.max(axis=0) > 0.75) & (count > 0)
    assert {*np.unique(count)} == {0, 1, 2} and sure.sum() > 1000
    np.testing.assert_array_equal(codes[sure], np.where(truth[0] > 0.5, 10, 30)[sure])
    assert made["map"].endswith("all.tif") and made["maps"]["views"].endswith("all_views.tif")


def square(path, west, south, east, north, crs="EPSG:32632"):
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    polygon = {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [ring]}}
    named = {"crs": {"type": "name", "properties": {"name": crs}}}
    path.write_text(json.dumps({"type": "FeatureCollection", **named, "features": [polygon]}))
    return path


def test_outside_of_the_area_nothing_is_said_or_computed(ground, tmp_path, monkeypatch):
    folder, told = ground
    corner = 500010 + 30 * 40, 5000010 - 30 * 60
    aoi = square(tmp_path / "aoi.geojson", *corner, corner[0] + 30 * 100, corner[1] + 30 * 40)
    windows = []
    monkeypatch.setattr(module, "seen", lambda *a, **k: windows.append(a[0].map.name) or views.seen(*a, **k))
    whole = Ground(grid=folder / "b_map.tif", aoi=aoi)
    with pytest.raises(EarthtuneError, match=r"no map has any data|none of the maps"):
        mosaic([str(folder / "a_map.tif")], out=tmp_path / "none.tif", ground=whole, feather=FEATHER)
    assert windows == []
    made = mosaic([str(folder)], out=tmp_path / "part.tif", ground=Ground(aoi=aoi), feather=FEATHER)
    with rasterio.open(made["map"]) as dataset:
        assert dataset.shape == (40, 100) and (dataset.transform.c, dataset.transform.f) == (corner[0], 4999410)
    mean, _, _ = expected(told)
    np.testing.assert_allclose(read(made["maps"]["confidence"])[0], mean.max(axis=0)[20:60, 40:140], atol=1e-5)


def test_values_are_averaged_and_keep_their_unit(tmp_path):
    y = np.arange(40 * 50, dtype=np.float32).reshape(1, 40, 50)
    for name, plus in (("a", 0), ("b", 10)):
        values = y + plus
        values[:, :5] = np.nan
        about = {"dtype": "float32", "nodata": NAN, "descriptions": ["biomass"], "units": ["t/ha"]}
        write_map(tmp_path / f"{name}_map.tif", [(0, values)], geobox=box(0, 0, (40, 50)), **about)
    made = mosaic([str(tmp_path / "*_map.tif")], out=tmp_path / "mean.tif")
    values = read(made["map"])
    np.testing.assert_allclose(values[:, 5:], y[:, 5:] + 5, rtol=1e-6)
    assert np.isnan(values[:, :5]).all() and {*made["maps"]} == {"map", "views"}
    with rasterio.open(made["map"]) as dataset:
        assert dataset.units == ("t/ha",) and dataset.descriptions == ("biomass",)


def test_what_was_killed_goes_on_and_ends_with_the_same_bytes(tmp_path, monkeypatch):
    shape = (1100, 40)  # three parts
    for seed, name in enumerate("ab"):
        write_view(tmp_path / "views", name, shares(seed, shape), box(0, 0, shape))
    maps = [str(tmp_path / "views")]
    whole = mosaic(maps, out=tmp_path / "whole" / "m.tif")
    block, rows = module.Work._block, []

    def killed(self, window):
        if len(rows) == 2:
            raise KeyboardInterrupt
        rows.append(window[0].start)
        return block(self, window)

    monkeypatch.setattr(module.Work, "_block", killed)
    out = tmp_path / "cut" / "m.tif"
    with pytest.raises(KeyboardInterrupt):
        mosaic(maps, out=out)
    assert [path.name for path in out.parent.iterdir()] == [".earthtune"]
    rows.pop()  # one more is allowed
    made = mosaic(maps, out=out)
    assert rows == [0, 1024] and made["status"] == "done"
    for kind, path in made["maps"].items():
        assert Path(path).read_bytes() == Path(whole["maps"][kind]).read_bytes()
    assert mosaic(maps, out=out)["status"] == "kept" and rows == [0, 1024]
    monkeypatch.undo()
    with pytest.raises(EarthtuneError, match="name of other maps"):  # one page in the ledger, one item
        mosaic(maps, out=out.with_name("m_map.tif"), overwrite=True)
    assert mosaic(maps, out=out)["status"] == "kept"
    with pytest.raises(EarthtuneError, match="exists already"):
        mosaic(maps, out=out, feather=9)


def refused(match, maps, tmp_path, **how):
    with pytest.raises(EarthtuneError, match=match) as error:
        mosaic([*map(str, maps)], out=how.pop("out", tmp_path / "out" / "m.tif"), **how)
    assert "\n" not in str(error.value) and not [*(tmp_path / "out").glob("*.tif")]


def test_what_cannot_be_joined_is_refused_in_a_line(ground, tmp_path):
    folder, _ = ground
    here, p = box(0, 0, (20, 20)), shares(1, (20, 20))
    other = write_view(tmp_path, "other", p[:2], here, classes=CLASSES[:2])
    undated = write_view(tmp_path, "undated", p, here, day="")
    alone = write_view(tmp_path, "alone", p, here)
    (tmp_path / "alone_probabilities.tif").unlink()
    mixed = write_view(tmp_path, "mixed", p, here)
    write_view(tmp_path / "again", "mixed", p, here, run="b" * 64)
    (tmp_path / "again" / "mixed_probabilities.tif").replace(tmp_path / "mixed_probabilities.tif")
    empty = write_view(tmp_path, "empty", np.full((3, 20, 20), np.nan), here)
    a = folder / "a_map.tif"
    refused("other classes than", [a, other], tmp_path)
    refused("--probabilities", [alone], tmp_path)
    refused("made by another run", [mixed], tmp_path)
    refused("has no date|have no date", [undated], tmp_path, date="2024-01-01")
    refused("YYYY-MM-DD", [a], tmp_path, date="June")
    refused("1 to 1024", [a], tmp_path, feather=0)
    refused("ends with .tif", [a], tmp_path, out=tmp_path / "m.png")
    refused("holds no maps", [tmp_path / "again" / "nothing*"], tmp_path)
    refused("would replace a map", [a, undated], tmp_path, out=tmp_path / "undated_probabilities.tif")
    refused("no map has any data", [empty], tmp_path)
    refused("no coordinate system", [a], tmp_path, ground=Ground(crs="EPSG:0"))
    refused("covers any of it", [a], tmp_path, ground=Ground(aoi=square(tmp_path / "far.geojson", 0, 0, 9, 9)))
    refused("wanted polygons", [a], tmp_path, ground=Ground(aoi=tmp_path / "aoi.txt"))
    far = write_view(tmp_path, "far", p, box(9000, 9000, (20, 20)))
    apart = write_view(tmp_path, "apart", p, box(20_000, 20_000, (20, 20)))
    refused("lie far apart", [a, apart], tmp_path)
    refused("covers any of it", [a, apart], tmp_path, ground=Ground(aoi=square(tmp_path / "sea.geojson", 0, 0, 9, 9)))
    refused("lies on this grid", [a], tmp_path, ground=Ground(grid=far))
    with pytest.raises(EarthtuneError, match="leave --crs and --pixel out"):
        Ground(grid=a, pixel=10)


def test_score_joins_the_maps_of_its_scenes(run, tmp_path):
    """As the command does that joins maps; and again only where a map has changed."""
    bands = np.concatenate([make_chip(seed)[0] for seed in range(3)], axis=2)
    for name, first in (("a", 0), ("b", 30)):
        corner, tags = (480000 + 30 * first, 4800000), {"ACQUISITION_DATE": f"2022-03-0{first // 30 + 1}"}
        write(tmp_path / f"{name}.tif", bands[:, :, first : first + 60], names=BANDS, tags=tags, corner=corner)
    scenes, out = [str(tmp_path / f"{name}.tif") for name in "ab"], tmp_path / "all_map.tif"
    how = {"out": tmp_path / "maps", "maps": Maps(mosaic=out)}
    results = score(run, scenes, **how)
    assert [result["status"] for result in results] == ["done", "done"]
    again = mosaic([str(tmp_path / "maps")], out=tmp_path / "again_map.tif")
    for kind in ("map", "confidence", "views"):
        np.testing.assert_array_equal(read(tmp_path / f"all_{kind}.tif"), read(again["maps"][kind]))
    seen = read(tmp_path / "all_views.tif")
    assert seen.shape == (2, 32, 90) and [*seen[0, 0, [0, 45, 89]]] == [1, 2, 1]
    assert {*np.unique(seen[1])} == {19052, 19053}  # days since 1970
    before = out.stat().st_ino
    assert [result["status"] for result in score(run, scenes, **how)] == ["kept", "kept"]
    assert out.stat().st_ino == before
    item = (tmp_path / "maps" / "a.json").read_bytes()
    results = score(run, scenes, out=tmp_path / "maps", maps=Maps(mosaic=tmp_path / "maps" / "a.tif"))
    assert [result["status"] for result in results] == ["kept", "kept", "failed"]  # it would have taken scene a's name
    assert (tmp_path / "maps" / "a.json").read_bytes() == item and not (tmp_path / "maps" / "a.tif").exists()
    with pytest.raises(EarthtuneError, match="--crs foo"):  # before any scene is scored
        score(run, scenes, out=tmp_path / "none", maps=Maps(mosaic=out), ground=Ground(crs="foo"), overwrite=True)
    with pytest.raises(EarthtuneError, match="already"):
        score(run, scenes, out=tmp_path / "other", maps=Maps(mosaic=out))


def test_score_computes_nothing_outside_of_an_area(run, tmp_path, monkeypatch):
    bands = np.concatenate([make_chip(seed)[0] for seed in range(4)], axis=2)
    corner, tags = (480000, 4800000), {"ACQUISITION_DATE": "2022-03-01"}
    scene = write(tmp_path / "s.tif", bands, names=BANDS, tags=tags, corner=corner)
    aoi = square(tmp_path / "aoi.geojson", 480000 + 30 * 50, 4800000 - 30 * 20, 480000 + 30 * 70, 4800000)
    (whole,) = score(run, [str(scene)], out=tmp_path / "whole", maps=Maps(confidence=True))
    read_of, seen = Scene.read, []
    monkeypatch.setattr(Scene, "read", lambda self, window: seen.append(window[1]) or read_of(self, window))
    how = {"maps": Maps(confidence=True, mosaic=tmp_path / "all_map.tif"), "ground": Ground(aoi=aoi)}
    (part,) = score(run, [str(scene)], out=tmp_path / "part", **how)
    tiles = [columns for columns in seen if columns.stop - columns.start == 32]
    assert tiles and all(columns.start < 70 and columns.stop > 50 for columns in tiles)
    inside = np.zeros((32, 128), bool)
    inside[:20, 50:70] = True
    for kind in ("map", "confidence"):
        wanted = read(whole["maps"][kind])[0]
        np.testing.assert_array_equal(
            read(part["maps"][kind])[0], np.where(inside, wanted, 0 if kind == "map" else NAN)
        )
    np.testing.assert_array_equal(read(tmp_path / "all_map.tif")[0], read(whole["map"])[0, :20, 50:70])
    with pytest.raises(EarthtuneError, match="--mosaic"):
        score(run, [str(scene)], out=tmp_path / "x", ground=Ground(pixel=10))
