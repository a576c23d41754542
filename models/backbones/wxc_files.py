"""What the repositories of Prithvi WxC hold: configuration, scalers, weights; from the Hub or a folder."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import yaml
from safetensors import SafetensorError
from safetensors.torch import save_file

from models.backbones.catalogue import WXC_REPO, wxc_variant
from models.backbones.hub import locate, reachable, read_state_dict
from models.backbones.wxc_inputs import LEVELS, STATIC, SURFACE, VERTICAL, channel_names
from models.errors import InputError, RunError
from models.files import replacing
from models.runtime.hdf5 import check_alone

if TYPE_CHECKING:
    import torch

SCALER_FILES = {
    "input_surface": "climatology/musigma_surface.nc",
    "input_vertical": "climatology/musigma_vertical.nc",
    "anomaly_surface": "climatology/anomaly_variance_surface.nc",
    "anomaly_vertical": "climatology/anomaly_variance_vertical.nc",
}


@dataclass(frozen=True)
class WxCConfig:
    """The architecture of a Prithvi WxC and the fields it was pretrained on; the defaults are those of 2300M.

    Attributes:
        surface: surface variables in their order.
        vertical: vertical variables in their order.
        levels: model levels in their order.
        static: static fields in their order.
        input_times: time steps of the input.
        patch: side of a patch in pixels.
        mask_unit: rows and columns of a mask unit in pixels, within which attention is local.
        embed_dim: features per token.
        encoder_blocks: pairs of local and global attention in the encoder, which has 2n+1 transformers.
        decoder_blocks: the same of the decoder; 0 for a model without one.
        mlp_multiplier: width of a transformer's MLP over `embed_dim`.
        heads: attention heads.
        residual: what the output is added to: "climate", "temporal" (the last input) or "none" (the mean).
        encoder_shifting: shift the windows between the pairs of the encoder.
        decoder_shifting: the same in the decoder.
        input_epsilon: added to the deviations of the channels.
        static_epsilon: added to the deviations of the static fields.
    """

    surface: tuple[str, ...] = SURFACE
    vertical: tuple[str, ...] = VERTICAL
    levels: tuple[float, ...] = LEVELS
    static: tuple[str, ...] = STATIC
    input_times: int = 2
    patch: int = 2
    mask_unit: tuple[int, int] = (30, 32)
    embed_dim: int = 2560
    encoder_blocks: int = 12
    decoder_blocks: int = 2
    mlp_multiplier: int = 4
    heads: int = 16
    residual: str = "climate"
    encoder_shifting: bool = False
    decoder_shifting: bool = True
    input_epsilon: float = 0.0
    static_epsilon: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        if self.residual not in ("climate", "temporal", "none"):
            raise InputError(f"residual {self.residual!r}: wanted climate, temporal or none")
        if self.embed_dim % self.heads or self.embed_dim % 4:
            raise InputError(f"embed_dim {self.embed_dim}: wanted a multiple of 4 and of the {self.heads} heads")
        if any(side % self.patch for side in self.mask_unit):
            raise InputError(f"mask unit {self.mask_unit}: wanted multiples of the patch, {self.patch} pixels")

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the pretrained channels in their order."""
        return channel_names(self.surface, self.vertical, self.levels)


# The published names of what WxCConfig holds, and how the values are read.
_FIELDS: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
    "surface_vars": ("surface", tuple),
    "vertical_vars": ("vertical", tuple),
    "static_surface_vars": ("static", tuple),
    "levels": ("levels", tuple),
    "input_size_time": ("input_times", int),
    "patch_size_px": ("patch", lambda sides: int(sides[0])),
    "mask_unit_size_px": ("mask_unit", lambda sides: (int(sides[0]), int(sides[1]))),
    "embed_dim": ("embed_dim", int),
    "n_blocks_encoder": ("encoder_blocks", int),
    "n_blocks_decoder": ("decoder_blocks", int),
    "mlp_multiplier": ("mlp_multiplier", int),
    "n_heads": ("heads", int),
    "residual": ("residual", str),
    "encoder_shifting": ("encoder_shifting", bool),
    "decoder_shifting": ("decoder_shifting", bool),
    "input_scalers_epsilon": ("input_epsilon", float),
    "static_input_scalers_epsilon": ("static_epsilon", float),
}
_NEEDED = ("embed_dim", "n_blocks_encoder", "n_blocks_decoder", "n_heads")


def published_config(name: str) -> WxCConfig:
    """The published configuration of a model of `variants.WXC_VARIANTS`.

    The rollout model, tuned without masking, shifts the windows of its encoder (`large_rollout.yml` of
    NASA-IMPACT/Prithvi-WxC); the pretrained one does not. The tiny one was never published: it is ours, to try things
    out with random weights.

    Raises:
        InputError: no such model.
    """
    wxc_variant(name)
    if name == "prithvi_wxc_tiny":
        return WxCConfig(mask_unit=(16, 16), embed_dim=48, encoder_blocks=1, heads=4)
    return WxCConfig(encoder_shifting=name.endswith("_rollout"))


def read_config(path: Path, default: WxCConfig | None = None) -> WxCConfig:
    """Read a published config.yaml: its fields are under `params`; what it leaves out is as in `default`.

    Raises:
        InputError: no such file, not such a file, or an architecture that is not supported.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot be read as a config.yaml ({type(error).__name__})") from error
    fields = content.get("params", content) if isinstance(content, dict) else None
    missing = [key for key in _NEEDED if not isinstance(fields, dict) or key not in fields]
    if missing or not isinstance(fields, dict):
        raise InputError(f"{path}: not the config.yaml of a Prithvi WxC (no {', '.join(missing)} under params)")
    if fields.get("positional_encoding", "fourier") != "fourier":
        raise InputError(f"{path}: positional_encoding {fields['positional_encoding']!r}: only fourier is supported")
    try:
        chosen = {ours: read(fields[key]) for key, (ours, read) in _FIELDS.items() if key in fields}
        return dataclasses.replace(default or WxCConfig(), **chosen)
    except (TypeError, ValueError, LookupError) as error:
        raise InputError(f"{path}: a field cannot be read ({error})") from error


@dataclass(frozen=True)
class WxCScalers:
    """How physical values are scaled.

    Attributes:
        inputs: mean and standard deviation by channel and by static field.
        anomalies: standard deviation of the difference from climatology by channel; not needed by an encoder.
    """

    inputs: Mapping[str, tuple[float, float]]
    anomalies: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class WxCFiles:
    """The files that make a model.

    Attributes:
        weights: `.pt` as published, or safetensors.
        config: what the architecture is.
        scalers: the files named in `SCALER_FILES`, by its keys; empty where the weights bring their own.
        repo: the repository of the weights, None for a file given by path.
        revision: its commit.
    """

    weights: Path
    config: WxCConfig = dataclasses.field(default_factory=WxCConfig)
    scalers: Mapping[str, Path] = dataclasses.field(default_factory=dict)
    repo: str | None = None
    revision: str | None = None


def locate_files(name: str, *, revision: str | None = None) -> WxCFiles:
    """Find the files of a published model by name: in the local cache, else on the Hub; only what is needed.

    Args:
        name: a key of `variants.WXC_VARIANTS`.
        revision: commit of the model's repository; the newest when None.

    Raises:
        InputError: no such model, or none published; a file that is not in the cache and cannot be had (see
            `hub.locate`).
    """
    published, online = wxc_variant(name), reachable()
    if not (published.repo and published.file):
        raise InputError(f"{name}: no weights were published; give a folder or file that holds some, or random")
    config = locate(published.repo, "config.yaml", revision=revision, online=online)
    same = revision if published.repo == WXC_REPO else None
    scalers = {key: locate(WXC_REPO, file, revision=same, online=online).path for key, file in SCALER_FILES.items()}
    weights = locate(published.repo, published.file, revision=revision, online=online)
    chosen = read_config(config.path, published_config(name))
    return WxCFiles(weights.path, chosen, scalers, weights.repo, weights.revision)


def local_files(folder: Path, *, weights: Path | None = None) -> WxCFiles:
    """Take the files of a folder that is laid out as a published repository.

    Args:
        folder: holds config.yaml, climatology/ and, unless given, one weight file.
        weights: the weight file.

    Raises:
        InputError: a file that is not there, or several weight files.
    """
    found = [weights] if weights else sorted([*folder.glob("*.safetensors"), *folder.glob("*.pt")])
    if len(found) != 1:
        raise InputError(f"{folder}: wanted one weight file (.pt or .safetensors), found {len(found)}; name it")
    scalers = {key: folder / file for key, file in SCALER_FILES.items()}
    absent = [path for path in (found[0], *scalers.values()) if not path.is_file()]
    if absent:
        raise InputError(f"{absent[0]}: no such file; wanted a copy of a Prithvi WxC repository")
    return WxCFiles(found[0], read_config(folder / "config.yaml"), scalers)


def read_scalers(files: Mapping[str, Path], config: WxCConfig) -> WxCScalers:
    """Read the published scalers, levels by their label.

    As the published code does, deviations are held within 1e-4 and 1e4, variances of anomalies within 1e-7 and 1e7
    before the square root is taken.

    Args:
        files: by the keys of `SCALER_FILES`.
        config: whose variables are looked for.

    Raises:
        InputError: a file or variable that is not there or cannot be read.
    """
    inputs: dict[str, tuple[float, float]] = {}
    inputs |= read_hdf5(files["input_surface"], lambda file: _moments(file, (*config.surface, *config.static), ()))
    inputs |= read_hdf5(files["input_vertical"], lambda file: _moments(file, config.vertical, config.levels))
    spread: dict[str, float] = {}
    spread |= read_hdf5(files["anomaly_surface"], lambda file: _values(file, config.surface, (), ()))
    spread |= read_hdf5(files["anomaly_vertical"], lambda file: _values(file, config.vertical, config.levels, ()))
    return WxCScalers(inputs, {name: float(np.clip(value, 1e-7, 1e7)) ** 0.5 for name, value in spread.items()})


def read_hdf5(path: Path, work: Callable[[h5py.File], Any]) -> Any:
    """Do work on an open NetCDF 4 file; what the file lacks is told by the file's name."""
    check_alone(path)
    try:
        with h5py.File(path, "r") as file:
            return work(file)
    except (OSError, KeyError, IndexError, ValueError, TypeError) as error:
        raise InputError(f"{path}: cannot be read as a file of Prithvi WxC ({error})") from error


def _moments(file: h5py.File, names: Sequence[str], levels: Sequence[float]) -> dict[str, tuple[float, float]]:
    kinds = [kind.decode().lower() for kind in file["statistic"][()]]
    mean = _values(file, names, levels, (kinds.index("mu"),))
    std = _values(file, names, levels, (kinds.index("sigma"),))
    return {name: (mean[name], float(np.clip(std[name], 1e-4, 1e4))) for name in mean}


def _values(file: h5py.File, names: Sequence[str], levels: Sequence[float], at: tuple[int, ...]) -> dict[str, float]:
    """Single values by channel, at an index of the leading axis and at each level."""
    if not levels:
        return {name: float(file[name][at or ()]) for name in names}
    labels = list(file["lev"][()])
    places = {level: labels.index(level) for level in levels}
    return {f"{name}_{level:g}": float(file[name][(*at, i)]) for name in names for level, i in places.items()}


def as_safetensors(path: Path, *, dtype: torch.dtype | None = None, folder: Path | None = None) -> Path:
    """Convert a weight file once to safetensors; later calls return what the first one wrote.

    The optimiser's moments of a published `.pt` and shift masks, which depend on a grid, are left out; scalers keep
    their precision. Code inside a file is never executed. While it converts, memory holds the weights at the wanted
    precision.

    Args:
        path: `.pt` as published, or safetensors, returned as it is when it has the wanted precision already.
        dtype: precision of the weights; that of the file when None.
        folder: where converted files are kept; `earthtune` beside the Hugging Face cache when None.

    Raises:
        InputError: not a weight file, or one that could execute code.
        RunError: the converted file cannot be written.
    """
    if path.suffix == ".safetensors" and dtype is None:
        return path
    target = _converted(path, dtype, folder)
    if target.is_file():
        return target
    state = {key: value for key, value in read_state_dict(path).items() if "shifter." not in key}
    wanted = {key: dtype if dtype and _is_weight(key, value) else value.dtype for key, value in state.items()}
    if path.suffix == ".safetensors" and all(state[key].dtype == kind for key, kind in wanted.items()):
        return path
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as draft:
            save_file({key: value.detach().to(wanted[key]).contiguous() for key, value in state.items()}, draft)
    except (SafetensorError, OSError) as error:
        raise RunError(f"{target}: cannot be written ({error}); make space or choose another folder") from error
    return target


def _is_weight(key: str, value: torch.Tensor) -> bool:
    return value.is_floating_point() and not key.endswith(("scalers_mu", "scalers_sigma", "output_scalers"))


def _converted(path: Path, dtype: torch.dtype | None, folder: Path | None) -> Path:
    """Where the converted file lies: its name tells the file, its size and date, and the precision."""
    from huggingface_hub import constants

    if not path.is_file():
        raise InputError(f"{path}: no such weight file")
    real = path.resolve()
    identity = f"{real}|{real.stat().st_size}|{real.stat().st_mtime_ns}|{dtype}"
    digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
    folder = folder or Path(constants.HF_HUB_CACHE).parent / "earthtune"
    return folder / f"{path.stem}-{digest}.safetensors"
