"""The published Prithvi backbones: names, sizes, licences, and where their weights are. Standard library only."""

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
        parameters: parameters in millions: of the encoder for one frame of six bands (EO), of the whole model (WxC).
        licence: SPDX name of the weights' licence, None where nothing was published.
    """

    repo: str | None
    file: str | None
    parameters: float
    licence: str | None = None


def _published(name: str, parameters: float) -> Variant:
    repo = f"ibm-nasa-geospatial/Prithvi-EO-{name}"
    version, rest = name.split("-", 1)
    return Variant(repo, f"Prithvi_EO_V{version[0]}_{rest.replace('-', '_')}.pt", parameters, "Apache-2.0")


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

WXC_REPO = "ibm-nasa-geospatial/Prithvi-WxC-1.0-2300M"  # holds the scalers and the climatology of both
WXC_VARIANTS: Mapping[str, Variant] = {
    "prithvi_wxc_tiny": Variant(None, None, 0.3),
    "prithvi_wxc_2300m": Variant(WXC_REPO, "prithvi.wxc.2300m.v1.pt", 2366.6, "CDLA-Permissive-2.0"),
    "prithvi_wxc_2300m_rollout": Variant(
        f"{WXC_REPO}-rollout", "prithvi.wxc.rollout.2300m.v1.pt", 2366.6, "CDLA-Permissive-2.0"
    ),
}


def variant(name: str) -> Variant:
    """Look a Prithvi EO backbone up by name.

    Raises:
        InputError: no such backbone; the message lists the names.
    """
    return _named(name, VARIANTS)


def wxc_variant(name: str) -> Variant:
    """Look a Prithvi WxC model up by name.

    Raises:
        InputError: no such model; the message lists the names.
    """
    return _named(name, WXC_VARIANTS)


def _named(name: str, known: Mapping[str, Variant]) -> Variant:
    if name not in known:
        raise InputError(f"backbone {name!r}: wanted one of {', '.join(known)}")
    return known[name]
