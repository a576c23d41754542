"""Neck, decoder and head as terratorch builds them, and the names that its checkpoints have for a network's weights."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from models.errors import InputError
from models.networks.detail import enlarge
from models.runtime import silence as silence  # before terratorch is imported
from models.spec import Classes, Spec
from models.training.settings import TerratorchArchitecture
from models.types import convert, nearest

LARGEST = 8192  # of any width, count or factor; the widest that were published have 1280
Arguments = Mapping[str, Any]
DECODERS: Mapping[str, Arguments] = {  # and what each may be told, by type
    "UperNetDecoder": {"channels": int, "pool_scales": list[int], "align_corners": bool, "scale_modules": bool},
    "UNetDecoder": {"channels": list[int]},
    "FCNDecoder": {"channels": int, "num_convs": int, "in_index": int},
    "LinearDecoder": {"upsampling_size": int, "in_index": int, "num_classes": int},
    "IdentityDecoder": {"out_index": int},
}
NECKS: Mapping[str, Arguments] = {
    "LearnedInterpolateToPyramidal": {},
    "InterpolateToPyramidal": {"scale_factor": int, "mode": Literal["nearest", "bilinear", "bicubic"]},
    "MaxpoolToPyramidal": {"kernel_size": int},
}


def checked(kind: str, name: str, arguments: Arguments, known: Mapping[str, Arguments]) -> dict[str, Any]:
    """The arguments of a part, each of its type and no larger than any that was published.

    Raises:
        InputError: no such part or argument, or one of another type or size.
    """
    if name not in known:
        raise InputError(f"{kind} {name}: not one that is known; {nearest(name, known)}")
    for key in arguments:
        if key not in known[name]:
            raise InputError(f"{kind} {name}: {key} is not known; wanted {', '.join(known[name]) or 'no arguments'}")
    made = {key: convert(value, known[name][key], f"{name}.{key}") for key, value in arguments.items()}
    for key, value in made.items():
        numbers = [n for n in (value if isinstance(value, list) else [value]) if isinstance(n, int)]
        least = -LARGEST if key.endswith("_index") else 0
        if len(numbers) > LARGEST or any(not least <= n <= LARGEST for n in numbers):
            raise InputError(f"{kind} {name}: {key} {str(value)[:60]}, wanted {least} to {LARGEST}")
    return made


class TerratorchHead(nn.Module):
    """The maps of the backbone through terratorch's neck, decoder and head, as its `PixelWiseModel` passes them."""

    def __init__(self, spec: Spec, architecture: TerratorchArchitecture, *, dims: Sequence[int]) -> None:
        """Build with random weights for maps of `dims` channels each.

        Raises:
            InputError: no such part, or sizes that do not fit each other.
        """
        super().__init__()
        outputs = spec.answer.channels
        if not isinstance(spec.answer, Classes) or spec.answer.support != "pixel":
            raise InputError(f"task {spec.task}: parts of terratorch are taken for classes of pixels")
        if any(not 1 <= width <= LARGEST for width in architecture.widths):
            raise InputError(f"head: widths {list(architecture.widths)}, wanted 1 to {LARGEST}")
        name = architecture.decoder
        given = checked("decoder", name, architecture.arguments, DECODERS)
        # Of some versions it is its own head; in others the config has to tell its channels, and a head comes after it.
        alone = name == "LinearDecoder" and "num_classes" not in given
        given |= {"num_classes": outputs} if alone else {}
        try:
            self.neck, dims = _neck(architecture.neck, dims)
            self.decoder, width = _decoder(name, dims, given)
            self.head = nn.Identity() if alone else _head(width, outputs, architecture)
        except (ValueError, IndexError, TypeError, RuntimeError, ZeroDivisionError) as error:
            told = " ".join(str(error).split()) or type(error).__name__
            raise InputError(f"decoder {name} on {len(dims)} maps of {max(dims, default=0)}: {told}") from error

    def forward(self, bands: Tensor, maps: Sequence[Tensor]) -> Tensor:
        """Bands (B, C*T, H, W), for their size, and maps (B, D_i, h, w) to logits (1, B, K, H, W)."""
        inputs = [*maps] if self.neck is None else self.neck([*maps])
        logits = self.head(self.decoder(inputs))
        return (logits if logits.shape[-2:] == bands.shape[-2:] else enlarge(logits, bands)).float()[None]


def _neck(neck: Arguments, dims: Sequence[int]) -> tuple[nn.Module | None, list[int]]:
    """What makes a pyramid of the maps, and the channels of its levels."""
    from terratorch.models import necks

    if not neck:
        return None, [*dims]
    name = str(neck.get("name"))
    given = checked("neck", name, {key: value for key, value in neck.items() if key != "name"}, NECKS)
    if name == "LearnedInterpolateToPyramidal" and len(dims) != 4:
        raise InputError(f"neck {name}: wanted 4 maps, came {len(dims)}; SelectIndices takes 4 blocks")
    made = getattr(necks, name)([*dims], **given)
    return made, made.process_channel_list([*dims])


def _decoder(name: str, dims: Sequence[int], given: Arguments) -> tuple[nn.Module, int]:
    """A decoder, and the channels that it gives."""
    from terratorch.models import decoders

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of `scale_modules`, which older models have
        made = getattr(decoders, name)([*dims], **given)
    return made, int(made.out_channels)


def _head(width: int, outputs: int, architecture: TerratorchArchitecture) -> nn.Module:
    """What makes classes of the decoder's channels."""
    from terratorch.models.heads import SegmentationHead

    made: nn.Module = SegmentationHead(width, outputs, [*architecture.widths] or None, architecture.dropout)
    return made


def own_names(state: Mapping[str, Tensor], neck: int | None) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a terratorch checkpoint by our network's names, in float32, and why others are left out.

    Args:
        state: tensors by name, with any prefix (`model.`, `module.`).
        neck: place of the neck with weights among terratorch's necks, if there is one.

    Returns:
        The tensors, and for each that is left out what it is.
    """
    mark = "encoder.patch_embed.proj.weight"
    names = {key: key.replace("_timm_module.", "") for key in state}
    prefix = min((name.removesuffix(mark) for name in names.values() if name.endswith(mark)), key=len, default="")
    parts = {"encoder.": "backbone.vit.", "decoder.": "head.decoder.", "head.": "head.head."}
    parts |= {f"neck.{neck}.": "head.neck."} if neck is not None else {}
    taken: dict[str, Tensor] = {}
    left: dict[str, str] = {}
    for key, name in names.items():
        inner = name.removeprefix(prefix) if name.startswith(prefix) else ""
        part = next((part for part in parts if inner.startswith(part)), "")
        if part:
            value = state[key]
            taken[parts[part] + inner.removeprefix(part)] = value.float() if value.is_floating_point() else value
        else:
            left[key] = "an auxiliary head" if inner.startswith("aux_heads.") else "no part of the network"
    return taken, left


def take(network: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load the tensors of `own_names` into a network; all of them, and nothing stays random.

    Raises:
        InputError: a tensor lacks, is too many, of another size, or holds what is no number.
    """
    check_fit({name: value.shape for name, value in network.state_dict().items()}, state, source)
    broken = next((name for name, value in state.items() if not bool(torch.isfinite(value).all())), None)
    if broken:
        raise InputError(f"{source}: tensor {broken} holds NaN or infinity, so that any answer would; ask its author")
    network.load_state_dict(dict(state), strict=False)  # strict but for `_OURS`: both sides were compared


_OURS = ("target_mean", "target_std")  # of values, which terratorch has no such tensors for


def check_fit(wanted: Mapping[str, torch.Size], state: Mapping[str, Tensor], source: str) -> None:
    """Refuse tensors that are not those of a network, by name and size.

    Raises:
        InputError: the first that differs, and how.
    """
    wanted = {name: shape for name, shape in wanted.items() if name not in _OURS}
    lacking, many = sorted(set(wanted) - set(state)), sorted(set(state) - set(wanted))
    for name in sorted(set(wanted) & set(state)):
        if wanted[name] != state[name].shape:
            told = f"{name}: the config wants {tuple(wanted[name])}, the checkpoint has {tuple(state[name].shape)}"
            raise InputError(f"{source}: {told}; give the config that it was trained with")
    if lacking or many:
        first = f"{lacking[0]} is not in the checkpoint" if lacking else f"{many[0]} is not in the config's network"
        told = f"{len(lacking)} tensors lack, {len(many)} are too many: {first}"
        raise InputError(f"{source}: {told}; give the config that it was trained with")
