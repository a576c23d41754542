"""Frames of a model of several dates, chosen from what is there of a place."""

from __future__ import annotations

import datetime
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio

from models.bundle import Bundle, write_bundle
from models.errors import InputError
from models.training.settings import Architecture
from pipelines.commands.score import score
from pipelines.inspection.inspect import inspect
from pipelines.scenes.periods import GapError, find_places, frames_by, read_periods, sources_in
from pipelines.scenes.scene import open_scene
from tests.runs import write

BANDS = ("BLUE", "RED", "NIR_NARROW")
DAYS = ("2021-03-02", "2021-03-20", "2021-06-10", "2021-09-05", "2022-03-04")


def dated(folder, days=DAYS, *, holes=(), side=40):
    """A scene for each day whose values tell it; those of `holes` have no data in their upper half."""
    folder.mkdir(parents=True, exist_ok=True)
    for day in days:
        values = np.full((3, side, side), 500 + DAYS.index(day) * 100, np.int16)
        values += np.random.default_rng(DAYS.index(day)).integers(0, 50, values.shape).astype(np.int16)
        if day in holes:
            values[:, : side // 2] = -9999
        write(folder / f"{day}.tif", values, names=BANDS, nodata=-9999, tags={"ACQUISITION_DATE": day})
    return folder


def chosen(folder, *texts):
    periods = read_periods(texts)
    return frames_by(periods, open_scene(sources_in(folder, periods), BANDS))


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("2021-03", "2021-03-31", "2022-03-01"),
        ("2021-03-10/2021-04-02", "2021-04-02", "2021-04-03"),
        ("06", "1999-06-30", "1999-07-01"),
        ("06/08", "2021-08-31", "2021-09-01"),
        ("11/02", "2021-01-15", "2021-03-01"),
        ("11/02", "2021-11-01", "2021-10-31"),
    ],
)
def test_a_period_holds_its_days(text, inside, outside):
    (period,) = read_periods([text])
    assert period.holds(datetime.date.fromisoformat(inside)) and not period.holds(datetime.date.fromisoformat(outside))


@pytest.mark.parametrize("text", ["13", "2021-13", "spring", "3", "2021-05/2021-03"])
def test_what_is_no_period_is_refused(text):
    with pytest.raises(InputError, match="--periods"):
        read_periods([text])


def test_the_clearest_date_of_each_period_is_taken_and_told(tmp_path):
    scene = chosen(dated(tmp_path / "a", holes=("2021-03-02",)), "2021-03", "2021-06/2021-08")
    assert [str(day) for day in scene.dates] == ["2021-03-20", "2021-06-10"]
    assert "frames are 2021-03-20 (2021-03-20), 2021-06-10 (2021-06-10)" in scene.notes
    other = chosen(dated(tmp_path / "b", holes=("2021-03-20",)), "2021-03", "06/08")
    assert [str(day) for day in other.dates] == ["2021-03-02", "2021-06-10"]
    x, valid = other.read(other.window)
    assert valid.all() and 500 <= x[0, 0].min() < 550 and 700 <= x[0, 1].min() < 750


def test_gaps_years_and_order_are_told(tmp_path):
    place = dated(tmp_path / "place")
    with pytest.raises(GapError, match="no date in 2021-07; its dates are 2021-03-02, 2021-03-20"):
        chosen(place, "2021-03", "2021-07")
    with pytest.raises(GapError, match="no date in 2023; its dates are 2021-03-02"):
        chosen(place, "2023")
    with pytest.raises(InputError, match="has 03 of 2021 to 2022; say which year with --periods, such as 2022-03"):
        chosen(place, "03", "06")
    with pytest.raises(InputError, match="frames of 2021-06-10, 2021-03-02; give periods in the order of time"):
        chosen(place, "2021-06", "2021-03")
    void = np.full((3, 40, 40), -9999, np.int16)
    write(place / "2021-07-01.tif", void, names=BANDS, nodata=-9999, tags={"ACQUISITION_DATE": "2021-07-01"})
    with pytest.raises(GapError, match="no data in 2021-07, at 1 date;"):
        chosen(place, "2021-06", "2021-07")


@pytest.mark.parametrize(
    ("texts", "missing", "day"),
    [
        (("2021-03", "2021-07", "2021-09"), "2021-07", "2021-07-16"),
        (("01", "2021-06", "2021-09"), "01", "2021-01-15"),
        (("2021-06", "2021-09", "11/02"), "11/02", "2021-12-15"),
        (("11/02", "2021-03", "2021-06"), "11/02", "2020-12-15"),
    ],
)
def test_a_frame_without_a_date_holds_one_value_and_the_middle_of_its_period(tmp_path, texts, missing, day):
    place, mean = dated(tmp_path / "place"), (100.0, 200.0, 300.0)
    periods = read_periods(texts)
    every = open_scene(sources_in(place, periods), BANDS)
    scene = frames_by(periods, every, absent=mean, most=1)
    gap = texts.index(missing)
    assert scene.missing == (missing,) and scene.frames == 3 and len(scene.dates) == len(scene.sources) == 2
    assert f"1 of 3 frames missing: no date in {missing}" in scene.notes
    x, valid = scene.read((slice(2, 9), slice(0, 5)))
    assert valid.all() and (x[:, gap] == np.reshape(mean, (3, 1, 1))).all()
    others = frames_by([period for period in periods if period.text != missing], every)
    np.testing.assert_array_equal(np.delete(x, gap, axis=1), others.read((slice(2, 9), slice(0, 5)))[0])
    at = datetime.date.fromisoformat(day)
    assert tuple(scene.time()[gap]) == (at.year, at.timetuple().tm_yday - 1)
    with pytest.raises(GapError, match=r"no date in 2019; no date in .* \(trained to do without 1"):
        frames_by([*read_periods(["2019"]), *periods], every, absent=mean, most=1)


def test_a_winter_is_one_year(tmp_path):
    days = ("2021-11-05", "2022-01-20", "2022-02-03")
    for day in days:
        values = np.full((3, 40, 40), 700, np.int16) + np.arange(40, dtype=np.int16)
        write(tmp_path / f"{day}.tif", values, names=BANDS, nodata=-9999, tags={"ACQUISITION_DATE": day})
    assert str(chosen(tmp_path, "11/02").dates[0]) == days[0]


def test_places_are_folders_of_scenes_however_deep(tmp_path):
    one, two = dated(tmp_path / "all" / "one", DAYS[:1]), dated(tmp_path / "all" / "deep" / "two", DAYS[:2])
    assert find_places([str(tmp_path / "all")]) == [str(two), str(one)]
    assert find_places([str(tmp_path / "all" / "o*"), str(one)]) == [str(one)]
    assert find_places(["a.tif,b.tif"]) == ["a.tif,b.tif"]
    with pytest.raises(InputError, match="no file matches"):
        find_places([str(tmp_path / "none*")])


def test_score_takes_places_and_cubes_by_periods_as_files_one_by_one(exported, tmp_path):
    run = exported["segmentation"][1]
    for name in ("one", "two"):
        dated(tmp_path / "places" / name, holes=("2021-03-02",))
    pair = [str(tmp_path / "places" / "one" / f"{day}.tif") for day in ("2021-03-20", "2021-06-10")]
    said = list[str]()
    periods = ["2021-03", "06/08"]
    made = score(run, [str(tmp_path / "places")], out=tmp_path / "maps", periods=periods, say=said.append)
    assert [(one["status"], one["map"].rpartition("/")[2]) for one in made] == [
        ("done", "one_map.tif"),
        ("done", "two_map.tif"),
    ]
    assert "one: frames are 2021-03-20 (2021-03-20), 2021-06-10 (2021-06-10)" in said
    (plain,) = score(run, [",".join(pair)], out=tmp_path / "plain")
    with rasterio.open(made[0]["map"]) as one, rasterio.open(plain["map"]) as two:
        np.testing.assert_array_equal(one.read(), two.read())
        assert one.tags()["ACQUISITION_DATE"] == two.tags()["ACQUISITION_DATE"] == "2021-03-20,2021-06-10"
    with pytest.raises(InputError, match="--periods 2021-03: 1 periods; this run wants 2"):
        score(run, [str(tmp_path / "places")], out=tmp_path / "other", periods=["2021-03"])
    (gap, _) = score(run, [str(tmp_path / "places")], out=tmp_path / "other", periods=["2021-03", "2021-07"])
    assert gap["status"] == "failed" and "no date in 2021-07" in gap["error"] and gap["exit_code"] == 2


def test_score_goes_on_without_a_date_where_the_run_learned_to_and_tells_so(exported, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(exported["segmentation"][1], run)
    bundle = json.loads((run / "bundle.json").read_text())
    bundle["data"]["missing_frames"] = 1
    (run / "bundle.json").write_text(json.dumps(bundle))
    dated(tmp_path / "places" / "one"), dated(tmp_path / "places" / "two", DAYS[:2])
    how = {"out": tmp_path / "maps", "periods": ["2021-03", "06/08"]}
    one, two = score(run, [str(tmp_path / "places")], **how)
    assert one["status"] == two["status"] == "done" and "missing_frames" not in one
    assert two["missing_frames"] == ["06/08"] and "1 of 2 frames missing: no date in 06/08" in two["notes"]
    assert "1 of 2 frames missing: 06/08." in json.loads(Path(two["item"]).read_text())["properties"]["description"]
    with rasterio.open(two["map"]) as map_:
        assert map_.tags()["EARTHTUNE_MISSING_FRAMES"] == "06/08"
        assert map_.tags()["ACQUISITION_DATE"] in DAYS[:2] and map_.read_masks(1).all()
    again = score(run, [str(tmp_path / "places" / "two")], **how | {"periods": ["06/08", "2022-03"]})
    assert again[0]["status"] == "failed" and "no date in 06/08, 2022-03" in again[0]["error"]


def test_inspect_tells_whether_places_have_the_periods_of_a_run(make_spec, tmp_path):
    dated(tmp_path / "places" / "one"), dated(tmp_path / "places" / "two", DAYS[:2])
    run = tmp_path / "run"
    run.mkdir()
    data = {"periods": ["2021-03", "06/08"]}
    write_bundle(run, Bundle(make_spec(frames=2), "prithvi_eo_v2_300_tl", Architecture(), data=data))
    one, two = inspect(tmp_path / "places", for_run=run).needs
    assert one.ok and one.need == "one" and "frames are 2021-03-0" in one.reason
    assert not two.ok and "no date in 06/08" in two.reason
