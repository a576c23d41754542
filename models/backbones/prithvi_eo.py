"""Prithvi EO 1.0 and 2.0, every published size: built by terratorch, loaded with a report of the patch embedding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.backbones.catalogue import BANDS, variant
from models.backbones.loading import LoadReport
from models.backbones.patches import token_grid, tokens_to_map
from models.errors import InputError
from models.runtime import silence as silence  # before terratorch is imported


def config(name: str, **overrides: Any) -> dict[str, Any]:
    """The published configuration of a backbone (terratorch's table), with fields such as `depth` overridden.

    Raises:
        InputError: no such backbone, no such field, or a width that does not fit the heads.
    """
    from terratorch.models.backbones.prithvi_vit import prithvi_cfgs

    variant(name)
    published = dict(prithvi_cfgs[name])
    unknown = set(overrides) - set(published)
    if unknown:
        raise InputError(f"backbone field {', '.join(sorted(unknown))}: wanted one of {', '.join(sorted(published))}")
    fields = published | overrides
    dim, heads = fields["embed_dim"], fields["num_heads"]
    if dim % 16 or dim % heads:  # the position encoding halves and splits the width, attention shares it among heads
        raise InputError(f"backbone field embed_dim {dim} with {heads} heads: wanted a multiple of 16 and of the heads")
    return fields


def pretrained_statistics(name: str) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation of each pretraining band, in reflectance x10000."""
    published = config(name)
    return dict(zip(BANDS, zip(published["mean"], published["std"], strict=True), strict=True))


def evenly_spaced(depth: int, count: int = 4) -> tuple[int, ...]:
    """Indices of `count` blocks at equal distances, the last block among them: 12 -> 2, 5, 8, 11."""
    count = min(count, depth)
    return tuple(round((i + 1) * depth / count) - 1 for i in range(count))


class PrithviEO(nn.Module):
    """A Prithvi EO encoder over normalised frames.

    Attributes:
        vit: terratorch's `PrithviViT`, whose `state_dict` keys are those of the published files.
        bands: input bands in the order of the channels.
        blocks: indices of the blocks whose tokens come out.
        recompute: save memory while training, see `through`.
    """

    recompute = False

    def __init__(
        self,
        name: str,
        *,
        bands: Sequence[str] = BANDS,
        frames: int = 1,
        tile: int = 224,
        blocks: Sequence[int] | None = None,
        overrides: Mapping[str, Any] | None = None,
        drop_path: float = 0.0,
    ) -> None:
        """Build the encoder with random weights.

        Args:
            name: a key of `variants.VARIANTS`.
            bands: input bands.
            frames: dated frames per sample.
            tile: side of the input in pixels, a multiple of the patch.
            blocks: which blocks' tokens to return; four evenly spaced ones when None.
            overrides: configuration fields to change, such as {"depth": 2}.
            drop_path: share of samples that skip a block while training (stochastic depth, arXiv:1603.09382).

        Raises:
            InputError: unknown name or field, a block that is not there, a tile that patches do not divide.
        """
        super().__init__()
        from terratorch.models.backbones.prithvi_mae import PrithviViT

        fields = config(name, **(overrides or {}))
        patch = fields["patch_size"][-1]
        if tile % patch:
            raise InputError(f"tile {tile}: {name} wants a multiple of its patch, {patch} pixels")
        given = {"img_size": tile, "num_frames": frames, "in_chans": len(bands), "drop_path": drop_path}
        self.vit = PrithviViT(**fields | given)
        self.bands = tuple(bands)
        depth = len(self.vit.blocks)
        self.blocks = tuple(blocks) if blocks is not None else evenly_spaced(depth)
        if not self.blocks or not all(0 <= i < depth for i in self.blocks):
            raise InputError(f"blocks {list(self.blocks)}: {name} has blocks 0..{depth - 1}")

    @property
    def patch(self) -> tuple[int, int, int]:
        """Patch size (frames, rows, columns)."""
        return tuple(self.vit.patch_embed.patch_size)

    @property
    def dim(self) -> int:
        """Features per token (E)."""
        return int(self.vit.embed_dim)

    @property
    def uses_time(self) -> bool:
        """Whether the encoder has a time encoding (the TL variants)."""
        return bool(self.vit.temporal_encoding)

    @property
    def uses_location(self) -> bool:
        """Whether the encoder has a location encoding (the TL variants)."""
        return bool(self.vit.location_encoding)

    def through(self, block: nn.Module, tokens: Tensor, **given: Any) -> Tensor:
        """Tokens after a block, whose activations are forgotten until they are asked for where `recompute` says so."""
        if self.recompute and self.training and torch.is_grad_enabled():
            out: Tensor = checkpoint(block, tokens, use_reentrant=False, **given)
        else:
            out = block(tokens, **given)
        return out

    def freeze_unused(self, *, time: bool, location: bool) -> None:
        """Freeze what the output does not depend on: later blocks, and encodings that are not given."""
        last = max(self.blocks)
        unused = list(self.vit.blocks[last + 1 :])
        unused += [self.vit.norm] if last + 1 < len(self.vit.blocks) else []
        unused += [self.vit.temporal_embed_enc] if self.uses_time and not time else []
        unused += [self.vit.location_embed_enc] if self.uses_location and not location else []
        for module in unused:
            module.requires_grad_(False)

    def forward(self, x: Tensor, time: Tensor | None = None, location: Tensor | None = None) -> list[Tensor]:
        """Return the feature maps of the chosen blocks.

        Args:
            x: (B, C, T, H, W), normalised; H and W multiples of the patch, square or not.
            time: (B, T, 2) year and day of year from 0; None leaves the encoding out.
            location: (B, 2) latitude and longitude in degrees; None leaves the encoding out.

        Returns:
            One map per block, (B, T*E, H/patch, W/patch); the last block's is layer-normed, as in pretraining.
        """
        vit = self.vit
        grid = token_grid(x.shape[2], x.shape[3], x.shape[4], self.patch)
        tokens = self.embedded(x, time, location)  # (B, 1+N, E)
        maps = {}
        for i, block in enumerate(vit.blocks[: max(self.blocks) + 1]):
            tokens = self.through(block, tokens)
            if i in self.blocks:
                out = vit.norm(tokens) if i == len(vit.blocks) - 1 else tokens
                maps[i] = tokens_to_map(out[:, 1:], grid)
        return [maps[i] for i in self.blocks]

    def embedded(self, x: Tensor, time: Tensor | None = None, location: Tensor | None = None) -> Tensor:
        """The class token and the patches, with positions and encodings, as the first block gets them: (B, 1+N, E).

        Arguments as of `forward`.
        """
        vit = self.vit
        _, rows, columns = token_grid(x.shape[2], x.shape[3], x.shape[4], self.patch)
        position = vit.interpolate_pos_encoding(x.shape[-3:])  # (1, 1+N, E)
        tokens = vit.patch_embed(x) + position[:, 1:]  # (B, N, E)
        clock = vit.temporal_embed_enc if self.uses_time else None
        place = vit.location_embed_enc if self.uses_location else None
        tokens = tokens + encodings(clock, place, time, location, per_frame=rows * columns, like=tokens)
        first = (vit.cls_token + position[:, :1]).expand(x.shape[0], -1, -1)
        return torch.cat((first, tokens), dim=1)


def encodings(
    clock: nn.Module | None,
    place: nn.Module | None,
    time: Tensor | None,
    location: Tensor | None,
    *,
    per_frame: int,
    like: Tensor,
) -> Tensor | float:
    """Time and location encodings, computed in float32: in bfloat16 the years 2017 to 2020 are one number.

    Args:
        clock: terratorch's encoder of times, if there is one.
        place: terratorch's encoder of locations, if there is one.
        time: see `PrithviEO.forward`.
        location: see `PrithviEO.forward`.
        per_frame: tokens of a frame.
        like: the tokens that they are added to.

    Returns:
        What is to be added, (B, N or 1, E) in the type of the tokens; 0 without coordinates.
    """
    total: Tensor | float = 0.0
    with torch.autocast(like.device.type, enabled=False):
        if clock is not None and time is not None:
            total = total + clock(time.float(), per_frame).to(like.dtype)
        if place is not None and location is not None:
            total = total + place(location.float()).to(like.dtype)
    return total


def load_pretrained(
    backbone: PrithviEO, state: Mapping[str, Tensor], *, source: str, pretrained_bands: Sequence[str] = BANDS
) -> LoadReport:
    """Load a published or fine-tuned checkpoint into a backbone.

    Understands Prithvi V1 (no prefix), V2 (`encoder.`), `_timm_module.` and Lightning (`model.encoder.`) layouts; the
    MAE decoder and heads are left out. Position embeddings are the model's own: they are a fixed function of the grid.

    Args:
        backbone: the model to fill.
        state: tensors by name.
        source: the file's name, for messages.
        pretrained_bands: bands of the file's patch embedding, in its order.

    Returns:
        Where each band's weights came from.

    Raises:
        InputError: no Prithvi encoder in the file, another architecture, or no band in common (a total loss).
    """
    encoder = _encoder_part(state, source)
    wanted = dict(backbone.vit.state_dict())
    wanted.pop("pos_embed")
    kernel = encoder.pop("patch_embed.proj.weight")
    target = wanted.pop("patch_embed.proj.weight")
    _check_architecture(encoder, wanted, kernel, target, source)
    weight, bands = _patch_weights(kernel, target, backbone.bands, pretrained_bands, source)
    loaded = {key: encoder[key] for key in wanted} | {"patch_embed.proj.weight": weight}
    backbone.vit.load_state_dict(loaded, strict=False)  # strict but for pos_embed: both sides were compared above
    lost = [key.split("_")[0] for key in encoder if key.endswith("_enc.scale") and key not in wanted]
    names = (name.replace("temporal", "time") for name in lost)
    notes = tuple(f"the file's {name} encoding is left out: the backbone has none" for name in names)
    return LoadReport(bands, notes)


def _encoder_part(state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """The encoder's tensors with their prefix taken off, without position embeddings."""
    ends = [key for key in state if key.endswith("patch_embed.proj.weight")]
    if not ends:
        raise InputError(f"{source}: no Prithvi encoder in this file (no tensor named ...patch_embed.proj.weight)")
    prefix = min(ends, key=len).removesuffix("patch_embed.proj.weight")
    names = ("cls_token", "patch_embed.", "blocks.", "norm.", "temporal_embed_enc.", "location_embed_enc.")
    parts = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    return {key: value for key, value in parts.items() if key.startswith(names)}


def _check_architecture(
    encoder: Mapping[str, Tensor], wanted: Mapping[str, Tensor], kernel: Tensor, target: Tensor, source: str
) -> None:
    """Refuse a file that does not fill the model exactly; say which backbone it looks like."""
    missing = [key for key in wanted if key not in encoder]
    surplus = [key for key in encoder if key not in wanted and not key.endswith("_enc.scale")]
    shapes = [key for key in wanted if key in encoder and encoder[key].shape != wanted[key].shape]
    same_patch = kernel.ndim == 5 and kernel.shape[0] == target.shape[0] and kernel.shape[2:] == target.shape[2:]
    if not (missing or surplus or shapes) and same_patch:
        return
    depth = 1 + max((int(key.split(".")[1]) for key in encoder if key.startswith("blocks.")), default=-1)
    found = f"embedding {kernel.shape[0]}, {depth} blocks, patch {tuple(kernel.shape[2:])}"
    depth = 1 + max((int(key.split(".")[1]) for key in wanted if key.startswith("blocks.")), default=-1)
    want = f"embedding {target.shape[0]}, {depth} blocks, patch {tuple(target.shape[2:])}"
    detail = (missing or surplus or shapes or ["patch_embed.proj.weight"])[0]
    raise InputError(
        f"{source}: weights of another architecture: wanted {want}; came {found} (first difference: {detail}); "
        "choose the --backbone that these weights belong to"
    )


def _patch_weights(
    kernel: Tensor, target: Tensor, bands: Sequence[str], pretrained_bands: Sequence[str], source: str
) -> tuple[Tensor, dict[str, str]]:
    """Patch-embedding weights by band name, and what was done for each band."""
    if kernel.shape[1] != len(pretrained_bands):
        raise InputError(
            f"{source}: its patch embedding has {kernel.shape[1]} bands, {len(pretrained_bands)} were named "
            f"({', '.join(pretrained_bands)}); name them in the file's order with --pretrained_bands"
        )
    known = {band: i for i, band in enumerate(pretrained_bands)}
    if not any(band in known for band in bands):
        raise InputError(
            f"{source}: none of the bands {', '.join(bands)} was pretrained ({', '.join(pretrained_bands)}): the whole "
            "patch embedding would be lost; name bands as the backbone does, or use --weights random"
        )
    weight = torch.stack([kernel[:, known[b]] if b in known else kernel.mean(dim=1) for b in bands], dim=1)
    sources = {b: f"loaded from {b}" if b in known else "new: mean of the pretrained bands" for b in bands}
    return weight.to(target.dtype), sources
