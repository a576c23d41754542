"""Fixtures of whole runs, made once: a tiny Prithvi fine-tuned on a few sample chips.

What is heavy is imported by those who ask for it: the process that only hands out tests reads this, too.
"""

from __future__ import annotations

import dataclasses
import datetime
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from filelock import FileLock
from rasterio.transform import from_origin

from models.spec import ClassDef, Target
from models.training.settings import Architecture, Training
from pipelines.outputs import geotiff
from pipelines.recipes.recipe import Data, SceneRecipe

BANDS = ("BLUE", "GREEN", "RED", "NIR_NARROW", "SWIR_1", "SWIR_2")
CLASSES = [ClassDef(10, "tree", "#006400"), ClassDef(30, "grass", "#ffff4c"), ClassDef(80, "water", "#0064c8")]
TINY = {"embed_dim": 32, "depth": 2, "num_heads": 2}
TINY_MAE = TINY | {"decoder_embed_dim": 32, "decoder_depth": 1, "decoder_num_heads": 2}
SPECTRA = np.array([[300, 500, 400, 3000, 1500, 700], [600, 900, 900, 2500, 2400, 1500], [400, 350, 250, 100, 50, 30]])


def pytest_collectstart():
    """Baselines are small in all processes that run tests."""
    from tests import small as small


def write(path: Path, array: np.ndarray, *, corner=(500000, 5000000), crs="EPSG:32632", size=30.0, **profile) -> Path:
    """Write (bands, rows, columns) as a GeoTIFF; `names` are band descriptions, `tags` GDAL tags."""
    names, tags = profile.pop("names", None), profile.pop("tags", {})
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = array.shape
    place = {"crs": crs, "transform": from_origin(*corner, size, size)} if crs else {}
    shape = {"count": count, "height": height, "width": width, "dtype": array.dtype}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        file = rasterio.open(path, "w", driver="GTiff", **shape, **place, **profile)
    with file:
        file.write(array)
        file.descriptions = names or (None,) * count
        file.update_tags(**tags)
    return path


def write_map(path: Path, rows, **layout) -> Path:
    """Write rows as a map with a layout of these fields."""
    geotiff.write_rows(path, rows, geotiff.Layout(**layout))
    return path


def make_chip(seed: int, *, side: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Bands (6, side, side) int16 and class codes (1, side, side) uint8: two areas with a straight edge."""
    rng = np.random.default_rng(seed)
    index = np.full((side, side), seed % 3)
    index[:, int(rng.integers(8, side - 8)) :] = (seed + 1) % 3
    bands = SPECTRA[index].transpose(2, 0, 1) + rng.normal(0, 60, (6, side, side))
    return bands.astype(np.int16), np.array([10, 30, 80], np.uint8)[index][None]


def make_points(path: Path, seed: int, *, each: int = 4) -> Path:
    """`each` labelled points of each class of `make_chip`, by the coordinates of where `write` puts it."""
    codes = make_chip(seed)[1][0]
    at = [place for code in np.unique(codes) for place in np.argwhere(codes == code)[:: codes.size // 9 // each][:each]]
    lines = [f"{500015 + 30 * column},{4999985 - 30 * row},{codes[row, column]}" for row, column in at]
    path.write_text("\n".join(["x,y,class", *lines]) + "\n")
    return path


def make_chips(root: Path, count: int = 12, *, side: int = 32, size: float = 30.0) -> Path:
    """`count` dated chips NAME_hls.tif with labels NAME_lc.tif."""
    for i in range(count):
        bands, codes = make_chip(i, side=side)
        corner = (500000 + 5000 * i, 5000000)
        tags = {"ACQUISITION_DATE": "2021-06-15"}
        write(root / f"c{i:02d}_hls.tif", bands, corner=corner, size=size, names=BANDS, tags=tags, nodata=-9999)
        write(root / f"c{i:02d}_lc.tif", codes, corner=corner, size=size, nodata=0)
    return root


def make_series(root: Path, *, days: int = 24) -> Path:
    """A chip seen every 50 days from 2020 on, NAME.tif with its Fmask inside; nothing changes in it."""
    chip = make_chip(1)[0]
    for n in range(days):
        day = datetime.date(2020, 1, 5) + datetime.timedelta(days=50 * n)
        noise = np.random.default_rng(n).normal(0, 30, chip.shape)
        bands = np.concatenate(((chip + noise).clip(1), np.zeros_like(chip[:1]))).astype(np.int16)
        tags = {"ACQUISITION_DATE": day.isoformat()}
        write(root / f"{day:%Y%m%d}.tif", bands, names=(*BANDS, "FMASK"), tags=tags, nodata=-9999)
    return root


def tiny_recipe(root: Path, **changes) -> SceneRecipe:
    """A recipe over `make_chips` that trains in seconds."""
    recipe = SceneRecipe(
        "segmentation",
        Data(root, images="*_hls.tif", labels="*_lc.tif", fractions=(0.5, 0.25, 0.25)),
        classes=CLASSES,
        backbone="prithvi_eo_v2_tiny_tl",
        weights="random",
        model=Architecture(TINY, decoder="linear", channels=8, detail=8, statistics=16),
        training=Training(epochs=12, batch=3, lr=3e-3, backbone_lr=1.0, gain=0.05, precision="32-true"),
    )
    return dataclasses.replace(recipe, **changes)


@pytest.fixture(scope="session")
def made_once(tmp_path_factory, worker_id):
    """A function of a name and of what fills a folder: the folder, filled once for all workers; not to be changed."""
    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent  # the workers' folders lie in it

    def made(name: str, fill: Callable[[Path], object]) -> Path:
        folder, done = shared / "made" / name, shared / "made" / f"{name}.done"
        folder.parent.mkdir(exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            if not done.exists():
                fill(folder)
                done.touch()
        return folder

    return made


def trained(recipe, **how) -> Callable[[Path], object]:
    """A function that makes a folder a run of a recipe."""
    from pipelines.runs.finetune import finetune

    return lambda out: finetune(recipe, out, **how)


@pytest.fixture(scope="session")
def chips(made_once):
    """Folder of labelled chips; not to be changed."""
    return made_once("chips", make_chips)


@pytest.fixture(scope="session")
def run(chips, made_once):
    """A segmentation run of a TL backbone with time and location; not to be changed."""
    return made_once("run", trained(tiny_recipe(chips)))


def make_values(root: Path) -> None:
    """Chips with sparse labels: a tenth of the near infrared."""
    for i in range(9):
        bands, _ = make_chip(i)
        write(root / f"v{i}_hls.tif", bands, names=BANDS, crs=None)
        values = bands[3:4].astype(np.float32) / 10
        values[:, np.random.default_rng(i).random(values.shape[1:]) > 0.3] = -1
        write(root / f"v{i}_agb.tif", values, crs=None)


@pytest.fixture(scope="session")
def value_run(made_once):
    """A regression run on sparse labels; the value is a tenth of the near infrared."""
    root = made_once("value_chips", make_values)
    data = Data(root, images="*_hls.tif", labels="*_agb.tif", label_nodata=[-1], fractions=(0.5, 0.25, 0.25))
    model = Architecture(TINY, decoder="linear", channels=8, statistics=16, detail=0)  # a detail path exports slowly
    recipe = tiny_recipe(root, task="regression", data=data, classes=[], target=Target("biomass", "Mg/ha"), model=model)
    return made_once("value_run", trained(recipe))


def make_class_folders(root: Path) -> None:
    """Chips of two scene classes, each in its folder."""
    for i in range(12):
        bands, _ = make_chip(0)
        bands[:] = SPECTRA[i % 2][:, None, None] + np.random.default_rng(i).normal(0, 60, bands.shape)
        write(root / ("Forest" if i % 2 == 0 else "Grass") / f"s{i}.tif", bands, names=BANDS)


@pytest.fixture(scope="session")
def scene_run(made_once):
    """A run of scene classes: a folder per class."""
    root = made_once("class_folders", make_class_folders)
    classes = [ClassDef(1, "Forest", "#006400"), ClassDef(2, "Grass", "#ffff4c")]
    data = Data(root, images="*/*.tif", fractions=(0.5, 0.25, 0.25))
    model = Architecture(TINY, channels=8)
    recipe = tiny_recipe(root, task="classification", data=data, classes=classes, model=model)
    return made_once("scene_run", trained(recipe))


@pytest.fixture
def unrendered(monkeypatch):
    """Charts of reports are drawn, for light pages alone, and not made into pictures."""
    from pipelines.reports import report
    from tests import unexported

    monkeypatch.setattr(report, "_rendered", unexported.unrendered)


@pytest.fixture
def torch_only(monkeypatch, unrendered):
    """Runs are kept without model.onnx, which takes most of the time of a short one; but for the names in it."""
    from pipelines.runs import finetune as module
    from tests import unexported

    export, rounding, whole = module.write_graph, module.rounding, set()
    monkeypatch.setattr(
        module,
        "write_graph",
        lambda out, *a, **b: (export if out.name in whole else unexported.unexported)(out, *a, **b),
    )
    monkeypatch.setattr(module, "rounding", lambda out, *a, **b: rounding(out, *a, **b) if out.name in whole else {})
    return whole


@pytest.fixture
def unexportable(monkeypatch):
    """No network can be exported."""
    import torch

    def fail(*_, **__):
        raise torch.onnx.OnnxExporterError("no translation of aten::unheard_of\nmore of it")

    monkeypatch.setattr(torch.onnx, "export", fail)


@pytest.fixture(scope="session")
def rain_day(made_once):
    """Folder of a day of weather and its rain; not to be changed."""
    from tests.rain_files import make_day

    return made_once("rain_day", make_day)


@pytest.fixture(scope="session")
def rain_run(rain_day, made_once):
    """A run of rain from surface weather."""
    from tests.rain_files import rain_recipe

    return made_once("rain_run", trained(rain_recipe(rain_day), name="test"))


@pytest.fixture(scope="session")
def fine_day(made_once):
    """Folder of a day of fine weather and its elevation; not to be changed."""
    from tests.downscale_files import make_fine_day

    return made_once("fine_day", make_fine_day)


@pytest.fixture(scope="session")
def fine_run(fine_day, made_once):
    """A run of downscaling by three."""
    from tests.downscale_files import downscale_recipe

    return made_once("fine_run", trained(downscale_recipe(fine_day), name="test"))
