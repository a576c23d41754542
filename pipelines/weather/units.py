"""Units of weather variables: spellings tidied, and one converted to another by a table."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from fractions import Fraction

from models.errors import InputError

GRAVITY = 9.80665  # m s-2, standard gravity (CGPM 1901)

# quantity -> unit -> (scale, offset) to the first unit of the quantity: value * scale + offset.
# Rain counts as water of 1000 kg m-3, so that 1 kg m-2 is 1 mm (CF: lwe_thickness).
_TABLE: dict[str, dict[str, tuple[float, float]]] = {
    "temperature": {"K": (1.0, 0.0), "degC": (1.0, 273.15), "degF": (5 / 9, 273.15 - 32 * 5 / 9)},
    "pressure": {"Pa": (1.0, 0.0), "hPa": (100.0, 0.0), "kPa": (1000.0, 0.0), "atm": (101325.0, 0.0)},
    "pressure tendency": {"Pa s-1": (1.0, 0.0), "hPa s-1": (100.0, 0.0), "hPa h-1": (100 / 3600, 0.0)},
    "speed": {"m s-1": (1.0, 0.0), "km h-1": (1 / 3.6, 0.0), "knot": (1852 / 3600, 0.0), "mile h-1": (0.44704, 0.0)},
    "rain rate": {
        "mm h-1": (1.0, 0.0),
        "mm d-1": (1 / 24, 0.0),
        "mm s-1": (3600.0, 0.0),
        "kg m-2 s-1": (3600.0, 0.0),
        "kg m-2 h-1": (1.0, 0.0),
        "kg m-2 d-1": (1 / 24, 0.0),
        "m s-1": (3.6e6, 0.0),
        "m h-1": (1000.0, 0.0),
        "m d-1": (1000 / 24, 0.0),
        "cm h-1": (10.0, 0.0),
        "inch h-1": (25.4, 0.0),
    },
    "rain amount": {"mm": (1.0, 0.0), "kg m-2": (1.0, 0.0), "m": (1000.0, 0.0), "cm": (10.0, 0.0), "inch": (25.4, 0.0)},
    "length": {"m": (1.0, 0.0), "km": (1000.0, 0.0), "cm": (0.01, 0.0), "mm": (0.001, 0.0), "feet": (0.3048, 0.0)},
    "geopotential": {"m2 s-2": (1.0, 0.0), "J kg-1": (1.0, 0.0), "gpm": (GRAVITY, 0.0), "m": (GRAVITY, 0.0)},
    "share": {"1": (1.0, 0.0), "%": (0.01, 0.0), "g kg-1": (0.001, 0.0), "mg kg-1": (1e-6, 0.0)},
    "energy flux": {"W m-2": (1.0, 0.0), "J m-2 s-1": (1.0, 0.0), "J m-2 h-1": (1 / 3600, 0.0)}
    | {"J m-2 d-1": (1 / 86400, 0.0), "kJ m-2 d-1": (1 / 86.4, 0.0), "MJ m-2 d-1": (1e6 / 86400, 0.0)},
    "energy": {"J m-2": (1.0, 0.0), "kJ m-2": (1e3, 0.0), "MJ m-2": (1e6, 0.0), "W h m-2": (3600.0, 0.0)},
    "angle": {"degree": (1.0, 0.0), "rad": (57.29577951308232, 0.0)},
}

# An amount per interval and the rate that it becomes: its first unit, divided by hours, in the rate's first unit.
_PER_HOUR = {"rain amount": ("rain rate", 1.0), "energy": ("energy flux", 1 / 3600)}

_WORDS = {
    "kelvin": "K", "k": "K", "degk": "K", "deg_k": "K", "degree_kelvin": "K", "degrees_kelvin": "K",
    "c": "degC", "°c": "degC", "celsius": "degC", "degc": "degC", "deg_c": "degC", "degree_celsius": "degC",
    "degrees_celsius": "degC", "degree_c": "degC", "degrees_c": "degC",
    "f": "degF", "°f": "degF", "fahrenheit": "degF", "degf": "degF", "degree_fahrenheit": "degF", "degrees_f": "degF",
    "pa": "Pa", "pascal": "Pa", "pascals": "Pa", "hpa": "hPa", "kpa": "kPa", "hectopascal": "hPa",
    "hectopascals": "hPa",    "mb": "hPa", "mbar": "hPa", "millibar": "hPa", "millibars": "hPa",
    "meter": "m", "meters": "m", "metre": "m", "metres": "m", "millimeter": "mm", "millimeters": "mm",
    "millimetre": "mm", "millimetres": "mm", "in": "inch", "inches": "inch", "ft": "feet", "foot": "feet",
    "sec": "s", "secs": "s", "second": "s", "seconds": "s", "mins": "min", "minute": "min", "minutes": "min",
    "hr": "h", "hrs": "h", "hour": "h", "hours": "h",
    "day": "d", "days": "d", "kt": "knot", "kts": "knot", "knots": "knot", "mph": "mile h-1",
    "percent": "%", "pct": "%", "fraction": "1", "dimensionless": "1", "(0_-_1)": "1", "0-1": "1", "proportion": "1",
    "none": "1", "unitless": "1", "watt": "W", "watts": "W", "w": "W", "joule": "J", "joules": "J", "j": "J",
    "deg": "degree", "degrees": "degree", "radian": "rad", "radians": "rad", "dm": "dm", "km": "km", "cm": "cm",
}  # fmt: skip


@dataclass(frozen=True)
class Conversion:
    """value in the wanted unit = value * scale + offset."""

    scale: float
    offset: float = 0.0


def tidy(unit: str) -> str:
    """One spelling for a unit: `kg m**-2 s**-1`, `kg/m^2/s` and `kg m-2 s-1` are all `kg m-2 s-1`; "" stays empty."""
    text = " ".join(unit.split())
    whole = _WORDS.get(text.lower().replace(" ", "_"))
    if whole or not text:
        return whole or ""
    text = text.replace("of water equivalent", "").replace("**", "").replace("^", "").replace("·", " ")
    text = re.sub(r"\b(?:per)\b", "/", text).replace("*", " ")
    powers: dict[str, Fraction] = {}
    for part, group in enumerate(text.split("/")):
        for symbol in group.replace(".", " ").split():
            _raise(powers, symbol, -1 if part else 1)
    ordered = sorted((symbol for symbol, power in powers.items() if power), key=lambda symbol: powers[symbol] < 0)
    return " ".join(symbol if powers[symbol] == 1 else f"{symbol}{powers[symbol]}" for symbol in ordered) or "1"


def _raise(powers: dict[str, Fraction], text: str, sign: int) -> None:
    """Count one symbol with its power, such as m, m2, m-2 or m+2."""
    match = re.fullmatch(r"([^\d+-]*[^\d+\-])([+-]?\d+)?", text)
    if match is None:
        if text != "1":
            powers[text] = powers.get(text, Fraction(0)) + sign
        return
    symbol = _WORDS.get(match[1].lower(), match[1]) if match[1] not in _SYMBOLS else match[1]
    powers[symbol] = powers.get(symbol, Fraction(0)) + sign * int(match[2] or 1)


_SYMBOLS = {"K", "Pa", "W", "J", "m", "s", "h", "d", "g", "kg"}


def conversion(unit: str, wanted: str, *, hours: float | None = None) -> Conversion:
    """How to get from one unit to another.

    Args:
        unit: what the values have, in any spelling.
        wanted: what they are to have.
        hours: length of the interval that an amount fell in, where an amount is to become a rate or the reverse.

    Raises:
        InputError: a unit is not in the table, the two are of different quantities, or an interval is needed.
    """
    have, want = tidy(unit), tidy(wanted)
    if have == want:
        return Conversion(1.0)
    for text, spelling in ((unit, have), (wanted, want)):
        if not any(spelling in units for units in _TABLE.values()):
            raise InputError(_unknown(text, spelling))
    for units in _TABLE.values():
        if have in units and want in units:
            return _through(units[have], units[want])
    for amount, (rate, per_hour) in _PER_HOUR.items():
        rising = have in _TABLE[amount] and want in _TABLE[rate]
        if rising or (have in _TABLE[rate] and want in _TABLE[amount]):
            if hours is None:
                kinds = "an amount, a rate is wanted" if rising else "a rate, an amount is wanted"
                raise InputError(f"unit {unit!r} is {kinds} ({wanted}): say how long the intervals are (stamp, hours)")
            factor = per_hour / hours if rising else hours / per_hour
            first, second = (amount, rate) if rising else (rate, amount)
            return Conversion(_TABLE[first][have][0] * factor / _TABLE[second][want][0])
    kinds = " or ".join(quantity for quantity, units in _TABLE.items() if have in units)
    raise InputError(f"unit {unit!r} is {kinds}, {wanted!r} cannot be made of it; ask for another unit")


def _through(have: tuple[float, float], want: tuple[float, float]) -> Conversion:
    """One pair of (scale, offset) to the quantity's first unit after the inverse of another."""
    return Conversion(have[0] / want[0], (have[1] - want[1]) / want[0])


def _unknown(text: str, spelling: str) -> str:
    """The message for a unit that is not in the table."""
    known = sorted({unit for units in _TABLE.values() for unit in units})
    close = difflib.get_close_matches(spelling, known, 1, 0.6)
    hint = f" (did you mean {close[0]}?)" if close else ""
    first = ", ".join(next(iter(units)) for units in _TABLE.values())
    return f"unit {text!r} is not known{hint}; correct the variable's units attribute, known are {first} and their like"


def quantities(unit: str) -> list[str]:
    """The quantities that a unit may be of, such as `rain rate` for mm/h; none where it is not known."""
    return [quantity for quantity, units in _TABLE.items() if tidy(unit) in units]


def is_amount(unit: str) -> bool:
    """Whether a unit counts something per interval that can become a rate: rain in mm or m, energy in J m-2."""
    return any(tidy(unit) in _TABLE[amount] for amount in _PER_HOUR)
