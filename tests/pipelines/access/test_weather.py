"""Weather of a place from a Zarr store on the loopback interface."""

from __future__ import annotations

import dataclasses
import datetime
import json
import shutil
import warnings

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from models.backbones.wxc_inputs import VERTICAL
from models.errors import InputError, RunError
from pipelines.access.request import Request
from pipelines.cli.main import main
from pipelines.commands.fetch import fetch
from pipelines.forecasts.months import Season
from pipelines.forecasts.seasonal_years import gather
from pipelines.samples import weather as samples_weather
from pipelines.samples.weather import read_weather
from pipelines.tasks.downscale import DownscaleData
from pipelines.tasks.downscale import load as load_fine
from pipelines.tasks.rain import RainData, RainTarget
from pipelines.tasks.rain import load as load_rain
from pipelines.weather.dataset import open_weather
from pipelines.weather.formats import addresses
from pipelines.weather.merra2 import open_merra2
from tests.catalogue_server import serving_catalogue
from tests.pipelines.forecasts.test_forecast import hours, write_analyses
from tests.pipelines.forecasts.test_seasonal import world

H5 = xr.backends.H5netcdfBackendEntrypoint
NAMES = ("2m_temperature", "total_precipitation")


def fields():
    """Two fields of ten days, north first, on longitudes 0 to 359."""
    times = pd.date_range("2022-07-26", "2022-08-05", freq="6h", inclusive="left")
    lat, lon, rng = np.arange(60, 29.5, -1.0), np.arange(0, 360, 1.0), np.random.default_rng(0)
    shape, dims = (len(times), len(lat), len(lon)), ("time", "latitude", "longitude")
    warm, wet = rng.normal(285, 5, shape).astype("f4"), rng.gamma(1, 1e-4, shape).astype("f4")
    held = {"2m_temperature": (dims, warm, {"units": "K"}), "total_precipitation": (dims, wet, {"units": "m"})}
    held |= {"unwanted": (dims, wet, {"units": "1"})}
    axes = {"time": times, "latitude": ("latitude", lat, {"units": "degrees_north"})}
    return xr.Dataset(held, axes | {"longitude": ("longitude", lon, {"units": "degrees_east"})})


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """The fields as stores of both versions."""
    folder = tmp_path_factory.mktemp("stores")
    for version in (2, 3):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            chunks = {name: {"chunks": (4, 10, 60)} for name in fields().data_vars}
            fields().to_zarr(folder / f"a{version}.zarr", zarr_format=version, consolidated=True, encoding=chunks)
    return folder


@pytest.fixture
def server(stores, monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    soon = {"init_backoff": datetime.timedelta(milliseconds=1), "max_backoff": datetime.timedelta(milliseconds=5)}
    monkeypatch.setattr(addresses, "_RETRY", {"max_retries": 3, "backoff": soon | {"base": 2}})
    with serving_catalogue() as one:
        one.files = {f"/{p.relative_to(stores)}": p.read_bytes() for p in stores.rglob("*") if p.is_file()}
        yield one


def publish(server, folder, data, *, chunks):
    """Serve a dataset as a store; returns its address."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        encoding = {name: {"chunks": chunks[: data[name].ndim]} for name in data.data_vars}
        data.to_zarr(folder, zarr_format=2, consolidated=True, encoding=encoding)
    paths = [path for path in folder.rglob("*") if path.is_file()]
    server.files |= {f"/{folder.name}/{p.relative_to(folder)}": p.read_bytes() for p in paths}
    return f"{server.url}/{folder.name}"


def get(server, out, *, say=lambda line: None, **options):
    asked = {"place": "8.5,44.2,10.5,46.8", "dates": "2022-07-30/2022-08-02", "product": "era5", "variables": NAMES}
    asked |= {"catalogue": f"{server.url}/a2.zarr"}
    return fetch(asked=Request(out=out, **asked | options), say=say)


@pytest.mark.parametrize("version", [2, 3])
def test_the_region_and_the_days_alone(server, tmp_path, version):
    result = get(server, tmp_path, catalogue=f"{server.url}/a{version}.zarr")
    assert [one["status"] for one in result["scenes"]] == ["done", "done"]
    # Cells of a degree that the place touches, and one more at each side.
    wanted = fields()[[*NAMES]].sel(
        time=slice("2022-07-30", "2022-08-02"), latitude=slice(48, 43), longitude=slice(7, 12)
    )
    files = sorted(tmp_path.glob("*.nc"))
    assert [file.name for file in files] == ["era5_20220730-20220731.nc", "era5_20220801-20220802.nc"]
    got = open_weather(files)
    for name in NAMES:
        inside = got[name].sel(lat=slice(47, 44), lon=slice(8, 11))
        truth = wanted[name].sel(latitude=slice(47, 44), longitude=slice(8, 11))
        np.testing.assert_array_equal(inside, truth)
    assert got.sizes == {"time": 16, "lat": got.sizes["lat"], "lon": got.sizes["lon"]}
    assert 4 <= got.sizes["lat"] <= 6 and 4 <= got.sizes["lon"] <= 6
    raw = xr.open_dataset(files[0])
    assert raw.attrs["license"] == "CC-BY-4.0" and raw.attrs["attribution"].endswith("information 2022")
    raw.close()
    # 16 times in chunks of 4 begin at one; rows 12 to 17 lie in the second chunk, columns in the first.
    data = {path for path in server.served if any(name in path for name in (*NAMES, "unwanted"))}
    spell = (lambda at: f"{at}.1.0") if version == 2 else (lambda at: f"c/{at}/1/0")
    first = 4  # days from 26 to 30 July
    assert data == {f"/a{version}.zarr/{name}/{spell(at)}" for name in NAMES for at in range(first, first + 4)}


def test_with_faults_the_same_files_and_what_is_there_is_kept(server, tmp_path):
    get(server, tmp_path / "plain")
    server.forget()
    server.faults = {"busy"}
    get(server, tmp_path / "faulty")
    plain, faulty = ({f.name: f.read_bytes() for f in (tmp_path / n).glob("*.nc")} for n in ("plain", "faulty"))
    assert plain == faulty and len(plain) == 2
    server.forget()
    server.faults = set()
    assert {one["status"] for one in get(server, tmp_path / "plain")["scenes"]} == {"kept"}
    assert not [path for path in server.served if "2m_temperature" in path]
    file = tmp_path / "plain" / "era5_20220730-20220731.nc"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    assert [one["status"] for one in get(server, tmp_path / "plain")["scenes"]] == ["done", "kept"]
    assert file.read_bytes() == plain[file.name]
    other = get(server, tmp_path / "plain", variables=NAMES[:1])["scenes"][0]
    assert other["status"] == "failed" and "--overwrite" in other["error"] and file.read_bytes() == plain[file.name]


def test_a_server_that_breaks_off_leaves_no_file(server, tmp_path):
    for path in list(server.files):
        if path.startswith("/a2.zarr/2m_temperature/") and path[-5].isdigit():
            server.files[path] = server.files[path][: len(server.files[path]) // 2]
    result = get(server, tmp_path)
    assert {one["status"] for one in result["scenes"]} == {"failed"} and not list(tmp_path.glob("*.nc"))
    assert "2m_temperature" in result["scenes"][0]["error"]


def test_a_dry_run_writes_nothing_and_the_command_tells(server, tmp_path, capsys):
    words = f"fetch --place 45.5,9.5,60 --dates 2022-07 --product era5 --out {tmp_path / 'out'} --dry_run"
    address = ["--catalogue", f"{server.url}/a2.zarr"]
    assert main([*words.split(), *address, "--variables", ",".join(NAMES)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "planned  2022-07-01  era5_20220701-20220731" and out[1].startswith("1 planned; 0.0 MB of fields")
    assert not (tmp_path / "out").exists() and not [path for path in server.served if "2m_temperature" in path]
    assert main([*words.split(), *address]) == 2
    assert "--variables: name fields of 2m_temperature, total_precipitation" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"product": "merra2", "catalogue": None}, "M2T1NXSLV.* --catalogue ADDRESS"),
        ({"variables": ("t2m",)}, "t2m is wanted"),
        ({"dates": "2021"}, "has no time"),
        ({"max_gb": 1e-6}, "--max_gb is 1e-06"),
        ({"place": "8,70,9,71"}, "choose inside"),
        ({"catalogue": "ROOT/none.zarr"}, "no Zarr store"),
        ({"catalogue": "ftp://x/a.zarr"}, "came ftp"),
        ({"catalogue": "ROOT/loose.zarr"}, "not consolidated"),
        ({"catalogue": "ROOT/pickled.zarr"}, "'pickle', which is not decoded"),
        ({"catalogue": "ROOT/text.zarr"}, "not JSON"),
    ],
)
def test_what_cannot_be_had(server, tmp_path, options, why):
    server.files["/loose.zarr/zarr.json"] = json.dumps({"node_type": "group", "zarr_format": 3})
    metadata = json.loads(server.files["/a2.zarr/.zmetadata"])
    metadata["metadata"]["2m_temperature/.zarray"]["filters"] = [{"id": "pickle"}]
    server.files["/pickled.zarr/.zmetadata"] = json.dumps(metadata)
    server.files["/text.zarr/.zmetadata"] = b"<html>"
    if options.get("catalogue"):
        options = options | {"catalogue": options["catalogue"].replace("ROOT", server.url)}
    with pytest.raises(InputError, match=why):
        get(server, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_metadata_are_those_that_were_looked_through(server):
    data = open_weather(f"{server.url}/a2.zarr", NAMES[:1])
    evil = json.loads(server.files["/a2.zarr/2m_temperature/.zarray"])
    for path in [path for path in server.files if path.endswith((".zarray", ".zmetadata"))]:
        server.files[path] = json.dumps(evil | {"filters": [{"id": "pickle"}]})
    np.testing.assert_array_equal(
        data["2m_temperature"][5].sel(lat=57, lon=slice(10, 13)), fields()["2m_temperature"][5, 3, 10:14]
    )
    assert not [path for _, path, _ in server.asked if path.endswith((".zarray", ".zattrs", ".zgroup"))]


def test_inspect_takes_an_address(server, capsys):
    assert main(["inspect", f"{server.url}/a3.zarr?key=secret"]) == 2  # a store's address has no query
    assert "secret" not in capsys.readouterr().err
    assert main(["inspect", f"{server.url}/a3.zarr"]) == 0
    out = capsys.readouterr().out
    assert "Zarr, 3 variables" in out and "40 times 2022-07-26T00:00 to 2022-08-04T18:00" in out


BOX, DAYS = [8, 43, 12, 47], "2022-07-30/2022-07-31"


def test_training_reads_the_fields_region_and_days_that_are_named(server, tmp_path):
    rain = RainTarget("total_precipitation", "end", 6.0, "m")
    how = {"inputs": [f"{server.url}/a2.zarr"], "variables": ["2m_temperature"], "target": rain}
    data = RainData(tmp_path, **how, region=BOX, dates=DAYS)
    weather, wet = load_rain(data)
    truth = fields().sel(time=slice("2022-07-30", "2022-07-31"), latitude=slice(47, 43), longitude=slice(8, 12))
    np.testing.assert_array_equal(weather.fields[:, 0], truth["2m_temperature"])
    assert (weather.times[0], weather.times[-1]) == (np.datetime64("2022-07-30"), np.datetime64("2022-07-31T18:00"))
    # Six hours' metres as millimetres an hour; those of the last time end with it.
    got = wet.over(weather.times - np.timedelta64(6, "h"), weather.times)
    np.testing.assert_allclose(got, truth["total_precipitation"] * 1000 / 6, rtol=1e-5)
    chunks = {path for path in server.served if any(name in path for name in (*NAMES, "unwanted"))}
    # 30 and 31 July are chunks 4 and 5 of four times, of rain some hours before and after count; rows 13 to 17.
    assert {path for path in chunks if "2m" in path} == {f"/a2.zarr/2m_temperature/{at}.1.0" for at in (4, 5)}
    wets = {path for path in chunks if "total" in path}
    assert wets == {f"/a2.zarr/total_precipitation/{at}.1.0" for at in (4, 5, 6)} and len(chunks) == 5


def test_what_the_disk_does_not_hold_is_refused_before_it_is_read(server, monkeypatch):
    monkeypatch.setattr(samples_weather, "HELD", 0)
    monkeypatch.setattr(samples_weather.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(2, 1, 1000))
    with pytest.raises(InputError, match="0.0 GB are free .* data.region"):
        read_weather([f"{server.url}/a2.zarr"], NAMES[:1])
    assert not [path for path in server.served if "2m_temperature/" in path and not path.endswith("z")]


def test_days_and_regions_that_are_not_there(server, tmp_path):
    how = {"inputs": [f"{server.url}/a2.zarr"], "variables": ["2m_temperature"], "target": "2m_temperature"}
    for changes, why in (
        ({"dates": "2021"}, "a2.zarr: no time in 2021-01-01 to 2021-12-31, it has 2022-07-26 to 2022-08-04"),
        ({"dates": "july"}, "data.dates july: 'july' is no day"),
        ({"region": [0, 70, 5, 80]}, "choose inside"),
        ({"region": [0, 70, 5]}, "wanted west, south, east, north"),
    ):
        with pytest.raises(InputError, match=why):
            load_fine(DownscaleData(tmp_path, **how, **changes), ["2m_temperature"])


def test_downscaling_of_two_stores_reads_the_fine_one_under_the_coarse_cells_alone(server, tmp_path):
    fine = fields()[["2m_temperature"]].isel(time=slice(0, 2))
    coarse = fine.isel(latitude=slice(0, 30), longitude=slice(0, 360))
    coarse = coarse.coarsen(latitude=3, longitude=3).mean()
    address = publish(server, tmp_path / "coarse.zarr", coarse, chunks=(2, 10, 120))
    data = DownscaleData(
        tmp_path, [f"{server.url}/a2.zarr"], coarse=[address], target="2m_temperature", region=[100, 40, 120, 50]
    )
    weather, truth, _ = load_fine(data, ["2m_temperature"])
    assert truth.shape == (2, 3 * len(weather.lat), 3 * len(weather.lon)) and len(weather.lon) == 7
    row, column = round(60 - weather.lat[0]) - 1, round(weather.lon[0]) - 1  # of the first fine cell
    inside = fine["2m_temperature"].values[:, row:, column:]
    np.testing.assert_array_equal(truth, inside[:, : truth.shape[1], : truth.shape[2]])
    served = {path for path in server.served if "/a2.zarr/2m_temperature/" in path and path[-1].isdigit()}
    assert served == {f"/a2.zarr/2m_temperature/0.{row}.{column}" for row in (0, 1, 2) for column in (1, 2)}


def test_forecasts_start_from_stores_as_from_files(server, tmp_path):
    paths = write_analyses(tmp_path, hours(0, 6), drop=[name for name in VERTICAL if name not in ("U", "QV")])
    addresses = [
        publish(server, tmp_path / f"{path.stem}.zarr", xr.load_dataset(path, engine=H5), chunks=(1, 5, 9, 8))
        for path in paths
    ]
    channels = ("T2M", "U_51")
    near, far = (open_merra2(sources, channels).batch(hours(0, 6), lead=6) for sources in (paths, addresses))
    assert all((near[key] == far[key]).all() for key in near)
    assert not [path for path in server.served if "/QV/" in path or "/SLP/" in path]


def test_outlooks_learn_from_a_store_as_from_its_file(server, tmp_path):
    path = world(tmp_path / "monthly.nc", first=1990, last=1999)
    address = publish(server, tmp_path / "monthly.zarr", xr.load_dataset(path, engine=H5), chunks=(24, 8, 12))
    near, far = (gather([source], "pr", Season.of("DJF", 1), None, None, None) for source in (path, address))
    for one, two in zip(dataclasses.astuple(near.data), dataclasses.astuple(far.data), strict=True):
        np.testing.assert_array_equal(one, two)


def test_a_store_that_does_not_answer(monkeypatch):
    monkeypatch.setattr(addresses, "_RETRY", {"max_retries": 0})
    with pytest.raises(RunError, match="does not answer"):
        open_weather("http://127.0.0.1:9/a.zarr")
