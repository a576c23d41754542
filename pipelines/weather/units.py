"""Units of weather variables: read in any spelling, and one converted to another by what it measures."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from fractions import Fraction

from models.errors import InputError

GRAVITY = 9.80665  # m s-2, standard gravity (CGPM 1901)
MONTH_DAYS = 30.436875  # days of a mean month of the Gregorian calendar, 146097 / 4800

# symbol -> (scale, what it is in SI); temperatures are differences here, see _ZERO.
_SIZES: dict[str, tuple[float, str]] = {
    "kg": (1.0, "kg"),
    "g": (1e-3, "kg"),
    "mg": (1e-6, "kg"),
    "µg": (1e-9, "kg"),
    "ug": (1e-9, "kg"),
    "m": (1.0, "m"),
    "km": (1000.0, "m"),
    "dam": (10.0, "m"),
    "dm": (0.1, "m"),
    "cm": (0.01, "m"),
    "mm": (0.001, "m"),
    "inch": (0.0254, "m"),
    "feet": (0.3048, "m"),
    "mile": (1609.344, "m"),
    "knot": (1852 / 3600, "m s-1"),
    "s": (1.0, "s"),
    "min": (60.0, "s"),
    "h": (3600.0, "s"),
    "d": (86400.0, "s"),
    "month": (86400 * MONTH_DAYS, "s"),
    "K": (1.0, "K"),
    "degC": (1.0, "K"),
    "degF": (5 / 9, "K"),
    "Pa": (1.0, "kg m-1 s-2"),
    "hPa": (100.0, "kg m-1 s-2"),
    "kPa": (1000.0, "kg m-1 s-2"),
    "dbar": (1e4, "kg m-1 s-2"),
    "bar": (1e5, "kg m-1 s-2"),
    "atm": (101325.0, "kg m-1 s-2"),
    "J": (1.0, "kg m2 s-2"),
    "kJ": (1e3, "kg m2 s-2"),
    "MJ": (1e6, "kg m2 s-2"),
    "W": (1.0, "kg m2 s-3"),
    "kW": (1e3, "kg m2 s-3"),
    "gpm": (GRAVITY, "m2 s-2"),
    "%": (0.01, "1"),
    "degree": (1.0, "degree"),
    "rad": (57.29577951308232, "degree"),
}
_ZERO = {"degC": 273.15, "degF": 273.15 - 32 * 5 / 9}  # in K
# Units in which nobody measures rain, and those in which nobody measures winds and heights.
_DRY, _WET = {"km", "dam", "feet", "mile", "knot"}, {"mm", "cm", "inch"}

# quantity -> (a unit of it, {what it is in SI: scale}), the scale making units of the same quantity comparable.
# Rain counts as water of 1000 kg m-3, so that 1 kg m-2 is 1 mm (CF: lwe_thickness); heights as geopotential.
_QUANTITIES: dict[str, tuple[str, dict[str, float]]] = {
    "temperature": ("K", {"K": 1.0}),
    "pressure": ("Pa", {"kg m-1 s-2": 1.0}),
    "pressure tendency": ("Pa s-1", {"kg m-1 s-3": 1.0}),
    "speed": ("m s-1", {"m s-1": 1.0}),
    "rain rate": ("mm h-1", {"m s-1": 1000.0, "kg m-2 s-1": 1.0}),
    "rain amount": ("mm", {"m": 1000.0, "kg m-2": 1.0}),
    "length": ("m", {"m": 1.0}),
    "geopotential": ("m2 s-2", {"m2 s-2": 1.0, "m": GRAVITY}),
    "share": ("1", {"1": 1.0}),
    "density": ("kg m-3", {"kg m-3": 1.0}),
    "energy flux": ("W m-2", {"kg s-3": 1.0}),
    "energy": ("J m-2", {"kg s-2": 1.0}),
    "angle": ("degree", {"degree": 1.0}),
}

# An amount per interval and the rate that it becomes when divided by seconds.
_RATE_OF = {"rain amount": "rain rate", "energy": "energy flux"}

_WORDS = {
    "kelvin": "K",
    "k": "K",
    "degk": "K",
    "deg_k": "K",
    "degree_kelvin": "K",
    "degrees_kelvin": "K",
    "c": "degC",
    "°c": "degC",
    "celsius": "degC",
    "degc": "degC",
    "deg_c": "degC",
    "degree_celsius": "degC",
    "degrees_celsius": "degC",
    "degree_c": "degC",
    "degrees_c": "degC",
    "f": "degF",
    "°f": "degF",
    "fahrenheit": "degF",
    "degf": "degF",
    "degree_fahrenheit": "degF",
    "degrees_f": "degF",
    "pa": "Pa",
    "pascal": "Pa",
    "pascals": "Pa",
    "hpa": "hPa",
    "kpa": "kPa",
    "hectopascal": "hPa",
    "hectopascals": "hPa",
    "mb": "hPa",
    "mbar": "hPa",
    "millibar": "hPa",
    "millibars": "hPa",
    "meter": "m",
    "meters": "m",
    "metre": "m",
    "metres": "m",
    "millimeter": "mm",
    "millimeters": "mm",
    "millimetre": "mm",
    "millimetres": "mm",
    "in": "inch",
    "inches": "inch",
    "ft": "feet",
    "foot": "feet",
    "sec": "s",
    "secs": "s",
    "second": "s",
    "seconds": "s",
    "mins": "min",
    "minute": "min",
    "minutes": "min",
    "hr": "h",
    "hrs": "h",
    "hour": "h",
    "hours": "h",
    "day": "d",
    "days": "d",
    "months": "month",
    "mon": "month",
    "kt": "knot",
    "kts": "knot",
    "knots": "knot",
    "mph": "mile h-1",
    "percent": "%",
    "pct": "%",
    "fraction": "1",
    "dimensionless": "1",
    "(0_-_1)": "1",
    "0-1": "1",
    "proportion": "1",
    "none": "1",
    "unitless": "1",
    "watt": "W",
    "watts": "W",
    "w": "W",
    "joule": "J",
    "joules": "J",
    "j": "J",
    "deg": "degree",
    "degrees": "degree",
    "radian": "rad",
    "radians": "rad",
}


@dataclass(frozen=True)
class Conversion:
    """value in the wanted unit = value * scale + offset."""

    scale: float
    offset: float = 0.0


def tidy(unit: str) -> str:
    """One spelling for a unit: `kg m**-2 s**-1`, `kg/m^2/s` and `kg m-2 s-1` are all `kg m-2 s-1`; "" stays empty."""
    text = " ".join(unit.split())
    whole = _WORDS.get(text.lower().replace(" ", "_"))
    return whole or (_spelled(_powers(text)) if text else "")


def _powers(text: str) -> dict[str, Fraction]:
    """Powers by symbol; a number stays with the symbol that it counts, as `3h`."""
    text = re.sub(r"\((\d+) ?([a-zA-Z]+)\)", r"\1\2", text)
    text = text.replace("of water equivalent", "").replace("**", "").replace("^", "").replace("·", " ")
    text = re.sub(r"\b(?:per)\b", "/", text).replace("*", " ")
    powers: dict[str, Fraction] = {}
    for part, group in enumerate(text.split("/")):
        for symbol in group.replace(".", " ").split():
            _raise(powers, symbol, -1 if part else 1)
    return {symbol: power for symbol, power in powers.items() if power}


def _raise(powers: dict[str, Fraction], text: str, sign: int) -> None:
    """Count one symbol with its power, such as m, m2, m-2 or m+2."""
    match = re.fullmatch(r"(\d*)([^\d+-]*[^\d+\-])([+-]?\d+)?", text)
    if match is None:
        if text != "1":
            powers[text] = powers.get(text, Fraction(0)) + sign
        return
    symbol = match[1] + (match[2] if match[2] in _SIZES else _WORDS.get(match[2].lower(), match[2]))
    powers[symbol] = powers.get(symbol, Fraction(0)) + sign * int(match[3] or 1)


def _spelled(powers: dict[str, Fraction]) -> str:
    """Powers as text, those above the line first."""
    ordered = sorted(powers, key=lambda symbol: powers[symbol] < 0)
    return " ".join(symbol if powers[symbol] == 1 else f"{symbol}{powers[symbol]}" for symbol in ordered) or "1"


def _measured(unit: str) -> tuple[float, dict[str, float]]:
    """Scale of a unit to SI, and the quantities that it may be of with their own scales; none where it is not known."""
    powers, scale, total = _powers(tidy(unit)), 1.0, dict[str, Fraction]()
    matches = {symbol: re.fullmatch(r"(\d+)(\D.*)", symbol) for symbol in powers}  # how many of which symbol
    counted = {symbol: (float(m[1]), m[2]) if m else (1.0, symbol) for symbol, m in matches.items()}
    if not unit.strip() or any(symbol not in _SIZES for _, symbol in counted.values()):
        return 1.0, {}
    for symbol, power in powers.items():
        count, plain = counted[symbol]
        size, parts = _SIZES[plain]
        scale *= (count * size) ** float(power)
        for part, of in _powers(parts).items():
            total[part] = total.get(part, Fraction(0)) + of * power
    kind = _spelled({part: total[part] for part in sorted(total) if total[part]})
    plains = {symbol for _, symbol in counted.values()}
    barred = {"rain rate", "rain amount"} if plains & _DRY else {"speed", "geopotential"} if plains & _WET else set()
    return scale, {name: of[kind] for name, (_, of) in _QUANTITIES.items() if kind in of and name not in barred}


def conversion(unit: str, wanted: str, *, hours: float | None = None) -> Conversion:
    """How to get from one unit to another.

    Args:
        unit: what the values have, in any spelling.
        wanted: what they are to have.
        hours: length of the interval that an amount fell in, where an amount is to become a rate or the reverse.

    Raises:
        InputError: a unit is not known, the two are of different quantities, or an interval is needed.
    """
    have, want = tidy(unit), tidy(wanted)
    if have == want:
        return Conversion(1.0)
    (scale, kinds), (unit_scale, wanted_kinds) = _measured(unit), _measured(wanted)
    for text, known in ((unit, kinds), (wanted, wanted_kinds)):
        if not known:
            raise InputError(_unknown(text))
    for name in kinds:
        if name in wanted_kinds:
            size = unit_scale * wanted_kinds[name]
            return Conversion(scale * kinds[name] / size, (_ZERO.get(have, 0.0) - _ZERO.get(want, 0.0)) / size)
    for amount, rate in _RATE_OF.items():
        rising = amount in kinds and rate in wanted_kinds
        if rising or (rate in kinds and amount in wanted_kinds):
            if hours is None:
                told = "an amount, a rate is wanted" if rising else "a rate, an amount is wanted"
                raise InputError(f"unit {unit!r} is {told} ({wanted}): say how long the intervals are (stamp, hours)")
            first, second = (amount, rate) if rising else (rate, amount)
            seconds = 3600 * hours
            ratio = scale * kinds[first] / (unit_scale * wanted_kinds[second])
            return Conversion(ratio / seconds if rising else ratio * seconds)
    raise InputError(f"unit {unit!r} is {' or '.join(kinds)}, {wanted!r} cannot be made of it; ask for another unit")


def _unknown(text: str) -> str:
    """The message for a unit that is not known."""
    powers = _powers(tidy(text))
    near = {symbol: difflib.get_close_matches(symbol, _SIZES, 1, 0.6) for symbol in powers if symbol not in _SIZES}
    close = _spelled({(near.get(symbol) or [symbol])[0]: power for symbol, power in powers.items()})
    hint = f" (did you mean {close}?)" if powers and _measured(close)[1] else ""
    known = ", ".join(example for example, _ in _QUANTITIES.values())
    return f"unit {text!r} is not known{hint}; correct the variable's units attribute, known are {known} and their like"


def quantities(unit: str) -> list[str]:
    """The quantities that a unit may be of, such as `rain rate` for mm/h; none where it is not known."""
    return list(_measured(unit)[1])


def is_amount(unit: str) -> bool:
    """Whether a unit counts something per interval that can become a rate: rain in mm or m, energy in J m-2."""
    return not _RATE_OF.keys().isdisjoint(quantities(unit))


def months(unit: str) -> int:
    """The power of months in a unit, -1 in mm/month; they have no length of their own."""
    return int(_powers(tidy(unit)).get("month", 0))
