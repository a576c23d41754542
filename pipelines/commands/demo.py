"""The whole way in some minutes: sample data, a fine-tuned tiny Prithvi, a map of a new scene, a picture."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.errors import InputError
from pipelines.commands.outcome import Outcome

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.bundle import Bundle
    from pipelines.scenes.scene import Scene

SAMPLES = Path(__file__).parents[2] / "sample_data"
RECIPE = Path(__file__).parents[1] / "recipes" / "demo.yaml"


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
    from models.runtime.engines import load_runtimes
    from pipelines.runs.assess import baselines_of
    from pipelines.runs.finetune import finetune
    from pipelines.runs.folder import Launch
    from pipelines.samples.labelling.labels import read_labels
    from pipelines.scenes.reading import Reading
    from pipelines.scoring.opening import open_for, write_map
    from pipelines.scoring.rows import class_map
    from pipelines.tasks.task import load_recipe

    source = SAMPLES / "new_scene" / "new_scene_hls.tif"
    if not source.is_file():
        raise InputError(f"{SAMPLES}: the sample data is not there; run the demo from a copy of the repository")
    changes = {"data.root": SAMPLES / "landuse"} | ({"training.epochs": epochs} if epochs else {})
    launch = Launch(overwrite=overwrite, progress=progress, say=say)
    finetune(load_recipe(RECIPE, **changes), out / "run", launch=launch, name="demo")
    bundle = read_bundle(out / "run")
    scene = open_for(bundle, str(source), Reading(mask_clouds=True))
    path, overlap = out / "maps" / f"{scene.name}_map.tif", bundle.spec.imagery.tile // 2
    path.parent.mkdir(parents=True, exist_ok=True)
    say(f"mapping {scene.name}")
    runtime = load_runtimes([out / "run"], runtime="openvino")
    write_map(path, scene, bundle, runtime, overlap=overlap, overwrite=overwrite, progress=progress)
    files, codes = (path, SAMPLES / "truth" / "new_scene_landuse.tif"), bundle.spec.answer.codes
    mapped, truth = (read_labels(file, scene.geobox, scene.window, codes=codes) for file in files)
    others = baselines_of(out / "run").items()
    maps = {"model": mapped} | {
        name: class_map(scene, bundle.spec, predict, overlap=overlap) for name, predict in others
    }
    accuracy = {name: float((truth == said)[(truth >= 0) & (said >= 0)].mean()) for name, said in maps.items()}
    _picture(out / "demo.png", scene, bundle, mapped, truth)
    words = ", ".join(f"{name} {value:.3f}" for name, value in accuracy.items())
    return {
        "headline": f"share of the new scene's clear pixels that agree with the kept truth: {words}",
        "accuracy": accuracy,
        "map": str(path),
        "picture": str(out / "demo.png"),
        "report": str(out / "run" / "report.html"),
    }


def told(result: Mapping[str, Any], options: Mapping[str, Any]) -> Outcome:
    """The headline, and where map, picture and report are."""
    files = (f"{name}: {result[name]}" for name in ("map", "picture", "report"))
    return Outcome(result, "\n".join([result["headline"], *files]))


def _picture(path: Path, scene: Scene, bundle: Bundle, mapped: NDArray[Any], truth: NDArray[Any]) -> None:
    """The scene, the map and the truth side by side."""
    from pipelines.reports import plots
    from pipelines.reports.map_plots import map_row

    x, valid = scene.read(scene.window)
    classes = bundle.spec.answer.classes
    panels = {
        "scene": plots.true_colour(x[:, -1], bands=scene.bands, valid=valid),
        "map by the fine-tuned model": plots.class_image(mapped, classes),
        "kept truth": plots.class_image(truth, classes),
    }
    figure = plots.figure(13.5, 5.6)
    map_row(figure, panels, geobox=scene.geobox, classes=classes)
    figure.savefig(path, dpi=110, bbox_inches="tight", facecolor="white")
