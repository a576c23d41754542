"""A small place watched through five years: what is found, what updates change, what is refused."""

from __future__ import annotations

import datetime
import json
import shutil

import geopandas
import numpy as np
import pystac
import pytest
import rasterio

from models.errors import InputError
from pipelines.changes import pixels, work
from pipelines.changes.changes import changes
from pipelines.changes.state import load
from pipelines.mosaics.ground import Ground
from pipelines.outputs.categories import read_categories
from pipelines.review.beside import open_map
from tests.pipelines.changes.test_weather import store
from tests.runs import write

SHAPE = 40, 36
FIRST = datetime.date(2020, 1, 3)
SINCE = "2023-01-01"
DAYS = [FIRST + datetime.timedelta(days=24 * n) for n in range(61)]  # to the end of 2023
CLEARED = np.s_[10:15, 20:25]
DAY = datetime.date(2023, 5, 1)
BANDS = ("RED", "NIR_NARROW", "SWIR_2", "FMASK")


def scene(day, rng, *, clouds=True):
    """Wood on the left, grass on the right; a square of the wood is cleared on `DAY`."""
    angle = 2 * np.pi * day.timetuple().tm_yday / 365.25
    grass = np.arange(SHAPE[1])[None] >= 28
    leaves = np.where(grass, 0.5 - 0.3 * np.cos(angle), 0.9) * np.ones(SHAPE)
    if day >= DAY:
        leaves[CLEARED] = 0.3
    light = rng.normal(1, 0.03)
    bands = [1500 - 1200 * leaves, 1800 + 1800 * leaves, 2000 - 1200 * leaves]
    bands = [(band * light + rng.normal(0, 40, SHAPE)).clip(1) for band in bands]
    cloud = np.zeros(SHAPE)
    top = int(rng.integers(0, 60))
    cloud[top : top + 12] = 2 * clouds  # of Fmask: bit 1
    return np.stack([*(np.where(cloud, 6000, band) for band in bands), cloud]).astype(np.int16)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("series"), np.random.default_rng(4)
    for day in DAYS:
        tags = {"ACQUISITION_DATE": day.isoformat()}
        write(folder / f"s_{day:%Y%m%d}.tif", scene(day, rng), names=BANDS, tags=tags, nodata=-9999)
    return folder


def files(folder, last):
    """Scenes up to a day."""
    return [str(folder / f"s_{day:%Y%m%d}.tif") for day in DAYS if day <= last]


@pytest.fixture(scope="module")
def whole(scenes, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    return out, changes([str(scenes)], out=out, since=SINCE, buffer=1)


@pytest.fixture(scope="module")
def updated(scenes, tmp_path_factory):
    """The same in three steps, and what each told."""
    out = tmp_path_factory.mktemp("updated")
    told = [changes(files(scenes, datetime.date(2023, 1, 20)), out=out, since=SINCE, buffer=1)]
    for last in (datetime.date(2023, 7, 15), DAYS[-1]):
        told.append(changes(files(scenes, last), out=out, update=True))
    return out, told


def read(path):
    with rasterio.open(path) as dataset:
        return dataset.read()


def alerts(out):
    return geopandas.read_file(out / "changes.gpkg", layer="alerts")


def test_what_was_cleared_is_found_where_and_when(whole):
    out, told = whole
    codes = read(out / "changes_map.tif")[0]
    assert (codes[CLEARED] == 2).all() and (codes == 2).sum() < 25 + 30
    bands = dict(zip(("changed", "before", "told", "ndvi", "nbr", "p", "code"), read(out / "changes.tif"), strict=True))
    day = (DAY - datetime.date(1970, 1, 1)).days
    assert (bands["before"][CLEARED] < day).all() and (bands["changed"][CLEARED] <= day + 72).all()
    assert (bands["changed"][CLEARED] >= day).mean() > 0.8  # else the noise of the date before leans the same way
    assert (bands["told"] >= bands["changed"])[codes == 2].all()
    assert bands["ndvi"][CLEARED].mean() < -0.3 and (bands["p"][CLEARED] >= 0.99).all()
    assert np.isnan(bands["changed"][codes == 1]).all()
    assert told["dates"] == {"history": 46, "watched": 15, "new": 15} and not told["kinds"]


@pytest.mark.parametrize("way", ["whole", "updated"])
def test_the_largest_alert_is_shown_before_and_after_and_from_day_to_day(request, way):
    """Of what an update found, the days that it does not read again are missing."""
    out, _ = request.getfixturevalue(way)
    largest = alerts(out).sort_values("hectares").iloc[-1]
    shown = load(out / ".earthtune" / "changes" / "shown.npz")
    parts = {key.partition("/")[2]: array for key, array in shown.items() if key.startswith(largest["name"])}
    dates, fell = parts["days"].astype("datetime64[D]").astype(str), largest["last"]
    assert parts["here"].sum() == largest.pixels
    assert len(dates) > 30 if way == "whole" else 5 < len(dates) < 15
    assert (parts["values"][dates > fell] < 0.4).all() and (parts["values"][dates < DAY.isoformat()] > 0.6).all()
    before, after = (parts[name][parts["here"]] for name in ("before", "after"))
    assert np.nanmean(before) > 0.6 and np.nanmean(after) < 0.4
    assert (out / "changes_alerts.png").stat().st_size > 10_000
    assert "alerts_picture" in json.loads((out / "changes.json").read_text())["assets"]


def test_report_tells_all_alerts_that_stand(updated):
    out, _ = updated
    page = (out / "changes.html").read_text()
    table = alerts(out)
    stand = table.status.isin(["new", "stands"])
    for _, alert in table.iterrows():
        row = f'<th scope="row">{alert["name"]}</th>'
        assert (row in page) == (alert.status in ("new", "stands"))
    assert f"{table.hectares[stand].sum():.4g} ha in all" in page and page.count("data:image/png") == 3
    assert "46 dates" in page and '="http' not in page and "<script" not in page


def test_alert_has_its_area_days_and_reason(whole):
    out, _ = whole
    table = alerts(out)
    largest = table.loc[table.hectares.idxmax()]
    assert largest.hectares == pytest.approx(25 * 0.09, rel=0.1)  # 30 m pixels; UTM stretches a little
    assert largest.geometry.area == largest.pixels * 900 and largest.pixels >= 25
    assert largest.reason.startswith("local: NDVI fell by") and "its kind did not change" in largest.reason
    assert largest.before < largest.changed <= largest["last"] and largest["last"] >= DAY.isoformat()
    assert largest["name"].startswith(largest.changed.replace("-", ""))


def test_map_is_one_that_review_takes_and_item_is_valid(whole):
    out, _ = whole
    mapped = open_map(out / "changes_map.tif")
    assert [entry.code for entry in mapped.classes] == [1, 2, 3] and "confidence" in mapped.files
    assert [entry.name for entry in read_categories(out / "changes_map.tif")][1] == "changed by itself"
    item = pystac.Item.from_dict(json.loads((out / "changes.json").read_text()))
    assert set(item.assets) == {"changes", "map", "confidence", "alerts", "picture", "alerts_picture"}
    assert all((out / asset.href).is_file() for asset in item.assets.values())


def test_updates_find_what_one_call_finds(whole, updated):
    for name in ("changes_map.tif", "changes.tif"):
        once, steps = (read(out / name) for out in (whole[0], updated[0]))
        assert (np.nan_to_num(once) == np.nan_to_num(steps)).mean() > 0.99  # a rate is lowered where dates are known
        np.testing.assert_array_equal(once[:, *CLEARED], steps[:, *CLEARED])


def test_an_update_reads_no_old_scene(scenes, updated, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(updated[0], out)
    before = alerts(out)
    new = DAYS[-1] + datetime.timedelta(days=9)
    tags = {"ACQUISITION_DATE": new.isoformat()}
    bands = scene(new, np.random.default_rng(9))
    path = write(tmp_path / "new.tif", bands, names=BANDS, tags=tags, nodata=-9999)
    told = changes([str(path)], out=out, update=True)  # the others are not even named
    assert told["dates"]["new"] == 1
    after = alerts(out).set_index("name")
    square = before.loc[before.hectares.idxmax(), "name"]
    assert after.loc[square].status == "stands" and after.loc[square].pixels >= 25


def test_alerts_keep_their_names(updated):
    out, told = updated
    assert told[0]["alerts"] == {} or "stands" not in told[0]["alerts"]
    table = alerts(out)
    assert table.name.is_unique
    assert (table.status == "stands").any()


def test_weather_before_an_alert_is_told_also_later(scenes, updated, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(updated[0], out)
    before = alerts(out)
    told = changes([str(scenes)], out=out, update=True, weather=[str(store(tmp_path / "w.nc"))])
    after = alerts(out)
    assert told["dates"]["new"] == 0 and list(after.status) == list(before.status)
    summer = after[after.changed >= "2023-03-01"]
    assert len(summer) and summer.weather.str.startswith("dry: ").all()


def test_what_is_usual_again_is_taken_back(scenes, updated, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(updated[0], out)
    rng, paths = np.random.default_rng(5), []
    for n in range(1, 9):
        day = DAYS[-1] + datetime.timedelta(days=18 * n)
        bands = scene(day.replace(year=2021), rng, clouds=False)  # as if nothing had been cleared
        path = write(tmp_path / f"back_{n}.tif", bands, names=BANDS, tags={"ACQUISITION_DATE": day.isoformat()})
        paths.append(str(path))
    before = alerts(out)
    square = before.loc[before.hectares.idxmax(), "name"]
    changes(paths, out=out, update=True)
    after = alerts(out).set_index("name")
    assert (read(out / "changes_map.tif")[0][CLEARED] == 2).sum() <= 2  # a pixel of small noise waits for more dates
    assert after.loc[square].status == "taken back" or after.loc[square].pixels <= 2
    over = after[after.status == "taken back"]
    assert len(over) and (over.ended > SINCE).all() and over.geometry.is_valid.all()


def test_what_was_killed_goes_on(scenes, whole, tmp_path, monkeypatch):
    real, calls = pixels.save, []

    def dies(path, arrays):
        calls.append(path)
        if len(calls) == 4:
            raise KeyboardInterrupt
        real(path, arrays)

    monkeypatch.setattr(work, "strip_rows", lambda *_: 16)
    monkeypatch.setattr(pixels, "save", dies)
    with pytest.raises(KeyboardInterrupt):
        changes([str(scenes)], out=tmp_path, since=SINCE, buffer=1)
    assert not (tmp_path / "changes.tif").exists()
    monkeypatch.setattr(pixels, "save", real)
    fitted = []
    monkeypatch.setattr(pixels, "read_history", lambda *a, f=pixels.read_history: fitted.append(a[2]) or f(*a))
    changes([str(scenes)], out=tmp_path, since=SINCE, buffer=1)
    assert [window[0].start for window in fitted] == [16, 32]  # the first strip was there
    np.testing.assert_array_equal(read(tmp_path / "changes.tif"), read(whole[0] / "changes.tif"))


def test_an_update_that_was_killed_leaves_the_maps_before(scenes, updated, tmp_path, monkeypatch):
    out = tmp_path / "out"
    first = datetime.date(2023, 7, 15)
    changes(files(scenes, first), out=out, since=SINCE, buffer=1)
    before = read(out / "changes.tif")

    def dies(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(work, "write_maps", dies)
        changes(files(scenes, DAYS[-1]), out=out, update=True)
    np.testing.assert_array_equal(read(out / "changes.tif"), before)
    told = changes(files(scenes, DAYS[-1]), out=out, update=True)
    assert told["dates"]["new"] == 0 and told["dates"]["watched"] == 15
    assert (read(out / "changes_map.tif")[0][CLEARED] == 2).all()


def test_the_same_again_makes_nothing_and_other_words_are_refused(scenes, whole):
    out, told = whole
    stamp = (out / "changes.tif").stat().st_mtime_ns
    again = changes([str(scenes)], out=out, since=SINCE, buffer=1)
    assert again["dates"]["new"] == 0 and again["alerts"] == told["alerts"]
    assert (out / "changes.tif").stat().st_mtime_ns == stamp
    with pytest.raises(InputError, match="holds what was watched otherwise"):
        changes([str(scenes)], out=out, since=SINCE, buffer=2)


def test_outside_of_the_area_nothing_is_watched(scenes, tmp_path):
    import shapely

    box = shapely.box(500000 + 15 * 30, 5000000 - 30 * 30, 500000 + 36 * 30, 5000000)
    geopandas.GeoDataFrame(geometry=[box], crs="EPSG:32632").to_file(tmp_path / "aoi.geojson")
    out = tmp_path / "out"
    changes([str(scenes)], out=out, since=SINCE, buffer=1, least=1.0, ground=Ground(aoi=tmp_path / "aoi.geojson"))
    with rasterio.open(out / "changes_map.tif") as dataset:
        codes = dataset.read(1)
        assert (dataset.bounds.left, dataset.bounds.top) == (500450, 5000000)
    assert codes.shape == (30, 21) and (codes > 0).all() and (codes[10:15, 5:10] == 2).all()
    assert (alerts(out).hectares >= 1).all() and len(alerts(out)) == 1


@pytest.mark.parametrize(
    ("told", "how"),
    [
        ("from which day on", {}),
        ("spans 1.0 years", {"since": "2021-01-01"}),
        ("wanted two days", {"since": SINCE, "history": "2020"}),
        ("reaches into what is watched", {"since": SINCE, "history": "2020-01-01/2023-02-01"}),
        ("wanted a day", {"since": "soon"}),
        ("each once", {"since": SINCE, "watch": ("NDVI", "NDVI")}),
        ("wanted 0.001 to 0.2", {"since": SINCE, "rate": 0.5}),
        ("nothing is watched there yet", {"update": True}),
        ("leave --since", {"update": True, "since": SINCE}),
        ("hectares, 0 or more", {"since": SINCE, "least": float("nan")}),
    ],
)
def test_refusals_say_what_to_do(told, how, scenes, tmp_path):
    with pytest.raises(InputError, match=told):
        changes([str(scenes)], out=tmp_path, **how)
    assert not (tmp_path / "changes.tif").exists()


def test_a_file_of_others_is_not_replaced(scenes, tmp_path):
    (tmp_path / "changes.gpkg").write_text("mine")
    with pytest.raises(InputError, match=r"changes.gpkg: exists already"):
        changes([str(scenes)], out=tmp_path, since=SINCE)
    assert (tmp_path / "changes.gpkg").read_text() == "mine"


def test_a_state_that_is_damaged_or_strange_is_refused(updated, scenes, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(updated[0], out)
    state = out / ".earthtune" / "changes"
    ground = next((state / "ground").glob("*.npz"))
    ground.write_bytes(ground.read_bytes()[:5000])
    page = json.loads((state / "state.json").read_text())
    page["mapped"] = -1
    (state / "state.json").write_text(json.dumps(page))
    with pytest.raises(InputError, match=r"000000.npz: cannot be read"):
        changes([str(scenes)], out=out, update=True)
    (state / "state.json").write_text(json.dumps({**page, "shape": [10, 10**9]}))
    with pytest.raises(InputError):
        changes([str(scenes)], out=out, update=True)
    (state / "state.json").write_text("[]")
    with pytest.raises(InputError, match="overwrite"):
        changes([str(scenes)], out=out, update=True)
