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

WIDTH, DROPOUT = 64, 0.1
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
    """A series (B, T, C) to a vector (B, D) of the means over windows of it, and of how much of each is there."""

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
        self.embed = nn.Linear(2 * len(series.channels) * len(self.windows), width)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Physical values (B, T, C), and 1 where there are any, to (B, D)."""
        z = ((x - self.mean) / self.std).clamp(-FARTHEST, FARTHEST)
        means, share = pooled(self.windows, z, valid)
        vector: Tensor = self.embed(torch.cat((self.dropout(means), share), dim=2).flatten(1))
        return vector


class Correction(nn.Module):
    """What the series add to what the imagery says, pixel by pixel; and what they say alone."""

    def __init__(self, spec: Spec, architecture: Architecture, *, bands: int, dim: int) -> None:
        """Build for so many bands, and channels of tokens; a new one adds nothing."""
        super().__init__()
        outputs = spec.answer.channels
        self.classes = isinstance(spec.answer, Classes)
        self.tokens = nn.Conv2d(dim, TOKENS, 1)
        self.encoders = nn.ModuleDict(
            {name: SeriesEncoder(series, width=WIDTH, dropout=DROPOUT) for name, series in spec.series.items()}
        )
        self.think = nn.Sequential(nn.GELU(), nn.Dropout(DROPOUT), nn.Linear(WIDTH, WIDTH), nn.GELU())
        self.query = nn.Linear(bands + TOKENS + outputs, WIDTH)
        self.weigh = nn.Linear(WIDTH, WIDTH)
        self.join = nn.Sequential(nn.GELU(), nn.Dropout(DROPOUT), nn.Linear(WIDTH, WIDTH), nn.GELU())
        self.add = nn.Linear(WIDTH, outputs)
        self.alone = nn.Linear(WIDTH, outputs)
        nn.init.zeros_(self.add.weight)
        nn.init.zeros_(self.add.bias)

    def forward(self, known: Tensor, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """What is known of pixels (B, Q, F), and the series, to what is added (B, K, Q) and said alone (B, K)."""
        told = sum(encode(inputs[name], inputs[valid_of(name)]) for name, encode in self.encoders.items())
        thought = self.think(told)  # (B, D)
        joined = self.join(self.query(known) + self.weigh(thought)[:, None])
        return self.add(joined).transpose(1, 2), self.alone(thought)

    def known(self, bands: Tensor, tokens: Tensor, said: Tensor) -> Tensor:
        """Normalised bands, what `tokens` makes of tokens, and what the imagery says, side by side: (B, F, ...)."""
        return torch.cat((bands, tokens, said.softmax(dim=1) if self.classes else said), dim=1)

    def heard(self) -> Tensor:
        """How much the series are listened to: the lengths of the weights of each mean of theirs, added up."""
        encoders = [encoder for encoder in self.encoders.values() if isinstance(encoder, SeriesEncoder)]
        return torch.stack([encoder.embed.weight.norm(dim=0).sum() for encoder in encoders]).sum()

    def beside(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Which samples have anything beside their imagery: (B,) bool."""
        return torch.cat([inputs[valid_of(name)].flatten(1) for name in self.encoders], dim=1).sum(1) > 0


class FusedNetwork(Network):
    """A network over imagery with a correction by series; see `finish`.

    Its members are trained as those of a network over imagery alone, and the correction after them, which changes none.

    Attributes:
        gate: how much of the correction counts: 0 leaves the imagery's answer, 1 takes all of it.
    """

    def __init__(self, spec: Spec, backbone: str, architecture: Architecture) -> None:
        """Build with random weights; see `Network`."""
        super().__init__(spec, backbone, architecture)
        self.gate = architecture.gate
        bands = len(spec.imagery.channels) * spec.imagery.times
        with torch.random.fork_rng():  # so that all else is as in a network over imagery alone
            self.correction = Correction(
                spec, architecture, bands=bands, dim=self.backbone.dim * spec.imagery.times
            ).requires_grad_(False)

    def forward(self, inputs: Mapping[str, Tensor], *, features: Sequence[Tensor] | None = None) -> Tensor:
        """Outputs of the imagery's members, of the same with the correction, and of the series alone.

        Args:
            inputs: as of `Network.members`, and for each series `NAME` (B, T, C) and `NAME_valid` (B, T, C);
                `imagery_valid` (B, 1) is 0 where the imagery is missing.
            features: what `features` gave for this input, where it is known already.

        Returns:
            (2M + 1, B, K, H, W), or (2M + 1, B, K) for classes of tiles.
        """
        maps = self.features(inputs) if features is None else features
        plain = self.members(inputs, features=maps)  # (M, B, K, ...)
        added, alone = self.correction(self._seen(self.normalised(inputs), maps[-1], plain[0]), inputs)
        alone = alone.reshape(*alone.shape, *[1] * (plain.ndim - 3)).expand(plain.shape[1:])
        shape = (-1, *[1] * (plain.ndim - 2))
        image = (inputs[valid_of(IMAGERY)][:, 0] > 0).reshape(shape)
        both = torch.where(self.correction.beside(inputs).reshape(shape), plain + added.reshape(plain.shape[1:]), plain)
        sound = torch.where(image, torch.stack((plain, both)), alone)  # (2, M, B, K, ...)
        return torch.cat((sound.flatten(0, 1), alone[None]))

    def finish(self, output: Tensor) -> Tensor:
        """The imagery's answer moved by the gate towards that with the correction: (B, K, ...), see `Network.finish`.

        Where a sample has nothing beside its imagery, it is the imagery's to the bit; where it has no imagery, that of
        the series. Of the members alone, see `members`, it is theirs.
        """
        imagery, both = self.ends(output)
        return imagery + self.gate * (both - imagery)

    def ends(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """The answers (B, K, ...) with the gate closed, and open."""
        members = max(len(output) // 2, 1)
        last = output[members : 2 * members] if len(output) > 2 else output
        return super().finish(output[:members] if len(output) > 2 else output), super().finish(last)

    def _seen(self, bands: Tensor, tokens: Tensor, said: Tensor) -> Tensor:
        """What the correction sees of each pixel (B, H * W, F), or of the tile (B, 1, F)."""
        near = self.correction.tokens(tokens)
        if said.ndim == 2:
            return self.correction.known(bands.mean((2, 3)), near.mean((2, 3)), said)[:, None]
        return self.correction.known(bands, enlarge(near, bands), said).flatten(2).transpose(1, 2)
