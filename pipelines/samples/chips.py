"""Windows and labels -> training samples: which chips there are, their split, and batches of them."""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from models.errors import InputError
from models.files import replacing
from models.spec import Spec
from models.training.settings import Training
from pipelines.grids.mosaic import fill_invalid, pad_tile
from pipelines.grids.windows import Window, cells
from pipelines.recipes.recipe import Data
from pipelines.samples.labels import folder_classes, pair, read_labels, read_values
from pipelines.samples.splits import spatial_blocks, split_by_group, split_by_lists
from pipelines.scenes.scene import Scene, open_scene

Array = NDArray[np.float32]
CACHE_BYTES = 2 << 30  # chips are kept in memory, once read, up to this many bytes


@dataclass(frozen=True)
class Chip:
    """One sample to be: a window of a scene and its label.

    Attributes:
        name: stem of the image, with the window's corner where an image gives several chips.
        images: one file per frame.
        label: label file, class name (scene classes), or None where only predictions are wanted.
        window: rows and columns.
        group: chips of one group never fall into two splits.
        split: "train", "val" or "test".
    """

    name: str
    images: tuple[Path, ...]
    label: Path | str | None
    window: Window
    group: str = ""
    split: str = "test"


@dataclass(frozen=True)
class Sample:
    """One chip in memory.

    Attributes:
        x: (C, T, H, W) reflectance x10000; invalid pixels hold the band's mean over the tile.
        valid: (H, W), False where the image has no data and in padding.
        y: (H, W) class indices, -1 where not labelled or not valid; values, NaN likewise; or one class index.
    """

    x: Array
    valid: NDArray[np.bool_]
    y: NDArray[Any]


def open_images(images: Sequence[Path], bands: Sequence[str], data: Data) -> Scene:
    """Open the frames of a chip as the recipe says."""
    return open_scene(
        list(images) if len(images) > 1 else images[0],
        bands,
        file_bands=data.bands or None,
        scale=data.scale,
        offset=data.offset,
        dates=data.dates or None,
        frames=data.frames,
        mask_clouds=data.mask_clouds,
    )


def find_images(data: Data, *, task: str) -> list[tuple[tuple[Path, ...], Path | str | None]]:
    """Images (one file per frame) with their label files or class names, checked to be complete.

    Raises:
        InputError: no such folder, nothing matches, or images and labels that do not pair one to one.
    """
    if not data.root.is_dir():
        raise InputError(f"{data.root}: no such folder; give the data with --data.root DIR")
    patterns = [data.images] if isinstance(data.images, str) else data.images
    if not patterns:
        raise InputError("data.images: wanted a pattern, or one per frame; none was given")
    labelled: Sequence[tuple[Path, Path | str | None]]
    if task == "classification":
        labelled = folder_classes(data.root, patterns[0])
    elif data.labels is None:
        raise InputError(f"data.labels: {task} wants a pattern for the label files; none was given")
    else:
        labelled = pair(data.root, patterns[0], data.labels)
    others = [{a: b for a, b in pair(data.root, patterns[0], pattern) if b} for pattern in patterns[1:]]
    return [((first, *(other[first] for other in others)), label) for first, label in labelled]


def find_chips(data: Data, spec: Spec, *, seed: int, split: bool = True) -> list[Chip]:
    """Cut every image into tiles and assign each to a split.

    Args:
        data: the recipe's data.
        spec: what the model eats; its tile is the chips' side.
        seed: seed of the split.
        split: False leaves every chip in "test", for data that is only evaluated.

    Raises:
        InputError: as `find_images`, `open_scene` and the splits.
    """
    chips, boxes = [], []
    for images, label in find_images(data, task=spec.task):
        scene = open_images(images, spec.bands, data)
        windows = cells(*scene.shape, spec.tile)  # a pixel in two chips would leak between splits
        for window in windows:
            corner = f"_{window[0].start}_{window[1].start}" if len(windows) > 1 else ""
            chips.append(Chip(images[0].stem + corner, images, label, window))
            boxes.append(scene.geobox[window] if data.block_km else None)
    if not split:
        return chips
    groups = _groups(data, chips, boxes)
    return [
        replace(c, group=g, split=s) for c, g, s in zip(chips, groups, _splits(data, chips, groups, seed), strict=True)
    ]


def _groups(data: Data, chips: Sequence[Chip], boxes: Sequence[Any]) -> list[str]:
    if data.groups:
        table = _read_groups(data.root / data.groups)
        names = [c.images[0].stem for c in chips]
        keys = {name: next((k for k in (name, *_shorter(name)) if k in table), None) for name in names}
        missing = [name for name, key in keys.items() if key is None]
        if missing:
            raise InputError(f"{data.root / data.groups}: no group for {missing[0]} ({len(missing)} images in all)")
        return [table[str(keys[name])] for name in names]
    if data.block_km:
        return spatial_blocks(boxes, block_km=data.block_km)
    return [c.images[0].stem for c in chips]


def _shorter(name: str) -> Iterator[str]:
    """A stem with its last parts taken off: chip_000_hls -> chip_000, chip."""
    while "_" in name:
        name = name.rpartition("_")[0]
        yield name


def _read_groups(path: Path) -> dict[str, str]:
    if not path.is_file():
        raise InputError(f"{path}: no such file; data.groups names a CSV with columns chip and group")
    with path.open(newline="", encoding="utf-8") as file:
        try:
            rows = list(csv.DictReader(file))
        except (UnicodeDecodeError, csv.Error) as error:
            raise InputError(f"{path}: not a CSV file ({error}); wanted columns chip and group") from error
    if not rows or not {"chip", "group"} <= set(rows[0]):
        raise InputError(f"{path}: wanted columns chip and group, came {', '.join(rows[0]) if rows else 'no rows'}")
    return {Path(row["chip"]).stem: row["group"] for row in rows}


def _splits(data: Data, chips: Sequence[Chip], groups: Sequence[str], seed: int) -> list[str]:
    lists = {name: data.root / path for name in ("train", "val", "test") if (path := getattr(data, name))}
    if lists:
        return split_by_lists([c.images[0].stem for c in chips], lists)
    try:
        return split_by_group(groups, seed=seed, fractions=data.fractions)
    except InputError as error:
        hint = "" if data.block_km or data.groups else " (data.block_km cuts large scenes into spatial blocks)"
        raise InputError(f"{data.root}: {error}{hint}") from error


class Reader:
    """Reads chips as samples for a Spec and keeps them in memory while they fit."""

    def __init__(self, spec: Spec, data: Data) -> None:
        """Keep what is wanted and how files are read."""
        self.spec, self.data = spec, data
        self._scenes: dict[tuple[Path, ...], Scene] = {}
        self._kept: dict[tuple[tuple[Path, ...], str], Sample] = {}
        self._bytes = 0

    def scene(self, chip: Chip) -> Scene:
        """The chip's scene."""
        if chip.images not in self._scenes:
            self._scenes[chip.images] = open_images(chip.images, self.spec.bands, self.data)
        return self._scenes[chip.images]

    def __call__(self, chip: Chip) -> Sample:
        """Read a chip.

        Raises:
            InputError: labels of other ground, or with a code that is not in the recipe.
            RunError: a file broke while being read.
        """
        key = (chip.images, chip.name)  # a slice cannot be hashed; the name holds the window's corner
        if key in self._kept:
            return self._kept[key]
        sample = self._read(chip)
        size = sample.x.nbytes + sample.y.nbytes + sample.valid.nbytes
        if self._bytes + size <= CACHE_BYTES:
            self._kept[key], self._bytes = sample, self._bytes + size
        return sample

    def coordinates(self, chip: Chip) -> dict[str, Array]:
        """`time` (T, 2) and `location` (2,) where the Spec uses them."""
        scene, found = self.scene(chip), {}
        if self.spec.uses_time:
            found["time"] = scene.time()
        if self.spec.uses_location:
            found["location"] = scene.location(chip.window)
        return found

    def _read(self, chip: Chip) -> Sample:
        scene = self.scene(chip)
        if scene.frames != self.spec.frames:
            raise InputError(f"{chip.images[0]}: wanted {self.spec.frames} frames, came {scene.frames}")
        x, valid = scene.read(chip.window)
        y = self._label(chip, scene, valid)
        if valid.any():
            x = fill_invalid(x, valid)
        missing = [(0, self.spec.tile - side) for side in valid.shape]
        x, valid = pad_tile(x, valid, self.spec.tile)
        if y.ndim:
            y = np.pad(y, missing, constant_values=-1 if y.dtype.kind == "i" else np.nan)
        return Sample(x, valid, y)

    def _label(self, chip: Chip, scene: Scene, valid: NDArray[np.bool_]) -> NDArray[Any]:
        spec, data = self.spec, self.data
        if spec.task == "classification":
            names = [c.name for c in spec.classes]
            if chip.label not in names:
                raise InputError(
                    f"{chip.images[0]}: folder {chip.label} is no class of the recipe ({', '.join(names)})"
                )
            return np.array(names.index(str(chip.label)), np.int64)
        path = Path(str(chip.label))
        if spec.task == "regression":
            values = read_values(path, scene.geobox, chip.window, nodata=data.label_nodata)
            return np.where(valid, values, np.float32(np.nan))
        indices = read_labels(path, scene.geobox, chip.window, codes=spec.codes, ignore=data.ignore, column=data.column)
        return np.where(valid, indices, -1).astype(np.int64)


class ChipSet(Dataset[dict[str, Any]]):
    """Chips as a torch dataset of batch items (see `models.training.module.FineTuning`).

    An item is asked for by its index, or by (epoch, index): then it is augmented, as a pure function of the seed, the
    epoch and the index, so that a resumed run sees what an uninterrupted one sees.
    """

    def __init__(self, chips: Sequence[Chip], reader: Reader, training: Training, *, seed: int) -> None:
        """Keep the chips; nothing is read yet."""
        self.chips, self.reader, self.training, self.seed = list(chips), reader, training, seed
        self.features: NDArray[Any] | None = None  # (N, L, D, h, w), where a frozen backbone's maps are known

    def __len__(self) -> int:
        """Number of chips."""
        return len(self.chips)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        """One item, augmented if the key has an epoch."""
        epoch, index = key if isinstance(key, tuple) else (None, key)
        chip = self.chips[index]
        sample = self.reader(chip)
        item: dict[str, Any] = {"x": sample.x, "y": sample.y}
        if self.features is not None:
            item["features"] = np.array(self.features[index])
        if epoch is not None:
            item = augment(item, self.reader.spec, self.training, np.random.default_rng((self.seed, epoch, index)))
        return item | self.reader.coordinates(chip)

    def samples(self) -> Iterator[Sample]:
        """The chips as they are, one after the other."""
        return map(self.reader, self.chips)

    def compute_features(self, features: Callable[..., list[Tensor]], *, batch: int) -> None:
        """Run a frozen backbone over every chip once and keep its maps for all epochs."""
        kept: NDArray[Any] | None = None
        first = 0
        for items in DataLoader(self, batch_size=batch):
            maps = features(items["x"], items.get("time"), items.get("location"))
            rows = torch.stack(maps, dim=1)  # (B, L, D, h, w)
            if kept is None:  # in a file without a name: it goes when the run ends, however it ends
                with tempfile.TemporaryFile() as file:
                    kept = np.memmap(file, np.float32, "w+", shape=(len(self), *rows.shape[1:]))
            kept[first : first + len(rows)] = rows.numpy()
            first += len(rows)
        self.features = kept


def augment(item: dict[str, Any], spec: Spec, training: Training, rng: np.random.Generator) -> dict[str, Any]:
    """One of the eight symmetries of the square, and a random gain and offset of each band.

    Bands, labels and feature maps turn together. The maps of a frozen backbone are those of the upright chip, laid
    out anew: an approximation that costs no forward pass.
    """
    turns, mirror = (int(rng.integers(4)), bool(rng.integers(2))) if training.flips else (0, False)

    def turned(a: NDArray[Any]) -> NDArray[Any]:
        if a.ndim < 2:
            return a
        a = np.rot90(a, turns, axes=(-2, -1))
        return np.ascontiguousarray(a[..., ::-1] if mirror else a)

    out = {name: turned(value) for name, value in item.items()}
    if training.gain or training.offset:
        shape = (len(spec.bands), 1, 1, 1)
        gain = np.exp(training.gain * (rng.normal() + rng.normal(size=shape)))
        shift = rng.normal(0, training.offset, shape) * np.reshape(spec.std, shape)
        out["x"] = (out["x"] * gain + shift).astype(np.float32)
    return out


class EpochSampler(Sampler[tuple[int, int]]):
    """Shuffled (epoch, index) pairs, a function of seed and epoch alone; ranks of a distributed run share them out."""

    def __init__(self, size: int, *, seed: int) -> None:
        """Sample `size` items."""
        self.size, self.seed, self.epoch = size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Items for this rank."""
        return -(-self.size // _ranks()[1])

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """This rank's share of the epoch; the last ranks repeat the first items where shares are uneven."""
        rank, world = _ranks()
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.size)
        share = np.resize(order, len(self) * world)[rank::world]
        return ((self.epoch, int(index)) for index in share)


def _ranks() -> tuple[int, int]:
    ready = torch.distributed.is_available() and torch.distributed.is_initialized()
    return (torch.distributed.get_rank(), torch.distributed.get_world_size()) if ready else (0, 1)


class Chips(LightningDataModule):
    """The three splits as loaders."""

    def __init__(self, chips: Sequence[Chip], reader: Reader, training: Training, *, seed: int) -> None:
        """Sort chips into their splits.

        Raises:
            InputError: the training or validation split is empty.
        """
        super().__init__()
        self.training, self.seed = training, seed
        self.sets = {
            split: ChipSet([c for c in chips if c.split == split], reader, training, seed=seed)
            for split in ("train", "val", "test")
        }
        for split, least in (("train", 2), ("val", 1)):
            if len(self.sets[split]) < least:
                raise InputError(
                    f"{reader.data.root}: fewer than {least} samples in the {split} split; "
                    "look at data.fractions or the lists"
                )

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Shuffled and augmented."""
        train = self.sets["train"]
        return self._loader(train, sampler=EpochSampler(len(train), seed=self.seed))

    def val_dataloader(self) -> DataLoader[dict[str, Any]]:
        """As they are."""
        return self._loader(self.sets["val"])

    def _loader(self, chips: ChipSet, sampler: EpochSampler | None = None) -> DataLoader[dict[str, Any]]:
        workers = self.training.workers
        return DataLoader(
            chips,
            batch_size=self.training.batch,
            sampler=sampler,
            drop_last=sampler is not None
            and len(sampler) > self.training.batch,  # batch norm wants more than one sample
            num_workers=workers,
            generator=torch.Generator().manual_seed(self.seed),  # else each pass would draw from the one of dropout
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
        )


def write_split(path: Path, chips: Sequence[Chip]) -> None:
    """Write which chip fell into which split: CSV with columns chip, group, split."""
    with replacing(path) as draft, draft.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("chip", "group", "split"))
        table.writerows((c.name, c.group, c.split) for c in chips)


def read_split(path: Path) -> dict[str, str]:
    """The split of each chip by name, as `write_split` wrote it; empty where there is no such file."""
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        return {row["chip"]: row["split"] for row in csv.DictReader(file)}
