"""The whole way in some minutes: sample data, a fine-tuned tiny Prithvi, a map of a new scene, a picture."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from models.baselines import Predict
    from models.bundle import Bundle
    from models.runtime import Array
    from pipelines.scene import Scene

SAMPLES = Path(__file__).parents[1] / "sample_data"
RECIPE = Path(__file__).parent / "recipes" / "demo.yaml"


def demo(
    *,
    out: Path = Path("demo"),
    epochs: int | None = None,
    overwrite: bool = False,
    progress: Callable[[Iterable[Any], str], Iterable[Any]] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Fine-tune a tiny Prithvi on the sample scenes, map a new scene, and compare the map with the truth kept apart.

    Args:
        out: folder for the run (run/), the maps (maps/) and the picture (demo.png).
        epochs: passes over the samples; the recipe's number when not given.
        overwrite: replace a demo that exists.
        progress: wraps long loops to show progress.
        say: takes a line for the person who waits.

    Returns:
        Headline, accuracies on the new scene, and the paths of map, picture and report.

    Raises:
        InputError: the sample data is not there, or the folder exists.
    """
    from models.bundle import read_bundle
    from models.runtime import Runtime, load_runtimes
    from pipelines.chips import Reader, find_chips, read_split
    from pipelines.evaluate import data_of, fit
    from pipelines.finetune import finetune
    from pipelines.recipe import load_recipe
    from pipelines.runs import Launch
    from pipelines.score import Reading, draw_map, open_for

    source = SAMPLES / "new_scene" / "new_scene_hls.tif"
    if not source.is_file():
        raise InputError(f"{SAMPLES}: the sample data is not there; run the demo from a copy of the repository")
    changes = {"data.root": SAMPLES / "landuse"} | ({"training.epochs": epochs} if epochs else {})
    launch = Launch(overwrite=overwrite, progress=progress, say=say)
    finetune(load_recipe(RECIPE, **changes), out / "run", launch=launch, name="demo")
    bundle = read_bundle(out / "run")
    scene, data = open_for(bundle, str(source), Reading(mask_clouds=True)), data_of(bundle)
    seed = int(bundle.training["seed"])
    split = read_split(out / "run" / "split.csv")
    chips = [c for c in find_chips(data, bundle.spec, seed=seed) if split[c.name] == "train"]
    baselines = fit(bundle.spec, Reader(bundle.spec, data), chips, seed=seed)
    accuracy, maps = {}, out / "maps"
    maps.mkdir(parents=True, exist_ok=True)
    runtimes = {"model": load_runtimes([out / "run"], runtime="openvino")}
    runtimes |= {name: Runtime(_alone(predict), lanes=1, batch=8, name=name) for name, predict in baselines.items()}
    for name, runtime in runtimes.items():
        path = maps / (f"{scene.name}_map.tif" if name == "model" else f"{scene.name}_{name.replace(' ', '_')}.tif")
        say(f"mapping {scene.name}: {name}")
        overlap = bundle.spec.tile // 2
        draw_map(path, scene, bundle, runtime, overlap=overlap, overwrite=overwrite, progress=progress)
        accuracy[name] = _agreement(path, scene, bundle)
    _picture(out / "demo.png", scene, bundle, maps / f"{scene.name}_map.tif")
    words = ", ".join(f"{name} {value:.3f}" for name, value in accuracy.items())
    return {
        "headline": f"share of the new scene's clear pixels that agree with the kept truth: {words}",
        "accuracy": accuracy,
        "map": str(maps / f"{scene.name}_map.tif"),
        "picture": str(out / "demo.png"),
        "report": str(out / "run" / "report.html"),
    }


def _alone(predict: Predict) -> Callable[..., list[Array]]:
    """A baseline as the run of a Runtime of one."""
    return lambda x, time, location: [predict(x, time, location)]


def _truth(scene: Scene, bundle: Bundle) -> NDArray[Any]:
    """Class indices of the kept truth on the scene's grid, -1 where none."""
    from pipelines.labels import read_labels

    truth = SAMPLES / "truth" / "new_scene_landuse.tif"
    return read_labels(truth, scene.geobox, scene.window, codes=bundle.spec.codes)


def _mapped(path: Path, scene: Scene, bundle: Bundle) -> NDArray[Any]:
    """Class indices of a map, -1 where it has nodata."""
    from pipelines.labels import read_labels

    return read_labels(path, scene.geobox, scene.window, codes=bundle.spec.codes)


def _agreement(path: Path, scene: Scene, bundle: Bundle) -> float:
    truth, mapped = _truth(scene, bundle), _mapped(path, scene, bundle)
    both = (truth >= 0) & (mapped >= 0)
    return float((truth == mapped)[both].mean())


def _picture(path: Path, scene: Scene, bundle: Bundle, mapped: Path) -> None:
    """The scene, the map and the truth side by side."""
    from pipelines import plots

    x, valid = scene.read(scene.window)
    classes = bundle.spec.classes
    panels: list[tuple[str, np.ndarray]] = [
        ("scene", plots.true_colour(x[:, -1], bands=scene.bands, valid=valid)),
        ("map by the fine-tuned model", plots.class_image(_mapped(mapped, scene, bundle), classes)),
        ("kept truth", plots.class_image(_truth(scene, bundle), classes)),
    ]
    figure = plots.figure(13.5, 5.6)
    grid = figure.add_gridspec(2, 3, height_ratios=(12, 1))
    for column, (title, image) in enumerate(panels):
        plots.draw_map(figure.add_subplot(grid[0, column]), image, title=title, geobox=scene.geobox)
    plots.legend(figure.add_subplot(grid[1, :]), classes)
    figure.savefig(path, dpi=110, bbox_inches="tight", facecolor="white")
