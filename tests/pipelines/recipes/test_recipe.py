"""Each recipe that comes with earthtune is read, and trains one epoch on files of the kind that it names."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from models.backbones.catalogue import BANDS
from models.bundle import read_bundle
from models.errors import InputError
from pipelines.runs.finetune import finetune
from pipelines.tasks.task import load_recipe
from tests.runs import make_chip, write

RECIPES = Path(__file__).parents[3] / "pipelines" / "recipes"
SHARED = Path(__file__).parents[4] / "shared" / "data"
needs_data = pytest.mark.skipif(not SHARED.is_dir(), reason=f"the real data is not at {SHARED}")
QUICK = {
    "backbone": "prithvi_eo_tiny",
    "weights": "random",
    "model.overrides": '{"embed_dim": 32, "depth": 4, "num_heads": 2}',
    "model.blocks": "[]",
    "model.channels": 8,
    "model.detail": 8,
    "model.statistics": 8,
    "training.epochs": 1,
    "training.batch": 2,
    "data.tile": 32,
}


def copy(root: Path, names: list[str], to: Path) -> Path:
    for name in names:
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / name, to / name)
    return to


def landuse(tmp):
    chips = [f"chip_{i:03d}" for i in (0, 1, 3, 4)]
    files = [f"{c}_{kind}.tif" for c in chips for kind in ("hls", "worldcover")]
    root = copy(SHARED / "hls_worldcover", [f for f in files if (SHARED / "hls_worldcover" / f).is_file()], tmp)
    lines = [f"{path.name.removesuffix('_hls.tif')},0,{i}" for i, path in enumerate(sorted(root.glob("*_hls.tif")))]
    (root / "chips.csv").write_text("\n".join(["chip,place,group", *lines]))
    return {"data.root": root, "data.fractions": "[0.4, 0.3, 0.3]"}


def floods(tmp):
    return {"data.root": SHARED / "sen1floods11", "data.block_km": 1, "data.tile": 96}


def scene_classes(tmp):
    files = [f"{c}/{p.name}" for c in ("Forest", "River") for p in sorted((SHARED / "eurosat" / c).iterdir())[:4]]
    return {"data.root": copy(SHARED / "eurosat", files, tmp), "data.fractions": "[0.5, 0.25, 0.25]"}


def regression(tmp):
    bands = "[BLUE, GREEN, RED, RED_EDGE_1, RED_EDGE_2, RED_EDGE_3, NIR_BROAD, NIR_NARROW, SWIR_1, SWIR_2]"
    names = [f"regression_test_0_{kind}.tif" for kind in ("input", "label")]
    root = copy(SHARED / "hls_regression", names, tmp)
    return {"data.root": root, "data.bands": bands, "data.block_km": 2}


def worldcereal(tmp):
    files = {"S2_L2A_10m": "p_scenes/S2_L2A_10m.nc", "S2_L2A_20m": "p_scenes/S2_L2A_20m.nc", "OUTPUT": "p_labels.nc"}
    files |= {"AgERA5": "p_weather.nc", "dem_31UDS": "dem.tif"}
    (tmp / "p_scenes").mkdir(parents=True)
    for part, name in files.items():
        (file,) = (SHARED / "worldcereal").glob(f"{part}*")
        shutil.copy(file, tmp / name)
    return {
        "data.root": tmp,
        "data.static": "{elevation: dem.tif}",
        "backbone": "prithvi_eo_v2_tiny_tl",
        "data.tile": 16,
    }


def crops(tmp):
    for i in range(4):
        frames = [make_chip(i + t)[0] for t in range(3)]
        write(tmp / f"chip_{i}_merged.tif", np.concatenate(frames))
        write(tmp / f"chip_{i}.mask.tif", (make_chip(i)[1] // 10).astype(np.uint8))
    return {"data.root": tmp}


def burn_scars(tmp):
    for i in range(4):
        bands, codes = make_chip(i)
        write(tmp / f"HLS.S30.T10TGS.201828{i}.v1.4_merged.tif", (bands / 1e4).astype(np.float32))
        write(tmp / f"HLS.S30.T10TGS.201828{i}.v1.4.mask.tif", (codes == 80).astype(np.int16))
    return {"data.root": tmp}


def deforestation(tmp):
    for i in range(4):
        corner = (500000 + 20000 * i, 5000000)
        for folder, seed, day in (("before", 0, "2020-06-05"), ("after", i, "2021-06-15")):
            tags = {"ACQUISITION_DATE": day}
            write(tmp / folder / f"p{i}.tif", make_chip(seed)[0], names=BANDS, corner=corner, tags=tags)
        write(tmp / "labels" / f"p{i}.tif", (make_chip(i)[1] == 30).astype(np.uint8), corner=corner)
    return {"data.root": tmp, "backbone": "prithvi_eo_v2_tiny_tl"}


def fused_demo(tmp):
    fused = Path(__file__).parents[3] / "sample_data" / "fused"
    places = [f"p{i:02d}" for i in range(4)]
    return {
        "data.root": copy(
            fused, [p.name for n in places for p in fused.glob(f"{n}*")] + ["chips.csv", "weather.nc"], tmp
        )
    }


MADE = (crops, burn_scars, deforestation, fused_demo)
REAL = (landuse, floods, scene_classes, regression, worldcereal)


WEATHER = {
    "rainfall": "rain",
    "rainfall_surface": "rain",
    "rainfall_daily": "rain",
    "downscale": "downscale",
    "fuel_moisture": "table",
    "carbon_flux": "table",
}  # tried in test_..._run.py


def test_every_recipe_is_tried():
    tried = {build.__name__ for build in (*MADE, *REAL)} | set(WEATHER) | {"demo"}  # by test_silence.py
    assert {path.stem for path in RECIPES.glob("*.yaml")} == tried
    for name, file in WEATHER.items():
        assert name in (Path(__file__).parents[1] / "runs" / f"test_{file}_run.py").read_text()


@pytest.mark.parametrize("build", [*MADE, *(pytest.param(b, marks=needs_data) for b in REAL)], ids=lambda b: b.__name__)
@pytest.mark.usefixtures("torch_only")
def test_recipe_runs(build, tmp_path):
    """Without model.onnx: several times are exported in test_export.py, answers of all kinds by runs of tests.runs."""
    own = ("model.detail", "model.statistics")
    quick = {key: value for key, value in QUICK.items() if key not in own or build is not scene_classes}
    recipe = load_recipe(RECIPES / f"{build.__name__}.yaml", **quick | build(tmp_path / "data"))
    result = finetune(recipe, tmp_path / "run", name=build.__name__)
    bundle = read_bundle(tmp_path / "run")
    assert bundle.spec.task == recipe.task and result["model"]["n"] > 0
    assert bundle.spec.imagery.times == {"crops": 3, "deforestation": 2, "worldcereal": 4}.get(build.__name__, 1)
    more = 4 if bundle.spec.series else 0  # with season and weather, and of these alone
    more += build is deforestation  # of the days alone
    assert len(result["baselines"]) == more + (4 if bundle.spec.answer.support == "tile" else 3)


@pytest.mark.parametrize(
    ("key", "value"),
    [("training.epoch", 3), ("training.epochs", "many"), ("data.tile", "wide"), ("classes", "[{code: 1}]"), ("x", 1)],
)
def test_unknown_keys_and_wrong_types_are_one_line(key, value):
    with pytest.raises(InputError) as caught:
        load_recipe(RECIPES / "demo.yaml", **{key: value})
    assert "\n" not in str(caught.value) and "demo.yaml" in str(caught.value)


def test_hash_does_not_depend_on_where_the_data_lies(tmp_path):
    one, two = (load_recipe(RECIPES / "demo.yaml", **{"data.root": tmp_path / n}) for n in "ab")
    assert one.sha256() == two.sha256()
    assert one.sha256() != load_recipe(RECIPES / "demo.yaml", seed=5).sha256()
