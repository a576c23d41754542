"""Rasters that are computed window by window, kept as parts, so that what was stopped goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from models.types import Progress
from pipelines.grids.positions import footprint
from pipelines.grids.windows import Window
from pipelines.outputs.layout import BLOCK, Layout, Pixels
from pipelines.outputs.parts import drop_damaged, missing, write_part
from pipelines.records.ledger import Entry

Blocks = Callable[[Window], Iterable[tuple[str, Pixels]]]


def keep_rows(
    entry: Entry, layouts: Mapping[str, Layout], files: Mapping[str, Path], blocks: Blocks, progress: Progress | None
) -> None:
    """Compute all rows that are not there yet, and keep them as parts; holds one strip of blocks.

    Args:
        entry: the page in the ledger.
        layouts: of each file, by its kind; all on one grid.
        files: where each will be.
        blocks: makes (bands, rows, columns) of each kind for a window; nothing where a kind has no data.
        progress: wraps the rows of blocks.
    """
    folders = {kind: entry.parts / kind for kind in layouts}
    for kind, folder in folders.items():
        folder.mkdir(parents=True, exist_ok=True)
        drop_damaged(folder, layouts[kind])
    height, width = (int(side) for side in next(iter(layouts.values())).geobox.shape)
    gaps = [missing(folders[kind], layout, (0, height)) for kind, layout in layouts.items()]
    rows = sorted({row for gap in gaps for first, end in gap for row in range(first, end, BLOCK)})
    for row in progress(rows, next(iter(files.values())).name) if progress else rows:
        end = min(row + BLOCK, height)
        strips: dict[str, Pixels] = {
            kind: np.full((layout.bands, end - row, width), layout.nodata, layout.dtype)
            for kind, layout in layouts.items()
        }
        for left in range(0, width, BLOCK):
            window = slice(row, end), slice(left, min(left + BLOCK, width))
            for kind, block in blocks(window):
                strips[kind][:, :, window[1]] = block
        for kind, strip in strips.items():
            write_part(folders[kind], row, strip, layouts[kind], files[kind])


class Reach:
    """Where each of many grids lies on another."""

    def __init__(self, boxes: Iterable[GeoBox], geobox: GeoBox) -> None:
        """Find the window of each on `geobox`, unclipped, and with a margin for what bends."""
        found = [footprint(geobox, box, pad=2) for box in boxes]
        ends = [[w[0].start, w[0].stop, w[1].start, w[1].stop] if w else [0] * 4 for w in found]
        self.ends: NDArray[np.int64] = np.array(ends, np.int64).reshape(-1, 4)

    def into(self, window: Window) -> list[int]:
        """Numbers of the grids that reach into a window, in their order."""
        rows, columns = window
        top, bottom, left, right = self.ends.T
        reach = (top < rows.stop) & (bottom > rows.start) & (left < columns.stop) & (right > columns.start)
        return [int(index) for index in np.flatnonzero(reach)]
