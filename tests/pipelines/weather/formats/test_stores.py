"""Zarr stores of strangers: codes that run code, sizes that no memory holds, links that lead elsewhere."""

import json
import os
import pickle
import time
import warnings

import numpy as np
import pytest
import xarray as xr
import zarr

from models.errors import EarthtuneError, InputError
from pipelines.weather.dataset import open_weather


@pytest.fixture(params=[2, 3])
def store(request, tmp_path):
    """A small store, in either format."""
    axes = {"time": [0.0], "lat": [50.0, 49.0, 48.0], "lon": [8.0, 9.0, 10.0, 11.0]}
    values = xr.DataArray(np.arange(12.0).reshape(1, 3, 4), axes, [*axes], attrs={"units": "K"})
    data = values.to_dataset(name="x")
    data["time"].attrs["units"] = "hours since 2020-01-01"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data.to_zarr(tmp_path / "a.zarr", zarr_format=request.param, consolidated=False)
    return tmp_path / "a.zarr"


def changed(store, array, **changes):
    """Change what a store says of an array."""
    (file,) = (f for f in ((store / array / name) for name in (".zarray", "zarr.json")) if f.exists())
    content = json.loads(file.read_text())
    if "chunks" in changes and "chunk_grid" in content:
        content["chunk_grid"]["configuration"]["chunk_shape"] = changes.pop("chunks")
    content |= changes
    file.write_text(json.dumps(content))
    return content


def test_a_store_is_read(store):
    assert open_weather(store)["x"].values.tolist() == np.arange(12.0).reshape(1, 3, 4).tolist()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(store)
    assert open_weather(store)["x"].values.max() == 11


class Evil:
    def __reduce__(self):
        return os.mkdir, (os.environ["EVIL"],)


@pytest.mark.parametrize("consolidated", [False, True])
def test_no_pickle_is_read(store, tmp_path, monkeypatch, consolidated):
    monkeypatch.setenv("EVIL", str(tmp_path / "done"))
    if (store / "zarr.json").exists():
        changed(store, "lat", codecs=[{"name": "numcodecs.pickle", "configuration": {}}])
        (store / "lat" / "c" / "0").write_bytes(pickle.dumps(Evil()))
    else:
        changed(store, "lat", dtype="|O", filters=[{"id": "pickle"}], compressor=None, fill_value=None)
        (store / "lat" / "0").write_bytes(pickle.dumps(Evil()))
    if consolidated and (store / ".zgroup").exists():
        metadata = {str(f.relative_to(store)): json.loads(f.read_text()) for f in store.rglob(".z*")}
        (store / ".zmetadata").write_text(json.dumps({"zarr_consolidated_format": 1, "metadata": metadata}))
        (store / "lat" / ".zarray").unlink()
    with pytest.raises(InputError, match="coded by '.*pickle', which is not decoded"):
        open_weather(store)
    assert not (tmp_path / "done").exists()


@pytest.mark.parametrize(
    ("array", "changes", "told"),
    [
        ("lat", {"shape": [2**40], "chunks": [2**20]}, "coordinates of 0.25 GiB at most"),
        ("lat", {"shape": [2**60]}, "an array of shape"),
        ("lat", {"shape": [-3]}, "an array of shape"),
        ("lat", {"chunks": [0]}, "in chunks of"),
        ("x", {"chunks": [1, 0, 4]}, "in chunks of"),
        ("x", {"chunks": [1, 3]}, "in chunks of"),
        ("x", {"shape": [2**30, 2**30, 4], "chunks": [2**20, 2**20, 4]}, "a chunk decodes to"),
        ("x", {"shape": "many"}, "an array of shape"),
    ],
)
def test_sizes_that_make_no_sense_are_refused_at_once(store, array, changes, told):
    changed(store, array, **changes)
    begun = time.monotonic()
    with pytest.raises(InputError, match=told) as refused:
        open_weather(store)
    assert time.monotonic() - begun < 30 and "\n" not in str(refused.value) and array in str(refused.value)


def chunk(store, array):
    (found,) = (
        f for f in (store / array).rglob("*") if f.is_file() and f.name not in (".zarray", ".zattrs", "zarr.json")
    )
    return found


@pytest.mark.parametrize("array", ["lat", "x"])
@pytest.mark.parametrize("folder", [False, True])
def test_links_lead_nowhere_else(store, tmp_path, array, folder):
    inside = chunk(store, array)
    moved = inside.parent if folder and inside.parent != store / array else inside
    os.rename(moved, tmp_path / "secret")
    moved.symlink_to(tmp_path / "secret")
    with pytest.raises(EarthtuneError, match="is a link out of the store"):
        _ = open_weather(store)[array].values


def test_metadata_are_no_links(store, tmp_path):
    (file,) = (f for f in ((store / "lat" / name) for name in (".zarray", "zarr.json")) if f.exists())
    os.rename(file, tmp_path / "secret")
    file.symlink_to(tmp_path / "secret")
    with pytest.raises(InputError, match="is a link out of the store"):
        open_weather(store)


def test_a_store_may_be_a_link_itself(store, tmp_path):
    (tmp_path / "b.zarr").symlink_to(store)
    assert open_weather(tmp_path / "b.zarr")["x"].values.max() == 11
