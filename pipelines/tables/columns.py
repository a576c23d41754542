"""A CSV file as columns of text, and columns as series; what is no number is missing or refused by its line."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.errors import InputError
from models.types import Array, nearest
from pipelines.recipes.tables import Columns

BYTES = 1 << 28  # of a file
ABSENT = ("", "na", "nan", "n/a", "null", "none")


@dataclass(frozen=True)
class Table:
    """Rows of a CSV file.

    Attributes:
        path: the file.
        names: of its columns.
        rows: their cells as text.
        missing: numbers that stand for no value.
    """

    path: Path
    names: tuple[str, ...]
    rows: list[list[str]]
    missing: tuple[float, ...] = ()

    def texts(self, name: str, what: str) -> list[str]:
        """A column as it is.

        Raises:
            InputError: there is none of the name, which `what` of a recipe says.
        """
        if name not in self.names:
            raise InputError(f"{self.path}: has no column {name} ({what}); {nearest(name, self.names)}")
        place = self.names.index(name)
        return [row[place].strip() for row in self.rows]

    def numbers(self, name: str, what: str) -> NDArray[np.float64]:
        """A column as numbers, NaN where there is none.

        Raises:
            InputError: no such column, or a cell that holds other text.
        """
        found = np.full(len(self.rows), np.nan)
        for i, text in enumerate(self.texts(name, what)):
            if text.lower() in ABSENT:
                continue
            try:
                found[i] = float(text)
            except ValueError:
                told = f"line {i + 2}: {name} {text[:40]!r} is no number"
                raise InputError(f"{self.path}: {told}; correct it, or leave the cell empty") from None
        found[~np.isfinite(found) | np.isin(found, self.missing)] = np.nan
        return found


def read_table(path: Path, missing: Sequence[float] = ()) -> Table:
    """Read a CSV file with a header.

    Raises:
        InputError: no such file, no table, two columns of a name, or a row with more or fewer cells than the header.
    """
    try:
        with path.open("rb") as file:
            content = file.read(BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be opened ({error.strerror}); check the path") from error
    if len(content) > BYTES:
        raise InputError(f"{path}: larger than {BYTES >> 20} MB; divide it into several files")
    try:
        text = content.decode("utf-8-sig")
        first = text.partition("\n")[0]
        lines = [
            row for row in csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=first.count)) if row
        ]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: no table ({error}); write it again as CSV in UTF-8") from error
    names = tuple(name.strip() for name in lines[0]) if lines else ()
    if len(lines) < 2:
        raise InputError(f"{path}: wanted a header and rows; it has {len(lines)} lines")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"{path}: has two columns {twice or 'without a name'}; name one otherwise")
    for number, row in enumerate(lines[1:], 2):
        if len(row) != len(names):
            raise InputError(f"{path}: row {number}: wanted {len(names)} cells, came {len(row)}; correct it")
    return Table(path, names, lines[1:], tuple(missing))


def chosen(columns: Columns, table: Sequence[str], what: str) -> dict[str, list[str]]:
    """The columns of each channel, one a step.

    Args:
        columns: what a recipe says.
        table: the columns that there are.
        what: what of the recipe says it.

    Raises:
        InputError: a pattern that no column matches, or channels with different numbers of steps.
    """
    named = columns if isinstance(columns, Mapping) else {_bare(column): column for column in columns}
    found = {
        name: _steps(column, table, what) if isinstance(column, str) else list(column) for name, column in named.items()
    }
    counts = {name: len(steps) for name, steps in found.items()}
    most = max(counts.values(), default=0)
    if odd := next((name for name, count in counts.items() if count not in (1, most)), None):
        other = next(name for name, count in counts.items() if count == most)
        raise InputError(f"{what}: {odd} has {counts[odd]} steps, {other} {most}; wanted as many, or one for all")
    return {name: steps * (most if len(steps) == 1 else 1) for name, steps in found.items()}


def _bare(column: str) -> str:
    """What a channel is called whose columns are given by a pattern."""
    return column.replace("*", "").strip(" _-") or column


def _steps(column: str, table: Sequence[str], what: str) -> list[str]:
    """The columns of a pattern in the order of the numbers that * stands for, or the column alone."""
    if "*" not in column:
        return [column]
    begin, _, end = column.partition("*")
    matches = [
        (m, name) for name in table if (m := re.fullmatch(re.escape(begin) + r"(\d{1,9})" + re.escape(end), name))
    ]
    if not matches:
        raise InputError(f"{what}: no column matches {column} (* stands for a number); {nearest(column, table)}")
    return [name for _, name in sorted(matches, key=lambda pair: int(pair[0][1]))]


def series(table: Table, steps: Mapping[str, Sequence[str]], what: str) -> tuple[Array, Array]:
    """Values of channels (N, T, C), 0 where there are none, and 1 where there are."""
    once = {name: table.numbers(name, what) for of in steps.values() for name in of}
    values = np.stack([np.stack([once[name] for name in of], 1) for of in steps.values()], 2)
    valid = np.isfinite(values)
    return np.where(valid, values, 0).astype(np.float32), valid.astype(np.float32)
