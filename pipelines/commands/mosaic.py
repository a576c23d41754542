"""earthtune mosaic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.commands.outcome import Outcome
from pipelines.mosaics.mosaic import mosaic as mosaic


def told(result: Mapping[str, Any], options: Mapping[str, Any]) -> Outcome:
    """The mosaic, and what it was made of."""
    made_of = f"{result['views']} maps, {result['valid']:.1%} of the pixels mapped"
    return Outcome(result, f"{result['status']:<8} {result['map']}  ({made_of})")
