"""Alerts: connected pixels that changed, which keep their names from update to update and can be taken back."""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio.features
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from scipy import ndimage

from models.errors import InputError
from models.files import replacing
from models.types import Array, convert
from pipelines.changes.series import EPOCH
from pipelines.grids.areas import pixel_areas

NEW, STANDS, BACK, JOINED = "new", "stands", "taken back", "joined"
CLASSES_OF = "class_before", "class_after"  # fields of an alert, and names of maps
_CONNECTED = np.ones((3, 3), bool)


@dataclass
class Alert:
    """A place that changed.

    Attributes:
        name: first day and number; never given twice.
        number: of its pixels.
        status: new in this update, stands, taken back (its values are usual again), or joined to another.
        changed: first day of the change, of the pixel that changed first.
        last: the same, of the pixel that changed last.
        before: last day when it was seen unchanged; None where no day was.
        confirmed: day of the update that first told it.
        ended: day of the update that took it back, or joined it.
        hectares: area.
        pixels: how many.
        sizes: mean change of each feature.
        probability: mean over its pixels.
        kind: the commonest kind of its ground.
        outline: WKB in hex, in the grid's system.
        reason: in words.
        weather: in words; empty where none was given.
        class_before: the commonest class of its pixels before the watch; empty where no run told it.
        class_after: the same on the last days.
    """

    name: str
    number: int
    status: str
    changed: str
    last: str
    before: str | None
    confirmed: str
    hectares: float
    pixels: int
    sizes: dict[str, float]
    probability: float
    kind: int
    outline: str
    ended: str | None = None
    reason: str = ""
    weather: str = ""
    class_before: str = ""
    class_after: str = ""


@dataclass
class Alerts:
    """All alerts of a place so far.

    Attributes:
        held: by their numbers, rising from 1.
        numbers: of each pixel of the grid, 0 where none stands: int32 (rows, columns).
    """

    held: list[Alert]
    numbers: NDArray[np.int32]

    @classmethod
    def none(cls, shape: tuple[int, int]) -> Alerts:
        """Those of a place where nothing happened."""
        return cls([], np.zeros(shape, np.int32))

    @classmethod
    def read(cls, folder: Path, shape: tuple[int, int]) -> Alerts:
        """Those of a generation.

        Raises:
            InputError: they cannot be read.
        """
        try:
            found = json.loads((folder / "alerts.json").read_text(encoding="utf-8"))
            numbers = np.load(folder / "numbers.npy", allow_pickle=False, mmap_mode="r")
            if numbers.shape != shape:
                raise ValueError(f"of {numbers.shape} pixels, wanted {shape}")
            return cls([convert(one, Alert, "alert") for one in found], np.array(numbers, np.int32))
        except (OSError, ValueError, InputError) as error:
            raise InputError(f"{folder}: cannot be read ({error}); --overwrite watches the place anew") from error

    def write(self, folder: Path) -> None:
        """Write those of a generation."""
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / "numbers.npy") as draft:
            np.save(draft, self.numbers, allow_pickle=False)
        with replacing(folder / "alerts.json") as draft:
            draft.write_text(json.dumps([dataclasses.asdict(one) for one in self.held]))


@dataclass(frozen=True)
class Found:
    """What alerts are made of, of all pixels (rows, columns).

    Attributes:
        geobox: the grid.
        features: names of indices and bands.
        changed: first day of a pixel's own change, 0 where there is none.
        before: last clear day before it.
        probability: of it.
        sizes: change of each feature (F, rows, columns).
        kinds: of ground.
    """

    geobox: GeoBox
    features: Sequence[str]
    changed: NDArray[np.int32]
    before: NDArray[np.int32]
    probability: NDArray[np.float16]
    sizes: NDArray[np.float16]
    kinds: NDArray[np.uint8]

    @classmethod
    def empty(cls, geobox: GeoBox, features: Sequence[str]) -> Found:
        """Nothing as yet; `put` fills it."""
        shape = (int(geobox.shape[0]), int(geobox.shape[1]))
        return cls(
            geobox,
            features,
            changed=np.zeros(shape, np.int32),
            before=np.zeros(shape, np.int32),
            probability=np.zeros(shape, np.float16),
            sizes=np.zeros((len(features), *shape), np.float16),
            kinds=np.zeros(shape, np.uint8),
        )

    def put(self, rows: slice, values: Array, kinds: NDArray[np.uint8], *, own: int) -> None:
        """Take in rows: bands (B, n, width) of `maps.values`, and kinds (n, width); `own` is the code of changes."""
        here = values[-1] == own
        self.kinds[rows] = kinds
        changed, before, probability = np.where(here, np.nan_to_num(values[[0, 1, -2]]), 0)
        self.changed[rows], self.before[rows], self.probability[rows] = changed, before, probability
        self.sizes[:, rows] = np.where(here, values[3:-2], 0)


def updated(alerts: Alerts, found: Found, today: datetime.date, least: float) -> Alerts:
    """The alerts after an update.

    A patch, connected by edges and corners, keeps the name that most of its pixels had. What has shrunk below `least`
    hectares keeps its name, what is as small and has none gets none.
    """
    labels, count = ndimage.label(found.changed > 0, _CONNECTED)
    areas = pixel_areas(found.geobox)((slice(0, labels.shape[0]), slice(0, labels.shape[1])))
    hectares = np.bincount(labels.ravel(), np.broadcast_to(areas, labels.shape).ravel(), count + 1)
    numbers = _names(labels, count, alerts.numbers)
    after = {one.number: dataclasses.replace(one) for one in alerts.held}
    last, taken = max(after, default=0), np.zeros(count + 1, np.int32)
    for label, box in enumerate(ndimage.find_objects(labels), start=1):
        number = numbers.get(label)
        if number is None and hectares[label] < least:
            continue
        here = labels[box] == label
        if number is None:
            number = last = last + 1
        taken[label] = number
        after[number] = _alert(after.get(number), number, found, box, here, float(hectares[label]), today)
    held = taken[labels]
    standing, joined = set(taken.tolist()), set(np.unique(alerts.numbers[held > 0]).tolist())
    for number, one in after.items():
        if number not in standing and one.status in (NEW, STANDS):
            one.status, one.ended = (JOINED if number in joined else BACK), today.isoformat()
    return Alerts([after[number] for number in sorted(after)], held)


def _names(labels: NDArray[np.int32], count: int, before: NDArray[np.int32]) -> dict[int, int]:
    """The number that each patch keeps: most of its pixels had it, and no patch has more pixels of it."""
    both = (labels > 0) & (before > 0)
    pairs, sizes = np.unique(np.stack((labels[both], before[both])), axis=1, return_counts=True)
    kept, given = dict[int, int](), set[int]()
    for at in np.lexsort((pairs[1], -sizes)):
        label, number = (int(one) for one in pairs[:, at])
        if label not in kept and number not in given:
            kept[label] = number
            given.add(number)
    return kept


def _alert(
    old: Alert | None, number: int, found: Found, box: Any, here: Any, hectares: float, today: datetime.date
) -> Alert:
    """An alert as it is now."""
    changed, before = found.changed[box][here], found.before[box][here]
    first = _date(int(changed.min()))
    sizes = found.sizes[(slice(None), *box)][:, here].astype(np.float64).mean(axis=1)
    seen = int(before[changed == changed.min()].max())
    return Alert(
        name=old.name if old else f"{first.replace('-', '')}-{number:04d}",
        number=number,
        status=STANDS if old else NEW,
        changed=first,
        last=_date(int(changed.max())),
        before=_date(seen) if seen else None,
        confirmed=old.confirmed if old else today.isoformat(),
        hectares=round(hectares, 4),
        pixels=int(here.sum()),
        sizes={name: round(float(size), 3) for name, size in zip(found.features, sizes, strict=True)},
        probability=round(float(found.probability[box][here].astype(np.float64).mean()), 4),
        kind=int(np.bincount(found.kinds[box][here]).argmax()),
        outline=_outline(found.geobox, box, here),
        weather=old.weather if old and old.changed == first else "",
    )


def _date(day: int) -> str:
    """A day since 1970 as YYYY-MM-DD."""
    return (EPOCH + datetime.timedelta(days=day)).isoformat()


def _outline(geobox: GeoBox, box: tuple[slice, slice], here: Any) -> str:
    """Outline of pixels of a window, as WKB in hex: what is connected by corners alone is several parts."""
    import shapely

    affine = geobox.affine * geobox.affine.translation(box[1].start, box[0].start)
    shapes = rasterio.features.shapes(here.astype(np.uint8), here, connectivity=4, transform=affine)
    parts = [shapely.geometry.shape(shape) for shape, _ in shapes]
    return str(shapely.to_wkb(shapely.MultiPolygon(parts), hex=True))
