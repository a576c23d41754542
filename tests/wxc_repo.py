"""Tiny Prithvi WxC repositories in the published layout: config.yaml, a pickled checkpoint, scalers, climatology."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from datetime import datetime

import h5py
import numpy as np
import torch
import yaml

from models.backbones.wxc_climatology import climatology_names
from models.backbones.wxc_inputs import LEVELS, STATIC, SURFACE, VERTICAL

PARAMS = {
    "in_channels": 160,
    "input_size_time": 2,
    "in_channels_static": 8,
    "input_scalers_epsilon": 0.0,
    "static_input_scalers_epsilon": 0.0,
    "n_lats_px": 360,
    "n_lons_px": 576,
    "patch_size_px": [2, 2],
    "mask_unit_size_px": [30, 32],
    "embed_dim": 32,
    "n_blocks_encoder": 2,
    "n_blocks_decoder": 2,
    "mlp_multiplier": 2,
    "n_heads": 4,
    "dropout": 0.0,
    "drop_path": 0.0,
    "parameter_dropout": 0.0,
}
STORED = LEVELS[::-1]  # the published files hold level 72 first


def network(grid=(60, 64), *, seed=0, scalers=None, **changes):
    """The network that PrithviWxC builds, as its notebooks do; its scalers are random unless given."""
    from PrithviWxC.model import PrithviWxC

    g = torch.Generator().manual_seed(seed)
    scalers = scalers or {
        "input_scalers_mu": torch.randn(160, generator=g),
        "input_scalers_sigma": torch.rand(160, generator=g) + 0.5,
        "static_input_scalers_mu": torch.cat((torch.zeros(7), torch.randn(4, generator=g))),
        "static_input_scalers_sigma": torch.cat((torch.ones(7), torch.rand(4, generator=g) + 0.5)),
        "output_scalers": torch.rand(160, generator=g) + 0.5,
    }
    fields = PARAMS | {"n_lats_px": grid[0], "n_lons_px": grid[1], "residual": "climate", "masking_mode": "global"}
    fields |= {"positional_encoding": "fourier", "encoder_shifting": False, "decoder_shifting": True}
    fields |= {"mask_ratio_inputs": 0.0, "mask_ratio_targets": 0.0}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return PrithviWxC(**scalers, **fields | changes).eval()


def checkpoint(net, path_or_file):
    """Save as published: the weights under `model_state`, beside the optimiser's moments."""
    state = net.state_dict()
    moments = {i: {"step": torch.tensor(7.0), "exp_avg": torch.ones(5)} for i in range(3)}
    torch.save({"model_state": state, "optimizer_state": {"state": moments}, "epoch": 3}, path_or_file)


def scaler_files(seed=0) -> dict[str, bytes]:
    """The four scaler files; some deviations and variances lie beyond the published limits."""
    rng = np.random.default_rng(seed)

    def spread(*shape):
        return (10 ** rng.uniform(-6, 6, shape)).astype(np.float32)

    names = {"surface": [*SURFACE, *STATIC], "vertical": list(VERTICAL)}
    files = {}
    for kind, variables in names.items():
        shape = (len(LEVELS),) if kind == "vertical" else ()
        moments = {n: np.stack([rng.normal(size=shape).astype(np.float32), spread(*shape)]) for n in variables}
        variances = {n: spread(*shape) ** 2 for n in variables}
        levels = STORED if kind == "vertical" else ()
        files[f"climatology/musigma_{kind}.nc"] = netcdf(moments, levels=levels, statistic=["mu", "sigma"])
        files[f"climatology/anomaly_variance_{kind}.nc"] = netcdf(variances, levels=levels)
    return files


def climatology(time: datetime, lat: Sequence[float], lon: Sequence[float]) -> dict[str, bytes]:
    """The two climatology files of a time; a value tells its place: level + latitude / 100 + longitude / 10000."""
    place = np.asarray(lat)[:, None] / 100 + np.asarray(lon)[None, :] / 10000
    flat = {name: place + i for i, name in enumerate(SURFACE)}
    deep = {name: np.stack([place + level for level in STORED]) for name in VERTICAL}
    surface, vertical = climatology_names(time)
    return {surface: netcdf(flat, lat=lat, lon=lon), vertical: netcdf(deep, levels=STORED, lat=lat, lon=lon)}


def netcdf(variables: Mapping[str, np.ndarray], *, levels=(), lat=(), lon=(), statistic=()) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, axis in (("lev", levels), ("lat", lat), ("lon", lon)):
            if len(axis):
                file[name] = np.asarray(axis, float)
        if statistic:
            file["statistic"] = list(statistic)
        for name, values in variables.items():
            file[name] = values
    return buffer.getvalue()


def repository(net, weights: str, **params) -> dict[str, bytes]:
    """What a published repository holds, and a sample that nobody should download."""
    buffer = io.BytesIO()
    checkpoint(net, buffer)
    config = yaml.safe_dump({"params": PARAMS | params, "note": "as published"}).encode()
    return {"config.yaml": config, weights: buffer.getvalue(), "merra-2/MERRA2_sfc_20200101.nc": b"x", **scaler_files()}
