"""The project's interfaces: what has to follow where Spec, Network, Bundle, Runtime or score change."""

from __future__ import annotations

import contextlib
import copy
import importlib
import importlib.metadata
import importlib.util
import re
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from gpu.measuring import Bench, Inputs

ROOT = Path(__file__).resolve().parents[3]
BANDS = ("BLUE", "GREEN", "RED", "NIR_NARROW", "SWIR_1", "SWIR_2")
MEANS = (1087.0, 1342.0, 1433.0, 2734.0, 1958.0, 1363.0)
STDS = (2248.0, 2179.0, 2178.0, 1850.0, 1242.0, 1049.0)
CLASSES = 10
IMPORTED = (
    *("terratorch.models.backbones.prithvi_mae", "terratorch.models.decoders", "terratorch.models.necks"),
    *("models.networks.network", "models.runtime.engines"),
    *("models.training.module", "models.training.objectives", "torch._dynamo", "torch._inductor.compile_fx"),
    *("pipelines.commands.score", "pipelines.scoring.opening", "pipelines.outputs.picture", "matplotlib.figure"),
    *("pipelines.outputs.item", "models.backbones.prithvi_wxc", "models.backbones.wxc_files", "PrithviWxC.model"),
)
OVERLAP = 32  # pixels that neighbouring tiles of a scene share
# Backbone and head by name: the demo's head on tiny; what scoring is measured with elsewhere; the default head.
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "300M": ("prithvi_eo_v2_300_tl", {"decoder": "upernet", "detail": 0}),
    "100M": ("prithvi_eo_v2_100_tl", {"decoder": "upernet", "detail": 0}),
    "tiny": ("prithvi_eo_v2_tiny_tl", {"decoder": "linear", "channels": 64, "detail": 16}),
    "300M detail 16": ("prithvi_eo_v2_300_tl", {"decoder": "upernet", "detail": 16}),
}


def architecture_of(bench: Bench, name: str) -> tuple[str, Any]:
    """Backbone and architecture of NETWORKS by name."""
    from models.training.settings import Architecture

    backbone, head = NETWORKS[name]
    if bench.small:
        head = head | {"overrides": {"depth": 4, "embed_dim": 64, "num_heads": 4}, "channels": 16}
    return backbone, Architecture(**head)


def network_of(bench: Bench, name: str, *, tile: int | None = None) -> Any:
    """A network of NETWORKS with random weights, on the device, in eval mode."""
    from models.networks.network import Network
    from models.spec import IMAGERY, ClassDef, Classes, Pixels, Spec

    backbone, architecture = architecture_of(bench, name)
    classes = tuple(ClassDef(i + 1, f"class {i}", f"#{i * 1677721:06x}") for i in range(CLASSES))
    pixels = Pixels(BANDS, MEANS, STDS, tile=tile or bench.tile, uses_time=True, uses_location=True)
    spec = Spec("segmentation", {IMAGERY: pixels}, {"class": Classes(classes)})
    torch.manual_seed(0)
    return Network(spec, backbone, architecture).to(bench.device).eval()


def inputs_of(bench: Bench, batch: int, *, tile: int | None = None, device: Any = None) -> dict[str, torch.Tensor]:
    """What `Network.predict` and `Runtime.run` take, as tensors: smooth fields with noise, a date, a place."""
    generator, side, target = torch.Generator().manual_seed(0), tile or bench.tile, device or bench.device
    coarse = torch.randn((min(batch, 8), len(BANDS), 4, 4), generator=generator)
    waves = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic")
    noise = torch.randn(waves.shape, generator=generator)
    mean, std = (torch.tensor(values).reshape(-1, 1, 1) for values in (MEANS, STDS))
    x = ((waves + 0.1 * noise) * 0.5 * std + mean)[:, :, None].to(target)  # (8, C, 1, H, W), over and over:
    x = x[torch.arange(batch, device=target) % len(x)]  # (B, C, 1, H, W)
    dates, places = torch.tensor([2021.0, 165.0], device=target), torch.tensor([45.0, 9.0], device=target)
    dated, placed = dates.expand(batch, 1, 2).contiguous(), places.expand(batch, 2).contiguous()
    return {"imagery": x, "time": dated, "location": placed}


def on_host(inputs: Inputs) -> dict[str, torch.Tensor]:
    """The same in the memory of the CPU."""
    return {name: values.cpu() for name, values in inputs.items()}


def run_of(bench: Bench, name: str, network: Any = None) -> Path:
    """The run folder of a network, of NETWORKS when none is given, without model.onnx; made once."""
    from models.bundle import Bundle, write_bundle, write_weights

    folder = bench.folder / name.replace(" ", "-")
    if not folder.exists():
        network = network_of(bench, name) if network is None else network
        folder.mkdir()
        backbone, architecture = architecture_of(bench, name.removesuffix(" settled"))
        write_weights(folder, network, whole=True)
        write_bundle(folder, Bundle(network.spec, backbone, architecture))
    return folder


def runtime_of(run: Path, **options: Any) -> Any:
    """A run as one function of tiles."""
    from models.runtime.engines import load_runtimes

    return load_runtimes([run], **options)


def openvino_of(run: Path, network: Any, precision: str) -> Any:
    """The same on OpenVINO; writes model.onnx."""
    from models.bundle import read_bundle, write_bundle
    from models.runtime.export import export_onnx

    if not (run / "model.onnx").exists():
        export_onnx(copy.deepcopy(network).cpu(), run / "model.onnx")
        write_bundle(run, read_bundle(run))
    return runtime_of(run, runtime="openvino", precision=precision)


def labels_of(inputs: Inputs) -> Any:
    """Classes that the bands tell: tenths of the near infrared, (B, H, W)."""
    infrared = inputs["imagery"][:, 3, 0].contiguous()
    edges = torch.linspace(0, 1, CLASSES + 1)[1:-1].to(infrared.device)
    return torch.bucketize(infrared, torch.quantile(infrared.flatten()[:65536], edges))


def stepper(network: Any, mode: str) -> Callable[..., Any]:
    """One training step as `FineTuning` takes it in bf16, as a function of inputs and labels (B, H, W)."""
    from models.training.module import apply_mode, parameter_groups
    from models.training.objectives import Labelled
    from models.training.settings import Lora, Training

    settings = Training(loss={"ce": 1.0})
    apply_mode(network, mode, Lora())
    network.train()
    if mode == "frozen":
        network.backbone.eval()
    network.to(next(network.parameters()).device)  # adapters are made on the CPU
    optimiser = torch.optim.AdamW(list(parameter_groups(network, settings)), lr=settings.lr)
    objective, kind = Labelled(network, settings), next(network.parameters()).device.type

    def step(inputs: Inputs, labels: Any) -> Any:
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast(kind, torch.bfloat16):
            loss = objective.loss({**inputs, "y": labels})
        loss.backward()
        optimiser.step()
        return loss

    return step


def stand_in() -> None:
    """Let terratorch's networks be imported without the packages of its data sets and tasks.

    Its packages are entered without their `__init__`, which import torchgeo, albumentations, lightning's tasks and
    more that the networks never use; rasterio, where it is missing, is there for the time of the import only. An
    `earthtune` that runs from its checkout gets the metadata of an installed one.
    """
    found = importlib.util.find_spec("terratorch")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("No module named 'terratorch'")
    for name in ("terratorch", "terratorch.datasets", "terratorch.models", "terratorch.models.backbones"):
        module = types.ModuleType(name)
        module.__path__ = [str(Path(found.origin).parent.joinpath(*name.split(".")[1:]))]
        sys.modules[name] = module
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)
    missing = importlib.util.find_spec("rasterio") is None
    if missing:
        sys.modules["rasterio"] = types.ModuleType("rasterio")
    bands = importlib.import_module("terratorch.datasets.utils")
    for name in ("HLSBands", "OpticalBands", "SARBands"):
        setattr(sys.modules["terratorch.datasets"], name, getattr(bands, name))
    importlib.import_module("terratorch.models.backbones.prithvi_vit")
    if missing:
        del sys.modules["rasterio"]


def import_all() -> None:
    """Import what the sections need and is there, so that no section's time ends in the middle of an import."""
    for name in IMPORTED:
        with contextlib.suppress(ImportError, AttributeError, OSError):  # the section that needs it tells so
            importlib.import_module(name)


def earthtune_metadata(folder: Path) -> None:
    """Give the checkout the version that `importlib.metadata` tells of an installed package."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        importlib.metadata.version("earthtune")
        return
    found = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    place = folder / "site" / "earthtune-0.dist-info"
    place.mkdir(parents=True)
    version = found[1] if found else "0"
    (place / "METADATA").write_text(f"Metadata-Version: 2.1\nName: earthtune\nVersion: {version}\n", encoding="utf-8")
    sys.path.append(str(place.parent))
