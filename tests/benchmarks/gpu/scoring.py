"""Sections about scoring as the product does it: the runtime over host arrays, and whole scenes."""

from __future__ import annotations

import importlib
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from gpu.measuring import Bench, Facts, Rows
from gpu.project import BANDS, CLASSES, MEANS, OVERLAP, inputs_of, run_of, runtime_of

SECTIONS = ("runtime", "scene")


def runtime(bench: Bench) -> Rows:
    """The product's way: `models.runtime.engines` on torch, host arrays in and out, as many lanes as it asks for."""
    for name in ("300M", "100M", "tiny"):
        run = run_of(bench, name)
        loaded = runtime_of(run, runtime="torch")
        for batch in dict.fromkeys((loaded.batch, *([2] if bench.small else [64, 128]))):
            yield f"{name} batch {batch}", partial(_served, bench, name, loaded, batch)


def _served(bench: Bench, name: str, loaded: Any, batch: int) -> Facts:
    arrays = {key: a.numpy() for key, a in inputs_of(bench, batch, device="cpu").items()}

    def lane(until: float) -> int:
        count = 0
        while not count or time.perf_counter() < until:
            loaded.run(arrays)
            count += 1
        return count

    with ThreadPoolExecutor(loaded.lanes) as pool:
        list(pool.map(lane, [0.0] * loaded.lanes))
        begun = time.perf_counter()
        calls = sum(pool.map(lane, [begun + bench.seconds] * loaded.lanes))
        rate = calls * batch / (time.perf_counter() - begun)
    return {"tiles_per_s": rate, "runtime": loaded.name, "lanes": loaded.lanes} | of_forward(bench, name, rate)


def of_forward(bench: Bench, name: str, rate: float) -> Facts:
    """The share of what the model alone does with tiles on the device."""
    return {"of_forward": rate / bench.rate[name]} if name in bench.rate else {}


def scene(bench: Bench) -> Rows:
    """`score` of a made-up scene: reading, the model, blending, writing; and all that without a model."""
    importlib.import_module("rasterio")
    side, made = 256 if bench.small else 4096, {}

    def make() -> Facts:
        begun = time.perf_counter()
        made["small"] = write_scene(bench.folder / "small.tif", bench.tile)
        made["large"] = write_scene(bench.folder / "large.tif", side)
        return {"side": side, "mib": made["large"].stat().st_size / 2**20, "seconds": time.perf_counter() - begun}

    yield "making it", make
    for name in ("300M", "tiny"):
        yield f"{name} scored", partial(_scored, bench, name, made, side)
        yield f"{name} without the model", partial(_drawn, bench, name, made, side)
    yield "300M scored in batches of 64", partial(_scored, bench, "300M", made, side, batch=64)


def tiles_of(bench: Bench, side: int) -> int:
    """How many tiles cover a scene."""
    from pipelines.grids.windows import Tiles

    return len(Tiles((side, side), bench.tile, OVERLAP))


def _scored(bench: Bench, name: str, made: dict[str, Path], side: int, batch: int | None = None) -> Facts:
    from pipelines.commands.score import score
    from pipelines.scoring.jobs import Engine, loaded

    run = run_of(bench, name)
    engine = Engine("torch", batch=batch)
    for what in ("small", "large"):  # the small one loads the model, which stays loaded
        begun, out = time.perf_counter(), bench.folder / f"{name}-{what}-{batch}"
        (told,) = score(run, [str(made[what])], out=out, overlap=OVERLAP, engine=engine)
        if told["status"] != "done":
            raise RuntimeError(f"{told['status']}: {told.get('error')}")
        seconds, count = time.perf_counter() - begun, tiles_of(bench, side)
    loaded.cache_clear()  # its memory is not to be counted with what comes next
    rate = count / seconds
    return {"tiles_per_s": rate, "tiles": count, "seconds": seconds} | of_forward(bench, name, rate)


def _drawn(bench: Bench, name: str, made: dict[str, Path], side: int) -> Facts:
    import numpy as np

    from models.bundle import read_bundle
    from models.runtime.engines import Runtime
    from models.spec import IMAGERY
    from pipelines.scoring.opening import open_for, write_map

    bundle = read_bundle(run_of(bench, name))
    answer = np.full((64, CLASSES, bench.tile, bench.tile), 1 / CLASSES, "float32")
    nothing = Runtime(lambda inputs: [answer[: len(inputs[IMAGERY])]], 2, 16, "none")
    begun = time.perf_counter()
    write_map(bench.folder / f"{name}.tif", open_for(bundle, str(made["large"])), bundle, nothing, overlap=OVERLAP)
    rate = tiles_of(bench, side) / (time.perf_counter() - begun)
    return {"tiles_per_s": rate} | of_forward(bench, name, rate)


def write_scene(path: Path, side: int) -> Path:
    """The same waves with noise over and over, in a tiled and compressed GeoTIFF."""
    import numpy as np
    import rasterio
    from rasterio.transform import from_origin

    rows, columns = np.mgrid[0:512, 0:512]
    wave = 0.25 * (np.sin(rows / 37) + np.cos(columns / 53)) + np.random.default_rng(0).normal(0, 0.05, rows.shape)
    block = (np.array(MEANS).reshape(-1, 1, 1) * (1 + wave)).astype("int16")
    profile = {"driver": "GTiff", "height": side, "width": side, "count": len(BANDS), "dtype": "int16", "nodata": -9999}
    profile |= {"crs": "EPSG:32632", "transform": from_origin(5e5, 5e6, 30, 30), "num_threads": "all_cpus"}
    profile |= {"compress": "deflate", "predictor": 2, "tiled": True, "blockxsize": 512, "blockysize": 512}
    with rasterio.open(path, "w", **profile) as file:
        file.descriptions = BANDS
        file.update_tags(ACQUISITION_DATE="2021-06-15")
        for row in range(0, side, 512):
            height = min(512, side - row)
            strip = np.tile(block[:, :height], (1, 1, -(-side // 512)))[:, :, :side]
            file.write(strip, window=((row, row + height), (0, side)))
    return path
