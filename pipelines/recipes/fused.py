"""Recipes over imagery with weather beside it. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from models.errors import InputError
from models.spec import LONGEST
from pipelines.recipes.recipe import Data, SceneRecipe


@dataclass(frozen=True)
class Before:
    """The weather before each sample.

    Attributes:
        files: weather files, Zarr stores, folders of them, or patterns.
        variables: names of the variables; all that have times and no levels when empty.
        days_before: days that a series reaches back from the time of its sample.
        step: hours that a value of the series stands for.
        join: the cell that holds the place, an interpolation between centres, or the mean over the sample's area.
        stamp: where in its interval the time of a mean or an amount lies, where the files do not tell.
        hours: length of that interval.
    """

    files: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()
    days_before: float = 90
    step: float = 24
    join: Literal["cell", "bilinear", "area"] = "bilinear"
    stamp: Literal["start", "middle", "end"] | None = None
    hours: float | None = None

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            InputError: days_before is no whole number of steps, or hours come alone.
        """
        told, hours = f"data.weather.days_before {self.days_before:g}, step {self.step:g} h", self.days_before * 24
        if not 0 < self.step <= hours <= LONGEST * self.step < float("inf"):
            raise InputError(f"{told}: wanted 1 to {LONGEST} steps in these days; change one of them")
        whole = self.steps * self.step
        if abs(whole - hours) > 1e-6 * hours:
            raise InputError(f"{told}: wanted a whole number of steps; say {whole / 24:g} days")
        if self.hours is not None and (self.stamp is None or not 0 < self.hours < float("inf")):
            raise InputError(
                f"data.weather.hours {self.hours:g}: wanted a length above 0, and data.weather.stamp with it"
            )

    @property
    def steps(self) -> int:
        """Values of a series."""
        return round(self.days_before * 24 / self.step)


@dataclass(frozen=True)
class FusedData(Data):
    """Images, labels and their split, the weather before the images, and what does not change where they are.

    Attributes:
        weather: the weather.
        static: rasters of what does not change, by name, such as {elevation: dem.tif}: a sample has the mean and the
            deviation of each over its ground, and of what is called elevation, in metres, the slope, too.
    """

    weather: Before = field(default_factory=Before)
    static: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class FusedRecipe(SceneRecipe):
    """A recipe over imagery with weather beside it.

    Attributes:
        data: the images, their labels, the split, and the weather before the images.
        mode: frozen leaves Prithvi as it is; so do adapters, lora.
    """

    data: FusedData
    mode: str = "frozen"
