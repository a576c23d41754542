"""What a model eats and says, by name; travels with the weights, loaders obey it. Standard library only."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, TypeVar

from models.errors import InputError
from models.types import convert

REFLECTANCE = "reflectance x10000"
LARGEST_TILE = 8192  # pixels; a bundle that wants more is damaged, or wants the machine's memory
LONGEST = 4096  # steps of a series
LEVELS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)
IMAGERY, WEATHER, CONTEXT, STATIC = "imagery", "weather", "context", "static"  # the names of the inputs
Kind = TypeVar("Kind")


@dataclass(frozen=True)
class Pixels:
    """Bands of one or several dates, in tiles of pixels on a grid.

    Attributes:
        channels: names of the bands, in the order of the model's channels.
        mean: mean of each band in `unit`, used to normalise inside the model.
        std: standard deviation of each band in `unit`.
        times: dated frames per sample (T).
        tile: side of a square tile in pixels; divisible by `patch`.
        patch: side of a patch (one token) in pixels.
        uses_time: the model takes `time`, the year and day of year of each frame, too.
        uses_location: the model takes `location`, the latitude and longitude of the tile's centre, too.
        unit: unit of the values.
        pixel: side of a pixel of the training images on the ground in metres; None where they have no place on it.
    """

    kind: ClassVar[str] = "pixels"
    channels: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    times: int = 1
    tile: int = 224
    patch: int = 16
    uses_time: bool = False
    uses_location: bool = False
    unit: str = REFLECTANCE
    pixel: float | None = None

    def __post_init__(self) -> None:
        """Check the contract at birth."""
        _check_channels("bands", self.channels, self.mean, self.std)
        if self.times < 1 or self.patch < 1 or not 1 <= self.tile <= LARGEST_TILE or self.tile % self.patch:
            raise InputError(
                f"tile {self.tile} must be a multiple of patch {self.patch} and at most {LARGEST_TILE}, "
                f"and frames ({self.times}) at least 1"
            )
        if self.pixel is not None and not self.pixel > 0:
            raise InputError(f"pixel {self.pixel}: wanted metres, above 0")


@dataclass(frozen=True)
class Cells:
    """Weather fields of one or several times, on cells in degrees.

    Attributes:
        channels: names of the fields in the order of the model's channels.
        units: the unit of each as the training files have it; empty where they say none.
        mean: mean of each, used to normalise inside the model.
        std: standard deviation of each.
        times: time steps of the input.
        step: hours between them.
        position: whether the model knows latitude, longitude and hour.
        size: height and width of a cell of the training in degrees; a model that tells of finer cells takes no other,
            for the rest another is told of. Empty where it is not known.
        elevation: mean of the elevation of the cells that are told of, its deviation, and the deviation of what
            bicubic leaves out of it, in m; empty for a model without.
        static: names of the fields that do not change and come along, such as PHIS.
        static_mean: mean of each.
        static_std: standard deviation of each.
        climatology: whether the climatology of the fields at the valid time comes along.
    """

    kind: ClassVar[str] = "cells"
    channels: tuple[str, ...]
    units: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    times: int = 1
    step: float = 0.0
    position: bool = True
    size: tuple[float, ...] = ()
    elevation: tuple[float, ...] = ()
    static: tuple[str, ...] = ()
    static_mean: tuple[float, ...] = ()
    static_std: tuple[float, ...] = ()
    climatology: bool = False

    def __post_init__(self) -> None:
        """Check the contract at birth."""
        _check_channels("variables", self.channels, self.mean, self.std, self.units)
        if self.static or self.static_mean or self.static_std:
            _check_channels("static fields", self.static, self.static_mean, self.static_std)
        if self.times < 1 or (self.times > 1 and self.step <= 0):
            raise InputError(f"times {self.times}, step {self.step} h: wanted 1 time or more, and a step above 0")
        if self.size and (len(self.size) != 2 or min(self.size) <= 0):
            raise InputError(f"size {list(self.size)}: wanted a height and a width above 0, or nothing")
        if self.elevation and (len(self.elevation) != 3 or min(self.elevation[1:]) <= 0):
            raise InputError(f"elevation {list(self.elevation)}: wanted a mean and two deviations above 0, or nothing")


@dataclass(frozen=True)
class Series:
    """Values at a sample's place before its time, or a vector of what is known of it; any of them may be missing.

    A batch holds them as (B, T, C), the last step the one that ends at the sample's time, with `NAME_valid` (B, T, C)
    beside it: 1 where there is a value, 0 where there is none.

    Attributes:
        channels: names of the variables in the order of the model's channels.
        units: the unit of each; empty where none is known.
        mean: mean of each over the training, used to normalise inside the model.
        std: standard deviation of each.
        times: steps (T); 1 is a vector.
        step: hours that a step stands for; 0 for a vector.
    """

    kind: ClassVar[str] = "series"
    channels: tuple[str, ...]
    units: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    times: int = 1
    step: float = 0.0

    def __post_init__(self) -> None:
        """Check the contract at birth."""
        _check_channels("variables", self.channels, self.mean, self.std, self.units)
        if not 1 <= self.times <= LONGEST or (self.times > 1 and self.step <= 0):
            raise InputError(f"times {self.times}, step {self.step} h: wanted 1 to {LONGEST} steps, and a step above 0")


Input = Pixels | Cells | Series


def valid_of(name: str) -> str:
    """What the mask of an input is called, which says what of it is there."""
    return f"{name}_valid"


def _check_channels(what: str, names: tuple[str, ...], *others: tuple[Any, ...]) -> None:
    """Refuse channels that are named twice, or lack a mean, a deviation or a unit."""
    if not names or any(len(other) != len(names) for other in others):
        told = f"{len(names)} {what}, {' and '.join(str(len(other)) for other in others)}"
        raise InputError(f"{told} means, deviations, units: one each is wanted")
    if len(set(names)) < len(names):
        raise InputError(f"{what} {', '.join(names)}: one is named twice")


@dataclass(frozen=True)
class ClassDef:
    """One class of a map: its code in label files and maps (0..65535), its name and its colour (#rrggbb)."""

    code: int
    name: str
    colour: str

    def __post_init__(self) -> None:
        """Refuse codes that no map can hold and colours that no colour table can hold."""
        if not 0 <= self.code <= 65535:
            raise InputError(f"class code {self.code} ({self.name}): wanted 0..65535")
        if not re.fullmatch(r"#[0-9a-fA-F]{6}", self.colour):
            raise InputError(f"class {self.code} ({self.name}): colour {self.colour!r} is not #rrggbb")

    @property
    def rgb(self) -> tuple[int, int, int]:
        """Red, green, blue, 0..255."""
        return int(self.colour[1:3], 16), int(self.colour[3:5], 16), int(self.colour[5:7], 16)


@dataclass(frozen=True)
class Target:
    """The quantity that a regression model predicts: its name and its unit."""

    name: str = "value"
    unit: str = ""


@dataclass(frozen=True)
class Classes:
    """Probabilities of classes.

    Attributes:
        classes: the classes in the order of the model's output channels.
        support: what has a class: a "pixel", a "tile" or a "sample" of a table.
    """

    kind: ClassVar[str] = "classes"
    name: ClassVar[str] = "class"
    unit: ClassVar[str] = ""
    classes: tuple[ClassDef, ...]
    support: str = "pixel"

    def __post_init__(self) -> None:
        """Check the contract at birth."""
        _check_support(self.support, "pixel", "tile", "sample")
        if len(set(self.codes)) != len(self.codes):
            raise InputError(f"class codes {list(self.codes)}: a code is given twice")
        if len(self.codes) < 2:
            raise InputError(f"wanted at least two classes, {len(self.codes)} given")

    @property
    def channels(self) -> int:
        """Channels of the model's output."""
        return len(self.classes)

    @property
    def codes(self) -> tuple[int, ...]:
        """Class codes in the order of the output channels."""
        return tuple(c.code for c in self.classes)


class Quantity:
    """What values and quantiles are not: classes."""

    classes: ClassVar[tuple[ClassDef, ...]] = ()
    codes: ClassVar[tuple[int, ...]] = ()


@dataclass(frozen=True)
class Values(Quantity):
    """A number.

    Attributes:
        name: of the quantity.
        unit: its unit; empty where none is known.
        support: what has a value: a "pixel", a "cell" or a "sample" of a table.
        leads: hours from the last input time that the model was trained to look ahead.
        window: hours (from, to] around input time plus lead that are told of.
        scale: standard deviation of what is learned, of a cell.
        factor: cells told of along a side of a cell of the input.
        conserve: the area mean over each cell of the input is that of the input, but where values below 0 are cut off.
        positive: it is never negative, and answers below 0 are cut off.
    """

    kind: ClassVar[str] = "values"
    channels: ClassVar[int] = 1
    levels: ClassVar[tuple[float, ...]] = ()
    thresholds: ClassVar[tuple[float, ...]] = ()
    name: str = "value"
    unit: str = ""
    support: str = "pixel"
    leads: tuple[float, ...] = (0.0,)
    window: tuple[float, float] = (0.0, 0.0)
    scale: float = 1.0
    factor: int = 1
    conserve: bool = False
    positive: bool = False

    def __post_init__(self) -> None:
        """Check the contract at birth."""
        _check_support(self.support, "pixel", "cell", "sample")
        _check_leads(self.leads)
        if not 1 <= self.factor <= 16:
            raise InputError(f"factor {self.factor}: wanted 1 to 16")


@dataclass(frozen=True)
class Quantiles(Quantity):
    """A distribution, by its quantiles; never negative.

    Attributes:
        name: of the quantity.
        unit: its unit.
        levels: levels of the quantiles that are told.
        thresholds: values whose exceedance is told.
        support: what has a distribution: a "cell".
        leads: see `Values`.
        window: see `Values`.
        scale: see `Values`.
    """

    kind: ClassVar[str] = "quantiles"
    factor: ClassVar[int] = 1
    conserve: ClassVar[bool] = False
    positive: ClassVar[bool] = True
    name: str
    unit: str
    levels: tuple[float, ...] = LEVELS
    thresholds: tuple[float, ...] = ()
    support: str = "cell"
    leads: tuple[float, ...] = (0.0,)
    window: tuple[float, float] = (0.0, 1.0)
    scale: float = 1.0

    def __post_init__(self) -> None:
        """Check the contract at birth."""
        _check_support(self.support, "cell")
        _check_leads(self.leads)
        if not self.window[0] < self.window[1]:
            raise InputError(f"window {list(self.window)}: wanted hours that rise")
        if any(t < 0 for t in self.thresholds):
            raise InputError(f"thresholds {list(self.thresholds)}: wanted 0 {self.unit} or more")
        check_levels(self.levels)

    @property
    def channels(self) -> int:
        """Channels of the model's output."""
        return len(self.levels)


Answer = Classes | Values | Quantiles


def _check_support(support: str, *known: str) -> None:
    if support not in known:
        raise InputError(f"support {support!r}: wanted {' or '.join(known)}")


def _check_leads(leads: tuple[float, ...]) -> None:
    if not leads or min(leads) < 0 or max(leads) > 24:
        raise InputError(f"leads {list(leads)}: wanted hours from 0 to 24")


def check_levels(levels: tuple[float, ...]) -> None:
    """Refuse levels that no distribution can be made of.

    Raises:
        InputError: fewer than two, not rising, or not inside 0..1.
    """
    rising = all(a < b for a, b in pairwise(levels))
    if len(levels) < 2 or not rising or not (levels[0] > 0 and levels[-1] < 1):
        raise InputError(f"levels {list(levels)}: wanted two or more that rise inside 0..1")


@dataclass(frozen=True)
class Spec:
    """What a model eats and says.

    Attributes:
        task: the downstream task, a module of `pipelines.tasks`.
        inputs: what it eats by name: "imagery", "weather", "context", "static".
        answers: what it says, by the name of the quantity.
    """

    task: str
    inputs: Mapping[str, Input]
    answers: Mapping[str, Answer]

    def __post_init__(self) -> None:
        """Refuse a model that eats or says nothing."""
        if not (self.inputs and self.answers):
            raise InputError(f"task {self.task}: wanted an input and an answer at least")
        if self.answer.support == "cell" and self.field.factor > 1 and self.field.name not in self.weather.channels:
            raise InputError(f"target {self.field.name}: wanted one of the fields {', '.join(self.weather.channels)}")

    @property
    def imagery(self) -> Pixels:
        """The input of that name.

        Raises:
            InputError: the model eats none.
        """
        return self._input(IMAGERY, Pixels)

    @property
    def weather(self) -> Cells:
        """The input of that name.

        Raises:
            InputError: the model eats none.
        """
        return self._input(WEATHER, Cells)

    @property
    def over_weather(self) -> bool:
        """Whether it maps weather fields, without imagery."""
        return IMAGERY not in self.inputs

    @property
    def over_tables(self) -> bool:
        """Whether it tells of rows of a table, without rasters."""
        return len(self.series) == len(self.inputs)

    @property
    def series(self) -> dict[str, Series]:
        """What is no raster, by name."""
        return {name: given for name, given in self.inputs.items() if isinstance(given, Series)}

    @property
    def answer(self) -> Answer:
        """The first answer, of most models the only one."""
        return next(iter(self.answers.values()))

    @property
    def field(self) -> Values | Quantiles:
        """The first answer, which is a quantity.

        Raises:
            InputError: it is classes.
        """
        if isinstance(self.answer, Classes):
            raise InputError(f"task {self.task}: tells classes, wanted a quantity")
        return self.answer

    def _input(self, name: str, kind: type[Kind]) -> Kind:
        found = self.inputs.get(name)
        if not isinstance(found, kind):
            raise InputError(f"task {self.task}: the model takes {', '.join(self.inputs)}, not {name}")
        return found

    def revised(self, *, answer: Mapping[str, Any] | None = None, **changes: Any) -> Spec:
        """The Spec with other fields of its first input, and of its first answer."""
        (given, eaten), (said, told) = next(iter(self.inputs.items())), next(iter(self.answers.items()))
        inputs = {**self.inputs, given: dataclasses.replace(eaten, **changes)}
        return Spec(self.task, inputs, {**self.answers, said: dataclasses.replace(told, **answer or {})})

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types; `from_json` gives the same Spec back."""
        inputs, answers = (
            {name: {"kind": part.kind} | dataclasses.asdict(part) for name, part in parts.items()}
            for parts in (self.inputs, self.answers)
        )
        return {"task": self.task, "inputs": inputs, "answers": answers}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Spec:
        """Build a Spec from what `to_json` gave.

        Raises:
            InputError: a key is missing, unknown or of the wrong kind.
        """
        try:
            return cls(
                convert(data["task"], str, "task"),
                {name: _part(name, part, (Pixels, Cells, Series)) for name, part in data["inputs"].items()},
                {name: _part(name, part, (Classes, Values, Quantiles)) for name, part in data["answers"].items()},
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"not a model Spec: {error}") from error


def _part(name: str, data: Mapping[str, Any], kinds: tuple[Any, ...]) -> Any:
    """An input or an answer from plain data that names its kind."""
    known = {kind.kind: kind for kind in kinds}
    if data["kind"] not in known:
        raise InputError(f"{name}: kind {data['kind']!r}, wanted {', '.join(known)}")
    return convert({key: value for key, value in data.items() if key != "kind"}, known[data["kind"]], name)
