"""Samples of any kind -> batches, shuffled and varied as a function of the seed, the epoch and the index."""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from lightning import LightningDataModule
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from models.errors import InputError
from models.files import replacing
from models.spec import Spec
from models.training.processes import rank_of_all
from models.training.settings import Training
from pipelines.samples.crops import Crops

Item = dict[str, Any]  # arrays by name: the inputs of the Spec, what goes with them, and the truth as "y"
SPLITS = ("train", "val", "test")


class Samples(Protocol):
    """What a model learns from and is asked about.

    Attributes:
        keys: columns of split.csv that tell a sample from any other.
        epoch: samples of an epoch at least; fewer of them come several times, as often as all fit in.
        spec: what the model eats and says.
        notes: what a person should know of them, a sentence each.
        samples: all there are, with a split each.
    """

    keys: ClassVar[tuple[str, ...]]
    epoch: ClassVar[int]
    spec: Spec
    notes: list[str]
    samples: list[Any]

    @property
    def found(self) -> Mapping[str, Any]:
        """Settings of the data that reading settled, by their names."""

    @property
    def name(self) -> str:
        """Of the data, for messages."""

    @property
    def described(self) -> str:
        """What a sample is, or what all are, in words."""

    def of(self, *splits: str) -> list[Any]:
        """The samples of some splits."""

    def group(self, sample: Any) -> str:
        """What a sample shares with others that must not be told apart from it: its place, or its day."""

    def fold(self, count: int, index: int | None, *, seed: int) -> None:
        """Leave one of `count` parts out as "test" and learn from the rest, or with None from all.

        No group is divided; samples too close to those left out are in no split.

        Raises:
            InputError: fewer groups than parts.
        """

    def item(self, sample: Any) -> Item:
        """What the model eats, by name; without the truth."""

    def truth(self, sample: Any) -> NDArray[Any]:
        """What it is to say."""

    def counts(self, sample: Any) -> NDArray[Any] | None:
        """How many times each place of the truth counts in the loss; None where all count once."""

    def varied(self, item: Item, rng: np.random.Generator) -> Item:
        """An item with its truth as another place or day might have brought it."""

    def row(self, sample: Any) -> dict[str, str]:
        """What split.csv tells of a sample, by column."""


def evenly(count: int, most: int) -> list[int]:
    """Indices of at most `most` of `count` items, at even distances."""
    return sorted({round(i * (count - 1) / max(min(count, most) - 1, 1)) for i in range(min(count, most))})


def divided(samples: Samples, folds: int = 0) -> str:
    """How many samples of how many groups are in which split, or in how many folds, in words."""

    def counted(some: Sequence[Any], of: str) -> str:
        groups = len({samples.group(sample) for sample in some})
        return f"{len(some)}{of} ({groups} group{'s' * (groups != 1)})"

    if folds:
        return f"{counted(samples.of('train'), ' samples')} in {folds} folds"
    parts = {split: samples.of(split) for split in SPLITS}
    return ", ".join(counted(some, f" {split}") for split, some in parts.items() if some)


def inputs_of(samples: Samples, chosen: Sequence[Any]) -> dict[str, NDArray[Any]]:
    """The inputs of some samples as one batch."""
    items = [samples.item(sample) for sample in chosen]
    return {key: np.stack([item[key] for item in items]) for key in items[0]}


class ItemSet(Dataset[Item]):
    """Samples as a torch dataset.

    An item is asked for by its index, or by (epoch, index): then it is varied, as a pure function of the seed, the
    epoch and the index, so that a resumed run sees what an uninterrupted one sees.
    """

    def __init__(self, samples: Samples, chosen: Sequence[Any], *, seed: int, repeat: int = 1) -> None:
        """Keep the samples, each of which comes `repeat` times an epoch; nothing is read yet."""
        self.samples, self.chosen, self.seed, self.repeat = samples, list(chosen), seed, repeat
        self.features: NDArray[Any] | None = None  # (N, L, D, h, w), where a frozen backbone's maps are known

    def __len__(self) -> int:
        """Items of an epoch."""
        return len(self.chosen) * self.repeat

    def __getitem__(self, key: int | tuple[int, int]) -> Item:
        """One item, varied if the key has an epoch."""
        epoch, index = key if isinstance(key, tuple) else (None, key)
        place = index % len(self.chosen)
        item = self.samples.item(self.chosen[place]) | {"y": self.samples.truth(self.chosen[place])}
        if (counts := self.samples.counts(self.chosen[place])) is not None:
            item["counts"] = counts
        if self.features is not None:
            item["features"] = np.array(self.features[place])
        if epoch is None:
            return item
        return self.samples.varied(item, np.random.default_rng((self.seed, epoch, index)))

    def compute_features(self, features: Callable[[Mapping[str, Tensor]], Sequence[Tensor]], *, batch: int) -> None:
        """Run a frozen backbone over every sample once and keep its maps for all epochs."""
        kept: NDArray[Any] | None = None
        first = 0
        for items in DataLoader(self, batch_size=batch):
            rows = torch.stack(list(features(items)), dim=1)  # (B, L, D, h, w)
            if kept is None:  # in a file without a name: it goes when the run ends, however it ends
                with tempfile.TemporaryFile() as file:
                    kept = np.memmap(file, np.float32, "w+", shape=(len(self), *rows.shape[1:]))
            kept[first : first + len(rows)] = rows.numpy()
            first += len(rows)
        self.features = kept


class Again(Dataset[dict[str, Any]]):
    """Items as they are, and then each again with other dates: for what learns before the epochs."""

    def __init__(self, items: ItemSet, other: Callable[[Item, np.random.Generator], Item]) -> None:
        """Keep the items, and what gives them other dates."""
        self.items, self.other = items, other

    def __len__(self) -> int:
        """Twice the items."""
        return 2 * len(self.items)

    def __getitem__(self, key: int) -> dict[str, Any]:
        """One item."""
        item = self.items[key % len(self.items)]
        return item if key < len(self.items) else self.other(item, np.random.default_rng((self.items.seed, key)))


class EpochSampler(Sampler[tuple[int, int]]):
    """Shuffled (epoch, index) pairs, a function of seed and epoch alone; processes share each batch out.

    A last batch of fewer samples than processes is left out, for none of them may be without.
    """

    def __init__(self, size: int, *, seed: int, batch: int, full: bool = False) -> None:
        """Sample `size` items in batches; `full` leaves a last one out that holds fewer samples than the others.

        Raises:
            InputError: a batch cannot be shared out among the processes.
        """
        self.rank, self.world = rank_of_all()
        if batch % self.world:
            wanted = f"a multiple of the {self.world} processes, which share each batch out"
            raise InputError(f"training.batch {batch}: wanted {wanted}")
        if size < self.world:
            raise InputError(f"{size} samples to train on: fewer than the {self.world} processes")
        rest = size % batch
        left = rest if (full and size > batch) or rest < self.world else 0
        self.size, self.all, self.seed, self.epoch = size - left, size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Items for this process."""
        return len(range(self.rank, self.size, self.world))

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """This process's share of the epoch, batch by batch."""
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.all)[: self.size]
        return ((self.epoch, int(index)) for index in order[self.rank :: self.world])


class BatchSampler(Sampler[int]):
    """Items in order; processes share out the batches, or where there are fewer of those, each has all."""

    def __init__(self, size: int, *, batch: int) -> None:
        """Sample `size` items in batches."""
        rank, world = rank_of_all()
        places = np.arange(size)
        many = -(-size // batch) >= world
        self.places = places[places // batch % world == rank] if many else places

    def __len__(self) -> int:
        """Items for this process."""
        return len(self.places)

    def __iter__(self) -> Iterator[int]:
        """The items of this process."""
        return iter(self.places.tolist())


class Loaders(LightningDataModule):
    """Training and validation samples as loaders."""

    def __init__(
        self, train: ItemSet | Crops, val: ItemSet | Crops, training: Training, *, seed: int, full: bool
    ) -> None:
        """Keep both sets; `full` leaves a last batch out that holds fewer samples than the others."""
        super().__init__()
        self.train_set, self.val_set, self.training, self.seed, self.full = train, val, training, seed, full

    def train_dataloader(self) -> DataLoader[Item]:
        """Shuffled and varied."""
        batch = self.training.batch
        sampler = EpochSampler(len(self.train_set), seed=self.seed, batch=batch, full=self.full)
        return self._loader(self.train_set, sampler, batch=batch // sampler.world)

    def val_dataloader(self) -> DataLoader[Item]:
        """As they are."""
        batch = self.training.batch
        return self._loader(self.val_set, BatchSampler(len(self.val_set), batch=batch), batch=batch)

    def _loader(self, items: ItemSet | Crops, sampler: EpochSampler | BatchSampler, *, batch: int) -> DataLoader[Item]:
        workers = self.training.workers
        return DataLoader(
            items,
            batch_size=batch,
            sampler=sampler,
            num_workers=workers,
            generator=torch.Generator().manual_seed(self.seed),  # else each pass would draw from the one of dropout
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
        )


def write_split(path: Path, samples: Samples) -> None:
    """Write which sample is in which split: CSV with the columns of `Samples.row`."""
    rows = [samples.row(sample) for sample in samples.samples]
    with replacing(path) as draft, draft.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def read_split(path: Path, keys: Sequence[str]) -> dict[tuple[str, ...], str]:
    """The split of each sample by its keys, as `write_split` wrote it.

    Raises:
        InputError: there is no such file, or it is damaged.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return {tuple(row[key] for key in keys): row["split"] for row in csv.DictReader(file)}
    except (OSError, KeyError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: the splits cannot be read ({error}); copy the whole run folder again") from error


def check_split(path: Path, samples: Samples) -> None:
    """Refuse to go on with other samples or splits than those that a run was begun with: its tests would be known.

    Raises:
        InputError: a sample came, went, or is in another split.
    """
    now = {key_of(samples, sample): samples.row(sample)["split"] for sample in samples.samples}
    if path.is_file() and read_split(path, samples.keys) != now:
        raise InputError(f"{path}: data or splits are others than when the run was begun; --overwrite starts anew")


def key_of(samples: Samples, sample: Any) -> tuple[str, ...]:
    """What tells a sample from any other, as in `read_split`."""
    row = samples.row(sample)
    return tuple(row[key] for key in samples.keys)
