"""What networks over weather fields share: normalised fields, Prithvi WxC's tokens, and convolutions beside them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from models.backbones.prithvi_wxc import WxCEncoder
from models.backbones.wxc_canvas import Canvas
from models.backbones.wxc_files import WxCConfig, WxCScalers, published_config
from models.backbones.wxc_inputs import TIME_TERMS, Batch
from models.errors import InputError
from models.spec import WEATHER, Cells, Spec
from models.training.settings import WeatherArchitecture

LIMIT = 6.0  # deviations beyond which a field says no more: another day may lie far outside of the training's


def encoder_config(backbone: str, architecture: WeatherArchitecture) -> WxCConfig:
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


def inputs_told(given: Cells, backbone: str, architecture: WeatherArchitecture) -> str:
    """How much of what a backbone was made for its encoder is given, in a line.

    Raises:
        InputError: see `encoder_config`.
    """
    config = encoder_config(backbone, architecture)
    known, times = set(config.channels), min(given.times, config.input_times)
    here = sum(name in known for name in given.channels)
    fields = [name for name in config.static if name in given.static]
    normal = here if given.climatology else 0
    placed = len(TIME_TERMS) if given.position else 0
    static, every = placed + len(fields) + normal, len(TIME_TERMS) + len(config.static) + len(known)
    parts = [f"time {placed} of {len(TIME_TERMS)}", f"fields {len(fields)} of {len(config.static)}"]
    parts += [f"climatology {normal} of {len(known)}", f"place {'given' if given.position else 'left out'}"]
    more = len(given.channels) - here
    dynamic = f"{times * here} of {config.input_times * len(known)} dynamic channels"
    seen = f"{here} at {times} of {config.input_times} times"
    others = f", and {more} that it was not made for" if more else ""
    return (
        f"Prithvi WxC's encoder is given {dynamic} ({seen}) and {static} of {every} static ones "
        f"({', '.join(parts)}){others}."
    )


class WeatherNetwork(nn.Module):
    """An encoder over fields, for an ensemble on top of it.

    Attributes:
        losses: names of the losses that `loss` adds up; the first is the default.
        member: what the ensemble consists of.
        backbone: the encoder.
        members: the ensemble, whose answers are averaged.
    """

    losses: ClassVar[tuple[str, ...]]
    member: ClassVar[type[Trunk]]
    mean: Tensor
    std: Tensor

    def __init__(
        self, spec: Spec, backbone: str, architecture: WeatherArchitecture, *, pretrained: bool = False
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
        self.spec, given = spec, spec.weather
        config = encoder_config(backbone, architecture)
        names, mean = (*given.channels, *given.static), (*given.mean, *given.static_mean)
        measured = dict(zip(names, zip(mean, (*given.std, *given.static_std), strict=True), strict=True))
        known = {*config.channels, *config.static} if pretrained else set()
        scalers = WxCScalers({name: pair for name, pair in measured.items() if name not in known})
        self.backbone = WxCEncoder(
            config,
            channels=given.channels,
            static=given.static,
            times=given.times,
            climatology=given.climatology,
            scalers=scalers,
        )
        self.members = nn.ModuleList(self.member(spec, config, architecture) for _ in range(architecture.members))
        shape = (1, 1, len(given.channels), 1, 1)
        self.register_buffer("mean", torch.tensor(given.mean).reshape(shape), persistent=False)
        self.register_buffer("std", torch.tensor(given.std).reshape(shape), persistent=False)

    def encoded(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Canvas]:
        """Normalised fields (B, T*C, H, W), tokens (B, E, h, w), lead hours (B,), and how the tokens lie.

        Raises:
            InputError: the batch lacks something, or has shapes that the model does not take.
        """
        fields = self.normalised(batch[WEATHER])
        batch = batch | {"x": fields * self.std + self.mean, "static": self._placed(batch["static"])}
        canvas = self.backbone.canvas(batch)
        return fields.flatten(1, 2), self.backbone(batch)[-1], batch["lead_time"].float(), canvas

    def normalised(self, fields: Tensor) -> Tensor:
        """Fields (B, T, C, H, W) in deviations of the training, those far outside of it at a limit."""
        return ((fields.float() - self.mean) / self.std).clamp(-LIMIT, LIMIT)

    def begin(self, items: Iterable[Mapping[str, Any]]) -> None:
        """Learn what is learned before the training from items as `samples.fields` gives them; nothing, usually."""

    def predict(self, batch: Batch) -> Tensor:
        """What the members say together, (B, ...)."""
        with torch.inference_mode():
            return self.averaged(self(batch))

    def averaged(self, answers: Tensor) -> Tensor:
        """Answers of the members (M, B, ...) as one (B, ...): their mean."""
        return answers.mean(dim=0)

    def loss(self, answer: Tensor, y: Tensor, weights: Mapping[str, float]) -> Tensor:
        """The losses of answers (B, ...) added up by weights, in scales; y (B, H, W), NaN where not known."""
        raise NotImplementedError

    def apart(self, answer: Tensor, wanted: Tensor) -> Tensor:
        """How far answers (B, ...) are from those of another model, in scales."""
        raise NotImplementedError

    def expected(self, answer: Tensor) -> Tensor:
        """The mean (B, H, W) that answers (B, ...) stand for."""
        raise NotImplementedError

    def _placed(self, static: Tensor) -> Tensor:
        """Latitude, longitude and time as they are, or the same for all where the model is not to know them."""
        if self.spec.weather.position:
            return static
        static = static.clone()
        static[:, :2] = static[:, :2] - static[:, :2].mean(dim=(2, 3), keepdim=True)
        static[:, 2 : 2 + len(TIME_TERMS)] = 0.0
        return static


class Trunk(nn.Module):
    """Convolutions over the fields at their resolution that take the tokens in half way."""

    def __init__(self, spec: Spec, config: WxCConfig, architecture: WeatherArchitecture) -> None:
        """Build for a Spec's channels and an encoder's tokens."""
        super().__init__()
        width, tokens, drop = architecture.detail, architecture.channels, architecture.dropout
        self.token_dropout, patch = architecture.token_dropout, config.patch
        self.before = nn.Sequential(
            block(spec.weather.times * len(spec.weather.channels), width, drop), block(width, width, drop, dilation=2)
        )
        self.lead = nn.Linear(1, width)
        self.neck = nn.Sequential(nn.Conv2d(config.embed_dim, tokens * patch**2, 1), nn.PixelShuffle(patch), nn.GELU())
        self.after = nn.Sequential(block(width + tokens, width, drop, dilation=4), block(width, width, drop))

    def features(self, fields: Tensor, tokens: Tensor, lead: Tensor, canvas: Canvas) -> Tensor:
        """What `WeatherNetwork.encoded` gives, to features (B, detail, H, W)."""
        detail = self.before(fields) + self.lead(lead[:, None] / 24)[:, :, None, None]
        coarse = self._dropped(canvas.crop(self.neck(tokens.float())))  # (B, tokens, H, W)
        features: Tensor = self.after(torch.cat((detail, coarse), dim=1))
        return features

    def _dropped(self, x: Tensor) -> Tensor:
        """Leave the tokens out of some samples while training, as dropout does with features."""
        if not self.training or not self.token_dropout:
            return x
        kept = torch.rand(len(x), 1, 1, 1, device=x.device) >= self.token_dropout
        return x * kept.to(x.dtype) / (1 - self.token_dropout)


def block(inputs: int, outputs: int, drop: float, *, dilation: int = 1) -> nn.Sequential:
    """A convolution that continues the fields beyond their edge by the edge's values."""
    convolution = nn.Conv2d(inputs, outputs, 3, padding=dilation, dilation=dilation, padding_mode="replicate")
    return nn.Sequential(convolution, nn.GELU(), nn.Dropout2d(drop))
