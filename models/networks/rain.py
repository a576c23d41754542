"""Rain from weather fields: Prithvi WxC tokens and a full-resolution path, trees beside them, quantiles on top."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.backbones.wxc_canvas import Canvas
from models.backbones.wxc_files import WxCConfig
from models.backbones.wxc_inputs import Batch
from models.networks.forest import Forests
from models.networks.quantiles import Shape, expectation, latent, pinball_loss
from models.networks.surroundings import Surroundings
from models.networks.weather import Trunk, WeatherNetwork
from models.spec import WEATHER, Spec
from models.training.processes import mean_of_all
from models.training.settings import WeatherArchitecture

PENALTY = 1e-3  # of the ridge, in shares of the fields' variance
CELLS = 1 << 14  # that walk down the trees at once: a globe has two hundred thousand
FAINT = 1e-3  # mean of what is added to a dry member, in scales
LEAK = 0.1  # slope of the loss in quantiles below zero, so that a cell that is thought dry can be told of its rain


class Member(Trunk):
    """A trunk that tells each cell's parts of a distribution."""

    def __init__(self, spec: Spec, config: WxCConfig, architecture: WeatherArchitecture) -> None:
        """Build for a Spec's channels and an encoder's tokens; what it tells starts small."""
        super().__init__(spec, config, architecture)
        self.head = _silent(nn.Conv2d(architecture.detail, Shape.PARTS, 1))
        nn.init.normal_(self.head.weight, std=0.1)  # from 0 a few hundred steps learn less
        self.shape = Shape(spec.field.levels)

    def forward(self, fields: Tensor, tokens: Tensor, lead: Tensor, canvas: Canvas, base: Tensor) -> Tensor:
        """What `WeatherNetwork.encoded` gives and the latent base (B, 1, H, W), to quantiles (B, Q, H, W) in scales."""
        parts: Tensor = self.head(self.features(fields, tokens, lead, canvas))
        quantiles: Tensor = self.shape(parts + functional.pad(base, (0, 0, 0, 0, 0, Shape.PARTS - 1)))
        return quantiles


class RainTrees(nn.Module):
    """Boosted trees that say of each cell's surroundings how much rain there is; grown by `training.forests`.

    Attributes:
        rounds: of each boosting.
    """

    def __init__(self, spec: Spec, rounds: int) -> None:
        """Make room for trees."""
        super().__init__()
        self.rounds = rounds
        self.rows = Surroundings(spec.weather.mean, spec.weather.std)
        self.forest = Forests(spec.weather.times * len(spec.weather.channels) * Surroundings.KINDS, 1)

    def forward(self, fields: Tensor) -> Tensor:
        """Fields (B, T, C, H, W) to rain (B, H, W) in scales, never below 0."""
        rows = self.rows(fields)
        parts = [rows] if torch.compiler.is_exporting() else rows.split(CELLS)
        return torch.cat([self.forest(part) for part in parts]).clamp(min=0).reshape(-1, *fields.shape[3:])


class RainNetwork(WeatherNetwork):
    """Quantiles of rain, as what a ridge regression of each cell on its own fields leaves out.

    Attributes:
        trees: a member that says the mean alone, and is not trained with the others; None where there is none.
        share: its weight in the mean.
    """

    losses = ("pinball", "mse")
    member = Member

    def __init__(
        self, spec: Spec, backbone: str, architecture: WeatherArchitecture, *, pretrained: bool = False
    ) -> None:
        """Build with random weights, see `WeatherNetwork`; the base is 0 until `begin` fits it."""
        super().__init__(spec, backbone, architecture, pretrained=pretrained)
        channels = spec.weather.times * len(spec.weather.channels)
        self.base = _silent(nn.Conv2d(channels, 1, 1)).requires_grad_(False)
        self.trees = RainTrees(spec, architecture.rounds) if architecture.rounds else None
        self.share = architecture.share

    def forward(self, batch: Batch) -> Tensor:
        """Quantiles of each member, (M, B, Q, H, W) in the unit of the Spec, of a batch as `samples.fields` builds it.

        Raises:
            InputError: the batch lacks something, or has shapes that the model does not take.
        """
        encoded = self.encoded(batch)
        base = self.base(encoded[0]).float()
        return torch.stack([self.spec.field.scale * member(*encoded, base) for member in self.members])

    def predict(self, batch: Batch) -> Tensor:
        """What the members say together, moved towards what the trees say, (B, Q, H, W)."""
        with torch.inference_mode():
            told = self(batch)
            return self.averaged(told if self.trees is None else self._moved(told, self.trees(batch[WEATHER])))

    def _moved(self, told: Tensor, trees: Tensor) -> Tensor:
        """Quantiles (M, B, Q, H, W) stretched until their mean has come by `share` towards the trees' (B, H, W).

        An exponential distribution of mean `FAINT` is added first, so that what is dry can be stretched, too.
        """
        levels = told.new_tensor(self.spec.field.levels)
        scale = self.spec.field.scale
        told = told.clamp(min=0) - scale * FAINT * torch.log1p(-levels)[:, None, None]
        mean = expectation(told, self.spec.field.levels, dim=2)  # (M, B, H, W)
        return told * (1 + self.share * (scale * trees / mean - 1))[:, :, None]

    def averaged(self, answers: Tensor) -> Tensor:
        """The barycentre of distributions (Vincent 1912): (M, B, Q, H, W) to (B, Q, H, W), never below 0."""
        return super().averaged(answers.clamp(min=0))

    def loss(self, answer: Tensor, y: Tensor, weights: Mapping[str, float]) -> Tensor:
        """The pinball loss, and the squared error of the mean, in scales of the training rain."""
        told, known = self.spec.field, y.isfinite()
        leaky = functional.leaky_relu(answer, LEAK)
        loss = weights.get("pinball", 0.0) * pinball_loss(leaky, y, told.levels) / told.scale
        if "mse" in weights:
            error = (self.expected(answer) - y)[known] / told.scale
            loss = loss + weights["mse"] * mean_of_all(error.square())
        total: Tensor = loss
        return total

    def apart(self, answer: Tensor, wanted: Tensor) -> Tensor:
        """The mean over levels of how far quantiles (B, Q, H, W) lie from others: Wasserstein's distance."""
        leaky = functional.leaky_relu(answer, LEAK)
        return mean_of_all((leaky - wanted).abs()) / self.spec.field.scale

    def expected(self, answer: Tensor) -> Tensor:
        """The mean of quantiles (B, Q, H, W): (B, H, W)."""
        mean: Tensor = expectation(answer.clamp(min=0), self.spec.field.levels)
        return mean

    def begin(self, items: Iterable[Mapping[str, Any]]) -> None:
        """Fit the base: ridge regression of latent rain on normalised fields, cell by cell, penalised by `PENALTY`."""
        size = self.base.weight.shape[1] + 1
        products, told = torch.zeros(size, size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64)
        for item in items:
            fields = self.normalised(torch.as_tensor(item[WEATHER])[None])[0].flatten(0, 1)  # (T*C, H, W)
            y = torch.as_tensor(item["y"]) / self.spec.field.scale
            rows = functional.pad(fields[:, y.isfinite()].double(), (0, 0, 0, 1), value=1.0)  # (T*C + 1, n)
            products += rows @ rows.T
            told += rows @ latent(y[y.isfinite()].clamp(min=0).double())
        penalty = PENALTY * products[-1, -1] * torch.eye(size, dtype=torch.float64)  # of as many rows as there are
        penalty[-1, -1] = 0.0  # the intercept's
        found = torch.linalg.solve(products + penalty, told).float()
        self.base.weight.copy_(found[:-1].reshape(self.base.weight.shape))
        self.base.bias.copy_(found[-1:])  # type: ignore[union-attr] # there is one


def _silent(layer: nn.Conv2d) -> nn.Conv2d:
    """A layer that says 0, in place."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type] # there is one
    return layer
