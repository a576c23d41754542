"""What a rain model eats and says. Plain data, standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from models.errors import InputError
from models.weather_spec import WeatherSpec

LEVELS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)


@dataclass(frozen=True)
class RainSpec(WeatherSpec):
    """What a rain model eats and says. Rain is a rate in mm/h, the mean of the window, and a distribution."""

    window: tuple[float, float] = (0.0, 1.0)
    target: str = "PRECTOT"
    unit: str = "mm/h"
    levels: tuple[float, ...] = LEVELS
    thresholds: tuple[float, ...] = (0.1, 1.0, 5.0)
    task: str = "rain"

    def __post_init__(self) -> None:
        """Check the contract at birth."""
        super().__post_init__()
        if not self.window[0] < self.window[1]:
            raise InputError(f"window {list(self.window)}: wanted hours that rise")
        if any(t < 0 for t in self.thresholds):
            raise InputError(f"thresholds {list(self.thresholds)}: wanted rates of 0 mm/h or more")
        check_levels(self.levels)


def check_levels(levels: tuple[float, ...]) -> None:
    """Refuse levels that no distribution can be made of.

    Raises:
        InputError: fewer than two, not rising, or not inside 0..1.
    """
    rising = all(a < b for a, b in pairwise(levels))
    if len(levels) < 2 or not rising or not (levels[0] > 0 and levels[-1] < 1):
        raise InputError(f"levels {list(levels)}: wanted two or more that rise inside 0..1")
