"""New rows of a table scored with a run: the table again, with the answer in columns beside its own."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models.bundle import Bundle, read_bundle
from models.errors import InputError
from models.files import check_folder, draft
from models.runtime.engines import load_runtime
from models.spec import IMAGERY, WEATHER, Classes, Spec, valid_of
from models.types import Array, Mask, Say
from pipelines.recipes.recipe import data_of
from pipelines.recipes.tables import TableData
from pipelines.samples.unfamiliar import strange_weather, unfamiliar_weather
from pipelines.tables.columns import Table, read_table
from pipelines.tables.rows import read_inputs

BATCH = 4096  # rows that are asked about at once


def score_tables(
    run: Path,
    tables: Sequence[str],
    *,
    out: Path,
    runtime: str = "auto",
    overwrite: bool = False,
    say: Say = lambda line: None,
) -> list[dict[str, Any]]:
    """Write each table again with the answer, TABLE_scored.csv; a row that nothing is known of has none.

    A column that a table lacks is told, and counts as missing in all rows.

    Args:
        run: the run folder.
        tables: CSV files.
        out: where to write.
        runtime: see `engines.load_runtimes`.
        overwrite: replace files that exist.
        say: takes a line for the person who waits.

    Returns:
        For each table: scene, run, status, map (the CSV), valid (share of rows with an answer) and notes.

    Raises:
        InputError: no such table, none of the run's columns in it, cells that hold no numbers, or files that exist.
    """
    bundle = read_bundle(run)
    data = data_of(bundle, TableData)
    targets = [out / f"{Path(path).stem}_scored.csv" for path in tables]
    if len(set(targets)) < len(targets):
        raise InputError(f"{', '.join(tables)}: two tables of one name; score them into folders of their own")
    check_folder(out, overwrite=True)
    if not overwrite and (there := next((target for target in targets if target.exists()), None)):
        raise InputError(f"{there}: exists already; give another folder, or --overwrite to replace it")
    read = [_read(Path(path), data, bundle.spec) for path in tables]  # all are looked at before one is written
    predict = load_runtime(run, runtime=runtime)
    out.mkdir(parents=True, exist_ok=True)
    results = []
    for path, target, (table, batch, notes) in zip(tables, targets, read, strict=True):
        for note in notes:
            say(f"{path}: {note}")
        far = unfamiliar_weather(run, bundle, batch)
        if strange := strange_weather(bundle, batch, far):
            notes.append(f"{(far > 1).mean():.0%} of the rows: {strange}")
            say(f"{path}: {notes[-1]}")
        known = np.any([batch[valid_of(name)].any(axis=(1, 2)) for name in (IMAGERY, WEATHER)], axis=0)
        parts = [
            predict({name: a[first : first + BATCH] for name, a in batch.items()})
            for first in range(0, len(known), BATCH)
        ]
        _write(target, table, bundle, np.concatenate(parts), known, far)
        told: dict[str, Any] = {"scene": Path(path).stem, "run": str(run), "status": "done", "map": str(target)}
        results.append({**told, "rows": len(known), "valid": float(known.mean()), "notes": notes})
    return results


def _read(path: Path, data: TableData, spec: Spec) -> tuple[Table, dict[str, Array], list[str]]:
    """A table, its rows as a batch of the model's inputs, and what a person should know."""
    table = read_table(path, data.missing)
    given = [of for of in (data.imagery, data.weather) if isinstance(of, Mapping)]
    steps = [column for of in given for columns in of.values() for column in columns]
    known = [name for name in (data.date, data.month, data.day_of_year, *data.place) if name]
    gone = [name for name in dict.fromkeys((*steps, *known)) if name not in table.names]
    if not set(steps) - set(gone):
        raise InputError(f"{path}: has none of the run's columns {', '.join(steps[:8])} ...; score another table")
    empty = [""] * len(gone)
    padded = dataclasses.replace(table, names=(*table.names, *gone), rows=[[*row, *empty] for row in table.rows])
    inputs, batch, notes = read_inputs(padded, data)
    if [*inputs] != [*spec.inputs] or any(inputs[name].channels != of.channels for name, of in spec.series.items()):
        raise InputError(f"{path}: its columns or weather files are not those of the run; copy the run folder again")
    return table, batch, [*notes, *([f"has no {', '.join(gone)}: missing in all rows"] if gone else [])]


def _write(target: Path, table: Table, bundle: Bundle, said: Array, known: Mask, far: Array) -> None:
    """Write the table with the answers, and how unlike the training's its weather is, beside its own columns."""
    answer, weather = bundle.spec.answer, WEATHER in bundle.spec.series
    beside = ["weather_unfamiliar"] if weather else []
    names = [_free(table, name) for name in (*_answer_names(bundle.spec), *beside)]
    with draft(target) as path, path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*table.names, *names])
        for i, (row, told, there) in enumerate(zip(table.rows, said, known, strict=True)):
            cells = [f"{value:.6g}" for value in told]
            if isinstance(answer, Classes):
                best = answer.classes[int(told.argmax())]
                cells = [str(best.code), best.name, *cells]
            cells += [f"{far[i]:.3g}" if np.isfinite(far[i]) else ""] if weather else []
            writer.writerow([*row, *(cells if there else [""] * len(cells))])


def _answer_names(spec: Spec) -> list[str]:
    """What the columns of the answer are called."""
    if isinstance(spec.answer, Classes):
        return ["class", "class_name", *(f"probability_{one.code}" for one in spec.answer.classes)]
    return [f"predicted_{spec.answer.name.replace(' ', '_')}"]


def _free(table: Table, name: str) -> str:
    """A name that no column has."""
    return name if name not in table.names else _free(table, f"{name}_scored")
