"""Rain products as their files have them: variable, unit, and where in its interval a time lies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class RainProduct:
    """A rain product, as its files have it.

    Attributes:
        variable: its name.
        unit: its unit, where a file does not say.
        stamp: where in its interval a time lies, where a file does not say.
        hours: length of the interval.
    """

    variable: str
    unit: str
    stamp: Literal["start", "middle", "end"]
    hours: float


PRODUCTS: Mapping[str, RainProduct] = {
    "merra2": RainProduct("PRECTOT", "kg m-2 s-1", "middle", 1.0),
    "merra2_corrected": RainProduct("PRECTOTCORR", "kg m-2 s-1", "middle", 1.0),
    # The files of Prithvi WxC hold means of the two hours around each full hour.
    "merra2_wxc": RainProduct("PRECTOT", "kg m-2 s-1", "middle", 2.0),
    "imerg": RainProduct("precipitation", "mm/h", "start", 0.5),
    "era5": RainProduct("tp", "m", "end", 1.0),
    "chirps": RainProduct("precip", "mm", "start", 24.0),
}
