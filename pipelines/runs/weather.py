"""Fine-tune Prithvi WxC for a task over weather fields, and score it beside its baselines."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models.baselines.fields import Forecast
from models.bundle import Base, stored_whole, write_bundle, write_weights
from models.errors import InputError, RunError
from models.files import replacing
from models.training.settings import Training
from models.weather_bundle import WeatherBundle, load_encoder, load_weather, network_kind, read_weather_bundle
from pipelines.recipes.recipe import check_training
from pipelines.recipes.weather import WeatherRecipe
from pipelines.reports.weather_report import WeatherExample, best_baseline, headline, write_weather_report
from pipelines.reports.weather_scores import weather_scores
from pipelines.runs.folder import (
    Launch,
    fit,
    history,
    make_folder,
    replacing_run,
    result_before,
    trained_on,
    write_result,
)
from pipelines.samples.fields import SPLITS, Baseline, Sample, Samples, describe
from pipelines.samples.loaders import WeatherLoaders, WeatherSet
from pipelines.scoring.fields import forecast
from pipelines.tasks.weather import TASKS, data_for

if TYPE_CHECKING:
    from models.networks.weather import WeatherNetwork
    from models.training.weather import WeatherTraining

MODES = ("frozen", "full")
EXAMPLES = 3
EPOCH = 64  # samples of an epoch; fewer of them come several times, as often as all fit in


def finetune_weather(
    recipe: WeatherRecipe, out: Path, *, launch: Launch | None = None, name: str = "run"
) -> dict[str, Any]:
    """Train on weather fields and write a run folder.

    The folder holds bundle.json, model.safetensors, recipe.yaml, split.csv, metrics.csv, metrics.json, report.html and
    checkpoints/. Arguments, result and errors are those of `finetune.finetune`.
    """
    launch = launch or Launch()
    if launch.devices != "1":
        raise InputError(f"devices {launch.devices}: weather is trained on one device; leave --devices out")
    _check(recipe)
    return replacing_run(out, launch, lambda: _finetune(recipe, out, launch, name))


def _check(recipe: WeatherRecipe) -> None:
    """Refuse what can be refused before any file is opened."""
    if recipe.task not in TASKS:
        raise InputError(f"task {recipe.task!r}: wanted one of {', '.join(TASKS)}")
    if recipe.mode not in MODES:
        raise InputError(f"mode {recipe.mode!r}: wanted one of {', '.join(MODES)} for weather")
    check_training(recipe.training, recipe.weights, batch=1)
    losses = network_kind(recipe.task).losses
    if set(recipe.training.loss) - set(losses):
        raise InputError(f"training.loss {dict(recipe.training.loss)}: wanted weights of {', '.join(losses)}")
    if recipe.weights == "random" and recipe.mode == "frozen":
        raise InputError("weights random, mode frozen: an encoder of random weights learns nothing; --mode full")


def _finetune(recipe: WeatherRecipe, out: Path, launch: Launch, name: str) -> dict[str, Any]:
    """The steps of `finetune_weather`."""
    if (before := result_before(out, recipe.to_json(), launch)) is not None:
        return before
    from lightning import seed_everything

    seed_everything(recipe.seed, workers=True, verbose=False)
    samples = prepare(recipe)
    sizes = {split: len(samples.of(split)) for split in SPLITS}
    network, base, lines = build(recipe, samples.spec)
    for line in (describe(samples.weather), *samples.notes, ", ".join(f"{n} {s}" for s, n in sizes.items()), *lines):
        launch.say(line)
    make_folder(out, recipe.to_json(), launch)
    _write_split(out / "split.csv", samples)
    module = _train(recipe, network, samples, samples.of("train"), out, launch)
    held_out = samples.of("test")
    made = forecast(network, samples, held_out)
    baselines = samples.baselines(samples.of("train"))
    notes = list(samples.notes)
    if recipe.refit:
        launch.say("training anew on all blocks")
        samples.spec = samples.measured(*SPLITS, "")
        network, base, _ = build(recipe, samples.spec)
        _train(recipe, network, samples, samples.samples, out / "refit", launch)
        notes.append(
            "The model in this folder was trained anew on all blocks; the scores are those of the one that never saw "
            "the test block."
        )
    bundle = WeatherBundle(
        samples.spec,
        recipe.backbone,
        recipe.model,
        base,
        recipe.mode,
        stored_whole(base, recipe.mode),
        data=recipe.to_json()["data"] | samples.found,
        training=history(recipe, name, len(module.curves), sizes, ("scores",), notes) | {"refit": recipe.refit},
    )
    bundle = dataclasses.replace(bundle, sha256=write_weights(out, network, whole=bundle.whole))
    result = assess(out, bundle, samples, held_out, made, baselines, curves=module.curves)
    write_bundle(out, dataclasses.replace(bundle, scores=result["model"], baselines=result["baselines"]))
    return result


def prepare(recipe: WeatherRecipe) -> Samples:
    """Read the data, divide it, and settle the Spec that fits it.

    Raises:
        InputError: see `rain_samples` and `downscale_samples`.
    """
    samples = TASKS[recipe.task].prepare(recipe)
    samples.divide(recipe.data.split, recipe.data.gap)
    samples.spec = samples.measured("train")
    return samples


def build(recipe: WeatherRecipe, spec: Any) -> tuple[WeatherNetwork, Base, list[str]]:
    """Build the network and load the encoder's weights.

    Returns:
        The network, where its encoder came from, and what was loaded, as lines.

    Raises:
        InputError: weights that are not there, not safe or of another architecture.
    """
    import torch

    torch.manual_seed(recipe.seed)
    network = network_kind(recipe.task)(spec, recipe.backbone, recipe.model, pretrained=recipe.weights != "random")
    base, report = load_encoder(network, recipe.backbone, recipe.weights, revision=recipe.revision)
    return network, base, list(report.lines()) if report else []


def _train(
    recipe: WeatherRecipe,
    network: WeatherNetwork,
    samples: Samples,
    chosen: Sequence[Sample],
    out: Path,
    launch: Launch,
) -> WeatherTraining:
    """Train on some samples; the network ends with the kept weights, in eval mode."""
    from models.training.weather import MONITOR, WeatherTraining

    training = _whole(recipe.training, chosen, samples)
    module = WeatherTraining(network, training, mode=recipe.mode, seed=recipe.seed, log=out / "metrics.csv")
    repeat = max(EPOCH // len(chosen), 1)
    train = WeatherSet(samples, chosen, recipe.augment, seed=recipe.seed, repeat=repeat)
    val = WeatherSet(samples, samples.of("val"), recipe.augment, seed=recipe.seed)
    loaders = WeatherLoaders(train, val, training, seed=recipe.seed)
    fit(module, loaders, network, training, out, monitor=MONITOR, launch=launch)
    return module


def _whole(training: Training, chosen: Sequence[Sample], samples: Samples) -> Training:
    """The settings; a validation block that is trained on cannot pick an epoch."""
    seen = set(chosen) & set(samples.of("val"))
    return dataclasses.replace(training, keep="last", patience=0) if seen else training


def assess(
    folder: Path,
    bundle: WeatherBundle,
    samples: Samples,
    chosen: Sequence[Sample],
    made: Forecast,
    baselines: Mapping[str, Baseline],
    *,
    curves: Sequence[Mapping[str, float]],
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Score forecasts of samples, and the baselines; write metrics.json and report.html into `folder`.

    Returns:
        {"headline", "data", "samples", "model": scores, "baselines": {name: scores}}.
    """
    spec, data = bundle.spec, samples.weather.name
    truth = np.stack([samples.truth(s) for s in chosen])
    forecasts = {"model": made} | {name: predict(samples, chosen) for name, predict in baselines.items()}
    times = np.array([samples.time(s) for s in chosen])
    scores = {
        name: weather_scores(f, truth, samples.area, levels=spec.levels, thresholds=spec.thresholds, times=times)
        for name, f in forecasts.items()
    }
    model = scores.pop("model")
    if not model["n"]:
        raise InputError(f"{data}: no cell with truth and forecast; nothing to score")
    result = {"headline": headline(spec.unit, model, scores), "data": data, "samples": len(chosen)}
    result |= {"model": model, "baselines": scores}
    write_result(folder, result)
    shown = [*samples.shown, *([] if samples.shown else [best_baseline(scores)]), "model"]
    means = {name: forecasts[name].mean for name in shown if name in forecasts}
    write_weather_report(
        folder / "report.html",
        title=f"{bundle.training.get('recipe', 'run')}: {bundle.backbone}",
        spec=spec,
        facts=_facts(bundle, samples, len(chosen)),
        scores=model,
        baselines=scores,
        curves=curves,
        examples=[
            WeatherExample(
                str(samples.valid(chosen[i])),
                samples.seen(chosen[i]) | {name: mean[i] for name, mean in means.items()} | {"truth": truth[i]},
                made.mean[i] - truth[i],
                *samples.grid,
            )
            for i in _liveliest(truth)
        ],
        notes=[*bundle.training.get("notes", ()), *notes],
    )
    return result


def _liveliest(truth: np.ndarray) -> list[int]:
    """Indices of the times whose fields (N, H, W) vary most, in the order of time."""
    filled = np.where(np.isfinite(truth), truth, np.nanmean(truth))
    return sorted(int(i) for i in np.argsort(-filled.std(axis=(1, 2)))[:EXAMPLES])


def _facts(bundle: WeatherBundle, samples: Samples, count: int) -> dict[str, str]:
    spec = bundle.spec
    return {
        "Evaluated on": f"{count} samples of {samples.weather.name}: {describe(samples.weather)}",
        "Target": samples.told(),
        "Lead times": ", ".join(f"{lead:g} h" for lead in spec.leads),
        "Fields": ", ".join(spec.channels),
        **trained_on(bundle),
        "Scores": "weighted by area; events are those of the mean; intervals by blocks of time",
    }


def _write_split(path: Path, samples: Samples) -> None:
    """Write which sample is in which block: CSV with columns time, lead, split."""
    with replacing(path) as draft, draft.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("time", "lead", "split"))
        table.writerows((str(samples.time(s)), f"{s.lead:g}", s.split or "gap") for s in samples.samples)


def _read_split(path: Path) -> dict[tuple[str, str], str]:
    """The block of each sample by time and lead, as `_write_split` wrote it.

    Raises:
        RunError: there is no such file.
    """
    if not path.is_file():
        raise RunError(f"{path}: no such file, so that the blocks are not known; copy the whole run folder again")
    with path.open(newline="", encoding="utf-8") as file:
        return {(row["time"], row["lead"]): row["split"] for row in csv.DictReader(file)}


def evaluate_weather(
    run: Path,
    *,
    data_root: Path | None = None,
    out: Path | None = None,
    weights: Path | None = None,
    elevation: Path | None = None,
    curves: Sequence[Mapping[str, float]] = (),
    progress: Callable[[Iterable[Any], str], Iterable[Any]] | None = None,
) -> dict[str, Any]:
    """Score a run on its test block, or on all times of another folder with files of the same names.

    Args:
        run: the run folder.
        data_root: another folder.
        out: folder for metrics.json and report.html; the run folder when not given.
        weights: the encoder's file, for a run that does not hold it.
        elevation: elevation of the other folder's place, for a downscaling run.
        curves: the training log.
        progress: wraps the batches to show progress.

    Returns:
        What metrics.json holds.

    Raises:
        InputError: not a run, or data that it cannot eat.
    """
    bundle = read_weather_bundle(run)
    spec, task = bundle.spec, TASKS[bundle.spec.task]
    data = data_for(bundle)
    blocks = _read_split(run / "split.csv")
    own = data_root is None or data_root.resolve() == data.root.resolve()
    samples = task.reopen(spec, data_for(bundle, root=None if own else data_root, elevation=elevation))
    notes: list[str] = []
    chosen = samples.samples
    if own:
        chosen = [s for s in chosen if _block(blocks, samples, s) == "test"]
        if bundle.training.get("refit"):
            notes.append(
                "This model was trained anew on all blocks, this one too: bundle.json holds the held-out scores."
            )
    try:
        trained = samples if own else task.reopen(spec, data)
        train = [s for s in trained.samples if _block(blocks, trained, s) == "train"]
        baselines = trained.baselines(train) if train else {}
    except InputError as error:
        notes.append(f"No baselines: the training data cannot be read any more ({error}).")
        baselines = {}
    if not chosen:
        raise InputError(f"{samples.weather.name}: no sample of the test block; --data.root names another folder")
    made = forecast(load_weather(run, weights=weights), samples, chosen, progress=progress)
    return assess(out or run, bundle, samples, chosen, made, baselines, curves=curves, notes=notes)


def _block(blocks: Mapping[tuple[str, str], str], samples: Samples, sample: Sample) -> str | None:
    return blocks.get((str(samples.time(sample)), f"{sample.lead:g}"))
