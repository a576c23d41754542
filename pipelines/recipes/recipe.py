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

from models.bundle import Record
from models.errors import InputError
from models.spec import ClassDef, Target
from models.training.settings import Architecture, Lora, Training

Kind = TypeVar("Kind")


@dataclass(frozen=True)
class Data:
    """Images, labels and their split.

    Attributes:
        root: folder that the patterns start from.
        images: pattern of the images, such as "*_hls.tif", or a list with one pattern per frame.
        labels: pattern of the labels, paired with the images by what * stands for; one file of polygons may serve all
            images. Not used for scene classes, where the folder is the class.
        column: column of the class code, for polygons.
        ignore: label codes that mean "not labelled", besides the declared nodata.
        label_nodata: label values that mean "not measured", for regression.
        bands: names of the bands in the order of the files, where the files do not say.
        frames: frames that one file holds one after the other.
        scale: reflectance = raw * scale + offset, where the files do not say.
        offset: see scale.
        dates: day of each frame (YYYY-MM-DD), where the files do not say.
        mask_clouds: leave clouded pixels out, by Fmask, SCL or QA_PIXEL.
        tile: side of a sample in pixels; 0 takes the images' side, at most 224.
        groups: CSV beside the images with columns chip and group; a group never falls into two splits.
        block_km: side of the spatial blocks that are split, where there are no groups; 0 makes each image a group.
        fractions: shares of train, val and test.
        train: text file with one image name a line; with val and test this is the split.
        val: see train.
        test: see train.
    """

    root: Path = Path()
    images: str | list[str] = "*.tif"
    labels: str | None = None
    column: str | None = None
    ignore: list[int] = field(default_factory=list)
    label_nodata: list[float] = field(default_factory=list)
    bands: list[str] = field(default_factory=list)
    frames: int = 1
    scale: float | None = None
    offset: float | None = None
    dates: list[str] = field(default_factory=list)
    mask_clouds: bool = False
    tile: int = 0
    groups: str | None = None
    block_km: float = 0.0
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15)
    train: str | None = None
    val: str | None = None
    test: str | None = None


@dataclass(frozen=True)
class Recipe:
    """All that decides what a run makes; the same recipe and data give the same bundle on the same machine.

    Attributes:
        task: segmentation (a class a pixel), regression (a value a pixel) or classification (a class a tile).
        data: the images, their labels and the split.
        classes: classes as {code, name, colour}; for classification the name is the folder's.
        target: name and unit of the predicted quantity, for regression.
        bands: bands that the model reads; the six that Prithvi was pretrained on when empty.
        backbone: a name that `earthtune backbones` lists.
        weights: hub for the published ones, random for none, or a weight file.
        revision: commit, branch or tag of the published weights.
        pretrained_bands: bands of the weight file's patch embedding in its order; the six when empty.
        mode: frozen trains the head, lora the head and adapters, full everything.
        model: decoder, widths and blocks.
        lora: size of the adapters.
        training: epochs, rates, losses, augmentation.
        seed: seeds the split, the weights, the order and the augmentation.
    """

    task: str
    data: Data
    classes: list[ClassDef] = field(default_factory=list)
    target: Target | None = None
    bands: list[str] = field(default_factory=list)
    backbone: str = "prithvi_eo_v2_300_tl"
    weights: str = "hub"
    revision: str | None = None
    pretrained_bands: list[str] = field(default_factory=list)
    mode: str = "full"
    model: Architecture = field(default_factory=Architecture)
    lora: Lora = field(default_factory=Lora)
    training: Training = field(default_factory=Training)
    seed: int = 0

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types, the data's root absolute."""
        return plain(self, self.data.root)

    def sha256(self) -> str:
        """Hash of `to_json` without the folder, so that two machines agree."""
        return recipe_hash(self.to_json())


def check_training(training: Training, weights: str, *, batch: int) -> None:
    """Refuse settings that no training takes, before any file is opened; a batch holds `batch` samples at least.

    Raises:
        InputError: the setting, and what is wanted.
    """
    choices = {
        "keep": ("best", "last"),
        "precision": ("auto", "32-true", "bf16-mixed", "16-mixed"),
    }
    for key, known in choices.items():
        if getattr(training, key) not in known:
            raise InputError(f"training.{key} {getattr(training, key)!r}: wanted one of {', '.join(known)}")
    least = {"epochs": 1, "batch": batch, "accumulate": 1, "workers": 0, "patience": 0}
    for key, low in least.items():
        if getattr(training, key) < low:
            raise InputError(f"training.{key} {getattr(training, key)}: wanted at least {low}")
    check_ranges(
        {
            "training.weight_decay": (training.weight_decay, 0.0, 100.0),
            "training.backbone_lr": (training.backbone_lr, 0.0, 100.0),
            "training.layer_decay": (training.layer_decay, 1e-3, 1.0),
            "training.clip": (training.clip, 0.0, 1e6),
            "training.freeze_norm": (training.freeze_norm, 0.0, 1.0),
            "training.gain": (training.gain, 0.0, 10.0),
            "training.offset": (training.offset, 0.0, 10.0),
            **{f"training.loss.{loss}": (share, 1e-9, 1e9) for loss, share in training.loss.items()},
            "training.lr": (training.lr, 1e-12, 10.0),
            "training.ema": (training.ema, 0.0, 0.999999),
            "training.warmup": (training.warmup, 0.0, 1.0),
            "training.smoothing": (training.smoothing, 0.0, 0.999),
            "training.class_weights": (training.class_weights, 0.0, 1.0),
        }
    )
    if weights not in ("hub", "random") and not Path(weights).is_file():
        raise InputError(f"weights {weights}: no such file; wanted hub, random or a weight file")


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


def plain(recipe: Any, root: Path) -> dict[str, Any]:
    """A recipe as plain JSON types, the data's root absolute."""
    values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(recipe), default=str))
    return values | {"data": values["data"] | {"root": str(root.resolve())}}


def recipe_hash(values: Mapping[str, Any]) -> str:
    """Hash of a plain recipe without the data's folder, so that two machines agree."""
    data = {key: value for key, value in values["data"].items() if key != "root"}
    return hashlib.sha256(json.dumps({**values, "data": data}, sort_keys=True).encode()).hexdigest()


def data_of(bundle: Record[Any, Any], kind: type[Kind]) -> Kind:
    """The data settings of a bundle.

    Raises:
        InputError: they are not of this kind.
    """
    try:
        tuples = {key: tuple(bundle.data[key]) for key in ("fractions", "window") if key in bundle.data}
        return kind(**{**bundle.data, **tuples, "root": Path(bundle.data["root"])})
    except (KeyError, TypeError) as error:
        raise InputError(f"bundle.json: its data settings are damaged ({error}); copy the run folder again") from error
