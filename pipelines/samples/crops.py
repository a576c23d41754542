"""Windows of scenes without labels as a torch dataset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from models.training.settings import Training
from pipelines.samples.unlabelled import Place, Unlabelled
from pipelines.samples.variation import augment


class Crops(Dataset[dict[str, Any]]):
    """Samples of places.

    An item is asked for by its index, or by (epoch, index): then it is another window, turned and mirrored, and other
    patches are hidden. Either is a pure function of the seed and what was asked for.
    """

    def __init__(self, scenes: Unlabelled, places: Sequence[Place], *, seed: int) -> None:
        """Keep the places; nothing is read yet."""
        self.scenes, self.places, self.seed = scenes, list(places), seed

    def __len__(self) -> int:
        """Items of an epoch."""
        return len(self.places)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        """One item, see `Unlabelled.item`."""
        index = key[1] if isinstance(key, tuple) else key
        rng = np.random.default_rng((self.seed, *key) if isinstance(key, tuple) else (self.seed, key))
        item = self.scenes.item(self.places[index], rng)
        return augment(item, (), Training(), rng) if isinstance(key, tuple) else item
