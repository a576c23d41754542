"""Arrays that are computed where they are indexed: joined, scaled, turned and differenced without being read.

xarray does this for what it decodes itself; here it is done for what follows, so that opening many files costs their
headers and reading a window costs that window. Each operation is a small picklable function of a selection, one slice
or index array per dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

Selection = tuple[slice | np.ndarray, ...]
Read = Callable[[Selection], np.ndarray]


class _Array(BackendArray):
    """An array by its shape and a function that reads a selection of it."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any], read: Read) -> None:
        self.shape, self.dtype, self._read = shape, dtype, read

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._get)

    def _get(self, key: tuple[Any, ...]) -> np.ndarray:
        selection = tuple(_plain(item, size) for item, size in zip(key, self.shape, strict=True))
        squeezed = tuple(0 if np.ndim(item) == 0 and not isinstance(item, slice) else slice(None) for item in key)
        values: np.ndarray = self._read(selection)[squeezed]
        return values


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
    out: np.ndarray = np.asarray(source[selection].values)
    return out


# --- operations ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Scaled:
    """raw * scale + offset, and NaN where the raw value is one of `missing`; scales may run along the dimensions."""

    source: xr.Variable
    scale: np.ndarray
    offset: float
    missing: tuple[float, ...]
    dtype: np.dtype[Any]

    def __call__(self, selection: Selection) -> np.ndarray:
        raw = values(self.source, selection)
        out = raw.astype(self.dtype)
        for code in self.missing:
            out[raw == raw.dtype.type(code)] = np.nan
        if self.scale.ndim:
            # Along its own dimensions the scale is selected, along others it has length 1.
            chosen = [s if n > 1 else slice(None) for s, n in zip(selection, self.scale.shape, strict=True)]
            return np.asarray(out * self.scale[np.ix_(*map(positions, chosen, self.scale.shape))], self.dtype)
        return np.asarray(out * self.scale + self.offset, self.dtype)


def positions(item: slice | np.ndarray, size: int) -> np.ndarray:
    """The positions that a part of a selection names in a dimension of a size."""
    if isinstance(item, slice):
        return np.arange(*item.indices(size))
    return item


def scaled(
    source: xr.Variable, scale: float | np.ndarray = 1.0, offset: float = 0.0, *, missing: Sequence[float] = ()
) -> xr.Variable:
    """The variable times `scale` plus `offset`, with NaN where the raw value is in `missing`.

    Args:
        source: any numeric variable; integers become float32 where that holds them exactly, else float64.
        scale: a number, or an array that broadcasts against the variable (then without offset).
        offset: added after scaling.
        missing: raw values that mean no data.
    """
    dtype = source.dtype
    if not np.issubdtype(dtype, np.floating):
        dtype = np.dtype(np.float32 if dtype.itemsize <= 2 else np.float64)
    factor = np.asarray(scale, np.float64)
    return variable(source.dims, source.shape, dtype, _Scaled(source, factor, offset, tuple(missing), dtype), source)


@dataclass(frozen=True)
class _Joined:
    """Pieces one after the other along an axis."""

    parts: tuple[xr.Variable, ...]
    axis: int
    starts: np.ndarray
    dtype: np.dtype[Any]

    def __call__(self, selection: Selection) -> np.ndarray:
        wanted = positions(selection[self.axis], int(self.starts[-1]))
        owner = np.searchsorted(self.starts, wanted, side="right") - 1
        pieces = []
        # Runs of the same piece are read at once, in the order wanted.
        breaks = np.flatnonzero(np.diff(owner)) + 1
        for run in np.split(np.arange(len(wanted)), breaks):
            if not len(run):
                continue
            part = int(owner[run[0]])
            inside = _plain(wanted[run] - self.starts[part], self.parts[part].shape[self.axis])
            key = (*selection[: self.axis], inside, *selection[self.axis + 1 :])
            pieces.append(values(self.parts[part], key).astype(self.dtype, copy=False))
        if not pieces:
            key = (*selection[: self.axis], slice(0, 0), *selection[self.axis + 1 :])
            return values(self.parts[0], key).astype(self.dtype, copy=False)
        return np.concatenate(pieces, axis=self.axis)


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
        others = [(d, n) for d, n in zip(part.dims, part.shape, strict=True) if d != dim]
        if part.dims != first.dims or others != [(d, n) for d, n in first.sizes.items() if d != dim]:
            raise ValueError(f"{dict(part.sizes)} cannot follow {dict(first.sizes)} along {dim}")
    starts = np.cumsum([0, *(part.shape[axis] for part in parts)])
    dtype = np.result_type(*(part.dtype for part in parts))
    shape = (*first.shape[:axis], int(starts[-1]), *first.shape[axis + 1 :])
    return variable(first.dims, shape, dtype, _Joined(tuple(parts), axis, starts, dtype), first)


@dataclass(frozen=True)
class _Turned:
    """Dimensions in another order, with new ones of length 1."""

    source: xr.Variable
    order: tuple[int | None, ...]

    def __call__(self, selection: Selection) -> np.ndarray:
        inner: list[Any] = [slice(None)] * self.source.ndim
        for item, place in zip(selection, self.order, strict=True):
            if place is not None:
                inner[place] = item
        read = values(self.source, tuple(inner)).transpose([place for place in self.order if place is not None])
        new = tuple(axis for axis, place in enumerate(self.order) if place is None)
        lengths = {axis: len(positions(selection[axis], 1)) for axis in new}
        full = np.expand_dims(read, new)
        out: np.ndarray = np.broadcast_to(full, [lengths.get(axis, size) for axis, size in enumerate(full.shape)])
        return out


def turned(source: xr.Variable, dims: Sequence[Hashable]) -> xr.Variable:
    """The variable with its dimensions in the order of `dims`; those that it lacks get length 1."""
    if tuple(dims) == source.dims:
        return source
    order = tuple(source.dims.index(dim) if dim in source.dims else None for dim in dims)
    shape = [1 if place is None else source.shape[place] for place in order]
    return variable(dims, shape, source.dtype, _Turned(source, order), source)


@dataclass(frozen=True)
class _Differences:
    """Amounts of each step out of running totals: the total minus the one before, where there is one."""

    source: xr.Variable
    axis: int
    before: np.ndarray
    slack: float
    where: str

    def __call__(self, selection: Selection) -> np.ndarray:
        wanted = positions(selection[self.axis], len(self.before))
        needed = np.unique(np.concatenate([wanted, self.before[wanted]]))
        needed = needed[needed >= 0]
        key = (*selection[: self.axis], _plain(needed, len(self.before)), *selection[self.axis + 1 :])
        totals = np.moveaxis(values(self.source, key), self.axis, 0)
        out = totals[np.searchsorted(needed, wanted)]  # (steps, ...)
        earlier = self.before[wanted] >= 0
        previous = totals[np.searchsorted(needed, self.before[wanted][earlier])]
        out[earlier] -= previous
        out[earlier] = self._clipped(out[earlier], previous)
        moved: np.ndarray = np.moveaxis(out, 0, self.axis)
        return moved

    def _clipped(self, amounts: np.ndarray, totals: np.ndarray) -> np.ndarray:
        """Zero for what packing made slightly negative.

        Raises:
            InputError: a total falls by more than that.
        """
        from models.errors import InputError

        least = self.slack * float(np.nanmax(np.abs(totals), initial=0.0))
        if np.nanmin(amounts, initial=0.0) < -least:
            raise InputError(
                f"{self.where}: a running total falls by {-np.nanmin(amounts):g} within one forecast, amounts cannot "
                "be negative; correct the bounds of its times, which say where totals begin anew"
            )
        clipped: np.ndarray = np.maximum(amounts, 0.0)
        return clipped


def differences(source: xr.Variable, dim: Hashable, before: np.ndarray, *, slack: float, where: str) -> xr.Variable:
    """Amounts per step out of running totals.

    Args:
        source: totals since a start.
        dim: the dimension of steps.
        before: for each step the position of the step before it with the same start, -1 where it is the first.
        slack: how far a total may fall, as a share of the largest total, before it is no rounding of packed values.
        where: file and variable, for the message of the InputError that reading raises where a total falls further.
    """
    axis = source.dims.index(dim)
    return variable(source.dims, source.shape, source.dtype, _Differences(source, axis, before, slack, where), source)


def runs(source: xr.Variable, dim: Hashable, spans: Sequence[tuple[int, int]]) -> xr.Variable:
    """Spans (first, last + 1) of a dimension, one after the other."""
    return joined([source.isel({dim: slice(first, stop)}) for first, stop in spans], dim)
