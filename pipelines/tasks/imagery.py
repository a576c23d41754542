"""What tasks over labelled scenes share: chips and the Spec that fits them, baselines, scores, examples."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from models.backbones import prithvi_eo
from models.backbones.catalogue import BANDS
from models.baselines.pixels import fit_baselines
from models.errors import InputError, RunError
from models.networks.network import Network
from models.spec import IMAGERY, REFLECTANCE, Answer, Classes, Pixels, Spec
from models.training.objectives import Labelled
from models.types import Array, Predict, Progress
from pipelines.grids.areas import pixel_side
from pipelines.recipes.onto import pixels_of, told
from pipelines.recipes.recipe import Data, SceneRecipe, check_ranges
from pipelines.reports.comparison import Comparison, over_groups
from pipelines.reports.plots import true_colour
from pipelines.reports.scores import class_scores, confusion_matrix, mean_iou_of, value_scores, value_sums
from pipelines.reports.tiles import Example, shown_of, tile_parts
from pipelines.samples.chips import Chip, Chips, find_chips, find_images, open_images
from pipelines.samples.sets import evenly, inputs_of
from pipelines.samples.variation import missing_frames
from pipelines.scenes import sensors
from pipelines.scenes.physical import doubt
from pipelines.scenes.pixel_size import differing_sizes
from pipelines.scenes.scene import Scene
from pipelines.tasks.task import Judgement, Task, Teller

LARGEST_TILE = 224  # the side that Prithvi was pretrained on
EXAMPLES = 6
LOOKED_AT = 20  # images whose values are looked at


def check(recipe: SceneRecipe) -> None:
    """Refuse numbers that no training takes, and corrections settings without corrections, before a file is opened."""
    model, lora = recipe.model, recipe.lora
    about = ("corrections_scenes", "corrections_weight", "corrections_compare")
    spare = [key for key in about if getattr(recipe.data, key) != getattr(Data(), key)]
    if spare and not recipe.data.corrections:
        raise InputError(f"data.{spare[0]}: nothing is corrected; give data.corrections, or leave it out")
    frames = len(recipe.data.periods)
    if recipe.data.missing_frames and not 0 < recipe.data.missing_frames < frames:
        missing = f"data.missing_frames {recipe.data.missing_frames}"
        raise InputError(f"{missing}: wanted fewer than the {frames} of data.periods, and none without periods")
    check_ranges(
        {
            "lora.alpha": (lora.alpha, 1e-6, 1e6),
            "data.corrections_weight": (recipe.data.corrections_weight, 1e-3, 1e3),
            "data.unchanged": (recipe.data.unchanged, 0.0, 0.9),
            "data.block_km": (recipe.data.block_km, 0.0, 1e5),
            "model.dropout": (model.dropout, 0.0, 0.999),
            "model.drop_path": (model.drop_path, 0.0, 0.999),
            "model.channels": (model.channels, 1, 65536),
            "model.detail": (model.detail, 0, 4096),
            "model.statistics": (model.statistics, 0, 4096),
            "lora.rank": (lora.rank, 1, 65536),
            "data.tile": (recipe.data.tile, 0, 8192),
            "data.frames": (recipe.data.frames, 1, 1024),
            "data.pixel": (1.0 if recipe.data.pixel is None else recipe.data.pixel, 1e-3, 1e6),
        }
    )


def prepare(recipe: SceneRecipe, answer: Answer) -> Chips:
    """Find the samples and settle the Spec that fits them.

    Raises:
        InputError: see `chips.find_chips`; a Spec that cannot be; a split with too few samples.
    """
    data, known = recipe.data, prithvi_eo.pretrained_statistics(recipe.backbone)
    bands = tuple(sensors.tidy(band) for band in recipe.bands) or BANDS
    fields = prithvi_eo.config(recipe.backbone, **recipe.model.overrides)
    patch = int(fields["patch_size"][-1])
    gaps = list[str]()
    first, _ = find_images(data, answer, bands, gaps)[0]
    scene = open_images(first, bands, data)
    tile = data.tile or min(LARGEST_TILE // patch, max(min(scene.shape) // patch, 1)) * patch
    mean, std = (tuple(known.get(band, (0.0, 1.0))[i] for band in bands) for i in (0, 1))
    pixels = Pixels(bands, mean, std, scene.frames, tile, patch, pixel=pixel_side(scene.geobox) or data.pixel)
    theirs = pixels_of(recipe)
    if theirs:
        _check_frames(recipe, scene, theirs)
        pixels = dataclasses.replace(pixels, mean=theirs.mean, std=theirs.std)
    spec = Spec(recipe.task, {IMAGERY: pixels}, {answer.name: answer})
    chips = find_chips(data, spec, seed=recipe.seed)
    scenes = [open_images(images, bands, data) for images in dict.fromkeys(chip.images for chip in chips)]
    spec, notes = _coordinates(spec, fields["coords_encoding"], scenes, theirs)
    notes += [*told(recipe), *_doubts(scenes)]
    if not (data.groups or data.block_km or data.train):
        notes.append("each image is a group of its own: images of one place may fall into two splits (data.groups)")
    if not any(chip.split == "test" for chip in chips):
        notes.append("no test split: the scores are those of the validation split, which also picked the epoch")
    samples = Chips(spec, data, chips, recipe.training, notes=[*scene.notes, *gaps, *notes], normed=bool(theirs))
    for split, least in (("train", 2), ("val", 1)):
        if len(samples.of(split)) < least:
            few = f"fewer than {least} samples in the {split} split"
            raise InputError(f"{data.root}: {few}; look at data.fractions or the lists")
    return Chips(fitted(samples, ("train",)), data, chips, recipe.training, notes=samples.notes, normed=samples.normed)


def _doubts(scenes: Sequence[Scene]) -> list[str]:
    """What is told of the images' pixels: fill that nothing declares, and values that are unlikely as reflectance."""
    filled = [scene for scene in scenes if any(scene.fills)]
    notes = []
    if filled:
        values = sorted({f"{v:g}" for scene in filled for fill in scene.fills if fill for v in fill.values})
        notes.append(
            f"{len(filled)} of {len(scenes)} images hold {' or '.join(values)} in all bands from the edge inwards: "
            "taken as fill and left out (data.find_fill: false takes them as values)"
        )
    looked = [scenes[i] for i in evenly(len(scenes), LOOKED_AT)]
    doubted = [(scene, found) for scene in looked if (found := doubt(scene)).told]
    if 2 * len(doubted) > len(looked):
        scene, found = doubted[0]
        notes.append(
            f"WARNING: {len(doubted)} of {len(looked)} images, such as {scene.name}: {found.told}: are they "
            f"{REFLECTANCE}? (data.scale, data.offset)"
        )
    return notes


def _check_frames(recipe: SceneRecipe, scene: Scene, theirs: Pixels) -> None:
    """Refuse another number of dates than that of the run whose backbone this one stands on."""
    if scene.frames != theirs.times:
        raise InputError(f"onto {recipe.onto}: reads {theirs.times} dates; the images here have {scene.frames}")


def _coordinates(
    spec: Spec, encodings: Sequence[str], scenes: Sequence[Scene], theirs: Pixels | None
) -> tuple[Spec, list[str]]:
    """Use the backbone's time and location encodings where every image has a date and a place, or as `theirs` does."""
    dated = all(date is not None for scene in scenes for date in scene.dates)
    placed = all(scene.geobox.crs is not None for scene in scenes)
    notes = []
    if "time" in encodings and not dated:
        notes.append("time encoding off: an image has no date (data.dates gives one)")
    if "location" in encodings and not placed:
        notes.append("location encoding off: an image has no coordinate system")
    time, location = "time" in encodings and dated, "location" in encodings and placed
    if theirs and ((theirs.uses_time and not dated) or (theirs.uses_location and not placed)):
        raise InputError("onto: its backbone hears of day and place; an image has none (data.dates gives the day)")
    if theirs:
        return spec.revised(uses_time=theirs.uses_time, uses_location=theirs.uses_location), []
    return spec.revised(uses_time=time, uses_location=location), notes


def fitted(samples: Chips, splits: Sequence[str]) -> Spec:
    """The Spec with mean and deviation, over some splits, of bands that Prithvi was not pretrained on."""
    spec, pixels = samples.spec, samples.spec.imagery
    unknown = [i for i, band in enumerate(pixels.channels) if band not in BANDS]
    if not unknown or samples.normed:
        return spec
    sums = np.zeros((3, len(unknown)))
    for tile in map(samples.reader, samples.of(*splits)):
        seen = ~missing_frames(tile.x, pixels.mean)
        values = tile.x[unknown][:, seen][:, :, tile.valid].reshape(len(unknown), -1).astype(np.float64)
        sums += np.stack((np.full(len(unknown), values.shape[1]), values.sum(1), (values**2).sum(1)))
    if not sums[0].all():
        names = ", ".join(pixels.channels[i] for i in unknown)
        raise InputError(f"bands {names}: no valid pixel in the training images to take their mean from")
    mean = sums[1] / sums[0]
    std = np.sqrt(np.maximum(sums[2] / sums[0] - mean**2, 1e-6))
    means, stds = list(pixels.mean), list(pixels.std)
    for i, m, s in zip(unknown, mean, std, strict=True):
        means[i], stds[i] = float(m), float(s)
    return spec.revised(mean=tuple(means), std=tuple(stds))


def reopen(spec: Spec, data: Data) -> Chips:
    """The labelled chips of a folder for a trained model, in no split; a note where their pixels are of another size.

    Raises:
        InputError: see `chips.find_chips`.
    """
    chips = find_chips(data, spec, seed=0, split=False)
    first = open_images(chips[0].images, spec.imagery.channels, data)
    differing = differing_sizes(pixel_side(first.geobox) or data.pixel, spec.imagery.pixel)
    advice = "the model knows no such textures, and labels are not resampled: bring both onto the training's pixels"
    return Chips(spec, data, chips, notes=[f"WARNING: {differing}: {advice}"] if differing else [])


def objective(network: Network, recipe: SceneRecipe, samples: Chips, chosen: Sequence[Chip]) -> Labelled:
    """Losses over labelled pixels, weighted by class where that is wanted; values in their deviations.

    Raises:
        InputError: nothing is labelled in a split, or one class only.
    """
    balance, (mean, std) = label_statistics(samples, chosen, recipe.training.class_weights)
    network.target_mean.fill_(mean)
    network.target_std.fill_(std)
    return Labelled(network, recipe.training, class_weights=balance)


def label_statistics(
    samples: Chips, chosen: Sequence[Chip], exponent: float
) -> tuple[torch.Tensor | None, tuple[float, float]]:
    """Class weights for the loss (K,), or None; and mean and deviation of the values, (0, 1) for classes.

    Raises:
        InputError: nothing is labelled in a split, or one class only in the training's.
    """
    answer, name = samples.spec.answer, samples.name
    for split in ("val", "test"):
        chips = samples.of(split)
        if chips and not any((np.isfinite(y) & (y != -1)).any() for y in map(samples.truth, chips)):
            raise InputError(f"{name}: nothing is labelled in the {split} split; another seed, or other data.fractions")
    labels = map(samples.truth, chosen)
    if not isinstance(answer, Classes):
        return None, _moments(labels, name)
    counts = np.zeros(answer.channels, np.int64)
    for y in labels:
        counts += np.bincount(y[y >= 0].ravel(), minlength=answer.channels)
    present = np.flatnonzero(counts)
    if len(present) < 2:
        found = ", ".join(answer.classes[i].name for i in present) or "none"
        raise InputError(f"{name}: the training labels hold one class at most ({found}); two are wanted to learn from")
    if not exponent:
        return None, (0.0, 1.0)
    weight = (counts / counts.sum() + 1e-3) ** -exponent  # a class of a few pixels is not to rule the loss
    weight *= counts.sum() / (weight * counts).sum()  # the mean weight of a labelled pixel is one
    return torch.from_numpy(weight.astype(np.float32)), (0.0, 1.0)


def _moments(labels: Iterable[NDArray[Any]], name: str) -> tuple[float, float]:
    """Mean and deviation of the training values."""
    sums = np.zeros(3)
    for label in labels:
        y = label[np.isfinite(label)].astype(np.float64)
        sums += len(y), y.sum(), (y**2).sum()
    if not sums[0]:
        raise InputError(f"{name}: no labelled pixel in the training split; look at data.labels and data.label_nodata")
    mean = sums[1] / sums[0]
    return float(mean), float(np.sqrt(max(sums[2] / sums[0] - mean**2, 0.0))) or 1.0


def teller(predict: Predict) -> Teller:
    """Ask a model about samples."""
    return lambda samples, chosen: predict(inputs_of(samples, chosen))


def baselines(samples: Chips, chosen: Sequence[Chip], seed: int) -> Mapping[str, Teller]:
    """The baselines, trained on some samples."""
    return {name: teller(predict) for name, predict in cheap_models(samples, chosen, seed).items()}


def cheap_models(samples: Chips, chosen: Sequence[Chip], seed: int) -> Mapping[str, Predict]:
    """The baselines, trained on some samples, each called as a runtime is."""
    pairs = ((samples.item(chip), samples.truth(chip)) for chip in chosen)
    return fit_baselines(samples.spec.answer, samples.spec.imagery, pairs, count=len(chosen), seed=seed)


class Tally:
    """Streaming scores of one model."""

    def __init__(self, answer: Answer) -> None:
        """Start at nothing."""
        self.answer = answer
        self.confusion: Any = np.zeros((answer.channels,) * 2, np.int64) if isinstance(answer, Classes) else None
        self.sums: Any = None

    def add(self, y: NDArray[Any], output: Array) -> None:
        """Add one sample: its labels, and the model's output (K, H, W) or (K,).

        Raises:
            RunError: the output is not finite.
        """
        if not np.isfinite(output).all():
            raise RunError("the model's answer is not finite; look at the values of the input with `earthtune inspect`")
        if self.confusion is None:
            sums = value_sums(y, output[0])
            self.sums = sums if self.sums is None else self.sums + sums
        else:
            truth, predicted = np.atleast_1d(y), np.atleast_1d(output.argmax(axis=0))
            self.confusion += confusion_matrix(truth, predicted, classes=self.answer.channels)

    @classmethod
    def all_of(cls, tallies: Iterable[Tally]) -> Tally:
        """The scores of several streams as one."""
        first, *others = tallies
        whole = cls(first.answer)
        whole.confusion, whole.sums = first.confusion, first.sums
        for other in others:
            whole.confusion = None if whole.confusion is None else whole.confusion + other.confusion
            whole.sums = None if whole.sums is None else whole.sums + other.sums
        return whole

    def scores(self, codes: Sequence[int] = ()) -> dict[str, Any]:
        """Scores as `reports.scores` gives them, with the mean IoU of `codes` if any are named."""
        if self.confusion is None:
            return dict(value_scores(self.sums))
        scores = dict(class_scores(self.confusion, self.answer.classes))
        if codes:
            mean_iou = mean_iou_of(self.confusion, self.answer.classes, codes)
            scores["mean_iou_of"] = {"codes": list(codes), "mean_iou": mean_iou}
        return scores


def judge(
    samples: Chips,
    chosen: Sequence[Chip],
    models: Mapping[str, Teller],
    *,
    codes: Sequence[int] = (),
    batch: int = 8,
    progress: Progress | None = None,
) -> Judgement:
    """Score models on chips, and keep the outputs of a few chips for pictures."""
    answer = samples.spec.answer
    if codes and not isinstance(answer, Classes):
        raise InputError("--codes: for classes; a run that tells values is scored without, leave it out")
    tally: dict[str, dict[str, Tally]] = {name: {} for name in models}  # of each group
    pick = evenly(len(chosen), EXAMPLES)
    pictures: list[tuple[Chip, dict[str, Array]]] = []
    starts = range(0, len(chosen), batch)
    for first in progress(starts, "evaluating") if progress else starts:
        part = chosen[first : first + batch]
        outputs = {name: tell(samples, part) for name, tell in models.items()}
        for i, chip in enumerate(part):
            for name, output in outputs.items():
                tally[name].setdefault(chip.group, Tally(answer)).add(samples.truth(chip), output[i])
            if first + i in pick:
                pictures.append((chip, {name: output[i] for name, output in outputs.items()}))
    whole = {name: Tally.all_of(groups.values()) for name, groups in tally.items()}
    scores = {name: t.scores(codes) for name, t in whole.items()}
    confusion, shown = whole["model"].confusion, shown_of(answer)

    def parts(best: str | None) -> Mapping[str, Any]:
        examples = [_example(samples, chip, outputs, best) for chip, outputs in pictures]
        return tile_parts(answer, scores["model"], (best, scores[best]) if best else None, confusion, examples)

    groups = {name: {group: t.scores()[shown.said[0]] for group, t in found.items()} for name, found in tally.items()}

    def compare(ours: str, theirs: str) -> Comparison:
        return over_groups(shown.said[0], theirs, groups[ours], groups[theirs])

    more = {} if confusion is None else {"confusion": confusion.tolist()}
    return Judgement(scores, shown, more, parts, compare, groups)


def _example(samples: Chips, chip: Chip, outputs: Mapping[str, Array], best: str | None) -> Example:
    """A chip with what the model and the best baseline say of it."""
    answer, tile = samples.spec.answer, samples.reader(chip)

    def said(name: str) -> NDArray[Any]:
        output = outputs[name]
        return shaped(np.atleast_1d(output.argmax(axis=0)) if isinstance(answer, Classes) else output[0])

    def shaped(a: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(a).reshape(1, 1) if answer.support == "tile" else a

    return Example(
        name=chip.name,
        image=true_colour(tile.x[:, -1], bands=samples.spec.imagery.channels, valid=tile.valid),
        truth=shaped(tile.y),
        predicted=said("model"),
        valid=tile.valid,
        baseline=said(best) if best else None,
    )


def facts(samples: Chips) -> Mapping[str, str]:
    """What a report tells of the data."""
    pixels = samples.spec.imagery
    encodings = [name for name, on in (("time", pixels.uses_time), ("location", pixels.uses_location)) if on]
    frames = f"{pixels.times} frame{'s' * (pixels.times > 1)}"
    return {
        "Evaluated on": samples.data.root.name or str(samples.data.root),
        "Bands": ", ".join(pixels.channels),
        "Tile": f"{pixels.tile} x {pixels.tile} pixels, patch {pixels.patch}, {frames}",
        "Encodings": ", ".join(encodings) or "none",
    }


def imagery_task(name: str, summary: str, *, losses: Iterable[str], unused: tuple[str, ...], answer: Any) -> Task:
    """A task over labelled scenes; `answer` makes the answer of a recipe."""
    return Task(
        name,
        summary,
        SceneRecipe,
        ("frozen", "lora", "full"),
        (*unused, "model.gate", "data.unchanged"),
        least=2,  # batch norm wants two samples
        losses=tuple(losses),
        packages=("terratorch",),
        check=check,
        prepare=lambda recipe: prepare(recipe, answer(recipe)),
        fitted=fitted,
        reopen=reopen,
        unlabelled=None,
        objective=objective,
        teller=teller,
        baselines=baselines,
        judge=judge,
        facts=facts,
    )
