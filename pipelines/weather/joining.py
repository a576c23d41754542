"""Datasets side by side, or one after the other in time; and why they do not go together."""

from __future__ import annotations

import difflib
from collections.abc import Hashable, Sequence

import numpy as np
import xarray as xr

from models.errors import InputError
from pipelines.weather import canonical, intervals, lazy, units

_SAME_PLACE = 0.01


def source_name(data: xr.Dataset | xr.DataArray) -> str:
    """The file that a dataset came from."""
    return str(data.attrs.get("earthtune_source", "dataset"))


def having(parts: list[xr.Dataset], variables: Sequence[str]) -> list[xr.Dataset]:
    """The parts of datasets that hold wanted variables.

    Raises:
        InputError: none holds one of them.
    """
    names = list(dict.fromkeys(str(key) for part in parts for key in part.data_vars))
    for variable in variables:
        if variable not in names:
            left = [note for part in parts for note in canonical.notes_of(part) if f" {variable} " in note]
            told = instead(variable, names, *left[:1])
            raise InputError(f"{source_name(parts[0])}: variable {variable} is wanted{told}")
    kept = [[key for key in part.data_vars if key in variables] for part in parts]
    return [part[keys] for part, keys in zip(parts, kept, strict=True) if keys]


def require_variables(data: xr.Dataset, variables: Sequence[str]) -> None:
    """Check that variables are there."""
    names = [str(key) for key in data.data_vars]
    for variable in variables:
        if variable not in names:
            raise InputError(f"{source_name(data)}: variable {variable} is wanted{instead(variable, names)}")


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


def merged(parts: list[xr.Dataset]) -> list[xr.Dataset]:
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


def joined(parts: list[xr.Dataset]) -> xr.Dataset:
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
            names = f"{', '.join(twice)} is in {source_name(data)} too"
            raise InputError(f"{source_name(part)}: {names}; name the variables that you want")
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
        f"{source_name(two)}: {names[1]} ({spans[1]}) and {names[0]} of {source_name(one)} ({spans[0]}) have other "
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
    """Datasets of the same variables, one after the other in time."""
    if len(members) == 1:
        return members[0]
    for member in members:
        if "time" not in member.dims:
            raise InputError(
                f"{source_name(member)}: a time axis is wanted to join files, there is none; pass dated files"
            )
    members = sorted(members, key=lambda member: member["time"].values[0])
    first = members[0]
    for member in members[1:]:
        for dim in [str(dim) for dim in (*first.dims, *member.dims) if dim != "time"]:
            if not _same_axis(first, member, dim):
                raise InputError(_apart(first, member, dim))
    members = [_like(member, first) for member in members]
    times = np.concatenate([member["time"].values for member in members])
    order = np.argsort(times, kind="stable")
    again = np.flatnonzero(np.diff(times[order]) == np.timedelta64(0))
    if len(again):
        owner = np.repeat(np.arange(len(members)), [member.sizes["time"] for member in members])[order]
        one, two = (source_name(members[owner[again[0] + at]]) for at in (0, 1))
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
            changed[key] = intervals.in_unit(var, str(wanted), name=source_name(member))
    return member.assign(changed)


def _concatenated(members: list[xr.Dataset]) -> xr.Dataset:
    """Datasets one after the other in time."""
    first = members[0]
    fields = {key: var.variable for key, var in first.data_vars.items()}
    for key in [key for key, var in fields.items() if "time" in var.dims]:
        fields[key] = lazy.joined([member[key].variable for member in members], "time")
    coords = {key: var.variable for key, var in first.coords.items() if "time" not in var.dims}
    for key in ("time", "interval_start", "interval_end"):
        if all(key in member.coords for member in members):
            stamps = np.concatenate([member[key].values for member in members])
            coords[key] = xr.Variable(("time",), stamps, first[key].attrs)
    data = xr.Dataset(fields, coords, first.attrs)
    return canonical.noted(data, [note for member in members for note in canonical.notes_of(member)])
