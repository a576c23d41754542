"""Weights of Prithvi WxC into a model: by name, with a report of its channels; or random ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from models.backbones.hub import read_state_dict
from models.backbones.loading import LoadReport
from models.backbones.prithvi_wxc import WxCEncoder, WxCForecaster
from models.backbones.wxc_files import WxCConfig, WxCFiles, WxCScalers, as_safetensors, read_scalers
from models.backbones.wxc_network import UNSCALED, WxCInputs, scaler_tensors
from models.errors import InputError

KERNEL, STATIC_KERNEL = "patch_embedding.proj.weight", "patch_embedding_static.proj.weight"
SCALERS = (
    *("input_scalers_mu", "input_scalers_sigma", "static_input_scalers_mu", "static_input_scalers_sigma"),
    "output_scalers",
)


def fill_random(model: WxCEncoder | WxCForecaster, *, dtype: torch.dtype = torch.float32, seed: int = 0) -> None:
    """Give random values to the weights that have no memory yet; norms become the identity.

    A model built under `torch.device("meta")` takes no more memory than its weights at this precision.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        for name, weight in module.named_parameters(recurse=False):
            if weight.is_meta:
                values = torch.empty(weight.shape, dtype=dtype, device="cpu")
                if isinstance(module, nn.LayerNorm):
                    values.fill_(float(name == "weight"))
                else:
                    values.normal_(std=0.02, generator=generator)
                setattr(module, name, nn.Parameter(values, requires_grad=weight.requires_grad))


def load_pretrained(
    model: WxCEncoder | WxCForecaster,
    files: WxCFiles,
    *,
    new: Literal["mean", "random"] = "mean",
    dtype: torch.dtype | None = None,
    folder: Path | None = None,
) -> LoadReport:
    """Load a published or local file into a model; of a whole model's file an encoder takes its part.

    The weights become views of the file, which is converted once to safetensors (see `wxc_files.as_safetensors`); a
    model built under `torch.device("meta")` then never holds them twice. Move the model to its device afterwards.
    Channels that were pretrained keep their patch-embedding weights by name; for others see `new`. Scalers are those
    the model was built with, then those of the weights, then those of `files.scalers`.

    Args:
        model: the model to fill.
        files: as `wxc_files.locate_files` or `local_files` find them, or made by hand.
        new: patch-embedding weights of channels that were not pretrained: the mean of those that were, or random.
        dtype: precision of the weights, such as torch.bfloat16; that of the file when None. Scalers stay float32.
        folder: where converted files are kept.

    Returns:
        Where each channel's weights came from.

    Raises:
        InputError: a file that is not there, is not a Prithvi WxC's, is of another architecture or could execute code;
            channels that no scalers are known for.
        RunError: the converted file cannot be written.
    """
    fallback = read_scalers(files.scalers, model.config) if files.scalers else WxCScalers({})
    state = read_state_dict(as_safetensors(files.weights, dtype=dtype, folder=folder))
    return load_state(model, state, source=str(files.weights), new=new, fallback=fallback)


def load_state(
    model: WxCEncoder | WxCForecaster,
    state: Mapping[str, Tensor],
    *,
    source: str,
    new: Literal["mean", "random"] = "mean",
    fallback: WxCScalers | None = None,
) -> LoadReport:
    """Load tensors by name into a model; see `load_pretrained`.

    Args:
        model: the model to fill.
        state: tensors by name, which become the model's own.
        source: the file's name, for messages.
        new: patch-embedding weights of channels that were not pretrained.
        fallback: scalers for what neither the model nor the state has.

    Returns:
        Where each channel's weights came from.

    Raises:
        InputError: no Prithvi WxC, another architecture, or channels that no scalers are known for.
    """
    tensors = _wxc_part(state, source)
    wanted = model.net.state_dict()
    pretrained, inputs = WxCInputs.pretrained(model.config), model.inputs
    _check_architecture(tensors, wanted, pretrained, source)
    scalers, notes = _merged_scalers(model, tensors, fallback or WxCScalers({}), source)
    loaded = {key: tensors[key] for key in wanted if key not in (KERNEL, STATIC_KERNEL, *SCALERS)}
    loaded |= {key: value.reshape(wanted[key].shape) for key, value in scaler_tensors(inputs, scalers).items()}
    loaded[KERNEL] = _by_time(tensors[KERNEL], pretrained, inputs, new)
    loaded[STATIC_KERNEL] = _by_name(tensors[STATIC_KERNEL], pretrained.static_names, inputs.static_names, new)
    model.net.load_state_dict(loaded, assign=True)
    word = "mean of the pretrained channels" if new == "mean" else "random"
    known = {*pretrained.channels, *pretrained.static}
    sources = {n: f"loaded from {n}" if n in known else f"new: {word}" for n in (*inputs.channels, *inputs.static)}
    depths = ", ".join(f"{part} {_depth(loaded, part)}" for part in ("encoder", "decoder") if _depth(loaded, part))
    return LoadReport(sources, (f"transformers loaded: {depths}", *notes))


def _wxc_part(state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """The tensors with their prefix taken off, without shift masks, which depend on a grid."""
    ends = [key for key in state if key.endswith(KERNEL)]
    if not ends:
        raise InputError(f"{source}: no Prithvi WxC in this file (no tensor named ...{KERNEL})")
    prefix = min(ends, key=len).removesuffix(KERNEL)
    parts = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    return {key: value for key, value in parts.items() if "shifter." not in key}


def _depth(tensors: Mapping[str, Tensor], part: str) -> int:
    start = f"{part}.lgl_block.transformers."
    return 1 + max((int(key.removeprefix(start).split(".")[0]) for key in tensors if key.startswith(start)), default=-1)


def _check_architecture(
    tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor], pretrained: WxCInputs, source: str
) -> None:
    """Refuse a file that does not fill the model exactly; say what came and what was wanted."""
    plain = [key for key in wanted if key not in (KERNEL, STATIC_KERNEL, *SCALERS)]
    missing = [key for key in (*plain, STATIC_KERNEL) if key not in tensors]
    parts = ("encoder.", "decoder.") if "unembed.weight" in wanted else ("encoder.",)
    surplus = [key for key in tensors if key.startswith(parts) and key not in wanted]
    shapes = [key for key in plain if key in tensors and tensors[key].shape != wanted[key].shape]
    columns = {KERNEL: pretrained.times * len(pretrained.channels), STATIC_KERNEL: len(pretrained.static_names)}
    for key, count in columns.items():
        shape = (wanted[key].shape[0], count, *wanted[key].shape[2:])
        shapes += [key] if key in tensors and tensors[key].shape != shape else []
    if not (missing or surplus or shapes):
        return
    first = (missing or surplus or shapes)[0]
    raise InputError(
        f"{source}: weights of another architecture: wanted {_described(wanted, columns[KERNEL])}; came "
        f"{_described(tensors, tensors[KERNEL].shape[1])} (first difference: {first}); give the config.yaml that these "
        "weights belong to"
    )


def _described(tensors: Mapping[str, Tensor], channels: int) -> str:
    return (
        f"embedding {tensors[KERNEL].shape[0]}, {_depth(tensors, 'encoder')} transformers in the encoder and "
        f"{_depth(tensors, 'decoder')} in the decoder, {channels} input channels over all times"
    )


def _merged_scalers(
    model: WxCEncoder | WxCForecaster, tensors: Mapping[str, Tensor], fallback: WxCScalers, source: str
) -> tuple[WxCScalers, list[str]]:
    """Scalers of the model's channels: as given, else the file's, else the fallback's; and notes for the person."""
    given, inputs, own = model.scalers, model.inputs, _own_scalers(model.config, tensors)
    sources = (fallback, own, given)
    pairs = {name: pair for scalers in sources for name, pair in scalers.inputs.items()}
    merged = WxCScalers(pairs, {name: std for scalers in sources for name, std in scalers.anomalies.items()})
    lost = [name for name in (*inputs.channels, *inputs.static) if name not in merged.inputs]
    if "unembed.weight" in tensors and isinstance(model, WxCForecaster):
        lost += [f"the anomalies of {name}" for name in inputs.channels if name not in merged.anomalies]
    if lost:
        raise InputError(f"{source}: no scalers for {', '.join(lost[:5])}{' ...' if len(lost) > 5 else ''}; give them")
    # Means more than a hundredth of the deviation apart, or deviations a hundredth of it.
    others = {name: (pair, fallback.inputs.get(name, pair)) for name, pair in own.inputs.items()}
    odd = [n for n, (a, b) in others.items() if max(abs(a[0] - b[0]), abs(a[1] - b[1])) > 0.01 * a[1]]
    return merged, [f"the weights' scalers are not those of the climatology files: {', '.join(odd)}"] if odd else []


def _own_scalers(config: WxCConfig, tensors: Mapping[str, Tensor]) -> WxCScalers:
    """The scalers that came with the weights, by name."""
    flat = {key: tensors[key].float().flatten().tolist() for key in SCALERS if key in tensors}
    if len(flat) < len(SCALERS):
        return WxCScalers({})
    mean, std, static_mean, static_std, spread = (flat[key] for key in SCALERS)
    names = (*config.channels, *config.static)
    pairs = zip((*mean, *static_mean[UNSCALED:]), (*std, *static_std[UNSCALED:]), strict=True)
    return WxCScalers(dict(zip(names, pairs, strict=True)), dict(zip(config.channels, spread, strict=True)))


def _by_time(kernel: Tensor, pretrained: WxCInputs, inputs: WxCInputs, new: str) -> Tensor:
    """Patch-embedding weights of every time step, the last being the last: (E, T*C, p, p)."""
    steps = kernel.chunk(pretrained.times, dim=1)  # each (E, C, p, p)
    chosen = [steps[max(pretrained.times - back, 0)] for back in range(inputs.times, 0, -1)]
    if (pretrained.channels, pretrained.times) == (inputs.channels, inputs.times):
        return kernel
    return torch.cat([_by_name(step, pretrained.channels, inputs.channels, new) for step in chosen], dim=1)


def _by_name(kernel: Tensor, known: Sequence[str], names: Sequence[str], new: str) -> Tensor:
    """Patch-embedding weights by the names of their channels: (E, known, p, p) to (E, names, p, p)."""
    if tuple(known) == tuple(names):
        return kernel
    places = {name: i for i, name in enumerate(known)}
    fresh = kernel.mean(dim=1, keepdim=True).repeat(1, len(names), 1, 1)
    if new == "random":
        nn.init.kaiming_uniform_(fresh, a=5**0.5)  # as torch starts a convolution
    for i, name in enumerate(names):
        if name in places:
            fresh[:, i] = kernel[:, places[name]]
    return fresh
