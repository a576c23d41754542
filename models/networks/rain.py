"""Rain from weather fields: Prithvi WxC tokens beside a full-resolution path, and quantiles on top."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from models.backbones.wxc_canvas import Canvas
from models.backbones.wxc_files import WxCConfig
from models.backbones.wxc_inputs import Batch
from models.networks.quantiles import QuantileHead, expectation, pinball_loss
from models.networks.weather import Trunk, WeatherNetwork
from models.spec import Spec
from models.training.settings import WeatherArchitecture


class Member(Trunk):
    """A trunk with quantiles on top."""

    def __init__(self, spec: Spec, config: WxCConfig, architecture: WeatherArchitecture) -> None:
        """Build for a Spec's channels and an encoder's tokens."""
        super().__init__(spec, config, architecture)
        self.head = QuantileHead(architecture.detail, spec.field.levels)

    def forward(self, fields: Tensor, tokens: Tensor, lead: Tensor, canvas: Canvas) -> Tensor:
        """What `WeatherNetwork.encoded` gives, to quantiles (B, Q, H, W) in scales."""
        quantiles: Tensor = self.head(self.features(fields, tokens, lead, canvas))
        return quantiles


class RainNetwork(WeatherNetwork):
    """Quantiles of rain."""

    losses = ("pinball", "mse")
    member = Member

    def forward(self, batch: Batch) -> Tensor:
        """Quantiles of each member, (M, B, Q, H, W) in mm/h, of a batch as `samples.fields` builds it.

        Raises:
            InputError: the batch lacks something, or has shapes that the model does not take.
        """
        encoded = self.encoded(batch)
        return torch.stack([self.spec.field.scale * member(*encoded) for member in self.members])

    def loss(self, answer: Tensor, y: Tensor, weights: Mapping[str, float]) -> Tensor:
        """The pinball loss, and the squared error of the mean, in scales of the training rain."""
        told, known = self.spec.field, y.isfinite()
        loss = weights.get("pinball", 0.0) * pinball_loss(answer, y, told.levels) / told.scale
        if "mse" in weights:
            error = (self.expected(answer) - y)[known] / told.scale
            loss = loss + weights["mse"] * error.square().mean()
        total: Tensor = loss
        return total

    def expected(self, answer: Tensor) -> Tensor:
        """The mean of quantiles (B, Q, H, W): (B, H, W)."""
        mean: Tensor = expectation(answer, self.spec.field.levels)
        return mean
