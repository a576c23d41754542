"""Which dates of a place become the frames of a model of several dates: one for each period, the clearest."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import glob
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from models.errors import InputError
from pipelines.recipes.days import Days, read_days
from pipelines.scenes.find import find_scenes
from pipelines.scenes.physical import windows_of
from pipelines.scenes.products import find_products
from pipelines.scenes.scene import Frame, Scene

_LOOKED_AT = 5  # windows of a scene that tell how clear it is
_MONTHS = re.compile(r"(0[1-9]|1[0-2])(?:/(0[1-9]|1[0-2]))?")


class GapError(InputError):
    """A place has no date with data in a period."""


@dataclass(frozen=True)
class Period:
    """When the date of a frame has to lie.

    Attributes:
        text: as it was given.
        days: the first and the last day, or None for months of any year.
        months: numbers of the months, of any year.
    """

    text: str
    days: Days | None = None
    months: frozenset[int] = frozenset()

    def middle(self, beside: datetime.date, *, later: bool) -> datetime.date:
        """Its middle; of months of any year the nearest one that is later, or earlier, than a day."""
        if self.days is not None:
            return self.days.first + (self.days.last - self.days.first) / 2
        first = next((month for month in self.months if (month - 2) % 12 + 1 not in self.months), 1)
        month = (first - 1 + (len(self.months) - 1) // 2) % 12 + 1
        days = [datetime.date(beside.year + turn, month, 15) for turn in (-1, 0, 1)]
        return min(day for day in days if day > beside) if later else max(day for day in days if day < beside)

    def holds(self, day: datetime.date) -> bool:
        """Whether a day lies in it."""
        return day.month in self.months if self.days is None else self.days.first <= day <= self.days.last


def read_periods(texts: Sequence[str], option: str = "--periods") -> list[Period]:
    """Periods: a month or a year, FROM/TO, or months of any year, 03 or 11/02.

    Raises:
        InputError: they are none of these.
    """
    found = []
    for text in texts:
        if (months := _MONTHS.fullmatch(text.strip())) is None:
            found.append(Period(text, read_days(text, option)))
            continue
        first, last = int(months[1]), int(months[2] or months[1])
        every = range(first, last + 1 + 12 * (last < first))
        found.append(Period(text, months=frozenset((month - 1) % 12 + 1 for month in every)))
    return found


def sources_in(place: Path, periods: Sequence[Period]) -> list[str]:
    """The scenes of a place's folder that have a date in a period; a file alone, whatever it holds.

    Raises:
        GapError: there is none.
        InputError: a scene in it cannot be read.
    """
    if not place.is_dir():
        return [str(place)]
    dates = {source: [one.date for one in find_products([source])] for source in find_scenes([str(place)])}
    found = [s for s, days in dates.items() if any(p.holds(day) for p in periods for day in days if day)]
    if not found:
        every = [str(day) for days in dates.values() for day in days if day]
        wanted = ", ".join(period.text for period in periods)
        raise GapError(
            f"{place}: no date in {wanted}; {'its dates are ' * bool(every)}{', '.join(every) or 'it has none'}"
        )
    return found


def find_places(sources: Sequence[str]) -> list[str]:
    """The places that are meant: files, and folders that hold dated scenes; folders of such folders taken apart.

    Raises:
        InputError: a pattern that nothing matches.
    """
    found = list[str]()
    for source in sources:
        far = "://" in source or Path(source).exists() or not glob.has_magic(source)
        matches = [source] if far else sorted(glob.glob(source, recursive=True))
        if not matches:
            raise InputError(f"{source}: no file matches this pattern; check the path")
        for match in matches:
            found += _inside(Path(match)) if "://" not in match and Path(match).is_dir() else [match]
    return list(dict.fromkeys(found))


def _inside(folder: Path) -> list[str]:
    """The places in a folder: itself, if scenes lie in it, else those in its folders."""
    scenes = [Path(scene) for scene in find_scenes([str(folder)])]
    if any(scene in (folder, *folder.iterdir()) for scene in scenes):
        return [str(folder)]
    inner = [path for path in sorted(folder.iterdir()) if path.is_dir() and any(path in s.parents for s in scenes)]
    return [place for path in inner for place in _inside(path)]


def frames_by(
    periods: Sequence[Period], scene: Scene, *, name: str = "", absent: Sequence[float] = (), most: int = 0
) -> Scene:
    """The scene with one frame for each period, the clearest of its dates; a note tells which.

    Args:
        periods: as many as frames are wanted, one after the other in time.
        scene: all dates of a place.
        name: that of the place; the scene's when not given.
        absent: reflectance x10000 of each band that stands for a frame without data.
        most: frames that may be missing; never all.

    Raises:
        GapError: periods without a date, or with dates that hold no data, and more of them than may be.
        InputError: dates that nothing tells, months of several years, or periods that are not in the order of time.
    """
    scene = dataclasses.replace(scene, name=name or scene.name)
    if undated := next((frame for frame in scene.stack if frame.date is None), None):
        raise InputError(f"{undated.source}: nothing tells its date, by which frames are chosen; name the file by it")
    found = [_clearest(period, scene) for period in periods]
    chosen, empty = [frame for frame, _ in found if frame], [why for _, why in found if why]
    if empty and (len(empty) > most or not chosen):
        dates = ", ".join(str(frame.date) for frame in scene.stack[:24])
        learned = f" (trained to do without {most}: data.missing_frames)" if most else ""
        raise GapError(f"{scene.name}: {'; '.join(empty)}{learned}; its dates are {dates}")
    days = [frame.date for frame in chosen]
    if any(str(one) >= str(two) for one, two in itertools.pairwise(days)):
        raise InputError(f"{scene.name}: frames of {', '.join(map(str, days))}; give periods in the order of time")
    told = [f"frames are {', '.join(f'{frame.date} ({frame.name})' for frame in chosen)}"]
    told += [f"{len(empty)} of {len(periods)} frames missing: {'; '.join(empty)}"] if empty else []
    notes = [note for note in scene.notes if note in {n for frame in chosen for n in frame.notes}]
    stack = list[Frame]()
    for at, (frame, _) in enumerate(found):
        stack.append(frame or _stand_in(at, periods, [one for one, _ in found], absent))
    return dataclasses.replace(scene, stack=tuple(stack), notes=(*notes, *told))


def _stand_in(at: int, periods: Sequence[Period], found: Sequence[Frame | None], absent: Sequence[float]) -> Frame:
    """What stands for the missing frame of a period: one value a band, and the day in its middle."""
    before = [frame.date for frame in found[:at] if frame and frame.date]
    after = [frame.date for frame in found[at:] if frame and frame.date]
    day = periods[at].middle(before[-1] if before else after[0], later=bool(before))
    return Frame(periods[at].text, "", day, (), None, (), tuple(absent))


def _clearest(period: Period, scene: Scene) -> tuple[Frame | None, str]:
    """The frame of a period that shows most; or why there is none."""
    inside = [frame for frame in scene.stack if frame.date and period.holds(frame.date)]
    if not inside:
        return None, f"no date in {period.text}"
    years = sorted({frame.date.year - _turned(period, frame.date) for frame in inside if frame.date})
    if period.days is None and len(years) > 1:
        raise InputError(
            f"{scene.name}: has {period.text} of {years[0]} to {years[-1]}; say which year with --periods, such as "
            f"{years[-1]}-{period.text[:2]}"
        )
    shares = [_share(dataclasses.replace(scene, stack=(frame,))) for frame in inside]
    best = max(range(len(inside)), key=lambda at: shares[at])
    if shares[best] == 0:
        return None, f"no data in {period.text}, at {len(inside)} date{'s' * (len(inside) > 1)}"
    return inside[best], ""


def _turned(period: Period, day: datetime.date) -> int:
    """1 for the months after the turn of the year in a period that reaches over it: they are of the year before."""
    return int({12, 1} <= period.months and day.month < min(set(range(1, 13)) - period.months, default=1))


def _share(scene: Scene) -> float:
    """The share of some windows that holds data; known of files that were looked at before, and have not changed."""
    return _looked_at(scene, tuple(path.stat().st_mtime_ns for path in sorted(scene.files)))


@functools.lru_cache(maxsize=1 << 14)  # of a place with hundreds of dates each is asked about several times
def _looked_at(scene: Scene, changed: tuple[int, ...]) -> float:
    """See `_share`; a new `changed` renews the cache."""
    seen = [scene.read(window)[1] for window in windows_of(scene.shape)[:_LOOKED_AT]]
    return float(sum(valid.sum() for valid in seen) / sum(valid.size for valid in seen))
