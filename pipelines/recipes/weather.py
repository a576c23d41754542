"""Recipes over weather fields, and the rain products that may be named in them. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from models.errors import InputError
from models.rain_spec import LEVELS
from models.training.settings import Training
from models.weather_spec import Augmentation, WeatherArchitecture
from pipelines.recipes.recipe import plain, recipe_hash


@dataclass(frozen=True)
class Product:
    """A rain product, as its files have it.

    Attributes:
        variable: its name.
        unit: its unit, where a file does not say.
        stamp: where in its interval a time lies, where a file does not say.
        hours: length of the interval.
    """

    variable: str
    unit: str
    stamp: Literal["start", "middle", "end"]
    hours: float


PRODUCTS: Mapping[str, Product] = {
    "merra2": Product("PRECTOT", "kg m-2 s-1", "middle", 1.0),
    "merra2_corrected": Product("PRECTOTCORR", "kg m-2 s-1", "middle", 1.0),
    # The files of Prithvi WxC hold means of the two hours around each full hour.
    "merra2_wxc": Product("PRECTOT", "kg m-2 s-1", "middle", 2.0),
    "imerg": Product("precipitation", "mm/h", "start", 0.5),
    "era5": Product("tp", "m", "end", 1.0),
    "chirps": Product("precip", "mm", "start", 24.0),
}


@dataclass(frozen=True)
class WeatherData:
    """Weather fields and their split.

    Attributes:
        root: folder that the patterns start from.
        inputs: patterns of the files of the fields.
        variables: names of the fields; VARIABLE_LEVEL for a level, such as U_51.
        times: time steps of the input.
        step: hours between them.
        split: shares of the blocks of time in their order, named train, val and test.
        gap: hours between the blocks that are left out.
    """

    root: Path = Path()
    inputs: list[str] = field(default_factory=lambda: ["*.nc*"])
    variables: list[str] = field(default_factory=list)
    times: int = 1
    step: float = 0.0
    split: dict[str, float] = field(default_factory=lambda: {"train": 0.6, "val": 0.15, "test": 0.25})
    gap: float = 24.0


@dataclass(frozen=True)
class RainData(WeatherData):
    """Weather fields, the rain that belongs to them, and their split; without variables all of two dimensions.

    Attributes:
        target: the rain: merra2, merra2_corrected, merra2_wxc, imerg, era5 or chirps.
        target_files: patterns of its files; those of the fields when empty.
        target_variable: its name, where it is not the product's.
        leads: hours to look ahead from the last one, 0 to 24.
        window: hours (from, to] around input time plus lead whose mean rate is predicted.
        persistence: hours back from which the baseline of that name takes its rain, at least.
    """

    target: str = "merra2"
    target_files: list[str] = field(default_factory=list)
    target_variable: str | None = None
    leads: list[float] = field(default_factory=lambda: [0.0])
    window: tuple[float, float] = (0.0, 1.0)
    persistence: float = 3.0

    def product(self) -> Product:
        """The product that is named.

        Raises:
            InputError: no such product.
        """
        if self.target not in PRODUCTS:
            raise InputError(f"data.target {self.target!r}: wanted one of {', '.join(PRODUCTS)}")
        return PRODUCTS[self.target]


@dataclass(frozen=True)
class DownscaleData(WeatherData):
    """Fine weather fields, elevation, and their split. Without variables the target alone is taken.

    Attributes:
        target: the field to downscale.
        factor: fine cells along a side of a coarse one, 2 to 16.
        coarse: patterns of files of the coarse fields; where empty they are the area means of the fine ones.
        elevation: a raster in metres, or a weather file with elevation or surface geopotential (PHIS); a path, or a
            pattern under root, or none.
    """

    target: str = "T2M"
    factor: int = 3
    coarse: list[str] = field(default_factory=list)
    elevation: str = "none"


@dataclass(frozen=True)
class WeatherRecipe:
    """All that decides what a run over weather makes; the same recipe and data give the same bundle on one machine.

    Attributes:
        task: rain or downscale.
        data: the fields, the target and the split.
        backbone: a Prithvi WxC that `earthtune backbones` lists.
        weights: hub for the published ones, random for none, or a weight file.
        revision: commit, branch or tag of the published weights.
        mode: frozen trains what is on top of the encoder, full everything.
        position: let the model know latitude, longitude and hour; a few days of data do not tell what they mean.
        model: widths, and how many networks share the encoder.
        training: epochs and rates.
        augment: how samples are varied.
        refit: after the scores, train anew on all blocks and keep that; the scores stay those of the held-out block.
        seed: seeds the weights, the order and the augmentation.
    """

    task: str
    data: Any
    backbone: str = "prithvi_wxc_2300m"
    weights: str = "hub"
    revision: str | None = None
    mode: str = "frozen"
    position: bool = True
    model: WeatherArchitecture = field(default_factory=WeatherArchitecture)
    training: Training = field(default_factory=Training)
    augment: Augmentation = field(default_factory=Augmentation)
    refit: bool = False
    seed: int = 0

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types, the data's root absolute."""
        return plain(self, self.data.root)

    def sha256(self) -> str:
        """Hash of `to_json` without the folder, so that two machines agree."""
        return recipe_hash(self.to_json())


@dataclass(frozen=True)
class RainRecipe(WeatherRecipe):
    """Rain from weather fields.

    Attributes:
        levels: levels of the quantiles.
        thresholds: three rates in mm/h, for probabilities and scores.
    """

    data: RainData
    levels: tuple[float, ...] = LEVELS
    thresholds: tuple[float, ...] = (0.1, 1.0, 5.0)


@dataclass(frozen=True)
class DownscaleRecipe(WeatherRecipe):
    """A coarse field on finer cells.

    Attributes:
        conserve: keep the area mean of each coarse cell, but where values below zero are cut off; coarse fields of
            files of their own are not kept.
    """

    data: DownscaleData
    conserve: bool = True


RECIPES_BY_TASK: Mapping[str, type[WeatherRecipe]] = {"rain": RainRecipe, "downscale": DownscaleRecipe}
