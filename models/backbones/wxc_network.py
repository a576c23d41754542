"""What encoder and forecaster of Prithvi WxC share: the network of PrithviWxC, its parts called in grid order.

The published `forward` shuffles tokens even where nothing is masked.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.backbones.wxc_canvas import Canvas, from_units, to_units
from models.backbones.wxc_files import WxCConfig, WxCScalers
from models.backbones.wxc_inputs import TIME_TERMS, Batch
from models.errors import InputError

UNSCALED = 7  # entries of the static scalers before the static fields: three of position, four of time
POSITION = 3  # of those, the first three are not used by the fourier encoding


class Attention(nn.Module):
    """The published attention with padding left out; its kernel is whatever torch finds best.

    The published one picks kernels through a call that newer versions of torch warn of, and drops out in evaluation.
    """

    def __init__(self, published: Any) -> None:
        """Take the layers of a `PrithviWxC.model.MultiheadAttention` over."""
        super().__init__()
        self.qkv_layer = published.qkv_layer
        self.w_layer = published.w_layer
        self.heads = published.n_heads

    def forward(self, pair: tuple[Tensor, Tensor | None]) -> Tensor:
        """(B, P, S, E) and which tokens are valid (P, S) or None, to (B, P, S, E): attention along S."""
        x, valid = pair
        b, p, s, e = x.shape
        qkv = self.qkv_layer(x).reshape(b * p, s, self.heads, 3 * e // self.heads)  # -1 would be no size in a graph
        q, k, v = qkv.transpose(1, 2).chunk(3, dim=3)  # (B*P, heads, S, E/heads)
        mask = None
        if valid is not None:  # of a sequence that is padding altogether all of it, lest the softmax divide by zero
            keys = valid | ~valid.any(dim=-1, keepdim=True)
            mask = keys.repeat(b, 1)[:, None, None, :]  # (B*P, 1, 1, S)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        mixed: Tensor = self.w_layer(out.transpose(1, 2).reshape(b, p, s, e))
        return mixed


@dataclass(frozen=True)
class WxCInputs:
    """What a network takes.

    Attributes:
        channels: names of the channels in their order.
        static: names of the static fields in their order.
        times: time steps.
        climatology: whether the channels' climatology at the target time comes with them.
    """

    channels: tuple[str, ...]
    static: tuple[str, ...]
    times: int
    climatology: bool

    @classmethod
    def pretrained(cls, config: WxCConfig) -> WxCInputs:
        """What a published file was trained on."""
        return cls(config.channels, config.static, config.input_times, config.residual == "climate")

    @property
    def static_names(self) -> tuple[str, ...]:
        """Input channels of the static patch embedding in their order."""
        climate = tuple(f"climatology of {name}" for name in self.channels) if self.climatology else ()
        return (*TIME_TERMS, *self.static, *climate)


class WxCNetwork(nn.Module):
    """What encoder and forecaster share: the published network, and a batch's way into it and through it."""

    def __init__(
        self, config: WxCConfig, inputs: WxCInputs, scalers: WxCScalers | None, *, decoder: bool, recompute: bool
    ) -> None:
        """Build the parts for these inputs; `recompute` saves memory while training."""
        super().__init__()
        self.config, self.inputs, self.recompute = config, inputs, recompute
        self.scalers = scalers or WxCScalers({})
        self.net = _published(config, inputs, self.scalers, config.decoder_blocks if decoder else 0)

    @property
    def dim(self) -> int:
        """Features per token (E)."""
        return self.config.embed_dim

    @property
    def unit(self) -> tuple[int, int]:
        """Rows and columns of patches in a mask unit."""
        return self.config.mask_unit[0] // self.config.patch, self.config.mask_unit[1] // self.config.patch

    def canvas(self, batch: Batch) -> Canvas:
        """How a batch's region lies on whole mask units.

        Raises:
            InputError: something is missing from the batch, or its shapes are not those that the model takes.
        """
        _check(batch, self.inputs)
        return Canvas.of(batch, mask_unit=self.config.mask_unit, patch=self.config.patch)

    def embed(self, batch: Batch, canvas: Canvas) -> Tensor:
        """The tokens that enter the encoder, as a map of the canvas: (B, E, h, w)."""
        net, laid = self.net, canvas.lay_static(batch["static"].float())
        x = (canvas.lay(batch["x"].float()) - net.input_scalers_mu) / self._deviation()
        fields = laid[:, 2:] - net.static_input_scalers_mu[:, POSITION:]
        fields = fields / (net.static_input_scalers_sigma[:, POSITION:] + self.config.static_epsilon)
        if self.inputs.climatology:
            scaled = (canvas.lay(batch["climate"].float()) - net.input_scalers_mu[:, 0]) / self._deviation()[:, 0]
            fields = torch.cat((fields, scaled), dim=1)
        kind = net.patch_embedding.proj.weight.dtype
        tokens = net.patch_embedding(x.flatten(1, 2).to(kind)) + net.patch_embedding_static(fields.to(kind))
        with torch.autocast(x.device.type, enabled=False):  # frequencies up to E/4 need float32
            places = net.fourier_pos_encoding(laid) + self._times(batch)[:, :, None, None]
        embedded: Tensor = tokens + places.to(tokens.dtype)
        return embedded

    def _deviation(self) -> Tensor:
        deviation: Tensor = self.net.input_scalers_sigma + self.config.input_epsilon
        return deviation

    def _times(self, batch: Batch) -> Tensor:
        """The code of input and lead time, (B, E)."""
        layers = (self.net.input_time_embedding, self.net.lead_time_embedding)
        hours = (batch["input_time"].float(), batch["lead_time"].float())
        pairs = zip(hours, layers, strict=True)
        codes = [F.linear(h.reshape(-1, 1), m.weight.float(), m.bias.float()) for h, m in pairs]
        return torch.cat([wave(code) for wave in (torch.cos, torch.sin) for code in codes], dim=1)

    def _through(
        self, stack: Any, x: Tensor, canvas: Canvas, *, shifting: bool, keep: Collection[int] = ()
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """Run the transformers of an encoder or decoder over units (B, G, L, E).

        Returns:
            The units after the last one, and the maps (B, E, h, w) of the canvas after those in `keep`.
        """
        grid, half = canvas.grid, (self.unit[0] // 2, self.unit[1] // 2)
        valid, shifted, maps = canvas.valid(x.device), False, {}
        for i, transformer in enumerate(stack.lgl_block.transformers):
            seen = None if valid is None else to_units(valid[None, None], self.unit)[0, :, :, 0]  # (G, L)
            if i % 2:  # every other one is global: over the tokens that lie alike in their units
                x, seen = x.transpose(1, 2), None if seen is None else seen.T
            x = self._step(transformer, x, seen)
            if i % 2:
                x = x.transpose(1, 2)
            if i in keep:
                maps[i] = _rolled(from_units(x, self.unit, grid), half, -1 if shifted else 0)
            if i % 2 and shifting:
                turn = -1 if shifted else 1
                x = to_units(_rolled(from_units(x, self.unit, grid), half, turn), self.unit)
                valid = None if valid is None else _rolled(valid, half, turn)
                shifted = not shifted
        return x, maps

    def _step(self, transformer: nn.Module, x: Tensor, valid: Tensor | None) -> Tensor:
        if self.recompute and torch.is_grad_enabled():
            out: Tensor = checkpoint(transformer, (x, valid), use_reentrant=False)
        else:
            out = transformer((x, valid))
        return out


def _rolled(x: Tensor, half: tuple[int, int], turns: int) -> Tensor:
    return x if not turns else x.roll((turns * half[0], turns * half[1]), dims=(-2, -1))


def _published(config: WxCConfig, inputs: WxCInputs, scalers: WxCScalers, decoder_blocks: int) -> Any:
    """PrithviWxC's network on its smallest grid (no weight depends on the grid), with our attention in it."""
    from PrithviWxC import model as published

    net = published.PrithviWxC(
        in_channels=len(inputs.channels),
        input_size_time=inputs.times,
        in_channels_static=len(TIME_TERMS) + len(inputs.static),
        **scaler_tensors(inputs, scalers),
        input_scalers_epsilon=config.input_epsilon,
        static_input_scalers_epsilon=config.static_epsilon,
        n_lats_px=config.mask_unit[0],
        n_lons_px=config.mask_unit[1],
        patch_size_px=(config.patch, config.patch),
        mask_unit_size_px=config.mask_unit,
        mask_ratio_inputs=0.0,
        mask_ratio_targets=0.0,
        embed_dim=config.embed_dim,
        n_blocks_encoder=config.encoder_blocks,
        n_blocks_decoder=decoder_blocks,
        mlp_multiplier=config.mlp_multiplier,
        n_heads=config.heads,
        dropout=0.0,
        drop_path=0.0,
        parameter_dropout=0.0,
        residual="climate" if inputs.climatology else "none",
        masking_mode="global",
        positional_encoding="fourier",
    )
    net.mask_token.requires_grad_(False)  # nothing is masked
    for stack in (net.encoder, getattr(net, "decoder", None)):
        if stack is not None:
            stack.lgl_block.evaluator = []  # its lambdas cannot be pickled, and nothing here calls them
            for transformer in stack.lgl_block.transformers:
                transformer.attention[1] = Attention(transformer.attention[1])
    return net


def scaler_tensors(inputs: WxCInputs, scalers: WxCScalers) -> dict[str, Tensor]:
    """The published constructor's scalers; mean 0 and deviation 1 for what none are given for."""
    pairs, fields = [[scalers.inputs.get(n, (0.0, 1.0)) for n in names] for names in (inputs.channels, inputs.static)]
    values = {
        "input_scalers_mu": [mean for mean, _ in pairs],
        "input_scalers_sigma": [std for _, std in pairs],
        "static_input_scalers_mu": [0.0] * UNSCALED + [mean for mean, _ in fields],
        "static_input_scalers_sigma": [1.0] * UNSCALED + [std for _, std in fields],
        "output_scalers": [scalers.anomalies.get(name, 1.0) for name in inputs.channels],
    }
    return {key: torch.tensor(value, dtype=torch.float32, device="cpu") for key, value in values.items()}


def _check(batch: Batch, inputs: WxCInputs) -> None:
    """Refuse a batch that the model cannot take."""
    needed = ["x", "static", "input_time", "lead_time"] + (["climate"] if inputs.climatology else [])
    missing = [key for key in needed if key not in batch]
    if missing:
        hint = "; an encoder without takes climatology=False" if "climate" in missing else ""
        raise InputError(f"batch: no {', '.join(missing)}; came {', '.join(batch)}{hint}")
    samples, grid = batch["x"].shape[0], tuple(batch["x"].shape[-2:])
    shapes: dict[str, tuple[int, ...]] = {
        "x": (samples, inputs.times, len(inputs.channels), *grid),
        "static": (samples, 2 + len(TIME_TERMS) + len(inputs.static), *grid),
        "climate": (samples, len(inputs.channels), *grid),
        "input_time": (samples,),
        "lead_time": (samples,),
    }
    for key in needed:
        if tuple(batch[key].shape) != shapes[key]:
            raise InputError(f"batch: {key} has the shape {tuple(batch[key].shape)}, wanted {shapes[key]}")
