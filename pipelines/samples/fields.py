"""Weather files -> samples of fields and what is to be told of them: which hours belong together, in which block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from models.backbones.wxc_inputs import climatology_index, static_channels
from models.errors import InputError
from models.spec import WEATHER, Spec
from models.training.settings import Augmentation
from models.training.variation import varied
from models.types import Array
from pipelines.samples.climatology import Climatology
from pipelines.samples.sets import SPLITS, Item
from pipelines.samples.weather import HELD, Weather, cell_notes, describe
from pipelines.weather.regions import cell_areas


@dataclass(frozen=True)
class Moment:
    """One input and what is to be told of it.

    Attributes:
        at: index of the last input time.
        lead: hours to look ahead.
        split: "train", "val", "test", or "" for the gap.
    """

    at: int
    lead: float
    split: str = ""


class FieldSamples:
    """Weather by sample, see `sets.Samples`; a task says what is to be told of it.

    Attributes:
        shown: the baselines that pictures show; the best one where empty.
        notes: what a person should know of the data, a sentence each.
        found: settings of the data that reading settled, by their names.
        weather: the fields.
        climatology: that of the fields, for a model that takes it.
        spec: which of them a model eats.
        samples: what there is, with a split each.
    """

    keys: ClassVar[tuple[str, ...]] = ("time", "lead")
    epoch: ClassVar[int] = 64
    shown: ClassVar[tuple[str, ...]] = ()

    def __init__(self, spec: Spec, weather: Weather, *, known: bool, climatology: Climatology | None = None) -> None:
        """Find every sample whose input times, and if anything is known whose truth, are there.

        Raises:
            InputError: there is none, or the climatology of a valid time is not there for a model that takes it.
        """
        self.spec, self.weather = spec, weather
        self.augmentation, self.climatology = Augmentation(), climatology
        self._normals: dict[tuple[int, int], Array] = {}
        self.gap = 0.0  # hours between the blocks of time
        self.notes = cell_notes(weather, spec)
        self.found: Mapping[str, Any] = {}
        leads = spec.field.leads
        self.samples = [Moment(at, lead) for lead in leads for at in range(len(weather.times)) if self._past(at)]
        if known:
            self.samples = [s for s in self.samples if np.isfinite(self.truth(s)).any()]
        if not self.samples:
            span = f"{weather.times[0]} to {weather.times[-1]}"
            what = f"with {spec.field.name} after it" if known else "with the times before it"
            raise InputError(
                f"{weather.name}: no time of {span} {what} ({spec.weather.times} times of {spec.weather.step:g} h "
                f"wanted, leads {list(leads)} h); pass more files"
            )

        if spec.weather.climatology:
            if climatology is None:
                raise InputError(f"{weather.name}: this model takes a climatology; say where it is")
            climatology.check(sorted({self.valid(s) for s in self.samples}), spec.weather.channels)

    @property
    def name(self) -> str:
        """The files."""
        return self.weather.name

    @property
    def described(self) -> str:
        """Times and grid."""
        return describe(self.weather)

    @property
    def grid(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Latitudes, falling, and longitudes, rising, of what is told."""
        return self.weather.lat, self.weather.lon

    @property
    def area(self) -> NDArray[np.float64]:
        """Weight of each cell of what is told by its area, (H, W)."""
        lat, lon = self.grid
        return np.broadcast_to(cell_areas(lat)[:, None], (len(lat), len(lon)))

    @property
    def names(self) -> Mapping[str, Sequence[str]]:
        """What the maps of an item hold, see `variation.varied`."""
        fields = self.spec.weather.channels
        held = {WEATHER: fields, "y": (self.spec.field.name,)}
        return held | {"climate": fields} if self.spec.weather.climatology else held

    def truth(self, sample: Moment) -> Array:
        """What is to be told, (H, W) in the unit of the Spec; NaN where not known."""
        raise NotImplementedError

    def counts(self, sample: Moment) -> None:
        """Each place counts once."""

    def seen(self, sample: Moment) -> dict[str, Array]:
        """Maps on the grid of what is told to show beside the forecasts, by title."""
        return {}

    def told(self) -> str:
        """What is told, in words."""
        raise NotImplementedError

    def _past(self, at: int) -> list[int] | None:
        """Indices of the input times that end at one, oldest first; None where one is not there."""
        step = np.timedelta64(round(self.spec.weather.step * 3600), "s")
        wanted = [self.weather.times[at] - back * step for back in range(self.spec.weather.times - 1, -1, -1)]
        places = np.searchsorted(self.weather.times, wanted)
        return [int(i) for i in places] if (self.weather.times[places] == np.array(wanted)).all() else None

    def time(self, sample: Moment) -> np.datetime64:
        """The last input time."""
        return np.datetime64(self.weather.times[sample.at])

    def valid(self, sample: Moment) -> np.datetime64:
        """The input time plus the lead."""
        return self.time(sample) + np.timedelta64(round(sample.lead * 3600), "s")

    def item(self, sample: Moment) -> Item:
        """What the model eats, all float32.

        `weather` (T, C, H, W), `static` (6 + S, H, W), `input_time`, `lead_time`, and where it is taken `climate`
        (C, H, W), the climatology at the valid time.
        """
        weather, names = self.weather, self.spec.weather.static
        fixed = {} if weather.static is None else dict(zip(names, weather.static[sample.at], strict=True))
        given = {
            WEATHER: weather.fields[self._past(sample.at)],
            "static": static_channels(self.time(sample), weather.lat, weather.lon, fixed, names=names),
            "input_time": np.float32(self.spec.weather.step),
            "lead_time": np.float32(sample.lead),
        }
        return given | {"climate": self._normal(sample)} if self.spec.weather.climatology else given

    def _normal(self, sample: Moment) -> Array:
        """The climatology at the valid time, (C, H, W), read once where memory allows."""
        time = self.valid(sample)
        key = climatology_index(time)
        if key in self._normals:
            return self._normals[key]
        assert self.climatology is not None
        values = self.climatology.read(time, self.spec.weather.channels)
        if (len(self._normals) + 1) * values.nbytes <= HELD:
            self._normals[key] = values
        return values

    def varied(self, item: Item, rng: np.random.Generator) -> Item:
        """As another day might have brought it."""
        return varied(item, self.names, self.spec.weather.std, self.augmentation, rng)

    def row(self, sample: Moment) -> dict[str, str]:
        """Time, lead and split."""
        return {"time": str(self.time(sample)), "lead": f"{sample.lead:g}", "split": sample.split or "gap"}

    def of(self, *splits: str) -> list[Moment]:
        """The samples of some splits."""
        return [s for s in self.samples if s.split in splits]

    def divide(self, shares: Mapping[str, float], gap: float) -> None:
        """Put every sample into a block of time; those closer than the gap to the next block belong to none.

        A sample reaches from its first input time to the end of its window.

        Raises:
            InputError: shares that are not those of train, val and test, or a block without a sample.
        """
        if set(shares) != set(SPLITS) or min(shares.values()) <= 0:
            raise InputError(f"data.split {dict(shares)}: wanted a share above 0 of each of {', '.join(SPLITS)}")
        self.gap = gap
        times = np.unique([self.time(s) for s in self.samples])
        ends = np.cumsum(list(shares.values())) / sum(shares.values())
        edges = [0, *np.round(ends * len(times)).astype(int)]
        blocks = {name: times[a:b] for name, a, b in zip(shares, edges[:-1], edges[1:], strict=True)}
        width = np.timedelta64(round(gap * 3600), "s")
        (first, last), past = self.spec.field.window, (self.spec.weather.times - 1) * self.spec.weather.step
        reach = last + max(past, -first)
        divided: list[Moment] = []
        for sample in self.samples:
            name = next(n for n, block in blocks.items() if self.time(sample) in block)
            last = blocks[name][-1] == times[-1]
            # When the samples that follow may begin: the end of the window, and the span of their inputs.
            end = self.valid(sample) + np.timedelta64(round(reach * 3600), "s")
            clear = last or end + width <= blocks[name][-1] + (times[1:] - times[:-1]).min()
            divided.append(Moment(sample.at, sample.lead, name if clear else ""))
        self.samples = divided
        empty = [name for name in SPLITS if not self.of(name)]
        if empty:
            raise InputError(
                f"{self.weather.name}: {len(times)} times are too few for blocks of train, val and test with "
                f"{gap:g} h between them ({', '.join(empty)} is empty); pass more files, or change data.split, data.gap"
            )

    def group(self, sample: Moment) -> str:
        """The UTC day of the input time."""
        return str(self.time(sample).astype("datetime64[D]"))

    def fold(self, count: int, index: int | None, *, seed: int) -> None:
        """Leave a block of time out as "test", see `sets.Samples`; what is closer to it than the gap is in no split."""
        times = np.unique([self.time(s) for s in self.samples])
        if not 2 <= count <= len(times):
            raise InputError(f"folds {count}: wanted 2 to {len(times)}, as many as there are times")
        edges = np.round(np.linspace(0, len(times), count + 1)).astype(int)
        block = times[:0] if index is None else times[edges[index] : edges[index + 1]]
        left = np.isin([self.time(s) for s in self.samples], block)
        first, last = (np.array(ends) for ends in zip(*map(self._span, self.samples), strict=True))
        clear, width = np.ones(len(left), bool), np.timedelta64(round(self.gap * 3600), "s")
        if left.any():
            clear = (last + width <= first[left].min()) | (first >= last[left].max() + width)
        splits = np.where(left, "test", np.where(clear, "train", ""))
        self.samples = [replace(s, split=str(split)) for s, split in zip(self.samples, splits, strict=True)]

    def _span(self, sample: Moment) -> tuple[np.datetime64, np.datetime64]:
        """From the first input time, or the start of the window, to the end of the window."""
        first, last = self.spec.field.window
        past = (self.spec.weather.times - 1) * self.spec.weather.step
        hours = (-past, sample.lead + first), (0.0, sample.lead + last)
        ends = min(hours[0]), max(hours[1])
        start, end = (self.time(sample) + np.timedelta64(round(hour * 3600), "s") for hour in ends)
        return start, end

    def measured(self, *splits: str) -> Spec:
        """The Spec with means and deviations of the fields of some splits.

        A field that is the same everywhere, as the cloud of a level that never has any, gets its size for a deviation.
        """
        fields, at = self.weather.fields, sorted({s.at for s in self.of(*splits)})
        mean = np.asarray(np.mean([fields[i].mean(axis=(1, 2), dtype=np.float64) for i in at], axis=0))  # (C,)
        off = [np.square(fields[i] - mean[:, None, None]).mean(axis=(1, 2)) for i in at]
        std = np.asarray(np.sqrt(np.mean(off, axis=0)))
        std = np.where(std <= 1e-7 * np.abs(mean), np.maximum(np.abs(mean), 1.0), std)
        fixed: dict[str, Any] = {} if self.weather.static is None else _moments(self.weather.static[at])
        return self.spec.revised(mean=tuple(mean.tolist()), std=tuple(std.tolist()), **fixed)


def _moments(static: Array) -> dict[str, tuple[float, ...]]:
    """Means and deviations of static fields (T, S, H, W); a deviation of 1 for those that are the same everywhere."""
    mean, std = (np.asarray(f(static, axis=(0, 2, 3), dtype=np.float64)) for f in (np.mean, np.std))
    std = np.where(std <= 1e-7 * np.maximum(np.abs(mean), 1.0), 1.0, std)
    return {"static_mean": tuple(mean.tolist()), "static_std": tuple(std.tolist())}
