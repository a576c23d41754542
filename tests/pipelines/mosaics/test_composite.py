"""Pictures of months beside numpy's median over whole arrays."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pystac
import pytest
import rasterio
import xarray as xr
from scipy.ndimage import binary_dilation

from models.errors import EarthtuneError, InputError
from pipelines.mosaics import composite as module
from pipelines.mosaics.composite import composite
from pipelines.mosaics.ground import Ground
from pipelines.scenes.reading import Reading
from pipelines.scenes.scene import open_scene
from tests.pipelines.scenes.test_variables import write_cube
from tests.runs import write

BANDS = ("RED", "NIR_NARROW")
SHAPE = 150, 140  # more than one square that is held at once
CLOUD, NONE = 2, 255  # of Fmask: bit 1 is cloud
CORNER = 500000, 5000000
DAYS = ("2023-12-30", "2024-01-03", "2024-01-10", "2024-01-20", "2024-03-05")


def far(mask, buffer):
    """Pixels within `buffer` of a mask, by a disk."""
    rows, cols = np.mgrid[-buffer : buffer + 1, -buffer : buffer + 1]
    return binary_dilation(mask, rows**2 + cols**2 <= buffer**2) if buffer else mask


@pytest.fixture(scope="module")
def season(tmp_path_factory):
    """Scenes of five days; and what each shows, NaN in its cloud."""
    folder, rng, told = tmp_path_factory.mktemp("scenes"), np.random.default_rng(0), {}
    for number, day in enumerate(DAYS):
        x = rng.integers(100, 4000, (2, *SHAPE)).astype(np.int16)
        cloud = np.zeros(SHAPE, bool)
        cloud[20 * number : 20 * number + 40, 10 : 60 + 10 * number] = True
        bands = np.concatenate((x, np.where(cloud, CLOUD, 0)[None].astype(np.int16)))
        write(folder / f"s_{day}.tif", bands, names=(*BANDS, "FMASK"), tags={"ACQUISITION_DATE": day}, nodata=-9999)
        told[day] = np.where(cloud, np.nan, x.astype(float)), cloud
    return folder, told


def make(folder, out, **how):
    how = {"channels": BANDS, "buffer": 2} | how
    results = composite([str(folder)] if isinstance(folder, Path) else folder, out=out, **how)
    return {result["period"]: result for result in results}


def read(path):
    with rasterio.open(path) as dataset:
        return dataset.read()


def stack(told, days, buffer=2):
    return np.stack([np.where(far(told[day][1], buffer), np.nan, told[day][0]) for day in days])


@pytest.mark.filterwarnings("ignore:All-NaN slice")
def test_months_are_medians_of_what_is_clear(season, tmp_path):
    folder, told = season
    said = []
    made = make(folder, tmp_path / "months", say=said.append)
    assert [*made] == ["2023-12", "2024-01", "2024-03"] and any("2024-02: no scene" in line for line in said)
    x = stack(told, DAYS[1:4])
    got = read(made["2024-01"]["file"])
    known = np.isfinite(x[:, 0]).any(axis=0)
    np.testing.assert_array_equal(got[2], np.where(known, np.isfinite(x[:, 0]).sum(axis=0), -32768))
    np.testing.assert_allclose(got[:2][:, known], np.nanmedian(x, axis=0)[:, known], atol=0.51)
    assert (got[:2][:, ~known] == -32768).all() and made["2024-01"]["valid"] == pytest.approx(known.mean(), abs=1e-6)
    scene = open_scene(made["2024-01"]["file"], ["NIR_NARROW"])
    assert str(scene.dates[0]) == "2024-01-10"
    np.testing.assert_array_equal(scene.read(scene.window)[0][0, 0][known], got[1][known])
    item = pystac.Item.from_dict(json.loads(Path(made["2024-01"]["item"]).read_text()))
    assert item.properties["start_datetime"] == "2024-01-03T00:00:00Z" and item.properties["proj:code"] == "EPSG:32632"
    before = Path(made["2024-01"]["file"]).stat().st_ino
    assert {result["status"] for result in make(folder, tmp_path / "months").values()} == {"kept"}
    assert Path(made["2024-01"]["file"]).stat().st_ino == before
    with pytest.raises(EarthtuneError, match="exists already"):
        make(folder, tmp_path / "months", method="medoid")


def test_a_medoid_is_one_day_and_the_clearest_comes_first(season, tmp_path):
    folder, told = season
    x = stack(told, DAYS[1:4], 0)
    every = np.isfinite(x[:, 0]).all(axis=0)
    medoid = read(make(folder, tmp_path / "m", method="medoid", buffer=0)["2024-01"]["file"])
    away = ((x - np.median(x, axis=0)) ** 2).sum(axis=1)
    wanted = np.take_along_axis(x, away.argmin(axis=0)[None, None], axis=0)[0]
    np.testing.assert_array_equal(medoid[:2][:, every], wanted[:, every])
    clearest = read(make(folder, tmp_path / "c", method="clearest", buffer=0)["2024-01"]["file"])
    order = [0, 1, 2]  # clouds grow from day to day
    wanted = x[order[2]]
    for number in order[1::-1]:
        wanted = np.where(np.isfinite(x[number]), x[number], wanted)
    known = np.isfinite(wanted[0])
    np.testing.assert_array_equal(clearest[:2][:, known], wanted[:, known])


def test_edges_are_no_clouds(tmp_path):
    """A scene that ends within a grid, on it and beside it, loses nothing at its edges; a gap within it does."""
    x = np.full((1, 30, 30), 7, np.int16)
    x[:, 10:12, 10:12] = -9
    day = {"tags": {"ACQUISITION_DATE": "2024-01-05"}, "names": ("RED",), "nodata": -9}
    scene = write(tmp_path / "a.tif", x, corner=CORNER, **day)
    how = {"channels": ("RED",), "buffer": 3, "reading": Reading(mask_clouds=False)}
    for number, (corner, first) in enumerate((((500000 - 300, 5000300), 10), ((499990, 5000010), 0))):
        like = write(tmp_path / f"{number}.tif", np.zeros((1, 50, 50), np.uint8), corner=corner)
        got = read(make([str(scene)], tmp_path / f"o{number}", ground=Ground(grid=like), **how)["2024-01"]["file"])[1]
        gap = far(np.pad(x[0, 1:29, 1:29] < 0, 1), 3)
        part = got[first + 1 : first + 29, first + 1 : first + 29]
        if number == 0:
            np.testing.assert_array_equal(got[10:40, 10:40] == 1, ~gap)
        else:  # between the pixels, so that a row and a column at the edge are cut
            assert (part[-8:] == 1).all() and (part[:, -8:] == 1).all() and (part[9:11, 9:11] == -32768).all()


def test_seasons_years_and_all(season, tmp_path):
    folder, _ = season
    made = {by: make(folder, tmp_path / by, by=by) for by in ("season", "year", "all")}
    assert {by: {name: result["scenes"] for name, result in periods.items()} for by, periods in made.items()} == {
        "season": {"2024-DJF": 4, "2024-MAM": 1},
        "year": {"2023": 1, "2024": 4},
        "all": {"all": 5},
    }


def test_other_grids_other_zones_and_parts(season, tmp_path):
    """A scene of another grid and one of another zone lie where they are; one of elsewhere adds nothing."""
    rows, cols = np.mgrid[:80, :80]
    plane = (1000 + 10 * cols + 5 * rows)[None].astype(np.int16)
    scenes = tmp_path / "scenes"
    day = {"tags": {"ACQUISITION_DATE": "2024-01-05"}, "names": ("RED",), "nodata": -1}
    write(scenes / "a.tif", plane, corner=(CORNER[0] + 300, CORNER[1]), **day)
    fine = (1000 + 10 * (np.mgrid[:90, :90][1] + 0.5) / 3 - 5 + 5 * (np.mgrid[:90, :90][0] + 0.5) / 3 - 2.5)[None]
    write(scenes / "b.tif", fine.round().astype(np.int16), corner=(CORNER[0] + 300, CORNER[1]), size=10.0, **day)
    write(scenes / "c.tif", plane, corner=(100000, 100000), **day)
    like = write(tmp_path / "like.tif", np.zeros((1, 60, 100), np.uint8), corner=CORNER)
    how = {"channels": ("RED",), "buffer": 0, "reading": Reading(mask_clouds=False), "ground": Ground(grid=like)}
    got = read(make(scenes, tmp_path / "out", **how)["2024-01"]["file"])
    assert (got[:, :, :10] == -32768).all() and (got[1, :, 40:90] == 1).all() and (got[1, 1:29, 11:39] == 2).all()
    np.testing.assert_allclose(got[0, :, 10:90], plane[0, :60], atol=1)


def test_what_was_killed_goes_on(season, tmp_path, monkeypatch):
    folder, _ = season
    whole, joined, calls = make(folder, tmp_path / "whole"), module._joined, []

    def killed(*args):
        calls.append(args)
        if len(calls) == 6:  # in the second month
            raise KeyboardInterrupt
        return joined(*args)

    monkeypatch.setattr(module, "_joined", killed)
    with pytest.raises(KeyboardInterrupt):
        make(folder, tmp_path / "cut")
    assert [path.name for path in sorted((tmp_path / "cut").glob("[!.]*.tif"))] == ["2023-12.tif"]
    made = make(folder, tmp_path / "cut")
    assert [result["status"] for result in made.values()] == ["kept", "done", "done"]
    for period, result in made.items():
        assert Path(result["file"]).read_bytes() == Path(whole[period]["file"]).read_bytes()


def test_what_cannot_be_read_is_left_out_and_told(season, tmp_path):
    folder, _ = season
    undated = write(tmp_path / "undated.tif", np.ones((3, 9, 9), np.int16), names=(*BANDS, "FMASK"))
    covered = np.concatenate((np.ones((2, 9, 9)), np.full((1, 9, 9), CLOUD))).astype(np.int16)
    tags = {"ACQUISITION_DATE": "2024-07-01"}
    cloudy = write(tmp_path / "cloudy.tif", covered, names=(*BANDS, "FMASK"), tags=tags)
    unmasked = write(tmp_path / "unmasked.tif", np.ones((2, 9, 9), np.int16), names=BANDS, tags=tags)
    shares = write(tmp_path / "shares.tif", np.full((2, 9, 9), 0.2, np.float32), names=BANDS, tags=tags)
    said = []
    scenes = [str(folder / f"s_{DAYS[0]}.tif"), str(undated), str(unmasked), str(cloudy)]
    made = make(scenes, tmp_path / "out", say=said.append)
    assert made["2024-07"]["status"] == "empty" and not (tmp_path / "out" / "2024-07.tif").exists()
    assert "its date" in said[0] and "--mask_clouds false" in said[1]
    assert [path.name for path in (tmp_path / "out" / ".earthtune").glob("2024-07-*[!k]")] == []
    assert make(scenes, tmp_path / "out")["2024-07"]["status"] == "empty"
    with pytest.raises(EarthtuneError, match="0 rasters"):
        open_scene(tmp_path / "out" / ".earthtune", ["RED"])
    for match, given, how in (
        ("its date", [str(undated)], {}),
        ("wanted 0 to 100", [str(folder)], {"buffer": -1}),
        ("where the pictures go", [str(cloudy)], {"out": tmp_path}),
        ("--resample train", [str(folder)], {"reading": Reading(resample="train")}),
        ("--as_is", [str(shares)], {"reading": Reading(mask_clouds=False)}),
    ):
        with pytest.raises(EarthtuneError, match=match):
            make(given, how.pop("out", tmp_path / "refused"), **how)


def test_what_a_person_says_of_the_files_makes_another_picture(tmp_path):
    scene = write(tmp_path / "scene.tif", np.full((2, 9, 9), 2000, np.int16), names=BANDS, tags={})
    said = {"dates": ["2024-07-01"], "find_fill": True, "mask_clouds": False}
    assert make([str(scene)], tmp_path / "out", reading=Reading(**said))["2024-07"]["status"] == "done"
    assert make([str(scene)], tmp_path / "out", reading=Reading(**said))["2024-07"]["status"] == "kept"
    for other in ({"dates": ["2024-07-20"]}, {"find_fill": False}):
        with pytest.raises(EarthtuneError, match="exists already"):
            make([str(scene)], tmp_path / "out", reading=Reading(**(said | other)))


def test_the_dates_of_a_cube_are_scenes_and_empty_ones_are_told(tmp_path):
    days = ("2021-06-01", "2021-06-20", "2021-07-05", "2021-08-01")
    path = write_cube(tmp_path / "cube.nc", ("S2-B04", "S2-B8A"), days)
    with xr.open_dataset(path, engine=xr.backends.H5netcdfBackendEntrypoint, mask_and_scale=False) as held:
        cube = held.load()
    cube["S2-B04"].values[2] = cube["S2-B8A"].values[2] = -9999
    cube.to_netcdf(tmp_path / "holes.nc", engine="h5netcdf")
    made = make([str(tmp_path / "holes.nc")], tmp_path / "out", reading=Reading(mask_clouds=False))
    assert {month: one["status"] for month, one in made.items()} == {
        "2021-06": "done",
        "2021-07": "empty",
        "2021-08": "done",
    }
    june = read(made["2021-06"]["file"])
    # The cube's values are the date's number more than 1000 and 2000; the mean of two is half of it more.
    assert (
        (june[0, 1:, 1:] == pytest.approx(1000.5, abs=0.51))
        and (june[2, 1:, 1:] == 2).all()
        and june[0, 0, 0] == -32768
    )
    assert (read(made["2021-08"]["file"])[1, 1:, 1:] == 2003).all()


def test_files_of_one_place_with_other_bands_are_one_series(tmp_path):
    """Neither holds red and infrared; what is no part of it is told as it is by itself."""
    folder = tmp_path / "series"
    folder.mkdir()
    for name, bands in (("S2_10m.nc", ("B03", "B04")), ("S2_20m.nc", ("B8A", "CLM"))):
        write_cube(folder / name, bands, DAYS, **({"_FillValue": np.int16(-1)} if "CLM" in bands else {}))
    made = make(folder, tmp_path / "out", buffer=0)
    assert {month: one["status"] for month, one in made.items()} == dict.fromkeys(made, "empty")  # CLM hides all
    made = make(folder, tmp_path / "seen", buffer=0, reading=Reading(mask_clouds=False))
    assert list(made) == ["2023-12", "2024-01", "2024-03"] and made["2024-01"]["scenes"] == 3
    assert read(made["2024-03"]["file"])[:2, 4, 4].tolist() == [2004, 1004]
    with pytest.raises(InputError, match=r"S2_10m.nc: band NIR_NARROW is wanted, it has GREEN, RED"):
        make([str(folder / "S2_10m.nc")], tmp_path / "none")


def test_what_is_brighter_than_a_picture_can_tell_is_told(tmp_path, capsys):
    x = np.full((2, 40, 40), 3000, np.float32)
    x[0, 3, :5] = 40000  # of which a band is cut off in five pixels, and neither in the rest
    x[1, 3, :2] = 50000
    x[:, 9, 9] = 32766
    write(tmp_path / "s.tif", x, names=BANDS, tags={"ACQUISITION_DATE": "2024-01-03"})
    said = []
    how = {"reading": Reading(mask_clouds=False, as_is=True), "say": said.append}
    (made,) = make([str(tmp_path / "s.tif")], tmp_path / "out", **how).values()
    line = "2024-01: reflectance above 3.2767 is told as 3.2767 (5 pixels)"
    assert made["clipped"] == 5 and line in said
    item = json.loads(Path(made["item"]).read_text())
    assert "; of 5 pixels reflectance above 3.2767 is told as 3.2767" in item["properties"]["processing:lineage"]
    said.clear()
    (again,) = make([str(tmp_path / "s.tif")], tmp_path / "out", **how).values()
    assert (again["status"], again["clipped"]) == ("kept", 5) and line in said


def test_lines_are_no_ground_before_any_scene_is_opened(tmp_path):
    line = {"type": "LineString", "coordinates": [[9, 45], [9.1, 45.1]]}
    path = tmp_path / "lines.geojson"
    path.write_text(json.dumps({"type": "Feature", "properties": {}, "geometry": line}))
    with pytest.raises(InputError, match=r"--aoi .*lines.geojson: holds no polygons; give some with an area"):
        Ground(aoi=path).check()
