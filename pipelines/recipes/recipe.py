"""A recipe: all that decides what a fine-tuning run makes. Plain data, standard library only."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from models.bundle import Bundle
from models.errors import InputError
from models.spec import ClassDef, Target
from models.training.settings import Architecture, Lora, Training
from models.types import convert

# Settings of data that change what a tile of a scene holds.
READ_LIKE = ("bands", "scale", "offset", "nodata", "find_fill", "mask_clouds", "periods")
Kind = TypeVar("Kind")


@dataclass(frozen=True)
class Data:
    """Images, labels and their split.

    Attributes:
        root: folder that the patterns start from.
        images: pattern of the images, such as "*_hls.tif"; a list with one pattern per frame; or, where each band is a
            file of its own, a mapping of band names to patterns, BLUE: "*_b2.tif".
        labels: pattern of the labels, paired with the images by what * stands for; one file of polygons may serve all
            images. Not used for scene classes, where the folder is the class.
        column: column of the class code or of the class's name, for polygons.
        layer: layer of the polygons, or variable of the labels (NetCDF), where their file has several.
        background: code of what no polygon covers; that is not labelled where none is given.
        ignore: label codes that mean "not labelled", besides the declared nodata.
        label_nodata: label values, as stored, that mean "not measured", for regression.
        bands: names of the bands in the order of the files, where the files do not say.
        frames: frames that one file holds one after the other.
        scale: reflectance = raw * scale + offset, where the files do not say.
        offset: see scale.
        nodata: stored value of the images that means no data, besides what the files declare.
        find_fill: also leave out what looks like fill: 0, -9999 or the type's extreme in all bands, from the
            edge inwards.
        dates: day of each frame (YYYY-MM-DD), where the files do not say.
        periods: of each frame, where the images are folders of dated scenes of a place each, or files of many dates:
            2022-03, FROM/TO, or 03 and 06/08 of any year. The clearest date of each is taken; a place without one is
            left out.
        missing_frames: of a place that may be without data, where periods are given; training then takes as many away
            at times, so that the model learns to do without. More are refused, and all.
        unchanged: of task change, share of the pairs that training makes of one date alone, where nothing changed:
            what is bare may have been so before.
        mask_clouds: leave clouded pixels out, by Fmask, SCL, QA_PIXEL or CLM.
        pixel: side of the images' pixels on the ground in metres, where the files do not say.
        tile: side of a sample in pixels; 0 takes the images' side, at most 224.
        groups: CSV beside the images with columns chip and group; a group never falls into two splits.
        block_km: side of the spatial blocks that are split, where there are no groups; 0 makes each image a group.
        fractions: shares of train, val and test.
        train: text file with one image name or path a line, or a CSV file with a column of them; with val and test this
            is the split.
        val: see train.
        test: see train.
        corrections: GeoPackages of `earthtune review`, whose answers are learned; in place of the labels where they lie
            on training images. Never used on held-out ground.
        corrections_scenes: scenes of the reviewed maps, one for each file in that order, where they do not lie near.
        corrections_weight: times that a corrected pixel counts in the loss.
        corrections_compare: train without the corrections, too, and tell what they changed; takes twice the time.
    """

    root: Path = Path()
    images: str | list[str] | dict[str, str] = "*.tif"
    labels: str | None = None
    column: str | None = None
    layer: str | None = None
    background: int | None = None
    ignore: list[int] = field(default_factory=list)
    label_nodata: list[float] = field(default_factory=list)
    bands: list[str] = field(default_factory=list)
    frames: int = 1
    scale: float | None = None
    offset: float | None = None
    nodata: float | None = None
    find_fill: bool = True
    dates: list[str] = field(default_factory=list)
    periods: list[str] = field(default_factory=list)
    missing_frames: int = 0
    unchanged: float = 0.0
    mask_clouds: bool = False
    pixel: float | None = None
    tile: int = 0
    groups: str | None = None
    block_km: float = 0.0
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15)
    train: str | None = None
    val: str | None = None
    test: str | None = None
    corrections: list[Path] | Path = field(default_factory=list)
    corrections_scenes: list[Path] | Path = field(default_factory=list)
    corrections_weight: float = 1.0
    corrections_compare: bool = True


@dataclass(frozen=True)
class Distil:
    """What a small model learns from beside the labels.

    Attributes:
        teacher: the run folder of the larger model.
        bundle: hash of the teacher's bundle.json; no other is learned from. Any when empty.
        unlabelled: scenes that the teacher tells of and nobody labelled; files and patterns.
        share: weight of the teacher's answers in the loss; the labels have the rest.
        features: weight of the distance to the teacher's feature maps.
        compare: train the same model without the teacher, too, and tell what the teacher was worth; takes twice the
            time.
    """

    teacher: Path = Path()
    bundle: str = ""
    unlabelled: list[str] = field(default_factory=list)
    share: float = 0.5
    features: float = 0.5
    compare: bool = True


@dataclass(frozen=True)
class Recipe:
    """What every recipe says; the same recipe and data give the same bundle on the same machine.

    Attributes:
        task: segmentation (a class a pixel), regression (a value a pixel), classification (a class a tile), change
            (what happened between dates), rain or downscale (weather fields).
        data: the files, what they hold, and the split.
        backbone: a name that `earthtune backbones` lists.
        weights: hub for the published ones, random for none, or a weight file.
        revision: commit, branch or tag of the published weights.
        mode: frozen trains what is on top of the backbone, lora that and adapters, full everything.
        model: what, beside the backbone, builds the network.
        training: epochs, rates, losses.
        refit: after the scores, train anew on all samples and keep that; the scores stay those of the held-out ones.
        folds: parts whose groups are told of by models that never saw them: scores and comparisons are over all groups,
            and the model that is kept learns from all; 0 holds out a test split instead.
        seed: seeds the split, the weights, the order and the augmentation.
    """

    task: str
    data: Any
    backbone: str
    weights: str = "hub"
    revision: str | None = None
    mode: str = "full"
    model: Any = None
    training: Training = field(default_factory=Training)
    refit: bool = False
    folds: int = 0
    seed: int = 0

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types, the data's root absolute."""
        values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self), default=str))
        return values | {"data": values["data"] | {"root": str(self.data.root.resolve())}}

    def sha256(self) -> str:
        """Hash of `to_json` without the folder, so that two machines agree."""
        values = self.to_json()
        data = {key: value for key, value in values["data"].items() if key != "root"}
        return hashlib.sha256(json.dumps({**values, "data": data}, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class SceneRecipe(Recipe):
    """A recipe over labelled scenes.

    Attributes:
        data: the images, their labels and the split.
        classes: classes as {code, name, colour}; for classification the name is the folder's.
        target: name and unit of the predicted quantity, for regression.
        bands: bands that the model reads; the six that Prithvi was pretrained on when empty.
        pretrained_bands: bands of the weight file's patch embedding in its order; the six when empty.
        model: decoder, widths and blocks.
        lora: size of the adapters.
        distil: what a student learns from; `earthtune distil` writes it.
        onto: a run over scenes whose backbone serves this one, too, as it is there; bands, tile, frozen and the weights
            follow from it, and `score` asks both in one pass.
        onto_bundle: hash of that run's bundle.json; no other is taken. Any when empty.
    """

    data: Data
    backbone: str = "prithvi_eo_v2_300_tl"
    model: Architecture = field(default_factory=Architecture)
    classes: list[ClassDef] = field(default_factory=list)
    target: Target | None = None
    bands: list[str] = field(default_factory=list)
    pretrained_bands: list[str] = field(default_factory=list)
    lora: Lora = field(default_factory=Lora)
    distil: Distil | None = None
    onto: Path | None = None
    onto_bundle: str = ""


def check_ranges(ranges: Mapping[str, tuple[float, float, float]]) -> None:
    """Refuse numbers that are not from lowest to highest.

    Args:
        ranges: (number, lowest, highest) by the option's name.

    Raises:
        InputError: the first that is out of its range.
    """
    for key, (number, lowest, highest) in ranges.items():
        if not (math.isfinite(number) and lowest <= number <= highest):
            raise InputError(f"{key} {number}: wanted {lowest:g} to {highest:g}")


def data_of(bundle: Bundle, kind: type[Kind]) -> Kind:
    """The data settings of a bundle.

    Raises:
        InputError: they are not of this kind.
    """
    try:
        made: Kind = convert(dict(bundle.data), kind, "data")
        return made
    except InputError as error:
        raise InputError(f"bundle.json: its data settings are damaged ({error}); copy the run folder again") from error
