"""earthtune composite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.commands.outcome import Outcome
from pipelines.mosaics.composite import composite as composite


def told(results: Sequence[Mapping[str, Any]], options: Mapping[str, Any]) -> Outcome:
    """The pictures, and what each was made of."""
    return Outcome(results, "\n".join(map(_line, results)))


def _line(result: Mapping[str, Any]) -> str:
    """What became of a period."""
    if result["status"] == "empty":
        return f"empty    {result['period']}: none of {result['scenes']} scenes shows clear ground"
    made_of = f"{result['scenes']} scenes, {result['valid']:.1%} of the pixels clear"
    return f"{result['status']:<8} {result['file']}  ({made_of})"
