"""NetCDF files whose variables are the bands of a scene."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from pyproj import CRS

from models.errors import InputError
from pipelines.scenes.periods import GapError, frames_by, read_periods
from pipelines.scenes.scene import open_scene
from tests.pipelines.scenes.test_scene import per_band

REAL = Path(__file__).parents[4] / "shared" / "data" / "worldcereal" / "worldcereal_preprocessed_inputs.nc"
WHOLE = (slice(0, 8), slice(0, 8))


def write_cube(path, names=("B02", "B8A", "ndvi"), dates=("2021-06-01", "2021-07-01"), **attrs):
    """Variables that hold 1000 times their place plus the number of the date, packed; the first pixel is fill."""
    times = pd.DatetimeIndex(dates)
    attrs = {"scale_factor": 1e-4, "add_offset": 0.0, "grid_mapping": "crs", "_FillValue": np.int16(-9999)} | attrs
    numbers = np.arange(len(times), dtype="int16").reshape(-1, 1, 1) + np.zeros((8, 8), "int16")
    fields = {name: (("t", "y", "x"), numbers + np.int16(1000 * i), attrs) for i, name in enumerate(names, 1)}
    cube = xr.Dataset(fields, {"t": times, "y": np.arange(8)[::-1] * 10.0 + 5, "x": np.arange(8) * 10.0 + 5})
    for variable in names:
        cube[variable].values[:, 0, 0] = -9999
    cube["crs"] = xr.DataArray(0, attrs=CRS(32633).to_cf())
    for axis in "xy":
        cube[axis].attrs = {"standard_name": f"projection_{axis}_coordinate", "units": "m"}
    cube.to_netcdf(path, engine="h5netcdf", encoding={"t": {"units": "days since 2000-1-1"}})
    return path


def test_variables_are_bands_and_times_are_dates(tmp_path):
    scene = open_scene(write_cube(tmp_path / "cube.nc"), ["NIR_NARROW", "BLUE"])
    assert scene.frames == 2 and [str(day) for day in scene.dates] == ["2021-06-01", "2021-07-01"]
    assert per_band(scene, 0) == pytest.approx([2000, 1000]) and per_band(scene, 1) == pytest.approx([2001, 1001])
    assert np.argwhere(~scene.read(WHOLE)[1]).tolist() == [[0, 0]]
    assert scene.geobox.crs.epsg == 32633 and scene.geobox.affine.a == 10


def test_names_may_be_given_in_the_order_of_the_variables(tmp_path):
    path = write_cube(tmp_path / "cube.nc", ("a", "b"), ("2021-06-01",))
    assert per_band(open_scene(path, ["RED", "GREEN"], file_bands=["GREEN", "RED"])) == pytest.approx([2000, 1000])
    with pytest.raises(InputError, match="holds the variables a, b, none named as a band"):
        open_scene(path, ["RED"])
    with pytest.raises(InputError, match="has the variables a, b, 1 names were given"):
        open_scene(path, ["RED"], file_bands=["RED"])


@pytest.mark.parametrize(
    ("file", "words", "wanted"),
    [
        ("cube.nc", ("S2-L2A-B02", "S2-L2A-B05", "AGERA5-B05"), {"BLUE": 1000, "RED_EDGE_1": 2000}),
        ("S2_L2A_10m.nc", ("B02", "B08"), {"BLUE": 1000, "NIR_BROAD": 2000}),
        ("L8_SR_10m.nc", ("B04", "B05", "B10"), {"RED": 1000, "NIR_NARROW": 2000}),
        ("x.nc", ("HLS.S30_B04", "HLS.S30_B8A"), {"RED": 1000, "NIR_NARROW": 2000}),
    ],
)
def test_codes_are_those_of_the_sensor_that_a_variable_or_the_file_is_called_by(tmp_path, file, words, wanted):
    scene = open_scene(write_cube(tmp_path / file, words), [*wanted])
    assert per_band(scene, 0) == pytest.approx([*wanted.values()])


def test_two_variables_of_one_band_are_refused(tmp_path):
    path = write_cube(tmp_path / "cube.nc", ("S2-B04", "L8-B04"))
    with pytest.raises(InputError, match="S2-B04 and L8-B04 are both RED; name all variables"):
        open_scene(path, ["RED"])
    with pytest.raises(InputError, match="none named as a band"):  # of no sensor that is known
        open_scene(write_cube(tmp_path / "x.nc", ("B04", "B05")), ["RED"])


def test_a_cube_is_dates_of_their_own(tmp_path):
    scene = open_scene(write_cube(tmp_path / "cube.nc"), ["NIR_NARROW", "BLUE"])
    first, second = scene.apart()
    assert (first.name, second.name) == ("cube_2021-06-01", "cube_2021-07-01") and second.frames == 1
    assert per_band(second) == pytest.approx([2001, 1001])


@pytest.mark.skipif(not REAL.is_file(), reason=f"the real data is not at {REAL}")
def test_of_a_real_cube_frames_are_chosen_and_empty_months_are_told():
    bands = ["BLUE", "RED", "NIR_BROAD", "SWIR_1"]
    every = open_scene(REAL, bands)
    assert every.frames == 12 and every.geobox.crs.epsg == 32631 and every.shape == (100, 100)
    scene = frames_by(read_periods(["2020-11", "04", "07/08"]), every)
    assert [str(day) for day in scene.dates] == ["2020-11-01", "2021-04-01", "2021-07-01"]
    x, valid = scene.read(scene.window)
    with xr.open_dataset(REAL, engine=xr.backends.H5netcdfBackendEntrypoint, mask_and_scale=False) as raw:
        np.testing.assert_array_equal(x[1, 1][valid], raw["S2-L2A-B04"].values[5].view("uint16")[valid])
    assert valid.mean() > 0.99
    with pytest.raises(GapError, match="no data in 2020-12, at 1 date; no date in 2022"):
        frames_by(read_periods(["2020-12", "2021-04", "2022"]), every)
