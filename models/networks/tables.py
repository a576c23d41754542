"""Samples of tables: forests and a small network over vectors and series, and what weather adds behind a gate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from models.networks.forest import Forest
from models.networks.fusion import FARTHEST, pooled, spans
from models.networks.indices import INDICES
from models.spec import CONTEXT, IMAGERY, WEATHER, Classes, Series, Spec, valid_of
from models.training.settings import TableArchitecture

LEAST = 1e-6  # probability
SPREAD = 0.25  # of an index, about
TOLD = {  # what each part hears; the forests, and the layers of the network
    "plain": (IMAGERY,),
    "season": (IMAGERY, CONTEXT),
    "every": (IMAGERY, CONTEXT, WEATHER),
    "alone": (CONTEXT, WEATHER),
}


class Rows(nn.Module):
    """A series (B, T, C) as rows for trees, every step in its unit, and for layers, means over windows of it.

    Indices stand beside bands that are named as `indices.INDICES` names them.
    """

    mean: Tensor
    std: Tensor
    windows: Tensor

    def __init__(self, series: Series) -> None:
        """Build for a series."""
        super().__init__()
        self.pairs = [[series.channels.index(band) for band in pair] for pair in known_indices(series.channels)]
        self.register_buffer("mean", torch.tensor((*series.mean, *[0.0] * len(self.pairs))), persistent=False)
        self.register_buffer("std", torch.tensor((*series.std, *[SPREAD] * len(self.pairs))), persistent=False)
        self.register_buffer("windows", spans(series.times), persistent=False)
        self.channels = len(self.mean)
        self.columns, self.means = self.channels * series.times, 2 * self.channels * len(self.windows)

    def forward(self, x: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Physical values, and 1 where there are any, to every step (B, T * C) and means with their shares (B, F).

        The mean of the training stands for what is missing.
        """
        x = torch.where(valid > 0, x, self.mean[: x.shape[2]])
        for first, second in self.pairs:
            a, b = x[..., first], x[..., second]
            both = (valid[..., first] * valid[..., second] * ((a + b).abs() > LEAST))[..., None]
            index = ((a - b) / torch.where((a + b).abs() > LEAST, a + b, 1.0)).clamp(-1, 1)[..., None]
            x, valid = torch.cat((x, torch.where(both > 0, index, 0.0)), 2), torch.cat((valid, both), 2)
        z = ((x - self.mean) / self.std).clamp(-FARTHEST, FARTHEST)
        return x.flatten(1), torch.cat(pooled(self.windows, z, valid), dim=2).flatten(1)


class Layers(nn.Module):
    """Several networks of one hidden layer side by side, (B, F) to (E, B, K); new ones say nothing where asked so."""

    def __init__(self, features: int, outputs: int, architecture: TableArchitecture, *, silent: bool = False) -> None:
        """Build with random weights."""
        super().__init__()
        members, width = architecture.members, architecture.width
        self.drop, self.drop_hidden = nn.Dropout(architecture.dropout), nn.Dropout(architecture.dropout)
        self.hidden = nn.Parameter(torch.randn(members, features, width) / max(features, 1) ** 0.5)
        self.bias = nn.Parameter(torch.randn(members, 1, width) / 4)
        self.out = nn.Parameter(torch.randn(members, width, outputs) / width**0.5 * (not silent))
        self.level = nn.Parameter(torch.zeros(members, 1, outputs))

    def forward(self, rows: Tensor) -> Tensor:
        """Rows (B, F), or those of each (E, B, F), to what each says."""
        heard = nn.functional.gelu(torch.matmul(self.drop(rows), self.hidden) + self.bias)
        said: Tensor = torch.matmul(self.drop_hidden(heard), self.out) + self.level
        return said


class TableNetwork(nn.Module):
    """Values or classes of samples, by forests and by layers; see `forward` and `finish`.

    Attributes:
        share: weight of the forests; the layers have the rest.
        gate: how much of what the weather adds counts, see `fusion.FusedNetwork`.
    """

    target_mean: Tensor
    target_std: Tensor

    def __init__(self, spec: Spec, architecture: TableArchitecture) -> None:
        """Build with random weights, and forests without trees; see `training.forests.plant`."""
        super().__init__()
        self.spec, self.share, self.gate = spec, architecture.share, architecture.gate
        self.backbone = nn.Identity()  # there is none to be frozen
        self.rows = nn.ModuleDict({name: Rows(series) for name, series in spec.series.items()})
        outputs = spec.answer.channels
        columns, means = (
            {part: sum(getattr(self.rows[n], size) for n in self.inputs_of(part)) for part in TOLD}
            for size in ("columns", "means")
        )
        asked = [part for part in TOLD if part != "plain" or CONTEXT in spec.inputs]  # else it is that of the season
        self.forests = nn.ModuleDict({part: Forest(columns[part], outputs) for part in asked})
        self.imagery = Layers(means["season"], outputs, architecture)
        self.correction = Layers(means["every"] + outputs, outputs, architecture, silent=True)
        self.alone = Layers(means["alone"], outputs, architecture)
        self.register_buffer("target_mean", torch.zeros(()))
        self.register_buffer("target_std", torch.ones(()))

    def forward(self, inputs: Mapping[str, Tensor], *, features: Any = None) -> Tensor:
        """Logits, or values in standard deviations of the training target.

        Args:
            inputs: for each series `NAME` (B, T, C) and `NAME_valid` (B, T, C).
            features: none; there is no backbone.

        Returns:
            (5, B, K): of imagery and season by layers and by forests, of the same with the weather, of weather and
            season by layers. In training, of each of the E networks of the layers these three, (3 E, B, K).
        """
        rows = {name: of(inputs[name], inputs[valid_of(name)]) for name, of in self.rows.items()}
        plain, both, alone = self._layers(rows)
        if self.training:
            return torch.cat((plain, both, alone))
        trees = {part: self._trees(part, rows) for part in self.forests}
        there = {name: (inputs[valid_of(name)].flatten(1).sum(1) > 0)[:, None] for name in rows}
        if CONTEXT in rows:
            trees["season"] = torch.where(there[CONTEXT], trees["season"], trees["plain"])
        imagery = torch.stack((plain.mean(0), trees["season"]))
        every = torch.where(there[WEATHER], torch.stack((both.mean(0), trees["every"])), imagery)
        without = torch.stack((alone.mean(0), trees["alone"]))
        imagery, every = (torch.where(there[IMAGERY], said, without) for said in (imagery, every))
        return torch.cat((imagery, every, without[:1]))

    def predict(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Probabilities (B, K), or values in the target's unit; inputs as in `forward`."""
        return self.finish(self(inputs))

    def finish(self, output: Tensor) -> Tensor:
        """The answer of imagery and season moved by the gate towards that with the weather, (B, K).

        Where a sample has no weather, it is that of imagery and season to the bit; without imagery, that of the rest.
        """
        imagery, both = self.ends(output)
        return imagery + self.gate * (both - imagery)

    def ends(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """The answers (B, K) with the gate closed, and open."""
        return self._mean(output[:2]), self._mean(output[2:4])

    def members(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """The answers (B, K) of the layers and of the forests, with the gate closed."""
        layers, trees = self._physical(output[:2])
        return layers, trees

    def heard(self, part: str, rows: Mapping[str, tuple[Tensor, Tensor]], form: int) -> Tensor:
        """What a part hears of the inputs, rows for trees (form 0) or means for layers (1): (B, F)."""
        return torch.cat([rows[name][form] for name in self.inputs_of(part)], dim=1)

    def inputs_of(self, part: str) -> list[str]:
        """The inputs that a part hears, of those that there are."""
        return [name for name in TOLD[part] if name in self.spec.inputs]

    def _layers(self, rows: Mapping[str, tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
        """What each network of the layers says of the imagery, of that with the weather, and without (E, B, K)."""
        plain = self.imagery(self.heard("season", rows, 1))
        every = self.heard("every", rows, 1).expand(len(plain), -1, -1)
        both = plain.detach() + self.correction(torch.cat((every, plain.detach()), dim=2))
        return plain, both, self.alone(self.heard("alone", rows, 1))

    def _trees(self, part: str, rows: Mapping[str, tuple[Tensor, Tensor]]) -> Tensor:
        """What a forest says (B, K), as the layers do."""
        said: Tensor = self.forests[part](self.heard(part, rows, 0))
        return said.clamp(min=LEAST).log() if isinstance(self.spec.answer, Classes) else said

    def _mean(self, output: Tensor) -> Tensor:
        """The answer (B, K) of layers and forests (2, B, K), by their weights."""
        layers, trees = self._physical(output)
        return layers + self.share * (trees - layers)

    def _physical(self, output: Tensor) -> Tensor:
        """Probabilities, or values in the target's unit."""
        if isinstance(self.spec.answer, Classes):
            return output.float().softmax(dim=2)
        return output.float() * self.target_std + self.target_mean


def known_indices(channels: Sequence[str]) -> list[tuple[str, str]]:
    """The pairs of bands whose normalised difference is an index, of those that there are."""
    return [pair for pair in INDICES.values() if set(pair) <= set(channels)]
