"""Students of a teacher whose tokens matter: what they lose, what the teacher was worth, and what both cost.

Usage: ``python tests/benchmarks/students.py FOLDER [SEED ...]``. Chips of two kinds of ground are made under FOLDER,
where they are not there. Each has terraces along one side, whose rows rise to the left or to the right, and all its
ground is wet with the one, dry with the other. Means and spreads of squares are alike in both, so that far from the
terraces only what looks across the chip can tell. Teacher, student and the same without a teacher are made by
`finetune` and `distil` and scored at places left out, also with tokens at zero; then the processor time of both
commands, and of a tile in each precision, in turn, one thread, least of many.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.transform import from_origin
from scipy.ndimage import gaussian_filter

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from models.bundle import read_bundle  # noqa: E402
from models.errors import InputError  # noqa: E402
from models.runtime.engines import load_runtimes  # noqa: E402
from models.runtime.export import example_inputs  # noqa: E402

SIDE, PLACES, CHIPS, PARAMS = 64, 40, 400, 500_000
BANDS = ("BLUE", "GREEN", "RED", "NIR_NARROW", "SWIR_1", "SWIR_2")
GRASS, CROP = (400, 700, 600, 3200, 1800, 900), (700, 1000, 1300, 2400, 2800, 2000)
TERRACE = (900, 1200, 1600, 2200, 3100, 2500)
NAMES = ("dry grass", "wet grass", "dry crop", "wet crop", "terraces")
RECIPE: dict[str, Any] = {
    "task": "segmentation",
    "classes": [
        {"code": i + 1, "name": name, "colour": f"#{40 * i:02x}a0{200 - 40 * i:02x}"} for i, name in enumerate(NAMES)
    ],
    "data": {"images": "*_hls.tif", "labels": "*_land.tif", "groups": "chips.csv", "fractions": [0.65, 0.05, 0.3]},
    "backbone": "prithvi_eo_v2_tiny_tl",
    **{"weights": "random", "mode": "full"},
    "model": {
        **{"overrides": {"embed_dim": 384, "num_heads": 6}, "blocks": [5, 11], "decoder": "linear", "channels": 64},
        **{"detail": 16, "statistics": 64},
    },
    "training": {
        **{"epochs": 6, "batch": 4, "lr": 1e-3, "backbone_lr": 1.0, "layer_decay": 1.0, "ema": 0.95, "keep": "last"},
        **{"freeze_norm": 0.6, "flips": False},  # a mirror would turn rows that rise to the left to the right
    },
}


def chip(rng: np.random.Generator, shift: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bands (6, SIDE, SIDE), and codes: 1 and 2 grass, 3 and 4 crop, dry and wet each, 5 terraces."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    kind = (gaussian_filter(rng.normal(size=(SIDE, SIDE)), 8) > 0).astype(int)
    wet, width = int(rng.integers(2)), int(rng.integers(SIDE // 4, SIDE // 3 + 1))
    terraces = np.rot90(columns < width, rng.integers(4))
    step = (columns + (1 if wet else -1) * rows + rng.uniform(0, 6)) % 6 < 3
    bright = np.where(step, 1.2, 0.7)[..., None] * TERRACE
    spectra = np.where(terraces[..., None], bright, np.array([GRASS, CROP])[kind]) * (1 + shift)
    bands = spectra.transpose(2, 0, 1) + rng.normal(0, 60, (len(BANDS), SIDE, SIDE))
    return bands.clip(1).astype(np.int16), np.where(terraces, 5, 1 + 2 * kind + wet).astype(np.uint8)


def make(folder: Path) -> None:
    """Write chips, their labels, and which place each is of; light differs by place."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    shifts = rng.normal(0, 0.05, (PLACES, len(BANDS)))
    for i in range(CHIPS):
        bands, codes = chip(rng, shifts[i % PLACES])
        for name, values, nodata in ((f"c{i:03d}_hls.tif", bands, -9999), (f"c{i:03d}_land.tif", codes[None], 0)):
            place = {"crs": "EPSG:32632", "transform": from_origin(500000 + 4000 * i, 5000000, 30, 30)}
            shape = {"count": len(values), "height": SIDE, "width": SIDE, "dtype": values.dtype}
            with rasterio.open(folder / name, "w", driver="GTiff", nodata=nodata, **shape, **place) as file:
                file.write(values)
                file.descriptions = BANDS if len(values) > 1 else (None,)
    lines = "".join(f"c{i:03d},place{i % PLACES}\n" for i in range(CHIPS))
    (folder / "chips.csv").write_text("chip,group\n" + lines, encoding="utf-8")


def earthtune(*words: object) -> float:
    """Run a command on one thread; its processor seconds."""

    def spent() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    before = spent()
    command = [sys.executable, "-W", "ignore", "-m", "pipelines.cli", *map(str, words)]
    subprocess.run(command, check=True, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)
    return spent() - before


def tile_times(runs: dict[str, Path], *, rounds: int = 40) -> dict[tuple[str, str], float]:
    """Processor milliseconds of a tile by run and precision as OpenVINO runs it here: the least of some, in turn."""
    loaded, least = {}, dict[tuple[str, str], float]()
    for name, run in runs.items():
        inputs = {key: value.numpy() for key, value in example_inputs(read_bundle(run).spec, batch=1).items()}
        for precision in ("f32", "bf16", "i8", "int8"):
            try:
                runtime = load_runtimes([run], runtime="openvino", precision=precision, threads=1)
            except InputError:  # a processor without it, or a run without bytes
                continue
            loaded[name, precision] = runtime, inputs
    for _ in range(rounds):
        for key, (runtime, inputs) in loaded.items():
            start = time.process_time()
            runtime.run(inputs)
            least[key] = min(least.get(key, np.inf), 1e3 * (time.process_time() - start))
    return least


def seeded(folder: Path, seed: int) -> None:
    """Make and tell of a teacher and a student."""
    teacher, student = folder / f"teacher{seed}", folder / f"student{seed}"
    seconds = [earthtune("finetune", folder / "recipe.yaml", "--seed", seed, "--out", teacher)]
    seconds.append(earthtune("distil", teacher, "--params", PARAMS, "--out", student))
    found = json.loads((student / "metrics.json").read_text(encoding="utf-8"))["student"]
    print(f"seed {seed}: finetune {seconds[0] / 60:.1f}, distil {seconds[1] / 60:.1f} CPU minutes")
    for row in found["rows"]:
        size = f"{row['parameters'] / 1e6:.2f} M parameters, {row['products'] / 1e9:.3f} G products"
        print(f"  {row['name']:<26} {row['score']:.3f}, tokens at zero {row['zeroed']:.3f}; {size}")
    for name, one in found["compared"].items():
        low, high = one["interval"]
        print(f"  student beside {name}: {one['gain']:+.3f} ({low:+.3f} to {high:+.3f}, {one['groups']} places)")
    times = tile_times({"teacher": teacher, "student": student})
    print("  ms a tile: " + "; ".join(f"{name} {kind} {one:.1f}" for (name, kind), one in times.items()), flush=True)


def main(folder: Path, seeds: list[int]) -> None:
    """Make what is not there, and tell of each seed."""
    if not (folder / "chips.csv").is_file():
        make(folder)
    recipe = RECIPE | {"data": RECIPE["data"] | {"root": str(folder.resolve())}}
    (folder / "recipe.yaml").write_text(json.dumps(recipe), encoding="utf-8")
    for seed in seeds:
        seeded(folder.resolve(), seed)


if __name__ == "__main__":
    main(Path(sys.argv[1]), [int(seed) for seed in sys.argv[2:]] or [0, 1, 2])
