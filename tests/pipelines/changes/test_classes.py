"""Which class a place had before it changed, and which it has: by a run, in the same season and on the last days."""

import datetime

import geopandas
import numpy as np
import pytest
import rasterio

from models.bundle import Bundle, write_bundle
from models.errors import InputError
from models.training.settings import Architecture
from pipelines.changes.changes import changes
from pipelines.changes.classes import check_run, days_of
from pipelines.changes.series import Day
from tests.runs import SPECTRA, make_series

BLOCK = np.s_[:, 4:14, 4:14]


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    """A series of two areas, in which a block becomes water in autumn 2022."""
    folder = make_series(tmp_path_factory.mktemp("lake"), days=28)
    for file in folder.glob("*.tif"):
        if file.stem >= "20220901":
            with rasterio.open(file, "r+") as scene:
                bands = scene.read()
                noise = np.random.default_rng(int(file.stem)).normal(0, 30, (6, 10, 10))
                bands[:6][BLOCK] = (SPECTRA[2][:, None, None] + noise).clip(1)
                scene.write(bands)
    return folder


def test_a_run_tells_what_it_was_and_what_it_is(lake, run, tmp_path):
    told = changes([str(lake)], out=tmp_path / "out", since="2022-06-01", run=run)
    table = geopandas.read_file(tmp_path / "out" / "changes.gpkg", layer="alerts")
    largest = table.loc[table.hectares.idxmax()]
    with rasterio.open(told["files"]["class_before"]) as before, rasterio.open(told["files"]["map"]) as grid:
        assert before.transform == grid.transform and before.shape == grid.shape
        codes = before.read(1)[BLOCK[1:]]
    names = {10: "tree", 30: "grass", 80: "water"}
    most = int(np.bincount(codes.ravel()).argmax())
    assert (largest.class_before, largest.class_after) == (names[most], "water") and most != 80
    changes([str(lake)], out=tmp_path / "out", update=True, run=run)  # nothing is new: the maps are those of before
    again = geopandas.read_file(tmp_path / "out" / "changes.gpkg", layer="alerts")
    assert list(again.class_before) == list(table.class_before)
    assert not list((tmp_path / "out").glob(".changes.*"))


def test_days_before_are_of_the_season_of_the_last(lake):
    days = [Day(datetime.date(2020, 1, 1) + datetime.timedelta(days=30 * n), ()) for n in range(40)]  # to March 2023
    before, after = days_of(days, "2022-06-01")
    assert [day.date.isoformat() for day in after] == [d.date.isoformat() for d in days[-5:]]
    assert {day.date.month for day in before} <= {1, 2, 3, 4, 5} and all(day.date.year == 2022 for day in before)
    assert days_of(days[-2:], "2022-06-01") == ([], days[-2:])


def test_a_run_of_two_dates_is_refused_first(make_spec, tmp_path):
    write_bundle(tmp_path, Bundle(make_spec(frames=2), "prithvi_eo_v2_300_tl", Architecture()))
    with pytest.raises(InputError, match="takes 2 dates at once"):
        check_run(tmp_path)


def test_a_run_without_classes_is_refused_first(value_run, tmp_path):
    with pytest.raises(InputError, match="--run .*wanted a run that tells a class of each pixel"):
        changes([str(tmp_path)], out=tmp_path / "out", since="2022-06-01", run=value_run)
    assert not (tmp_path / "out").exists()
