"""Samples of weather -> batches, shuffled and varied as a function of the seed, the epoch and the index."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from models.training.settings import Training
from models.training.variation import Item, varied
from models.weather_spec import Augmentation
from pipelines.samples.chips import EpochSampler
from pipelines.samples.fields import Sample, Samples


class WeatherSet(Dataset[Item]):
    """Samples as a torch dataset; asked for by (epoch, index) they are varied, see `chips.ChipSet`."""

    def __init__(
        self, samples: Samples, chosen: Sequence[Sample], augmentation: Augmentation, *, seed: int, repeat: int = 1
    ) -> None:
        """Keep the samples; each comes `repeat` times an epoch."""
        self.samples, self.chosen, self.augmentation = samples, list(chosen), augmentation
        self.seed, self.repeat = seed, repeat

    def __len__(self) -> int:
        """Items of an epoch."""
        return len(self.chosen) * self.repeat

    def __getitem__(self, key: int | tuple[int, int]) -> Item:
        """One item, varied if the key has an epoch."""
        epoch, index = key if isinstance(key, tuple) else (None, key)
        sample, spec = self.chosen[index % len(self.chosen)], self.samples.spec
        item = self.samples.item(sample) | {"y": self.samples.truth(sample)}
        if epoch is None:
            return item
        rng = np.random.default_rng((self.seed, epoch, index))
        return varied(item, self.samples.names, spec.std, self.augmentation, rng)


class WeatherLoaders(LightningDataModule):
    """Training and validation samples as loaders."""

    def __init__(self, train: WeatherSet, val: WeatherSet, training: Training, *, seed: int) -> None:
        """Keep both sets."""
        super().__init__()
        self.train_set, self.val_set, self.training, self.seed = train, val, training, seed

    def train_dataloader(self) -> DataLoader[Item]:
        """Shuffled and varied."""
        return self._loader(self.train_set, EpochSampler(len(self.train_set), seed=self.seed))

    def val_dataloader(self) -> DataLoader[Item]:
        """As they are."""
        return self._loader(self.val_set, None)

    def _loader(self, items: WeatherSet, sampler: EpochSampler | None) -> DataLoader[Item]:
        return DataLoader(
            items,
            batch_size=self.training.batch,
            sampler=sampler,
            num_workers=self.training.workers,
            generator=torch.Generator().manual_seed(self.seed),
            persistent_workers=self.training.workers > 0,
        )
