"""A student of a run: its recipe, what it learns from beside the labels, and how it does beside its teacher."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from lightning import seed_everything
from odc.geo.geobox import GeoBox
from rasterio.warp import transform_bounds
from shapely import STRtree, box
from torch.utils.flop_counter import FlopCounterMode

from models.bundle import FILES, bundle_id, read_bundle
from models.errors import InputError
from models.networks.assembly import AnyNetwork
from models.runtime.export import example_inputs
from models.spec import Spec
from models.training.pruning import parameters, smaller
from models.training.settings import Architecture
from models.types import Progress
from pipelines.grids.align import crop
from pipelines.grids.windows import cells
from pipelines.recipes.recipe import Distil, Recipe, SceneRecipe, check_ranges
from pipelines.reports.measures import named, number, with_unit
from pipelines.runs.crossfit import crossfit
from pipelines.runs.folder import Launch
from pipelines.runs.training import build, module_of, teacher_of, train
from pipelines.runs.worth import tokens
from pipelines.samples.chips import Chip, Chips
from pipelines.samples.sets import Samples, check_split
from pipelines.scenes.find import find_scenes
from pipelines.scenes.physical import unit_notes
from pipelines.scenes.reading import Reading
from pipelines.scenes.scene import open_told
from pipelines.tasks.task import Task, Teller, load_recipe

SIZES = {"small": 6, "tiny": 10}  # by what the parameters are divided
SCRATCH = "scratch"  # folder of the same training without a teacher
TEACHER, ALONE = "teacher", "the same without a teacher"
Asked = Mapping[str, Teller]


def student_of(
    run: Path,
    *,
    size: str,
    params: int | None,
    unlabelled: Sequence[str],
    epochs: int | None,
    data_root: Path | None,
    compare: bool,
) -> SceneRecipe:
    """The recipe of a student: that of its teacher with smaller widths.

    Args:
        run: the teacher's run folder.
        size: a key of `SIZES`.
        params: most parameters, in place of a size.
        unlabelled: scenes without labels to learn from, too.
        epochs: those of the teacher when None.
        data_root: where the training data is now; where it was when None.
        compare: see `Distil`.

    Raises:
        InputError: not a run over scenes, one that learned from its test split, or a size that cannot be.
    """
    bundle = read_bundle(run)
    if not isinstance(bundle.architecture, Architecture):
        raise InputError(f"{run}: a {bundle.spec.task} run; students are made of runs over scenes")
    changes = {"data.root": str(data_root)} if data_root else {}
    recipe = cast("SceneRecipe", load_recipe(run / "recipe.yaml", **changes))
    if recipe.refit:
        raise InputError(
            f"{run}: was trained anew on all samples (refit), so that it would tell its student of the test split; "
            "train it with refit: false, or with folds"
        )
    if size not in SIZES:
        raise InputError(f"--size {size}: wanted one of {', '.join(SIZES)}, or --params")
    asked = bundle.spec, bundle.backbone, bundle.architecture
    most = parameters(*asked) // SIZES[size] if params is None else params
    training = dataclasses.replace(recipe.training, backbone_lr=1.0, layer_decay=1.0)
    if epochs is not None:
        training = dataclasses.replace(training, epochs=epochs)
    distil = Distil(run.resolve(), bundle_id(run), [str(one) for one in unlabelled], compare=compare)
    return dataclasses.replace(
        recipe,
        model=smaller(*asked, most),
        weights="random",
        revision=None,
        mode="full",
        pretrained_bands=[],
        onto=None,
        onto_bundle="",
        training=training,
        distil=distil,
    )


def take_up(recipe: Recipe, samples: Samples, *, progress: Progress | None = None) -> dict[str, Any]:
    """Look at the teacher of a recipe, and add scenes without labels to the samples; nothing without a teacher.

    Of these, what lies on the ground of labelled images is left out.

    Returns:
        What bundle.json tells of it: "teacher", the hash of its bundle.json, and the unlabelled "samples".

    Raises:
        InputError: the teacher is another than the recipe's, was trained on other samples, or a scene cannot be read.
    """
    distil = getattr(recipe, "distil", None)
    if distil is None:
        return {}
    check_ranges({"distil.share": (distil.share, 0.0, 1.0), "distil.features": (distil.features, 0.0, 1e3)})
    bundle = read_bundle(distil.teacher)
    if distil.bundle and bundle_id(distil.teacher) != distil.bundle:
        raise InputError(f"{distil.teacher}: another run than this student began with; --overwrite starts anew")
    if _told(bundle.spec) != _told(samples.spec):
        raise InputError(f"{distil.teacher}: eats or says something else than this recipe; distil it again")
    check_split(distil.teacher / "split.csv", samples)
    if recipe.folds:
        _folds(distil.teacher, recipe.folds)
    found: list[Chip] = []
    if distil.unlabelled and isinstance(samples, Chips):
        found = _unlabelled(samples, distil.unlabelled, progress)
        samples.learn_beside(found)
        samples.notes.append(f"{len(found)} samples without labels are learned from by what the teacher says")
    return {"teacher": distil.bundle, "unlabelled": len(found)}


def _told(spec: Spec) -> Any:
    """What of a Spec a student shares with its teacher: not the statistics of a split."""
    pixels = spec.imagery
    return pixels.channels, pixels.times, pixels.tile, pixels.uses_time, pixels.uses_location, spec.answers


def _folds(teacher: Path, count: int) -> None:
    """Refuse a teacher without the networks of its folds."""
    lacking = [n for n in range(1, count + 1) if not (teacher / "folds" / str(n) / FILES["sha256"]).is_file()]
    if lacking:
        raise InputError(f"{teacher}: the network of fold {lacking[0]} is not there; copy the whole run folder again")


def _unlabelled(samples: Chips, sources: Sequence[str], progress: Progress | None) -> list[Chip]:
    """Chips of scenes without labels, apart from the ground of the labelled ones."""
    pixels, data = samples.spec.imagery, samples.data
    if samples.spec.answer.support == "tile":
        raise InputError("--unlabelled: for a class or a value a pixel; scene classes are learned from labels alone")
    own = [crop(samples.reader.scene(chip).geobox, chip.window) for chip in samples.own]
    ground = STRtree([_on_earth(one) for one in own if one.crs is not None])
    like, found = dataclasses.asdict(data), list[Chip]()
    names = find_scenes(sources)
    for source in progress(names, "looking at scenes without labels") if progress else names:
        files = tuple(map(Path, source.split(",")))
        scene = open_told([str(file) for file in files], pixels.channels, Reading(), times=pixels.times, like=like)
        unit_notes(scene)
        samples.reader.take(files, scene)
        for window in cells(*scene.shape, pixels.tile):
            place = crop(scene.geobox, window)
            if place.crs is not None and len(ground.query(_on_earth(place), "intersects")):
                continue
            corner = f"{window[0].start}_{window[1].start}"
            name, group = f"{scene.name}_unlabelled_{corner}", f"unlabelled {scene.name}"
            found.append(Chip(name, files, None, window, group, "train"))
    if not found:
        raise InputError(f"--unlabelled {' '.join(sources)}: all of it lies on ground that is labelled; leave it out")
    return found


def _on_earth(geobox: GeoBox) -> Any:
    """The degrees that a grid lies within, as a shape; all longitudes where it crosses the antimeridian."""
    west, south, east, north = transform_bounds(geobox.crs, "EPSG:4326", *geobox.boundingbox)
    return box(west, south, east, north) if west <= east else box(-180, south, 180, north)


def rivals(
    task: Task, recipe: Recipe, samples: Any, out: Path, launch: Launch, *, first: bool
) -> dict[str, tuple[Asked, AnyNetwork]]:
    """The teacher, and the same training without it, each as `tokens.tellers` and with its network; empty without one.

    Afterwards no unlabelled sample is among the samples.
    """
    distil = getattr(recipe, "distil", None)
    if distil is None:
        return {}
    found: dict[str, tuple[Asked, AnyNetwork]] = {}
    samples.learn_beside([])
    teacher = teacher_of(recipe, samples.spec, out)
    plain = dataclasses.replace(cast("SceneRecipe", recipe), distil=None)
    if recipe.folds:
        theirs = load_recipe(distil.teacher / "recipe.yaml", **{"data.root": str(recipe.data.root)})
        asked = crossfit(task, theirs, samples, distil.teacher, launch, first=first, alone=True).asked
    else:
        asked = tokens.tellers(task, teacher)
    found[TEACHER] = asked, teacher
    if distil.compare:
        launch.say("the same training without the teacher, which tells what it is worth")
        seed_everything(recipe.seed, workers=True, verbose=False)
        network, _, _ = build(plain, samples.spec)
        if recipe.folds:
            asked = crossfit(task, plain, samples, out / SCRATCH, launch, first=first, alone=True).asked
        else:
            module = module_of(task, plain, network, samples, samples.of("train"), out / SCRATCH)
            train(module, plain, samples, samples.of("train"), out / SCRATCH, launch)
            asked = tokens.tellers(task, network)
        found[ALONE] = asked, network
    return found


def compared(
    task: Task, samples: Samples, tested: Sequence[Any], ours: tuple[Asked, Any], others: Mapping[str, Any]
) -> dict[str, Any] | None:
    """How a student does beside its rivals, all on samples that none of them saw.

    Returns:
        "score", the leading one; "rows", for each "name", the score, that with tokens at zero, "parameters" and
        "products" (multiply-adds of one tile); "compared" with each; and "told", sentences. None without rivals.
    """
    if not others:
        return None
    models = {"model": ours, **others}
    every = {f"{name}{mark}": asked[kind] for name, (asked, _) in models.items() for mark, kind in _KINDS.items()}
    found = task.judge(samples, tested, every)
    lead, unit = found.shown.said[0], found.shown.unit
    rows: list[dict[str, Any]] = []
    for name, (_, network) in models.items():
        whole, zeroed = (found.scores[f"{name}{mark}"].get(lead) for mark in _KINDS)
        row = {"name": "student" if name == "model" else name, "score": whole, "zeroed": zeroed}
        rows.append(row | {"parameters": sum(w.numel() for w in network.parameters()), "products": products(network)})
    beside = {name: found.compare("model", name) for name in others}
    part = rows[1]["parameters"] / rows[0]["parameters"], rows[1]["products"] / rows[0]["products"]
    said = [
        f"Student of {part[0]:.1f} times fewer parameters and {part[1]:.1f} times fewer products a tile; its time "
        "falls less, for what is told of surroundings costs the same."
    ]
    for name, one in beside.items():
        said.append(
            f"Beside {'its ' * (name == TEACHER)}{name}: {one.told(unit, names=('The student', _called(name)))}"
        )
    without = found.compare("model", f"model{_AT_ZERO}")
    if without.verdict != "ahead":
        said.append("The student does as well without tokens: what it knows is in the bands and their surroundings.")
    gain = with_unit(lead, number(lead, without.gain, sign="+"), unit)
    return {
        "score": lead,
        "named": named(lead),
        "rows": rows,
        "compared": {name: one.to_json() for name, one in beside.items()},
        "tokens": {"gain": gain, **without.to_json()},
        "told": said,
    }


_AT_ZERO = ", " + tokens.ZEROED
_KINDS = {"": tokens.AS_IS, _AT_ZERO: tokens.ZEROED}


def _called(name: str) -> str:
    """A rival as the subject of a sentence."""
    return "The teacher" if name == TEACHER else "The one without a teacher"


def products(network: AnyNetwork) -> int:
    """Multiply-adds of a network over one tile; those of its convolutions and linear layers, which are nearly all."""
    counter = FlopCounterMode(display=False)
    with torch.inference_mode(), counter:
        network.eval().predict(example_inputs(network.spec, batch=1))
    return int(counter.get_total_flops()) // 2


def view(found: Mapping[str, Any] | None, unit: str) -> dict[str, Any] | None:
    """What the report shows of a comparison: sentences, and a row for each model."""
    if found is None:
        return None
    lead = found["score"]
    rows = [
        {
            "name": row["name"],
            "scores": [with_unit(lead, number(lead, row[key]), unit) for key in ("score", "zeroed")],
            "size": f"{row['parameters'] / 1e6:.2f} M",
            "products": f"{row['products'] / 1e9:.2f} G",
        }
        for row in found["rows"]
    ]
    return {"told": found["told"], "score": named(lead), "rows": rows}
