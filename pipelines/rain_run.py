"""Fine-tune Prithvi WxC for rain, and score it beside its baselines: recipe in, run folder out."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models.bundle import Base, replacing, stored_whole, write_bundle, write_weights
from models.errors import InputError, RunError
from models.rain_baselines import Forecast, Predict, fit_rain_baselines
from models.rain_bundle import RainBundle, load_encoder, load_rain, read_rain_bundle
from models.rain_spec import TASK, RainSpec
from models.settings import Training
from pipelines.rain_loaders import RainLoaders, RainSet
from pipelines.rain_maps import forecast
from pipelines.rain_recipe import RainData, RainRecipe
from pipelines.rain_report import RainExample, best_baseline, headline, write_rain_report
from pipelines.rain_samples import (
    SPLITS,
    Sample,
    Samples,
    describe,
    find_files,
    load,
    measured,
    read_rain,
    read_weather,
)
from pipelines.rain_scores import rain_scores
from pipelines.runs import Launch, ended, fit, make_folder, replacing_run

if TYPE_CHECKING:
    from models.rain import RainNetwork
    from models.rain_training import RainTraining

MODES = ("frozen", "full")
EXAMPLES = 3
EPOCH = 64  # samples of an epoch at least: of a few hours of data each comes several times


def finetune_rain(recipe: RainRecipe, out: Path, *, launch: Launch | None = None, name: str = "run") -> dict[str, Any]:
    """Train on weather fields and rain, and write a run folder.

    The folder holds bundle.json, model.safetensors, recipe.yaml, split.csv, metrics.csv, metrics.json, report.html and
    checkpoints/.

    Args:
        recipe: what to make.
        out: the run folder.
        launch: how to carry it out.
        name: what the report calls the run.

    Returns:
        What metrics.json holds, with a headline.

    Raises:
        InputError: anything in the recipe, the data or the weights that cannot be used, or a run folder that exists.
        RunError: the disk is full, or memory runs out.
    """
    launch = launch or Launch()
    if launch.devices != "1":
        raise InputError(f"devices {launch.devices}: rain is trained on one device; leave --devices out")
    _check(recipe)
    return replacing_run(out, launch, lambda: _finetune(recipe, out, launch, name))


def _check(recipe: RainRecipe) -> None:
    """Refuse what can be refused before any file is opened."""
    from models.rain_training import LOSSES

    if recipe.task != TASK:
        raise InputError(f"task {recipe.task!r}: wanted {TASK}")
    if recipe.mode not in MODES:
        raise InputError(f"mode {recipe.mode!r}: wanted one of {', '.join(MODES)} for rain")
    training = recipe.training
    for key, value, low in (("epochs", training.epochs, 1), ("batch", training.batch, 1), ("lr", training.lr, 1e-12)):
        if value < low:
            raise InputError(f"training.{key} {value}: wanted at least {low}")
    unknown = set(training.loss) - set(LOSSES)
    if unknown or any(weight < 0 for weight in training.loss.values()):
        raise InputError(f"training.loss {dict(training.loss)}: wanted weights of {', '.join(LOSSES)}")
    if training.keep not in ("best", "last"):
        raise InputError(f"training.keep {training.keep!r}: wanted best or last")
    if recipe.weights not in ("hub", "random") and not Path(recipe.weights).is_file():
        raise InputError(f"weights {recipe.weights}: no such file; wanted hub, random or a weight file")
    if recipe.weights == "random" and recipe.mode == "frozen":
        raise InputError("weights random, mode frozen: an encoder of random weights learns nothing; --mode full")


def _finetune(recipe: RainRecipe, out: Path, launch: Launch, name: str) -> dict[str, Any]:
    """The steps of `finetune_rain`."""
    if ended(out, recipe.to_json(), launch):
        launch.say(f"{out}: this run has ended already")
        before = read_rain_bundle(out)
        return {"model": dict(before.scores), "baselines": dict(before.baselines)}
    from lightning import seed_everything

    seed_everything(recipe.seed, workers=True, verbose=False)
    samples = prepare(recipe)
    spec = samples.spec
    for line in (describe(samples.weather), ", ".join(f"{len(samples.of(s))} {s}" for s in SPLITS)):
        launch.say(line)
    network, base, lines = build(recipe, spec)
    for line in lines:
        launch.say(line)
    make_folder(out, recipe.to_json(), launch)
    _write_split(out / "split.csv", samples)
    module = _train(recipe, network, samples, samples.of("train"), out, launch)
    held_out = samples.of("test")
    made = forecast(network, samples, held_out)
    baselines = fit_baselines(samples, samples.of("train"))
    notes = []
    if recipe.refit:
        launch.say("training anew on all blocks")
        samples.spec = spec = measured(samples, *SPLITS, "")
        network, base, _ = build(recipe, spec)
        _train(recipe, network, samples, samples.samples, out / "refit", launch)
        notes.append(
            "The model in this folder was trained anew on all blocks; the scores are those of the one that never saw "
            "the test block."
        )
    bundle = RainBundle(
        spec,
        recipe.backbone,
        recipe.model,
        base,
        recipe.mode,
        stored_whole(base, recipe.mode),
        data=recipe.to_json()["data"],
        training=_history(recipe, name, samples, module, notes),
    )
    bundle = dataclasses.replace(bundle, sha256=write_weights(out, network, whole=bundle.whole))
    result = assess(out, bundle, samples, held_out, made, baselines, curves=module.curves)
    write_bundle(out, dataclasses.replace(bundle, scores=result["model"], baselines=result["baselines"]))
    return result


def prepare(recipe: RainRecipe) -> Samples:
    """Read the data, divide it, and settle the Spec that fits it.

    Raises:
        InputError: see `rain_samples`.
    """
    data, count = recipe.data, 0
    weather, rain = load(data)
    count = len(weather.channels)
    spec = RainSpec(
        weather.channels,
        weather.units,
        (0.0,) * count,
        (1.0,) * count,
        data.times,
        data.step,
        tuple(data.leads),
        data.window,
        data.target_variable or f"{data.product().variable} ({data.target})",
        1.0,
        recipe.levels,
        recipe.thresholds,
        recipe.position,
    )
    samples = Samples(spec, weather, rain, persistence=data.persistence)
    samples.divide(data.split, data.gap)
    samples.spec = measured(samples, "train")
    return samples


def build(recipe: RainRecipe, spec: RainSpec) -> tuple[RainNetwork, Base, list[str]]:
    """Build the network and load the encoder's weights.

    Returns:
        The network, where its encoder came from, and what was loaded, as lines.

    Raises:
        InputError: weights that are not there, not safe or of another architecture.
    """
    import torch

    from models.rain import RainNetwork

    torch.manual_seed(recipe.seed)
    network = RainNetwork(spec, recipe.backbone, recipe.model, pretrained=recipe.weights != "random")
    base, report = load_encoder(network, recipe.backbone, recipe.weights, revision=recipe.revision)
    return network, base, list(report.lines()) if report else []


def _train(
    recipe: RainRecipe, network: RainNetwork, samples: Samples, chosen: Sequence[Sample], out: Path, launch: Launch
) -> RainTraining:
    """Train on some samples; the network ends with the kept weights, in eval mode."""
    from models.rain_training import MONITOR, RainTraining

    training = _whole(recipe.training, chosen, samples)
    module = RainTraining(network, training, mode=recipe.mode, seed=recipe.seed, log=out / "metrics.csv")
    repeat = max(EPOCH // len(chosen), 1)
    train = RainSet(samples, chosen, recipe.augment, seed=recipe.seed, repeat=repeat)
    val = RainSet(samples, samples.of("val"), recipe.augment, seed=recipe.seed)
    loaders = RainLoaders(train, val, training, seed=recipe.seed)
    fit(module, loaders, network, training, out, monitor=MONITOR, launch=launch)
    return module


def _whole(training: Training, chosen: Sequence[Sample], samples: Samples) -> Training:
    """The settings; a validation block that is trained on cannot pick an epoch."""
    seen = set(chosen) & set(samples.of("val"))
    return dataclasses.replace(training, keep="last", patience=0) if seen else training


def fit_baselines(samples: Samples, chosen: Sequence[Sample]) -> Mapping[str, Predict]:
    """The baselines, trained on some samples."""
    pairs = ((samples.item(s)["x"], samples.truth(s)) for s in chosen)
    return fit_rain_baselines(pairs, levels=samples.spec.levels, thresholds=samples.spec.thresholds)


def assess(
    folder: Path,
    bundle: RainBundle,
    samples: Samples,
    chosen: Sequence[Sample],
    made: Forecast,
    baselines: Mapping[str, Predict],
    *,
    curves: Sequence[Mapping[str, float]],
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Score forecasts of samples, and the baselines; write metrics.json and report.html into `folder`.

    Returns:
        {"headline", "data", "samples", "model": scores, "baselines": {name: scores}}.
    """
    spec, weather = bundle.spec, samples.weather
    truth = np.stack([samples.truth(s) for s in chosen])
    x = np.stack([samples.item(s)["x"] for s in chosen])
    persisted = np.stack([samples.persisted(s) for s in chosen])
    forecasts = {"model": made} | {name: predict(x, persisted) for name, predict in baselines.items()}
    times = np.array([samples.time(s) for s in chosen])
    scores = {
        name: rain_scores(f, truth, weather.area, levels=spec.levels, thresholds=spec.thresholds, times=times)
        for name, f in forecasts.items()
    }
    model = scores.pop("model")
    if not model["n"]:
        raise InputError(f"{weather.name}: no cell with rain and forecast; nothing to score")
    best = best_baseline(scores)
    result = {
        "headline": headline(model, scores),
        "data": weather.name,
        "samples": len(chosen),
        "model": model,
        "baselines": scores,
    }
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / "metrics.json") as draft:
        draft.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    shown = ["model"] + ([best] if best else [])
    write_rain_report(
        folder / "report.html",
        title=f"{bundle.training.get('recipe', 'run')}: {bundle.backbone}",
        spec=spec,
        facts=_facts(bundle, samples, len(chosen)),
        scores=model,
        baselines=scores,
        curves=curves,
        examples=[
            RainExample(
                str(samples.valid(chosen[i])),
                {"truth": truth[i]} | {name: forecasts[name].mean[i] for name in shown},
                weather.lat,
                weather.lon,
            )
            for i in _wettest(truth)
        ],
        notes=[*bundle.training.get("notes", ()), *notes],
    )
    return result


def _wettest(truth: np.ndarray) -> list[int]:
    """Indices of the times with the most rain, in the order of time."""
    amounts = np.nan_to_num(truth).sum(axis=(1, 2))
    return sorted(int(i) for i in np.argsort(-amounts)[:EXAMPLES])


def _facts(bundle: RainBundle, samples: Samples, count: int) -> dict[str, str]:
    spec, training = bundle.spec, bundle.training
    return {
        "Evaluated on": f"{count} samples of {samples.weather.name}: {describe(samples.weather)}",
        "Rain": f"{spec.target}, mm/h over {spec.window[0]:g} to {spec.window[1]:g} h around each valid time",
        "Lead times": ", ".join(f"{lead:g} h" for lead in spec.leads),
        "Fields": ", ".join(spec.channels),
        "Backbone": bundle.backbone,
        "Backbone weights": str(bundle.base),
        "Mode": bundle.mode,
        "Split": ", ".join(f"{n} {split}" for split, n in training.get("split", {}).items()),
        "Epochs": str(training.get("epochs", "")),
        "Seed": str(training.get("seed", "")),
        "Scores": "weighted by area; events are those of the mean; intervals by blocks of time",
    }


def _history(
    recipe: RainRecipe, name: str, samples: Samples, module: RainTraining, notes: Sequence[str]
) -> dict[str, Any]:
    """What bundle.json tells of the run."""
    return {
        "recipe": name,
        "sha256": recipe.sha256(),
        "seed": recipe.seed,
        "epochs": len(module.curves),
        "split": {split: len(samples.of(split)) for split in SPLITS},
        "refit": recipe.refit,
        "versions": {package: version(package) for package in ("earthtune", "torch", "lightning", "scores")},
        "notes": list(notes),
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


def evaluate_rain(
    run: Path,
    *,
    data_root: Path | None = None,
    out: Path | None = None,
    weights: Path | None = None,
    curves: Sequence[Mapping[str, float]] = (),
    progress: Callable[[Iterable[Any], str], Iterable[Any]] | None = None,
) -> dict[str, Any]:
    """Score a rain run on its test block, or on all times of another folder with files of the same names.

    Args:
        run: the run folder.
        data_root: another folder.
        out: folder for metrics.json and report.html; the run folder when not given.
        weights: the encoder's file, for a run that does not hold it.
        curves: the training log.
        progress: wraps the batches to show progress.

    Returns:
        What metrics.json holds.

    Raises:
        InputError: not a run, or data that it cannot eat.
    """
    bundle = read_rain_bundle(run)
    data = _data_of(bundle)
    blocks = _read_split(run / "split.csv")
    own = data_root is None or data_root.resolve() == data.root.resolve()
    samples = _samples(bundle, data if own else dataclasses.replace(data, root=data_root or data.root))
    notes: list[str] = []
    chosen = samples.samples
    if own:
        chosen = [s for s in chosen if _block(blocks, samples, s) == "test"]
        if bundle.training.get("refit"):
            notes.append(
                "This model was trained anew on all blocks, this one too: bundle.json holds the held-out scores."
            )
    try:
        trained = samples if own else _samples(bundle, data)
        train = [s for s in trained.samples if _block(blocks, trained, s) == "train"]
        baselines = fit_baselines(trained, train) if train else {}
    except InputError as error:
        notes.append(f"No baselines: the training data cannot be read any more ({error}).")
        baselines = {}
    if not chosen:
        raise InputError(f"{samples.weather.name}: no sample of the test block; --data.root names another folder")
    made = forecast(load_rain(run, weights=weights), samples, chosen, progress=progress)
    return assess(out or run, bundle, samples, chosen, made, baselines, curves=curves, notes=notes)


def _block(blocks: Mapping[tuple[str, str], str], samples: Samples, sample: Sample) -> str | None:
    return blocks.get((str(samples.time(sample)), f"{sample.lead:g}"))


def _samples(bundle: RainBundle, data: RainData) -> Samples:
    """Weather and rain of a folder for a bundle."""
    spec, product = bundle.spec, data.product()
    files = find_files(data.root, data.inputs)
    weather = read_weather(files, spec.channels, units=spec.units)
    rain_files = find_files(data.root, data.target_files) if data.target_files else files
    rain = read_rain(rain_files, product, weather, variable=data.target_variable)
    return Samples(spec, weather, rain, persistence=data.persistence)


def _data_of(bundle: RainBundle) -> RainData:
    """The data settings of a bundle."""
    try:
        fields = dict(bundle.data)
        return RainData(**fields | {"root": Path(fields["root"]), "window": tuple(fields["window"])})
    except (KeyError, TypeError) as error:
        raise InputError(f"bundle.json: its data settings are damaged ({error}); copy the run folder again") from error
