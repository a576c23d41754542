"""A rain model on disk: bundle.json and model.safetensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.bundle import Base, fill, parse_bundle
from models.errors import InputError
from models.rain_spec import RainArchitecture, RainSpec

if TYPE_CHECKING:
    from models.loading import LoadReport
    from models.rain import RainNetwork
    from models.wxc_files import WxCFiles


@dataclass(frozen=True)
class RainBundle:
    """What bundle.json says of a rain run; see `bundle.Bundle` for what both have.

    Attributes:
        spec: what the model eats and says.
        backbone: a name of `variants.WXC_VARIANTS`.
        architecture: what, beside these two, builds the network.
        base: where the encoder's weights came from.
        mode: "frozen" or "full".
        whole: model.safetensors holds the encoder, too.
        sha256: hash of model.safetensors.
        data: the recipe's data.
        training: what a person needs to know of the run.
        scores: scores on the test block, of a model that never saw it.
        baselines: the same of each baseline.
    """

    spec: RainSpec
    backbone: str
    architecture: RainArchitecture
    base: Base = field(default_factory=Base)
    mode: str = "full"
    whole: bool = True
    sha256: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, Any] = field(default_factory=dict)
    baselines: Mapping[str, Any] = field(default_factory=dict)


def read_rain_bundle(folder: Path) -> RainBundle:
    """Read bundle.json.

    Raises:
        InputError: as `bundle.parse_bundle`.
    """
    return parse_bundle(folder, _from_json)


def _from_json(content: dict[str, Any]) -> RainBundle:
    base = content.pop("base")
    return RainBundle(
        spec=RainSpec.from_json(content.pop("spec")),
        architecture=RainArchitecture(**content.pop("architecture")),
        base=Base(**base | {"pretrained_bands": tuple(base["pretrained_bands"])}),
        **content,
    )


def load_rain(folder: Path, *, weights: Path | None = None) -> RainNetwork:
    """Build the network of a run, in eval mode.

    Args:
        folder: the run.
        weights: the encoder's file, for a bundle without it whose encoder came from a file.

    Raises:
        InputError: not a run, damaged weights, or an encoder that is not there or is another than the one recorded.
    """
    from models.hub import read_state_dict
    from models.rain import RainNetwork

    bundle = read_rain_bundle(folder)
    network = RainNetwork(bundle.spec, bundle.backbone, bundle.architecture, pretrained=bundle.base.source != "random")
    if not bundle.whole:
        if weights is None and bundle.base.source == "file":
            raise InputError(f"{folder}: its encoder is {bundle.base}: give that file with --weights")
        came, _ = load_encoder(network, bundle.backbone, str(weights or "hub"), revision=bundle.base.revision)
        if came.sha256 != bundle.base.sha256:
            raise InputError(f"{folder}: wanted the encoder {bundle.base}, came {came}; give the one it was trained on")
    path = folder / "model.safetensors"
    fill(network, read_state_dict(path), path, whole=bundle.whole)
    return network.eval()


def load_encoder(
    network: RainNetwork, backbone: str, weights: str, *, revision: str | None = None
) -> tuple[Base, LoadReport | None]:
    """Load the encoder of a network: "hub", "random" or a weight file.

    Returns:
        Where it came from, and what was loaded (None for random weights).

    Raises:
        InputError: weights that are not there, not safe or of another architecture.
    """
    from models.hub import WeightFile
    from models.prithvi_wxc import load_pretrained

    if weights == "random":
        return Base(), None
    files = _files(network, backbone, weights, revision)
    report = load_pretrained(network.backbone, files)
    source = "hub" if files.repo else "file"
    return Base(source, files.repo, files.revision, files.weights.name, WeightFile(files.weights).sha256()), report


def _files(network: RainNetwork, backbone: str, weights: str, revision: str | None) -> WxCFiles:
    from models.wxc_files import WxCFiles, locate_files

    if weights == "hub":
        return locate_files(backbone, revision=revision)
    return WxCFiles(Path(weights), network.backbone.config)
