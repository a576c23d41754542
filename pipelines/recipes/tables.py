"""Recipes over samples of tables. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from models.spec import ClassDef, Target
from models.training.settings import TableArchitecture, Training
from pipelines.recipes.fused import Before
from pipelines.recipes.recipe import Recipe

Columns = list[str] | dict[str, str | list[str]]


@dataclass(frozen=True)
class TableData:
    """A CSV file with a sample a row: its inputs by the names of their columns, the answer, and the split.

    Attributes:
        root: folder of the file.
        table: the CSV file.
        imagery: columns of what satellites saw, or a mapping of names to columns, NIR_NARROW: b5. A pattern such as
            NDVI* is a series, whose steps are the numbers at the ends of the names, as is a list of columns; a single
            column beside series holds for all steps.
        weather: columns of the weather, alike.
        step: hours that a step of a series stands for.
        date: column of the day (YYYY-MM-DD), so that the season is known.
        month: column of the month (1 to 12), where there is no date.
        day_of_year: column of the day of the year (1 to 366), where there is no date.
        place: columns of latitude and longitude in degrees.
        answer: column of the measured value, or of the class's code or name.
        group: column of what rows share that must not be told apart: a site, a county.
        split: column of the split (train, val, test); without val, groups of the training are held out for it.
        fractions: shares of train, val and test, without such a column.
        missing: numbers that stand for no value; empty cells, NA and NaN are none anyhow.
        before: weather files that series before the date at the place come from, in place of columns.
    """

    root: Path = Path()
    table: str = "samples.csv"
    imagery: Columns = field(default_factory=list)
    weather: Columns = field(default_factory=list)
    step: float = 24.0
    date: str | None = None
    month: str | None = None
    day_of_year: str | None = None
    place: list[str] = field(default_factory=list)
    answer: str = ""
    group: str | None = None
    split: str | None = None
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15)
    missing: list[float] = field(default_factory=list)
    before: Before = field(default_factory=Before)


@dataclass(frozen=True)
class TableRecipe(Recipe):
    """A recipe over samples of tables.

    Attributes:
        data: the file and its columns.
        backbone: none; forests and small layers hear the columns.
        weights: random.
        mode: frozen.
        model: trees, layers.
        training: epochs, rates, losses.
        classes: classes as {code, name, colour}; values are learned where there are none.
        target: name and unit of the measured quantity.
    """

    data: TableData
    backbone: str = "none"
    weights: str = "random"
    mode: str = "frozen"
    model: TableArchitecture = field(default_factory=TableArchitecture)
    training: Training = field(
        default_factory=lambda: Training(epochs=60, batch=64, lr=2e-3, keep="last", precision="32-true")
    )
    classes: list[ClassDef] = field(default_factory=list)
    target: Target | None = None
