"""What a downscaling model eats and says. Plain data, standard library only."""

from __future__ import annotations

from dataclasses import dataclass

from models.errors import InputError
from models.weather_spec import WeatherSpec


@dataclass(frozen=True)
class DownscaleSpec(WeatherSpec):
    """What a downscaling model eats and says: coarse fields in, one of them on cells `factor` times as fine out.

    Attributes:
        factor: fine cells along a side of a coarse one.
        cell: height and width of a coarse cell in degrees.
        elevation: mean of the fine elevation, its deviation, and the deviation of what bicubic leaves out of it, in m;
            empty for a model without.
        conserve: the area mean over each coarse cell is that of the coarse field, but where values below 0 are cut off.
        positive: the target is never negative, and answers below 0 are cut off.
    """

    task: str = "downscale"
    factor: int = 2
    cell: tuple[float, float] = (1.0, 1.0)
    elevation: tuple[float, ...] = ()
    conserve: bool = True
    positive: bool = False

    def __post_init__(self) -> None:
        """Check the contract at birth."""
        super().__post_init__()
        if self.target not in self.channels:
            raise InputError(f"target {self.target}: wanted one of the fields {', '.join(self.channels)}")
        if not 2 <= self.factor <= 16:
            raise InputError(f"factor {self.factor}: wanted 2 to 16")
        if self.elevation and (len(self.elevation) != 3 or min(self.elevation[1:]) <= 0):
            raise InputError(f"elevation {list(self.elevation)}: wanted a mean and two deviations above 0, or nothing")
