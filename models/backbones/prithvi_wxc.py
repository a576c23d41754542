"""Prithvi WxC, whole or encoder only: built by PrithviWxC, run without masking, loaded with a report of its channels.

The published `forward` shuffles tokens even where nothing is masked; here its parts are called in grid order.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.backbones.hub import read_state_dict
from models.backbones.loading import LoadReport
from models.backbones.wxc_canvas import Canvas, from_units, to_units
from models.backbones.wxc_files import WxCConfig, WxCFiles, WxCScalers, as_safetensors, read_scalers
from models.backbones.wxc_inputs import TIME_TERMS, Batch
from models.errors import InputError

KERNEL, STATIC_KERNEL = "patch_embedding.proj.weight", "patch_embedding_static.proj.weight"
SCALERS = (
    *("input_scalers_mu", "input_scalers_sigma", "static_input_scalers_mu", "static_input_scalers_sigma"),
    "output_scalers",
)
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
        qkv = self.qkv_layer(x).reshape(b * p, s, self.heads, -1).transpose(1, 2)  # (B*P, heads, S, 3*E/heads)
        q, k, v = qkv.chunk(3, dim=3)
        mask = None if valid is None else _keys(valid).repeat(b, 1)[:, None, None, :]  # (B*P, 1, 1, S)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        mixed: Tensor = self.w_layer(out.transpose(1, 2).reshape(b, p, s, e))
        return mixed


def _keys(valid: Tensor) -> Tensor:
    """The keys to attend to; where a sequence is padding altogether all of it, lest the softmax divide by zero."""
    return valid | ~valid.any(dim=-1, keepdim=True)


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


class _Network(nn.Module):
    """What encoder and forecaster share: the published network, and a batch's way into it and through it."""

    def __init__(
        self, config: WxCConfig, inputs: WxCInputs, scalers: WxCScalers | None, *, decoder: bool, recompute: bool
    ) -> None:
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
        codes = [
            F.linear(h.reshape(-1, 1), m.weight.float(), m.bias.float()) for h, m in zip(hours, layers, strict=True)
        ]
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
        **_scaler_tensors(inputs, scalers),
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


def _scaler_tensors(inputs: WxCInputs, scalers: WxCScalers) -> dict[str, Tensor]:
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
    samples, grid = len(batch["x"]), tuple(batch["x"].shape[-2:])
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


class WxCEncoder(_Network):
    """The encoder of Prithvi WxC over the pretrained channels or any others.

    Attributes:
        net: PrithviWxC's network without decoder, whose `state_dict` keys are those of the published files.
        config: the architecture.
        inputs: channels, static fields and times that it takes.
        blocks: indices of the transformers whose tokens come out.
    """

    def __init__(
        self,
        config: WxCConfig | None = None,
        *,
        channels: Sequence[str] | None = None,
        static: Sequence[str] | None = None,
        times: int | None = None,
        climatology: bool | None = None,
        scalers: WxCScalers | None = None,
        blocks: Sequence[int] | None = None,
        recompute: bool = False,
    ) -> None:
        """Build the encoder with random weights, or without memory for them under `torch.device("meta")`.

        Args:
            config: the architecture; that of 2300M when None.
            channels: input channels, by any names; the pretrained ones when None, as for the next three.
            static: static fields.
            times: time steps.
            climatology: whether a climatology of the channels comes with them.
            scalers: means and deviations of channels and static fields. Where none are given they are 0 and 1 until
                `load_pretrained` takes those of the file.
            blocks: which transformers' tokens to return; the last one's when None.
            recompute: save memory while training: forget activations and compute them again.

        Raises:
            InputError: a block that is not there.
        """
        config = config or WxCConfig()
        known = WxCInputs.pretrained(config)
        inputs = WxCInputs(
            known.channels if channels is None else tuple(channels),
            known.static if static is None else tuple(static),
            times or known.times,
            known.climatology if climatology is None else climatology,
        )
        super().__init__(config, inputs, scalers, decoder=False, recompute=recompute)
        depth = 2 * config.encoder_blocks + 1
        self.blocks = tuple(blocks) if blocks is not None else (depth - 1,)
        if not self.blocks or not all(0 <= i < depth for i in self.blocks):
            raise InputError(f"blocks {list(self.blocks)}: the encoder has blocks 0..{depth - 1}")

    def forward(self, batch: Batch) -> list[Tensor]:
        """Return the feature maps of the chosen transformers.

        Args:
            batch: as `wxc_inputs.make_batch` builds it; rows in either direction, any height and width. What mask
                units do not divide is padded and masked inside (see `Canvas`).

        Returns:
            One map per block, (B, E, ceil(H/patch), ceil(W/patch)), rows in the batch's direction. Where the height is
            odd, patches count from the south; `canvas(batch).crop` cuts pixels made from them.

        Raises:
            InputError: the batch lacks something, or has shapes that the model does not take.
        """
        canvas = self.canvas(batch)
        units = to_units(self.embed(batch, canvas), self.unit)
        shifting = self.config.encoder_shifting
        _, maps = self._through(self.net.encoder, units, canvas, shifting=shifting, keep=self.blocks)
        return [canvas.take_patches(maps[i]) for i in self.blocks]


class WxCForecaster(_Network):
    """The whole Prithvi WxC.

    Attributes:
        net: PrithviWxC's network, whose `state_dict` keys are those of the published files.
        config: the architecture.
        inputs: channels, static fields and times that it takes; it returns the same channels.
    """

    def __init__(
        self, config: WxCConfig | None = None, *, scalers: WxCScalers | None = None, recompute: bool = False
    ) -> None:
        """Build the model with random weights, or without memory for them under `torch.device("meta")`.

        Args:
            config: the architecture; that of 2300M when None.
            scalers: of channels, static fields and anomalies. Where none are given means are 0 and deviations 1 until
                `load_pretrained` takes those of the file.
            recompute: save memory while training: forget activations and compute them again.

        Raises:
            InputError: an architecture without decoder.
        """
        config = config or WxCConfig()
        if not config.decoder_blocks:
            raise InputError("decoder_blocks 0: a forecast wants a decoder; WxCEncoder does without")
        super().__init__(config, WxCInputs.pretrained(config), scalers, decoder=True, recompute=recompute)

    def forward(self, batch: Batch) -> Tensor:
        """Forecast the channels at the target time.

        The network's output times the deviation of anomalies is added to the climatology (residual "climate"), to the
        last input ("temporal"; to the first at lead 0) or to the mean ("none"), as in the published code.

        Args:
            batch: as `wxc_inputs.make_batch` builds it; rows in either direction, any height and width. What mask
                units do not divide is padded and masked inside (see `Canvas`).

        Returns:
            (B, C, H, W) in physical units, float32, rows in the batch's direction. `wxc_inputs.advance` makes the next
            step's batch of it.

        Raises:
            InputError: the batch lacks something, or has shapes that the model does not take.
        """
        canvas, config = self.canvas(batch), self.config
        units = to_units(self.embed(batch, canvas), self.unit)
        units, _ = self._through(self.net.encoder, units, canvas, shifting=config.encoder_shifting)
        units, _ = self._through(self.net.decoder, units, canvas, shifting=config.decoder_shifting)
        patches = from_units(self.net.unembed(units), self.unit, canvas.grid)  # (B, C*patch*patch, h, w)
        pixels = canvas.take(F.pixel_shuffle(patches, config.patch)).float()  # (B, C, H, W)
        forecast: Tensor = self.net.output_scalers * pixels + self._start(batch)
        return forecast

    def _start(self, batch: Batch) -> Tensor:
        """What the scaled output is added to."""
        if self.config.residual == "climate":
            return batch["climate"].float()
        if self.config.residual == "temporal":
            ahead = (batch["lead_time"] > 0).reshape(-1, 1, 1, 1)
            return torch.where(ahead, batch["x"][:, -1], batch["x"][:, 0]).float()
        mean: Tensor = self.net.input_scalers_mu[:, 0]
        return mean


# ---------------------------------------------------------------- weights


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
    loaded |= {key: value.reshape(wanted[key].shape) for key, value in _scaler_tensors(inputs, scalers).items()}
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
    odd = [name for name, pair in own.inputs.items() if _differ(pair, fallback.inputs.get(name, pair))]
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


def _differ(one: tuple[float, float], other: tuple[float, float]) -> bool:
    """Whether two means are more than a hundredth of the deviation apart, or two deviations a hundredth of it."""
    return max(abs(one[0] - other[0]), abs(one[1] - other[1])) > 0.01 * one[1]


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
