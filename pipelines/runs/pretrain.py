"""From scenes without labels to a weight file that a fine-tuning takes: continued pretraining of a Prithvi EO."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from lightning import seed_everything
from torch import Tensor
from torch.utils.data import DataLoader

from models.backbones.catalogue import BANDS
from models.backbones.hub import WeightFile
from models.backbones.prithvi_eo import config
from models.baselines.neighbours import from_neighbours
from models.bundle import Base, write_state
from models.errors import InputError
from models.files import replacing
from models.networks.assembly import load_encoder
from models.spec import IMAGERY
from models.training.module import FineTuning
from models.training.pretraining import MaskedAutoencoder, Reconstruction
from pipelines.grids.rasters import trusting
from pipelines.recipes.pretraining import Pretraining
from pipelines.records.energy import ASSESS
from pipelines.reports.reconstructions import write_reconstructions
from pipelines.runs.folder import Launch, booked_run, ended, fit, is_first, lap, make_folder, replacing_run
from pipelines.samples.crops import Crops
from pipelines.samples.sets import Loaders, evenly
from pipelines.samples.unlabelled import Unlabelled, open_scenes
from pipelines.scenes.find import find_scenes
from pipelines.scenes.reading import Reading

WEIGHTS, SUMMARY = "weights.safetensors", "pretraining.json"
LARGEST = 224  # pixels along the side that Prithvi was pretrained on
EXAMPLES = 6


def pretrain(
    sources: Sequence[str], settings: Pretraining, out: Path, *, reading: Reading, launch: Launch
) -> dict[str, Any]:
    """Pretrain a backbone on scenes and write a folder.

    The folder holds weights.safetensors in the published layout, pretraining.json (what it was made of, and how well
    it tells what is hidden), reconstructions.png, metrics.csv, recipe.yaml and checkpoints/.

    Args:
        sources: rasters, folders, STAC items or patterns, see `find_scenes`.
        settings: how it goes on.
        out: the folder.
        reading: what a person says of the files.
        launch: how to carry it out.

    Returns:
        What pretraining.json holds; empty from other processes than the first.

    Raises:
        InputError: scenes, weights or settings that cannot be used, or a folder that exists.
        RunError: the disk is full, or memory runs out.
    """
    with trusting(launch.trust):
        if not is_first():
            return _booked(sources, settings, out, reading, launch)
        return replacing_run(out, launch, lambda: _booked(sources, settings, out, reading, launch))


def _booked(
    sources: Sequence[str], settings: Pretraining, out: Path, reading: Reading, launch: Launch
) -> dict[str, Any]:
    """The steps of `pretrain`, whose energy is booked."""
    with booked_run("pretrain", out, launch) as launch:
        return _pretrain(sources, settings, out, reading, launch)


def _pretrain(
    sources: Sequence[str], settings: Pretraining, out: Path, reading: Reading, launch: Launch
) -> dict[str, Any]:
    """The steps of `pretrain`."""
    found = find_scenes(sources)
    said = settings.to_json() | {"reading": json.loads(json.dumps(dataclasses.asdict(reading)))}
    recipe = said | {"scenes": [_absolute(source) for source in found]}
    if is_first() and (before := _result_before(out, recipe, launch)) is not None:
        return before
    fields = config(settings.backbone, **settings.overrides)
    patch = int(fields["patch_size"][-1])
    if settings.size % patch:
        raise InputError(f"size {settings.size}: {settings.backbone} wants a multiple of its patch, {patch} pixels")
    seed_everything(settings.seed, workers=True, verbose=False)
    scenes = open_scenes(found, reading, frames=settings.frames, progress=launch.progress, say=launch.say)
    size = settings.size or min(LARGEST // patch, max(min(min(scene.shape) for scene in scenes) // patch, 1)) * patch
    samples = Unlabelled(scenes, size=size, patch=patch, encodings=fields["coords_encoding"])
    learned, watched, apart = samples.places(windows=settings.windows, seed=settings.seed)
    network, base, lines = build(settings, size=size)
    network.freeze_unused(time=samples.uses_time, location=samples.uses_location)
    told = f"{len(learned)} windows of {size} x {size} pixels in an epoch; {apart} (windows: {len(watched)})"
    if is_first():
        for line in (*lines, *_coordinates(samples, fields["coords_encoding"]), told):
            launch.say(line)
        make_folder(out, recipe, launch)
    crops = Crops(samples, learned, seed=settings.seed), Crops(samples, watched, seed=settings.seed)
    training = settings.training
    module = FineTuning(
        network, Reconstruction(network), training, mode="full", seed=settings.seed, log=out / "metrics.csv"
    )
    loaders = Loaders(*crops, training, seed=settings.seed, full=False)
    fit(module, loaders, network, training, out, monitor=Reconstruction.monitor, launch=launch)
    if not module.trainer.is_global_zero:
        return {}
    result: dict[str, Any] = {
        "backbone": settings.backbone,
        "base": dataclasses.asdict(base),
        "settings": said | {"size": size, "lr": training.lr},
        "scenes": [scene.name for scene in scenes],
        "samples": told,
        "coordinates": {"time": samples.uses_time, "location": samples.uses_location},
        "epochs": len(module.curves),
        "held_out": judged(network, crops[1], batch=settings.batch),
        "versions": {package: version(package) for package in ("earthtune", "torch", "lightning", "terratorch")},
    }
    lap(launch, ASSESS)
    return _write(out, network, crops[1], result)


def _absolute(source: str) -> str:
    """A source as it is found from anywhere."""
    return ",".join(part if "://" in part else str(Path(part).resolve()) for part in source.split(","))


def _coordinates(samples: Unlabelled, encodings: Sequence[str]) -> list[str]:
    """Which encodings of the backbone stay without coordinates, and why."""
    off = ["time encoding off: a frame has no date (--dates gives one)"] * (
        "time" in encodings and not samples.uses_time
    )
    lacks = "location encoding off: a scene has no coordinate system"
    return off + [lacks] * ("location" in encodings and not samples.uses_location)


def _result_before(out: Path, recipe: Mapping[str, Any], launch: Launch) -> dict[str, Any] | None:
    """What pretraining.json holds of a resumed run that has ended already; None where there is something to do."""
    ended(out, recipe, launch)
    summary = out / SUMMARY
    if launch.overwrite or not (launch.resume and summary.is_file()):
        return None
    try:
        result: dict[str, Any] = json.loads(summary.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{summary}: damaged ({error}); delete it, and --resume writes it again") from error
    launch.say(f"{out}: this run has ended already")
    return result


def build(settings: Pretraining, *, size: int) -> tuple[MaskedAutoencoder, Base, list[str]]:
    """The network with the weights that it goes on from.

    Returns:
        The network, where its encoder came from, and what was loaded, a line each.

    Raises:
        InputError: weights that are not there, not safe, or of another architecture.
    """
    network = MaskedAutoencoder(
        settings.backbone,
        frames=settings.frames,
        tile=size,
        mask=settings.mask,
        overrides=settings.overrides,
    )
    network.backbone.recompute = settings.recompute
    if settings.weights == "random":
        return network, Base(), []
    base, report, state = load_encoder(
        network.backbone, settings.backbone, settings.weights, revision=settings.revision
    )
    decoder = (
        "the decoder of the file" if network.load_decoder(state) else "a new decoder: the file holds none that fits"
    )
    return network, base, [*report.lines(), decoder]


def judged(network: MaskedAutoencoder, crops: Crops, *, batch: int) -> dict[str, float]:
    """How well hidden pixels are told, beside what needs no model.

    Returns:
        RMSE in reflectance x10000 over the hidden valid pixels of all bands: "rmse" of the model, and "neighbours" of
        the patches that were seen around, see `from_neighbours`.
    """
    sums = torch.zeros(3, dtype=torch.float64)
    for items in DataLoader(crops, batch_size=batch):
        told, hidden = _told(network, items)
        x, asked = items[IMAGERY], hidden[:, None].expand_as(told)
        around = from_neighbours(x, items["y"][:, None] & ~hidden, network.backbone.patch)
        around = torch.where(around.isfinite(), around, network.mean)
        errors = [(answer[asked] - x[asked]).double().square().sum() for answer in (told, around)]
        sums += torch.stack((*errors, asked.sum().double()))
    ours, theirs, count = sums.tolist()
    return {"rmse": math.sqrt(ours / max(count, 1)), "neighbours": math.sqrt(theirs / max(count, 1))}


def _told(network: MaskedAutoencoder, items: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """What the network makes of samples, see `MaskedAutoencoder.reconstructed`."""
    with torch.inference_mode():
        return network.reconstructed(items)


def _write(out: Path, network: MaskedAutoencoder, crops: Crops, result: dict[str, Any]) -> dict[str, Any]:
    """Write the weights, the picture, and last pretraining.json."""
    write_state(out / WEIGHTS, network.published())
    chosen = [crops[i] for i in evenly(len(crops), EXAMPLES)]
    items = {key: torch.stack([torch.as_tensor(item[key]) for item in chosen]) for key in chosen[0]}
    told, hidden = _told(network, items)
    last = [items[IMAGERY][:, :, -1], told[:, :, -1], hidden[:, -1], items["y"]]  # the last date
    x, made, gone, valid = (part.numpy() for part in last)
    write_reconstructions(out / "reconstructions.png", list(zip(x, made, gone, valid, strict=True)), bands=BANDS)
    result |= {"weights": WEIGHTS, "sha256": WeightFile(out / WEIGHTS).sha256()}
    with replacing(out / SUMMARY) as draft:
        draft.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result
