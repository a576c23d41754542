"""Formats are told by content; what is no weather file is refused with a reason."""

import gzip
import os
from pathlib import Path

import pytest

from models.errors import InputError
from pipelines.weather.formats.detect import Format, format_of, is_weather
from tests.weather_files import field, message, save


def test_every_format(tmp_path):
    data = field(times=1)
    assert format_of(save(data, tmp_path / "a.nc")) is Format.HDF5
    assert format_of(save(data, tmp_path / "a.nc3")) is Format.NETCDF3
    assert format_of(save(data, tmp_path / "a.zarr")) is Format.ZARR
    (tmp_path / "a.grib").write_bytes(message(data.t2m.values[0]))
    assert format_of(tmp_path / "a.grib") is Format.GRIB
    # A bulletin's heading before the message, and a name that says nothing.
    (tmp_path / "download").write_bytes(b"\x01\r\r\n001 \r\r\nHTXE85 ECMF 010000\r\r\n" + message(data.t2m.values[0]))
    assert format_of(tmp_path / "download") is Format.GRIB and is_weather(str(tmp_path / "download"))


def test_what_is_left_to_the_loader_of_scenes(tmp_path):
    for name in ("a.tif", "a.json", "a.bin"):
        (tmp_path / name).write_bytes(b"II*\0" + bytes(64))
    (tmp_path / "folder").mkdir()
    paths = [str(tmp_path / name) for name in ("a.tif", "a.json", "a.bin", "folder", "absent.nc")]
    assert not any(is_weather(path) for path in [*paths, "https://x.org/a.nc", "netcdf:a.nc:B02"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html>not found</html>", "text, it begins with '<html>not found"),
        (b"", "empty file"),
        (gzip.compress(b"x" * 99, mtime=0), "gunzip"),
        (b"\x0e\x03\x13\x01" + bytes(99), "HDF4"),
        (b"CDF\x05" + bytes(99), "CDF-5"),
        (b"PK\x03\x04" + bytes(99), "zip archive"),
        (bytes(99), "neither NetCDF"),
        (b"\xff" * 9999, "neither NetCDF"),
        ("é".encode() * 4000, "text, it begins with 'éé"),
    ],
    ids=["page", "empty", "gzip", "hdf4", "cdf5", "zip", "zeros", "ones", "text"],
)
def test_files_that_are_none(tmp_path, content, message):
    path = tmp_path / "a.nc"
    path.write_bytes(content)
    assert is_weather(str(path))
    with pytest.raises(InputError, match=message) as caught:
        format_of(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_paths_that_are_none(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        format_of(tmp_path / "a.nc")
    with pytest.raises(InputError, match="no Zarr store"):
        format_of(tmp_path)
    with pytest.raises(InputError, match="cannot be opened .*name"):
        format_of(tmp_path / ("x" * 300 + ".nc"))
    os.mkfifo(tmp_path / "pipe.nc")
    with pytest.raises(InputError, match="neither a file nor a folder"):
        format_of(tmp_path / "pipe.nc")


def test_folders_that_may_not_be_entered(tmp_path, monkeypatch):
    def forbidden(path):
        if path.name == ".zgroup":
            raise PermissionError(13, "Permission denied")
        return path == tmp_path

    monkeypatch.setattr(Path, "exists", forbidden)
    with pytest.raises(InputError, match=r"\.zgroup: cannot be opened \(Permission denied\)"):
        is_weather(str(tmp_path))
