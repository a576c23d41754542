"""Rain from weather fields: Prithvi WxC tokens beside a full-resolution path, and quantiles on top."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from models.errors import InputError
from models.prithvi_wxc import WxCEncoder
from models.quantiles import QuantileHead, exceedance, expectation
from models.rain_spec import RainArchitecture, RainSpec
from models.wxc_canvas import Canvas
from models.wxc_files import WxCConfig, WxCScalers, published_config
from models.wxc_inputs import TIME_TERMS, Batch

LIMIT = 6.0  # deviations beyond which a field says no more: another day may lie far outside of the training's


def encoder_config(backbone: str, architecture: RainArchitecture) -> WxCConfig:
    """The configuration of a backbone without its decoder, with the architecture's overrides.

    Raises:
        InputError: no such backbone, or a field that its configuration does not have.
    """
    changes = dict(architecture.overrides)
    unknown = set(changes) - {f.name for f in dataclasses.fields(WxCConfig)}
    if unknown:
        raise InputError(f"model.overrides: {', '.join(sorted(unknown))} is no field of Prithvi WxC's configuration")
    if "mask_unit" in changes:
        changes["mask_unit"] = tuple(changes["mask_unit"])
    return dataclasses.replace(published_config(backbone), decoder_blocks=0, **changes)


class RainNetwork(nn.Module):
    """An ensemble over one encoder.

    Attributes:
        backbone: the encoder.
        members: networks whose quantiles are averaged.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, spec: RainSpec, backbone: str, architecture: RainArchitecture, *, pretrained: bool = False
    ) -> None:
        """Build with random weights.

        Args:
            spec: what the model eats and says.
            backbone: a name of `variants.WXC_VARIANTS`.
            architecture: what else builds it.
            pretrained: the encoder will be given pretrained weights, and keeps the scalers of the channels it knows.

        Raises:
            InputError: see `encoder_config`.
        """
        super().__init__()
        self.spec, config = spec, encoder_config(backbone, architecture)
        measured = dict(zip(spec.channels, zip(spec.mean, spec.std, strict=True), strict=True))
        known = set(config.channels) if pretrained else set()
        scalers = WxCScalers({name: pair for name, pair in measured.items() if name not in known})
        self.backbone = WxCEncoder(
            config, channels=spec.channels, static=(), times=spec.times, climatology=False, scalers=scalers
        )
        self.members = nn.ModuleList(Member(spec, config, architecture) for _ in range(architecture.members))
        shape = (1, 1, len(spec.channels), 1, 1)
        self.register_buffer("mean", torch.tensor(spec.mean).reshape(shape), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).reshape(shape), persistent=False)

    def forward(self, batch: Batch) -> Tensor:
        """Quantiles of each member, (M, B, Q, H, W) in mm/h, of a batch as `wxc_inputs.make_batch` builds it.

        Raises:
            InputError: the batch lacks something, or has shapes that the model does not take.
        """
        fields = ((batch["x"].float() - self.mean) / self.std).clamp(-LIMIT, LIMIT)  # (B, T, C, H, W)
        batch = batch | {"x": fields * self.std + self.mean, "static": self._placed(batch["static"])}
        canvas = self.backbone.canvas(batch)
        tokens = self.backbone(batch)[-1]  # (B, E, h, w)
        lead = batch["lead_time"].float()
        return torch.stack([self.spec.scale * m(fields.flatten(1, 2), tokens, lead, canvas) for m in self.members])

    def predict(self, batch: Batch) -> Tensor:
        """Quantiles (B, Q, H, W): the members' averaged, which is their distribution's barycentre (Vincent 1912)."""
        with torch.inference_mode():
            quantiles: Tensor = self(batch).mean(dim=0)
        return quantiles

    def _placed(self, static: Tensor) -> Tensor:
        """Latitude, longitude and time as they are, or the same for all where the model is not to know them."""
        if self.spec.position:
            return static
        static = static.clone()
        static[:, :2] = static[:, :2] - static[:, :2].mean(dim=(2, 3), keepdim=True)
        static[:, 2 : 2 + len(TIME_TERMS)] = 0.0
        return static


class Member(nn.Module):
    """Convolutions over the fields at full resolution that take the tokens in half way."""

    def __init__(self, spec: RainSpec, config: WxCConfig, architecture: RainArchitecture) -> None:
        """Build for a Spec's channels and an encoder's tokens."""
        super().__init__()
        width, tokens, drop = architecture.detail, architecture.channels, architecture.dropout
        self.token_dropout, patch = architecture.token_dropout, config.patch
        self.before = nn.Sequential(
            _block(spec.times * len(spec.channels), width, drop), _block(width, width, drop, dilation=2)
        )
        self.lead = nn.Linear(1, width)
        self.neck = nn.Sequential(nn.Conv2d(config.embed_dim, tokens * patch**2, 1), nn.PixelShuffle(patch), nn.GELU())
        self.after = nn.Sequential(_block(width + tokens, width, drop, dilation=4), _block(width, width, drop))
        self.head = QuantileHead(width, spec.levels)

    def forward(self, fields: Tensor, tokens: Tensor, lead: Tensor, canvas: Canvas) -> Tensor:
        """Fields (B, T*C, H, W), tokens (B, E, h, w) and lead hours (B,) to quantiles (B, Q, H, W) in scales."""
        detail = self.before(fields) + self.lead(lead[:, None] / 24)[:, :, None, None]
        coarse = self._dropped(canvas.crop(self.neck(tokens.float())))  # (B, tokens, H, W)
        quantiles: Tensor = self.head(self.after(torch.cat((detail, coarse), dim=1)))
        return quantiles

    def _dropped(self, x: Tensor) -> Tensor:
        """Leave the tokens out of some samples while training, as dropout does with features."""
        if not self.training or not self.token_dropout:
            return x
        kept = torch.rand(len(x), 1, 1, 1, device=x.device) >= self.token_dropout
        return x * kept.to(x.dtype) / (1 - self.token_dropout)


def _block(inputs: int, outputs: int, drop: float, *, dilation: int = 1) -> nn.Sequential:
    """A convolution that continues the fields beyond their edge by the edge's values."""
    convolution = nn.Conv2d(inputs, outputs, 3, padding=dilation, dilation=dilation, padding_mode="replicate")
    return nn.Sequential(convolution, nn.GELU(), nn.Dropout2d(drop))


def derived(quantiles: Tensor, spec: RainSpec) -> dict[str, Tensor]:
    """What maps show of quantiles (B, Q, H, W): each quantile, the mean and the exceedances, by name (B, H, W)."""
    maps = {f"quantile {level:g}": quantiles[:, i] for i, level in enumerate(spec.levels)}
    maps["mean"] = expectation(quantiles, spec.levels)
    return maps | {f"P(rain > {t:g} mm/h)": exceedance(quantiles, spec.levels, t) for t in spec.thresholds}
