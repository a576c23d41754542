"""One map of many: what overlapping maps say, averaged by how well each saw the ground."""

from __future__ import annotations

import datetime
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from odc.geo.geobox import GeoBox

from models.errors import InputError, RunError
from models.types import Progress, Say
from pipelines.grids.areas import pixel_side, scene_name
from pipelines.grids.mosaic import first_largest
from pipelines.grids.rasters import trusting
from pipelines.grids.windows import Window
from pipelines.mosaics.ground import Area, Ground, ground_of
from pipelines.mosaics.strips import Reach, keep_rows
from pipelines.mosaics.views import MADE_BY, View, check_alike, nearness, open_view, seen
from pipelines.outputs.geotiff import join
from pipelines.outputs.item import mosaic_item, write_stac_item
from pipelines.outputs.layout import BLOCK, Layout, Pixels, check_memory, check_target
from pipelines.outputs.parts import read_parts
from pipelines.outputs.picture import write_quicklook
from pipelines.records.attempts import page_of
from pipelines.records.energy import START, TILES, Account
from pipelines.records.ledger import Entry, digest, fingerprint

CACHE = 64 << 20  # bytes of blocks of the maps that GDAL keeps
FEATHER = 64  # pixels
EPOCH = datetime.date(1970, 1, 1)
VIEWS = ["views", "day of the view that weighs most, days since 1970-01-01"]


def mosaic(
    maps: Sequence[str],
    *,
    out: Path,
    ground: Ground = Ground(),
    date: str | None = None,
    feather: int = FEATHER,
    account: Account = Account(),
    overwrite: bool = False,
    trust: bool = False,
    progress: Progress | None = None,
    say: Say = lambda line: None,
) -> dict[str, Any]:
    """Join maps of overlapping ground into one; their coordinate systems may differ.

    Of classes the probabilities are averaged (score with --probabilities), of values the values, each view by how well
    it saw a pixel: less near its clouds and edges, and less far from --date. So no seam shows where one begins. Beside
    the map are written its confidence (of classes), how many views each pixel has and the day of the one that weighs
    most, a STAC item and a picture. The same command again goes on where it was stopped.

    Args:
        maps: SCENE_map.tif as score writes them, patterns, or folders of them.
        out: the map to write; NAME_map.tif is taken by review and sample as a scene's map is.
        ground: where the mosaic lies.
        date: views near this day (YYYY-MM-DD) weigh more, half for each 30 days.
        feather: pixels from clouds and edges within which a view weighs less.
        account: on whose account the energy goes, see NAME.energy.json beside the map.
        overwrite: replace a mosaic that exists.
        trust: let virtual rasters (.vrt) read whatever they ask for: addresses, archives, formulas; for those you know.
        progress: wraps the rows to show progress.
        say: takes a line for the person who waits.

    Returns:
        map, maps, item, picture, status (done, or kept from before), views (maps that are part of it), left_out (those
        that lie elsewhere) and valid (share of the grid that has data).

    Raises:
        InputError: maps that say different things, lie nowhere, or lack their probabilities; options that fit nothing.
        RunError: a map cannot be read to its end, or the disk does not take the mosaic.
    """
    meter = account.begun("mosaic", say)
    with trusting(trust):
        work = plan(maps, out, ground=ground, date=date, feather=feather)
        meter.lap(START)
        told = make(work, overwrite=overwrite, progress=progress, say=say)
    if told["status"] == "done":
        height, width = work.geobox.shape
        meter.made(km2=told["valid"] * height * width * ((pixel_side(work.geobox) or 0.0) / 1000) ** 2)
        meter.lap(TILES)
        meter.close(page_of(out))
    return told


def joined(maps: Sequence[str], out: Path, ground: Ground) -> None:
    """Join the maps of one call of score; what is there is replaced where it is another. Errors as of `mosaic`."""
    work = plan(maps, out, ground=ground)
    if work.entry.done() is None:
        make(work, overwrite=True, say=lambda line: None)


def make(work: Work, *, overwrite: bool, progress: Progress | None = None, say: Say) -> dict[str, Any]:
    """Make a mosaic that is laid out; what is returned and raised as of `mosaic`."""
    for line in work.remarks:
        say(line)
    done = None if overwrite else work.entry.done()
    if done is not None:
        return work.told(done) | {"status": "kept"}
    work.check(overwrite=overwrite)
    with work.entry.claim(wait=True, say=say), rasterio.Env(GDAL_CACHEMAX=CACHE):
        done = None if overwrite else work.entry.done()  # another process may have made it meanwhile
        if done is None:
            if overwrite:
                work.entry.forget()
            work.compute(progress)
            done = work.finish()
    return work.told(done) | {"status": "done"}


def _day(said: str | None) -> datetime.date | None:
    try:
        return None if said is None else datetime.date.fromisoformat(said)
    except ValueError:
        raise InputError(f"--date {said}: wanted a day as YYYY-MM-DD") from None


def prints_of(views: Sequence[View]) -> list[Any]:
    """What tells the files of views from any others."""
    return [fingerprint(path) for view in views for path in dict.fromkeys((view.map, view.answers))]


def find_maps(said: Sequence[str]) -> list[Path]:
    """Maps by their names, by patterns, and all of a folder, in the order of their names.

    Raises:
        InputError: a name that is no map, a pattern that matches none, or a folder without any.
    """
    found: list[Path] = []
    for one in said:
        path = Path(one)
        if path.is_dir():
            came = sorted(path.glob("*_map.tif"))
        elif path.exists() or not any(sign in one for sign in "*?["):
            came = [path]
        else:
            came = sorted(Path(path.anchor or ".").glob(str(path.relative_to(path.anchor) if path.anchor else path)))
        if not came:
            raise InputError(f"{one}: holds no maps (SCENE_map.tif, as score writes them)")
        found += came
    return [*{path.resolve(): path for path in found}.values()]


def plan(
    said: Sequence[str], out: Path, *, ground: Ground = Ground(), date: str | None = None, feather: int = FEATHER
) -> Work:
    """Look at all maps, and lay the mosaic out; arguments and errors as of `mosaic`."""
    day = _day(date)
    if not 1 <= feather <= 1024:
        raise InputError(f"--feather {feather}: wanted 1 to 1024 pixels")
    if out.suffix.lower() not in (".tif", ".tiff"):
        raise InputError(f"{out}: the mosaic is a GeoTIFF; --out wants a name that ends with .tif")
    paths = [path for path in find_maps(said) if path.resolve() != out.resolve()]
    if not paths:
        raise InputError(f"{out}: is the only map that was given; --out names another file")
    views = [open_view(path) for path in paths]
    remarks = check_alike(views)
    if day and (undated := [view for view in views if view.date is None]):
        raise InputError(f"--date: {undated[0].map} and {len(undated) - 1} more have no date; leave --date out")
    geobox, area = ground_of([view.geobox for view in views], ground)
    whole = slice(0, int(geobox.shape[0])), slice(0, int(geobox.shape[1]))
    inside = Reach([view.geobox for view in views], geobox).into(whole)
    if not inside:
        raise InputError(f"{ground.grid or out}: none of the maps lies on this grid")
    left_out = [str(view.map) for index, view in enumerate(views) if index not in inside]
    if left_out:
        remarks.append(f"{len(left_out)} of {len(views)} maps lie elsewhere, {left_out[0]} for one")
    views = [views[index] for index in inside]
    content = {
        "software": version("earthtune"),
        "name": out.name,
        "maps": prints_of(views),
        "grid": [list(geobox.shape), list(geobox.affine)[:6], str(geobox.crs)],
        "aoi": ground.aoi and digest({"wkb": area.shape.wkb_hex if area else ""}),
        "how": [date, feather],
    }
    entry = Entry(out.parent, scene_name(out), digest(content))
    laid_out = views, prints_of(views), Reach([view.geobox for view in views], geobox), geobox, area
    return Work(out, *laid_out, day, feather, entry, tuple(left_out), tuple(remarks))


@dataclass(frozen=True)
class Work:
    """A mosaic that is laid out."""

    out: Path
    views: Sequence[View]
    prints: list[Any]
    reach: Reach
    geobox: GeoBox
    area: Area | None
    date: datetime.date | None
    feather: int
    entry: Entry
    left_out: tuple[str, ...]
    remarks: tuple[str, ...]

    @functools.cached_property
    def layouts(self) -> dict[str, Layout]:
        """How each file is laid out."""
        first, nan = self.views[0], float("nan")
        tags = {"TIFFTAG_SOFTWARE": f"earthtune {version('earthtune')}"}
        made_by = {view.made_by for view in self.views}
        tags |= {MADE_BY: made_by.pop()} if len(made_by) == 1 else {}
        name, unit = first.about
        views = Layout(self.geobox, "uint16", 2, 0, descriptions=VIEWS, tags=tags, overview_resampling="nearest")
        if not first.classes:
            made = Layout(self.geobox, "float32", 1, nan, (), [name], [unit] if unit else [], tags)
            return {"map": made, "views": views}
        sure = Layout(self.geobox, "float32", nodata=nan, descriptions=["highest probability"], tags=tags)
        made = Layout(self.geobox, *first.kind[:1], 1, first.kind[1], first.classes, [name], (), tags)
        return {"map": made, "confidence": sure, "views": views}

    def path(self, kind: str) -> Path:
        """Where a file is written."""
        return self.out if kind == "map" else self.out.with_name(f"{self.entry.stem}_{kind}.tif")

    @property
    def beside(self) -> dict[str, Path]:
        """The picture and the item."""
        return {name: self.out.with_name(f"{self.entry.stem}.{name}") for name in ("png", "json")}

    @property
    def files(self) -> list[Path]:
        """All that is written under a final name."""
        return [*map(self.path, self.layouts), *self.beside.values()]

    def told(self, page: Mapping[str, Any]) -> dict[str, Any]:
        """What a person is told of it."""
        maps = {kind: str(self.path(kind)) for kind in self.layouts}
        files = {"map": maps["map"], "maps": maps, "item": str(self.beside["json"]), "picture": str(self.beside["png"])}
        return files | {"views": len(self.views), "left_out": [*self.left_out]} | dict(page)

    def check(self, *, overwrite: bool) -> None:
        """Refuse to replace what is not to be replaced, and mosaics that no memory would hold."""
        inputs = {path.resolve() for view in self.views for path in (view.map, view.answers)}
        if self.entry.others(self.out):
            told = f"{self.entry.stem} is the name of other maps in this folder, whose files it would replace"
            raise InputError(f"{self.out}: {told}; --out or --mosaic names another file")
        ours = overwrite or (self.entry.parts / "begun").exists()
        for path in self.files:
            if path.resolve() in inputs:
                raise InputError(f"{path}: the mosaic would replace a map that is part of it; --out names another file")
            if path.exists() and not ours:
                raise InputError(f"{path}: exists already; --overwrite makes it anew, --out names another file")
        for kind, layout in self.layouts.items():
            check_target(self.path(kind), layout, overwrite=True)
        block = 4 * (self.views[0].channels + 2) * (BLOCK + 2 * self.feather) ** 2
        check_memory(str(self.out), self.layouts.values(), strip=3 * block)

    def compute(self, progress: Progress | None) -> None:
        """Keep all rows that are not there yet as parts."""
        files = {kind: self.path(kind) for kind in self.layouts}
        keep_rows(self.entry, self.layouts, files, self._block, progress)

    def _block(self, window: Window) -> Iterator[tuple[str, Pixels]]:
        """A window of each file, none where nothing was seen or asked for."""
        asked = self.area.on(window) if self.area else None
        if asked is not None and not asked.any():
            return
        rows, columns = window
        shape = rows.stop - rows.start, columns.stop - columns.start
        total, weights = np.zeros((self.views[0].channels, *shape), np.float32), np.zeros(shape, np.float32)
        most, count, day = np.zeros(shape, np.float32), np.zeros(shape, np.uint16), np.zeros(shape, np.uint16)
        for view in (self.views[index] for index in self.reach.into(window)):
            y, weight = seen(view, self.geobox, window, feather=self.feather)
            weight *= nearness(view, self.date)
            known = weight > 0
            if asked is not None:
                known &= asked
            weight[~known] = 0
            np.copyto(y, 0, where=~known)
            total += y * weight
            weights += weight
            count += known
            best = weight > most
            most[best] = weight[best]
            day[best] = max((view.date - EPOCH).days, 0) if view.date else 0
        valid = count > 0
        if not valid.any():
            return
        np.copyto(weights, 1, where=~valid)
        total /= weights
        yield "views", np.stack((count, day))
        if not self.views[0].classes:
            yield "map", np.where(valid, total, np.float32(np.nan))
            return
        layout = self.layouts["map"]
        codes = np.array([entry.code for entry in self.views[0].classes], layout.dtype)[first_largest(total)]
        yield "map", np.where(valid, codes, np.array(layout.nodata, layout.dtype))[None]
        yield "confidence", np.where(valid, total.max(axis=0), np.float32(np.nan))[None]

    def finish(self) -> dict[str, Any]:
        """Join the parts, and write what lies beside the map."""
        if prints_of(self.views) != self.prints:
            raise RunError(f"{self.out}: one of its maps has changed meanwhile; run the same command again")
        if not any(block[0].any() for _, block in read_parts(self.entry.parts / "views")):
            raise InputError(f"{self.out}: no map has any data on this ground")
        (self.entry.parts / "begun").touch()
        counts = {kind: join(self.entry.parts / kind, self.path(kind), layout) for kind, layout in self.layouts.items()}
        drafts = {name: self.entry.parts / f"beside.{name}" for name in self.beside}
        write_quicklook(drafts["png"], self.out, classes=self.views[0].classes)
        drafts["png"].replace(self.beside["png"])
        assets = {kind: self.path(kind) for kind in self.layouts} | {"thumbnail": self.beside["png"]}
        dates = [view.date for view in self.views]
        sources = [view.map for view in self.views]
        item = mosaic_item(self.entry.stem, self.geobox, assets, sources, dates, self.views[0].classes)
        write_stac_item(drafts["json"], item)
        drafts["json"].replace(self.beside["json"])
        height, width = self.geobox.shape
        page = {"valid": round(counts["map"] / (height * width), 6), "remarks": [*self.remarks]}
        self.entry.finish(page, self.files)
        return page
