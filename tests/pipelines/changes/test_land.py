"""A watch of the wood alone, by a mask of classes; and a review of its alerts, whose answers outlive an update."""

from __future__ import annotations

import datetime
import json
import shutil

import geopandas
import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from models.errors import InputError
from pipelines.changes.changes import changes
from pipelines.changes.land import Land
from pipelines.commands.review import review
from pipelines.grids.align import grid
from pipelines.review.review import Page
from tests.pipelines.changes.test_changes import DAYS, SHAPE, SINCE, files, read, scenes

__all__ = ["scenes"]
WOOD = np.s_[:, :28]
TOLD = datetime.date(2023, 9, 1)  # the clearing was told by then
QUIET = Page(no_page=True)


@pytest.fixture(scope="module")
def mask(scenes, tmp_path_factory):
    """Classes of 60 m pixels that end with the scene's rows: 10 is wood, 30 grass, and the first rows are 0."""
    path = tmp_path_factory.mktemp("mask") / "cover.tif"
    codes = np.where(np.arange(18) < 14, 10, 30) * np.ones((20, 1))
    codes[:2] = 0
    with rasterio.open(files(scenes, DAYS[0])[0]) as source:
        profile = source.profile | {"count": 1, "dtype": "uint8", "nodata": None, "height": 20, "width": 18}
        corner, crs = (source.transform.c, source.transform.f), source.crs
    profile |= {"transform": from_origin(*corner, 60, 60), "crs": crs}
    with rasterio.open(path, "w", **profile) as target:
        target.write(codes.astype(np.uint8)[None])
    return path


@pytest.fixture(scope="module")
def watched(scenes, mask, tmp_path_factory):
    """All at once."""
    out = tmp_path_factory.mktemp("all")
    changes([str(scenes)], out=out, since=SINCE, buffer=1, land=Land(mask, (10,)))
    return out


@pytest.fixture(scope="module")
def early(scenes, mask, tmp_path_factory):
    """Up to the day when the clearing is told."""
    out = tmp_path_factory.mktemp("early")
    changes(files(scenes, TOLD), out=out, since=SINCE, buffer=1, land=Land(mask, (10,)))
    return out


def test_only_the_classes_of_the_mask_are_watched(watched):
    codes = read(watched / "changes_map.tif")[0]
    assert codes.shape == SHAPE and (codes[4:, :28] > 0).all()
    assert not codes[:4].any() and not codes[:, 28:].any()


def test_alerts_are_reviewed_and_answers_outlive_an_update(early, watched, scenes):
    path = early / "changes_map.tif"
    told = review(path, pick="alerts", page=QUIET)
    table = geopandas.read_file(early / "changes.gpkg", layer="alerts").set_index("number")
    regions = geopandas.read_file(early / "changes_review.gpkg", layer="regions").set_index("id")
    assert told["regions"] == len(table) == len(regions) and told["answered"] == 0
    for number, region in regions.iterrows():
        assert region.geometry.equals(table.geometry[number])
        assert region.hectares == pytest.approx(table.hectares[number], rel=1e-3)
        assert region.confidence == pytest.approx(table.probability[number], abs=1e-3)
        assert table["name"][number] in region.reason
    largest = int(table.hectares.idxmax())
    assert regions.index[0] == largest  # all are new; the largest is asked for first
    regions.loc[largest, "answer"] = "agree"
    regions.reset_index().to_file(early / "changes_review.gpkg", layer="regions", driver="GPKG")
    assert review(path, pick="alerts", page=QUIET)["answered"] == 1
    changes([str(scenes)], out=early, update=True)
    for name in ("changes_map.tif", "changes.tif"):  # and an update is what it would have been at once
        # The rate that is kept is told by the first dates, and with it which of the sample still tell what is shared.
        np.testing.assert_allclose(read(early / name), read(watched / name), atol=0.01)
    told = review(path, pick="alerts", page=QUIET)
    after = geopandas.read_file(early / "changes_review.gpkg", layer="regions").set_index("id")
    now = geopandas.read_file(early / "changes.gpkg", layer="alerts").set_index("number")
    standing = now.index[now.status.isin(["new", "stands"])]
    assert told["answered"] == 1 and after.answer[largest] == "agree" and set(after.index) == {largest, *standing}
    assert after.index[-1] == largest  # what is answered comes last
    settled = geopandas.read_file(early / "changes_review.gpkg", layer="corrections")
    assert set(settled.region) == {largest} and set(settled.label) <= {1, 2, 3}


def test_a_review_of_alerts_is_not_taken_for_another(watched, tmp_path):
    review(watched / "changes_map.tif", pick="alerts", page=QUIET, out=tmp_path / "a.gpkg")
    with pytest.raises(InputError, match="a review of alerts of this map; give --pick alerts"):
        review(watched / "changes_map.tif", page=QUIET, out=tmp_path / "a.gpkg")
    lines = (tmp_path / "a.ndjson").read_text().splitlines()
    (tmp_path / "a.ndjson").write_text(json.dumps(json.loads(lines[0]) | {"watch": "another"}) + "\n")
    with pytest.raises(InputError, match="answers about another watch"):
        review(watched / "changes_map.tif", pick="alerts", page=QUIET, out=tmp_path / "a.gpkg")


def test_alerts_of_another_map_are_refused(watched, tmp_path):
    for name in ("changes_map.tif", "changes_map.tif.aux.xml", "changes_confidence.tif"):
        shutil.copy(watched / name, tmp_path)
    with pytest.raises(InputError, match=r"changes\.gpkg: no such file"):
        review(tmp_path / "changes_map.tif", pick="alerts", page=QUIET)
    table = geopandas.read_file(watched / "changes.gpkg", layer="alerts").drop(columns="number")
    table.to_file(tmp_path / "changes.gpkg", layer="alerts")
    with pytest.raises(InputError, match="layer alerts lacks number"):
        review(tmp_path / "changes_map.tif", pick="alerts", page=QUIET)
    whole = geopandas.read_file(watched / "changes.gpkg", layer="alerts")
    wrong = {
        "is there twice": whole.iloc[[0, 0]],
        "number 1.5": whole.assign(number=1.5),
        "number 0": whole.assign(number=0),
        "number 1152921504606846976": whole.assign(number=1 << 60),
        "status gone": whole.assign(status="gone"),
        "a Point": whole.set_geometry(whole.geometry.centroid),
    }
    for words, table in wrong.items():
        (tmp_path / "changes.gpkg").unlink()
        table.to_file(tmp_path / "changes.gpkg", layer="alerts")
        with pytest.raises(InputError, match=f"{words}.*remove it, and `changes --update` writes it anew"):
            review(tmp_path / "changes_map.tif", pick="alerts", page=QUIET)
    assert not list(tmp_path.glob("*review*"))


def test_answers_are_of_one_beginning(early, scenes, mask, tmp_path):
    out = tmp_path / "again"
    shutil.copytree(early, out, ignore=shutil.ignore_patterns("*review*"))
    review(out / "changes_map.tif", pick="alerts", page=QUIET)
    changes(files(scenes, TOLD), out=out, since=SINCE, buffer=1, land=Land(mask, (10,)), overwrite=True)
    with pytest.raises(InputError, match="answers about another watch"):
        review(out / "changes_map.tif", pick="alerts", page=QUIET)


def test_alerts_that_were_removed_are_written_anew(early, scenes, tmp_path):
    out = tmp_path / "again"
    shutil.copytree(early, out)
    (out / "changes.gpkg").unlink()
    changes([str(scenes / f"s_{DAYS[0]:%Y%m%d}.tif")], out=out, update=True)
    before, after = (geopandas.read_file(folder / "changes.gpkg", layer="alerts") for folder in (early, out))
    assert after.number.tolist() == before.number.tolist() and after.geometry.equals(before.geometry)


def test_what_a_mask_does_not_show_is_not_watched(scenes, mask):
    with rasterio.open(files(scenes, DAYS[0])[0]) as source:
        geobox = grid(source)
    beyond = geobox.translate_pix(0, -20)
    wanted = Land(mask, (0, 30)).on(beyond, np.s_[0:40, 0:36])
    assert not wanted[:20].any() and wanted[20:24].all() and not wanted[24:, :28].any() and wanted[24:, 28:].all()


def test_masks_that_are_none_are_refused(scenes, mask, tmp_path):
    far = tmp_path / "far.tif"
    with rasterio.open(mask) as source:
        profile, codes = source.profile | {"transform": from_origin(0, 0, 60, 60)}, source.read()
    with rasterio.open(far, "w", **profile) as target:
        target.write(codes)
    wrong = {
        "--mask names it": Land(None, (10,)),
        "shows nothing of the place": Land(far),
        "wanted codes below 16,777,216": Land(mask, (1 << 24,)),
        "wanted one band of integers": Land(files(scenes, DAYS[0])[0]),
    }
    for words, land in wrong.items():
        with pytest.raises(InputError, match=words):
            changes([str(scenes)], out=tmp_path / "out", since=SINCE, buffer=1, land=land)
    assert not (tmp_path / "out" / "changes_map.tif").exists()
