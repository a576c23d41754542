"""What one call does to a watched place: the first pass, an update, and the maps of a generation."""

from __future__ import annotations

import dataclasses
import datetime
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from models.changes.history import check_years, learn
from models.changes.seasons import YEAR
from models.changes.shared import Shared
from models.changes.watch import Watch
from models.errors import InputError
from models.types import Array, Progress, Say
from pipelines.changes import state as states
from pipelines.changes.alerts import CLASSES_OF, NEW, STANDS, Alert, Alerts, updated
from pipelines.changes.classes import days_of, tell, write_classes
from pipelines.changes.land import Land
from pipelines.changes.layer import reason, write_alerts
from pipelines.changes.maps import CLASSES, write_maps
from pipelines.changes.pictures import gather, write_pictures
from pipelines.changes.pixels import each_strip, first_pass, read_sample, sample_windows, strip_rows, strips
from pipelines.changes.pixels import update as update_strip
from pipelines.changes.report import write_report
from pipelines.changes.series import EPOCH, Day, Series, bands_of, by_day
from pipelines.changes.state import Page, State
from pipelines.changes.weather import read_weather
from pipelines.grids.windows import Window
from pipelines.mosaics.composite import open_dated
from pipelines.mosaics.ground import Ground, ground_of
from pipelines.outputs.item import changes_item, write_stac_item
from pipelines.outputs.picture import write_quicklook
from pipelines.records.ledger import digest
from pipelines.scenes.find import find_scenes, of_arrays
from pipelines.scenes.reading import Reading

ENOUGH = 0.5  # years of watched dates, from which their number in a year can be told

BEFORE, NOW = "before", "now"  # of an update: what alerts there were, and what there are
SHOWN = "shown.npz"  # what the largest alerts look like
FILES = {
    "changes": ".tif",
    "map": "_map.tif",
    "confidence": "_confidence.tif",
    "alerts": ".gpkg",
    "item": ".json",
    "picture": ".png",
    "report": ".html",
}
BESIDE = "item", "report"  # what is no asset of the item


@dataclass(frozen=True)
class Said:
    """What a person says of the first call; see `changes`."""

    since: str | None
    history: str | None
    watch: tuple[str, ...]
    rate: float
    least: float
    buffer: int

    def ends(self) -> tuple[datetime.date, datetime.date, datetime.date]:
        """First and last day that the history may have, and the first that is watched.

        Raises:
            InputError: they are no days, or not in this order.
        """
        if not self.since:
            raise InputError("--since: from which day on are changes wanted? such as --since 2024-01-01")
        since = _day(self.since, "--since")
        first, last = datetime.date.min, since - datetime.timedelta(days=1)
        if self.history:
            ends = self.history.split("/")
            if len(ends) != 2:
                raise InputError(f"--history {self.history}: wanted two days, as 2020-01-01/2023-12-31")
            first, last = (_day(end, "--history") for end in ends)
            if last >= since:
                raise InputError(f"--history {self.history}: reaches into what is watched since {since}")
        return first, last, since

    def split(self, days: Sequence[Day]) -> tuple[tuple[Day, ...], tuple[Day, ...]]:
        """Days of the history, and those that are watched."""
        first, last, since = self.ends()
        before = tuple(day for day in days if first <= day.date <= last)
        return before, tuple(day for day in days if day.date >= since)


def _day(said: str, option: str) -> datetime.date:
    """A day as a person says it."""
    try:
        return datetime.date.fromisoformat(said)
    except ValueError as error:
        raise InputError(f"{option} {said}: wanted a day, as 2024-01-01") from error


def _source(said: str) -> str:
    """A scene's name, wherever one stands."""
    return said if "://" in said else str(Path(said).resolve())


@dataclass(frozen=True)
class Told:
    """A run that tells classes, how scenes are read, and what takes a line for the person who waits."""

    run: Path
    reading: Reading
    say: Say


@dataclass
class Work:
    """A place that is watched."""

    state: State
    series: Series
    page: Page
    before: tuple[Day, ...]
    new: tuple[Day, ...]
    progress: Progress | None

    @classmethod
    def begun(
        cls,
        state: State,
        opened: Sequence[Any],
        said: Said,
        where: tuple[Ground, Land],
        *,
        overwrite: bool,
        progress: Progress | None,
    ) -> Work:
        """The first call, or the same again."""
        days = by_day(opened)
        before, new = said.split(days)
        check_years(np.array([day.number for day in before], np.int64))
        ground, land = where
        geobox, area = ground_of([scene.geobox for scene in opened], ground)
        land.check(geobox)
        shape = (int(geobox.shape[0]), int(geobox.shape[1]))
        features = tuple(name.upper() for name in said.watch)
        content = {
            "software": version("earthtune"),
            "scenes": [[str(day.date), *(_source(s) for one in day.scenes for s in one.sources)] for day in days],
            "said": [*dataclasses.astuple(said)],
            "grid": [shape, list(geobox.affine)[:6], str(geobox.crs)],
            "area": area and area.shape.wkb_hex,
            "land": land.plain(),
        }
        page = Page(
            key=digest(content),
            features=[*features],
            shape=shape,
            affine=list(geobox.affine)[:6],
            crs=geobox.crs.to_wkt() if geobox.crs else "",
            rows=strip_rows(shape[1], len(before), len(features)),
            rate=said.rate,
            kept=said.rate,
            history=[str(day.date) for day in before],
            since=str(said.since),
            buffer=said.buffer,
            least=said.least,
            sample=[[r.start, r.stop, c.start, c.stop] for r, c in sample_windows(shape)],
            watch=secrets.token_hex(8),
        )
        held = state.read() if not overwrite else None
        if held and held.key != page.key and held.generation >= 0:
            raise InputError(
                f"{state.out}: holds what was watched otherwise; --update adds dates to it, --overwrite makes it anew, "
                "--out names another folder"
            )
        there = [file for end in FILES.values() if (file := state.out / f"changes{end}").exists()]
        if held is None and there and not overwrite:
            raise InputError(f"{there[0]}: exists already; --overwrite makes it anew, --out names another folder")
        if held is None or held.key != page.key:
            state.forget()
            state.write(page)
        series = Series(days, geobox, area, features, said.buffer, land)
        return cls(state, series, held if held and held.key == page.key else page, before, new, progress)

    @classmethod
    def resumed(
        cls, state: State, scenes: Sequence[str], reading: Reading, say: Say, progress: Progress | None
    ) -> Work:
        """An update: the scenes that were not taken in, of days after the last."""
        page = state.read()
        if page is None or page.generation < 0:
            raise InputError(f"{state.out}: nothing is watched there yet; leave --update out, and give --since")
        known = {source for sources in page.dates.values() for source in sources}
        found = [source for source in find_scenes(scenes) if _source(source) not in known or of_arrays(source)]
        opened = open_dated(found, state.out, (bands_of(page.features), None), reading, say) if found else []
        taken = {(day, source) for day, sources in page.dates.items() for source in sources}
        days = by_day([one for one in opened if not {(str(one.dates[0]), _source(s)) for s in one.sources} <= taken])
        last = max((*page.history, *page.dates))
        if late := [str(day.date) for day in days if str(day.date) <= last]:
            say(
                f"left out: {len(late)} days up to {late[-1]}, for {last} was taken in already; --overwrite begins anew"
            )
        geobox = GeoBox(page.shape, Affine(*page.affine), page.crs)
        series = Series(days, geobox, None, tuple(page.features), page.buffer)
        return cls(state, series, page, (), tuple(day for day in days if str(day.date) > last), progress)

    @property
    def windows(self) -> list[Window]:
        """Strips of the grid."""
        return strips(self.page.shape, self.page.rows)

    def _each(self, windows: Sequence[Window]) -> Any:
        """Strips, with progress shown."""
        return self.progress(windows, "strips") if self.progress else windows

    def _sampled(self, day: Day) -> Array:
        """The sample on a day, as it is kept."""
        windows = [(slice(a, b), slice(c, d)) for a, b, c, d in self.page.sample]
        return read_sample(self.series, day, windows).astype(np.float16).astype(np.float32)

    def watched(self) -> Page:
        """The first pass over all dates; where it was done before, nothing."""
        if self.page.generation >= 0:
            self.new = ()
            return self.page
        folder, generation = self.state.folder / "ground", self.state.generation(0)
        y = np.stack([self._sampled(day) for day in self.before])
        history = learn(y, np.array([day.number for day in self.before], np.int64))
        samples = [self._sampled(day) for day in self.new]
        had, has = (np.array([day.number for day in days], np.int64) for days in (self.before, self.new))
        kept = self.page.rate * more_chances(y, had, samples, has)
        watch = Watch.begin(history, y, kept)
        del y
        shared = [watch.date(sample, day.number) for sample, day in zip(samples, self.new, strict=True)]
        del samples
        dates = list(zip(self.new, shared, strict=True))
        for window in self._each(self.windows):
            first_pass(self.series, history, kept, window, self.before, dates, (folder, generation))
        states.save(self.state.folder / "history.npz", states.history_arrays(history, watch.ground))
        self._keep(watch, generation, dates, None)
        Alerts.none(self.page.shape).write(generation / BEFORE)
        return self._turned(0, kept)

    def added(self) -> Page:
        """Take in the new dates; where there are none, nothing."""
        if not self.new:
            return self.page
        number = self.page.generation + 1
        old, new = (self.state.generation(at) for at in (number - 1, number))
        watch, centres = self._watch(old)
        dates = [(day, watch.date(self._sampled(day), day.number)) for day in self.new]
        for window in self._each(self.windows):
            folders = (self.state.folder / "ground", old, new)
            update_strip(self.series, watch.history, self.page.kept, window, dates, folders)
        self._keep(watch, new, dates, centres)
        Alerts.read(old / NOW, self.page.shape).write(new / BEFORE)
        return self._turned(number, self.page.kept)

    def _watch(self, generation: Path) -> tuple[Watch, dict[str, Any]]:
        """The sample as of a generation, and what its kinds shared so far."""
        held = states.load(generation / "watch.npz")
        history = states.load(self.state.folder / "history.npz")
        return states.watch_of(history, held, self.page.kept), held

    def _keep(
        self, watch: Watch, generation: Path, dates: Sequence[tuple[Day, Shared]], held: Mapping[str, Any] | None
    ) -> None:
        """Write the sample, and what its kinds share on all dates."""
        features, kinds = len(self.page.features), len(watch.history.usual)
        days = np.array([day.number for day, _ in dates], np.int64)
        centre = np.concatenate([np.zeros((0, features, kinds), np.float32), *(one.centre for _, one in dates)])
        if held:
            days, centre = np.append(held["days"], days), np.concatenate((held["centre"], centre))
        states.save(generation / "watch.npz", {**states.watch_arrays(watch), "days": days, "centre": centre})

    def _turned(self, generation: int, kept: float) -> Page:
        """The page of a new generation, written."""
        dates = {str(day.date): [_source(s) for one in day.scenes for s in one.sources] for day in self.series.days}
        self.page = dataclasses.replace(self.page, generation=generation, kept=kept, dates={**self.page.dates, **dates})
        self.state.write(self.page)
        return self.page

    def mapped(self, weather: Sequence[str] | None = None, run: Told | None = None) -> dict[str, Any]:
        """Write maps, alerts, item and picture, where they do not show the generation yet; what a person is told.

        Args:
            weather: files of it.
            run: what tells the classes before and after.
        """
        out, generation, page = self.state.out, self.state.generation(self.page.generation), self.page
        watch, held = self._watch(generation)
        files = {kind: out / f"changes{end}" for kind, end in FILES.items()}
        if page.mapped == page.generation and not (weather or run) and all(file.is_file() for file in files.values()):
            files |= {"alerts_picture": self._picture} if self._picture.is_file() else {}
            return self._told(watch, Alerts.read(generation / NOW, page.shape).held, files)
        series = self.series
        alerts = Alerts.read(generation / BEFORE, page.shape)
        each = each_strip(series, self.windows, self.state.folder / "ground", generation)
        made, found = write_maps(out, series, watch.history, watch.of_kinds, each, watch=page.watch or page.key)
        today = datetime.date.fromisoformat(max((*page.history, *page.dates)))
        alerts = updated(alerts, found, today, page.least)
        known = read_weather(weather, _centre(series.geobox)) if weather else None
        for alert in alerts.held:
            alert.reason = reason(alert, held["days"], held["centre"])
            if known:
                alert.weather = known.words(datetime.date.fromisoformat(alert.changed))
        classes = self._classes(alerts, run, made["map"]) if run else {}
        alerts.write(generation / NOW)
        write_alerts(files["alerts"], alerts.held, series.features, series.geobox)
        write_quicklook(files["picture"], made["map"], classes=CLASSES)
        assets = {kind: file for kind, file in files.items() if kind not in BESIDE} | classes | self._pictured(alerts)
        about = f"changes of {', '.join(series.features)} since {page.since}"
        write_stac_item(files["item"], changes_item(series.geobox, assets, [*page.dates], about, CLASSES))
        write_report(files["report"], page, alerts.held, kinds_changed(watch, page.features), assets)
        self.page = dataclasses.replace(page, mapped=page.generation)
        self.state.write(self.page)
        return self._told(watch, alerts.held, {**assets, **{kind: files[kind] for kind in BESIDE}})

    def _classes(self, alerts: Alerts, run: Told, grid: Path) -> dict[str, Path]:
        """Map classes before and after, as far as their days are open, and tell them of the alerts that stand."""
        standing, files = [one for one in alerts.held if one.status in (NEW, STANDS)], {}
        for name, days in zip(CLASSES_OF, days_of(self.series.days, self.page.since), strict=True):
            file = self.state.out / f"changes_{name}.tif"
            if write_classes(run.run, days, file, grid, run.reading, run.say) or file.is_file():
                tell(alerts, standing, file, name)
                files[name] = file
        return files

    @property
    def _picture(self) -> Path:
        """The picture of the largest alerts."""
        return self.state.out / "changes_alerts.png"

    def _pictured(self, alerts: Alerts) -> dict[str, Path]:
        """Draw the largest alerts, with what earlier calls saw of them; nothing where none stands."""
        file = self.state.folder / SHOWN
        shown = gather(self.series, alerts, states.load(file) if file.is_file() else {})
        states.save(file, shown)
        drawn = write_pictures(self._picture, alerts.held, shown, self.series.features[0])
        return {"alerts_picture": self._picture} if drawn else {}

    def _told(self, watch: Watch, alerts: Sequence[Alert], files: Mapping[str, Path]) -> dict[str, Any]:
        """What a person is told."""
        dates = [day for day in self.page.dates if day >= self.page.since]
        status = [alert.status for alert in alerts]
        return {
            "dates": {"history": len(self.page.history), "watched": len(dates), "new": len(self.new)},
            "alerts": {name: status.count(name) for name in dict.fromkeys(sorted(status))},
            "hectares": round(sum(one.hectares for one in alerts if one.status in ("new", "stands")), 2),
            "kinds": kinds_changed(watch, self.page.features),
            "files": {kind: str(file) for kind, file in files.items()},
        }


def _centre(geobox: GeoBox) -> tuple[float, float]:
    """Latitude and longitude of the middle of a grid."""
    assert geobox.crs is not None  # others are not watched
    x, y = geobox.affine * (geobox.shape[1] / 2, geobox.shape[0] / 2)
    longitude, latitude = geobox.crs.transformer_to_crs("EPSG:4326")(x, y)
    return float(latitude), float(longitude)


def more_chances(y: Array, days: NDArray[np.int64], samples: Sequence[Array], later: NDArray[np.int64]) -> float:
    """By what a rate is lowered where more dates a year are watched than the history had: each is a chance to be wrong.

    Args:
        y: the history of a sample (T, F, N).
        days: its days.
        samples: the same on each date that is watched (F, N).
        later: their days.
    """
    span = (later[-1] - later[0]) / YEAR if len(later) else 0.0
    if span < ENOUGH:
        return 1.0
    had = np.isfinite(y[:, 0]).sum() / ((days[-1] - days[0]) / YEAR)
    has = sum(int(np.isfinite(one[0]).sum()) for one in samples) / span
    return float(min(had / max(has, 1.0), 1.0))


def kinds_changed(watch: Watch, features: Sequence[str]) -> list[dict[str, Any]]:
    """Kinds of ground that changed as a whole: since when, by how much, and their share of the sample."""
    shares = np.bincount(watch.ground.kinds, minlength=len(watch.history.usual)) / len(watch.ground.kinds)
    return [
        {
            "kind": int(kind),
            "since": (EPOCH + datetime.timedelta(days=int(watch.of_kinds.changed[kind]))).isoformat(),
            "sizes": {name: round(float(watch.of_kinds.size[at, kind]), 3) for at, name in enumerate(features)},
            "share": round(float(shares[kind]), 4),
        }
        for kind in np.flatnonzero(watch.of_kinds.changed)
    ]
