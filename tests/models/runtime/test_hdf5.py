"""HDF5 files that would read others."""

import h5py
import numpy as np
import pytest

from models.backbones.wxc_files import read_hdf5
from models.errors import InputError
from models.runtime.hdf5 import check_alone
from pipelines.grids.rasters import dataset
from pipelines.weather.dataset import open_weather


def weather(path, fill):
    """A NetCDF 4 file of one field, which `fill` may make of something else."""
    with h5py.File(path, "w") as file:
        for name, values in (("lat", [50.0, 49.0, 48.0]), ("lon", [8.0, 9.0, 10.0, 11.0]), ("time", [0.0])):
            file[name] = np.array(values)
            file[name].make_scale(name)
        file["lat"].attrs["units"], file["lon"].attrs["units"] = "degrees_north", "degrees_east"
        file["time"].attrs["units"] = "hours since 2020-01-01"
        fill(file)
        if isinstance(file.get("x", getlink=True), h5py.HardLink) and not file["x"].external:
            for axis, name in enumerate(("time", "lat", "lon")):
                file["x"].dims[axis].attach_scale(file[name])
    return path


def plain(file):
    file["x"] = np.arange(12.0).reshape(1, 3, 4)


def external(other):
    return lambda file: file.create_dataset("x", (1, 3, 4), np.uint8, external=[(str(other), 0, 12)])


def linked(other):
    return lambda file: file.__setitem__("x", h5py.ExternalLink(str(other), "/x"))


def virtual(other):
    def fill(file):
        layout = h5py.VirtualLayout((1, 3, 4), np.float64)
        layout[:] = h5py.VirtualSource(str(other), "x", (1, 3, 4))
        file.create_virtual_dataset("x", layout)

    return fill


def deep(other):
    return lambda file: (plain(file), linked(other)(file.create_group("a/b")))


@pytest.fixture
def other(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    return weather(tmp_path / "elsewhere" / "secret.nc", plain)


def openers(path):
    yield lambda: check_alone(path)
    yield lambda: read_hdf5(path, lambda file: file["x"][()])
    yield lambda: open_weather(path)
    yield lambda: dataset(f"netcdf:{path}:x")
    yield lambda: dataset(f'HDF5:"{path}"://x')
    yield lambda: dataset(str(path))


@pytest.mark.parametrize("kind", [external, linked, virtual, deep])
def test_what_reads_other_files_is_refused_whoever_opens_it(tmp_path, other, kind):
    path = weather(tmp_path / "a.nc", kind(other))
    for opener in openers(path):
        with pytest.raises(InputError, match=r"a\.nc: .*x is read from another file, '.*secret\.nc'; copy") as refused:
            opener()
        assert "\n" not in str(refused.value)


def test_what_holds_its_values_is_read(tmp_path):
    path = weather(tmp_path / "a.nc", plain)
    for opener in openers(path):
        opener()
    assert open_weather(path)["x"].values.max() == 11


def test_parts_of_the_file_itself_may_be_put_together(tmp_path):
    def fill(file):
        file["part"] = np.arange(12.0).reshape(1, 3, 4)
        layout = h5py.VirtualLayout((1, 3, 4), np.float64)
        layout[:] = h5py.VirtualSource(file["part"])
        file.create_virtual_dataset("x", layout)
        file["soft"] = h5py.SoftLink("/part")

    check_alone(weather(tmp_path / "a.nc", fill))
