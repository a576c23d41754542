"""A place watched through time: from scenes to maps of what changed and alerts; the order of events."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rasterio

from models.errors import InputError
from models.types import Progress, Say
from pipelines.changes.classes import check_run
from pipelines.changes.land import Land
from pipelines.changes.series import bands_of
from pipelines.changes.state import State
from pipelines.changes.work import Said, Told, Work
from pipelines.grids.areas import pixel_side
from pipelines.grids.rasters import trusting
from pipelines.mosaics.composite import CACHE, open_dated
from pipelines.mosaics.ground import Ground
from pipelines.records.attempts import PAGE
from pipelines.records.energy import START, TILES, Account
from pipelines.records.ledger import Entry
from pipelines.scenes.reading import Reading


def changes(
    scenes: Sequence[str],
    *,
    out: Path,
    since: str | None = None,
    history: str | None = None,
    watch: Sequence[str] = ("NDVI", "NBR"),
    rate: float = 0.01,
    least: float = 0.0,
    buffer: int = 3,
    weather: Sequence[str] | None = None,
    run: Path | None = None,
    update: bool = False,
    ground: Ground = Ground(),
    land: Land = Land(),
    reading: Reading = Reading(),
    account: Account = Account(),
    overwrite: bool = False,
    trust: bool = False,
    progress: Progress | None = None,
    say: Say = lambda line: None,
) -> dict[str, Any]:
    """Tell what changed in a place since a day, when, by how much, and whether it did so alone.

    Each pixel is held against the same season of earlier years, two at least; what all ground of its kind shares on a
    date (weather, sun, sensor) is taken off, and three clear dates in a row have to agree. Writes changes.tif (day of
    the change, days seen before and confirmed, size, probability), changes_map.tif, which review takes, changes.gpkg
    with an outline for each alert, a report, a STAC item and pictures. --update takes in new dates without reading the
    old ones.

    Args:
        scenes: scenes of one date each: rasters, folders of band files, STAC items, patterns, or folders of many.
        out: folder for the maps, and for what updates go on from.
        since: first day that is watched, as 2024-01-01; what lies before is history.
        history: first and last day of the history, as 2020-01-01/2023-12-31; all before --since when not given.
        watch: indices (NDVI, NBR, NDWI ...) and bands that are watched.
        rate: share of unchanged pixels that may be falsely alarmed in a year.
        least: hectares of the smallest alert.
        buffer: pixels around clouds and around what has no data that are left out, too.
        weather: files of daily rain or temperature of at least six years: whether the 90 days before were unusual.
        run: a run that tells classes: which it was before, in the same season, and which it is on the last days.
        update: take in the dates after the last that was watched.
        ground: where it lies.
        land: which of it is watched.
        reading: what the files do not say themselves; clouds are masked where nothing else is said.
        account: on whose account the energy goes, see energy.json beside the maps.
        overwrite: watch the place anew.
        trust: let virtual rasters (.vrt) read whatever they ask for: addresses, archives, formulas; for those you know.
        progress: wraps the strips to show progress.
        say: takes a line for the person who waits.

    Returns:
        Plain types: dates (how many are new), alerts by status, kinds that changed as a whole, files.

    Raises:
        InputError: under two years of history, no scene that can be read, or maps that are there.
        RunError: a scene cannot be read to its end, or the disk does not take the maps.
    """
    with account.booked("changes", say) as meter, trusting(trust), rasterio.Env(GDAL_CACHEMAX=CACHE):
        _check(rate=rate, least=least, buffer=buffer, reading=reading)
        if update and (since or history or ground != Ground() or land != Land()):
            raise InputError("--update: goes on as it began; leave --since, --history, the ground and --mask out")
        if run:
            check_run(run)
        state = State(out)
        with Entry(out, "changes", "").claim("watch", wait=True, say=say):
            if update:
                work = Work.resumed(state, scenes, reading, say, progress)
                meter.lap(START)
                work.added()
            else:
                said = Said(since, history, tuple(watch), rate, least, buffer)
                said.ends()
                opened = open_dated(scenes, out, (bands_of(watch), None), reading, say)
                work = Work.begun(state, opened, said, (ground, land), overwrite=overwrite, progress=progress)
                meter.lap(START)
                work.watched()
            told = work.mapped(weather, Told(run, reading, say) if run else None)
            height, width = work.series.geobox.shape
            side = pixel_side(work.series.geobox) or 0.0
            meter.made(km2=height * width * (side / 1000) ** 2, samples=told["dates"]["new"])
            meter.bind(out / PAGE)
            meter.lap(TILES)
            meter.done = True
        return told


def _check(*, rate: float, least: float, buffer: int, reading: Reading) -> None:
    """Refuse what no number can be."""
    if not 0.001 <= rate <= 0.2:
        raise InputError(f"--rate {rate:g}: wanted 0.001 to 0.2 of the unchanged pixels in a year")
    if not 0 <= buffer <= 100:
        raise InputError(f"--buffer {buffer}: wanted 0 to 100 pixels")
    if not least >= 0:
        raise InputError(f"--least {least:g}: wanted hectares, 0 or more")
    if reading.resample != "never":
        raise InputError(f"--resample {reading.resample}: --pixel says the pixels of the maps; leave it out")
