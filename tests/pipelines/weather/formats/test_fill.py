"""Values that mean no data, as files say it; expected by hand after the NetCDF users' guide."""

import numpy as np
import pytest

from pipelines.weather.dataset import open_weather
from tests.weather_files import field, save

NAN = np.nan


def read(path, first, dtype, **attrs):
    """What is read of a field that begins with some values and goes on with the last of them."""
    data = field(times=1)
    values = np.full((1, 18, 36), first[-1], dtype)
    values[0, 0, : len(first)] = first
    data["t2m"] = data.t2m.dims, values, {"units": "K", **attrs}
    plain = {} if "_FillValue" in attrs else {"t2m": {"_FillValue": None}}
    got = open_weather(save(data, path, **plain)).t2m
    return got.values[0, 0, 18 : 18 + len(first)]  # longitudes are turned


@pytest.mark.parametrize(
    ("first", "dtype", "attrs", "want"),
    [
        # A code of 64 bits for numbers of 32: -999.9 is another number there.
        ([-999.9, 280], "f4", {"missing_value": -999.9}, [NAN, 280]),
        ([-999.9, 280], "f4", {"_FillValue": np.float32(1e20), "missing_value": -999.9}, [NAN, 280]),
        ([-9999, 280], "f4", {"missing_value": "-9999"}, [NAN, 280]),
        ([-99, -98, 280], "f8", {"missing_value": np.array([-99.0, -98.0])}, [NAN, NAN, 280]),
        ([-9999, 280], "i2", {"missing_value": "-9999"}, [NAN, 280]),
        ([280, 9.96921e36], "f4", {"missing_value": "none"}, [280, NAN]),
        ([-999, 280], "f2", {"missing_value": np.float16(-999)}, [NAN, 280]),
        ([281, 280], "f2", {}, [281, 280]),
        # Packed integers: NetCDF's own fill value, where none is declared.
        ([-32767, 100], "i2", {"scale_factor": 0.5, "add_offset": 200.0}, [NAN, 250]),
        ([-32767, 100], "i2", {"scale_factor": 0.5, "_FillValue": np.int16(-1)}, [-16383.5, 50]),
        # Limits, in the packed numbers or in the unpacked ones by their type.
        ([-1, 0, 100, 101], "f4", {"valid_range": np.array([0, 100], "f4")}, [NAN, 0, 100, NAN]),
        ([-1, 0, 101], "i2", {"valid_min": np.int16(0)}, [NAN, 0, 101]),
        ([-1, 101], "i2", {"valid_max": np.int16(100)}, [-1, NAN]),
        ([-3, 4, 7], "i2", {"scale_factor": -0.1, "valid_range": np.array([-2, 5], "i2")}, [NAN, -0.4, NAN]),
        ([-3, 4], "i2", {"scale_factor": -0.1, "valid_min": np.int16(-2)}, [NAN, -0.4]),
        ([-30, 40, 70], "i2", {"scale_factor": 0.1, "valid_range": np.array([-2.0, 5.0])}, [NAN, 4, NAN]),
        ([-2, 5], "i2", {"scale_factor": 1.0, "_Unsigned": "true", "valid_max": np.int16(-2)}, [65534, 5]),
        # What is no limit: MERRA-2's, words, and limits that leave nothing.
        ([-1, 1e14], "f4", {"valid_range": np.array([-1e15, 1e15], "f4")}, [-1, 1e14]),
        ([-1, 5], "f4", {"valid_min": "low"}, [-1, 5]),
        ([-1, 5], "f4", {"valid_range": np.zeros(2, "f4")}, [-1, 5]),
    ],
)
def test_what_means_no_data(tmp_path, first, dtype, attrs, want):
    np.testing.assert_allclose(read(tmp_path / "a.nc", first, dtype, **attrs), want, rtol=1e-6)
