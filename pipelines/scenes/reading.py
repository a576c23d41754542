"""What a person says about files that do not say it themselves. Standard library only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Resample = Literal["train", "never"]


@dataclass(frozen=True)
class Reading:
    """What a person says about the files, where they do not say it themselves; see `open_scene`.

    Attributes:
        bands: names of the bands in the order of the files, where the files do not say; or NAME=FILE and NAME=FILE:BAND
            of files in the scene's folder, whatever they are called.
        dates: day of each frame (YYYY-MM-DD), where the files do not say.
        scale: reflectance = raw * scale + offset, where the files do not say.
        offset: see scale.
        nodata: stored value that means no data, besides what the files declare.
        find_fill: also leave out what looks like fill: 0, -9999 or the type's extreme in all bands, from the edge
            inwards; as in training when not given.
        as_is: take the values as they are, also where they cannot be reflectance.
        mask_clouds: leave clouded pixels out, by Fmask, SCL, QA_PIXEL or CLM; as in training when not given.
        resample: train brings a scene whose pixels are of quite another size onto pixels of the training's, never takes
            them as they are.
    """

    bands: Sequence[str] | None = None
    dates: Sequence[str] | None = None
    scale: float | None = None
    offset: float | None = None
    nodata: float | None = None
    find_fill: bool | None = None
    as_is: bool = False
    mask_clouds: bool | None = None
    resample: Resample = "never"
