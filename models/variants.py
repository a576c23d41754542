"""The published Prithvi EO backbones: names, sizes, and where their weights are. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from models.errors import InputError

BANDS = ("BLUE", "GREEN", "RED", "NIR_NARROW", "SWIR_1", "SWIR_2")


@dataclass(frozen=True)
class Variant:
    """Where a backbone's pretrained weights live and how large it is.

    Attributes:
        repo: Hugging Face repository, None where nothing was published.
        file: weight file in that repository.
        parameters: parameters of the encoder in millions, for one frame of six bands.
    """

    repo: str | None
    file: str | None
    parameters: float


def _published(name: str, parameters: float) -> Variant:
    repo = f"ibm-nasa-geospatial/Prithvi-EO-{name}"
    version, rest = name.split("-", 1)
    return Variant(repo, f"Prithvi_EO_V{version[0]}_{rest.replace('-', '_')}.pt", parameters)


VARIANTS: Mapping[str, Variant] = {
    "prithvi_eo_tiny": Variant(None, None, 3.6),
    "prithvi_eo_v1_100": _published("1.0-100M", 86.2),
    "prithvi_eo_v2_tiny_tl": _published("2.0-tiny-TL", 5.6),
    "prithvi_eo_v2_100": Variant(None, None, 86.2),
    "prithvi_eo_v2_100_tl": _published("2.0-100M-TL", 86.2),
    "prithvi_eo_v2_300": _published("2.0-300M", 303.9),
    "prithvi_eo_v2_300_tl": _published("2.0-300M-TL", 303.9),
    "prithvi_eo_v2_600": _published("2.0-600M", 631.2),
    "prithvi_eo_v2_600_tl": _published("2.0-600M-TL", 631.2),
}


def variant(name: str) -> Variant:
    """Look a backbone up by name.

    Raises:
        InputError: no such backbone; the message lists the names.
    """
    if name not in VARIANTS:
        raise InputError(f"backbone {name!r}: wanted one of {', '.join(VARIANTS)}")
    return VARIANTS[name]
