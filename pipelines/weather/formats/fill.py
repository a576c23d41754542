"""Which values of a variable mean that there is no data, in the words that files have for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from pipelines.weather import lazy

# NetCDF's own fill values, in force where a file declares none (netcdf.h); bytes have none.
_FILLS = {"int16": -32767, "uint16": 65535, "int32": -2147483647, "uint32": 4294967295}
_FILL_FLOAT = 9.969209968386869e36
_DECLARED = ("_FillValue", "missing_value")
_OTHERS = ("fmissing_value", "nodata", "NoData")
_NO_LIMIT = 1e15  # MERRA-2 writes it where it means none


def declare(raw: xr.Variable) -> None:
    """Put the attributes of a variable as stored so that xarray finds its missing values and keeps NaN for them.

    Codes get the variable's type, for xarray compares -999.9 of 64 bits with the nearest number of 32 in vain; packed
    integers that declare none get NetCDF's own; scales become floats, for xarray decodes by whole ones to integers.
    """
    raw.attrs.update({key: float(raw.attrs[key]) for key in ("scale_factor", "add_offset") if key in raw.attrs})
    for key in (key for key in _DECLARED if key in raw.attrs and raw.dtype.kind in "fiu"):
        codes = _numbers(raw.attrs[key], raw.dtype)
        if len(codes):
            raw.attrs[key] = codes[0] if len(codes) == 1 else codes
        elif isinstance(raw.attrs[key], str):
            del raw.attrs[key]
    packed = "scale_factor" in raw.attrs or "add_offset" in raw.attrs
    if packed and not any(key in raw.attrs for key in (*_DECLARED, "_Unsigned")) and raw.dtype.name in _FILLS:
        raw.attrs["_FillValue"] = raw.dtype.type(_FILLS[raw.dtype.name])


def masked(var: xr.Variable) -> xr.Variable:
    """The variable with NaN where its file has no data, also where it says so in other words than xarray decodes.

    Values outside of valid_range (valid_min, valid_max) are none, as the NetCDF users' guide has it.
    """
    if var.dtype.kind == "b":
        return var
    codes = () if _packed(var) else _codes(var)  # such codes are of the packed values
    limits = _limits(var)
    return lazy.scaled(var, missing=codes, limits=limits) if codes or limits else var


def _packed(var: xr.Variable) -> bool:
    """Whether a decoded variable was packed in its file."""
    return "scale_factor" in var.encoding or "add_offset" in var.encoding


def _codes(var: xr.Variable) -> tuple[float, ...]:
    """Values of an unpacked variable that mean no data and that xarray has not taken for such."""
    declared = any(len(_numbers(var.encoding[key], np.dtype(float))) for key in _DECLARED if key in var.encoding)
    said = [np.atleast_1d(_numbers(var.attrs[key], var.dtype)) for key in (*_OTHERS, *_DECLARED) if key in var.attrs]
    codes = [float(code) for found in said for code in found]
    raw = np.dtype(var.encoding.get("dtype", var.dtype))
    if not declared and var.dtype.name in _FILLS:
        codes.append(_FILLS[var.dtype.name])
    if not declared and raw.kind == var.dtype.kind == "f" and float(np.finfo(var.dtype).max) > _FILL_FLOAT:
        codes.append(_FILL_FLOAT)
    return tuple(dict.fromkeys(codes))


def _numbers(said: Any, dtype: np.dtype[Any]) -> np.ndarray:
    """The numbers in an attribute that a type can hold, in that type; NaN needs no masking."""
    found = []
    for item in np.atleast_1d(np.asarray(said)).ravel():
        try:
            number = float(item)
        except (TypeError, ValueError):
            continue
        limit = np.iinfo(dtype) if dtype.kind in "iu" else np.finfo(dtype)
        whole = dtype.kind == "f" or number == np.round(number)
        if np.isfinite(number) and whole and limit.min <= number <= limit.max:
            found.append(dtype.type(number))
    return np.array(found, dtype)


def _limits(var: xr.Variable) -> tuple[float, float] | None:
    """The least and the greatest valid value, decoded; None where a file sets none."""
    said = np.atleast_1d(np.asarray(var.attrs.get("valid_range", ())))
    pair = list(said) if len(said) == 2 else [var.attrs.get("valid_min", -np.inf), var.attrs.get("valid_max", np.inf)]
    try:
        low, high = (_unpacked(np.asarray(item), var) for item in pair)
    except (TypeError, ValueError):
        return None
    scale = float(var.encoding.get("scale_factor", 1.0))
    if scale < 0 and any(np.asarray(item).dtype.kind in "iu" for item in pair):
        low, high = (high if np.isfinite(high) else -np.inf), (low if np.isfinite(low) else np.inf)
    if _packed(var):  # decoding rounds
        low, high = low - abs(scale) / 2, high + abs(scale) / 2
    low, high = (-np.inf if low <= -_NO_LIMIT else low), (np.inf if high >= _NO_LIMIT else high)
    return (low, high) if low < high and (np.isfinite(low) or np.isfinite(high)) else None


def _unpacked(limit: np.ndarray, var: xr.Variable) -> float:
    """A limit as a decoded value: an integer of a packed variable is a packed number."""
    number = float(limit)
    if not _packed(var) or limit.dtype.kind not in "iu":
        return number
    if number < 0 and str(var.encoding.get("_Unsigned", "")).lower() == "true":
        number += float(1 << 8 * limit.dtype.itemsize)
    return number * float(var.encoding.get("scale_factor", 1.0)) + float(var.encoding.get("add_offset", 0.0))
