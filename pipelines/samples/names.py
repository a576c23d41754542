"""Which image a name in a list means: file names, paths, stems, and what published lists leave out of them."""

from __future__ import annotations

import csv
from collections.abc import Collection, Sequence
from pathlib import Path, PureWindowsPath

from models.errors import InputError
from pipelines.scenes.bands import RASTERS


def plain(name: str) -> str:
    """A name without folders and without the suffix of a raster: 'a/HLS.v1.4_merged.tif' is 'HLS.v1.4_merged'."""
    last = PureWindowsPath(name.strip()).name
    suffix = next((suffix for suffix in RASTERS if last.lower().endswith(suffix)), "")
    return last[: len(last) - len(suffix)]


def shortened(stem: str) -> list[str]:
    """A stem, and what is left of it when its last parts are taken off: chip_000_hls, chip_000, chip."""
    return ["_".join(stem.split("_")[:i]) for i in range(stem.count("_") + 1, 0, -1)]


def read_table(path: Path, what: str) -> list[list[str]]:
    """The rows of a text file, with cells where it is a CSV file; blank lines are left out.

    Raises:
        InputError: it cannot be read, or holds nothing.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [*csv.reader(file)] if path.suffix.lower() == ".csv" else [[line] for line in file]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: wanted {what} ({error})") from error
    rows = [[cell.strip() for cell in row] for row in rows if any(cell.strip() for cell in row)]
    if not rows:
        raise InputError(f"{path}: wanted {what}, it is empty")
    return rows


def listed(path: Path, stems: Collection[str], what: str) -> list[str]:
    """The images that a list names, as their stems.

    A CSV file may have a head and further columns: the column counts that names the most images. A name may be a path
    or a file name, and may lack what comes after the last underscores of an image's stem, where only one image is
    meant. Where all names have one ending and all images another (`_S1Hand`, `_S2Hand`), what is before it counts.

    Args:
        path: a text file with one name a line, or a CSV file.
        stems: stems of the images.
        what: what is wanted, for messages.

    Raises:
        InputError: as `read_table`; or names of no image.
    """
    rows = read_table(path, what)
    columns = [[plain(cell) for cell in column] for column in zip(*_even(rows), strict=True)]
    columns += [column[1:] for column in columns if len(rows) > 1 and path.suffix.lower() == ".csv"]  # below a head
    known = _meanings(stems)
    names = min(columns, key=lambda column: sum(name not in known for name in _alike(column, known, stems)))
    found = _alike(names, known, stems)
    unknown = [name for name, key in zip(names, found, strict=True) if key not in known]
    if unknown:
        shown = ", ".join(unknown[:3]) + (f" and {len(unknown) - 3} more" if len(unknown) > 3 else "")
        raise InputError(f"{path}: {shown} not in the data; take it out or add its files")
    return [known[key] for key in found]


def _alike(names: Sequence[str], known: Collection[str], stems: Collection[str]) -> list[str]:
    """The names, without their common ending where none is known and the images have a common one, too."""
    endings = {name.rpartition("_")[2] for name in names}, {stem.rpartition("_")[2] for stem in stems}
    if len(names) < 2 or any(name in known for name in names) or any(len(ending) > 1 for ending in endings):
        return [*names]
    return [name.rpartition("_")[0] or name for name in names]


def _even(rows: Sequence[list[str]]) -> list[list[str]]:
    """Rows of as many cells each."""
    width = max(map(len, rows))
    return [row + [""] * (width - len(row)) for row in rows]


def _meanings(stems: Collection[str]) -> dict[str, str]:
    """Names to stems: as they are, and without their last parts where one stem only is left so."""
    meant: dict[str, set[str]] = {}
    for stem in stems:
        for name in shortened(stem):
            meant.setdefault(name, set()).add(stem)
    return {name: found.pop() for name, found in meant.items() if len(found) == 1} | {stem: stem for stem in stems}
