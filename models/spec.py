"""What a model eats and says. The Spec travels with the weights; loaders obey it and refuse what does not fit."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from models.errors import InputError

TASKS = ("segmentation", "regression", "classification")
REFLECTANCE = "reflectance x10000"
LARGEST_TILE = 8192  # pixels; a bundle that wants more is damaged, or wants the machine's memory


@dataclass(frozen=True)
class ClassDef:
    """One class of a map: its code in label files and maps (0..65535), its name and its colour (#rrggbb)."""

    code: int
    name: str
    colour: str

    def __post_init__(self) -> None:
        """Refuse codes that no map can hold and colours that no colour table can hold."""
        if not 0 <= self.code <= 65535:
            raise InputError(f"class code {self.code} ({self.name}): wanted 0..65535")
        if not re.fullmatch(r"#[0-9a-fA-F]{6}", self.colour):
            raise InputError(f"class {self.code} ({self.name}): colour {self.colour!r} is not #rrggbb")

    @property
    def rgb(self) -> tuple[int, int, int]:
        """Red, green, blue, 0..255."""
        return int(self.colour[1:3], 16), int(self.colour[3:5], 16), int(self.colour[5:7], 16)


@dataclass(frozen=True)
class Target:
    """The quantity that a regression model predicts: its name and its unit."""

    name: str = "value"
    unit: str = ""


@dataclass(frozen=True)
class Spec:
    """What a model eats and says.

    Attributes:
        task: "segmentation" (a class a pixel), "regression" (a value a pixel) or "classification" (a class a tile).
        bands: names of the input bands, in the order of the model's channels.
        mean: mean of each band in `unit`, used to normalise inside the model.
        std: standard deviation of each band in `unit`.
        frames: dated frames per sample (T).
        tile: side of a square input tile in pixels; divisible by `patch`.
        patch: side of a patch (one token) in pixels.
        classes: the classes in the order of the model's output channels; empty for regression.
        target: the predicted quantity; None unless regression.
        uses_time: the model takes (year, day of year) of each frame.
        uses_location: the model takes (latitude, longitude) of the tile's centre.
        unit: unit of the input values.
        pixel: side of a pixel of the training images on the ground in metres; None where they have no place on it.
        calibration: probabilities' calibration, such as {"temperature": 1.3}; empty when not calibrated.
    """

    task: str
    bands: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    frames: int = 1
    tile: int = 224
    patch: int = 16
    classes: tuple[ClassDef, ...] = ()
    target: Target | None = None
    uses_time: bool = False
    uses_location: bool = False
    unit: str = REFLECTANCE
    pixel: float | None = None
    calibration: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the contract at birth."""
        if self.task not in TASKS:
            raise InputError(f"task {self.task!r}: wanted one of {', '.join(TASKS)}")
        if not len(self.bands) == len(self.mean) == len(self.std) or not self.bands:
            raise InputError(
                f"{len(self.bands)} bands, {len(self.mean)} means, {len(self.std)} stds: one each is wanted"
            )
        if len(set(self.bands)) != len(self.bands):
            raise InputError(f"bands {', '.join(self.bands)}: a band is named twice")
        if self.frames < 1 or self.patch < 1 or not 1 <= self.tile <= LARGEST_TILE or self.tile % self.patch:
            raise InputError(
                f"tile {self.tile} must be a multiple of patch {self.patch} and at most {LARGEST_TILE}, "
                f"and frames ({self.frames}) at least 1"
            )
        if self.pixel is not None and not self.pixel > 0:
            raise InputError(f"pixel {self.pixel}: wanted metres, above 0")
        codes = [c.code for c in self.classes]
        if len(set(codes)) != len(codes):
            raise InputError(f"class codes {codes}: a code is given twice")
        if self.task != "regression" and len(codes) < 2:
            raise InputError(f"{self.task} wants at least two classes, {len(codes)} given")
        if self.task == "regression" and self.target is None:
            object.__setattr__(self, "target", Target())

    @property
    def outputs(self) -> int:
        """Channels of the model's output: one per class, or 1 for regression."""
        return len(self.classes) if self.task != "regression" else 1

    @property
    def codes(self) -> tuple[int, ...]:
        """Class codes in the order of the output channels."""
        return tuple(c.code for c in self.classes)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types; `from_json` gives the same Spec back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Spec:
        """Build a Spec from what `to_json` gave.

        Raises:
            InputError: a key is missing, unknown or of the wrong kind.
        """
        try:
            fields = dict(data)
            fields["classes"] = tuple(ClassDef(**c) for c in fields.get("classes", ()))
            fields["target"] = Target(**fields["target"]) if fields.get("target") else None
            for key in ("bands", "mean", "std"):
                fields[key] = tuple(fields[key])
            return cls(**fields)
        except (KeyError, TypeError) as error:
            raise InputError(f"not a model Spec: {error}") from error
