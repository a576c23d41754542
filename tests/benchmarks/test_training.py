"""Ratios of fine-tuning, both sides paired in one run. Prints; asserts no times."""

from __future__ import annotations

import dataclasses
import statistics
import time
import warnings
from pathlib import Path

import pytest
import torch

from models.networks.network import Network
from models.training.module import FineTuning
from models.training.objectives import Labelled
from models.training.settings import Architecture, Training
from pipelines.grids import align
from pipelines.samples.chips import Chips, find_chips
from pipelines.samples.sets import ItemSet, Loaders
from pipelines.tasks.task import load_recipe, task_named

SHARED = Path(__file__).parents[3] / "shared" / "data" / "hls_worldcover"
RECIPE = Path(__file__).parents[2] / "pipelines" / "recipes" / "landuse.yaml"
pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason=f"the real data is not at {SHARED}")
ROUNDS = 5


def seconds(work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def told(name: str, ours: list[float], theirs: list[float]) -> None:
    """Print the median of the paired ratios, and their spread."""
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    print(
        f"\n{name}: {statistics.median(ratios):.2f} times (from {min(ratios):.2f} to {max(ratios):.2f}; "
        f"medians {statistics.median(ours):.3f} s and {statistics.median(theirs):.3f} s, {len(ours)} paired rounds)"
    )


def prepared(backbone: str):
    recipe = load_recipe(RECIPE, **{"data.root": SHARED, "backbone": backbone, "weights": "random"})
    samples = task_named(recipe.task).prepare(recipe)
    return recipe, samples.spec, samples.samples[:32]


@pytest.mark.parametrize("backbone", ["prithvi_eo_v2_tiny_tl", "prithvi_eo_v2_100_tl"])
def test_frozen_epoch_from_tokens_and_through_the_backbone(backbone):
    recipe, spec, chips = prepared(backbone)
    chips = [dataclasses.replace(c, split="train") for c in chips]
    chips[-1] = dataclasses.replace(chips[-1], split="val")
    training = Training(batch=8, precision="32-true")
    torch.manual_seed(0)
    network = Network(spec, backbone, Architecture(decoder="linear", channels=96, detail=16))
    network.backbone.requires_grad_(False)
    module = FineTuning(network, Labelled(network, training), training, mode="frozen", seed=0)
    module.log = lambda *a, **k: None  # no trainer here, so nothing to log to
    samples = Chips(spec, recipe.data, chips, training)
    items, val = (ItemSet(samples, samples.of(split), seed=0) for split in ("train", "val"))
    loaders = Loaders(items, val, training, seed=0, full=True)
    optimiser = torch.optim.AdamW(p for p in network.parameters() if p.requires_grad)

    def epoch():
        network.train()
        network.backbone.eval()
        for batch in loaders.train_dataloader():
            optimiser.zero_grad()
            module.training_step(batch, 0).backward()
            optimiser.step()

    def features(inputs):
        with torch.inference_mode():
            return network.features(inputs)

    through, tokens = [], []
    epoch()
    for _ in range(ROUNDS):
        items.features = None
        through.append(seconds(epoch))
        items.compute_features(features, batch=8)
        tokens.append(seconds(epoch))
    told(f"frozen epoch, {backbone}: through the backbone / from tokens", tokens, through)


def test_loading_chips():
    """One pass over 32 chips with labels, cold, in the main process: ours, and terratorch's generic data module."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from terratorch.datamodules import GenericNonGeoSegmentationDataModule
    recipe, spec, _ = prepared("prithvi_eo_v2_tiny_tl")
    chips = find_chips(recipe.data, spec, seed=0)[:32]

    def ours():
        """Each file is opened anew, as terratorch does, and items are what a batch is made of."""
        samples = ItemSet(Chips(spec, recipe.data, chips), chips, seed=0)
        for i, chip in enumerate(chips):
            samples[i]
            for path in (*chip.images, chip.label):
                align.forget(str(path))

    def module():
        built = GenericNonGeoSegmentationDataModule(
            batch_size=1,
            num_workers=0,
            num_classes=101,
            means=list(spec.imagery.mean),
            stds=list(spec.imagery.std),
            train_data_root=SHARED,
            val_data_root=SHARED,
            test_data_root=SHARED,
            train_label_data_root=SHARED,
            val_label_data_root=SHARED,
            test_label_data_root=SHARED,
            img_grep="*_hls.tif",
            label_grep="*_worldcover.tif",
        )
        built.setup("fit")
        return built.train_dataset

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = module()

        def theirs():
            for i in range(len(chips)):
                dataset[i]

        first, second = [], []
        ours(), theirs()
        for _ in range(ROUNDS):
            first.append(seconds(ours))
            second.append(seconds(theirs))
    told("loading 32 chips with labels: terratorch / earthtune", first, second)
