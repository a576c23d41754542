"""Days as people write them: FROM/TO, each a day, a month or a year. Standard library only."""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass

from models.errors import InputError


@dataclass(frozen=True)
class Days:
    """The first and the last day."""

    first: datetime.date
    last: datetime.date

    def __str__(self) -> str:
        """As STAC has it, whole days."""
        return f"{self.first}T00:00:00Z/{self.last}T23:59:59Z"


def read_days(text: str, option: str = "--dates") -> Days:
    """FROM/TO as days; a month or a year counts whole.

    Args:
        text: one day, month or year, or two with a slash between them.
        option: what it is given by, for messages.

    Raises:
        InputError: they are no days, or end before they begin.
    """
    words, asked = text.split("/"), f"{option} {text}"
    if len(words) not in (1, 2):
        raise InputError(f"{asked}: wanted FROM/TO, such as 2021-06-01/2021-08-31")
    first, last = _span(words[0], asked)[0], _span(words[-1], asked)[1]
    if last < first:
        raise InputError(f"{asked}: {last} is before {first}; wanted FROM/TO")
    return Days(first, last)


def _span(word: str, asked: str) -> tuple[datetime.date, datetime.date]:
    """The first and last day of a year, a month or a day."""
    found = re.fullmatch(r"(\d{4})(?:-(\d\d))?(?:-(\d\d))?", word.strip())
    try:
        if found is None:
            raise ValueError
        year, month, day = (int(part) if part else None for part in found.groups())
        first = datetime.date(year or 0, month or 1, day or 1)
        if day:
            return first, first
        after = datetime.date(first.year + (month in (None, 12)), (month or 12) % 12 + 1, 1)
        return first, after - datetime.timedelta(days=1)
    except ValueError as error:
        raise InputError(f"{asked}: {word!r} is no day; wanted FROM/TO, each YYYY-MM-DD") from error
