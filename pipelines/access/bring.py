"""A scene brought home: its rows as they come, a COG of each band, its item, then all at once under its name."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from models.errors import InputError
from models.files import draft_folder
from models.runtime.hashes import sha256_now
from pipelines.access.offset import offset_of
from pipelines.access.plan import Part, Plan, indexes_of
from pipelines.access.record import scene_item
from pipelines.access.remote import block_ranges
from pipelines.access.web import Web
from pipelines.outputs import parts as rows
from pipelines.outputs.geotiff import join
from pipelines.outputs.item import write_stac_item
from pipelines.records.ledger import Entry


@dataclass
class Room:
    """How many bytes may still be written."""

    left: int

    def take(self, path: Path) -> None:
        """Count a file that was written.

        Raises:
            InputError: there is no room left.
        """
        self.left -= path.stat().st_size
        if self.left < 0:
            raise InputError("what is fetched takes more than --max_gb; raise it, or ask for less")


def bring(web: Web, entry: Entry, plan: Plan, facts: Mapping[str, Any], room: Room) -> dict[str, Any]:
    """Fetch a scene to `entry.out / entry.stem`; what an earlier attempt has fetched of it is not fetched again.

    Args:
        web: the network.
        entry: its page in the ledger; claimed.
        plan: what to read.
        facts: licence and the like, for the item.
        room: what may be written.

    Returns:
        What the ledger keeps of it.

    Raises:
        InputError: there is no room.
        RunError: the network fails, or the disk does not take it.
    """
    home, stage = entry.out / entry.stem, entry.parts / "scene"
    stage.mkdir(parents=True, exist_ok=True)
    with web.workers() as pool:
        for done in [pool.submit(_rows, part, entry.parts) for part in plan.parts]:
            done.result()
    layouts = {name: layout for part in plan.parts for name, layout in part.layouts.items()}
    offset, note = offset_of(plan.offer, layouts, entry.parts)
    for name, layout in layouts.items():
        file = stage / f"{name}.tif"
        (scaled,) = layout.scaling
        if name in plan.offer.bands and offset is not None:
            scaled = scaled[0], offset
        if not file.is_file():
            join(entry.parts / name, file, replace(layout, scaling=(scaled,)))
        room.take(file)
    item = scene_item(plan.offer, stage, facts, note=note)
    write_stac_item(stage / f"{entry.stem}.json", item)
    _publish(stage, home)
    sums = {f"{entry.stem}/{file.name}": sha256_now(file) for file in sorted(home.iterdir())}
    result = {"sha256": sums, "notes": [note] if note else [], "item": f"{entry.stem}/{entry.stem}.json"}
    entry.finish(result, [entry.out / name for name in sums])
    return result


def _rows(part: Part, folder: Path) -> None:
    """Fetch the rows of a file that are not there yet."""
    for name, layout in part.layouts.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        rows.drop_damaged(folder / name, layout)
    height = part.window[0].stop - part.window[0].start
    first_layout = next(iter(part.layouts.values()))
    lacking = {
        row
        for name, layout in part.layouts.items()
        for first, end in rows.missing(folder / name, layout, (0, height))
        for row in range(first, end, layout.side)
    }
    if not lacking:
        return
    with part.remote.opened() as source:
        for row in sorted(lacking):
            _read(part, source, row, min(row + first_layout.side, height), folder)


def _read(part: Part, source: Any, first: int, end: int, folder: Path) -> None:
    """Fetch rows of a window."""
    top, columns = part.window[0].start, part.window[1]
    window = slice(top + first, top + end), columns
    indexes = list(indexes_of(part.layers))
    part.remote.hold(block_ranges(source, window, indexes, part.remote.name))
    values = source.read(indexes, window=tuple((side.start, side.stop) for side in window), masked=True)
    for name, layer in part.layers.items():
        layout, band = part.layouts[name], values[indexes.index(layer.index)]
        void = 0 if layout.nodata is None else layout.nodata
        block = np.ascontiguousarray(band.filled(np.asarray(void, band.dtype)))[None]
        rows.write_part(folder / name, first, block, layout, folder / f"{name}.tif")


def _publish(stage: Path, home: Path) -> None:
    """Give a scene its name, whole; its files stay where they are until the ledger knows of it."""
    with draft_folder(home, replaces="*") as work:
        for file in sorted(stage.iterdir()):
            try:
                os.link(file, work / file.name)
            except OSError:  # a file system without links
                shutil.copyfile(file, work / file.name)


def is_sound(entry: Entry, result: Mapping[str, Any]) -> bool:
    """Whether the files that the ledger knows are those that were written, byte by byte."""
    sums = result.get("sha256")
    if not isinstance(sums, dict) or not sums:
        return False
    try:
        return all(sha256_now(entry.out / name) == said for name, said in sums.items())
    except OSError:
        return False
