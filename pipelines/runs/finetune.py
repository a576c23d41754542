"""From recipe to run folder, for every task: prepare, build, train, assess, write."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from lightning import seed_everything
from torch.onnx import OnnxExporterError

from models.backbones.loading import LoadReport
from models.backbones.lora import merge_lora
from models.bundle import FILES, Bundle, stored_whole, write_bundle, write_weights
from models.errors import InputError, RunError
from models.networks.assembly import AnyNetwork, predict_by
from models.networks.network import Network
from models.networks.tables import TableNetwork
from models.runtime.agreement import write_graph
from models.runtime.export import example_inputs
from models.runtime.rounding import rounding
from models.spec import Classes
from models.training.settings import Lora
from models.types import Inputs, Predict
from pipelines.grids.rasters import trusting
from pipelines.recipes.onto import settled
from pipelines.recipes.recipe import Recipe
from pipelines.records.energy import ASSESS, WRITE
from pipelines.runs import corrections, distil, trust
from pipelines.runs.answers import KEPT, Answers
from pipelines.runs.assess import assess
from pipelines.runs.check import check
from pipelines.runs.crossfit import LeftOut, crossfit
from pipelines.runs.folder import Launch, booked_run, is_first, lap, make_folder, replacing_run, result_before
from pipelines.runs.shares import LEARNED, learn_gate, set_weights
from pipelines.runs.training import build, module_of, train
from pipelines.runs.worth import inputs, tokens
from pipelines.samples.sets import SPLITS, Samples, check_split, divided, evenly, inputs_of, write_split
from pipelines.tasks.task import Task, Teller, task_named

LARGEST = 2 << 30  # bytes of weights over weather that are exported: what a file of ONNX holds
COMPARED = 16  # samples on which reduced precisions are compared


def finetune(recipe: Recipe, out: Path, *, launch: Launch | None = None, name: str = "run") -> dict[str, Any]:
    """Fine-tune a Prithvi backbone and write a run folder.

    The folder holds bundle.json, model.safetensors, model.onnx, recipe.yaml, split.csv, metrics.csv, metrics.json,
    report.html and checkpoints/. It is made once recipe, data and weights were found good.

    Args:
        recipe: what to make.
        out: the run folder.
        launch: how to carry it out.
        name: what the report calls the run.

    Returns:
        What metrics.json holds, with a headline.

    Raises:
        InputError: anything in the recipe, the data or the weights that cannot be used, or a run folder that exists.
        RunError: the exported model does not agree with the trained one, or the disk is full.
    """
    launch, task = launch or Launch(), task_named(recipe.task)
    check(task, recipe)
    recipe = settled(recipe)
    if getattr(recipe, "onto", None) == out.resolve():
        raise InputError(f"{out}: is the run that this one would stand on; --out names another folder")
    with trusting(launch.trust):
        if not is_first():
            return _booked(task, recipe, out, launch, name)
        return replacing_run(out, launch, lambda: _booked(task, recipe, out, launch, name))


def _booked(task: Task, recipe: Recipe, out: Path, launch: Launch, name: str) -> dict[str, Any]:
    """The steps of `finetune`, whose energy is booked; the label is told with the result."""
    with booked_run("finetune", out, launch) as launch:
        return _finetune(task, recipe, out, launch, name)


def _finetune(task: Task, recipe: Recipe, out: Path, launch: Launch, name: str) -> dict[str, Any]:
    """The steps of `finetune`."""
    first = is_first()
    if first and (before := result_before(out, recipe.to_json(), launch)) is not None:
        return before
    samples = _samples(task, recipe)
    returned, teacher = corrections.take_up(recipe, samples), distil.take_up(recipe, samples, progress=launch.progress)
    network, base, report = build(recipe, samples.spec)
    module = module_of(task, recipe, network, samples, samples.of("train"), out)
    if first and launch.resume and not launch.overwrite:
        check_split(out / "split.csv", samples)
    if first:
        parts = f"{samples.described}: {divided(samples, recipe.folds)}"
        for line in (*(report.lines() if report else ()), *samples.notes, parts):
            launch.say(line)
        make_folder(out, recipe.to_json(), launch)
        write_split(out / "split.csv", samples)
        corrections.keep(out, returned)
    left = crossfit(task, recipe, samples, out, launch, first=first) if recipe.folds else None
    if left:
        launch.say("the model of the folder: all samples")
        seed_everything(recipe.seed, workers=True, verbose=False)
    train(module, recipe, samples, samples.of("train"), out, launch)
    plain = corrections.without(task, recipe, samples, out, launch, first=first) if returned else None
    rivals = distil.rivals(task, recipe, samples, out, launch, first=first)
    if not module.trainer.is_global_zero:
        if recipe.refit and not left:
            _trained_anew(task, recipe, samples, out, launch)  # its share of it
        return {}
    bundle = Bundle(
        samples.spec,
        recipe.backbone,
        _architecture(recipe, network, samples, left),
        base,
        recipe.mode,
        stored_whole(base, recipe.mode),
        data=recipe.to_json()["data"] | samples.found,
        training=_history(task, recipe, name, len(module.curves), samples) | _taken(report, returned, teacher),
        lora=getattr(recipe, "lora", Lora()),
    )
    again = recipe.refit and not left
    bundle, predict = save(out, bundle, network, samples, launch, last=not again)
    tested, models, asked, answers = _asked(task, recipe, samples, network, predict, left)
    compared = [tested[i] for i in evenly(len(tested), COMPARED)]
    bundle = dataclasses.replace(bundle, rounding=_rounded(out, bundle, inputs_of(samples, compared), predict))
    ground = trust.familiar_ground(out, samples, samples.of("train"), recipe.seed)
    told: dict[str, Any] = {"curves": module.curves, "answers": answers, "ground": ground, "progress": launch.progress}
    found = corrections.changed(task, samples, tested, asked[tokens.AS_IS], plain)
    student = distil.compared(task, recipe, samples, tested, (asked, network), rivals, out)
    told |= {"asked": asked, "corrections": found, "student": student, "meter": launch.meter}
    result = assess(out, bundle, samples, tested, models, **told)
    if left:
        left.answers.write(out / KEPT)
    if again:
        bundle, predict = _refitted(task, recipe, samples, bundle, out, launch)
        bundle = dataclasses.replace(bundle, rounding=_rounded(out, bundle, inputs_of(samples, compared), predict))
    sure = trust.kept(result["confidence"], result["unfamiliar"])
    said: dict[str, Any] = {"scores": result["model"], "baselines": result["baselines"], "confidence": sure}
    write_bundle(out, dataclasses.replace(bundle, **said))
    return result


def _samples(task: Task, recipe: Recipe) -> Samples:
    """The samples of a recipe, and the same random numbers for all that follows."""
    seed_everything(recipe.seed, workers=True, verbose=False)
    samples = task.prepare(recipe)
    if recipe.folds:  # the model of the folder learns from all, and those of the folds tell what it is worth
        samples.fold(recipe.folds, None, seed=recipe.seed)
        samples.spec = task.fitted(samples, ("train",))
    return samples


def _architecture(recipe: Recipe, network: AnyNetwork, samples: Samples, left: LeftOut | None) -> Any:
    """The settings of the network, with the weights of its parts that left-out groups tell, which it gets, too."""
    weights = left.weights if left else learn_gate(network, samples)
    set_weights(network, weights)
    return dataclasses.replace(recipe.model, **weights)


def _asked(
    task: Task, recipe: Recipe, samples: Samples, network: AnyNetwork, predict: Predict, left: LeftOut | None
) -> tuple[list[Any], Mapping[str, Teller], Mapping[str, Teller], Answers]:
    """Samples that judge a run; the model and its baselines; the model with other tokens and inputs; answers, kept."""
    if left:
        return left.chosen, left.models, left.asked, left.answers
    tested = samples.of("test") or samples.of("val")
    answers = Answers(len(samples.of("val", "test")))
    model = answers.kept(task.teller(predict))
    _asked_of_rest(samples, tested, model)
    models = {"model": model, **task.baselines(samples, samples.of("train"), recipe.seed)}
    return tested, models, {**tokens.tellers(task, network), **inputs.tellers(task, network)}, answers


def _asked_of_rest(samples: Samples, tested: Sequence[Any], model: Teller) -> None:
    """Ask about the validation samples, too: confidence wants all groups that the model did not learn from."""
    rest = [sample for sample in samples.of("val", "test") if sample not in tested]
    for first in range(0, len(rest), COMPARED):
        model(samples, rest[first : first + COMPARED])


def _refitted(
    task: Task, recipe: Recipe, samples: Samples, bundle: Bundle, out: Path, launch: Launch
) -> tuple[Bundle, Predict]:
    """Train anew on all samples, and write that model in place of the one that was scored."""
    launch.say("training anew on all samples")
    network = _trained_anew(task, recipe, samples, out, launch)
    set_weights(network, {name: getattr(bundle.architecture, name, 0.0) for name in LEARNED})
    said = (
        "The model in this folder was trained anew on all samples; the scores are those of the one that never saw "
        "the test split."
    )
    training = {**bundle.training, "refit": True, "notes": [*bundle.training["notes"], said]}
    bundle = dataclasses.replace(bundle, spec=samples.spec, training=training)
    return save(out, bundle, network, samples, launch, last=True)


def _trained_anew(task: Task, recipe: Recipe, samples: Samples, out: Path, launch: Launch) -> AnyNetwork:
    """A network trained on all samples, with a Spec of their statistics."""
    samples.spec = task.fitted(samples, SPLITS)
    network, _, _ = build(recipe, samples.spec)
    module = module_of(task, recipe, network, samples, samples.samples, out / "refit")
    train(module, recipe, samples, list(samples.samples), out / "refit", launch)
    return network


def save(
    out: Path, bundle: Bundle, network: AnyNetwork, samples: Samples, launch: Launch, *, last: bool
) -> tuple[Bundle, Predict]:
    """Write weights, ONNX that agrees with them, and bundle.json, which makes the folder a bundle.

    Args:
        out: the run folder.
        bundle: what it is to hold.
        network: the trained network.
        samples: what it was trained on.
        launch: who is told.
        last: whether no other model will take its place; of those over weather only such a one is exported.

    Returns:
        The bundle, and the model in float32.

    Raises:
        RunError: the exported model answers differently from the trained one, over scenes.
    """
    lap(launch, ASSESS)
    for name in ("bundle.json", FILES["int8"]):  # until all that it tells of is there; bytes are those of another
        (out / name).unlink(missing_ok=True)
    if bundle.whole:
        merge_lora(network)
    write_weights(out, network, whole=bundle.whole)
    merge_lora(network)
    if isinstance(network, Network | TableNetwork):
        launch.say("exporting and checking model.onnx")
        inputs = example_inputs(bundle.spec, batch=3)
        scale = 1.0 if isinstance(bundle.spec.answer, Classes) else float(network.target_std)
        predict = write_graph(out, bundle, network, inputs, scale=scale)
        lap(launch, WRITE)
        return bundle, predict_by(network) if bundle.spec.over_tables else predict  # which asks about rows one by one
    (out / "model.onnx").unlink(missing_ok=True)  # of an earlier attempt
    if last and (missing := _export_fields(out, bundle, network, samples, launch)):
        launch.say(missing)
        training = {**bundle.training, "notes": [*bundle.training["notes"], missing]}
        bundle = dataclasses.replace(bundle, training=training)
    write_bundle(out, bundle)
    lap(launch, WRITE)
    return bundle, predict_by(network)


def _export_fields(out: Path, bundle: Bundle, network: AnyNetwork, samples: Samples, launch: Launch) -> str:
    """Write model.onnx for the grid of the samples; where there can be none, why, for the run goes on without."""
    size = sum(weight.nbytes for weight in network.parameters())
    if size > LARGEST:
        return f"No model.onnx: {size / 1e9:.1f} GB of weights are more than it holds; the run is scored with torch."
    launch.say("exporting and checking model.onnx")
    chosen = [samples.samples[i * len(samples.samples) // 3] for i in range(3)]
    inputs = {name: torch.from_numpy(given) for name, given in inputs_of(samples, chosen).items()}
    try:
        write_graph(out, bundle, network, inputs, scale=bundle.spec.field.scale)
    except (RunError, OnnxExporterError) as error:
        (out / "model.onnx").unlink(missing_ok=True)
        reason = str(error).strip().splitlines()[0].removesuffix("; the bundle is not kept")
        return f"No model.onnx: {reason}; the run is scored with torch."
    return ""


def _rounded(out: Path, bundle: Bundle, inputs: Inputs, exact: Predict) -> dict[str, dict[str, float]]:
    """What `Bundle.rounding` is to hold; nothing for what OpenVINO computes in float32: over weather, and tables."""
    if bundle.spec.over_weather or bundle.spec.over_tables:
        return {}
    return rounding(out, bundle.spec.answer, inputs, exact=exact)


def _history(task: Task, recipe: Recipe, name: str, epochs: int, samples: Samples) -> dict[str, Any]:
    """What bundle.json tells of the training."""
    said = (
        f"The scores are those of {recipe.folds} models, each asked about groups that it never saw; the model in this "
        "folder was trained on all samples."
    )
    return {
        "recipe": name,
        "sha256": recipe.sha256(),
        "seed": recipe.seed,
        "epochs": epochs,
        "split": {split: len(samples.of(split)) for split in SPLITS if samples.of(split)},
        "divided": divided(samples, recipe.folds),
        "versions": {package: version(package) for package in ("earthtune", "torch", "lightning", *task.packages)},
        "notes": [*samples.notes, *([said] if recipe.folds else [])],
        "refit": bool(recipe.folds),
    }


def _taken(
    report: LoadReport | None, returned: Sequence[Mapping[str, Any]], teacher: Mapping[str, Any]
) -> dict[str, Any]:
    """What bundle.json tells of a patch embedding that was loaded, corrections that were taken up, and a teacher."""
    bands = {"patch_embedding": dict(report.bands)} if report else {}
    said = {"corrections": list(returned), "distilled": dict(teacher)}
    return bands | {name: found for name, found in said.items() if found}
