"""A student of a run: its recipe, what it learns from beside the labels, and whom it is held against."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from lightning import seed_everything
from odc.geo.geobox import GeoBox
from rasterio.warp import transform_bounds
from shapely import STRtree, box

from models.bundle import FILES, Bundle, bundle_id, read_bundle
from models.errors import InputError
from models.networks.assembly import AnyNetwork
from models.spec import IMAGERY, Spec
from models.training.field_students import smaller_fields
from models.training.pruning import parameters, smaller
from models.training.settings import Architecture, Training, WeatherArchitecture
from models.types import Progress
from pipelines.grids.align import crop
from pipelines.grids.windows import cells
from pipelines.recipes.recipe import Distil, Recipe, check_ranges
from pipelines.runs import trust
from pipelines.runs.crossfit import crossfit
from pipelines.runs.folder import Launch
from pipelines.runs.training import build, module_of, teacher_of, train
from pipelines.runs.worth import costs, students, tokens
from pipelines.runs.worth.students import ALONE, TEACHER, Asked
from pipelines.samples.chips import Chip, Chips
from pipelines.samples.sets import Samples, check_split, inputs_of
from pipelines.scenes.find import find_scenes
from pipelines.scenes.physical import unit_notes
from pipelines.scenes.reading import Reading
from pipelines.scenes.scene import open_told
from pipelines.tasks.task import Task, load_recipe

SIZES = {"small": 6, "tiny": 10}  # by what the parameters are divided
SCRATCH = "scratch"  # folder of the same training without a teacher


def student_of(
    run: Path,
    *,
    size: str,
    params: int | None,
    unlabelled: Sequence[str],
    epochs: int | None,
    data_root: Path | None,
    compare: bool,
) -> Recipe:
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
        InputError: not a run over scenes or weather, one that learned from its test split, or a size that cannot be.
    """
    bundle = read_bundle(run)
    if bundle.spec.over_tables:
        raise InputError(f"{run}: a {bundle.spec.task} run; students are made of runs over scenes or weather")
    if bundle.spec.over_weather and unlabelled:
        raise InputError("--unlabelled: scenes, for runs over scenes; weather is learned from with what is known of it")
    changes = {"data.root": str(data_root)} if data_root else {}
    recipe = load_recipe(run / "recipe.yaml", **changes)
    if recipe.refit:
        raise InputError(
            f"{run}: was trained anew on all samples (refit), so that it would tell its student of the test split; "
            "train it with refit: false, or with folds"
        )
    if size not in SIZES:
        raise InputError(f"--size {size}: wanted one of {', '.join(SIZES)}, or --params")
    if params is None:
        params = parameters(bundle.spec, bundle.backbone, bundle.architecture) // SIZES[size]
    training = dataclasses.replace(recipe.training, backbone_lr=1.0)
    if epochs is not None:
        training = dataclasses.replace(training, epochs=epochs)
    distil = Distil(run.resolve(), bundle_id(run), [str(one) for one in unlabelled], compare=compare)
    if bundle.spec.over_weather:
        distil = dataclasses.replace(distil, features=0.0)  # encoders of another width have no maps to compare
    made = _scenes(bundle, training, params) if IMAGERY in bundle.spec.inputs else _fields(bundle, recipe, params)
    alike: dict[str, Any] = {"weights": "random", "revision": None, "mode": "full", "training": training}
    return dataclasses.replace(recipe, **alike | {"distil": distil} | made)


def _scenes(bundle: Bundle, training: Training, most: int) -> dict[str, Any]:
    """What a student over scenes has of its own."""
    model = smaller(bundle.spec, bundle.backbone, cast("Architecture", bundle.architecture), most)
    training = dataclasses.replace(training, layer_decay=1.0)
    return {"model": model, "training": training, "pretrained_bands": [], "onto": None, "onto_bundle": ""}


def _fields(bundle: Bundle, recipe: Recipe, most: int) -> dict[str, Any]:
    """What a student over weather has of its own; the climatology is where the teacher found it with its weights."""
    model = smaller_fields(bundle.spec, bundle.backbone, cast("WeatherArchitecture", bundle.architecture), most)
    found = {key: bundle.data[key] for key in ("climatology",) if hasattr(recipe.data, key)}
    return {"model": model, "data": dataclasses.replace(recipe.data, **found)}


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
    if spec.over_weather:
        cells, measured = spec.weather, ("scale", "positive")
        answer = {key: value for key, value in dataclasses.asdict(spec.field).items() if key not in measured}
        heard = cells.channels, cells.units, cells.times, cells.step, cells.position, cells.size, bool(cells.elevation)
        return *heard, cells.static, cells.climatology, answer
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
    if isinstance(samples, Chips):
        samples.learn_beside([])
    teacher = teacher_of(recipe, samples.spec, out)
    alone: dict[str, Any] = {"distil": None}
    plain = dataclasses.replace(recipe, **alone)
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
    task: Task,
    recipe: Recipe,
    samples: Samples,
    tested: Sequence[Any],
    ours: tuple[Asked, AnyNetwork],
    others: Mapping[str, Any],
    out: Path,
) -> dict[str, Any] | None:
    """How a student does beside its rivals, see `students.compared`; what a tile of each costs lies in the run folder.

    None without rivals.
    """
    distil = getattr(recipe, "distil", None)
    if distil is None or not others:
        return None
    found = students.compared(task, samples, tested, ours, others)
    folders = {students.STUDENT: out, TEACHER: distil.teacher}
    costs.write(out, folders, inputs_of(samples, tested[:1]))
    return found | {"unfamiliar": trust.foreign_ground(samples, samples.of("train"), recipe.seed)}
