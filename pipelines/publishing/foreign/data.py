"""What a model of terratorch ate: its data module's bands, statistics and scale, in our unit.

terratorch feeds a network with (stored * constant_scale - mean) / std. A reflectance of 1 is then `full` of what is
normalised, 1 or 10000; in reflectance x10000 mean and std are 10000 / `full` of its own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from models.errors import InputError
from models.runtime import silence as silence  # before terratorch is imported
from models.types import convert, nearest
from pipelines.publishing.foreign.model import section

GENERIC = "GenericNonGeoSegmentationDataModule"
OURS = 10_000.0  # of a reflectance of 1
_FRACTION, _TENTHOUSANDTHS = (1e-3, 1.5), (20.0, 15_000.0)  # where means of reflectance lie, as 0..1 and as x10000
_PATTERN = re.compile(r"[\w*?.\-]{1,100}", re.ASCII)
_TAKEN = ("means", "stds", "constant_scale", "bands", "dataset_bands", "output_bands", "img_grep", "label_grep")
_FILES = ("reduce_zero_label", "expand_temporal_dimension", "use_metadata", "num_classes")


@dataclass(frozen=True)
class Module:
    """What a data module of terratorch does where its config says nothing.

    Attributes:
        means: of each band, of what is normalised.
        stds: the same.
        scale: constant_scale.
        full: what is normalised of a reflectance of 1.
        images: pattern of the images.
        labels: pattern of the labels.
        zero: class codes begin at 1.
        series: a file holds the frames one after the other.
    """

    means: Mapping[str, float]
    stds: Mapping[str, float]
    scale: float
    full: float
    images: str
    labels: str
    zero: bool = False
    series: bool = False


@dataclass(frozen=True)
class Eaten:
    """What a model ate.

    Attributes:
        bands: names of the channels.
        mean: of each, in reflectance x10000.
        std: the same.
        data: how files alike are read, as `recipe.Data` has it.
        first: code of the first class.
        metadata: whether days and places came along.
        told: units and statistics in words.
        ignored: what is left aside, by its key.
    """

    bands: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    data: Mapping[str, Any]
    first: int
    metadata: bool
    told: str
    ignored: tuple[str, ...]


def _modules() -> dict[str, Module | None]:
    """The data modules that are known; those without statistics of their own have them in the config."""
    from terratorch.datamodules import fire_scars, multi_temporal_crop_classification, sen1floods11

    fire, crops = fire_scars, multi_temporal_crop_classification
    labels = ("*_merged.tif", "*.mask.tif")
    return {
        GENERIC: None,
        "FireScarsNonGeoDataModule": Module(fire.MEANS, fire.STDS, 1.0, 1.0, *labels),
        "MultiTemporalCropClassificationDataModule": Module(crops.MEANS, crops.STDS, 1.0, OURS, *labels, True, True),
        "Sen1Floods11NonGeoDataModule": Module(
            sen1floods11.MEANS, sen1floods11.STDS, 1e-4, 1.0, "*_S2Hand.tif", "*_LabelHand.tif"
        ),
    }


def read_data(values: Mapping[str, Any], built: Sequence[str], frames: int, scale: float | None) -> Eaten:
    """What a config says of its data.

    Args:
        values: the config.
        built: bands that the backbone was built for; none where the config does not name them.
        frames: of the network.
        scale: what a reflectance of 1 is of what is normalised, where a person says so.

    Raises:
        InputError: a data module that is not known, bands or statistics that contradict, or units that nothing tells.
    """
    name, given = section(values, "data")
    modules = _modules()
    if name not in modules:
        raise InputError(
            f"data {name}: not a data module that is known, so that nothing tells what the network ate; "
            f"{nearest(name, modules)}"
        )
    _check_transforms(given)
    module = modules[name]
    stored, bands = _bands(given, built, module)
    means, stds = _statistics(given, bands, module)
    constant = convert(given.get("constant_scale") or (module.scale if module else 1.0), float, "constant_scale")
    full, why = _full(means, stds, scale, module)
    factor = OURS / full
    first = int(bool(given.get("reduce_zero_label", module.zero if module else False)))
    data: dict[str, Any] = {"scale": constant / full, "ignore": [-1, *([0] if first else [])]}
    data |= {"bands": list(stored)} if stored else {}
    series = bool(given.get("expand_temporal_dimension", module.series if module else False))
    data |= {"frames": frames} if series and frames > 1 else {}
    for key, named, known in (("images", "img_grep", "images"), ("labels", "label_grep", "labels")):
        pattern = given.get(named) or (getattr(module, known) if module else "")
        data |= {key: pattern} if isinstance(pattern, str) and _PATTERN.fullmatch(pattern) else {}
    told = f"values with a reflectance of 1 as {full:g}, {why}; " + (
        f"normalised by the means and stds of {name}" if means else "not normalised"
    )
    mean = tuple(factor * value for value in means) or (0.0,) * len(bands)
    std = tuple(factor * value for value in stds) or (factor,) * len(bands)
    ignored = tuple(f"data.{key}" for key in given if key not in (*_TAKEN, *_FILES))
    return Eaten(bands, mean, std, data, first, bool(given.get("use_metadata")), told, ignored)


def _check_transforms(given: Mapping[str, Any]) -> None:
    """Refuse pictures that are normalised once more, by numbers that are not read."""
    for key, steps in given.items():
        if key.endswith("_transform") and "normalize" in str(steps).lower():
            raise InputError(f"data {key}: Normalize is not understood; means and stds of the data module are wanted")


def _bands(
    given: Mapping[str, Any], built: Sequence[str], module: Module | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the bands in the files, where they are told, and of those that the network ate."""
    keys = ("bands",) if module else ("output_bands", "dataset_bands")
    default = list(module.means) if module else []
    listed = next((given[key] for key in keys if given.get(key)), default)
    fed = tuple(map(str, convert(listed, list[Any], keys[0])))
    held = tuple(map(str, convert(given.get("dataset_bands") or default, list[Any], "dataset_bands")))
    if any(band.isdigit() or not re.fullmatch(r"\w{1,40}", band) for band in fed):
        fed = ()
    if any(band.isdigit() or not re.fullmatch(r"\w{1,40}", band) for band in held):
        held = ()
    if fed and built and fed != tuple(built):
        raise InputError(
            f"bands: the data has {', '.join(fed)}, the backbone {', '.join(built)}; the same are wanted, in one order"
        )
    bands = fed or tuple(built)
    if not bands or any(not re.fullmatch(r"[A-Za-z]\w{0,39}", band, re.ASCII) for band in bands):
        raise InputError("bands: no names, such as BLUE; name them in a copy of the config, as backbone_bands")
    return held, bands


def _statistics(
    given: Mapping[str, Any], bands: Sequence[str], module: Module | None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Means and standard deviations of the bands; none where nothing is normalised."""
    if module:
        unknown = [band for band in bands if band not in module.means]
        if unknown:
            raise InputError(f"bands: {unknown[0]} is none of the data module; wanted {', '.join(module.means)}")
        return tuple(module.means[band] for band in bands), tuple(module.stds[band] for band in bands)
    means, stds = given.get("means"), given.get("stds")
    if not (means and stds):
        return (), ()
    made = [convert(values, tuple[float, ...], key) for key, values in (("means", means), ("stds", stds))]
    if any(len(values) != len(bands) for values in made):
        raise InputError(f"means, stds: {len(made[0])} and {len(made[1])} for {len(bands)} bands; one each is wanted")
    if not all(map(math.isfinite, (*made[0], *made[1]))) or min(made[1]) <= 0:
        raise InputError("means, stds: wanted numbers, and deviations above 0")
    return made[0], made[1]


def _full(
    means: Sequence[float], stds: Sequence[float], scale: float | None, module: Module | None
) -> tuple[float, str]:
    """What a reflectance of 1 is of what is normalised, and what tells it."""
    if scale is not None:
        if not (math.isfinite(scale) and scale > 0):
            raise InputError(f"scale {scale}: wanted what a reflectance of 1 is of the values, such as 1 or 10000")
        return scale, "as --scale says"
    if module:
        return module.full, "as the data module's files have it"
    for full, (low, high) in ((1.0, _FRACTION), (OURS, _TENTHOUSANDTHS)):
        if means and low <= min(means) and max(means) <= high and max(stds) <= high:
            return full, f"as means of {min(means):.3g} to {max(means):.3g} tell"
    came = f"means of {min(means):.3g} to {max(means):.3g}" if means else "no means and stds"
    raise InputError(
        f"data: {came} do not tell whether the network ate reflectance or reflectance x10000; --scale 1 or --scale "
        "10000 says what a reflectance of 1 is of its values"
    )
