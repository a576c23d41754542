"""Many scenes of a place as one clear picture a month, a season or a year."""

from __future__ import annotations

import dataclasses
import datetime
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import rasterio
import rasterio.features
import shapely
from odc.geo.geobox import GeoBox
from scipy.ndimage import distance_transform_edt

from models.bundle import read_bundle
from models.errors import InputError
from models.types import Array, Mask, Progress, Say
from pipelines.grids.align import crop
from pipelines.grids.areas import pixel_side
from pipelines.grids.positions import clip, moved, whole_shift
from pipelines.grids.rasters import trusting
from pipelines.grids.windows import Window, cells
from pipelines.mosaics.ground import Area, Ground, ground_of
from pipelines.mosaics.strips import Reach, keep_rows
from pipelines.outputs.geotiff import join
from pipelines.outputs.item import composite_item, write_stac_item
from pipelines.outputs.layout import BLOCK, Layout, Pixels, check_memory, check_target
from pipelines.outputs.parts import open_raster
from pipelines.records.attempts import PAGE
from pipelines.records.energy import START, TILES, Account
from pipelines.records.ledger import Entry, digest, fingerprint
from pipelines.scenes.find import find_scenes, of_arrays
from pipelines.scenes.physical import unit_notes
from pipelines.scenes.reading import Reading
from pipelines.scenes.scene import Scene, open_told

By = Literal["month", "season", "year", "all"]
Method = Literal["median", "medoid", "clearest"]
SIX = ("BLUE", "GREEN", "RED", "NIR_NARROW", "SWIR_1", "SWIR_2")
VIEWS = "VIEWS"
NODATA = -32768
LARGEST = 32767
CACHE = 64 << 20  # bytes of blocks of the scenes that GDAL keeps
SIDE = 128  # pixels; all views of a square of that side are held at once
FEW = 8  # files of one series, of which one may be damaged
SEASONS = ("DJF", "MAM", "JJA", "SON")


def composite(
    scenes: Sequence[str],
    *,
    out: Path,
    for_run: Path | None = None,
    channels: Sequence[str] | None = None,
    by: By = "month",
    method: Method = "median",
    buffer: int = 3,
    ground: Ground = Ground(),
    reading: Reading = Reading(),
    account: Account = Account(),
    overwrite: bool = False,
    trust: bool = False,
    progress: Progress | None = None,
    say: Say = lambda line: None,
) -> list[dict[str, Any]]:
    """Make one clear picture a month, season or year of scenes of a place; write OUT/PERIOD.tif, which score takes.

    Scenes may be of several sensors and coordinate systems. Clouds, their shadows and what lies near them are left out.
    A picture holds reflectance, how many clear views each pixel has (band VIEWS) and the middle of its dates; a STAC
    item lies beside it. Periods without a clear pixel are told of and not written. The same command again skips what is
    done.

    Args:
        scenes: rasters, folders of band files, STAC items, patterns, or folders of many; files of many dates are taken
            apart.
        out: folder for the pictures.
        for_run: a run folder: its bands, read as in its training.
        channels: bands, where no run says: the six of HLS that Prithvi knows when not given.
        by: month, season (DJF, MAM, JJA, SON; December counts to the next year), year, or all scenes together.
        method: median of each band; medoid, the view nearest to the medians, so that bands are of one day; clearest,
            the scene with the fewest clouds first, others where it has none.
        buffer: pixels around clouds and around what has no data that are left out, too.
        ground: where the pictures lie.
        reading: what the files do not say themselves; clouds are masked where nothing else is said.
        account: on whose account the energy goes, see energy.json beside the pictures.
        overwrite: replace pictures that exist.
        trust: let virtual rasters (.vrt) read whatever they ask for: addresses, archives, formulas; for those you know.
        progress: wraps the rows to show progress.
        say: takes a line for the person who waits.

    Returns:
        For each period: period, status (done, kept from before, or empty), file, item, scenes (how many), valid,
        and clipped, how many pixels are brighter than a picture can tell, where some are.

    Raises:
        InputError: no scene can be read, scenes without dates, or a picture that is there.
        RunError: a scene cannot be read to its end, or the disk does not take a picture.
    """
    with account.booked("composite", say) as meter, trusting(trust), rasterio.Env(GDAL_CACHEMAX=CACHE):
        if not 0 <= buffer <= 100:
            raise InputError(f"--buffer {buffer}: wanted 0 to 100 pixels")
        if reading.resample != "never":
            raise InputError(f"--resample {reading.resample}: --pixel says the pixels of a picture; leave it out")
        opened = open_dated(scenes, out, _bands(for_run, channels), reading, say)
        geobox, area = ground_of([scene.geobox for scene in opened], ground)
        periods = _periods(opened, by)
        for missing in _gaps(periods, by):
            say(f"{missing}: no scene")
        meter.lap(START)
        results = []
        for period, members in periods.items():
            work = _Work(out, period, tuple(members), geobox, area, method, buffer)
            results.append(work.made(overwrite=overwrite, progress=progress))
            if clipped := results[-1].get("clipped"):
                say(f"{period}: reflectance above 3.2767 is told as 3.2767 ({clipped} pixels)")
            if results[-1]["status"] == "done":
                height, width = geobox.shape
                meter.made(km2=height * width * ((pixel_side(geobox) or 0.0) / 1000) ** 2, samples=len(members))
            meter.bind(out / PAGE)
            meter.lap(TILES)
        meter.done = any(result["status"] == "done" for result in results)
        return results


def _bands(run: Path | None, channels: Sequence[str] | None) -> tuple[Sequence[str], Mapping[str, Any] | None]:
    """The bands that are wanted, and what is known of a training's data."""
    bundle = read_bundle(run) if run else None
    return (bundle.spec.imagery.channels, bundle.data) if bundle else (tuple(channels or SIX), None)


def open_dated(
    said: Sequence[str], out: Path, wanted: tuple[Sequence[str], Mapping[str, Any] | None], reading: Reading, say: Say
) -> list[Scene]:
    """The scenes that can be read, each of one date, sorted by date; why others are left out is said.

    What lies in `out` is none: a picture is not made of pictures of an earlier call. Clouds are masked where nothing
    else is said.

    Args:
        said: scenes, patterns or folders.
        out: where the work goes.
        wanted: names of the bands, and what is known of a training's data, if there was one.
        reading: what the files do not say themselves.
        say: takes what a person should know.

    Raises:
        InputError: none can be read; why not the first.
    """
    bands, like = wanted
    if reading.mask_clouds is None:
        reading = dataclasses.replace(reading, mask_clouds=True)
    found, refused = [], list[InputError]()
    for source, scene in _dates(find_scenes(said), bands, reading, like, refused):
        try:
            if scene.dates[0] is None:
                raise InputError(f"{source}: nothing tells its date; name the file by it, or give --dates")
            if scene.geobox.crs is None:
                raise InputError(f"{source}: has no coordinate system, so its place is not known; give it one")
            if any(path.resolve().is_relative_to(out.resolve()) for path in scene.files):
                raise InputError(f"{source}: lies in {out}, where the pictures go; --out names another folder")
            for note in unit_notes(scene, as_is=reading.as_is):
                say(f"{scene.name}: {note}")
            scene.close()
            found.append(scene)
        except InputError as error:
            refused.append(error)
    if refused and not found:
        raise refused[0]
    for why in refused:
        say(f"left out: {why}")
    return sorted(found, key=lambda scene: (str(scene.dates[0]), scene.name))


def _dates(
    sources: Sequence[str],
    bands: Sequence[str],
    reading: Reading,
    like: Mapping[str, Any] | None,
    refused: list[InputError],
) -> Iterator[tuple[str, Scene]]:
    """The dates of sources as scenes; `refused` gets why others cannot be opened.

    Files of arrays that hold no scene alone are opened with the others of their folder: 10 m and 20 m lie apart.
    """
    opened = functools.partial(open_told, bands=bands, reading=reading, like=like)
    parts = dict[Path, dict[str, InputError]]()
    for source in sources:
        try:
            found = opened([source], times=1).apart()
        except InputError as error:
            parts.setdefault(Path(source).parent if of_arrays(source) else Path(source), {})[source] = error
        else:
            yield from ((source, scene) for scene in found)
    for why in parts.values():
        found, left = _together([*why], opened)
        refused += [why[source] for source in left]
        yield from ((next(iter(why)), scene) for scene in found)


def _together(sources: Sequence[str], opened: Callable[..., Scene]) -> tuple[list[Scene], list[str]]:
    """The dates of sources that are scenes only together, and which are left out: one that is damaged, or all."""
    for left in ([], *([source] for source in sources if len(sources) <= FEW)):  # each is opened as often
        some = [source for source in sources if source not in left]
        if len(some) > 1:
            try:
                return opened(some, times=len(some)).apart(), left
            except InputError:
                continue
    return [], [*sources]


def _period(day: datetime.date, by: By) -> str:
    """The name of the period of a day; names sort by time."""
    if by == "month":
        return f"{day:%Y-%m}"
    if by == "season":
        return f"{day.year + (day.month == 12)}-{SEASONS[day.month % 12 // 3]}"
    return str(day.year) if by == "year" else "all"


def _periods(scenes: Sequence[Scene], by: By) -> dict[str, list[Scene]]:
    """Scenes by period, in the order of time."""
    made: dict[str, list[Scene]] = {}
    for scene in scenes:
        made.setdefault(_period(_date(scene), by), []).append(scene)
    return made


def _gaps(periods: Mapping[str, Sequence[Scene]], by: By) -> list[str]:
    """Periods between the first and the last that have no scene."""
    days = [_date(scene).toordinal() for members in periods.values() for scene in members]
    steps = range(min(days), max(days), 27)
    between = dict.fromkeys(_period(datetime.date.fromordinal(day), by) for day in steps)
    return [period for period in between if period not in periods]


def _date(scene: Scene) -> datetime.date:
    """The day of a scene of one date."""
    day = scene.dates[0]
    assert day is not None
    return day


@dataclass(frozen=True)
class _Work:
    """The picture of one period."""

    out: Path
    period: str
    scenes: tuple[Scene, ...]
    geobox: GeoBox
    area: Area | None
    method: Method
    buffer: int

    @property
    def file(self) -> Path:
        """The picture."""
        return self.out / f"{self.period}.tif"

    @property
    def item(self) -> Path:
        """Its STAC item."""
        return self.out / f"{self.period}.json"

    @functools.cached_property
    def layout(self) -> Layout:
        """Reflectance in ten-thousandths, and the number of views."""
        days = sorted(_date(scene) for scene in self.scenes)
        middle = days[len(days) // 2]
        tags = {"TIFFTAG_SOFTWARE": f"earthtune {version('earthtune')}", "ACQUISITION_DATE": middle.isoformat()}
        names = [*self.scenes[0].bands, VIEWS]
        scaling = [*[(1e-4, 0.0)] * len(self.scenes[0].bands), (1.0, 0.0)]
        return Layout(self.geobox, "int16", len(names), NODATA, descriptions=names, tags=tags, scaling=scaling)

    def entry(self) -> Entry:
        """Its page in the ledger."""
        local = [fingerprint(path) for scene in self.scenes for path in sorted(scene.files)]
        content = {
            "software": version("earthtune"),
            "scenes": [[str(_date(scene)), scene.find_fill, *scene.sources, *scene.bands] for scene in self.scenes],
            "files": local,
            "read": [[la.index, la.units, la.nodata] for s in self.scenes for la in s.stack[0].every],
            "grid": [list(self.geobox.shape), list(self.geobox.affine)[:6], str(self.geobox.crs)],
            "area": self.area and self.area.shape.wkb_hex,
            "how": [self.method, self.buffer],
        }
        return Entry(self.out, self.period, digest(content))

    def made(self, *, overwrite: bool, progress: Progress | None) -> dict[str, Any]:
        """Make it, or what is left of it; see `composite`."""
        entry, layout = self.entry(), self.layout
        told = {"period": self.period, "scenes": len(self.scenes), "file": str(self.file), "item": str(self.item)}
        if not overwrite and (done := entry.done()) is not None:
            return told | {"status": "kept" if done["valid"] else "empty"} | done
        begun = entry.parts / "begun"
        for path in (self.file, self.item):
            if path.exists() and not (overwrite or begun.exists()):
                raise InputError(f"{path}: exists already; --overwrite makes it anew, --out names another folder")
        check_target(self.file, layout, overwrite=True)
        held = 4 * (layout.bands + 2) * SIDE**2 * len(self.scenes)
        check_memory(self.period, [layout], strip=3 * held)
        with entry.claim(wait=True):
            if not overwrite and entry.done() is not None:  # another process has made it meanwhile
                return self.made(overwrite=False, progress=progress)
            keep_rows(entry, {"image": layout}, {"image": self.file}, self._blocks(), progress)
            begun.touch()
            valid = join(entry.parts / "image", self.file, layout)
            if not valid:
                self.file.unlink()
                entry.finish({"valid": 0.0}, [])
                return told | {"status": "empty", "valid": 0.0}
            draft = entry.parts / "item.json"
            sources = [source for scene in self.scenes for source in scene.sources]
            dates = [_date(scene) for scene in self.scenes]
            bright = _brightest(self.file, layout.bands - 1)
            about = f"{self.method} of {len(sources)} scenes, clear of clouds"
            about += f"; of {bright} pixels reflectance above 3.2767 is told as 3.2767" if bright else ""
            write_stac_item(draft, composite_item(self.period, self.geobox, self.file, sources, dates, about))
            draft.replace(self.item)
            height, width = self.geobox.shape
            page = {"valid": round(valid / (height * width), 6)} | ({"clipped": bright} if bright else {})
            entry.finish(page, [self.file, self.item])
        return told | {"status": "done"} | page

    def _blocks(self) -> Callable[[Window], Iterator[tuple[str, Pixels]]]:
        """What `keep_rows` wants."""
        reach = Reach([scene.geobox for scene in self.scenes], self.geobox)
        order = _clearest_first(self.scenes) if self.method == "clearest" else range(len(self.scenes))

        def blocks(window: Window) -> Iterator[tuple[str, Pixels]]:
            height, width = (side.stop - side.start for side in window)
            made = np.full((self.layout.bands, height, width), NODATA, np.int16)
            for part in cells(height, width, SIDE):
                here = moved(part, (window[0].start, window[1].start))
                asked = self.area.on(here) if self.area else None
                among = {*reach.into(here)} if asked is None or asked.any() else set()
                views = [clear(self.scenes[i], self.geobox, here, self.buffer) for i in order if i in among]
                if views:
                    made[:, *part] = _joined(np.stack(views), self.method, asked)
            for number in reach.into(window):  # each open file holds a block
                self.scenes[number].close()
            yield "image", made

        return blocks


def clear(scene: Scene, geobox: GeoBox, window: Window, buffer: int) -> Array:
    """What a scene shows of a window of a grid, NaN within `buffer` pixels of clouds and of what has no data.

    What lies beyond the edges of scene and grid does not count as such.

    Returns:
        float32 (C, rows, columns).
    """
    (top, bottom), (left, right) = (
        (max(side.start - buffer, 0), min(side.stop + buffer, int(size)))
        for side, size in zip(window, geobox.shape, strict=True)
    )
    around = slice(top, bottom), slice(left, right)
    x = _read(scene, geobox, around)
    apart = _apart(np.isfinite(x[0]) | _beyond(scene, geobox, around), buffer) & np.isfinite(x[0])
    rows, columns = window
    inner = np.s_[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    return np.where(apart[inner], x[:, *inner], np.float32(np.nan))


def _beyond(scene: Scene, geobox: GeoBox, window: Window) -> Mask:
    """Pixels of a window of a grid that lie beyond a scene's edges, or are cut by them."""
    box = crop(geobox, window)
    shape, inner = tuple(int(side) for side in box.shape), _inner(scene.geobox, geobox)
    if inner.is_empty:
        return np.ones(shape, bool)
    if inner.contains(box.extent.geom):
        return np.zeros(shape, bool)
    return np.asarray(rasterio.features.geometry_mask([inner], shape, box.affine))


@functools.lru_cache(maxsize=1024)
def _inner(theirs: GeoBox, geobox: GeoBox) -> Any:
    """What lies within a scene's edges, less a pixel and a half of the grid."""
    return shapely.buffer(theirs.extent.to_crs(str(geobox.crs)).geom, -1.5 * abs(geobox.resolution.x))


def _read(scene: Scene, geobox: GeoBox, window: Window) -> Array:
    """A window of a grid, NaN where a scene shows nothing of it: float32 (C, rows, columns)."""
    shift = whole_shift(scene.geobox, geobox)
    if shift is None:
        x, valid = dataclasses.replace(scene, geobox=geobox, own=scene).read(window)
        return np.where(valid, x[:, 0], np.float32(np.nan))
    rows, columns = there = moved(window, shift)
    out = np.full((len(scene.bands), rows.stop - rows.start, columns.stop - columns.start), np.nan, np.float32)
    if (part := clip(there, scene.shape)) is not None:
        x, valid = scene.read(part)
        down, across = (slice(p.start - w.start, p.stop - w.start) for p, w in zip(part, there, strict=True))
        out[:, down, across] = np.where(valid, x[:, 0], np.float32(np.nan))
    return out


def _apart(valid: Mask, buffer: int) -> Mask:
    """Pixels farther than `buffer` from any that is not valid."""
    if not buffer or valid.all() or not valid.any():
        return valid
    return np.asarray(distance_transform_edt(valid) > buffer)


def _joined(views: Array, method: Method, asked: Mask | None) -> Pixels:
    """One picture of views (T, C, h, w), NaN where not clear: int16 (C + 1, h, w), the last how many there are."""
    known = np.isfinite(views[:, 0])  # (T, h, w)
    if asked is not None:
        known &= asked
    count = known.sum(axis=0)
    if method == "clearest":
        picked = known.argmax(axis=0)
    else:
        ordered = np.sort(np.where(known[:, None], views, np.float32(np.inf)), axis=0)
        ends = [np.broadcast_to(at, (1, *views.shape[1:])) for at in (np.maximum(count - 1, 0) // 2, count // 2)]
        low, high = (np.take_along_axis(ordered, at, axis=0)[0] for at in ends)
        values = (low + high) / 2  # (C, h, w), infinite where nothing is known
        if method == "medoid":
            centre = np.where(count > 0, values, 0)
            away = np.where(known, ((np.nan_to_num(views) - centre) ** 2).sum(axis=1), np.inf)
            picked = away.argmin(axis=0)
    if method != "median":
        values = np.take_along_axis(views, picked[None, None], axis=0)[0]
    whole = np.rint(np.where(count > 0, values, 0)).clip(NODATA + 1, LARGEST)
    return np.where(count > 0, np.concatenate((whole, count[None])), NODATA).astype(np.int16)


def _brightest(file: Path, bands: int) -> int:
    """Pixels of a picture where a band has the largest value that it can tell."""
    with open_raster(file) as source:
        windows = (window for _, window in source.block_windows(1))
        return sum(int((source.read([*range(1, bands + 1)], window=w) == LARGEST).any(axis=0).sum()) for w in windows)


def _clearest_first(scenes: Sequence[Scene]) -> list[int]:
    """Numbers of scenes by the pixels that each sees clear, the most first."""
    seen = []
    for number, scene in enumerate(scenes):
        clear_pixels = sum(int(scene.read(window)[1].sum()) for window in cells(*scene.shape, BLOCK))
        seen.append((-clear_pixels, number))
        scene.close()
    return [number for _, number in sorted(seen)]
