"""Recipes over weather fields. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from models.training.settings import Augmentation, WeatherArchitecture
from pipelines.recipes.recipe import Distil, Recipe


@dataclass(frozen=True)
class WeatherData:
    """Weather fields and their split.

    Attributes:
        root: folder that the patterns start from.
        inputs: patterns of the files of the fields, or addresses of Zarr stores (https://, s3://, gs://).
        region: west, south, east, north in degrees; all that the files cover when empty.
        dates: FROM/TO, each a day, a month or a year; all times when empty.
        variables: names of the fields; VARIABLE_LEVEL for a level, such as U_51.
        times: time steps of the input.
        step: hours between them.
        split: shares of the blocks of time in their order, named train, val and test.
        gap: hours between the blocks that are left out; below 0, inputs of a block may reach so many hours into the
            one before, hours that are told of never.
    """

    root: Path = Path()
    inputs: list[str] = field(default_factory=lambda: ["*.nc*"])
    region: list[float] = field(default_factory=list)
    dates: str = ""
    variables: list[str] = field(default_factory=list)
    times: int = 1
    step: float = 0.0
    split: dict[str, float] = field(default_factory=lambda: {"train": 0.6, "val": 0.15, "test": 0.25})
    gap: float = 24.0


@dataclass(frozen=True)
class WeatherRecipe(Recipe):
    """A recipe over weather fields.

    Attributes:
        data: the fields, the target and the split.
        position: let the model know latitude, longitude and hour; a few days of data do not tell what they mean.
        model: widths, and how many networks share the encoder.
        augment: how samples are varied.
        distil: what a student learns from; `earthtune distil` writes it.
    """

    data: WeatherData
    backbone: str = "prithvi_wxc_2300m"
    mode: str = "frozen"
    model: WeatherArchitecture = field(default_factory=WeatherArchitecture)
    position: bool = True
    augment: Augmentation = field(default_factory=Augmentation)
    distil: Distil | None = None
