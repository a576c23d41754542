"""What reviewers said returns into a training: taken up, told, and compared with the same training without it."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning import seed_everything

from models.errors import InputError
from models.files import replacing
from models.networks.assembly import predict_by
from pipelines.grids.align import crop
from pipelines.grids.areas import pixel_side
from pipelines.recipes.recipe import Recipe
from pipelines.reports.measures import NAMES
from pipelines.reports.measures import number as shown
from pipelines.review.corrections import Returned, listed, read_corrections
from pipelines.runs.crossfit import crossfit
from pipelines.runs.folder import Launch
from pipelines.runs.training import build, module_of, train
from pipelines.runs.worth import tokens
from pipelines.samples.chips import SAID, Chip, Chips
from pipelines.samples.labelling.corrected import Corrected, Key, windows_on
from pipelines.samples.splits import some, spatial_blocks
from pipelines.scenes.physical import unit_notes
from pipelines.scenes.pixel_size import differing_sizes
from pipelines.scenes.reading import Reading
from pipelines.scenes.scene import open_told
from pipelines.tasks.task import Task, Teller

WITHOUT = "without"  # folder of the same training without corrections
KEPT = "corrections.json"  # what was taken up


def take_up(recipe: Recipe, samples: Any) -> list[dict[str, Any]]:
    """Let samples learn what the recipe's corrections say; a note for each file.

    Answers are burnt over the labels of training images that they lie on. The scene that a map was made of is cut into
    chips around them, labelled there and nowhere else, unless it is a training image itself. What lies on held-out
    ground is not learned.

    Returns:
        For each file "file", "sha256", "map"; "regions" that are learned, "held" back, and lie "elsewhere"; "images" of
        the training and "chips" of the map's scene that they are learned on; and "pixels" by the name of their class.
        Empty where a recipe has no corrections.

    Raises:
        InputError: see `read_corrections`; a scene that cannot be read, or nothing to learn from.
    """
    paths = listed(getattr(recipe.data, "corrections", []))
    if not paths:
        return []
    data, answer = samples.data, samples.spec.answer
    scenes = listed(data.corrections_scenes)
    if scenes and len(scenes) != len(paths):
        raise InputError(f"data.corrections_scenes: {len(scenes)} scenes for {len(paths)} files; give one for each")
    found = [read_corrections(path, answer, number) for number, path in enumerate(paths)]
    grids = {chip.key: crop(samples.reader.scene(chip).geobox, chip.window) for chip in samples.own}
    pieces = [piece for one in found for piece in one.pieces]
    only: dict[Key, int] = {}
    added: list[Chip] = []
    for number, one in enumerate(found):
        files = tuple(map(Path, str(scenes[number]).split(","))) if scenes else one.scene
        cut = _around(samples, number, one, files)
        added += cut
        grids |= {chip.key: crop(samples.reader.scene(chip).geobox, chip.window) for chip in cut}
        only |= {chip.key: number for chip in cut}
    samples.correct(Corrected(pieces, grids, only, weight=data.corrections_weight), added)
    told = [_told(samples, one, number, only) for number, one in enumerate(found)]
    if not any(one["regions"] for one in told):
        held = sum(one["held"] for one in told)
        raise InputError(
            f"{some([str(path) for path in paths])}: nothing to learn from: all {held} answered regions lie on ground "
            "that is held out for validation or test; answer others, or --folds 5, where all ground is learned from"
        )
    samples.notes += [note for one in found for note in one.notes]
    samples.notes += [_words(one) for one in told]
    if any(grid.crs is None for key, grid in grids.items()):
        samples.notes.append(
            "images without coordinate system: whether corrections lie on their ground, also where it is held out, "
            "cannot be told"
        )
    return told


def _around(samples: Chips, number: int, one: Returned, files: tuple[Path, ...]) -> list[Chip]:
    """Chips of a review's scene around its answers; none where it is a training image.

    Raises:
        InputError: the scene cannot be read, has other dates than the model wants, or lies elsewhere.
    """
    if not files or {file.resolve() for file in files} & {f.resolve() for chip in samples.own for f in chip.images}:
        return []
    pixels, km = samples.spec.imagery, samples.data.block_km
    like = dataclasses.asdict(samples.data)
    scene = open_told([str(file) for file in files], pixels.channels, Reading(), times=pixels.times, like=like)
    if scene.frames != pixels.times:
        raise InputError(f"{files[0]}: wanted {pixels.times} frames, came {scene.frames}; give one file per date")
    if pixels.uses_time:
        scene.time()
    samples.notes += [f"{scene.name}: {note}" for note in (*scene.remarks, *unit_notes(scene))]
    if differing := differing_sizes(pixel_side(scene.geobox), pixels.pixel):
        samples.notes.append(f"WARNING: {scene.name}: {differing}: the model learns textures of both")
    samples.reader.take(files, scene)
    windows = windows_on(one.pieces, scene.geobox, pixels.tile)
    if not windows:
        raise InputError(f"{files[0]}: no answered region of {one.path} lies on it; give the scene of its map")
    boxes = [crop(scene.geobox, window) for window in windows]
    groups = spatial_blocks(boxes, block_km=km) if km else [f"review of {scene.name}"] * len(boxes)
    return [
        Chip(f"{scene.name}_review{number + 1}_{w[0].start}_{w[1].start}", files, None, w, group, "train")
        for w, group in zip(windows, groups, strict=True)
    ]


def _told(samples: Chips, one: Returned, number: int, only: Mapping[Key, int]) -> dict[str, Any]:
    """What became of a review, see `take_up`.

    Raises:
        InputError: none of it lies on any training image or scene.
    """
    said: Any = samples.reader.said
    placed = {piece.ground for on in said.on.values() for piece in (said.pieces[n] for n, _ in on)}
    regions = {piece.ground for piece in one.pieces}
    if not regions & placed:
        raise InputError(
            f"{one.path}: none of its {len(regions)} answered regions lies on an image of {samples.name}, nor is the "
            "scene of its map there to learn from; name that with data.corrections_scenes"
        )
    learned: set[Any] = set()
    here: set[Key] = set()
    pixels: Counter[str] = Counter()
    names = [entry.name for entry in samples.spec.answer.classes]
    files = np.array([piece.file for piece in said.pieces])
    for chip in samples.of("train"):
        if not (some_of := said.learned(chip.key)):
            continue
        numbers = said.burnt(chip.key, some_of)
        valid = samples.reader(chip).valid[: numbers.shape[0], : numbers.shape[1]]
        inside = numbers[valid & (numbers >= 0)]
        inside = inside[files[inside] == number]
        for at, count in zip(*np.unique(inside, return_counts=True), strict=True):
            pixels[names[said.pieces[at].label]] += int(count)
            learned.add(said.pieces[at].ground)
            here.add(chip.key)
    return {
        "file": one.path.name,
        "sha256": one.sha256,
        "map": one.map,
        "images": len(here - only.keys()),
        "chips": len(here & only.keys()),
        "regions": len(learned),
        "held": len(regions & said.held),
        "elsewhere": len(regions - placed),
        "pixels": dict(pixels.most_common()),
    }


def _words(told: Mapping[str, Any]) -> str:
    """What became of a review, as a sentence."""
    named = ", ".join(f"{name} {count:,}" for name, count in told["pixels"].items())
    pixels = f" ({named})" if named else ""
    left = [f"{told['held']} on held-out ground"] if told["held"] else []
    left += [f"{told['elsewhere']} on no image"] if told["elsewhere"] else []
    aside = f"; left aside: {', '.join(left)}" if left else ""
    return (
        f"corrections of {told['file']} (sha256 {told['sha256'][:12]}): {told['regions']} regions, "
        f"{sum(told['pixels'].values()):,} pixels{pixels}, on {told['images']} training images and {told['chips']} "
        f"chips of its scene{aside}"
    )


def keep(out: Path, told: Sequence[Mapping[str, Any]]) -> None:
    """Write what was taken up into a run folder.

    Raises:
        InputError: the run was begun with other answers, which a review has changed since.
    """
    text = json.dumps(told, indent=1) + "\n"
    if (out / KEPT).is_file() and (out / KEPT).read_text(encoding="utf-8") != text:
        raise InputError(f"{out / KEPT}: reviews are others than when the run was begun; --overwrite starts anew")
    if told:
        with replacing(out / KEPT) as draft:
            draft.write_text(text, encoding="utf-8")


def without(task: Task, recipe: Recipe, samples: Any, out: Path, launch: Launch, *, first: bool) -> Teller | None:
    """Train as a recipe says, with the same seed, splits and epochs, but without the corrections; how that is asked.

    None where the recipe wants no comparison.
    """
    if not recipe.data.corrections_compare:
        return None
    plain, folder = samples.without(), out / WITHOUT
    launch.say("the same training without the corrections, which tells what they change")
    seed_everything(recipe.seed, workers=True, verbose=False)
    if recipe.folds:
        return crossfit(task, recipe, plain, folder, launch, first=first, alone=True).asked[tokens.AS_IS]
    network, _, _ = build(recipe, plain.spec)
    module = module_of(task, recipe, network, plain, plain.of("train"), folder)
    train(module, recipe, plain, plain.of("train"), folder, launch)
    return task.teller(predict_by(network))


def changed(
    task: Task, samples: Any, tested: Sequence[Chip], ours: Teller, theirs: Teller | None
) -> dict[str, Any] | None:
    """What the corrections changed, by a model that learned them and one that did not.

    Args:
        task: theirs.
        samples: which hold the corrections.
        tested: held-out chips; each of both models was trained without them.
        ours: the model with them.
        theirs: the one without, if there is one.

    Returns:
        "untouched", on groups that no correction lies on; "left_out", on corrected places of held-out chips, and
        "learned", on those that the one model learned from, by what the reviewers said there; each with the "score",
        "with", "without" and how the two are "compared", or None; and "told", sentences. None without another model.
    """
    if theirs is None:
        return None
    on = samples.reader.said.on if samples.reader.said else {}
    touched = {chip.group for chip in samples.own if chip.key in on}
    held = {chip.key for chip in tested}
    places = {
        "untouched": [chip for chip in tested if chip.group not in touched],
        "left_out": [chip for chip in tested if chip.key in on],
        "learned": [chip for chip in samples.of("train") if chip.key in on and chip.key not in held],
    }
    heads = {
        "untouched": "Corrections, on groups that none of them touches",
        "left_out": "On corrected places that it never saw, by what the reviewers say",
        "learned": "On the places that it learned from, which is no measure of others, by what the reviewers say",
    }
    result: dict[str, Any] = {"told": []}
    for name, chips in places.items():
        chosen = chips if name == "untouched" else [dataclasses.replace(chip, split=SAID) for chip in chips]
        found = task.judge(samples, chosen, {"model": ours, WITHOUT: theirs}) if chosen else None
        if found is None or not found.scores["model"]["n"]:
            result[name] = None
            continue
        key = found.shown.said[0] if name == "untouched" else "accuracy"
        before, after = found.scores[WITHOUT][key], found.scores["model"][key]
        compared = found.compare("model", WITHOUT)
        result[name] = {"score": key, "with": after, "without": before, "compared": compared.to_json()}
        called = NAMES[key][:1].lower() + NAMES[key][1:]
        words = f"{heads[name]}: {called} {shown(key, after)}, without them {shown(key, before)}."
        verdict = compared.told(names=("The model with them", "The one without")) if name == "untouched" else ""
        result["told"].append(f"{words} {verdict}".rstrip())
    if result["untouched"] is None:
        result["told"].append("Corrections touch all held-out groups: what they change elsewhere cannot be told.")
    return result
