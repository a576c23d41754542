"""What inspect says of weather files: the summary, the table, JSON and notes."""

import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr

from models.errors import InputError
from pipelines.cli.main import main
from pipelines.inspection import weather_contents
from pipelines.inspection.inspect import format_text, inspect
from pipelines.inspection.weather_contents import describe_weather
from tests.pipelines.inspection.test_inspect import run_folder
from tests.weather_files import DATA, field, message, needs_data, save

ROOT = Path(__file__).parents[3]


def test_the_summary_and_the_table(tmp_path):
    data = field(levels=(850, 500))
    data.t2m[:2] = np.nan
    found = describe_weather(save(data, tmp_path / "a.nc"))
    assert found.summary == (
        "NetCDF-4/HDF5, 1 variable (t2m), 4 times 2020-01-01T00:00 to 2020-01-01T18:00 every 6 h, "
        "2 levels 500..850 hPa, 18 x 36 cells of 10 x 10 deg, all longitudes, 85S..85N, 50.0% missing"
    )
    (part,) = found.parts
    (only,) = part.fields
    good = data.t2m.values[2:]
    assert (only.minimum, only.maximum) == (pytest.approx(good.min()), pytest.approx(good.max()))
    assert only.missing == 0.5 and only.problem == "no data at 2 of 4 times" and only.dims[0] == "time"
    assert part.levels == (500, 850) and part.step_hours == 6 and part.gaps == 0
    header, row = found.lines()[1:3]
    assert header.split() == ["variable", "units", "dimensions", "missing", "min", "median", "max"]
    assert row.startswith("t2m") and "time level lat lon" in row and row.endswith("a field; no data at 2 of 4 times")


def test_inspect_and_the_command(tmp_path, capsys):
    path = save(field(), tmp_path / "a.nc")
    found = inspect(path, for_run=run_folder(tmp_path / "run"))
    assert not found.ok and "weather file" in format_text(found) and "netcdf:FILE:VARIABLE" in format_text(found)
    assert main(["inspect", str(path)]) == 0
    assert "18 x 36 cells of 10 x 10 deg" in capsys.readouterr().out
    assert main(["inspect", "--json", str(path)]) == 0
    told = json.loads(capsys.readouterr().out)["weather"]
    assert told["summary"].startswith("NetCDF-4/HDF5, 1 variable") and told["parts"][0]["fields"][0]["units"] == "K"
    folder = inspect(tmp_path)
    assert folder.contents == {"*.nc": 1}


def test_words_for_times_and_grids(tmp_path):
    monthly = field(times=12)
    monthly = monthly.assign_coords(
        time=("time", np.arange("2020-01", "2021-01", dtype="datetime64[M]").astype("M8[ns]"))
    )
    assert (
        "12 times 2020-01-01T00:00 to 2020-12-01T00:00 every month"
        in describe_weather(save(monthly, tmp_path / "m.nc")).summary
    )
    gap = field(times=6).isel(time=[0, 1, 2, 5])
    assert "every 6 h with 1 gaps" in describe_weather(save(gap, tmp_path / "g.nc")).summary
    part = field(times=1).sel(longitude=slice(150, 210)).isel(time=0, drop=True)
    assert (
        "no time axis, 18 x 7 cells of 10 x 10 deg, 150E..150W"
        in describe_weather(save(part, tmp_path / "p.nc")).summary
    )
    plane = xr.Dataset(
        {"v": (("y", "x"), np.ones((5, 6)), {"crs": "EPSG:32633"})}, {"y": np.arange(5.0), "x": np.arange(6.0)}
    )
    assert "EPSG:32633, x 0..5, y 0..4" in describe_weather(save(plane, tmp_path / "u.nc")).summary
    lat, lon = np.meshgrid(np.arange(40.0, 45), np.arange(5.0, 11), indexing="ij")
    bent = xr.Dataset({"v": (("j", "i"), lat)}, {"lat": (("j", "i"), lat), "lon": (("j", "i"), lon)})
    assert "5 x 6 cells, curvilinear, 5E..10E, 40N..44N" in describe_weather(save(bent, tmp_path / "c.nc")).summary
    half = field(times=3)
    half = half.assign_coords(time=half.time.values[0] + np.arange(3) * np.timedelta64(30, "m"))
    assert "every 30 min" in describe_weather(save(half, tmp_path / "h.nc")).summary


def test_what_cannot_be_looked_at_is_said(tmp_path):
    empty = field() * np.nan
    empty["t2m"].attrs = {"units": "K"}
    assert describe_weather(save(empty, tmp_path / "e.nc")).parts[0].fields[0].problem == "no data"
    path = tmp_path / "b.nc"
    save(field(), path, t2m={"chunksizes": (1, 18, 36), "compression": "gzip"})
    with h5py.File(path, "r") as file:
        at = file["t2m"].id.get_chunk_info(2).byte_offset
    content = bytearray(path.read_bytes())
    content[at : at + 40] = bytes(40)
    path.write_bytes(bytes(content))
    assert describe_weather(path).parts[0].fields[0].problem.startswith("cannot be read: ")


def test_a_chunk_that_decodes_to_gigabytes_is_left_alone(tmp_path):
    path = tmp_path / "huge.nc"
    with h5py.File(path, "w") as file:
        big = file.create_dataset("v", (20000, 20000), "f4", chunks=(20000, 20000), compression=1)
        for axis, name in enumerate(("lat", "lon")):
            file[name] = np.linspace(80, -80, 20000)
            file[name].attrs["units"] = ("degrees_north", "degrees_east")[axis]
            file[name].make_scale(name)
            big.dims[axis].attach_scale(file[name])
    assert describe_weather(path).parts[0].fields[0].problem == "not looked at: one chunk of it decodes to 1.5 GB"


def test_large_fields_are_sampled(tmp_path, monkeypatch):
    path = save(field(times=9, levels=(1, 2, 3, 4)), tmp_path / "a.nc")
    whole = describe_weather(path).parts[0].fields[0]
    monkeypatch.setattr(weather_contents, "_LOOK", 500)
    some = describe_weather(path).parts[0].fields[0]
    assert whole.minimum <= some.minimum < some.median < some.maximum <= whole.maximum
    assert some.missing == 0


@pytest.mark.parametrize("name", ["t.nc", "cut.nc", "no.nc"])
def test_mistakes_end_in_one_line(tmp_path, capsys, name):
    whole = save(field(), tmp_path / "whole.nc").read_bytes()
    (tmp_path / "t.nc").write_text("latitude longitude\n1 2\n")
    (tmp_path / "cut.nc").write_bytes(whole[: len(whole) // 2])
    assert main(["inspect", str(tmp_path / name)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"earthtune: {tmp_path / name}: ") and len(error.splitlines()) == 1


def test_images_do_not_pay_for_weather():
    heavy = ("xarray", "h5py", "zarr", "cfgrib", "eccodes", "scipy")
    image = ROOT / "sample_data" / "landuse" / "scene_a_hls.tif"
    code = (
        "import sys; from pipelines.inspection.inspect import inspect; inspect(sys.argv[1])\n"
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(image)], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert "zarr" not in done.stdout and "h5py" not in done.stdout and "eccodes" not in done.stdout


def test_several_parts(tmp_path):
    path = tmp_path / "a.grib"
    grid = {"lat0": 85.0, "step": 10.0}
    values = np.full((18, 36), 280.0)
    path.write_bytes(
        message(values, **grid, shortName="2t")
        + message(values, **grid, shortName="t", typeOfLevel="isobaricInhPa", level=500)
        + message(values[:9], **grid, shortName="10u")
    )
    found = describe_weather(path)
    assert [len(part.fields) for part in found.parts] == [2, 1] and "; 1 variable (u10)" in found.summary
    (tmp_path / "x.nc").write_bytes(b"")
    with pytest.raises(InputError, match="empty file"):
        describe_weather(tmp_path / "x.nc")


@needs_data
@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "weather/era5-2mt-2019-03-uk.grib",
            "GRIB, 1 variable (t2m), 744 times 2019-03-01T00:00 to 2019-03-31T23:00 every 1 h",
        ),
        (
            "weather/era5-levels-members.grib",
            "10 members, 2 levels 500..850 hPa, 61 x 120 cells of 3 x 3 deg, all longitudes",
        ),
        ("weather/eraint_uvz.nc", "NetCDF-3, 3 variables (z, u, v), no time axis, month of 2, 3 levels 200..850 hPa"),
        ("weather/MODIS_ARRAY.nc", "200 x 200 cells of 231.656 x 231.656, Sinusoidal"),
        ("weather/tmmx_20190121.nc", "1 time 2019-01-21T00:00, 585 x 1386 cells of 0.04167 x 0.04167 deg"),
        (
            "merra2_wxc/MERRA_pres_20200330.nc4",
            "8 times 2020-03-30T00:00 to 2020-03-30T21:00 every 3 h, 14 levels 34..72 layer",
        ),
        ("worldcereal/worldcereal_preprocessed_inputs.nc", "12 times 2020-11-01T00:00 to 2021-10-01T00:00 every month"),
    ],
)
def test_real_files(name, words):
    assert words in describe_weather(DATA / name).summary


def test_a_file_with_several_groups(tmp_path, capsys):
    path = str(tmp_path / "a.zarr")
    for group in ("one", "two"):
        field(name=f"t_{group}").to_zarr(path, group=group, mode="a", consolidated=False)
    assert main(["inspect", path]) == 2
    assert "its variables lie in groups: one, two; choose one (--group)" in capsys.readouterr().err
    assert main(["inspect", path, "--group", "two"]) == 0 and "t_two" in capsys.readouterr().out
