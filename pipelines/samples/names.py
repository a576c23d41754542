"""Which image a name in a list means: file names, paths, stems, and what published lists leave out of them."""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PureWindowsPath

from models.errors import InputError
from pipelines.scenes.bands import RASTERS

_HEADS = (
    "image",
    "images",
    "chip",
    "chips",
    "file",
    "files",
    "filename",
    "file_name",
    "name",
    "path",
    "image_path",
    "id",
)


def plain(name: str) -> str:
    """A name without folders and without the suffix of a raster: 'a/HLS.v1.4_merged.tif' is 'HLS.v1.4_merged'."""
    last = PureWindowsPath(name.strip()).name
    suffix = next((suffix for suffix in RASTERS if last.lower().endswith(suffix)), "")
    return last[: len(last) - len(suffix)]


def shortened(stem: str) -> list[str]:
    """A stem, and what is left of it without its last words: chip_000_hls, chip_000; numbers are never left out."""
    names = [stem]
    while "_" in names[-1] and re.search(r"[^\W\d]", names[-1].rpartition("_")[2]):
        names.append(names[-1].rpartition("_")[0])
    return [name for name in names if name]


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


def read_groups(path: Path) -> dict[str, str]:
    """Group of each image's name.

    Raises:
        InputError: no such file, or one that does not tell the group of each image.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; data.groups names a CSV with columns chip and group")
    head, *rows = read_table(path, "a CSV file with columns chip and group")
    if not {"chip", "group"} <= set(head) or not rows:
        raise InputError(
            f"{path}: wanted columns chip and group, came {', '.join(head)}{'' if rows else ' and no rows'}"
        )
    chip, group = head.index("chip"), head.index("group")
    table: dict[str, str] = {}
    for row in rows:
        if len(row) <= max(chip, group):
            raise InputError(f"{path}: the row {','.join(row)} has no chip or no group; wanted both in every row")
        name = plain(row[chip])
        if table.setdefault(name, row[group]) != row[group]:
            raise InputError(f"{path}: {name} is in the groups {table[name]} and {row[group]}; keep it in one")
    return table


def listed(path: Path, images: Collection[str], what: str) -> list[str]:
    """The images that a list names.

    In a CSV file the column counts that is called image, chip, file or the like, else the one whose cells are all
    images. A name may be a path or a file name, and may lack the last words of an image's name (`_merged`) where only
    one image is meant. Where all names end in one word and all images in another (`_S1Hand`, `_S2Hand`), what is before
    it counts.

    Args:
        path: a text file with one name a line, or a CSV file.
        images: the images, as their paths from the data's folder, without suffix.
        what: what is wanted, for messages.

    Raises:
        InputError: as `read_table`; names of no image; or several columns that name different images.
    """
    rows = read_table(path, what)
    known = _meanings(images)
    columns = [[*column] for column in zip(*_even(rows), strict=True)]
    below = [column[1:] for column in columns] if len(rows) > 1 and path.suffix.lower() == ".csv" else []  # a head
    head = [cell.lower() for cell in rows[0]]
    called = next((head.index(word) for word in _HEADS if word in head), None) if below else None
    tries = [columns, below] if called is None else [[below[called]]]
    for tried in tries:
        whole = {tuple(meant) for names in tried if None not in (meant := _meant(names, known, images))}
        if len(whole) > 1:
            raise InputError(f"{path}: several columns name images; call the one that counts `image`, or keep it alone")
        if whole:
            return [name for name in whole.pop() if name is not None]
    names = min(
        (names for tried in tries for names in tried), key=lambda names: _meant(names, known, images).count(None)
    )
    unknown = [plain(name) for name, image in zip(names, _meant(names, known, images), strict=True) if image is None]
    shown = ", ".join(unknown[:3]) + (f" and {len(unknown) - 3} more" if len(unknown) > 3 else "")
    raise InputError(f"{path}: {shown} not in the data; take it out or add its files")


def _meant(names: Sequence[str], known: Mapping[str, str], images: Collection[str]) -> list[str | None]:
    """The image that each name means, None where it means none."""
    found = [next((known[text] for text in _spellings(name) if text in known), None) for name in names]
    words = {plain(name).rpartition("_")[2] for name in names}, {image.rpartition("_")[2] for image in images}
    if len(names) > 1 and not any(found) and all(len(w) == 1 and re.search(r"[^\W\d]", min(w)) for w in words):
        found = [known.get(plain(name).rpartition("_")[0]) for name in names]
    return found


def _spellings(name: str) -> list[str]:
    """A name with all of its folders, then with fewer, without suffix."""
    folders = [part for part in PureWindowsPath(name.strip()).parts[:-1] if part not in (".", "..")]
    return ["/".join((*folders[i:], plain(name))) for i in range(len(folders) + 1)]


def _even(rows: Sequence[list[str]]) -> list[list[str]]:
    """Rows of as many cells each."""
    width = max(map(len, rows))
    return [row + [""] * (width - len(row)) for row in rows]


def _meanings(images: Collection[str]) -> dict[str, str]:
    """Names to images: as they are, and without folders or last words where one image only is left so."""
    meant: dict[str, set[str]] = {}
    for image in images:
        for name in shortened(image.rpartition("/")[2]):
            meant.setdefault(name, set()).add(image)
    alone = {name: found.pop() for name, found in meant.items() if len(found) == 1}
    return alone | {image: image for image in images}
