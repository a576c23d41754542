"""What `earthtune changes` takes of a large series: processor time beside one pass of reading, memory, and an update.

Usage: ``python tests/benchmarks/changes_cost.py FOLDER [ROWS] [COLUMNS] [INDEX ...]``: 300 dates of ROWS x COLUMNS
pixels (2000 x 2000), six bands and clouds, are made under FOLDER where they are not there; NDVI and NBR are watched, or
what is said. Takes 10 GB of disk at full size.
"""

from __future__ import annotations

import datetime
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
sys.path += [str(ROOT), str(ROOT / "sample_data")]

import make_series as sample  # noqa: E402

DATES, SIDE = 300, 500


def make(folder: Path, shape: tuple[int, int]) -> None:
    """Write the scenes: a place of 500 x 500 pixels, laid side by side."""
    plan = sample.Plan(shape=(SIDE, SIDE), years=7, step=8, first=datetime.date(2018, 1, 1))
    wide = sample.Plan(shape=shape)
    made = sample.place(plan)
    folder.mkdir(parents=True, exist_ok=True)
    for day in plan.days[:DATES]:
        counts, bits = sample.scene(plan, made, int(day))
        times = -(-shape[0] // SIDE), -(-shape[1] // SIDE)
        tiled = np.tile(counts, (1, *times))[:, : shape[0], : shape[1]], np.tile(bits, times)[: shape[0], : shape[1]]
        sample.write(folder, wide, int(day), *tiled)


def reading(files: list[Path]) -> None:
    """One pass: every block of every file, once."""
    import rasterio

    for file in files:
        with rasterio.open(file) as source:
            for _, window in source.block_windows(1):
                source.read(window=window)


def spent() -> float:
    """Processor seconds of children that ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def timed(what: str, *words: str) -> float:
    """Run a command of earthtune or this file, and print its wall clock and processor time; the latter."""
    start, before = time.perf_counter(), spent()
    subprocess.run([sys.executable, *words], check=True, cwd=ROOT)
    cpu = spent() - before
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print(f"{what}: {time.perf_counter() - start:.0f} s, {cpu:.0f} s of processors, at most {peak:.2f} GB so far")
    return cpu


def main(folder: Path, shape: tuple[int, int], features: list[str]) -> None:
    """Print all."""
    scenes = folder / "scenes"
    if not scenes.is_dir():
        make(scenes, shape)
    files = sorted(scenes.glob("*.tif"))
    dated = sorted(file.name[:8] for file in scenes.glob("*_hls.tif"))
    early = [str(file) for file in files if file.name[:8] < dated[-1]]
    out, since = str(folder / "out"), "2021-06-01"
    once = timed("one pass of reading", __file__, "--read", str(scenes))
    words = ["-m", "pipelines.cli", "changes"]
    begin = ["--since", since, "--watch", ",".join(features), "--overwrite"]
    whole = timed("first pass", *words, *early, *begin, "--out", out)
    update = timed("update", *words, str(scenes), "--update", "--out", out)
    print(f"{shape}, {', '.join(features)}: {whole / once:.1f} passes of reading; update {update / whole:.1%} of it")


if __name__ == "__main__":
    if sys.argv[1] == "--read":
        reading(sorted(Path(sys.argv[2]).glob("*.tif")))
    else:
        sizes = [int(word) for word in sys.argv[2:4]] or [2000, 2000]
        main(Path(sys.argv[1]), (sizes[0], sizes[-1]), sys.argv[4:] or ["NDVI", "NBR"])
