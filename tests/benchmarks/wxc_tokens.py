"""Made chips with tokens of both cores: what fused is worth where the weather comes as Prithvi WxC's tokens.

Usage: ``python tests/benchmarks/wxc_tokens.py FOLDER``. The chips are those of sample_data/fused, whose truth is half
in the imagery and half in the rain before it. Analyses of 160 channels are made in which rain, temperature and wind of
each cell and day stand out of noise; `earthtune encode` (tiny, random weights) makes tokens of them, and `fused_demo`
is trained with the tokens in place of the weather, and with the weather itself.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import xarray as xr

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
CHIPS = ROOT / "sample_data" / "fused"
NOISE = 0.5  # deviations, beside 1 of what the weather says


def analyses(folder: Path) -> list[Path]:
    """Surface, levels and constants, at 18 and 00 UTC: four cells, one token, for each cell of the weather."""
    from models.backbones.wxc_inputs import LEVELS, STATIC, SURFACE, VERTICAL
    from pipelines.weather.merra2 import UNITS

    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in ("MERRA2_sfc.nc", "MERRA_pres.nc")]
    with xr.open_dataset(CHIPS / "weather.nc", engine="h5netcdf") as data:
        days, lat, lon = (data[key].values for key in ("time", "lat", "lon"))
        known = np.stack([data[name].values for name in ("rain", "temperature", "wind")], axis=1)  # (D, 3, H, W)
    known = (known - known.mean((0, 2, 3), keepdims=True)) / known.std((0, 2, 3), keepdims=True)
    known = known.repeat(2, axis=2).repeat(2, axis=3)
    fine = [np.concatenate([axis + shift for shift in (-0.125, 0.125)]) for axis in (lat, lon)]
    places = {
        key: (key, np.sort(axis), {"units": unit})
        for key, axis, unit in zip(("lat", "lon"), fine, ("degrees_north", "degrees_east"), strict=True)
    }
    known = known[:, :, ::-1]  # rows from south to north, as in MERRA-2
    ends = days.astype("datetime64[ns]") + np.timedelta64(1, "D")  # a day is known when it is over
    times = np.sort(np.concatenate((ends, ends - np.timedelta64(6, "h"))))
    rng = np.random.default_rng(0)

    def field() -> np.ndarray:
        weights = rng.normal(size=3) / np.sqrt(3)
        seen = np.tensordot(known, weights, axes=(1, 0)).repeat(2, axis=0)
        return (seen + NOISE * rng.standard_normal(seen.shape)).astype(np.float32)

    dims, clock = ("time", "lat", "lon"), {"time": ("time", times)}
    flat = {name: (dims, field(), {"units": UNITS[name]}) for name in SURFACE}
    flat |= {name: (dims[1:], rng.uniform(0, 1, known.shape[2:]).astype(np.float32)) for name in STATIC}
    xr.Dataset(flat, clock | places).to_netcdf(paths[0], engine="h5netcdf")
    deep = {
        name: (("time", "lev", *dims[1:]), np.stack([field() for _ in LEVELS], axis=1), {"units": UNITS[name]})
        for name in VERTICAL
    }
    axis = {"lev": ("lev", np.array(LEVELS, float), {"units": "layer", "positive": "down"})}
    xr.Dataset(deep, clock | places | axis).to_netcdf(paths[1], engine="h5netcdf")
    return paths


def called(*words: str) -> None:
    """Run earthtune."""
    subprocess.run([sys.executable, "-m", "pipelines.cli", *words], check=True, cwd=ROOT)


def main(folder: Path) -> None:
    """Print all."""
    tokens = folder / "tokens.nc"
    if not tokens.is_file():
        files = analyses(folder / "analyses")
        called("encode", "prithvi_wxc_tiny", *map(str, files), "--weights", "random", "--out", str(tokens), "--quiet")
    for name, file in (("tokens", tokens), ("weather", CHIPS / "weather.nc")):
        out = folder / name
        words = ["--data.root", str(CHIPS), "--data.weather.files", str(file), "--out", str(out), "--overwrite"]
        called("finetune", "fused_demo", *words, "--folds", "5", "--quiet")
        found = json.loads((out / "metrics.json").read_text())
        scores = {"fused": found["model"]} | found["baselines"]
        told = [f"{key} {score['mean_iou']:.3f}" for key, score in scores.items()]
        alone = [f"{key} {found['inputs']['scores'][key]:.3f}" for key in ("imagery alone", "weather alone")]
        print(f"{name}: mean IoU {', '.join([*told, *alone])}. {found['inputs']['told']}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
