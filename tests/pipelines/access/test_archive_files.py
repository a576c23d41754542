"""Weather of a place from dated NetCDF files of a folder on the loopback interface."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from models.errors import InputError
from pipelines.access import web
from pipelines.access.archives import files as archive_files
from pipelines.access.catalogues import ARCHIVES, Archive
from pipelines.access.request import Request
from pipelines.cli.main import main
from pipelines.commands.fetch import fetch
from pipelines.weather.dataset import open_weather
from tests.catalogue_server import serving_catalogue

PLACE = "8.5,44.2,10.5,46.8"
LAT, LON = np.arange(-90, 90.5, 1.0), np.arange(-180, 180, 1.0)


def day(date):
    """A day of two fields as MERRA-2 has them, from the south, in chunks."""
    times, rng = pd.date_range(date, periods=4, freq="6h"), np.random.default_rng(int(date[-2:]))
    axes = {"time": times, "lat": ("lat", LAT, {"units": "degrees_north"})}
    axes |= {"lon": ("lon", LON, {"units": "degrees_east"})}
    shape, dims = (4, len(LAT), len(LON)), ("time", "lat", "lon")
    fields = {name: (dims, rng.normal(285, 5, shape).astype("f4"), {"units": "K"}) for name in ("T2M", "TS")}
    return xr.Dataset(fields, axes)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Four days, of which the third is not there."""
    folder, found = tmp_path_factory.mktemp("days"), {}
    for date in ("2020-03-30", "2020-03-31", "2020-04-02"):
        path = folder / f"MERRA2_400.tavg1_2d_slv_Nx.{date.replace('-', '')}.nc4"
        chunks = {name: {"chunksizes": (1, 91, 120), "zlib": True} for name in ("T2M", "TS")}
        day(date).to_netcdf(path, engine="h5netcdf", encoding=chunks)
        found[path.name] = path.read_bytes()
    return found


@pytest.fixture
def server(files, monkeypatch, tmp_path):
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "EARTHDATA_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setattr(web, "FIRST_WAIT", 0.0)
    with serving_catalogue() as one:
        for month in ("03", "04"):
            names = [name for name in files if f"2020{month}" in name]
            links = [f'<a href="{name}">{name}</a> <A HREF = "{name}.xml">x</A>' for name in names]
            others = ["http://localhost:1/MERRA2.20200330.nc4", "../up.20200331.nc4", "a.nc"]
            strange = [f"<a href='{link}'>" for link in others]
            one.files[f"/M2.5/2020/{month}/"] = "<html>" + "\n".join([*links, *strange])
            one.files |= {f"/M2.5/2020/{month}/{name}": files[name] for name in names}
        archive = Archive(f"{one.url}/{{collection}}/%Y/%m/", "CC0-1.0", "GMAO", "name it")
        monkeypatch.setitem(ARCHIVES, "merra2", archive)
        yield one


def get(out, **options):
    asked = {
        "place": PLACE,
        "dates": "2020-03-31/2020-04-02",
        "product": "merra2",
        "variables": ("T2M",),
    }
    said = list[str]()
    return fetch(asked=Request(out=out, **asked | {"collection": ("M2.5",)} | options), say=said.append), said


def test_region_and_days_alone_and_by_range(server, files, tmp_path, monkeypatch):
    monkeypatch.setattr(archive_files, "_CHUNK", 1 << 14)  # of the archive's files 256 kB are as small a part
    result, said = get(tmp_path)
    assert [(one["scene"], one["status"]) for one in result["scenes"]] == [
        ("merra2_20200331-20200331", "done"),
        ("merra2_20200401-20200402", "done"),
    ]
    assert "merra2_20200401-20200402: no file of 2020-04-01 (1 of 2 days)" in said
    got = open_weather(sorted(tmp_path.glob("*.nc")))
    truth = xr.concat([day("2020-03-31"), day("2020-04-02")], "time")["T2M"].sel(lat=slice(44, 47), lon=slice(8, 11))
    np.testing.assert_array_equal(got["T2M"].sel(lat=slice(47, 44), lon=slice(8, 11)), truth[:, ::-1])
    assert list(got.data_vars) == ["T2M"] and got.sizes["lat"] <= 6 and got.sizes["lon"] <= 6
    served = {path: count for path, count in server.served.items() if path.endswith(".nc4")}
    assert len(served) == 2 and all("0330" not in path for path in served)
    assert sum(served.values()) < 0.4 * sum(len(files[path.rpartition("/")[2]]) for path in served)
    assert not [path for _, path, _ in server.asked if "up." in path]


def test_what_is_there_is_kept_and_a_dry_run_tells_how_much(server, tmp_path):
    plan, _ = get(tmp_path / "out", dry_run=True)
    # Two files of four times, and four rows and columns around the place.
    assert plan["megabytes"] * 1e6 == pytest.approx(2 * 4 * 4 * 4 * 4) and not (tmp_path / "out").exists()
    get(tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.nc")}
    again, _ = get(tmp_path / "out")
    assert {one["status"] for one in again["scenes"]} == {"kept"}
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.nc")} and len(before) == 2


def test_a_login_by_netrc_goes_to_the_login_alone(server, tmp_path, monkeypatch):
    monkeypatch.setattr(web, "EARTHDATA", ("127.0.0.1", "localhost"))
    monkeypatch.setattr(web, "_LOGIN", "localhost")
    server.faults = {"login"}
    with pytest.raises(InputError, match=r"access refused \(401\) by localhost; get a token .* EARTHDATA_TOKEN.*netrc"):
        get(tmp_path / "out")
    logins = "machine localhost login me password hidden\nmachine 127.0.0.1 login a password b\n"
    (tmp_path / "netrc").write_text(logins)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    server.forget()
    result, _ = get(tmp_path / "out")
    assert {one["status"] for one in result["scenes"]} == {"done"}
    asked = [(head["Host"][:9], head["Authorization"][:5]) for _, _, head in server.asked if "Authorization" in head]
    assert asked == [("localhost", "Basic")]  # then there is a cookie
    written = [path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert written and not [content for content in written if b"hidden" in content]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"product": "era5_land"}, "no copy is known here that is open .*--catalogue ADDRESS"),
        ({"collection": ()}, "name it"),
        ({"collection": ("../up",)}, "name it"),
        ({"variables": ("T3M",)}, "T3M is wanted .*T2M"),
        ({"variables": ()}, "name fields of T2M, TS"),
        ({"dates": "2020-04-01"}, "lists no NetCDF file whose name tells a day in 2020-04-01 to 2020-04-01"),
        ({"dates": "2021-01"}, "answers 404"),
        ({"max_gb": 1e-7}, "--max_gb is 1e-07"),
    ],
)
def test_what_cannot_be_had(server, tmp_path, options, why):
    with pytest.raises(InputError, match=why):
        get(tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_files_that_are_none_or_break_off_leave_nothing(server, tmp_path, capfd):
    april = next(path for path in server.files if path.endswith("0402.nc4"))
    server.files[april] = b"<html>" * 100
    result, _ = get(tmp_path / "out")
    assert [one["status"] for one in result["scenes"]] == ["done", "failed"]
    assert "cannot be read as NetCDF-4/HDF5" in result["scenes"][1]["error"]
    words = f"fetch --place {PLACE} --dates 2020-04-02 --product merra2 --variables T2M --collection M2.5"
    assert main([*words.split(), "--out", str(tmp_path / "two")]) == 2
    assert "Traceback" not in capfd.readouterr().err and not list((tmp_path / "two").glob("*"))


def test_a_month_of_files_of_months_and_the_last_day(server, tmp_path, files):
    server.files["/months/"] = '<a href="slv.202003.nc4"><a href="slv.202013.nc4"><a href="slv.20200231.nc4">'
    server.files["/months/slv.202003.nc4"] = next(iter(files.values()))
    result, said = get(tmp_path, dates="2020-03-15/2020-04-15", catalogue=f"{server.url}/months/")
    assert [one["status"] for one in result["scenes"]] == ["done"] and not [line for line in said if "no file" in line]
    got = open_weather(tmp_path / "merra2_20200315-20200331.nc")
    assert str(got.time.values[0])[:10] == "2020-03-30"
