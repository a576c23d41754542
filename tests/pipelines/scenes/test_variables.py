"""NetCDF files whose variables are the bands of a scene."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from pyproj import CRS

from models.errors import InputError
from pipelines.scenes.scene import open_scene
from tests.pipelines.scenes.test_scene import per_band

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
