"""How often a unit is refused or doubted, right and wrong ones, over real files: prints a table; asserts nothing.

Usage: ``python tests/benchmarks/units.py DATA``, DATA being the folder of real files.
"""

from __future__ import annotations

import collections
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import from_origin

from models.errors import EarthtuneError
from pipelines.scenes.physical import doubt
from pipelines.scenes.scene import open_scene

SIX = ("BLUE", "GREEN", "RED", "NIR_NARROW", "SWIR_1", "SWIR_2")
S2 = ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12"]
L2A = [name for name in S2 if name != "B10"]
KINDS = {  # pattern of files: names of their bands
    "hls_worldcover/*_hls.tif": None,
    "eurosat/*/*.tif": S2,
    "terramind/S2L2A/*.tif": L2A,
    "sen1floods11/*S2Hand.tif": S2,
    "s2_seasons/*.tif": L2A,
}


def varied(x: np.ndarray, rng: np.random.Generator) -> dict[str, tuple[bool, np.ndarray]]:
    """Whether the unit is right, and values: what might be seen, and the same scene in other units; x is x10000."""
    noise = rng.normal(1, 0.03, x.shape)
    spectra = {
        "snow": (9200, 9000, 8800, 8200, 1200, 900),
        "cloud": (8000, 7900, 7800, 7900, 5600, 3800),
        "water": (350, 300, 150, 60, 25, 15),
        "desert": (1700, 2500, 3400, 4200, 5200, 4800),
        "salt": (5200, 5800, 6100, 6300, 4800, 3500),
        "lava": (300, 320, 350, 420, 500, 480),
    }
    texture = x / np.maximum(np.median(x, axis=(1, 2), keepdims=True), 1)
    out = {name: (True, np.reshape(level, (6, 1, 1)) * noise * texture**0.3) for name, level in spectra.items()}
    out = {name: (right, np.nan_to_num(values).clip(-100, 14000)) for name, (right, values) in out.items()}
    out |= {f"night x{share:g}": (True, (x * share).round()) for share in (0.1, 0.02, 0.005)}
    out["as it is"] = True, x
    out |= {
        "0..1": (False, (x / 1e4).astype("float32")),
        "percent": (False, (x / 100).astype("float32")),
        "+1000": (False, x + 1000),
        "C2 L2 counts": (False, ((x / 1e4 + 0.2) / 2.75e-5)),
        "Landsat Level-1 counts": (False, ((x / 1e4 + 0.1) / 2e-5)),
        "offset twice": (False, x - 1000),
        "x10": (False, x * 10),
    }
    return out


def main(data: Path) -> None:
    """Look at each file in each guise."""
    counts: dict[tuple[bool, str], collections.Counter[str]] = collections.defaultdict(collections.Counter)
    rng, files = np.random.default_rng(0), 0
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for pattern, names in KINDS.items():
            for path in sorted(data.glob(pattern)):
                try:
                    with open_scene(path, SIX, file_bands=names) as scene:
                        x, valid = scene.read(scene.window)
                except EarthtuneError as error:
                    print(path.name, error)
                    continue
                files += 1
                x = np.where(valid, x[:, 0], np.median(x[:, 0], axis=(1, 2), keepdims=True))
                for guise, (right, values) in varied(x, rng).items():
                    file = Path(folder) / "x.tif"
                    kind = values.dtype if values.dtype == "float32" and not right and values.max() < 300 else "int32"
                    grid = {"height": x.shape[1], "width": x.shape[2], "crs": "EPSG:32633"}
                    place = from_origin(0, 0, 30, 30)
                    with rasterio.open(file, "w", "GTiff", count=6, dtype=kind, transform=place, **grid) as out:
                        out.write(values.astype(kind))
                        out.descriptions = SIX
                    found = doubt(open_scene(file, SIX))
                    file.unlink()
                    counts[right, guise]["refused" if found.impossible else "told" if found.told else "silent"] += 1
    print(f"{files} files")
    for (right, guise), tally in sorted(counts.items(), key=lambda pair: (not pair[0][0], pair[0][1])):
        shown = ", ".join(f"{tally[what]:4d} {what}" for what in ("refused", "told", "silent"))
        print(f"{'right' if right else 'wrong':6} {guise:24} {shown}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
