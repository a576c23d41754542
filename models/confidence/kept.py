"""What bundle.json keeps of how far answers are to be trusted: checked, for a bundle may come from anyone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from models.confidence.calibration import LEVELS, TEMPERATURES
from models.confidence.intervals import LEAST, Interval
from models.errors import InputError
from models.spec import Answer
from models.types import convert


@dataclass(frozen=True)
class Kept:
    """Its keys; see `calibration.Calibration`, `intervals.Intervals` and `trust.familiar_ground`."""

    groups: int = 0
    temperature: float = 1.0
    said: str = ""
    sets: Mapping[str, float] = field(default_factory=dict)
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    positive: bool = False
    unfamiliar: Mapping[str, float] = field(default_factory=dict)


def check(content: Any, answer: Answer) -> None:
    """Refuse what could not be applied to an answer.

    Raises:
        InputError: a key that is not known, a value of another type or out of range.
    """
    kept: Kept = convert(content, Kept, "confidence")
    if not TEMPERATURES[0] <= kept.temperature <= TEMPERATURES[-1]:
        raise InputError(f"confidence.temperature {kept.temperature:g}: wanted about 1")
    known = [str(level) for level in LEVELS]
    for name, levels in (("sets", kept.sets), ("intervals", kept.intervals)):
        if strange := [level for level in levels if level not in known]:
            raise InputError(f"confidence.{name}.{strange[0]}: wanted {' or '.join(known)}")
    if not all(0 <= bar <= 1 for bar in kept.sets.values()):
        raise InputError("confidence.sets: wanted probabilities")
    for level, interval in kept.intervals.items():
        ends = (*interval.knots, *interval.below, *interval.above, interval.floor, interval.stretch)
        rising = all(a < b for a, b in zip(interval.knots, interval.knots[1:], strict=False))
        if not (
            0 <= interval.low <= interval.high < answer.channels
            and len(interval.knots) == len(interval.below) == len(interval.above)
            and (answer.channels > 1 or interval.knots)
            and rising
            and all(low <= high for low, high in zip(interval.below, interval.above, strict=True))
            and interval.floor >= 0
            and interval.stretch >= LEAST
            and all(map(math.isfinite, ends))
        ):
            raise InputError(f"confidence.intervals.{level}: wanted ends of the answer in order, and knots that rise")
    if not all(0 <= share <= 1 for key, share in kept.unfamiliar.items() if key != "groups"):
        raise InputError("confidence.unfamiliar: wanted shares")
