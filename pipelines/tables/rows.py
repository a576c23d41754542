"""Rows of a table as samples: what stands in their columns, what is known of their day and place, and their split."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from models.errors import InputError
from models.spec import CONTEXT, IMAGERY, WEATHER, Answer, Classes, Series, Spec, valid_of
from models.types import Array
from pipelines.recipes.tables import TableData
from pipelines.samples.fused import KNOWN, YEAR, fitted_series
from pipelines.samples.splits import SPLITS, folds_by_group, split_by_group
from pipelines.tables.columns import Table, chosen, read_table, series

DAYS = 30.4375  # of a month
WITHHELD = 0.15  # share of samples that are trained without each of context, weather and a stretch of it
SEASON, PLACE = KNOWN[:2], KNOWN[2:]


@dataclass(frozen=True)
class Row:
    """A sample.

    Attributes:
        at: its place among those that were read.
        line: its number among the rows of the file, from 1.
        group: see `TableData.group`.
        split: "train", "val" or "test".
    """

    at: int
    line: int
    group: str
    split: str = ""


class Rows:
    """Rows as samples, see `sets.Samples`."""

    keys: ClassVar[tuple[str, ...]] = ("row",)
    epoch: ClassVar[int] = 0

    def __init__(self, spec: Spec, data: TableData, rows: Sequence[Row], inputs: Mapping[str, Array], y: Any) -> None:
        """Keep them; inputs are batches of all, as is the truth."""
        self.spec, self.data, self.samples, self.inputs, self.y = spec, data, list(rows), dict(inputs), y
        self.found: Mapping[str, Any] = {}
        self.notes: list[str] = []

    @property
    def name(self) -> str:
        """The file."""
        return str(self.data.root / self.data.table)

    @property
    def described(self) -> str:
        """What a sample is."""
        return "rows of a table"

    def of(self, *splits: str) -> list[Row]:
        """The rows of some splits."""
        return [row for row in self.samples if row.split in splits]

    def group(self, sample: Row) -> str:
        """Its site, or itself."""
        return sample.group

    def fold(self, count: int, index: int | None, *, seed: int) -> None:
        """Leave some groups out as "test", see `sets.Samples`."""
        folds = folds_by_group([row.group for row in self.samples], count=count, seed=seed)
        splits = ["test" if fold == index else "train" for fold in folds]
        self.samples = [dataclasses.replace(row, split=split) for row, split in zip(self.samples, splits, strict=True)]

    def item(self, sample: Row) -> dict[str, Any]:
        """Each series (T, C), and what of it is there."""
        return {name: a[sample.at] for name, a in self.inputs.items()}

    def truth(self, sample: Row) -> NDArray[Any]:
        """A value, or the index of a class."""
        found: NDArray[Any] = self.y[sample.at]
        return np.asarray(found)

    def counts(self, sample: Row) -> None:
        """All count once."""

    def varied(self, item: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """Now and then without context, without weather, or without a stretch of it."""
        return withhold(item, rng) if CONTEXT in self.spec.inputs else item

    def row(self, sample: Row) -> dict[str, str]:
        """Row, group and split."""
        return {"row": str(sample.line), "group": sample.group, "split": sample.split}

    def fitted(self, splits: Sequence[str]) -> Spec:
        """The Spec with mean and deviation over what some splits hold."""
        at = [row.at for row in self.of(*splits)]
        found = {
            name: fitted_series(given, self.inputs[name][at], self.inputs[valid_of(name)][at])
            for name, given in self.spec.series.items()
        }
        return dataclasses.replace(self.spec, inputs=found)


def withhold(item: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """A sample, now and then without context, without weather, or without a stretch of it."""
    without, begin, length = rng.random(3)
    if without < WITHHELD:
        return item | {valid_of(CONTEXT): np.zeros_like(item[valid_of(CONTEXT)])}
    valid = item[valid_of(WEATHER)].copy()
    if without < 2 * WITHHELD:
        valid[:] = 0
    elif without < 3 * WITHHELD:
        first = int(begin * len(valid))
        valid[first : first + 1 + int(length * len(valid))] = 0
    return item | {valid_of(WEATHER): valid}


def read_inputs(table: Table, data: TableData) -> tuple[dict[str, Series], dict[str, Array], list[str]]:
    """The inputs of a model of such columns, a batch of all rows, and what a person should know.

    Raises:
        InputError: columns that are not there, or hold what they should not; no imagery, or no weather.
    """
    inputs, batch, notes = {}, {}, list[str]()
    for name in (IMAGERY, WEATHER):
        columns = getattr(data, name)
        if not columns and not (name == WEATHER and data.before.files):
            raise InputError(f"data.{name}: wanted columns of {table.path}; none was given")
        if columns:
            steps = chosen(columns, table.names, f"data.{name}")
            batch[name], batch[valid_of(name)] = series(table, steps, f"data.{name}")
            inputs[name] = _unfitted(tuple(steps), len(next(iter(steps.values()))), data.step)
    if data.before.files:
        if data.weather:
            raise InputError("data.weather, data.before: weather in columns and from files; wanted one of both")
        inputs[WEATHER], batch[WEATHER], batch[valid_of(WEATHER)], notes = _before(table, data)
    known = {**_season(table, data), **_places(table, data)}
    if known:
        values = np.stack([*known.values()], 1)[:, None]
        batch[CONTEXT] = np.nan_to_num(values).astype(np.float32)
        batch[valid_of(CONTEXT)] = np.isfinite(values).astype(np.float32)
        inputs[CONTEXT] = _unfitted(tuple(known), 1, 0.0)
    absent = 1 - float(np.mean([batch[valid_of(name)].mean() for name in (IMAGERY, WEATHER)]))
    if absent:
        notes.append(f"{absent:.1%} of the cells of imagery and weather hold no value")
    return inputs, batch, notes


def _unfitted(channels: tuple[str, ...], times: int, step: float) -> Series:
    count = len(channels)
    return Series(channels, ("",) * count, (0.0,) * count, (1.0,) * count, times, step if times > 1 else 0.0)


def _before(table: Table, data: TableData) -> tuple[Series, Array, Array, list[str]]:
    """The weather before the days and places of the rows, from files."""
    from pipelines.weather.series import open_series

    if not data.date or not data.place:
        raise InputError("data.before: wanted data.date and data.place, to know what weather came before and where")
    weather = open_series(data.before, root=data.root)
    days, places = _days(table, data.date), _degrees(table, data)
    there = np.flatnonzero(~np.isnat(days) & np.isfinite(places).all(1))
    values = np.zeros((len(days), weather.steps, len(weather.channels)), np.float32)
    valid = np.zeros(values.shape, np.float32)
    if len(there):
        values[there], valid[there] = weather.at(places[there, 0], places[there, 1], days[there])
    given = dataclasses.replace(_unfitted(weather.channels, weather.steps, data.before.step), units=weather.units)
    return given, values, valid, list(weather.notes)


def _days(table: Table, column: str) -> NDArray[np.datetime64]:
    """Days of a column; NaT where a cell is empty."""
    found = np.full(len(table.rows), np.datetime64("NaT"), "datetime64[D]")
    for i, text in enumerate(table.texts(column, "data.date")):
        if text:
            try:
                found[i] = np.datetime64(datetime.date.fromisoformat(text[:10]))
            except ValueError:
                told = f"line {i + 2}: {column} {text[:40]!r} is no day"
                raise InputError(f"{table.path}: {told}; wanted YYYY-MM-DD") from None
    return found


def _season(table: Table, data: TableData) -> dict[str, NDArray[Any]]:
    """The day of the year as a point of a circle, where a column tells it."""
    given = [name for name in (data.date, data.month, data.day_of_year) if name]
    if not given:
        return {}
    if len(given) > 1:
        raise InputError(f"data.date, data.month, data.day_of_year: wanted one of them; came {', '.join(given)}")
    if data.date:
        days = _days(table, data.date)
        passed = (days - days.astype("datetime64[Y]")).astype(float)
        passed[np.isnat(days)] = np.nan
    else:
        key, most = ("data.month", 12) if data.month else ("data.day_of_year", 366)
        number = table.numbers(given[0], key)
        _check_range(table, given[0], number, 1, most)
        passed = (number - 0.5) * DAYS if data.month else number - 1
    angle = 2 * np.pi * passed / YEAR
    return dict(zip(SEASON, (np.sin(angle), np.cos(angle)), strict=True))


def _places(table: Table, data: TableData) -> dict[str, NDArray[Any]]:
    """The place as a point of a sphere, where columns tell it."""
    if not data.place:
        return {}
    north, east = np.radians(_degrees(table, data)).T
    point = np.cos(north) * np.cos(east), np.cos(north) * np.sin(east), np.sin(north)
    return dict(zip(PLACE, point, strict=True))


def _degrees(table: Table, data: TableData) -> NDArray[np.float64]:
    """Latitude and longitude of each row."""
    if len(data.place) != 2:
        raise InputError(f"data.place {data.place}: wanted the columns of latitude and longitude")
    found = [table.numbers(name, "data.place") for name in data.place]
    for name, values, most in zip(data.place, found, (90, 360), strict=True):
        _check_range(table, name, values, -most, most)
    return np.stack(found, 1)


def _check_range(table: Table, name: str, values: NDArray[Any], least: float, most: float) -> None:
    """Refuse numbers that cannot be."""
    wrong = np.flatnonzero((values < least) | (values > most))
    if len(wrong):
        told = f"line {wrong[0] + 2}: {name} {values[wrong[0]]:g}"
        raise InputError(f"{table.path}: {told}: wanted {least:g} to {most:g}; correct it")


def read_truth(table: Table, column: str, answer: Answer) -> NDArray[Any]:
    """Values, NaN where none was measured; or class indices, -1 where none is told.

    Raises:
        InputError: no such column, or a class that is none of the answer's.
    """
    if not isinstance(answer, Classes):
        return table.numbers(column, "data.answer").astype(np.float32)
    known = {text: i for i, c in enumerate(answer.classes) for text in (str(c.code), f"{c.code}.0", c.name)} | {"": -1}
    texts = table.texts(column, "data.answer")
    for i, text in enumerate(texts):
        if text not in known:
            wanted = ", ".join(f"{c.code} ({c.name})" for c in answer.classes)
            raise InputError(f"{table.path}: line {i + 2}: {column} {text[:40]!r}: wanted one of {wanted}")
    return np.array([known[text] for text in texts], np.int64)


def read_rows(data: TableData, spec: Spec, *, seed: int = 0, split: bool = True) -> Rows:
    """The rows of a file that have an answer, in their splits.

    Args:
        data: the file.
        spec: task and answer; its inputs become those of the columns.
        seed: seeds the split.
        split: divide them.

    Raises:
        InputError: what `read_inputs` and `read_truth` raise; too few rows or groups.
    """
    table = read_table(data.root / data.table, data.missing)
    inputs, batch, notes = read_inputs(table, data)
    y = read_truth(table, data.answer, spec.answer)
    told = y >= 0 if y.dtype.kind == "i" else np.isfinite(y)
    some = told & (batch[valid_of(IMAGERY)].any((1, 2)) | batch[valid_of(WEATHER)].any((1, 2)))
    if not some.all():
        notes.append(f"{int((~some).sum())} of {len(some)} rows are left out: no {data.answer}, or no inputs")
    kept = np.flatnonzero(some)
    if not len(kept):
        raise InputError(f"{table.path}: no row has {data.answer} and inputs; look at the columns of the recipe")
    groups = table.texts(data.group, "data.group") if data.group else [f"row {i + 1}" for i in range(len(some))]
    if not data.group:
        notes.append("each row is a group of its own: rows of one place may fall into two splits (data.group)")
    rows = [Row(at, int(i) + 1, groups[i]) for at, i in enumerate(kept)]
    if split:
        rows = _divided(rows, table, data, seed)
    made = Rows(dataclasses.replace(spec, inputs=inputs), data, rows, {k: a[kept] for k, a in batch.items()}, y[kept])
    named = {name: getattr(data, name) for name in (IMAGERY, WEATHER)}
    made.found = {name: chosen(columns, table.names, name) for name, columns in named.items() if columns}
    made.notes = notes
    return made


def _divided(rows: Sequence[Row], table: Table, data: TableData, seed: int) -> list[Row]:
    """Rows with a split: that of their column, or of their group."""
    groups = [row.group for row in rows]
    if not data.split:
        splits = split_by_group(groups, seed=seed, fractions=data.fractions)
        return [dataclasses.replace(row, split=split) for row, split in zip(rows, splits, strict=True)]
    texts = table.texts(data.split, "data.split")
    told = [dataclasses.replace(row, split=texts[row.line - 1].lower()) for row in rows]
    if wrong := next((row for row in told if row.split not in SPLITS), None):
        raise InputError(
            f"{table.path}: line {wrong.line + 1}: {data.split} {wrong.split!r}: wanted train, val or test"
        )
    if any(row.split == "val" for row in told):
        return told
    learned = [row for row in told if row.split == "train"]
    share = data.fractions[1] / (data.fractions[0] + data.fractions[1])
    parts = folds_by_group([row.group for row in learned], count=max(round(1 / share), 2), seed=seed)
    held = {row.line for row, part in zip(learned, parts, strict=True) if part == 0}
    return [dataclasses.replace(row, split="val") if row.line in held else row for row in told]
