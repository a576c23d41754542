"""Arrays that are computed where they are indexed: joined, scaled, turned and differenced without being read.

xarray does this for what it decodes itself; here it is done for what follows, so that opening many files costs their
headers and reading a window costs that window. Each operation is a small picklable function of a selection, one slice
or index array per dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from models.errors import InputError, RunError

# What libraries raise where a file is damaged.
DAMAGE = (OSError, ValueError, LookupError, TypeError, RuntimeError, OverflowError, EOFError)

Selection = tuple[slice | np.ndarray, ...]
Read = Callable[[Selection], np.ndarray]


def line(error: Exception) -> str:
    """An error on one line."""
    return " ".join(str(error).split()) or type(error).__name__


class _Array(BackendArray):
    """An array by its shape and a function that reads a selection of it."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any], read: Read) -> None:
        self.shape, self.dtype, self._read = shape, dtype, read

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._get)

    def _get(self, key: tuple[Any, ...]) -> np.ndarray:
        selection = tuple(_plain(item, size) for item, size in zip(key, self.shape, strict=True))
        squeezed = tuple(0 if np.ndim(item) == 0 and not isinstance(item, slice) else slice(None) for item in key)
        return np.asarray(self._read(selection)[squeezed])


def _plain(item: Any, size: int) -> slice | np.ndarray:
    """A slice that steps forward where the positions allow it, else an array of positions."""
    found = positions(item, size) if isinstance(item, slice) else np.atleast_1d(np.asarray(item))
    found = np.where(found < 0, found + size, found)
    if not len(found):
        return slice(0, 0)
    if len(found) == 1:
        return slice(int(found[0]), int(found[0]) + 1)
    steps = np.diff(found)
    if steps[0] > 0 and (steps == steps[0]).all():
        return slice(int(found[0]), int(found[-1]) + 1, int(steps[0]))
    return found


def variable(dims: Sequence[Hashable], shape: Sequence[int], dtype: Any, read: Read, like: Any = None) -> xr.Variable:
    """A variable whose values come from `read` when they are indexed, with the attributes and encoding of `like`."""
    array = indexing.LazilyIndexedArray(_Array(tuple(shape), np.dtype(dtype), read))
    attrs, encoding = ({}, {}) if like is None else (dict(like.attrs), dict(like.encoding))
    return xr.Variable(tuple(dims), array, attrs, encoding)


def values(source: xr.Variable, selection: Selection) -> np.ndarray:
    """The values of a variable under a selection."""
    return np.asarray(source[selection].values)


def positions(item: slice | np.ndarray, size: int) -> np.ndarray:
    """The positions that a part of a selection names in a dimension of a size."""
    return np.arange(*item.indices(size)) if isinstance(item, slice) else item


def _along(selection: Selection, axis: int, item: slice | np.ndarray) -> Selection:
    """A selection with another one along an axis."""
    return (*selection[:axis], item, *selection[axis + 1 :])


def named(source: xr.Variable, where: str) -> xr.Variable:
    """The variable; a RunError of one line tells `where`, its file and name, when reading it fails."""
    if source._in_memory:
        return source
    return variable(source.dims, source.shape, source.dtype, partial(_read_named, source, where), source)


def _read_named(source: xr.Variable, where: str, selection: Selection) -> np.ndarray:
    try:
        return values(source, selection)
    except DAMAGE as error:
        raise RunError(f"{where} cannot be read ({line(error)}); fetch the file again") from error


def scaled(
    source: xr.Variable,
    scale: float | np.ndarray = 1.0,
    offset: float = 0.0,
    *,
    missing: Sequence[float] = (),
    limits: tuple[float, float] | None = None,
) -> xr.Variable:
    """The variable times `scale` plus `offset`, with NaN where the raw value is in `missing` or outside of `limits`.

    Args:
        source: any numeric variable; integers become float32 where that holds them exactly, else float64.
        scale: a number, or an array of as many dimensions, each of length 1 or that of the variable.
        offset: added after scaling.
        missing: raw values that mean no data.
        limits: the least and the greatest raw value that means any.
    """
    dtype = source.dtype
    if not np.issubdtype(dtype, np.floating):
        dtype = np.dtype(np.float32 if dtype.itemsize <= 2 else np.float64)
    read = partial(_read_scaled, source, np.asarray(scale, np.float64), offset, tuple(missing), limits, dtype)
    return variable(source.dims, source.shape, dtype, read, source)


def _read_scaled(
    source: xr.Variable,
    scale: np.ndarray,
    offset: float,
    missing: tuple[float, ...],
    limits: tuple[float, float] | None,
    dtype: np.dtype[Any],
    selection: Selection,
) -> np.ndarray:
    raw = values(source, selection)
    out = raw.astype(dtype)
    for code in missing:
        out[raw == raw.dtype.type(code)] = np.nan
    if limits is not None:
        out[(raw < limits[0]) | (raw > limits[1])] = np.nan
    if scale.ndim:
        chosen = [item if size > 1 else slice(None) for item, size in zip(selection, scale.shape, strict=True)]
        scale = scale[np.ix_(*map(positions, chosen, scale.shape))]
    return np.asarray(out * scale + offset, dtype)


def joined(parts: Sequence[xr.Variable], dim: Hashable) -> xr.Variable:
    """Variables of the same dimensions, one after the other along one of them; attributes are those of the first.

    Raises:
        ValueError: dimensions or other sizes differ.
    """
    first = parts[0]
    if len(parts) == 1:
        return first
    axis = first.dims.index(dim)
    for part in parts[1:]:
        if part.dims != first.dims or _but(part.shape, axis) != _but(first.shape, axis):
            raise ValueError(f"{dict(part.sizes)} cannot follow {dict(first.sizes)} along {dim}")
    starts = np.cumsum([0, *(part.shape[axis] for part in parts)])
    dtype = np.result_type(*(part.dtype for part in parts))
    shape = (*first.shape[:axis], int(starts[-1]), *first.shape[axis + 1 :])
    return variable(first.dims, shape, dtype, partial(_read_joined, tuple(parts), axis, starts, dtype), first)


def _but(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    """A shape without one axis."""
    return shape[:axis] + shape[axis + 1 :]


def _read_joined(
    parts: tuple[xr.Variable, ...], axis: int, starts: np.ndarray, dtype: np.dtype[Any], selection: Selection
) -> np.ndarray:
    wanted = positions(selection[axis], int(starts[-1]))
    if not len(wanted):
        return values(parts[0], _along(selection, axis, slice(0, 0))).astype(dtype)
    owner = np.searchsorted(starts, wanted, side="right") - 1
    pieces = []
    # Neighbours of the same part are read at once, in the order wanted.
    for run in np.split(np.arange(len(wanted)), np.flatnonzero(np.diff(owner)) + 1):
        part = int(owner[run[0]])
        inside = _plain(wanted[run] - starts[part], parts[part].shape[axis])
        pieces.append(values(parts[part], _along(selection, axis, inside)).astype(dtype, copy=False))
    return np.concatenate(pieces, axis=axis)


def runs(source: xr.Variable, dim: Hashable, spans: Sequence[tuple[int, int]]) -> xr.Variable:
    """Spans (first, last + 1) of a dimension, one after the other."""
    return joined([source.isel({dim: slice(first, stop)}) for first, stop in spans], dim)


def turned(source: xr.Variable, dims: Sequence[Hashable]) -> xr.Variable:
    """The variable with its dimensions in the order of `dims`; those that it lacks get length 1."""
    if tuple(dims) == source.dims:
        return source
    order = tuple(source.dims.index(dim) if dim in source.dims else None for dim in dims)
    shape = [1 if place is None else source.shape[place] for place in order]
    return variable(dims, shape, source.dtype, partial(_read_turned, source, order), source)


def _read_turned(source: xr.Variable, order: tuple[int | None, ...], selection: Selection) -> np.ndarray:
    inner: list[Any] = [slice(None)] * source.ndim
    for item, place in zip(selection, order, strict=True):
        if place is not None:
            inner[place] = item
    read = values(source, tuple(inner)).transpose([place for place in order if place is not None])
    new = tuple(axis for axis, place in enumerate(order) if place is None)
    lengths = {axis: len(positions(selection[axis], 1)) for axis in new}
    full = np.expand_dims(read, new)
    return np.asarray(np.broadcast_to(full, [lengths.get(axis, size) for axis, size in enumerate(full.shape)]))


def differences(source: xr.Variable, dim: Hashable, before: np.ndarray, *, slack: float, where: str) -> xr.Variable:
    """Amounts of each step out of running totals: the total minus the one before, where there is one.

    Args:
        source: totals since a start.
        dim: the dimension of steps.
        before: for each step the position of the step before it with the same start, -1 where it is the first.
        slack: how far a total may fall, as a share of the largest total, before it is no rounding of packed values.
        where: file and variable, for the message of the InputError that reading raises where a total falls further.
    """
    read = partial(_read_differences, source, source.dims.index(dim), before, slack, where)
    return variable(source.dims, source.shape, source.dtype, read, source)


def _read_differences(
    source: xr.Variable, axis: int, before: np.ndarray, slack: float, where: str, selection: Selection
) -> np.ndarray:
    wanted = positions(selection[axis], len(before))
    needed = np.unique(np.concatenate([wanted, before[wanted]]))
    needed = needed[needed >= 0]
    totals = values(source, _along(selection, axis, _plain(needed, len(before))))
    totals = np.moveaxis(totals, axis, 0)
    out = totals[np.searchsorted(needed, wanted)]  # (steps, ...)
    later = before[wanted] >= 0
    previous = totals[np.searchsorted(needed, before[wanted][later])]
    out[later] = _amounts(out[later], previous, slack, where)
    return np.asarray(np.moveaxis(out, 0, axis))


def _amounts(totals: np.ndarray, previous: np.ndarray, slack: float, where: str) -> np.ndarray:
    """Totals minus previous ones, 0 for what packing made slightly negative."""
    amounts = totals - previous
    fall = -float(np.nanmin(amounts, initial=0.0))
    if fall > slack * float(np.nanmax(np.abs(previous), initial=0.0)):
        raise InputError(
            f"{where}: a running total falls by {fall:g} within one forecast, amounts cannot be negative; correct the "
            "bounds of its times, which say where totals begin anew"
        )
    return np.asarray(np.maximum(amounts, 0.0))
