"""GRIB 1 and 2: what was written is what is read, sparse files stay small, damage is told."""

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from models.errors import InputError, RunError
from pipelines.weather.canonical import check, notes_of, to_canonical
from pipelines.weather.dataset import one_forecast, open_parts, open_weather
from pipelines.weather.formats.grib import open_grib
from pipelines.weather.intervals import in_unit
from tests.weather_files import DATA, field, message, needs_data, save

ROWS, COLS = 18, 36
GRID = {"lat0": 85.0, "lon0": 0.0, "step": 10.0}
TEMPERATURE = {1: {"indicatorOfParameter": 11}, 2: {"shortName": "2t"}}
LEVELS = {"typeOfLevel": "isobaricInhPa", "shortName": "t"}
RAIN = {"shortName": "tp", "typeOfLevel": "surface", "stepType": "accum"}


def values(seed):
    return np.random.default_rng(seed).normal(280, 10, (ROWS, COLS))


def write(path: Path, *messages) -> Path:
    path.write_bytes(b"".join(messages))
    return path


def test_equals_netcdf_of_the_same_field(tmp_path):
    data = field(times=3)
    parts = [
        message(data.t2m.values[i], **GRID, shortName="2t", dataDate=20200101 + (6 * i) // 24, dataTime=600 * i)
        for i in range(3)
    ]
    got = open_weather(write(tmp_path / "a.grib2", *parts))
    want = open_weather(save(data, tmp_path / "a.nc"))
    np.testing.assert_allclose(got.t2m, want.t2m, atol=1e-4)
    for dim in ("time", "lat", "lon"):
        np.testing.assert_array_equal(got[dim], want[dim])
    assert got.t2m.attrs["units"] == "K" and got.t2m.attrs["cell_methods"] == "time: point"
    assert [p.name for p in tmp_path.iterdir() if p.suffix == ".idx"] == []


@pytest.mark.parametrize("edition", [1, 2])
def test_levels_in_both_editions_with_missing_values(tmp_path, edition):
    fields = {level: values(level) for level in (850, 500)}
    fields[500][3, 4] = np.nan
    path = write(
        tmp_path / "a.grib",
        *(message(v, edition=edition, **GRID, **LEVELS, level=level) for level, v in fields.items()),
    )
    got = open_weather(path).t
    assert got.dims == ("time", "level", "lat", "lon") and list(got.level.values) == [500, 850]
    west = np.roll(fields[500], 18, axis=1)
    np.testing.assert_allclose(got.sel(level=500)[0], west, atol=1e-3)
    assert np.isnan(got.sel(level=500, lat=55, lon=40)) and np.isfinite(got.sel(level=850)).all()


def test_selections_read_what_they_name(tmp_path):
    every = [values(i) for i in range(6)]
    path = write(tmp_path / "a.grib", *(message(v, **GRID, **LEVELS, level=100 * (i + 1)) for i, v in enumerate(every)))
    got = open_weather(path).t
    np.testing.assert_allclose(got[0, 4, 2, :3], np.roll(every[4], 18, axis=1)[2, :3], atol=1e-4)
    np.testing.assert_allclose(
        got[0, [5, 1], ::-2, 30], np.roll(np.stack(every)[[5, 1]], 18, axis=2)[:, ::-2, 30], atol=1e-4
    )


def test_forecast_totals_have_their_intervals(tmp_path):
    total = np.cumsum([np.full((ROWS, COLS), metres) for metres in (0.001, 0.002, 0.004)], axis=0)
    path = write(
        tmp_path / "tp.grib",
        *(message(v, **GRID, **RAIN, startStep=0, endStep=3 * (i + 1)) for i, v in enumerate(total)),
    )
    got = open_weather(path)
    assert list(got.interval_end.values) == list(got.time.values) and got.tp.attrs["cell_methods"] == "time: sum"
    assert set(got.interval_start.values) == {np.datetime64("2020-01-01", "ns")}
    rate = in_unit(got.tp, "mm/h")
    np.testing.assert_allclose(rate[:, 5, 5], [1 / 3, 2 / 3, 4 / 3], rtol=1e-4)


def test_forecasts_that_overlap_keep_start_and_lead(tmp_path):
    parts = [
        message(
            values(day * 10 + lead), **GRID, **TEMPERATURE[2], dataDate=20200101 + day, startStep=lead, endStep=lead
        )
        for day in (0, 1)
        for lead in (24, 48)
    ]
    got = open_weather(write(tmp_path / "a.grib", *parts))
    assert got.t2m.dims == ("reference_time", "lead_time", "lat", "lon") and "time" not in got.coords
    np.testing.assert_allclose(got.t2m[1, 0], np.roll(values(34), 18, axis=1), atol=1e-4)
    one = check(one_forecast(got, "2020-01-02"))
    assert [str(time)[:10] for time in one.time.values] == ["2020-01-03", "2020-01-04"]
    np.testing.assert_array_equal(one.t2m, got.t2m[1])
    with pytest.raises(InputError, match="it has those of 2020-01-01T00:00, 2020-01-02T00:00"):
        one_forecast(got, "2020-01-05")
    with pytest.raises(InputError, match="does not hold several"):
        one_forecast(one, "2020-01-02")


def test_kinds_of_step_and_level_are_told_apart(tmp_path):
    mean = {"productDefinitionTemplateNumber": 8, "stepType": "avg", "startStep": 0, "endStep": 6}
    path = write(
        tmp_path / "a.grib",
        message(values(0), **GRID, shortName="t", typeOfLevel="isobaricInhPa", level=500),
        message(values(1), **GRID, shortName="t", typeOfLevel="surface"),
        message(values(2), **GRID, **{"shortName": "t", "typeOfLevel": "surface"} | mean),
    )
    names = {str(key) for part in open_parts(path) for key in part.data_vars}
    assert names == {"t_isobaricInhPa", "t_surface", "avg_t"}
    with pytest.raises(InputError, match=r"did you mean t_isobaricInhPa or t_surface"):
        open_weather(path, ["t"])
    got = open_weather(path, ["avg_t"])
    np.testing.assert_allclose(got.avg_t[0], np.roll(values(2), 18, axis=1), atol=1e-4)
    with pytest.raises(InputError, match=r"have other times; open them apart"):
        open_weather(path)


def test_a_sparse_file_stays_small(tmp_path):
    """A message per (number, level) on the diagonal: the cube would be 40 times as large."""
    small = np.full((ROWS, COLS), 1.0)
    parts = [
        message(small + i, **GRID, **LEVELS, level=10 * (i + 1), dataTime=100 * (i % 24), dataDate=20200101 + i // 24)
        for i in range(40)
    ]
    path = write(tmp_path / "a.grib", *parts)
    got = open_weather(path)
    assert got.t.shape == (40, 40, ROWS, COLS)
    assert float(got.t[7, 7].mean()) == pytest.approx(8) and np.isnan(got.t[7, 8]).all()
    from pipelines.weather.formats import grib

    limit, grib._EMPTY_BYTES = grib._EMPTY_BYTES, 1 << 20
    try:
        with pytest.raises(InputError, match="t has 40 messages for 1 of number, 40 of time, 40 of level; split"):
            open_grib(path)
    finally:
        grib._EMPTY_BYTES = limit


@pytest.mark.parametrize(("westward", "northward", "by_columns", "turning"), [*itertools.product((0, 1), repeat=4)])
def test_every_way_of_scanning_a_grid(tmp_path, westward, northward, by_columns, turning):
    """Where each value of the stream lies is told by WMO's flag table 3.4, laid out here value by value."""
    import eccodes

    rows, cols = 7, 12
    stream = np.random.default_rng(0).permutation(rows * cols).astype(float)
    lat, lon = 90 - 30.0 * np.arange(rows), 30.0 * np.arange(cols)
    lat, lon = lat[::-1] if northward else lat, lon[::-1] if westward else lon
    handle = eccodes.codes_new_from_message(message(stream.reshape(rows, cols), step=30.0, shortName="2t"))
    flags = {"iScansNegatively": westward, "jScansPositively": northward, "jPointsAreConsecutive": by_columns}
    corners = {
        f"{axis}Of{end}GridPointInDegrees": float(places[at])
        for axis, places in (("latitude", lat), ("longitude", lon))
        for end, at in (("First", 0), ("Last", -1))
    }
    for key, value in {**flags, "alternativeRowScanning": turning, **corners}.items():
        eccodes.codes_set(handle, key, value)
    got = open_weather(write(tmp_path / "a.grib", eccodes.codes_get_message(handle))).t2m[0]
    eccodes.codes_release(handle)
    within = rows if by_columns else cols
    for at, value in enumerate(stream):
        line, place = divmod(at, within)
        place = within - 1 - place if turning and line % 2 else place
        row, col = (place, line) if by_columns else (line, place)
        assert float(got.sel(lat=lat[row], lon=(lon[col] + 180) % 360 - 180)) == pytest.approx(value, abs=1e-3)


def test_one_variable_that_makes_no_sense_leaves_the_others(tmp_path):
    """GFS has rain since the start and of the last hours under one name, ending at the same time."""
    rain = [message(values(i), **GRID, **RAIN, startStep=6 * i, endStep=12) for i in (0, 1)]
    path = write(tmp_path / "a.grib", message(values(2), **GRID, **TEMPERATURE[2]), *rain)
    got = open_weather(path)
    assert list(got.data_vars) == ["t2m"] and "tp comes more than once" in notes_of(got)[0]
    with pytest.raises(InputError, match=r"tp is wanted, it has t2m; left out: .*a\.grib: tp comes more than once"):
        open_weather(path, ["tp"])


def test_headers_and_grids_that_make_no_sense(tmp_path):
    import eccodes

    one = bytearray(message(values(0), **GRID, **TEMPERATURE[2]))
    start = one.index(b"\x00\x00\x00\x22\x04")  # section 4, of 34 bytes
    one[start + 7 : start + 9] = b"\x59\x00"  # a product template that does not exist
    with pytest.raises(InputError, match=r"a\.grib: message 1 cannot be understood"):
        open_grib(write(tmp_path / "a.grib", bytes(one)))
    handle = eccodes.codes_grib_new_from_samples("GRIB2")
    for key in ("Ni", "Nj"):  # 179 bytes that decode to gigabytes
        eccodes.codes_set(handle, key, 16000)
    with pytest.raises(InputError, match="t decodes to 16000 x 16000 cells"):
        open_grib(write(tmp_path / "c.grib", eccodes.codes_get_message(handle)))
    eccodes.codes_release(handle)
    handle = eccodes.codes_grib_new_from_samples("GRIB2")
    eccodes.codes_set(handle, "gridType", "lambert")  # parallels that do not fit together
    path = write(tmp_path / "b.grib", eccodes.codes_get_message(handle))
    with pytest.raises(InputError, match="the lambert grid of t makes no sense"):
        open_grib(path)
    for key, value in {
        "Nx": 4,
        "Ny": 3,
        "Latin1": 33000000,
        "Latin2": 45000000,
        "DxInMetres": 10**5,
        "DyInMetres": 10**5,
    }.items():
        eccodes.codes_set(handle, key, value)
    eccodes.codes_set_values(handle, np.arange(12.0))
    assert open_grib(write(path, eccodes.codes_get_message(handle)))[0].latitude.shape == (3, 4)
    eccodes.codes_set(handle, "iScansNegatively", 1)
    with pytest.raises(InputError, match="runs westward or by columns on a lambert grid"):
        open_grib(write(path, eccodes.codes_get_message(handle)))
    eccodes.codes_release(handle)


@pytest.mark.parametrize("edition", [1, 2])
def test_damage_is_told(tmp_path, edition):
    one = message(values(0), edition=edition, **GRID, **TEMPERATURE[edition])
    with pytest.raises(InputError, match="message 2 at byte .* cut short or damaged"):
        open_grib(write(tmp_path / "cut.grib", one, one[: len(one) // 2]))
    with pytest.raises(InputError, match="message 1 at byte 0 .* cut short or damaged"):
        open_grib(write(tmp_path / "end.grib", one[:-4] + b"xxxx", one))
    with pytest.raises(InputError, match="comes more than once"):
        open_grib(write(tmp_path / "twice.grib", one, one))
    with pytest.raises(InputError, match="cut short"):
        open_grib(write(tmp_path / "head.grib", one[:12]))
    for length in (0, 8, 1 << 62, (1 << 64) - 1) if edition == 2 else ():  # of no file
        head = one[:8] + length.to_bytes(8, "big")
        with pytest.raises(InputError, match=f"message 1 at byte 0 .* damaged, {length} bytes are wanted"):
            open_grib(write(tmp_path / "length.grib", head + one[16:]))
    # Rubbish between messages is passed over.
    assert len(open_grib(write(tmp_path / "pad.grib", b"\0" * 100, one, b"\n" * 70000))) == 1


def test_sections_that_do_not_fill_a_message(tmp_path):
    one = bytearray(message(values(0), **GRID, **TEMPERATURE[2]))
    at = len(one) - 4 - ROWS * COLS * 3 - 5  # section 7 begins with its length
    assert int.from_bytes(one[at : at + 4], "big") == ROWS * COLS * 3 + 5
    for wrong in (10**6, 0, 100):
        one[at : at + 4] = wrong.to_bytes(4, "big")
        with pytest.raises(InputError, match="message 1 at byte 0 .* damaged"):
            open_grib(write(tmp_path / "a.grib", bytes(one)))


def test_values_that_cannot_be_decoded(tmp_path):
    good = message(values(0), **GRID, **TEMPERATURE[2])
    path = write(tmp_path / "a.grib", good)
    data = open_grib(path)
    write(path, good[:100] + bytes(len(good) - 104) + b"7777")  # another program writes over it
    with pytest.raises(RunError, match="t2m at byte 0 cannot be decoded"):
        data[0].t2m.load()


def test_a_grid_without_rows(tmp_path):
    import eccodes

    handle = eccodes.codes_grib_new_from_samples("reduced_gg_sfc_grib2")
    path = write(tmp_path / "a.grib", eccodes.codes_get_message(handle))
    eccodes.codes_release(handle)
    with pytest.raises(InputError, match="reduced_gg grid, which ecCodes does not place in rows"):
        open_grib(path)


def test_without_cfgrib(tmp_path):
    path = write(tmp_path / "a.grib", message(values(0), **GRID))
    code = (
        "import sys; sys.modules['cfgrib'] = None; sys.modules['cfgrib.messages'] = None\n"
        "from pipelines.cli.main import main; sys.exit(main(['inspect', sys.argv[1]]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, cwd=Path(__file__).parents[4]
    )
    assert (
        done.returncode == 2 and "pip install 'earthtune[grib]'" in done.stderr and len(done.stderr.splitlines()) == 1
    )


def test_pyproj_keeps_its_own_library(tmp_path):
    """ecCodes loads a libproj for the whole process: coordinate systems still work after it, and the exit is clean."""
    path = write(tmp_path / "a.grib", message(values(0), **GRID))
    code = (
        "import sys; from pathlib import Path; from pipelines.weather.formats.grib import open_grib\n"
        "open_grib(Path(sys.argv[1]))[0].load()\n"
        "import pyproj, rasterio.warp\n"
        "print(pyproj.CRS(4326).name, rasterio.warp.transform('EPSG:4326', 'EPSG:32631', [3], [0]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, cwd=Path(__file__).parents[4]
    )
    assert done.returncode == 0 and "WGS 84" in done.stdout, done.stderr


@needs_data
@pytest.mark.parametrize(
    "name", ["era5-2mt-2019-03-uk.grib", "era5-levels-members.grib", "era5-single-level-scalar-time.grib"]
)
def test_real_files_equal_cfgrib(name):
    from cfgrib.xarray_plugin import CfGribBackend

    path = DATA / "weather" / name
    want = xr.open_dataset(path, engine=CfGribBackend, indexpath="")
    want = to_canonical(want)
    got = open_weather(path)
    for key in want.data_vars:
        np.testing.assert_array_equal(got[key].isel(time=slice(0, 30)), want[key].isel(time=slice(0, 30)))
        for dim in want[key].dims:
            np.testing.assert_array_equal(got[dim], want[dim])
