"""Windows and labels of scenes -> samples: which chips there are, their split, and what each holds."""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from models.errors import InputError
from models.spec import IMAGERY, Answer, Classes, Spec
from models.training.settings import Training
from models.types import Array, Mask
from pipelines.grids.mosaic import fill_invalid, pad_tile
from pipelines.grids.windows import Window, cells
from pipelines.recipes.recipe import Data
from pipelines.samples.labelling.corrected import Corrected, Key
from pipelines.samples.labelling.labels import folder_classes, pair, read_labels, read_values
from pipelines.samples.labelling.polygons import Polygons
from pipelines.samples.names import plain, read_groups, shortened
from pipelines.samples.splits import folds_by_group, spatial_blocks, split_by_group, split_by_lists
from pipelines.samples.variation import Dates, augment
from pipelines.scenes.periods import GapError, frames_by, read_periods, sources_in
from pipelines.scenes.scene import Scene, open_scene

SAID = "said"  # a split that is never learned from: labelled by all that reviewers said, and by nothing else
CACHE_BYTES = 2 << 30  # chips are kept in memory, once read, up to this many bytes


@dataclass(frozen=True)
class Chip:
    """One sample to be: a window of a scene and its label.

    Attributes:
        name: stem of the image, with the window's corner where an image gives several chips.
        images: one file per frame.
        label: label file, class name (scene classes), or None where only reviewers tell, or nobody.
        window: rows and columns.
        group: chips of one group never fall into two splits.
        split: "train", "val" or "test"; or `SAID`.
    """

    name: str
    images: tuple[Path, ...]
    label: Path | str | None
    window: Window
    group: str = ""
    split: str = "test"

    @property
    def key(self) -> Key:
        """What tells it from any other; a slice cannot be hashed, but the name holds the window's corner."""
        return self.images, self.name


@dataclass(frozen=True)
class Tile:
    """One chip in memory.

    Attributes:
        x: (C, T, H, W) reflectance x10000; invalid pixels hold the band's mean over the tile.
        valid: (H, W), False where the image has no data and in padding.
        y: (H, W) class indices, -1 where not labelled or not valid; values, NaN likewise; or one class index.
        counts: (H, W) how many times each pixel counts in the loss; None where all count once.
    """

    x: Array
    valid: Mask
    y: NDArray[Any]
    counts: Array | None = None


def open_images(images: Sequence[Path], bands: Sequence[str], data: Data, mean: Sequence[float] = ()) -> Scene:
    """Open the frames of a chip, or the files of its bands, as the recipe says; missing frames hold `mean`, else 0."""
    source: Path | list[Path] = [*images] if len(images) > 1 else images[0]
    periods = read_periods(data.periods, "data.periods") if len(images) == 1 else []
    source = [Path(one) for one in sources_in(images[0], periods)] if periods else source
    names = data.bands or None
    if isinstance(data.images, dict):
        files = (glob.escape(path.relative_to(data.root).as_posix()) for path in images)
        source, names = data.root, [f"{name}={file}" for name, file in zip(data.images, files, strict=True)]
    scene = open_scene(
        source,
        bands,
        file_bands=names,
        scale=data.scale,
        offset=data.offset,
        nodata=data.nodata,
        find_fill=data.find_fill,
        dates=data.dates or None,
        frames=data.frames,
        mask_clouds=data.mask_clouds,
    )
    absent, name = mean or (0.0,) * len(bands), plain(images[0].name)
    return frames_by(periods, scene, name=name, absent=absent, most=data.missing_frames) if periods else scene


Images = tuple[Path, ...]  # one file per frame, or per band; or one that holds all


def find_images(
    data: Data, answer: Answer, bands: Sequence[str], notes: list[str] | None = None
) -> list[tuple[Images, Path | str | None]]:
    """Images with their label files or class names, checked to be complete.

    Places without a date in one of the data's periods are left out; `notes` gets a sentence of them.

    Raises:
        InputError: no such folder, nothing matches, or images and labels that do not pair one to one; no place has all
            of the periods.
    """
    if not data.root.is_dir():
        raise InputError(f"{data.root}: no such folder; give the data with --data.root DIR")
    patterns = _patterns(data)
    labelled: Sequence[tuple[Path, Path | str | None]]
    if answer.support == "tile":
        labelled = folder_classes(data.root, patterns[0])
    elif data.labels is None:
        raise InputError("data.labels: wanted a pattern for the label files; none was given")
    else:
        labelled = pair(data.root, patterns[0], data.labels, places=bool(data.periods))
    if data.periods:
        return _with_frames(data, labelled, bands, notes)
    others = [{a: b for a, b in pair(data.root, patterns[0], pattern) if b} for pattern in patterns[1:]]
    return [((first, *(other[first] for other in others)), label) for first, label in labelled]


def _with_frames(
    data: Data, labelled: Sequence[tuple[Path, Path | str | None]], bands: Sequence[str], notes: list[str] | None
) -> list[tuple[Images, Path | str | None]]:
    """The places with data in each period: the files of their frames, or the one file of all dates."""
    if not isinstance(data.images, str) or data.dates:
        raise InputError("data.periods: wanted with one pattern of places in data.images, and without data.dates")
    found, gaps, short = list[tuple[Images, Path | str | None]](), list[GapError](), list[str]()
    for place, label in labelled:
        try:
            scene = open_images((place,), bands, data)
        except GapError as error:
            gaps.append(error)
            continue
        whole = place.is_dir() and len({*scene.sources}) == scene.frames
        found.append((tuple(map(Path, scene.sources)) if whole else (place,), label))
        short += [f"{scene.name}: {', '.join(scene.missing)}"] if scene.missing else []
    if gaps and not found:
        raise gaps[0]
    if gaps and notes is not None:
        notes.append(f"{len(gaps)} of {len(labelled)} places are left out, such as {gaps[0]}")
    if short and notes is not None:
        notes.append(f"{len(short)} of {len(labelled)} places miss a frame, such as {short[0]}")
    return found


def glance(data: Data, bands: Sequence[str]) -> None:
    """Refuse a folder, patterns or a first image that no training could begin with; in a moment, for it needs no torch.

    Raises:
        InputError: as `find_images` and `open_scene`.
    """
    patterns = _patterns(data)
    if not data.root.is_dir():
        raise InputError(f"{data.root}: no such folder; give the data with --data.root DIR")
    labels, places = data.labels, bool(data.periods)
    pairs = [pair(data.root, pattern, None if i else labels, places=places) for i, pattern in enumerate(patterns)]
    with suppress(GapError):  # another place may have all periods
        open_images([found[0][0] for found in pairs], bands, data)


def _patterns(data: Data) -> list[str]:
    """The patterns of the images: one, or one per frame or band."""
    patterns = [data.images] if isinstance(data.images, str) else [*data.images]
    patterns = [*data.images.values()] if isinstance(data.images, dict) else patterns
    if not patterns:
        raise InputError("data.images: wanted a pattern, or one per frame; none was given")
    return patterns


def find_chips(data: Data, spec: Spec, *, seed: int, split: bool = True) -> list[Chip]:
    """Cut every image into tiles and assign each to a split.

    Args:
        data: the recipe's data.
        spec: what the model eats; its tile is the chips' side.
        seed: seed of the split.
        split: False leaves every chip in "test", for data that is only evaluated and may come without groups.

    Raises:
        InputError: as `find_images`, `open_scene` and the splits.
    """
    chips, boxes = [], []
    for images, label in find_images(data, spec.answer, spec.imagery.channels):
        scene = open_images(images, spec.imagery.channels, data)
        windows = cells(*scene.shape, spec.imagery.tile)  # a pixel in two chips would leak between splits
        for window in windows:
            corner = f"_{window[0].start}_{window[1].start}" if len(windows) > 1 else ""
            chips.append(Chip(_name(images, data) + corner, images, label, window))
            boxes.append(scene.geobox[window] if data.block_km else None)
    if not split and data.groups and not (data.root / data.groups).is_file():
        data = replace(data, groups=None)
    groups = _groups(data, chips, boxes)
    splits = _splits(data, chips, groups, seed) if split else ["test"] * len(chips)
    return [replace(c, group=g, split=s) for c, g, s in zip(chips, groups, splits, strict=True)]


def _groups(data: Data, chips: Sequence[Chip], boxes: Sequence[Any]) -> list[str]:
    if data.groups:
        table = read_groups(data.root / data.groups)
        names = [_name(c.images, data) for c in chips]
        keys = {name: next((stem for stem in shortened(name) if stem in table), None) for name in names}
        missing = [name for name, key in keys.items() if key is None]
        if missing:
            raise InputError(f"{data.root / data.groups}: no group for {missing[0]} ({len(missing)} images in all)")
        return [table[str(keys[name])] for name in names]
    if data.block_km:
        return spatial_blocks(boxes, block_km=data.block_km)
    return [_name(c.images, data) for c in chips]


def _name(images: Images, data: Data) -> str:
    """What images are called in lists, without folders: by the first file, or by the folder of a place."""
    return images[0].parent.name if data.periods and len(images) > 1 else images[0].stem


def _splits(data: Data, chips: Sequence[Chip], groups: Sequence[str], seed: int) -> list[str]:
    lists = {name: data.root / path for name in ("train", "val", "test") if (path := getattr(data, name))}
    if lists:
        paths = [c.images[0].parent if data.periods and len(c.images) > 1 else c.images[0] for c in chips]
        files = [path.relative_to(data.root) for path in paths]
        return split_by_lists([(file.parent / plain(file.name)).as_posix() for file in files], lists)
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
        self._kept: dict[tuple[Key, tuple[int, ...]], Tile] = {}
        self._bytes = 0
        self.said: Corrected | None = None

    def scene(self, chip: Chip) -> Scene:
        """The chip's scene."""
        if chip.images not in self._scenes:
            self._scenes[chip.images] = open_images(
                chip.images, self.spec.imagery.channels, self.data, self.spec.imagery.mean
            )
        return self._scenes[chip.images]

    def take(self, images: tuple[Path, ...], scene: Scene) -> None:
        """Take an open scene for what these files are, where the data's settings are not theirs."""
        self._scenes[images] = scene

    def told(self, chip: Chip) -> tuple[int, ...]:
        """Numbers of the pieces that a reviewer's word counts of: none of them on held-out chips."""
        if self.said is None or chip.split not in ("train", SAID):
            return ()
        return self.said.learned(chip.key) if chip.split == "train" else self.said.every(chip.key)

    def __call__(self, chip: Chip) -> Tile:
        """Read a chip.

        Raises:
            InputError: labels of other ground, or with a code that is not in the recipe.
            RunError: a file broke while being read.
        """
        key = chip.key, (*self.told(chip), -int(chip.split == SAID))
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
        if self.spec.imagery.uses_time:
            found["time"] = scene.time()
        if self.spec.imagery.uses_location:
            found["location"] = scene.location(chip.window)
        return found

    def _read(self, chip: Chip) -> Tile:
        scene = self.scene(chip)
        if scene.frames != self.spec.imagery.times:
            raise InputError(f"{chip.images[0]}: wanted {self.spec.imagery.times} frames, came {scene.frames}")
        x, valid = scene.read(chip.window)
        y = self._label(chip, scene, valid)
        if valid.any():
            x = fill_invalid(x, valid)
        missing = [(0, self.spec.imagery.tile - side) for side in valid.shape]
        x, valid = pad_tile(x, valid, self.spec.imagery.tile)
        if y.ndim:
            y = np.pad(y, missing, constant_values=-1 if y.dtype.kind == "i" else np.nan)
        if self.said is None or self.said.weight == 1:
            return Tile(x, valid, y)
        numbers = np.pad(self.said.burnt(chip.key, self.told(chip)), missing, constant_values=-1)
        return Tile(x, valid, y, np.where(numbers >= 0, self.said.weight, 1).astype(np.float32))

    def _label(self, chip: Chip, scene: Scene, valid: Mask) -> NDArray[Any]:
        answer = self.spec.answer
        if answer.support == "tile":
            names = [c.name for c in answer.classes]
            if chip.label not in names:
                known = ", ".join(names)
                raise InputError(f"{chip.images[0]}: folder {chip.label} is no class of the recipe ({known})")
            return np.array(names.index(str(chip.label)), np.int64)
        if chip.label is None or chip.split == SAID:
            found: NDArray[Any] = np.full(valid.shape, -1 if isinstance(answer, Classes) else np.float32(np.nan))
        else:
            found = self._file(Path(str(chip.label)), chip.window, scene, valid)
        if self.said is not None and (numbers := self.told(chip)):
            found = self.said.labels(self.said.burnt(chip.key, numbers), found)
        return found if not isinstance(answer, Classes) else np.where(valid, found, -1).astype(np.int64)

    def _file(self, path: Path, window: Window, scene: Scene, valid: Mask) -> NDArray[Any]:
        """What a label file says of a window: values, NaN where not valid, or class indices."""
        answer, data = self.spec.answer, self.data
        if not isinstance(answer, Classes):
            values = read_values(path, scene.geobox, window, nodata=data.label_nodata, layer=data.layer)
            return np.where(valid, values, np.float32(np.nan))
        codes = {c.name: c.code for c in answer.classes}
        how = Polygons(data.column, data.layer, codes, data.background)
        return read_labels(path, scene.geobox, window, codes=answer.codes, ignore=data.ignore, polygons=how)


class Chips:
    """Chips as samples, see `sets.Samples`."""

    keys: ClassVar[tuple[str, ...]] = ("chip",)
    epoch: ClassVar[int] = 0

    def __init__(
        self,
        spec: Spec,
        data: Data,
        chips: Sequence[Chip],
        training: Training | None = None,
        *,
        notes: Sequence[str] = (),
        normed: bool = False,
    ) -> None:
        """Keep the chips and how they are varied; nothing is read yet. `normed`: no statistics of bands are taken."""
        self.spec, self.data, self.samples = spec, data, list(chips)
        self.training, self.reader, self.notes = training or Training(), Reader(spec, data), list(notes)
        self.normed = normed
        self.found: Mapping[str, Any] = {}  # nothing of the data is settled by reading
        self.added: list[Chip] = []  # chips around what reviewers said, see `correct`
        self.unlabelled: list[Chip] = []  # what is learned from beside them, see `learn_beside`

    @property
    def name(self) -> str:
        """The folder."""
        return str(self.data.root)

    @property
    def described(self) -> str:
        """The size of a sample."""
        return f"samples of {self.spec.imagery.tile} x {self.spec.imagery.tile} pixels"

    def of(self, *splits: str) -> list[Chip]:
        """The chips of some splits."""
        return [chip for chip in self.samples if chip.split in splits]

    def group(self, sample: Chip) -> str:
        """Its place, or its scene."""
        return sample.group

    def fold(self, count: int, index: int | None, *, seed: int) -> None:
        """Leave some groups out as "test", see `sets.Samples`."""
        folds = folds_by_group([chip.group for chip in self.own], count=count, seed=seed)
        splits = ["test" if fold == index else "train" for fold in folds]
        self.samples = [replace(chip, split=split) for chip, split in zip(self.own, splits, strict=True)]
        self._settle()

    @property
    def own(self) -> list[Chip]:
        """The labelled chips of the data, without those around what reviewers said."""
        return [chip for chip in self.samples if chip.label is not None]

    def correct(self, said: Corrected, added: Sequence[Chip]) -> None:
        """Learn what reviewers said from now on: on the chips that there are, and on others of their own.

        Nothing of it that lies on held-out ground is learned in any split or fold, and no held-out label is changed.
        """
        self.reader.said, self.added = said, list(added)
        self._settle()

    def learn_beside(self, chips: Sequence[Chip]) -> None:
        """Learn from chips that nobody labelled, too, from now on."""
        self.unlabelled = list(chips)
        self._settle()

    def without(self) -> Chips:
        """The same chips in the same splits without what reviewers said."""
        return Chips(self.spec, self.data, self.own, self.training, notes=self.notes, normed=self.normed)

    def _settle(self) -> None:
        """Hold back what lies on held-out ground; of the added chips those stay that teach something."""
        if self.reader.said is None:
            self.samples = [*self.own, *self.unlabelled]
            return
        held = [chip for chip in self.own if chip.split != "train"]
        groups = {chip.group for chip in held}
        self.reader.said.hold(chip.key for chip in held)
        new = [chip for chip in self.added if chip.group not in groups and self.reader.said.learned(chip.key)]
        self.samples = [*self.own, *new, *self.unlabelled]

    def item(self, sample: Chip) -> dict[str, Any]:
        """`imagery` (C, T, H, W), and `time` (T, 2) and `location` (2,) where the Spec uses them."""
        return {IMAGERY: self.reader(sample).x, **self.reader.coordinates(sample)}

    def truth(self, sample: Chip) -> NDArray[Any]:
        """See `Tile.y`."""
        return self.reader(sample).y

    def counts(self, sample: Chip) -> Array | None:
        """See `Tile.counts`."""
        return self.reader(sample).counts

    def varied(self, item: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """Turned, mirrored, brighter or darker, at times without a date; see `variation`."""
        out = augment(item, self.spec.imagery.std, self.training, rng)
        return self.dates.at_times(out, item[IMAGERY], rng)

    @property
    def dates(self) -> Dates:
        """What training does to the dates of items."""
        data, gain = self.data, self.training.gain
        return Dates(data.unchanged, data.missing_frames, gain, self.spec.imagery.mean)

    def row(self, sample: Chip) -> dict[str, str]:
        """Chip, group and split."""
        return {"chip": sample.name, "group": sample.group, "split": sample.split}
