"""Imagery with series beside it: what the imagery says stays as it is; what the series add is a gated correction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from models.networks.detail import enlarge
from models.networks.network import Network
from models.spec import IMAGERY, Classes, Series, Spec, valid_of
from models.training.settings import Architecture

LATENTS, WIDTH = 8, 32
TOKENS = 8  # channels of the backbone's last map that the correction sees
FARTHEST = 4.0  # standard deviations from the mean; what is beyond says no more


def spans(times: int) -> Tensor:
    """Which steps are averaged for each token of a series: 1 and 0, (N, T).

    The last step, the last two, four, eight ... and all of them; and eighths of the whole, one after the other.
    """
    lengths = [2**i for i in range(times.bit_length()) if 2**i < times] + [times]
    rows = [torch.arange(times) >= times - length for length in lengths]
    edges = torch.linspace(0, times, min(8, times) + 1).round().long()
    if times > 1:
        rows += [(torch.arange(times) >= a) & (torch.arange(times) < b) for a, b in pairwise(edges)]
    return torch.stack(rows).float()


def pooled(windows: Tensor, z: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of what is there over each window, 0 where nothing is, and the share that is there, (B, N, C) each."""
    count = windows @ valid
    known = torch.where(valid > 0, z, torch.zeros_like(z))  # what stands in for a gap may be no number
    return (windows @ known) / count.clamp(min=1), count / windows.sum(1)[:, None]


class SeriesEncoder(nn.Module):
    """A series (B, T, C) to tokens (B, N, D) of windows of it; a learned one stands for each that is missing."""

    mean: Tensor
    std: Tensor
    windows: Tensor

    def __init__(self, series: Series, *, width: int, dropout: float) -> None:
        """Build for a series."""
        super().__init__()
        self.register_buffer("mean", torch.tensor(series.mean), persistent=False)
        self.register_buffer("std", torch.tensor(series.std), persistent=False)
        self.register_buffer("windows", spans(series.times), persistent=False)
        self.dropout = nn.Dropout(dropout)
        self.embed = nn.Sequential(nn.Linear(2 * len(series.channels), width), nn.GELU(), nn.Linear(width, width))
        self.which = nn.Parameter(torch.randn(len(self.windows), width) / 4)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Physical values (B, T, C), and 1 where there are any, to tokens (B, N, D)."""
        z = ((x - self.mean) / self.std).clamp(-FARTHEST, FARTHEST)
        means, share = pooled(self.windows, z, valid)
        tokens: Tensor = self.embed(torch.cat((self.dropout(means), share), dim=2)) + self.which
        return tokens


class Attention(nn.Module):
    """Queries (B, Q, D) read tokens (B, N, D), with one head."""

    def __init__(self, width: int) -> None:
        """Build for tokens of so many channels."""
        super().__init__()
        self.queries, self.keys, self.values = (nn.Linear(width, width) for _ in range(3))

    def forward(self, asking: Tensor, tokens: Tensor) -> Tensor:
        """What the queries read, (B, Q, D)."""
        likeness = self.queries(asking) @ self.keys(tokens).transpose(1, 2) / asking.shape[2] ** 0.5
        read: Tensor = likeness.softmax(dim=2) @ self.values(tokens)
        return read


class Correction(nn.Module):
    """What the series add to what the imagery says, pixel by pixel; and what they say alone."""

    def __init__(self, spec: Spec, architecture: Architecture, *, known: int) -> None:
        """Build for `known` channels of each pixel; a new one adds nothing."""
        super().__init__()
        drop, outputs = architecture.dropout, spec.answer.channels
        self.encoders = nn.ModuleDict(
            {name: SeriesEncoder(series, width=WIDTH, dropout=drop) for name, series in spec.series.items()}
        )
        self.latents = nn.Parameter(torch.randn(LATENTS, WIDTH) / 4)
        self.read, self.look = Attention(WIDTH), Attention(WIDTH)
        self.think = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Dropout(drop))
        self.query = nn.Sequential(nn.Linear(known, WIDTH), nn.LayerNorm(WIDTH))
        self.join = nn.Sequential(nn.Linear(2 * WIDTH, WIDTH), nn.GELU(), nn.Dropout(drop))
        self.add = nn.Linear(WIDTH, outputs)
        self.alone = nn.Linear(WIDTH, outputs)
        nn.init.zeros_(self.add.weight)
        nn.init.zeros_(self.add.bias)

    def forward(self, known: Tensor, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """What is known of pixels (B, Q, F), and the series, to what is added (B, K, Q) and said alone (B, K)."""
        tokens = torch.cat([encode(inputs[n], inputs[valid_of(n)]) for n, encode in self.encoders.items()], dim=1)
        latents = self.latents + self.read(self.latents.expand(tokens.shape[0], -1, -1), tokens)
        latents = latents + self.think(latents)  # (B, L, D)
        asking = self.query(known)
        joined = self.join(torch.cat((asking, self.look(asking, latents)), dim=2))
        return self.add(joined).transpose(1, 2), self.alone(latents.mean(1))


class FusedNetwork(Network):
    """A network over imagery with a correction by series; see `finish`.

    Attributes:
        gate: how much of the correction counts: 0 leaves the imagery's answer, 1 takes all of it.
    """

    def __init__(self, spec: Spec, backbone: str, architecture: Architecture) -> None:
        """Build with random weights; see `Network`."""
        super().__init__(spec, backbone, architecture)
        self.gate = architecture.gate
        bands = len(spec.imagery.channels) * spec.imagery.times
        self.tokens = nn.Conv2d(self.backbone.dim * spec.imagery.times, TOKENS, 1)
        self.correction = Correction(spec, architecture, known=bands + TOKENS + spec.answer.channels)

    def forward(self, inputs: Mapping[str, Tensor], *, features: Sequence[Tensor] | None = None) -> Tensor:
        """Outputs of the imagery's members, of the same with the correction, and of the series alone.

        Args:
            inputs: as of `Network.forward`, and for each series `NAME` (B, T, C) and `NAME_valid` (B, T, C);
                `imagery_valid` (B, 1) is 0 where the imagery is missing.
            features: what `features` gave for this input, where it is known already.

        Returns:
            (2M + 1, B, K, H, W), or (2M + 1, B, K) for classes of tiles.
        """
        maps = self.features(inputs) if features is None else features
        imagery = super().forward(inputs, features=maps)  # (M, B, K, ...)
        seen = self._known(self.normalised(inputs), maps[-1].detach(), imagery[0].detach())
        added, alone = self.correction(seen, inputs)
        alone = alone.reshape(*alone.shape, *[1] * (imagery.ndim - 3)).expand(imagery.shape[1:])
        shape = (-1, *[1] * (imagery.ndim - 2))
        there = torch.cat([inputs[valid_of(name)].flatten(1) for name in self.spec.series], dim=1)
        beside = (there.sum(1) > 0).reshape(shape)  # (B, 1, ...)
        image = (inputs[valid_of(IMAGERY)][:, 0] > 0).reshape(shape)
        plain = imagery.detach()
        both = torch.where(beside, plain + added.reshape(imagery.shape[1:]), plain)
        sound = torch.where(image, torch.stack((imagery, both)), alone)  # (2, M, B, K, ...)
        return torch.cat((sound.flatten(0, 1), alone[None]))

    def finish(self, output: Tensor) -> Tensor:
        """The imagery's answer moved by the gate towards that with the correction: (B, K, ...), see `Network.finish`.

        Where a sample has nothing beside its imagery, it is the imagery's to the bit; where it has no imagery, that of
        the series.
        """
        imagery, both = self.ends(output)
        return imagery + self.gate * (both - imagery)

    def ends(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """The answers (B, K, ...) with the gate closed, and open."""
        members = len(output) // 2
        return super().finish(output[:members]), super().finish(output[members : 2 * members])

    def _known(self, bands: Tensor, tokens: Tensor, said: Tensor) -> Tensor:
        """Bands, tokens and what the imagery says of each pixel (B, H * W, F), or of the tile (B, 1, F)."""
        said = said.softmax(dim=1) if isinstance(self.spec.answer, Classes) else said
        near = self.tokens(tokens)
        if said.ndim == 2:
            return torch.cat((bands.mean((2, 3)), near.mean((2, 3)), said), dim=1)[:, None]
        return torch.cat((bands, enlarge(near, bands), said), dim=1).flatten(2).transpose(1, 2)
