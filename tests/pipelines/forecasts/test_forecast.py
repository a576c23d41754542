"""MERRA-2 files in, forecast maps and scores out; networks are tiny and random, oracles are numpy and xarray."""

from __future__ import annotations

import dataclasses
import io
import json
from datetime import datetime
from pathlib import Path

import h5py
import numpy as np
import pytest
import rasterio
import torch
import xarray as xr
import yaml

from models.backbones.catalogue import WXC_REPO, WXC_VARIANTS
from models.backbones.prithvi_wxc import WxCForecaster
from models.backbones.rollout import rollout
from models.backbones.wxc_climatology import read_climatology
from models.backbones.wxc_files import WxCConfig
from models.backbones.wxc_inputs import LEVELS, STATIC, SURFACE, VERTICAL, make_batch
from models.errors import InputError, RunError
from pipelines.cli.main import main
from pipelines.forecasts.forecast import forecast
from pipelines.forecasts.verification import table
from pipelines.records.attempts import PAGE
from pipelines.reports.scores import area_rmse
from pipelines.weather.dataset import open_weather
from pipelines.weather.merra2 import UNITS, choose_channels, open_merra2, split_channel
from pipelines.weather.regions import Region, cell_areas, geobox
from tests.wxc_repo import PARAMS, checkpoint, climatology, network, scaler_files

REAL = Path(__file__).parents[4] / "shared" / "data" / "merra2_wxc"
real = pytest.mark.skipif(not REAL.is_dir(), reason=f"the real data is not at {REAL}")
LAT, LON = np.arange(40.0, 44.1, 0.5), np.arange(-100.0, -95.0, 0.625)  # 9 x 8, rows from south to north as in MERRA-2
TINY = "prithvi_wxc_tiny"


def hours(*at, day="2020-03-30"):
    return [np.datetime64(f"{day}T{hour:02}", "ns") for hour in at]


def value(name, level, time):
    """Fields whose value tells variable, level, hour and place; vertical variables are 1000 apart."""
    hour = float((time - np.datetime64("2020-03-30", "ns")) / np.timedelta64(1, "h"))
    place = np.sin(np.radians(LAT))[:, None] + np.cos(np.radians(3 * LON))[None, :]
    base = 10.0 * SURFACE.index(name) if level is None else 1000.0 * (1 + VERTICAL.index(name)) + level
    return base + place * (1 + 0.1 * hour)


def write_analyses(folder, times, *, levels=LEVELS[::-1], shift=0.0, tag="", drop=(), statics=True):
    """The two published extracts, of a day with these times; `shift` is added to all values."""
    coords = {"time": ("time", times), "lat": ("lat", LAT, {"units": "degrees_north"})}
    coords |= {"lon": ("lon", LON, {"units": "degrees_east"})}
    flat = {
        name: (("time", "lat", "lon"), np.stack([value(name, None, t) for t in times]) + shift, {"units": UNITS[name]})
        for name in SURFACE
        if name not in drop
    }
    rng = np.random.default_rng(0)
    fixed = {name: (("lat", "lon"), rng.uniform(0, 1, (len(LAT), len(LON)))) for name in STATIC} if statics else {}
    deep = {
        name: (
            ("time", "lev", "lat", "lon"),
            np.stack([[value(name, level, t) + shift for level in levels] for t in times]),
            {"units": UNITS[name]},
        )
        for name in VERTICAL
        if name not in drop
    }
    axis = {"lev": ("lev", np.array(levels, float), {"units": "layer", "positive": "down"})}
    paths = [folder / f"MERRA2_sfc{tag}.nc", folder / f"MERRA_pres{tag}.nc"]
    xr.Dataset({**flat, **fixed}, coords).astype("float32").to_netcdf(paths[0], engine="h5netcdf")
    xr.Dataset(deep, {**coords, **axis}).astype("float32").to_netcdf(paths[1], engine="h5netcdf")
    return paths


@pytest.fixture(scope="module")
def analyses(tmp_path_factory):
    return write_analyses(tmp_path_factory.mktemp("merra"), hours(0, 3, 6, 9, 12, 18))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A copy of a published repository: tiny weights, scalers, the climatology of two targets."""
    root = tmp_path_factory.mktemp("repo")
    (root / "climatology").mkdir()
    fields = PARAMS | {"encoder_shifting": False}
    (root / "config.yaml").write_text(yaml.safe_dump({"params": fields}))
    checkpoint(network(), root / "weights.pt")
    files = dict(scaler_files())
    for hour in (12, 18):
        files |= climatology(datetime(2020, 3, 30, hour), np.arange(35, 50, 0.5), np.arange(-110, -90, 0.625))
    for name, content in files.items():
        (root / name).write_bytes(content)
    return root


@pytest.fixture(scope="module")
def made(analyses, folder, tmp_path_factory):
    """A forecast of two steps by local weights, verified with the same files."""
    out = tmp_path_factory.mktemp("made") / "fc"
    result = forecast(
        "prithvi_wxc_2300m",
        analyses,
        out=out,
        steps=2,
        start="2020-03-30T06:00",
        variables=["T2M", "U_51", "PS"],
        weights=str(folder),
        verify=analyses,
    )
    return out, result


# ---------------------------------------------------------------- files


@pytest.mark.parametrize("levels", [LEVELS, LEVELS[::-1], tuple(range(30, 73))])
def test_fields_come_by_name_level_and_time_north_up(tmp_path, levels):
    paths = write_analyses(tmp_path, hours(0, 6), levels=levels)
    merra = open_merra2(paths, WxCConfig().channels)
    assert merra.times() == hours(0, 6)
    assert (merra.lat == LAT[::-1]).all() and (merra.lon == LON).all()
    batch = merra.batch(hours(0, 6), lead=6)
    wanted = [value(*split_channel(c), hours(6)[0])[::-1] for c in WxCConfig().channels]
    np.testing.assert_allclose(batch["x"][0, 1].numpy(), np.stack(wanted), rtol=1e-6)
    assert batch["x"].shape == (1, 2, 160, 9, 8) and batch["input_time"].item() == 6


def test_hourly_means_at_half_past_stand_for_the_full_hour(tmp_path):
    times = [t + np.timedelta64(30, "m") for t in hours(0, 1, 2)]
    coords = {"time": times, "lat": ("lat", LAT), "lon": ("lon", LON)}
    ramp = np.arange(3.0)[:, None, None] * np.ones((3, len(LAT), len(LON)))
    path = tmp_path / "tavg1.nc"
    xr.Dataset({"EFLUX": (("time", "lat", "lon"), ramp)}, coords).to_netcdf(path, engine="h5netcdf")
    merra = open_merra2([path], ["EFLUX"], static=())
    assert [t for t in merra.times() if t in hours(0, 1, 2, 3)] == hours(1, 2)
    assert merra.stack(hours(2)[0])[0] == pytest.approx(1.5)
    with pytest.raises(InputError, match=r"tavg1\.nc: EFLUX at 2020-03-30T03:00 is wanted, these files have 3 times"):
        merra.stack(hours(3)[0])


def test_constants_by_month_are_those_of_the_month(tmp_path):
    months = [np.datetime64(f"1980-{m:02}-15", "ns") for m in range(1, 13)]
    coords = {"time": months, "lat": ("lat", LAT), "lon": ("lon", LON)}
    ice = np.arange(1.0, 13)[:, None, None] * np.ones((12, len(LAT), len(LON)))
    xr.Dataset({"FRACI": (("time", "lat", "lon"), ice)}, coords).to_netcdf(tmp_path / "c.nc", engine="h5netcdf")
    paths = write_analyses(tmp_path, hours(0, 6), statics=False)
    merra = open_merra2([*paths, tmp_path / "c.nc"], ["T2M"], static=["FRACI"])
    assert (merra.static_fields(hours(6)[0])["FRACI"] == 3).all()


def test_channels_by_name_or_by_variable():
    channels = WxCConfig().channels
    assert choose_channels(["U_51", "T2M"], channels) == ("T2M", "U_51")
    assert choose_channels(["U"], channels) == tuple(f"U_{level}" for level in LEVELS)
    with pytest.raises(InputError, match=r"variable T2 is wanted \(did you mean T2M"):
        choose_channels(["T2"], channels)


def test_what_is_missing_is_told_by_name(tmp_path, analyses):
    less = write_analyses(tmp_path, hours(0, 6), levels=LEVELS[1:])
    with pytest.raises(InputError, match=r"MERRA_pres\.nc: CLOUD: level 34 is wanted, it has 39, 41"):
        open_merra2(less, WxCConfig().channels)
    with pytest.raises(InputError, match="variable CLOUD on model levels is wanted"):
        open_merra2(analyses[:1], WxCConfig().channels)
    gone = write_analyses(tmp_path, hours(0, 6), tag="_x", drop=("T2M",))
    with pytest.raises(InputError, match=r"sfc_x\.nc: variable T2M is wanted \(did you mean"):
        open_merra2(gone, WxCConfig().channels)
    with pytest.raises(InputError, match=r"nothing\.nc: no such file"):
        open_merra2([tmp_path / "nothing.nc"], ["T2M"])


def test_units_are_those_of_merra2(tmp_path):
    """What is in other units is converted; what is of another quantity, or has holes, is refused by file and time."""
    (path, _), time = write_analyses(tmp_path, hours(0, 6)), hours(6)[0]
    want = open_merra2([path], ["T2M", "SLP"], static=()).stack(time)
    data = xr.load_dataset(path, engine="h5netcdf")

    def changed(name, unit, values):
        folder = tmp_path / f"{name}-{unit}-{int(values.isnull().sum())}"
        folder.mkdir()
        data.assign({name: values.assign_attrs(units=unit)}).to_netcdf(folder / "b.nc", engine="h5netcdf")
        return open_merra2([folder / "b.nc"], ["T2M", "SLP"], static=())

    np.testing.assert_allclose(changed("T2M", "degC", data.T2M - 273.15).stack(time), want, rtol=1e-5)
    np.testing.assert_allclose(changed("SLP", "millibar", data.SLP / 100).stack(time), want, rtol=1e-5)
    silent = changed("T2M", "", data.T2M)
    np.testing.assert_array_equal(silent.stack(time), want)
    assert silent.attrs("T2M")["units"] == "K"
    with pytest.raises(InputError, match=r"b\.nc: T2M: unit 'Pa' is pressure, 'K' cannot be made of it"):
        changed("T2M", "Pa", data.T2M)
    with pytest.raises(InputError, match=r"b\.nc: 8 of 72 values of T2M at 2020-03-30T06:00 are missing"):
        changed("T2M", "K", data.T2M.where(data.lat > 40)).stack(time)


def test_a_grid_has_its_edges_half_a_cell_out():
    grid = xr.Dataset(coords={"lat": LAT[::-1], "lon": LON})
    assert tuple(geobox(grid).boundingbox)[:4] == (-100.3125, 39.75, -95.3125, 44.25)
    with pytest.raises(InputError, match="lat has 1 values"):
        geobox(grid.isel(lat=[0]))
    with pytest.raises(InputError, match="lat has 8 values .*even"):
        geobox(grid.isel(lat=[0, 1, 2, 3, 5, 6, 7, 8]))


def test_areas_of_cells_are_those_of_the_sphere():
    lat = np.arange(89.75, -90, -0.5)
    assert cell_areas(lat).sum() == pytest.approx(2)  # the sines from pole to pole
    assert cell_areas(lat)[180] == pytest.approx(np.sin(np.radians(0.5)) - 0, rel=1e-3)
    sines, weights = np.polynomial.legendre.leggauss(64)  # Gaussian latitudes, whose weights are close to their areas
    np.testing.assert_allclose(cell_areas(np.degrees(np.arcsin(sines)))[1:-1], weights[1:-1], rtol=0.02)
    assert list(cell_areas(np.array([0.0]))) == [1]


def test_area_rmse_worked_by_hand():
    truth, guess = np.zeros((2, 2)), np.array([[1.0, 1.0], [3.0, np.nan]])
    assert area_rmse(guess, truth, np.array([1.0, 2.0])) == pytest.approx(((1 + 1 + 2 * 9) / 4) ** 0.5)
    assert np.isnan(area_rmse(np.full((1, 1), np.nan), np.zeros((1, 1)), np.ones(1)))


def test_area_rmse_agrees_with_scores():
    from scores.continuous import rmse

    rng = np.random.default_rng(1)
    lat = np.arange(80.0, 40, -2)
    a, b = (xr.DataArray(rng.normal(size=(20, 5)), {"lat": lat}, ("lat", "lon")) for _ in range(2))
    areas = cell_areas(lat)
    wanted = rmse(a, b, weights=xr.DataArray(areas, {"lat": lat}, "lat"))
    assert area_rmse(a.values, b.values, areas) == pytest.approx(float(wanted))


# ---------------------------------------------------------------- the rollout

SMALL = WxCConfig(surface=("T2M", "PS"), vertical=("U",), levels=(51, 72), static=("PHIS",), embed_dim=16, heads=2)
SMALL = dataclasses.replace(SMALL, encoder_blocks=1, decoder_blocks=1, mlp_multiplier=2)


def small_batch(time, x, climate):
    surface, vertical = {"T2M": x[:, 0], "PS": x[:, 1]}, {"U": x[:, 2:]}
    return make_batch(
        SMALL.channels,
        surface,
        vertical,
        levels=(51, 72),
        lat=LAT,
        lon=LON,
        times=[time - np.timedelta64(6, "h"), time],
        lead=6,
        static={"PHIS": np.ones((9, 8))},
        static_names=SMALL.static,
        climate=climate,
    )


def test_each_step_is_a_fresh_forecast_from_the_last_two_fields():
    torch.manual_seed(0)
    model = WxCForecaster(SMALL).eval()
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 4, 9, 8)).astype(np.float32)
    start = hours(18)[0]
    climates = {start + np.timedelta64(6 * k, "h"): rng.normal(size=(4, 9, 8)).astype(np.float32) for k in (1, 2, 3)}
    first = small_batch(start, x, climates[start + np.timedelta64(6, "h")])
    kept = {key: tensor.clone() for key, tensor in first.items()}
    stepping = rollout(model, first, start=start, climate=lambda t: torch.from_numpy(climates[t])[None])
    for k in (1, 2, 3):
        time = start + np.timedelta64(6 * (k - 1), "h")
        with torch.inference_mode():
            wanted = model(small_batch(time, x, climates[time + np.timedelta64(6, "h")]))
        got = next(stepping)
        torch.testing.assert_close(got, wanted)
        x = np.stack([x[1], got[0].numpy()])
    assert all(torch.equal(first[key], kept[key]) for key in kept)


def test_a_forecast_that_is_not_finite_stops():
    torch.manual_seed(0)
    model = WxCForecaster(SMALL).eval()
    batch = small_batch(hours(6)[0], np.zeros((2, 4, 9, 8)), np.full((4, 9, 8), 1.0))
    stepping = rollout(model, batch, start=hours(6)[0], climate=lambda t: torch.full((1, 4, 9, 8), float("inf")))
    with pytest.raises(RunError, match="not finite"):
        next(stepping)


# ---------------------------------------------------------------- the command


def test_a_forecast_by_local_weights_is_that_of_the_model_itself(made, analyses, folder):
    from models.backbones.wxc_climatology import climatology_names
    from models.backbones.wxc_files import local_files
    from models.backbones.wxc_weights import load_pretrained

    out, _ = made
    files = local_files(folder)
    model = WxCForecaster(files.config).eval()
    load_pretrained(model, files)
    deep, flat = (xr.open_dataset(path, engine="h5netcdf").load() for path in analyses[::-1])
    times = hours(0, 6)
    names = [folder / name for name in climatology_names(hours(12)[0])]
    climate = read_climatology(*names, lat=LAT, lon=LON)
    batch = make_batch(
        WxCConfig().channels,
        {n: flat[n].sel(time=times).values for n in SURFACE},
        {n: deep[n].sel(time=times).values for n in VERTICAL},
        levels=deep.lev.values,
        lat=LAT,
        lon=LON,
        times=times,
        lead=6,
        static={n: flat[n].values for n in STATIC},
        climate=climate,
    )
    with torch.inference_mode():
        wanted = model(batch)[0].numpy()[:, ::-1]
    channels = WxCConfig().channels
    with rasterio.open(out / "forecast_006h.tif") as data:
        assert data.descriptions == ("PS", "T2M", "U_51")
        got = data.read()
    for name, field in zip(("PS", "T2M", "U_51"), got, strict=True):
        np.testing.assert_allclose(field, wanted[channels.index(name)], rtol=1e-4, atol=1e-3)


def test_maps_say_where_when_and_in_what_unit(made):
    out, result = made
    assert [Path(file).name for file in result["files"]] == ["forecast_006h.tif", "forecast_012h.tif"]
    with rasterio.open(out / "forecast_012h.tif") as data:
        assert data.crs.to_epsg() == 4326 and data.units == ("Pa", "K", "m s-1")
        assert data.bounds == pytest.approx((LON[0] - 0.3125, 39.75, LON[-1] + 0.3125, 44.25))
        tags = data.tags()
    assert (tags["valid_time"], tags["lead_time"]) == ("2020-03-30T18:00Z", "12 h")
    assert tags["reference_time"] == "2020-03-30T06:00Z"


def test_the_series_follows_cf_and_holds_what_the_maps_hold(made):
    out, _ = made
    with xr.open_dataset(out / "forecast.nc", engine="h5netcdf", decode_timedelta=False) as data:
        assert list(data.time.values) == hours(12, 18) and data.lead_time.values.tolist() == [6, 12]
        assert data.reference_time.values == hours(6)[0]
        assert data.T2M.standard_name == "air_temperature" and data.U_51.model_level == 51
        assert data.Conventions.startswith("CF-") and data.T2M.dims == ("time", "lat", "lon")
        assert not any("_FillValue" in var.encoding for var in data.coords.values())  # CF 1.11, section 2.5.1
        with rasterio.open(out / "forecast_012h.tif") as map_:
            np.testing.assert_array_equal(data.T2M.values[1], map_.read(2))


def test_the_scores_are_those_worked_from_the_files(made, folder):
    from models.backbones.wxc_climatology import climatology_names

    out, result = made
    rows = {(row["variable"], row["lead_hours"]): row for row in result["verification"]}
    assert len(rows) == 6 and json.loads((out / "forecast.json").read_text()) == result
    areas = np.cos(np.radians(LAT[::-1]))  # for even rows, the same weights
    truth, last = (value("T2M", None, t)[::-1] for t in hours(18, 6))
    with rasterio.open(out / "forecast_012h.tif") as data:
        predicted = data.read(2)
    normal = read_climatology(*(folder / n for n in climatology_names(hours(18)[0])), lat=LAT[::-1], lon=LON)[12]
    for name, guess in (("rmse", predicted), ("persistence", last), ("climatology", normal)):
        wanted = np.sqrt(np.average(((guess - truth) ** 2).mean(axis=1), weights=areas))
        assert rows["T2M", 12][name] == pytest.approx(wanted, rel=1e-5)
    text = table(result["verification"])
    assert text.count("\n") == 6 and "persistence" in text and "climatology" in text


def test_random_weights_say_so_and_are_the_same_each_time(analyses, tmp_path):
    said, fields = [], []
    for name in ("a", "b"):
        result = forecast(TINY, analyses, out=tmp_path / name, steps=1, weights="random", say=said.append)
        with rasterio.open(result["files"][0]) as data:
            fields.append(data.read())
            assert data.tags()["EARTHTUNE_WEIGHTS"] == "random"
    assert any("means nothing" in line for line in said)
    np.testing.assert_array_equal(*fields)
    assert result["start"] == "2020-03-30T18:00Z" and np.isfinite(fields[0]).all()


def test_weights_and_climatology_come_from_the_hub_by_name(hub, analyses, tmp_path):
    published = WXC_VARIANTS["prithvi_wxc_2300m_rollout"]
    net, target = network(encoder_shifting=True), datetime(2020, 3, 31, 0)
    buffer = io.BytesIO()
    checkpoint(net, buffer)
    config = yaml.safe_dump({"params": PARAMS}).encode()
    hub.publish(published.repo, {"config.yaml": config, published.file: buffer.getvalue()})
    normal = climatology(target, np.arange(35, 50, 0.5), np.arange(-110, -90, 0.625))
    hub.publish(WXC_REPO, {"config.yaml": config, **scaler_files(), **normal})
    said = []
    result = forecast("prithvi_wxc_2300m_rollout", analyses, out=tmp_path / "o", steps=1, say=said.append)
    assert result["climatology"] == "hub" and said == []


def test_a_region_is_cut(analyses, tmp_path):
    result = forecast(
        TINY, analyses, out=tmp_path / "o", steps=1, weights="random", region=[-99, 41, -97, 43], variables=["T2M"]
    )
    with rasterio.open(result["files"][0]) as data:
        assert data.shape == (5, 3) and data.bounds.top == 43.25


def test_a_later_forecast_replaces_an_earlier_one_whole(analyses, tmp_path):
    out = tmp_path / "o"
    forecast(TINY, analyses, out=out, steps=3, weights="random", variables=["T2M"])
    (out / "mine.txt").write_text("kept")
    with pytest.raises(InputError, match="--overwrite"):
        forecast(TINY, analyses, out=out, steps=1, weights="random")
    forecast(TINY, analyses, out=out, steps=1, weights="random", variables=["T2M"], overwrite=True)
    names = sorted(path.name for path in out.iterdir())
    assert names == [PAGE, "forecast.json", "forecast.nc", "forecast_006h.tif", "mine.txt"]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"start": "2020-03-30T15:00"}, "analyses at 2020-03-30T15:00 are wanted, the files hold all variables at 6"),
        ({"start": "noon"}, "start 'noon': wanted a time"),
        ({"variables": ["T2X"]}, "T2X is wanted"),
        ({"start": "NaT"}, "start 'NaT': wanted a time"),
        ({"start": ""}, "start '': wanted a time"),
        ({"start": "2020-03-30T04:00Z"}, "analyses at 2020-03-29T22:00 and 2020-03-30T04:00 are wanted"),
        ({"steps": 0}, "steps 0"),
        ({"weights": "no/where"}, "--weights no/where: wanted hub, random, or"),
        ({"region": [1.0, 2.0]}, "region"),
        ({"region": [0.0, 10, 10, 20]}, "lies in 0..10E, 10N..20N, it covers"),
        ({"precision": "float16"}, "precision 'float16'"),
        ({"device": "tpu"}, "device 'tpu'"),
        ({"backbone": "prithvi_eo_v2_300"}, "wanted one of prithvi_wxc"),
        ({"weights": "hub"}, "no weights were published"),
        ({"climatology": "no/where"}, "climate_surface_doy091_hour00.nc: no such file"),
    ],
)
def test_mistakes_are_told_before_any_work(changes, words, analyses, tmp_path):
    arguments = {"backbone": TINY, "weights": "random", "steps": 2, "variables": ["T2M"]} | changes
    with pytest.raises(InputError, match=words) as error:
        forecast(arguments.pop("backbone"), analyses, out=tmp_path / "o", **arguments)
    assert "\n" not in str(error.value) and list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_refused_first(analyses, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"wanted a folder, .*/file is a file"):
        forecast(TINY, analyses, out=tmp_path / "file" / "o", weights="random")
    with pytest.raises(InputError, match="nothing can be written in /proc"):
        forecast(TINY, analyses, out=Path("/proc/o"), weights="random")


def test_two_times_six_hours_apart_are_wanted(tmp_path):
    paths = write_analyses(tmp_path, hours(0, 3))
    with pytest.raises(
        InputError, match="6 hours apart are wanted, at 00, 03, .* UTC, the files hold all variables at 2 times"
    ):
        forecast(TINY, paths, out=tmp_path / "o", weights="random")


def test_files_that_cannot_verify_are_refused_first(analyses, tmp_path):
    with pytest.raises(InputError, match=r"verify: analyses at times of 2020-03-31T00:00\.\.2020-03-31T00:00"):
        forecast(TINY, analyses, out=tmp_path / "o", steps=1, weights="random", verify=analyses)


def test_the_command_prints_a_table_and_json(analyses, tmp_path, capsys):
    words = ["forecast", TINY, *map(str, analyses), "--out", str(tmp_path / "o"), "--steps", "2", "--weights", "random"]
    words += ["--start", "2020-03-30T06:00", "--variables", "T2M,U_51", "--verify", *map(str, analyses)]
    words += ["--region", "-100,40.5", "-97", "44"]
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert "T2M" in out and "U_51" in out and "persistence" in out and "means nothing" in err
    assert open_weather(tmp_path / "o" / "forecast.nc").U_51.shape == (2, 8, 5)
    assert main([*words, "--overwrite", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 2
    assert main(words) == 2
    assert capsys.readouterr().err.count("\n") == 1


# ---------------------------------------------------------------- real data


@real
def test_real_fields_roll_forward(tmp_path):
    files = sorted(REAL.iterdir())
    result = forecast(
        TINY, files, out=tmp_path / "o", steps=2, start="2020-03-30T09:00", weights="random", verify=files
    )
    with h5py.File(REAL / "MERRA2_sfc_20200330.nc4") as file:
        t2m, lat = file["T2M"][()], file["lat"][()]
    weights = np.cos(np.radians(lat))
    wanted = [np.sqrt(np.average(((t2m[3] - t2m[k]) ** 2).mean(axis=1), weights=weights)) for k in (5, 7)]
    rows = [row for row in result["verification"] if row["variable"] == "T2M"]
    assert [row["persistence"] for row in rows] == pytest.approx(wanted, rel=1e-5)
    with rasterio.open(result["files"][1]) as data:
        assert np.isfinite(data.read()).all() and data.bounds == pytest.approx((-100.3125, 29.75, -69.6875, 45.25))
        assert data.units == ("Pa", "K", "m s-1", "m s-1")


@real
def test_a_region_of_real_fields(tmp_path):
    merra = open_merra2(sorted(REAL.iterdir()), WxCConfig().channels, region=Region(-90, 35, -80, 40))
    batch = merra.batch(merra.times()[:3:2], lead=6)
    assert batch["x"].shape == (1, 2, 160, 11, 17)
    pressure = batch["x"][0, 0, [i for i, n in enumerate(WxCConfig().channels) if n.startswith("PL_")]].mean((1, 2))
    assert (pressure.diff() > 0).all()


@real
def test_hourly_collections_give_what_the_published_extracts_hold():
    hourly = REAL.parent / "merra2_hourly"
    names = ["EFLUX", "SWGNT", "T2M"]  # means over an hour, and instants
    raw = open_merra2(sorted(hourly.iterdir()), names, static=())
    extract = open_merra2(sorted(REAL.iterdir()), names, static=())
    assert set(extract.times()[1:]) <= set(raw.times()) and extract.times()[0] not in raw.times()  # no half hour before
    for time in extract.times()[1::4]:
        np.testing.assert_array_equal(raw.stack(time), extract.stack(time))
