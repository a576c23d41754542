"""Files of every format, alone and together, against xarray and numpy; damage and mistakes in one line."""

import pickle
import warnings

import h5py
import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.errors import InputError, RunError
from pipelines.weather import dataset as weather
from pipelines.weather.canonical import check, notes_of, to_canonical
from pipelines.weather.dataset import open_parts, open_weather, select_levels
from pipelines.weather.regions import Region, window
from tests.weather_files import DATA, field, needs_data, save

TIMES = np.timedelta64(6, "h")


@pytest.mark.parametrize("suffix", [".nc", ".nc3", ".zarr"])
@pytest.mark.parametrize("lon0", [0.0, -180.0])
def test_every_format_is_the_same_dataset(tmp_path, suffix, lon0):
    data = field(lon0=lon0, levels=(850, 500), south_up=True)
    path = save(data, tmp_path / f"a{suffix}")
    got = open_weather(path)
    want = to_canonical(data)
    np.testing.assert_array_equal(got.t2m, want.t2m)
    for dim in ("time", "level", "lat", "lon"):
        np.testing.assert_array_equal(got[dim], want[dim])
    assert got.t2m.attrs["units"] == "K" and not got.t2m.variable._in_memory
    again = pickle.loads(pickle.dumps(got))
    np.testing.assert_array_equal(again.t2m.isel(time=1), want.t2m.isel(time=1))


@given(st.tuples(st.integers(1, 4), st.integers(1, 18), st.integers(1, 36)), st.integers(-180, 170), st.data())
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_chunks_and_any_window_read_the_same(tmp_path, chunks, west, data):
    path = tmp_path / "chunked.nc"
    source = field(lon0=0.0)
    save(source, path, t2m={"chunksizes": chunks})
    width = data.draw(st.integers(10, 350))
    got = window(open_weather(path), Region(west, -60, west + width, 60))
    want = window(to_canonical(source), Region(west, -60, west + width, 60))
    xr.testing.assert_equal(got.t2m.load(), want.t2m.load())


def test_packed_integers(tmp_path):
    data = field()
    packing = {"dtype": "int16", "scale_factor": 0.01, "add_offset": 280.0, "_FillValue": np.int16(-32767)}
    data.t2m[0, 0, 0] = np.nan
    got = open_weather(save(data, tmp_path / "a.nc", t2m=packing)).t2m
    want = to_canonical(data).t2m
    assert int(np.isnan(got).sum()) == 1
    np.testing.assert_allclose(got, want, atol=0.0051)
    # Unsigned numbers in signed storage, a scale that is a whole number, and the fill value that NetCDF has by itself.
    raw = field(times=1)
    counts = np.array([0, 40000, 65535], np.uint16).view(np.int16)
    packed = np.broadcast_to(counts, (1, 18, 12, 3)).reshape(1, 18, 36).copy()
    raw["t2m"] = raw.t2m.dims, packed, {"_Unsigned": "true", "units": "K"}
    got = open_weather(save(raw, tmp_path / "b.nc")).t2m.values[0, 0, :3]
    np.testing.assert_array_equal(got, [0, 40000, np.nan])
    raw.t2m.attrs.update(_FillValue=np.int16(-1), scale_factor=np.int64(2))
    got = open_weather(save(raw, tmp_path / "c.nc")).t2m.values[0, 0, :3]
    np.testing.assert_array_equal(got, [0, 80000, np.nan])


def test_variables_levels_and_units(tmp_path):
    data = field(levels=(850, 700, 500)).assign(rain=field(name="rain", units="kg m-2 s-1").rain * 0 + 1 / 3600)
    data.rain.attrs["units"] = "kg m-2 s-1"
    path = save(data, tmp_path / "a.nc")
    got = open_weather(path, ["rain", "t2m"], levels=[500, 850], to_units={"rain": "mm/h", "t2m": "degC"})
    assert list(got.data_vars) == ["rain", "t2m"] and list(got.level.values) == [500, 850]
    np.testing.assert_allclose(got.rain, 1.0, rtol=1e-6)
    np.testing.assert_allclose(
        got.t2m.sel(level=850), to_canonical(data).t2m.sel(level=850) - np.float32(273.15), atol=1e-3
    )
    with pytest.raises(InputError, match=r"a\.nc: variable tm2 is wanted \(did you mean t2m\?\), it has t2m, rain"):
        open_weather(path, ["tm2"])
    with pytest.raises(InputError, match=r"a\.nc: level 900 is wanted, it has 500, 700, 850 hPa"):
        open_weather(path, levels=[900])
    with pytest.raises(InputError, match=r"a\.nc: t2m: unit 'K' is temperature, 'mm/h' cannot be made of it"):
        open_weather(path, to_units={"t2m": "mm/h"})
    with pytest.raises(InputError, match="variable wind is wanted"):
        open_weather(path, to_units={"wind": "m/s"})
    assert list(select_levels(got, [850, 850]).level.values) == [850]
    with pytest.raises(InputError, match="no level is wanted"):
        open_weather(path, levels=[])
    with pytest.raises(InputError, match="no variable is wanted"):
        open_weather(path, [])


def test_files_one_after_the_other(tmp_path):
    whole = field(times=12, lon0=0.0)
    parts = [whole.isel(time=slice(i, i + 4)) for i in (8, 0, 4)]
    parts[2]["t2m"] = parts[2].t2m - np.float32(273.15)
    parts[2].t2m.attrs.update(units="degC", long_name="a field")
    paths = [
        save(part, tmp_path / f"{i}{suffix}")
        for i, (part, suffix) in enumerate(zip(parts, (".nc", ".nc3", ".zarr"), strict=True))
    ]
    got = open_weather(paths)
    want = to_canonical(whole)
    np.testing.assert_array_equal(got.time, want.time)
    np.testing.assert_allclose(got.t2m.isel(time=slice(4, 12)), want.t2m.isel(time=slice(4, 12)), atol=1e-4)
    np.testing.assert_allclose(
        got.t2m.isel(time=slice(2, 6)) - 273.15, want.t2m.isel(time=slice(2, 6)) - 273.15, atol=1e-3
    )
    assert (np.diff(got.time) == TIMES).all() and not got.t2m.variable._in_memory
    with pytest.raises(InputError, match=r"0\.nc: time 2020-01-03T00:00 is in 0\.nc too \(4 such\)"):
        open_weather([*paths, paths[0]])


def test_files_side_by_side(tmp_path):
    one, two = save(field(), tmp_path / "t.nc"), save(field(name="u", units="m s-1", seed=1), tmp_path / "u.nc")
    got = open_weather([one, two])
    assert list(got.data_vars) == ["t2m", "u"]
    np.testing.assert_array_equal(got.u, to_canonical(field(name="u", seed=1)).u)
    later = save(field(name="v", start="2020-01-01T00:30"), tmp_path / "v.nc")
    with pytest.raises(InputError, match=r"v\.nc: v \(4 times 2020-01-01T00:30.*have other times; open them apart"):
        open_weather([one, later])
    coarse = save(field(step=15.0, start="2020-02-01"), tmp_path / "coarse.nc")
    with pytest.raises(InputError, match=r"coarse\.nc: .*other grids"):
        open_weather([one, coarse])
    with pytest.raises(InputError, match="no weather file given"):
        open_weather([])


def test_several_grids_in_one_file(tmp_path):
    fine = field(step=5.0, name="rain", units="mm/h").rename(latitude="lat", longitude="lon", time="time1")
    path = save(xr.merge([field(), fine]), tmp_path / "a.nc")
    parts = open_parts(path)
    assert [list(part.data_vars) for part in parts] == [["t2m"], ["rain"]] and parts[1].sizes["lon"] == 72
    assert list(open_weather(path, ["rain"]).data_vars) == ["rain"]
    with pytest.raises(InputError, match="other grids"):
        open_weather(path)


def test_staggered_grids_and_what_is_no_grid(tmp_path):
    rng = np.random.default_rng(0)
    coords = {}
    for kind, shape in (("rho", (10, 12)), ("u", (10, 11))):
        lat, lon = np.meshgrid(np.linspace(40, 45, shape[0]), np.linspace(5, 9, shape[1]), indexing="ij")
        dims = (f"eta_{kind}", f"xi_{kind}")
        coords[f"lat_{kind}"] = (dims, lat, {"units": "degree_north"})
        coords[f"lon_{kind}"] = (dims, lon, {"units": "degree_east"})
    fields = {
        "salt": (("time", "s", "eta_rho", "xi_rho"), rng.normal(size=(2, 3, 10, 12))),
        "h": (("eta_rho", "xi_rho"), rng.normal(size=(10, 12))),
        "u": (("time", "s", "eta_u", "xi_u"), rng.normal(size=(2, 3, 10, 11))),
        "gauge": (("time", "station"), np.zeros((2, 4))),
    }
    coords |= {
        "time": np.array(["2001-08-01", "2001-08-08"], "M8[ns]"),
        "s": ("s", [-1.0, -0.5, 0.0], {"positive": "up"}),
    }
    path = save(xr.Dataset(fields, coords), tmp_path / "roms.nc")
    parts = open_parts(path)
    assert [sorted(part.data_vars) for part in parts] == [["h", "salt"], ["u"]]
    assert parts[0].salt.dims == ("time", "level", "y", "x") and parts[1].lat.shape == (10, 11)
    assert any("left out: " in note and "station (4)" in note for note in notes_of(parts[0]))
    assert open_weather(path, ["u"], levels=[-0.5]).u.shape == (2, 1, 10, 11)
    with pytest.raises(InputError, match=r"levels are wanted and it has none"):
        open_weather(save(field(), tmp_path / "flat.nc"), levels=[500])


def imerg(path, *, scales=True):
    """A file as IMERG V07 has it: group Grid, dimensions (time, lon, lat), seconds since 1980, julian by name."""
    lon, lat = np.arange(-179.5, 180, 1).astype("f4"), np.arange(-89.5, 90, 1).astype("f4")
    rain = np.broadcast_to(np.arange(360, dtype="f4")[:, None], (360, 180)) / 10
    with h5py.File(path, "w") as file:
        group = file.create_group("Grid")
        group.attrs["GridHeader"] = "BinMethod=ARITHMEAN;\nRegistration=CENTER;"
        group.create_group("Intermediate")
        axes = {"time": np.array([1262304000], "i4"), "lon": lon, "lat": lat}
        said = {"time": "seconds since 1980-01-06 00:00:00 UTC", "lon": "degrees_east", "lat": "degrees_north"}
        for name, values in axes.items():
            group[name] = values
            group[name].attrs["units"] = said[name]
            group[name].attrs["DimensionNames"] = name
            if scales:
                group[name].make_scale(name)
        group["time"].attrs["calendar"] = "julian"
        data = group.create_dataset("precipitation", data=np.where(rain < 1, -9999.9, rain)[None].astype("f4"))
        data.attrs.update({"units": "mm/hr", "DimensionNames": "time,lon,lat", "_FillValue": np.float32(-9999.9)})
        if scales:
            for axis, name in enumerate(axes):
                data.dims[axis].attach_scale(group[name])
    return path


@pytest.mark.parametrize("scales", [True, False])
def test_imerg(tmp_path, scales):
    got = open_weather(imerg(tmp_path / "3B-HHR.HDF5", scales=scales), to_units={"precipitation": "mm/h"})
    rain = got.precipitation
    assert rain.dims == ("time", "lat", "lon") and str(got.time.values[0])[:16] == "2020-01-06T00:00"
    assert rain.sel(lat=0.5, lon=-120.5) == pytest.approx(5.9) and np.isnan(rain.sel(lon=-175.5)).all()
    assert (got.interval_end - got.interval_start).values[0] == np.timedelta64(30, "m")
    assert got.interval_start.values[0] == got.time.values[0]


def test_groups(tmp_path):
    path = save(field(), tmp_path / "a.nc")
    with h5py.File(path, "a") as file:
        for name in ("one", "two"):
            file.create_group(name)
        for key in list(file):
            if key not in ("one", "two"):
                file.move(key, f"one/{key}")
    with pytest.raises(InputError, match=r"variables lie in groups: one, two; choose one"):
        open_weather(path)
    assert list(open_weather(path, group="one").data_vars) == ["t2m"]
    (tmp_path / "z").mkdir()
    field().to_zarr(tmp_path / "z" / "a.zarr", group="deep", consolidated=False)
    assert open_weather(tmp_path / "z" / "a.zarr").t2m.shape == (4, 18, 36)


@pytest.mark.parametrize("version", [2, 3])
def test_zarr_without_consolidated_metadata(tmp_path, version):
    data = field()
    data.to_zarr(tmp_path / "a.zarr", consolidated=False, zarr_format=version)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = open_weather(tmp_path / "a.zarr")
    np.testing.assert_array_equal(got.t2m, to_canonical(data).t2m)


def test_zeros_of_a_zarr_store_are_values(tmp_path):
    """A store written without xarray has 0 for what was never written, and xarray takes that for a missing value."""
    data = field()
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    axes = {"time": (np.arange(4), "hours since 2020-01-01"), "longitude": (data.longitude.values, "degrees_east")}
    axes |= {"latitude": (data.latitude.values, "degrees_north")}
    rain = np.maximum(data.t2m.values - 280, 0)
    fields = {key: (values, [key], {"units": unit}) for key, (values, unit) in axes.items()}
    for key, (values, dims, attrs) in {**fields, "rain": (rain, list(data.t2m.dims), {"units": "mm"})}.items():
        array = group.create_array(key, data=values)
        array.attrs.update({"_ARRAY_DIMENSIONS": dims, **attrs})
    got = open_weather(tmp_path / "a.zarr")
    np.testing.assert_array_equal(got.rain, np.roll(rain, 18, axis=2))
    assert got.sizes["time"] == 4 and 0 in got.lon


@pytest.mark.parametrize("suffix", [".nc", ".nc3"])
@pytest.mark.parametrize("share", [0.002, 0.1, 0.5, 0.97])
def test_files_cut_short(tmp_path, suffix, share):
    path = save(field(times=20), tmp_path / f"a{suffix}")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InputError, match=rf"a\{suffix}: .*fetch") as caught:
        open_weather(path).load()
    assert "\n" not in str(caught.value)


def test_objects_that_are_not_where_the_file_says(tmp_path):
    path = save(field(), tmp_path / "a.nc")
    content = path.read_bytes()
    with h5py.File(path) as file:
        at = h5py.h5o.get_info(file["t2m"].id).addr
    path.write_bytes(content[:at] + bytes(8) + content[at + 8 :])  # the head of its object
    with pytest.raises(InputError, match=r"a\.nc: cannot be read as NetCDF-4/HDF5 \(.*\); fetch"):
        open_weather(path)


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_values_that_cannot_be_read(tmp_path, suffix):
    path = save(field(), tmp_path / f"a{suffix}", **({"t2m": {"compression": "gzip"}} if suffix == ".nc" else {}))
    if suffix == ".nc":
        with h5py.File(path) as file:
            chunk = file["t2m"].id.get_chunk_info(0)
        content = bytearray(path.read_bytes())
        content[chunk.byte_offset : chunk.byte_offset + 64] = b"x" * 64
        path.write_bytes(content)
    else:
        for chunk in (path / "t2m").glob("[0-9]*"):
            chunk.write_bytes(b"x" * 64)
    data = pickle.loads(pickle.dumps(open_weather(path)))
    with pytest.raises(RunError, match=rf"a\{suffix}: t2m cannot be read \(.*\); fetch the file again"):
        _ = data.t2m[0].values


def test_a_broken_store(tmp_path):
    path = save(field(), tmp_path / "a.zarr", consolidated=False)
    (path / "t2m" / ".zarray").write_text("{")
    with pytest.raises(InputError, match=r"a\.zarr: "):
        open_weather(path)
    (tmp_path / "empty.zarr").mkdir()
    with pytest.raises(InputError, match=r"empty\.zarr: "):
        open_weather(tmp_path / "empty.zarr")


def test_a_large_file_is_opened_by_its_headers(tmp_path):
    """8 GB when decoded, some kilobytes on disk."""
    path = tmp_path / "huge.nc"
    with h5py.File(path, "w") as file:
        axes = {"time": np.arange(2000), "lat": np.linspace(90, -90, 1000), "lon": np.arange(1000) * 0.36}
        said = {"time": "hours since 2020-01-01", "lat": "degrees_north", "lon": "degrees_east"}
        big = file.create_dataset("v", (2000, 1000, 1000), "f4", chunks=(1, 1000, 1000), compression=1)
        for axis, (name, values) in enumerate(axes.items()):
            file[name] = values
            file[name].attrs["units"] = said[name]
            file[name].make_scale(name)
            big.dims[axis].attach_scale(file[name])
    got = open_weather(path)
    assert got.v.nbytes == 8_000_000_000 and path.stat().st_size < 1 << 20
    assert window(got, Region(-5, 40, 5, 50)).v.isel(time=1234).shape == (56, 27)


def test_a_coordinate_that_decodes_to_gigabytes(tmp_path):
    path = tmp_path / "huge.nc"
    with h5py.File(path, "w") as file:
        file.create_dataset("time", (1 << 28,), "f8", chunks=(1 << 20,), compression=1).make_scale("time")
    with pytest.raises(InputError, match=r"/time decodes to 2\.0 GB"):
        open_weather(path)


@needs_data
def test_every_real_file_opens():
    folders = ("weather", "merra2_wxc", "merra2_hourly", "worldcereal")
    paths = [p for folder in folders for p in sorted((DATA / folder).iterdir()) if p.suffix in (".nc", ".nc4", ".grib")]
    assert len(paths) >= 20
    for path in paths:
        for part in open_parts(path):
            first = check(part)[next(iter(part.data_vars))]
            assert np.isfinite(first.isel(dict.fromkeys(first.dims[:-2], 0))).any(), path.name


@needs_data
def test_merra_by_label(tmp_path):
    path = DATA / "merra2_wxc" / "MERRA_pres_20200330.nc4"
    got = open_weather(path, ["T", "U"], levels=[72, 34])
    raw = xr.open_dataset(path, engine="h5netcdf")
    np.testing.assert_array_equal(got.level, [34, 72])
    np.testing.assert_array_equal(got.T.sel(level=72, lat=30.0), raw["T"].sel(lev=72, lat=30.0))
    path = DATA / "merra2_hourly" / "MERRA2_400.tavg1_2d_flx_Nx.20200330.nc4"
    rain = open_weather(path, ["PRECTOT"], to_units={"PRECTOT": "mm/h"})
    raw = xr.open_dataset(path, engine="h5netcdf").PRECTOT
    np.testing.assert_allclose(rain.PRECTOT, raw.values[:, ::-1] * 3600, rtol=1e-6)
    assert str(rain.interval_start.values[0]) == "2020-03-30T00:00:00.000000000"
    assert "middle of intervals of 1 h" in notes_of(rain)[0]
    with pytest.raises(InputError, match="other times"):
        open_weather([path, DATA / "merra2_hourly" / "MERRA2_400.inst1_2d_asm_Nx.20200330.nc4"], ["PRECTOT", "T2M"])


@needs_data
def test_real_packing_and_fills():
    tall = open_weather(DATA / "weather" / "tmmx_20190121.nc").air_temperature
    assert tall.shape == (1, 585, 1386) and 220 < float(tall.min()) < float(tall.max()) < 320
    empty = open_weather(DATA / "worldcereal" / "worldcereal_preprocessed_inputs.nc")["S2-L2A-B02"]
    assert int(np.isnan(empty).all(("y", "x")).sum()) == 2 and float(empty.max()) < 20000
    wind = open_weather(DATA / "weather" / "eraint_uvz.nc", ["u"], levels=[200]).u
    assert wind.dims == ("month", "level", "lat", "lon") and abs(float(wind.mean())) < 30
    assert weather.open_parts(DATA / "weather" / "MODIS_ARRAY.nc")[0].spatial_ref.attrs["crs_wkt"].count("Sinusoidal")
