"""What an inspection found."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.inspection.weather_contents import WeatherContents


@dataclass(frozen=True)
class BandInfo:
    """One band as found; ranges come from at most 512x512 pixels, in raw values; None where no pixel has data."""

    index: int
    name: str | None
    file: str
    description: str | None
    dtype: str
    scale: float
    offset: float
    nodata: float | None
    valid: float
    unit: str
    minimum: float | None = None
    low: float | None = None
    median: float | None = None
    high: float | None = None
    maximum: float | None = None


@dataclass(frozen=True)
class Need:
    """One thing that a model needs of its input, and whether it is there."""

    need: str
    ok: bool
    reason: str


@dataclass(frozen=True)
class Inspection:
    """What a path holds.

    Attributes:
        path: the file, folder or URL; the frames of a model of several dates are joined by commas.
        driver: format of the (first) file.
        height: rows of the finest band.
        width: columns of the finest band.
        crs: coordinate system, None where there is none.
        resolution: pixel size (x, y) in units of the coordinate system.
        gcps: ground control points in place of a grid.
        frames: dated frames.
        dates: day of each frame, None where nothing tells.
        named_by: what named the bands.
        bands: the bands of all frames.
        codes: value -> share of the valid pixels, for what looks like class labels; None for other rasters.
        contents: kind of file -> number, for a folder of many rasters.
        weather: what a weather file holds; None for satellite scenes.
        notes: what a person should know.
        needs: what a model needs; empty unless asked for.
    """

    path: str
    driver: str = ""
    height: int = 0
    width: int = 0
    crs: str | None = None
    resolution: tuple[float, float] | None = None
    gcps: int = 0
    frames: int = 0
    dates: tuple[str | None, ...] = ()
    named_by: str = ""
    bands: tuple[BandInfo, ...] = ()
    codes: dict[int, float] | None = None
    contents: dict[str, int] | None = None
    weather: WeatherContents | None = None
    notes: tuple[str, ...] = ()
    needs: tuple[Need, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every need is met (true where none was asked for)."""
        return all(need.ok for need in self.needs)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        plain = {**dataclasses.asdict(self), "ok": self.ok}
        return plain if self.weather is None else plain | {"weather": self.weather.to_json()}
