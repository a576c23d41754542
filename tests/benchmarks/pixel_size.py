"""Scenes of 10 m by a land-use run of 30 m, as they are and resampled: prints accuracies; asserts nothing.

Usage: ``python tests/benchmarks/pixel_size.py DATA [RUN]``, DATA being the folder of real files; without RUN one of a
few epochs is trained on `hls_worldcover`. References are those beside the scenes; what has no counterpart among
WorldCover's classes is left out.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import rasterio
from rasterio.enums import Resampling
from rasterio.transform import from_origin
from rasterio.warp import reproject

from pipelines.commands.score import score
from pipelines.runs.finetune import finetune
from pipelines.scenes.reading import Reading
from pipelines.scoring.plan import Maps
from pipelines.tasks.task import load_recipe

L1C = ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12"]
EUROSAT_BANDS = [*(band for band in L1C if band != "B8A"), "B8A"]
L2A = ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12"]
SIX = ["BLUE", "GREEN", "RED", "NIR_NARROW", "SWIR_1", "SWIR_2"]
ESRI = {1: (80,), 2: (10,), 3: (90, 95), 4: (40,), 5: (50,), 6: (60,), 7: (70,), 9: (20, 30)}
WORLDCEREAL = {11: (40,), 13: (30,), 60: (50,)}  # temporary crops, grass, built-up
EUROSAT = {  # one class a scene, which most of its pixels have
    **{"AnnualCrop": (40,), "Forest": (10,), "HerbaceousVegetation": (20, 30), "Industrial": (50,), "Pasture": (30,)},
    **{"PermanentCrop": (40,), "Residential": (50,), "River": (80,), "SeaLake": (80,)},
}
FLOODS = {0: (10, 20, 30, 40, 50, 60, 70, 90, 95, 100), 1: (80,)}  # water or not
WAYS = {
    "never": ("never", "train"),
    "train, map train": ("train", "train"),
    "train, map scene": ("train", "scene"),
}
Pair = tuple[str, Path, list[str], np.ndarray, dict[int, tuple[int, ...]]]


def trained(data: Path, out: Path) -> Path:
    """A land-use run: the recipe with a tiny backbone and few epochs."""
    recipes = Path(__file__).resolve().parents[2] / "pipelines/recipes"
    small = {"backbone": "prithvi_eo_v2_tiny_tl", "weights": "random", "training.epochs": 5}
    finetune(load_recipe(recipes / "landuse.yaml", **{"data.root": data / "hls_worldcover"}, **small), out)
    return out


def pairs(data: Path, folder: Path) -> Iterator[Pair]:
    """Scenes of 10 m with the names of their bands, and what is where in other codes."""
    for path in sorted((data / "terramind/S2L2A").glob("*.tif")):
        with rasterio.open(data / "terramind/LULC" / path.name) as truth:
            yield f"terramind {path.stem}", path, L2A, truth.read(1), ESRI
    for path in sorted((data / "sen1floods11/S2").glob("*_S2Hand.tif")):
        with rasterio.open(next(data.glob(f"sen1floods11/*/{path.stem.removesuffix('S2Hand')}LabelHand.tif"))) as truth:
            yield path.stem, path, L1C, truth.read(1), FLOODS

    for kind, same in EUROSAT.items():
        for path in sorted((data / "eurosat" / kind).glob("*.tif")):
            yield f"eurosat {kind}", path, EUROSAT_BANDS, np.ones((64, 64), np.uint8), {1: same}

    def cube(pattern: str, band: str) -> np.ndarray:
        with rasterio.open(f"netcdf:{next((data / 'worldcereal').glob(pattern))}:{band}") as source:
            return source.read()

    ground = np.isin(cube("S2_L2A_20m_*.nc", "SCL"), (4, 5, 6, 7)).mean(axis=(1, 2))
    (labels,) = cube("OUTPUT_*.nc", "LC")
    fine = [cube("S2_L2A_10m_*.nc", band) for band in ("B02", "B03", "B04")]
    coarse = [cube("S2_L2A_20m_*.nc", band).repeat(2, axis=1).repeat(2, axis=2) for band in ("B8A", "B11", "B12")]
    for at in np.argsort(-ground, kind="stable")[:4]:
        values = np.stack([band[at] for band in (*fine, *coarse)]).astype(np.int32)
        path = folder / f"worldcereal_{at}.tif"
        size = {"count": 6, "height": values.shape[1], "width": values.shape[2], "dtype": "int32"}
        place = {"crs": "EPSG:32631", "transform": from_origin(501360, 5629680, 10, 10)}
        with rasterio.open(path, "w", driver="GTiff", nodata=65535, **size, **place) as out:
            out.write(values)
        yield f"worldcereal, date {at}", path, SIX, labels, WORLDCEREAL


def on_scene(map_file: str, scene: Path) -> np.ndarray:
    """Codes of a map at the pixels of the scene, 0 where it tells nothing."""
    with rasterio.open(map_file) as made, rasterio.open(scene) as given:
        told = np.zeros(given.shape, made.dtypes[0])
        ground = {"src_transform": made.transform, "dst_transform": given.transform}
        systems = {"src_crs": made.crs, "dst_crs": given.crs}
        reproject(made.read(1), told, resampling=Resampling.nearest, **ground, **systems)
    return told


def counted(maps: list[np.ndarray], truth: np.ndarray, codes: dict[int, tuple[int, ...]]) -> list[int]:
    """Pixels that each map has right, those of the most frequent class, and all, of those that all maps tell of."""
    known = np.isin(truth, list(codes)) & np.all([told != 0 for told in maps], axis=0)
    right = [
        sum(((truth == code) & np.isin(told, same) & known).sum() for code, same in codes.items()) for told in maps
    ]
    return [*right, max(((truth == code) & known).sum() for code in codes), known.sum()]


def main(data: Path, run: Path | None) -> None:
    """Score each scene in each way."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = run or trained(data, folder / "run")
        sums: dict[str, np.ndarray] = {}  # right in each way, of the most frequent class, all
        for title, scene, bands, truth, codes in pairs(data, folder):
            maps = []
            for number, (resample, grid) in enumerate(WAYS.values()):
                reading, out = Reading(bands, resample=resample), folder / f"maps{number}"
                (result,) = score(run, [str(scene)], out=out, maps=Maps(map_grid=grid), reading=reading)
                maps.append(on_scene(result["map"], scene))
            found = np.array(counted(maps, truth, codes))
            sums[title] = sums.get(title, 0) + found
        shares = {title: found[:-1] / found[-1] for title, found in sums.items()}
        shares["mean of these"] = np.mean([*shares.values()], axis=0)
        print(f"{'':<28}" + "".join(f"{way:>18}" for way in (*WAYS, "majority")))
        for title, row in shares.items():
            print(f"{title:<28}" + "".join(f"{share:18.3f}" for share in row))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
