"""What was loaded into a backbone, for a person to read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class LoadReport:
    """What was loaded into a backbone.

    Attributes:
        bands: for every input band or channel, where its patch-embedding weights came from.
        notes: anything else a person should know, such as encodings that the file lacks.
    """

    bands: Mapping[str, str]
    notes: tuple[str, ...] = field(default=())

    def lines(self) -> list[str]:
        """One line a band, then the notes."""
        return [f"{band:<12} {source}" for band, source in self.bands.items()] + list(self.notes)
