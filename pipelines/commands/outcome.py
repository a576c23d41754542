"""What a command ends in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """What is printed, and the exit code.

    Attributes:
        result: plain types, for --json.
        text: for a person.
        code: 0 done, 1 failed on the way, 2 the input has to change.
    """

    result: Any
    text: str
    code: int = 0
