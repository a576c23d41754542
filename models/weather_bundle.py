"""A model over weather fields on disk: bundle.json and model.safetensors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.bundle import Base, Record, base_of, fill, parse_bundle
from models.downscale_spec import DownscaleSpec
from models.errors import InputError
from models.rain_spec import RainSpec
from models.weather_spec import WeatherArchitecture, WeatherSpec

if TYPE_CHECKING:
    from models.backbones.loading import LoadReport
    from models.backbones.wxc_files import WxCFiles
    from models.networks.weather import WeatherNetwork

WeatherBundle = Record[Any, WeatherArchitecture]  # its spec is one of SPECS
SPECS: dict[str, type[WeatherSpec]] = {"rain": RainSpec, "downscale": DownscaleSpec}


def read_weather_bundle(folder: Path) -> WeatherBundle:
    """Read bundle.json.

    Raises:
        InputError: as `bundle.parse_bundle`; or a run over scenes.
    """
    return parse_bundle(folder, _from_json)


def _from_json(content: dict[str, Any]) -> WeatherBundle:
    spec = content.pop("spec")
    if spec["task"] not in SPECS:
        raise InputError(f"task {spec['task']}: wanted one of {', '.join(SPECS)}")
    return WeatherBundle(
        spec=SPECS[spec["task"]].from_json(spec),
        architecture=WeatherArchitecture(**content.pop("architecture")),
        base=base_of(content),
        **content,
    )


def network_kind(task: str) -> type[WeatherNetwork]:
    """The class of a task's networks."""
    from models.networks.downscale import DownscaleNetwork
    from models.networks.rain import RainNetwork

    kinds: dict[str, type[WeatherNetwork]] = {"rain": RainNetwork, "downscale": DownscaleNetwork}
    return kinds[task]


def load_weather(folder: Path, *, weights: Path | None = None) -> WeatherNetwork:
    """Build the network of a run, in eval mode.

    Args:
        folder: the run.
        weights: the encoder's file, for a bundle without it whose encoder came from a file.

    Raises:
        InputError: not a run, damaged weights, or an encoder that is not there or is another than the one recorded.
    """
    from models.backbones.hub import read_state_dict

    bundle = read_weather_bundle(folder)
    pretrained = bundle.base.source != "random"
    network = network_kind(bundle.spec.task)(bundle.spec, bundle.backbone, bundle.architecture, pretrained=pretrained)
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
    network: WeatherNetwork, backbone: str, weights: str, *, revision: str | None = None
) -> tuple[Base, LoadReport | None]:
    """Load the encoder of a network: "hub", "random" or a weight file.

    Returns:
        Where it came from, and what was loaded (None for random weights).

    Raises:
        InputError: weights that are not there, not safe or of another architecture.
    """
    from models.backbones.hub import WeightFile
    from models.backbones.wxc_weights import load_pretrained

    if weights == "random":
        return Base(), None
    files = _files(network, backbone, weights, revision)
    report = load_pretrained(network.backbone, files)
    source = "hub" if files.repo else "file"
    return Base(source, files.repo, files.revision, files.weights.name, WeightFile(files.weights).sha256()), report


def _files(network: WeatherNetwork, backbone: str, weights: str, revision: str | None) -> WxCFiles:
    from models.backbones.wxc_files import WxCFiles, locate_files

    if weights == "hub":
        return locate_files(backbone, revision=revision)
    return WxCFiles(Path(weights), network.backbone.config)
