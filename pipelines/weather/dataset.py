"""Weather files - NetCDF, Zarr, GRIB, one or many - as one canonical xarray.Dataset, read where it is indexed."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from models.errors import InputError
from pipelines.weather import canonical, fill, intervals, lazy, units
from pipelines.weather.formats.detect import Format, format_of
from pipelines.weather.formats.netcdf3 import check_whole

_SAME_PLACE = 0.01
_INDEX_BYTES = 1 << 28


def open_weather(
    source: str | Path | Sequence[str | Path],
    variables: Sequence[str] | None = None,
    *,
    levels: Sequence[float] | None = None,
    to_units: Mapping[str, str] | None = None,
    stamp: intervals.Stamp | None = None,
    hours: float | None = None,
    group: str | None = None,
) -> xr.Dataset:
    """Open weather files as one dataset in the canonical form (see `canonical`); headers are read, values are not.

    Files of the same variables follow each other in time; files of other variables for the same times go side by side.

    Args:
        source: a file or Zarr store, or a sequence of these.
        variables: names wanted, in this order; None takes all.
        levels: labels of the levels wanted; they come rising. None takes all.
        to_units: wanted unit by variable; `mm/h` makes rates of amounts, see `intervals.in_unit`.
        stamp: where in its interval the time of a mean or an amount lies, where the files do not tell.
        hours: length of that interval; None takes the step of the times.
        group: group of an HDF5 file or Zarr store; None finds IMERG's `Grid`, or the only one there is.

    Raises:
        InputError: a file is missing, damaged or no weather file; names, levels or units are not there; files do not
            fit together; times come twice.
    """
    paths = [Path(source)] if isinstance(source, str | Path) else [Path(item) for item in source]
    if not paths:
        raise InputError("no weather file given: pass a file, or several")
    parts = [part for path in paths for part in open_parts(path, group=group)]
    if variables is not None:
        if not variables:
            raise InputError(f"{paths[0]}: no variable is wanted; name some, or leave variables out for all")
        parts = _having(parts, variables)
    if levels is not None:
        if not any("level" in part.dims for part in parts):
            raise InputError(f"{_name(parts[0])}: levels are wanted and it has none; leave them out")
        parts = [select_levels(part, levels, name=_name(part)) if "level" in part.dims else part for part in parts]
    data = _one(parts)
    data = data if variables is None else data[list(variables)]
    data = intervals.with_intervals(data, stamp=stamp, hours=hours, name=_name(data))
    for key, unit in (to_units or {}).items():
        _present(data, [key])
        data = data.assign({key: intervals.in_unit(data[key], unit, name=_name(data))})
    return canonical.check(data, name=_name(data))


def open_parts(path: Path, *, group: str | None = None) -> list[xr.Dataset]:
    """What a file holds, in the canonical form: one dataset per set of variables that share times, levels and grid.

    Raises:
        InputError: as in `open_weather`.
    """
    kind = format_of(path)
    if kind is Format.GRIB:
        from pipelines.weather.formats.grib import open_grib

        raw = open_grib(path)
    else:
        raw = _split(_open(path, kind, group))
    parts, problems = [], []
    for part in raw:
        try:
            parts.append(canonical.to_canonical(part, name=str(path)).assign_attrs(earthtune_source=path.name))
        except InputError as error:
            problems.append(str(error))
    if not parts:
        raise InputError(problems[0])
    parts[0] = canonical.noted(parts[0], [*canonical.notes_of(parts[0]), *(f"left out: {text}" for text in problems)])
    return _merged(parts)


def select_levels(data: xr.Dataset, levels: Sequence[float], *, name: str = "dataset") -> xr.Dataset:
    """The levels of these labels (hPa, or model level numbers), rising.

    Raises:
        InputError: none is wanted, or one is not there; the message lists those that are.
    """
    if not levels:
        raise InputError(f"{name}: no level is wanted; name some, or leave levels out for all")
    there = data["level"].values
    unit = data["level"].attrs.get("units", "")
    at = []
    for level in sorted(set(levels)):
        near = np.flatnonzero(np.abs(there - level) <= 1e-6 * max(abs(level), 1.0))
        if not len(near):
            listed = ", ".join(f"{label:g}" for label in there)
            raise InputError(f"{name}: level {level:g} is wanted, it has {listed} {unit}".rstrip())
        at.append(int(near[0]))
    return data.isel(level=at)


def one_forecast(data: xr.Dataset, reference: str, *, name: str = "dataset") -> xr.Dataset:
    """One of several forecasts that overlap, on a time axis of valid times; totals get the interval from its start.

    Args:
        data: canonical dataset with reference_time and lead_time.
        reference: start of the forecast, YYYY-MM-DDTHH:MM.
        name: file name, for messages.

    Raises:
        InputError: the dataset does not hold several forecasts, or none that starts then.
    """
    if "reference_time" not in data.dims or "lead_time" not in data.dims:
        raise InputError(f"{name}: a forecast is to be chosen and it does not hold several; use it as it is")
    starts = data["reference_time"].values
    at = np.flatnonzero(starts == np.datetime64(reference))
    if not len(at):
        listed = ", ".join(np.datetime_as_string(start, "m") for start in starts[:10])
        raise InputError(f"{name}: the forecast of {reference} is wanted, it has those of {listed}")
    start = starts[at[0]]
    chosen = data.isel(reference_time=int(at[0])).rename(lead_time="time")
    chosen = chosen.assign_coords(time=("time", start + data["lead_time"].values, {"standard_name": "time"}))
    sums = [key for key, var in chosen.data_vars.items() if var.attrs.get("cell_methods") == "time: sum"]
    if sums:
        begins = np.full(chosen.sizes["time"], start)
        chosen = chosen.assign_coords(interval_start=("time", begins), interval_end=("time", chosen["time"].values))
    return chosen


def require_step(data: xr.Dataset, *, name: str = "dataset") -> np.timedelta64:
    """The step of the times.

    Raises:
        InputError: there is no time axis, only one time, or a gap; the message says where.
    """
    if "time" not in data.dims:
        raise InputError(f"{name}: a time axis is wanted and there is none; pass dated files")
    times = data["time"].values
    if len(times) < 2:
        raise InputError(f"{name}: two times or more are wanted, it has {len(times)}; pass more files")
    steps = np.diff(times)
    step: np.timedelta64 = np.min(steps)
    wide = np.flatnonzero(steps != step)
    if len(wide):
        first, last = (np.datetime_as_string(times[wide[0] + at], "m") for at in (0, 1))
        raise InputError(
            f"{name}: a gap in time from {first} to {last} ({len(wide)} such), steps of {_hours(step)} are wanted; add "
            "the files that are missing, or select times without a gap"
        )
    return step


def require_data(field: xr.DataArray, *, name: str = "dataset") -> np.ndarray:
    """The values of a field, read now, float32.

    Raises:
        InputError: there is no data in it at all.
    """
    values = np.asarray(field.values, np.float32)
    if not np.isfinite(values).any():
        raise InputError(
            f"{name}: {field.name} has no data at all in what was read; choose other times, levels or a region"
        )
    return values


def _hours(step: np.timedelta64) -> str:
    """A step as text."""
    hours = float(step / np.timedelta64(1, "h"))
    return f"{hours:g} h"


# --- opening ------------------------------------------------------------------------------------------------------


def _open(path: Path, kind: Format, group: str | None) -> xr.Dataset:
    """A NetCDF file or Zarr store as xarray decodes it, times left for `canonical`.

    The engine is passed as a class: by name, xarray would import every engine that is installed.

    Raises:
        InputError: it cannot be read, or its variables lie in groups and none is chosen.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data = _decoded(path, kind, group)
            if group is None and not data.data_vars:
                data = _decoded(path, kind, _only_group(path, kind))
    except InputError:
        raise
    except lazy.DAMAGE as error:
        line = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: cannot be read as {kind.value} ({line}); fetch the file again") from error
    return _phony(data)


def _decoded(path: Path, kind: Format, group: str | None) -> xr.Dataset:
    """Open with the engine of a format."""
    from xarray import backends

    decoders = ("mask_and_scale", "decode_times", "decode_timedelta", "concat_characters", "decode_coords")
    plain: dict[str, Any] = {**dict.fromkeys(decoders, False), "cache": False, "chunks": None}
    if kind is Format.NETCDF3:
        check_whole(path)
        raw = xr.open_dataset(path, engine=backends.ScipyBackendEntrypoint, **plain)
    elif kind is Format.HDF5:
        _check_hdf5(path, group)
        engine = backends.H5netcdfBackendEntrypoint
        raw = xr.open_dataset(path, engine=engine, group=group, phony_dims="access", **plain)
    else:
        store: dict[str, Any] = {"engine": backends.ZarrBackendEntrypoint, "group": group, **plain}
        try:
            raw = xr.open_dataset(path, consolidated=True, **store)
        except (KeyError, ValueError):  # no consolidated metadata
            raw = xr.open_dataset(path, consolidated=False, **store)
    for key, var in raw.variables.items():
        if kind is Format.ZARR and (var.dtype.kind == "f" or var.dims == (key,)) and var.attrs.get("_FillValue") == 0:
            # Zarr's default for what was never written, which xarray takes for a code: no rain would be no data.
            del var.attrs["_FillValue"]
        fill.declare(var)
    data = xr.decode_cf(raw, decode_times=False, decode_timedelta=False)
    return data.assign({key: lazy.named(var.variable, f"{path}: {key}") for key, var in data.data_vars.items()})


def _check_hdf5(path: Path, group: str | None) -> None:
    """Look through a file before h5netcdf does, which leaves a traceback behind where it fails.

    Raises:
        InputError: a coordinate, which has to be read whole, would not fit into memory.
        OSError, RuntimeError, KeyError: the file is damaged.
    """
    import h5py

    with h5py.File(path) as file:
        inside = file if group is None else file[group]
        if None in inside.values():
            lost = next(key for key, item in inside.items() if item is None)
            raise OSError(f"{lost} is not where the file says")
        for item in (inside, *inside.values()):
            _ = list(item.attrs)
            if isinstance(item, h5py.Dataset) and item.ndim == 1 and item.nbytes > _INDEX_BYTES:
                size = f"{item.nbytes / 2**30:.1f} GB"
                raise InputError(
                    f"{path}: {item.name} decodes to {size}, coordinates of 256 MB at most are read; cut it"
                )


def _only_group(path: Path, kind: Format) -> str:
    """The group that holds the variables.

    Raises:
        InputError: there is none, or there are several and none is IMERG's.
    """
    if kind is Format.NETCDF3:
        raise InputError(f"{path}: holds no variable; fetch the file again")
    if kind is Format.HDF5:
        import h5py

        with h5py.File(path) as file:
            names = [key for key, item in file.items() if isinstance(item, h5py.Group)]
    else:
        import zarr

        names = sorted(key for key, _ in zarr.open_group(path, mode="r").groups())
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
    if not names:
        return data
    if len(set(names.values())) < len(names):
        return data
    own = {dim: name for dim, name in names.items() if name in data.variables and data[name].dims == (dim,)}
    return data.swap_dims(own).rename_dims({dim: name for dim, name in names.items() if dim not in own})


def _split(data: xr.Dataset) -> list[xr.Dataset]:
    """Datasets by grid and time axis: a file may hold fields on several."""
    horizontal: dict[frozenset[Hashable], list[Hashable]] = {}
    for key, var in data.data_vars.items():
        if var.ndim >= 2 and var.dtype.kind in "fiub" and not str(key).endswith(("_bnds", "_bounds")):
            horizontal.setdefault(frozenset(var.dims), []).append(key)
    sets = [dims for dims in horizontal if not any(dims < other for other in horizontal)]
    if len(sets) < 2:
        return [data]
    taken: set[Hashable] = set()
    out = []
    for dims in sets:
        mine = [key for own, keys in horizontal.items() if own <= dims for key in keys if key not in taken]
        others = {key for keys in horizontal.values() for key in keys} - set(mine)
        taken |= set(mine)
        out.append(data.drop_vars(others).drop_dims(set(data.dims) - dims - _two(data), errors="ignore"))
    return out


def _two(data: xr.Dataset) -> set[Hashable]:
    """Dimensions of limits."""
    return {
        dim for dim, size in data.sizes.items() if size == 2 and str(dim).lower() in ("bnds", "nv", "bound", "nbnd")
    }


# --- together -----------------------------------------------------------------------------------------------------


def _name(data: xr.Dataset) -> str:
    """The file that a dataset came from."""
    return str(data.attrs.get("earthtune_source", "dataset"))


def _having(parts: list[xr.Dataset], variables: Sequence[str]) -> list[xr.Dataset]:
    """The parts of datasets that hold wanted variables.

    Raises:
        InputError: none holds one of them.
    """
    names = list(dict.fromkeys(str(key) for part in parts for key in part.data_vars))
    for variable in variables:
        if variable not in names:
            left = [note for part in parts for note in canonical.notes_of(part) if f" {variable} " in note]
            raise InputError(f"{_name(parts[0])}: variable {variable} is wanted{instead(variable, names, *left[:1])}")
    kept = [[key for key in part.data_vars if key in variables] for part in parts]
    return [part[keys] for part, keys in zip(parts, kept, strict=True) if keys]


def _present(data: xr.Dataset, variables: Sequence[str]) -> None:
    """Check that variables are there."""
    names = [str(key) for key in data.data_vars]
    for variable in variables:
        if variable not in names:
            raise InputError(f"{_name(data)}: variable {variable} is wanted{instead(variable, names)}")


def instead(variable: str, names: list[str], *reasons: str) -> str:
    """What to try in place of a name that is not there, the names that are, and why it is not."""
    lower = {name.lower(): name for name in names}
    near = [name for name in names if name.startswith(f"{variable}_")][:3]  # of several kinds of level or step
    near = near or [lower[text] for text in difflib.get_close_matches(variable.lower(), lower, 3, 0.5)]
    hint = f" (did you mean {' or '.join(near)}?)" if near else ""
    listed = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
    return "; ".join([f"{hint}, it has {listed}", *reasons])


def _same_axis(one: xr.Dataset, two: xr.Dataset, dim: str) -> bool:
    """Whether two datasets agree in a dimension, to a hundredth of a step."""
    if (dim in one.dims) != (dim in two.dims) or dim not in one.dims:
        return (dim in one.dims) == (dim in two.dims)
    if one.sizes[dim] != two.sizes[dim]:
        return False
    if dim not in one.indexes or dim not in two.indexes:
        return dim not in one.indexes and dim not in two.indexes
    first, second = one[dim].values, two[dim].values
    if first.dtype.kind == "M":
        return bool((first == second).all())
    step = float(np.abs(np.diff(first)).min()) if len(first) > 1 else 1.0
    return bool(np.abs(first - second).max() <= _SAME_PLACE * step)


def _difference(one: xr.Dataset, two: xr.Dataset) -> str | None:
    """The first dimension in which two datasets cannot go side by side."""
    for dim in ("lat", "lon", "y", "x", "level", "time", "reference_time", "lead_time", "number"):
        shared = dim in one.dims and dim in two.dims
        static = dim in ("level", "time", "number") and not shared
        if not static and not _same_axis(one, two, dim):
            return dim
    spans = ("interval_start", "interval_end")
    if any(key in one.coords and key in two.coords and not one[key].equals(two[key]) for key in spans):
        return "interval"
    return None


def _merged(parts: list[xr.Dataset]) -> list[xr.Dataset]:
    """Datasets put side by side where they agree in every dimension."""
    out: list[xr.Dataset] = []
    for part in parts:
        for at, other in enumerate(out):
            if _difference(other, part) is None and not set(other.data_vars) & set(part.data_vars):
                out[at] = _beside(other, part)
                break
        else:
            out.append(part)
    return out


def _beside(one: xr.Dataset, two: xr.Dataset) -> xr.Dataset:
    """Two datasets that agree as one, on the coordinates of the first."""
    own = {dim: one[dim] for dim in two.dims if dim in one.indexes}
    both = one.assign_coords({k: v for k, v in two.coords.items() if k not in one.coords})
    both = both.assign({key: var.variable for key, var in two.assign_coords(own).data_vars.items()})
    return canonical.noted(both, [*canonical.notes_of(one), *canonical.notes_of(two)])


def _one(parts: list[xr.Dataset]) -> xr.Dataset:
    """Datasets as one: those of the same variables follow in time, then the rest goes side by side.

    Raises:
        InputError: they differ in grid, levels or times.
    """
    series: dict[frozenset[Hashable], list[xr.Dataset]] = {}
    for part in parts:
        series.setdefault(frozenset(part.data_vars), []).append(part)
    whole = [_in_time(members) for members in series.values()]
    data = whole[0]
    for part in whole[1:]:
        twice = sorted(str(key) for key in set(data.data_vars) & set(part.data_vars))
        if twice:
            raise InputError(
                f"{_name(part)}: {', '.join(twice)} is in {_name(data)} too; name the variables that you want"
            )
        dim = _difference(data, part)
        if dim is not None:
            raise InputError(_apart(data, part, dim))
        data = _beside(data, part)
    return data


def _apart(one: xr.Dataset, two: xr.Dataset, dim: str) -> str:
    """Why two datasets do not go together."""
    names = [", ".join(str(key) for key in list(part.data_vars)[:4]) for part in (one, two)]
    what = {**dict.fromkeys(("lat", "lon", "y", "x"), "grids"), "level": "levels", "number": "members"}
    what |= {"interval": "intervals"}
    spans = [_span(part, dim) for part in (one, two)]
    return (
        f"{_name(two)}: {names[1]} ({spans[1]}) and {names[0]} of {_name(one)} ({spans[0]}) have other "
        f"{what.get(dim, 'times')}; open them apart, or name variables and levels that agree"
    )


def _span(data: xr.Dataset, dim: str) -> str:
    """A dimension in words."""
    dim = "time" if dim == "interval" else dim
    if dim not in data.dims:
        return f"no {dim}"
    if dim not in data.indexes:
        return f"{data.sizes[dim]} {dim}"
    first, last = data[dim].values[0], data[dim].values[-1]
    if data[dim].dtype.kind == "M":
        return f"{data.sizes[dim]} times {np.datetime_as_string(first, 'm')}..{np.datetime_as_string(last, 'm')}"
    return f"{data.sizes[dim]} {dim} {first:g}..{last:g}"


def _in_time(members: list[xr.Dataset]) -> xr.Dataset:
    """Datasets of the same variables, one after the other in time.

    Raises:
        InputError: there is no time axis, a time comes twice, or grids, levels or units differ.
    """
    if len(members) == 1:
        return members[0]
    for member in members:
        if "time" not in member.dims:
            raise InputError(f"{_name(member)}: a time axis is wanted to join files, there is none; pass dated files")
    members = sorted(members, key=lambda member: member["time"].values[0])
    first = members[0]
    for member in members[1:]:
        dims = [str(dim) for dim in (*first.dims, *member.dims) if dim != "time"]
        for dim in dims:
            if not _same_axis(first, member, dim):
                raise InputError(_apart(first, member, dim))
    members = [_like(member, first) for member in members]
    times = np.concatenate([member["time"].values for member in members])
    order = np.argsort(times, kind="stable")
    again = np.flatnonzero(np.diff(times[order]) == np.timedelta64(0))
    if len(again):
        owner = np.repeat(np.arange(len(members)), [member.sizes["time"] for member in members])[order]
        one, two = (_name(members[owner[again[0] + at]]) for at in (0, 1))
        stamp = np.datetime_as_string(times[order][again[0]], "m")
        raise InputError(f"{two}: time {stamp} is in {one} too ({len(again)} such); pass each time once")
    data = _concatenated(members)
    return data if (np.diff(order) == 1).all() else data.isel(time=order)


def _like(member: xr.Dataset, first: xr.Dataset) -> xr.Dataset:
    """A dataset in the units of another.

    Raises:
        InputError: a variable's units cannot be converted.
    """
    changed = {}
    for key, var in member.data_vars.items():
        wanted = first[key].attrs.get("units")
        if wanted is not None and units.tidy(str(var.attrs.get("units", ""))) != units.tidy(str(wanted)):
            changed[key] = intervals.in_unit(var, str(wanted), name=_name(member))
    return member.assign(changed)


def _concatenated(members: list[xr.Dataset]) -> xr.Dataset:
    """Datasets one after the other in time."""
    first = members[0]
    fields = {}
    for key, var in first.data_vars.items():
        if "time" in var.dims:
            pieces = [member[key].variable for member in members]
            fields[key] = lazy.joined(pieces, "time")
        else:
            fields[key] = var.variable
    coords = {key: var.variable for key, var in first.coords.items() if "time" not in var.dims}
    for key in ("time", "interval_start", "interval_end"):
        if all(key in member.coords for member in members):
            stamps = np.concatenate([member[key].values for member in members])
            coords[key] = xr.Variable(("time",), stamps, first[key].attrs)
    data = xr.Dataset(fields, coords, first.attrs)
    return canonical.noted(data, [note for member in members for note in canonical.notes_of(member)])
