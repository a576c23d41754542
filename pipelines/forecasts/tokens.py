"""Tokens of Prithvi WxC as a weather file: which directions of them are kept, what they were made by, how they lie."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from models.backbones.wxc_files import WxCScalers, read_hdf5
from models.errors import InputError
from models.files import replacing
from models.types import Array
from pipelines.outputs.netcdf import grid_axes, write_netcdf

MARK = "tokens of Prithvi WxC"
KEPT = ("mean", "std", "axes", "shares")
MOST = 1 << 24  # numbers: 2560 features along as many directions are less


@dataclass(frozen=True)
class Directions:
    """What of tokens is kept: how far they lie along a few directions, those in which the first ones seen vary most.

    Attributes:
        mean: of each feature (E,).
        std: of each feature (E,), above 0.
        axes: directions of length 1 in features as deviations (E, K).
        shares: of the variance along each (K,).
    """

    mean: Array
    std: Array
    axes: Array
    shares: Array

    @classmethod
    def of(cls, tokens: Array, count: int) -> Directions:
        """The first principal components of tokens (N, E), each feature in deviations.

        Raises:
            InputError: more are wanted than there are.
        """
        most = min(len(tokens) - 1, tokens.shape[1])
        if not 0 < count <= most:
            told = f"{len(tokens)} tokens of {tokens.shape[1]} features"
            raise InputError(f"components {count}: {told} have {most}; wanted 1 up to these")
        mean, std = tokens.mean(0, dtype=np.float64), tokens.std(0, dtype=np.float64)
        std = np.where(std > 1e-6 * np.abs(mean) + 1e-12, std, 1.0)
        z = (tokens - mean) / std
        variances, axes = np.linalg.eigh(z.T @ z)
        axes = axes[:, ::-1][:, :count]
        axes = axes * np.sign(axes[np.abs(axes).argmax(0), np.arange(count)])  # else either sign is as good
        shares = variances[::-1][:count] / max(variances.sum(), 1e-12)
        return cls(*(np.ascontiguousarray(a, np.float32) for a in (mean, std, axes, shares)))

    def along(self, tokens: Array) -> Array:
        """Tokens (E, h, w) along the directions: (K, h, w)."""
        z = (tokens - self.mean[:, None, None]) / self.std[:, None, None]
        along: Array = np.einsum("ek,ehw->khw", self.axes, z).astype(np.float32)
        return along


@dataclass(frozen=True)
class Origin:
    """What tokens are made by.

    Attributes:
        backbone: its name.
        weights: their sha256, or "random".
        climatology: whether the encoder is given one.
        scalers: means and deviations of the inputs where the weights bring none.
    """

    backbone: str
    weights: str
    climatology: bool
    scalers: WxCScalers

    def check(self, earlier: Origin, file: Path) -> None:
        """Refuse tokens of a file that are made otherwise.

        Raises:
            InputError: they are.
        """
        if earlier.told != self.told:
            raise InputError(f"--like {file}: made by {earlier.told}; came {self.told}; wanted the same")

    @property
    def told(self) -> str:
        """It in words."""
        known = "with" if self.climatology else "without"
        return f"{self.backbone}, weights {self.weights[:12]}, {known} climatology"

    def names(self, kept: Directions) -> list[str]:
        """Names of the variables, which tokens that are made otherwise do not bear."""
        told = json.dumps([self.backbone, self.weights, self.climatology, self.scalers.inputs], sort_keys=True)
        parts = [told.encode(), *(a.tobytes() for a in (kept.mean, kept.std, kept.axes))]
        mark = hashlib.sha256(b"".join(parts)).hexdigest()[:8]
        return [f"wxc_{mark}_{k:02d}" for k in range(len(kept.shares))]


def write_tokens(
    path: Path,
    origin: Origin,
    kept: Directions,
    fields: Array,
    *,
    times: Sequence[np.datetime64],
    lat: NDArray[np.float64],
    lon: NDArray[np.float64],
) -> list[str]:
    """Write tokens along directions (T, K, h, w) as NetCDF after the CF conventions; returns the variables' names.

    Raises:
        OSError: the disk does not take it.
    """
    names = origin.names(kept)
    told = [f"component {k} of Prithvi WxC's tokens, {share:.1%} of them" for k, share in enumerate(kept.shares, 1)]
    data: dict[str, object] = {
        name: (("time", "lat", "lon"), fields[:, k], {"units": "1", "long_name": told[k]})
        for k, name in enumerate(names)
    }
    lengths = {"mean": "feature", "std": "feature", "axes": "feature_component", "shares": "component"}
    beside = {f"token_{key}": ((dim,), getattr(kept, key).ravel()) for key, dim in lengths.items()}  # no fields
    attrs = {"Conventions": "CF-1.11", "title": "Tokens of Prithvi WxC along their principal components"}
    attrs |= {"earthtune": MARK, "backbone": origin.backbone, "weights_sha256": origin.weights}
    attrs |= {"climatology": str(origin.climatology), "scalers": json.dumps(origin.scalers.inputs)}
    clock = ("time", np.array(times, "datetime64[ns]"), {"standard_name": "time"})
    with replacing(path) as draft:
        hours = {"units": "hours since 1970-01-01 00:00:00", "dtype": "float64"}
        coords = {"time": clock, **grid_axes(lat, lon), **beside}
        write_netcdf(draft, xr.Dataset(data, coords, attrs), encoding={"time": hours})
    return names


def read_directions(path: Path) -> tuple[Origin, Directions]:
    """What the tokens of a file were made by, and which of their directions it holds.

    Raises:
        InputError: it is no such file, or damaged.
    """
    found: tuple[Origin, Directions] = read_hdf5(path, lambda file: _read(file, path))
    return found


def _read(file: h5py.File, path: Path) -> tuple[Origin, Directions]:
    if file.attrs.get("earthtune") != MARK:
        raise InputError(f"--like {path}: wanted a file that `earthtune encode` wrote")
    backbone, weights, climatology = (str(file.attrs[key]) for key in ("backbone", "weights_sha256", "climatology"))
    pairs = {str(name): (float(mean), float(std)) for name, (mean, std) in json.loads(file.attrs["scalers"]).items()}
    held = [file[f"token_{key}"] for key in KEPT]
    if max(one.size for one in held) > MOST:  # compressed, a file may be small that fills the memory
        raise InputError(f"--like {path}: holds more than tokens have; wanted a file that `earthtune encode` wrote")
    mean, std, axes, shares = (np.asarray(one[()], np.float32) for one in held)
    if mean.ndim != 1 or std.shape != mean.shape or axes.shape != (mean.size * shares.size,):
        raise InputError(f"--like {path}: damaged; copy it again")
    kept = Directions(mean, std, axes.reshape(mean.size, shares.size), shares)
    return Origin(backbone, weights, climatology == "True", WxCScalers(pairs)), kept
