"""NetCDF files, read back by xarray and h5py."""

import h5py
import numpy as np
import pytest
import xarray as xr

from pipelines.outputs.netcdf import write_netcdf
from tests.weather_files import field


def test_fields_come_back_and_coordinates_have_no_fill_value(tmp_path):
    data = field(times=3).astype("float64").assign_coords(kind=("time", ["a", "b", "c"]))
    data.t2m[0, 0, 0] = np.nan
    write_netcdf(tmp_path / "a.nc", data, encoding={"time": {"units": "hours since 2019-12-31 12:00"}})
    with xr.open_dataset(tmp_path / "a.nc", engine="h5netcdf") as got:
        np.testing.assert_array_equal(got.t2m, data.t2m.astype("float32"))
        np.testing.assert_array_equal(got.time, data.time)
        assert list(got.kind.values) == ["a", "b", "c"] and got.t2m.attrs["units"] == "K"
    with h5py.File(tmp_path / "a.nc") as file:
        assert [key for key in file if "_FillValue" in file[key].attrs] == ["t2m"]
        assert file["t2m"].compression == "gzip" and list(file["time"][:]) == [12, 18, 24]


def test_a_full_disk_is_an_error_and_no_crash(small_disk):
    data = field(step=2.0)  # 250 kB
    (small_disk / "other").write_bytes(bytes(450 << 10))
    with pytest.raises(OSError, match="No space left"):
        write_netcdf(small_disk / "a.nc", data)
