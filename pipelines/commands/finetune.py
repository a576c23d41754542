"""Fine-tune a Prithvi backbone on labelled scenes: recipe in, run folder out."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.bundle import Base, Bundle, stored_whole, write_bundle, write_weights
from models.errors import InputError, RunError
from models.spec import Spec
from models.training.settings import MODES
from pipelines.recipes.recipe import Recipe, check_ranges, check_training
from pipelines.runs.folder import Launch, fit, history, make_folder, replacing_run, result_before

if TYPE_CHECKING:
    from torch import Tensor

    from models.backbones.loading import LoadReport
    from models.networks.network import Network
    from models.runtime.engines import Predict
    from models.training.module import FineTuning
    from pipelines.samples.chips import Chip, Chips, ChipSet, Reader

LARGEST_TILE = 224  # the side that Prithvi was pretrained on
AGREEMENT = 1e-3  # largest difference between the exported model's probabilities and torch's


def finetune(recipe: Recipe, out: Path, *, launch: Launch | None = None, name: str = "run") -> dict[str, Any]:
    """Fine-tune a Prithvi backbone on labelled images and write a run folder.

    The folder holds bundle.json, model.safetensors, model.onnx, recipe.yaml, metrics.csv, metrics.json, report.html and
    checkpoints/. It is made once recipe, data and weights were found good.

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
    launch = launch or Launch()
    _check(recipe)
    return replacing_run(out, launch, lambda: _finetune(recipe, out, launch, name))


def _finetune(recipe: Recipe, out: Path, launch: Launch, name: str) -> dict[str, Any]:
    """The steps of `finetune`."""
    first = "LOCAL_RANK" not in os.environ  # Lightning starts the other processes of a node by this same command
    if first and (before := result_before(out, recipe.to_json(), launch)) is not None:
        return before
    from lightning import seed_everything

    from models.training.module import apply_mode
    from pipelines.samples.chips import Chips, write_split

    seed_everything(recipe.seed, workers=True, verbose=False)
    spec, reader, chips, notes = prepare(recipe)
    samples = Chips(chips, reader, recipe.training, seed=recipe.seed)
    balance, target = label_statistics(spec, samples, recipe.training.class_weights)
    network, base, report = build(recipe, spec)
    network.target_mean.fill_(target[0])
    network.target_std.fill_(target[1])
    apply_mode(network, recipe.mode, recipe.lora)
    network.backbone.freeze_unused(time=spec.uses_time, location=spec.uses_location)
    if first:
        for line in (*(report.lines() if report else ()), *notes, _sizes(samples, spec)):
            launch.say(line)
        make_folder(out, recipe.to_json(), launch)
        write_split(out / "split.csv", chips)
    module = train(recipe, network, samples, out, balance=balance, launch=launch)
    if not module.trainer.is_global_zero:
        return {}
    split = {name: len(chips) for name, chips in samples.sets.items()}
    embedding = {"patch_embedding": dict(report.bands) if report else {}}
    bundle = Bundle(
        spec,
        recipe.backbone,
        recipe.model,
        base,
        recipe.mode,
        stored_whole(base, recipe.mode),
        data=recipe.to_json()["data"],
        training=history(recipe, name, len(module.curves), split, ("terratorch",), notes) | embedding,
        lora=recipe.lora,
    )
    return _finish(out, bundle, reader, samples, module, launch)


def _check(recipe: Recipe) -> None:
    """Refuse what can be refused before any file is opened."""
    from models.spec import TASKS

    for key, value, known in (("task", recipe.task, TASKS), ("mode", recipe.mode, MODES)):
        if value not in known:
            raise InputError(f"{key} {value!r}: wanted one of {', '.join(known)}")
    check_training(recipe.training, recipe.weights, batch=2)  # batch norm wants two samples
    model, lora = recipe.model, recipe.lora
    check_ranges(
        {
            "lora.alpha": (lora.alpha, 1e-6, 1e6),
            "data.block_km": (recipe.data.block_km, 0.0, 1e5),
            "model.dropout": (model.dropout, 0.0, 0.999),
            "model.drop_path": (model.drop_path, 0.0, 0.999),
            "model.channels": (model.channels, 1, 65536),
            "model.detail": (model.detail, 0, 4096),
            "lora.rank": (lora.rank, 1, 65536),
            "data.tile": (recipe.data.tile, 0, 8192),
            "data.frames": (recipe.data.frames, 1, 1024),
        }
    )
    if recipe.training.loss:
        from models.training.losses import check_loss

        check_loss(recipe.task, recipe.training.loss)


def prepare(recipe: Recipe) -> tuple[Spec, Reader, list[Chip], list[str]]:
    """Find the samples and settle the Spec that fits them.

    Returns:
        The Spec, a reader for it, the chips with their splits, and notes for the person.

    Raises:
        InputError: see `chips.find_chips`; or a Spec that cannot be.
    """
    from models.backbones import prithvi_eo
    from models.backbones.catalogue import BANDS
    from pipelines.grids.areas import pixel_side
    from pipelines.samples.chips import Reader, find_chips, find_images, open_images
    from pipelines.scenes import sensors

    data, known = recipe.data, prithvi_eo.pretrained_statistics(recipe.backbone)
    bands = tuple(sensors.tidy(band) for band in recipe.bands) or BANDS
    fields = prithvi_eo.config(recipe.backbone, **recipe.model.overrides)
    patch = int(fields["patch_size"][-1])
    first, _ = find_images(data, task=recipe.task)[0]
    scene = open_images(first, bands, data)
    tile = data.tile or min(LARGEST_TILE // patch, max(min(scene.shape) // patch, 1)) * patch
    spec = Spec(
        recipe.task,
        bands,
        tuple(known.get(band, (0.0, 1.0))[0] for band in bands),
        tuple(known.get(band, (0.0, 1.0))[1] for band in bands),
        frames=scene.frames,
        tile=tile,
        patch=patch,
        classes=tuple(recipe.classes),
        target=recipe.target,
        pixel=pixel_side(scene.geobox),
    )
    chips = find_chips(data, spec, seed=recipe.seed)
    reader = Reader(spec, data)
    spec, notes = _coordinates(spec, fields["coords_encoding"], reader, chips)
    unknown = [band for band in bands if band not in known]
    if unknown:
        spec = _measured(spec, unknown, (reader(c) for c in chips if c.split == "train"))
    if not (data.groups or data.block_km or data.train):
        notes.append("each image is a group of its own: images of one place may fall into two splits (data.groups)")
    if not any(chip.split == "test" for chip in chips):
        notes.append("no test split: the scores are those of the validation split, which also picked the epoch")
    return spec, Reader(spec, data), chips, [*scene.notes, *notes]


def _coordinates(spec: Spec, encodings: Sequence[str], reader: Reader, chips: Sequence[Chip]) -> tuple[Spec, list[str]]:
    """Use the backbone's time and location encodings where every image has a date and a place."""
    scenes = [reader.scene(chip) for chip in {chip.images: chip for chip in chips}.values()]
    dated = all(date is not None for scene in scenes for date in scene.dates)
    placed = all(scene.geobox.crs is not None for scene in scenes)
    notes = []
    if "time" in encodings and not dated:
        notes.append("time encoding off: an image has no date (data.dates gives one)")
    if "location" in encodings and not placed:
        notes.append("location encoding off: an image has no coordinate system")
    time, location = "time" in encodings and dated, "location" in encodings and placed
    return dataclasses.replace(spec, uses_time=time, uses_location=location), notes


def _measured(spec: Spec, bands: Sequence[str], samples: Iterable[Any]) -> Spec:
    """Mean and deviation, over the training samples, of bands that Prithvi was not pretrained on."""
    import numpy as np

    index = [spec.bands.index(band) for band in bands]
    sums = np.zeros((3, len(index)))
    for sample in samples:
        values = sample.x[index][:, :, sample.valid].reshape(len(index), -1).astype(np.float64)
        sums += np.stack((np.full(len(index), values.shape[1]), values.sum(1), (values**2).sum(1)))
    if not sums[0].all():
        raise InputError(f"bands {', '.join(bands)}: no valid pixel in the training images to take their mean from")
    mean = sums[1] / sums[0]
    std = np.sqrt(np.maximum(sums[2] / sums[0] - mean**2, 1e-6))
    means, stds = list(spec.mean), list(spec.std)
    for i, m, s in zip(index, mean, std, strict=True):
        means[i], stds[i] = float(m), float(s)
    return dataclasses.replace(spec, mean=tuple(means), std=tuple(stds))


def label_statistics(spec: Spec, samples: Chips, exponent: float) -> tuple[Tensor | None, tuple[float, float]]:
    """Class weights for the loss (K,), or None; and mean and deviation of the values, (0, 1) for classes.

    Raises:
        InputError: nothing is labelled in the training split, or one class only.
    """
    import numpy as np
    import torch

    train = samples.sets["train"]
    root = train.reader.data.root
    for split in ("val", "test"):
        chips = samples.sets[split]
        if len(chips) and not any((np.isfinite(s.y) & (s.y != -1)).any() for s in chips.samples()):
            raise InputError(f"{root}: nothing is labelled in the {split} split; another seed, or other data.fractions")
    if spec.task == "regression":
        return None, _moments(train)
    counts = np.zeros(spec.outputs, np.int64)
    for sample in train.samples():
        counts += np.bincount(sample.y[sample.y >= 0].ravel(), minlength=spec.outputs)
    present = np.flatnonzero(counts)
    if len(present) < 2:
        found = ", ".join(spec.classes[i].name for i in present) or "none"
        raise InputError(f"{root}: the training labels hold one class at most ({found}); two are wanted to learn from")
    if not exponent:
        return None, (0.0, 1.0)
    weight = (counts / counts.sum() + 1e-3) ** -exponent  # a class of a few pixels is not to rule the loss
    weight *= counts.sum() / (weight * counts).sum()  # the mean weight of a labelled pixel is one
    return torch.from_numpy(weight.astype(np.float32)), (0.0, 1.0)


def _moments(train: ChipSet) -> tuple[float, float]:
    """Mean and deviation of the training values."""
    import numpy as np

    sums = np.zeros(3)
    for sample in train.samples():
        y = sample.y[np.isfinite(sample.y)].astype(np.float64)
        sums += len(y), y.sum(), (y**2).sum()
    if not sums[0]:
        root = train.reader.data.root
        raise InputError(f"{root}: no labelled pixel in the training split; look at data.labels and data.label_nodata")
    mean = sums[1] / sums[0]
    return float(mean), float(np.sqrt(max(sums[2] / sums[0] - mean**2, 0.0))) or 1.0


def build(recipe: Recipe, spec: Spec) -> tuple[Network, Base, LoadReport | None]:
    """Build the network and load the backbone's weights.

    Returns:
        The network, where its backbone came from, and what was loaded (None for random weights).

    Raises:
        InputError: weights that are not there, not safe or of another architecture.
    """
    import torch

    from models.backbones import prithvi_eo
    from models.backbones.catalogue import BANDS, variant
    from models.backbones.hub import WeightFile, locate, read_state_dict
    from models.networks.network import Network

    found, bands = None, tuple(recipe.pretrained_bands or BANDS)
    published = variant(recipe.backbone)
    if recipe.weights == "hub":
        if published.repo is None or published.file is None:
            raise InputError(f"{recipe.backbone}: no weights were published; use --weights random or a file")
        found = locate(published.repo, published.file, revision=recipe.revision)
    elif recipe.weights != "random":
        found = WeightFile(Path(recipe.weights))
    state = read_state_dict(found.path) if found else None
    torch.manual_seed(recipe.seed)
    network = Network(spec, recipe.backbone, recipe.model)
    if found is None or state is None:
        return network, Base(), None
    report = prithvi_eo.load_pretrained(network.backbone, state, source=str(found.path), pretrained_bands=bands)
    source = "hub" if found.repo else "file"
    return network, Base(source, found.repo, found.revision, found.path.name, found.sha256(), bands), report


def train(
    recipe: Recipe, network: Network, samples: Chips, out: Path, *, balance: Tensor | None, launch: Launch
) -> FineTuning:
    """Train with Lightning; the network ends with the kept weights, in eval mode, adapters still apart.

    Raises:
        InputError: the loss stops being finite.
        RunError: a checkpoint cannot be written.
    """
    from models.training.module import MONITOR, FineTuning

    training = recipe.training
    module = FineTuning(
        network, training, mode=recipe.mode, seed=recipe.seed, class_weights=balance, log=out / "metrics.csv"
    )
    if recipe.mode == "frozen":
        _features(network, samples, batch=training.batch)
    fit(module, samples, network, training, out, monitor=MONITOR[recipe.task], launch=launch)
    return module


def _features(network: Network, samples: Chips, *, batch: int) -> None:
    """Compute the frozen backbone's maps of every training and validation chip once."""
    import torch

    device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"
    network.to(device).eval()

    def features(*inputs: Tensor | None) -> list[Tensor]:
        with torch.inference_mode():
            return [m.cpu() for m in network.features(*(None if i is None else i.to(device) for i in inputs))]  # type: ignore[arg-type]

    for split in ("train", "val"):
        samples.sets[split].compute_features(features, batch=batch)
    network.train()


def _finish(
    out: Path, bundle: Bundle, reader: Reader, samples: Chips, module: FineTuning, launch: Launch
) -> dict[str, Any]:
    """Write the bundle, check the exported model, score it on the test split and write the report."""
    from pipelines.commands.evaluate import assess, fit, rounded

    launch.say("exporting and checking model.onnx")
    bundle, predict = save(out, bundle, module.network)
    baselines = fit(bundle.spec, reader, samples.sets["train"].chips, seed=bundle.training["seed"])
    tested = samples.sets["test"].chips or samples.sets["val"].chips
    bundle = dataclasses.replace(bundle, rounding=rounded(out, bundle.spec, reader, tested, predict))
    result = assess(out, bundle, reader, tested, predict, baselines, curves=module.curves, progress=launch.progress)
    write_bundle(out, dataclasses.replace(bundle, scores=result["model"], baselines=result["baselines"]))
    return result


def save(out: Path, bundle: Bundle, network: Network) -> tuple[Bundle, Predict]:
    """Write weights and ONNX, compare the two, then bundle.json, which makes the folder a bundle.

    Returns:
        The bundle with the hash of its weights, and the exported model in float32.

    Raises:
        RunError: the exported model answers differently from the trained one.
    """
    import numpy as np
    import torch

    from models.backbones.lora import merge_lora
    from models.runtime.engines import load_runtime
    from models.runtime.export import example_inputs, export_onnx

    if bundle.whole:
        merge_lora(network)
    bundle = dataclasses.replace(bundle, sha256=write_weights(out, network, whole=bundle.whole))
    merge_lora(network)
    export_onnx(network, out / "model.onnx")
    write_bundle(out, bundle)
    predict = load_runtime(out, runtime="openvino", precision="f32")
    inputs = example_inputs(bundle.spec, batch=3)
    with torch.inference_mode():
        wanted = network.predict(*inputs).numpy()
    x, time, location = (None if i is None else i.numpy() for i in inputs)
    came = predict(x, time, location)  # type: ignore[arg-type]
    scale = 1.0 if bundle.spec.task != "regression" else float(network.target_std)
    difference = float(np.abs(wanted - came).max()) / scale
    if difference > AGREEMENT:
        (out / "bundle.json").unlink()
        raise RunError(
            f"{out / 'model.onnx'}: differs from the trained model by {difference:.2g}; the bundle is not kept"
        )
    return bundle, predict


def _sizes(samples: Chips, spec: Spec) -> str:
    sizes = ", ".join(f"{len(chips)} {split}" for split, chips in samples.sets.items())
    return f"samples of {spec.tile} x {spec.tile} pixels: {sizes}"
