"""A NetCDF-3 file cut anywhere is refused; a whole one passes, whatever is in it."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.errors import InputError
from pipelines.weather.formats.netcdf3 import check_whole
from tests.weather_files import DATA, needs_data


def write(path, *, form="NETCDF3_CLASSIC", unlimited=(), short=False):
    data = xr.Dataset(
        {"a": (("time", "x"), np.arange(21.0).reshape(7, 3)), "b": (("x",), np.array([1, 2, 3], "i2"))},
        {"time": np.arange(7)},
        {"title": "abc"},
    )
    if short:
        data = data[["c"]] if "c" in data else xr.Dataset({"c": (("time",), np.arange(7, dtype="i2"))})
    data.to_netcdf(path, engine="scipy", format=form, unlimited_dims=unlimited)
    return path


@given(
    st.sampled_from(["NETCDF3_CLASSIC", "NETCDF3_64BIT"]),
    st.sampled_from([(), ("time",)]),
    st.booleans(),
    st.floats(0, 1),
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_cut_anywhere(tmp_path, form, unlimited, short, share):
    path = write(tmp_path / "a.nc", form=form, unlimited=unlimited, short=short)
    check_whole(path)
    content = path.read_bytes()
    # Padding at the end may be missing.
    path.write_bytes(content[: int(share * (len(content) - 4))])
    with pytest.raises(InputError, match="cut short"):
        check_whole(path)


@given(st.binary(max_size=200))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rubbish_after_the_signature(tmp_path, rubbish):
    path = tmp_path / "a.nc"
    path.write_bytes(b"CDF\x01" + rubbish)
    try:
        check_whole(path)
    except InputError as error:
        assert "cut short" in str(error)


@needs_data
def test_a_real_file():
    check_whole(DATA / "weather" / "eraint_uvz.nc")
