"""A Spec and settings become a network, and the weights of its backbone come into it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from models.backbones import prithvi_eo, wxc_weights
from models.backbones.catalogue import BANDS, variant
from models.backbones.hub import WeightFile, locate, read_state_dict
from models.backbones.loading import LoadReport
from models.backbones.prithvi_eo import PrithviEO
from models.backbones.wxc_files import WxCFiles, locate_files
from models.bundle import Base
from models.errors import InputError
from models.networks.downscale import DownscaleNetwork
from models.networks.fusion import FusedNetwork
from models.networks.network import Network
from models.networks.rain import RainNetwork
from models.networks.tables import TableNetwork
from models.networks.weather import WeatherNetwork
from models.spec import Quantiles, Spec
from models.training.settings import AnyArchitecture, Architecture, TableArchitecture
from models.types import Array, Inputs, Predict

AnyNetwork = Network | WeatherNetwork | TableNetwork


def assemble(spec: Spec, backbone: str, architecture: AnyArchitecture, *, pretrained: bool = False) -> AnyNetwork:
    """Build a network with random weights.

    Args:
        spec: what it eats and says.
        backbone: a name of the catalogue.
        architecture: what else builds it, of the kind that its input wants.
        pretrained: the backbone will be given pretrained weights.

    Raises:
        InputError: names or sizes that do not exist or do not fit each other.
    """
    if isinstance(architecture, Architecture):
        return (FusedNetwork if spec.series else Network)(spec, backbone, architecture)
    if isinstance(architecture, TableArchitecture):
        return TableNetwork(spec, architecture)
    kind = RainNetwork if isinstance(spec.answer, Quantiles) else DownscaleNetwork
    return kind(spec, backbone, architecture, pretrained=pretrained)


def predict_by(network: AnyNetwork) -> Predict:
    """A network as a function of arrays."""

    def predict(inputs: Inputs) -> Array:
        with torch.inference_mode():
            answer: Array = network.predict({name: torch.from_numpy(a) for name, a in inputs.items()}).numpy()
            return answer

    return predict


def load_backbone(
    network: AnyNetwork,
    backbone: str,
    weights: str,
    *,
    revision: str | None = None,
    bands: Sequence[str] = (),
    wanted: Base | None = None,
) -> tuple[Base, LoadReport | None]:
    """Load the backbone of a network: "hub", "random" or a weight file.

    Args:
        network: the network.
        backbone: its backbone's name.
        weights: where the weights are.
        revision: commit, branch or tag of the published weights.
        bands: bands of the file's patch embedding in its order; those that Prithvi EO was pretrained on when empty.
        wanted: what they have to be.

    Returns:
        Where they came from, and what was loaded (None for random weights).

    Raises:
        InputError: weights that are not there, not safe, of another architecture or not those that are wanted.
    """
    if weights == "random":
        return Base(), None
    if isinstance(network, TableNetwork):
        raise InputError(f"weights {weights}: a network over tables has no backbone; leave them out")
    if isinstance(network, WeatherNetwork):
        files = (
            locate_files(backbone, revision=revision)
            if weights == "hub"
            else WxCFiles(Path(weights), network.backbone.config)
        )
        base = _found(WeightFile(files.weights, files.repo, files.revision), (), wanted)
        return base, wxc_weights.load_pretrained(network.backbone, files)
    base, report, _ = load_encoder(network.backbone, backbone, weights, revision=revision, bands=bands, wanted=wanted)
    return base, report


def load_encoder(
    encoder: PrithviEO,
    backbone: str,
    weights: str,
    *,
    revision: str | None = None,
    bands: Sequence[str] = (),
    wanted: Base | None = None,
) -> tuple[Base, LoadReport, Mapping[str, Tensor]]:
    """Load a Prithvi EO from "hub" or a weight file; arguments and errors as of `load_backbone`.

    Returns:
        Where the weights came from, what was loaded, and all tensors of the file by name.
    """
    bands = tuple(bands) or BANDS
    found = _published(backbone, revision) if weights == "hub" else WeightFile(Path(weights))
    state = read_state_dict(found.path)
    base = _found(found, bands, wanted)
    report = prithvi_eo.load_pretrained(encoder, state, source=str(found.path), pretrained_bands=bands)
    return base, report, state


def _published(backbone: str, revision: str | None) -> WeightFile:
    """The published weights of a Prithvi EO."""
    published = variant(backbone)
    if published.repo is None or published.file is None:
        raise InputError(f"{backbone}: no weights were published; use --weights random or a file")
    return locate(published.repo, published.file, revision=revision)


def _found(file: WeightFile, bands: Sequence[str], wanted: Base | None) -> Base:
    """Where weights came from; refuse others than those that are wanted."""
    source = "hub" if file.repo else "file"
    base = Base(source, file.repo, file.revision, file.path.name, file.sha256(), tuple(bands))
    if wanted and wanted.sha256 and wanted.sha256 != base.sha256:
        raise InputError(f"{file.path}: not the base of this bundle: wanted {wanted}; the file's sha256 differs")
    return base
