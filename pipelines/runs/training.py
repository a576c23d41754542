"""A network of a recipe, and its training on some samples."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from models.backbones.hub import read_state_dict
from models.backbones.loading import LoadReport
from models.backbones.lora import merge_lora
from models.bundle import FILES, Base, fill, load_network, read_bundle, stored_whole
from models.networks.assembly import AnyNetwork, assemble, load_backbone
from models.networks.fusion import FusedNetwork
from models.networks.network import Network
from models.networks.tables import TableNetwork
from models.networks.weather import WeatherNetwork
from models.spec import Spec
from models.training.correction import fit_correction
from models.training.distillation import Distilled
from models.training.field_students import DistilledFields, prune_fields
from models.training.module import FineTuning, apply_mode
from models.training.objectives import Ensemble, Labelled
from models.training.pruning import prune
from models.training.settings import Lora
from pipelines.recipes.recipe import Recipe
from pipelines.runs.folder import Launch, fit
from pipelines.samples.chips import Chips
from pipelines.samples.sets import Again, ItemSet, Loaders, Samples, evenly
from pipelines.tasks.task import Task, load_recipe

FOLDS = "folds"  # folder of the folds' weights
JUDGED = 64  # training samples that a student's channels are judged on
WATCHED = 16  # samples whose loss is shown where no split is there to pick an epoch


def build(recipe: Recipe, spec: Spec) -> tuple[AnyNetwork, Base, LoadReport | None]:
    """Build the network and load the backbone's weights.

    Returns:
        The network, where its backbone came from, and what was loaded (None for random weights).

    Raises:
        InputError: weights that are not there, not safe or of another architecture.
    """
    torch.manual_seed(recipe.seed)
    network = assemble(spec, recipe.backbone, recipe.model, pretrained=recipe.weights != "random")
    onto: Path | None = getattr(recipe, "onto", None)
    if onto and recipe.weights != "random":  # as a plan has it, which wants no weights
        return network, _laid(network, onto), None
    bands: Sequence[str] = getattr(recipe, "pretrained_bands", ())
    base, report = load_backbone(network, recipe.backbone, recipe.weights, revision=recipe.revision, bands=bands)
    return network, base, report


def _laid(network: AnyNetwork, run: Path) -> Base:
    """Give a network the backbone of a run, as it is there; where that came from."""
    bundle, theirs = read_bundle(run), cast("Network", _of_run(run))
    network.backbone.load_state_dict(theirs.backbone.state_dict())
    if bundle.mode == "frozen" and bundle.base.source != "random":  # a published one, or that of yet another run
        return bundle.base
    return dataclasses.replace(bundle.base, source="run", file=run.name, sha256=bundle.sha256)


def _of_run(run: Path) -> AnyNetwork:
    """The network of a run, its base where the run had it."""
    return load_network(run, weights=base_of(run))


def base_of(run: Path) -> Path | None:
    """The file of a run's base, where the run had it; None where there is none, or no more."""
    base = Path(load_recipe(run / "recipe.yaml").weights)
    return base if base.is_file() else None


def module_of(
    task: Task, recipe: Recipe, network: AnyNetwork, samples: Samples, chosen: Sequence[Any], out: Path
) -> FineTuning:
    """What trains a network on some samples as a recipe says."""
    objective: Labelled | Ensemble | Distilled | DistilledFields = task.objective(network, recipe, samples, chosen)
    if getattr(recipe, "distil", None):
        objective = _taught(objective, recipe, network, samples, chosen, out)
    apply_mode(network, recipe.mode, getattr(recipe, "lora", Lora()))
    if not isinstance(network, TableNetwork):
        network.backbone.recompute = recipe.training.recompute
    if isinstance(network, Network):
        pixels = samples.spec.imagery
        network.backbone.freeze_unused(time=pixels.uses_time, location=pixels.uses_location)
    log = out / "metrics.csv"
    return FineTuning(network, objective, recipe.training, mode=recipe.mode, seed=recipe.seed, log=log)


def _taught(
    objective: Any, recipe: Any, network: Any, samples: Samples, chosen: Sequence[Any], out: Path
) -> Distilled | DistilledFields:
    """The objective of a student, which gets the weights of its teacher here."""
    teacher: Any = teacher_of(recipe, samples.spec, out)
    some = [chosen[i] for i in evenly(len(chosen), JUDGED)]
    batches = DataLoader(ItemSet(samples, some, seed=recipe.seed), batch_size=8)
    if isinstance(network, WeatherNetwork):
        prune_fields(teacher, network, batches)
        return DistilledFields(objective, teacher, share=recipe.distil.share)
    kept = prune(teacher, network, batches)
    return Distilled(objective, teacher, kept, share=recipe.distil.share, features=recipe.distil.features)


def teacher_of(recipe: Any, spec: Spec, out: Path) -> AnyNetwork:
    """The network that a student of a recipe learns from.

    Args:
        recipe: the student's.
        spec: that of the student's samples.
        out: the student's folder; that of a fold has the teacher's network of the same fold.
    """
    run = recipe.distil.teacher
    theirs = load_recipe(run / "recipe.yaml")
    if out.parent.name == FOLDS and (out.parent.parent / "recipe.yaml").is_file():  # not a person's folder of that name
        return trained(theirs, spec, run / FOLDS / out.name)
    return _of_run(run)


def trained(recipe: Recipe, spec: Spec, folder: Path) -> AnyNetwork:
    """The network of a fold, whose weights alone lie in a folder, in eval mode, adapters merged."""
    network, base, _ = build(recipe, spec)
    apply_mode(network, recipe.mode, getattr(recipe, "lora", Lora()))
    path = folder / FILES["sha256"]
    fill(network, read_state_dict(path), path, whole=stored_whole(base, recipe.mode))
    merge_lora(network)
    return network.eval()


def train(
    module: FineTuning, recipe: Recipe, samples: Samples, chosen: Sequence[Any], out: Path, launch: Launch
) -> None:
    """Train on some samples; the network ends with the kept weights, in eval mode, adapters still apart.

    Raises:
        InputError: the loss stops being finite.
        RunError: a checkpoint cannot be written.
    """
    val, training, network = samples.of("val"), recipe.training, module.network
    if not val or set(map(id, chosen)) & set(map(id, val)):
        # What is trained on cannot pick an epoch, nor can what is left out to be told of.
        training = dataclasses.replace(training, keep="last", patience=0)
    if not val:
        left = samples.of("test") or chosen
        val = [left[i] for i in evenly(len(left), WATCHED)]
    dates = samples.dates if isinstance(samples, Chips) and samples.dates.any else None
    sets = learned_of(samples, chosen, seed=recipe.seed), ItemSet(samples, val, seed=recipe.seed)
    if not (launch.resume and (out / "checkpoints" / "last.ckpt").is_file()):  # which has it already
        items = ItemSet(samples, chosen, seed=recipe.seed)
        begun = module.objective.begin(Again(items, dates.always) if dates else items, seed=recipe.seed)
        if begun:
            launch.say(begun)
    if recipe.mode == "frozen" and isinstance(network, Network) and not dates:  # else a map is of all dates
        _compute_features(network, sets, batch=training.batch)
    loaders = Loaders(*sets, training, seed=recipe.seed, full=wants_full(network))
    fit(module, loaders, network, training, out, monitor=module.objective.monitor, launch=launch)
    objective = module.objective.plain if isinstance(module.objective, Distilled) else module.objective
    if isinstance(network, FusedNetwork) and isinstance(objective, Labelled):
        learned = objective.total, objective.class_weights
        groups = [samples.group(sample) for sample in chosen]
        launch.say(fit_correction(network, sets[0], *learned, groups=groups, seed=recipe.seed))


def learned_of(samples: Samples, chosen: Sequence[Any], *, seed: int) -> ItemSet:
    """Some samples as an epoch has them, few of them several times."""
    return ItemSet(samples, chosen, seed=seed, repeat=max(samples.epoch // len(chosen), 1))


def wants_full(network: nn.Module) -> bool:
    """Whether a last batch that holds fewer samples is left out: batch norm wants more than one sample."""
    return any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in network.modules())


def _compute_features(network: Network, sets: Sequence[ItemSet], *, batch: int) -> None:
    """Compute the frozen backbone's maps of every sample once."""
    device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"
    network.to(device).eval()

    def features(items: Mapping[str, Tensor]) -> list[Tensor]:
        with torch.inference_mode():
            return [m.cpu() for m in network.features({name: item.to(device) for name, item in items.items()})]

    for items in sets:
        items.compute_features(features, batch=batch)
    network.train()
