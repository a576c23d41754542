"""NetCDF and Zarr as xarray decodes them, one dataset for each grid and time axis."""

from __future__ import annotations

import warnings
from collections.abc import Hashable
from io import RawIOBase
from pathlib import Path
from typing import Any

import xarray as xr
from xarray import backends

from models.errors import InputError
from models.runtime.hdf5 import check_alone
from pipelines.weather import lazy
from pipelines.weather.formats import fill
from pipelines.weather.formats.detect import Format
from pipelines.weather.formats.netcdf3 import check_whole

_INDEX_BYTES = 1 << 28


def open_netcdf(path: Path | str | RawIOBase, kind: Format, group: str | None) -> xr.Dataset:
    """A NetCDF file, or a Zarr store (here, or an address as text), as xarray decodes it; times left for `canonical`.

    NetCDF 4 may be a stream; the dataset is to be closed then, or the process aborts at its end. The engine is passed
    as a class: by name, xarray would import every engine that is installed.

    Raises:
        InputError: it cannot be read, or its variables lie in groups and none is chosen.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data = _decoded(path, kind, group)
            if group is None and not data.data_vars:
                data.close()
                data = _decoded(path, kind, _only_group(path, kind))
    except InputError:
        raise
    except lazy.DAMAGE as error:
        line = lazy.line(error)
        raise InputError(f"{path}: cannot be read as {kind.value} ({line}); fetch the file again") from error
    return _phony(data)


def _decoded(path: Path | str | RawIOBase, kind: Format, group: str | None) -> xr.Dataset:
    """Open and decode; closing what comes closes the file."""
    raw = as_stored(path, kind, group)
    try:
        for key, var in raw.variables.items():
            never = var.dtype.kind == "f" or var.dims == (key,)
            if kind is Format.ZARR and never and var.attrs.get("_FillValue") == 0:
                # Zarr's default for what was never written, which xarray takes for a code: no rain would be no data.
                del var.attrs["_FillValue"]
            fill.declare(var)
        data = xr.decode_cf(raw, decode_times=False, decode_timedelta=False)
        data = data.assign({key: lazy.named(var.variable, f"{path}: {key}") for key, var in data.data_vars.items()})
    except BaseException:
        raw.close()
        raise
    data.set_close(raw.close)
    return data


def as_stored(path: Path | str | RawIOBase, kind: Format, group: str | None = None) -> xr.Dataset:
    """Open with the engine of a format, nothing decoded, after a look for what a file may not do.

    Raises:
        InputError: it may do what is not allowed; what damaged files raise is not translated.
    """
    decoders = ("mask_and_scale", "decode_times", "decode_timedelta", "concat_characters", "decode_coords")
    plain: dict[str, Any] = {**dict.fromkeys(decoders, False), "cache": False, "chunks": None}
    if kind is Format.NETCDF3:
        check_whole(_local(path))
        raw = xr.open_dataset(_local(path), engine=backends.ScipyBackendEntrypoint, **plain)
    elif kind is Format.HDF5:
        _check_hdf5(path if isinstance(path, RawIOBase) else Path(path), group)
        engine = backends.H5netcdfBackendEntrypoint
        source: Any = path  # a stream is one, whatever xarray's types say
        raw = xr.open_dataset(source, engine=engine, group=group, phony_dims="access", **plain)
    else:
        store, how = _store(path), {"engine": backends.ZarrBackendEntrypoint, "group": group, **plain}
        try:
            raw = xr.open_dataset(store, consolidated=True, **how)
        except (KeyError, ValueError):  # no consolidated metadata
            raw = xr.open_dataset(store, consolidated=False, **how)
    return raw


def _store(path: Path | str | RawIOBase) -> Any:
    """A Zarr store, looked through; zarr takes a while to import."""
    if isinstance(path, str):
        from pipelines.weather.formats.addresses import open_remote

        return open_remote(path)
    from pipelines.weather.formats.stores import open_store

    return open_store(_local(path))


def _local(path: Path | str | RawIOBase) -> Path:
    """A path; what is read as a stream is NetCDF 4."""
    assert not isinstance(path, RawIOBase)
    return Path(path)


def _check_hdf5(path: Path | RawIOBase, group: str | None) -> None:
    """Look through a file before h5netcdf does, which leaves a traceback behind where it fails.

    Raises:
        InputError: it reads other files, or a coordinate, which has to be read whole, would not fit into memory.
        OSError, RuntimeError, KeyError: the file is damaged.
    """
    import h5py

    check_alone(path)
    with h5py.File(path) as file:
        inside = file if group is None else file[group]
        if None in inside.values():
            lost = next(key for key, item in inside.items() if item is None)
            raise OSError(f"{lost} is not where the file says")
        for item in (inside, *inside.values()):
            _ = list(item.attrs)
            if isinstance(item, h5py.Dataset) and item.ndim == 1 and item.nbytes > _INDEX_BYTES:
                size = f"{path}: {item.name} decodes to {item.nbytes / 2**30:.1f} GB"
                raise InputError(f"{size}, coordinates of 256 MB at most are read; cut it")


def _only_group(path: Path | str | RawIOBase, kind: Format) -> str:
    """The group that holds the variables."""
    if kind is Format.NETCDF3:
        raise InputError(f"{path}: holds no variable; fetch the file again")
    if kind is Format.HDF5:
        import h5py

        with h5py.File(path) as file:
            names = [key for key, item in file.items() if isinstance(item, h5py.Group)]
    else:
        import zarr

        names = sorted(key for key, _ in zarr.open_group(_store(path), mode="r").groups())
    if "Grid" in names or len(names) == 1:
        return "Grid" if "Grid" in names else names[0]
    if not names:
        raise InputError(f"{path}: holds no variable; fetch the file again")
    raise InputError(f"{path}: its variables lie in groups: {', '.join(names)}; choose one (--group)")


def _phony(data: xr.Dataset) -> xr.Dataset:
    """HDF5 without dimension scales: dimensions by the attribute DimensionNames, as IMERG has it."""
    names: dict[Hashable, str] = {}
    for key, var in data.variables.items():
        said = [text.strip() for text in str(var.attrs.get("DimensionNames", "")).split(",") if text.strip()]
        said = said if len(said) == var.ndim else [str(key)] if var.ndim == 1 else []
        names |= {dim: text for dim, text in zip(var.dims, said, strict=False) if str(dim).startswith("phony_dim")}
    if not names or len(set(names.values())) < len(names):
        return data
    own = {dim: name for dim, name in names.items() if name in data.variables and data[name].dims == (dim,)}
    return data.swap_dims(own).rename_dims({dim: name for dim, name in names.items() if dim not in own})


def by_grid(data: xr.Dataset) -> list[xr.Dataset]:
    """Datasets by grid and time axis: a file may hold fields on several."""
    horizontal: dict[frozenset[Hashable], list[Hashable]] = {}
    for key, var in data.data_vars.items():
        if var.ndim >= 2 and var.dtype.kind in "fiub" and not str(key).endswith(("_bnds", "_bounds")):
            horizontal.setdefault(frozenset(var.dims), []).append(key)
    sets = [dims for dims in horizontal if not any(dims < other for other in horizontal)]
    if len(sets) < 2:
        return [data]
    limits = {d for d, size in data.sizes.items() if size == 2 and str(d).lower() in ("bnds", "nv", "bound", "nbnd")}
    taken: set[Hashable] = set()
    out = []
    for dims in sets:
        mine = [key for own, keys in horizontal.items() if own <= dims for key in keys if key not in taken]
        others = {key for keys in horizontal.values() for key in keys} - set(mine)
        taken |= set(mine)
        out.append(data.drop_vars(others).drop_dims(set(data.dims) - dims - limits, errors="ignore"))
    return out
