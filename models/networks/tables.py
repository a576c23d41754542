"""Samples of tables: forests and a small network over vectors and series, and what weather adds behind a gate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor, nn

from models.networks.forest import Forests
from models.networks.fusion import FARTHEST, pooled, spans
from models.networks.indices import INDICES
from models.spec import CONTEXT, IMAGERY, WEATHER, Classes, Series, Spec, valid_of
from models.training.settings import TableArchitecture

LEAST = 1e-6  # probability
SPREAD = 0.25  # of an index, about
HEARD = {  # by each part of the network, forests and layers
    "plain": (IMAGERY,),
    "season": (IMAGERY, CONTEXT),
    "every": (IMAGERY, CONTEXT, WEATHER),
    "alone": (CONTEXT, WEATHER),
}


class Rows(nn.Module):
    """A series (B, T, C) as rows for trees, its steps and means over windows of it, and for layers, these means.

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
        self.means = 2 * self.channels * len(self.windows)
        self.columns = self.channels * (series.times + (len(self.windows) if series.times > 1 else 0))

    def forward(self, x: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Physical values, and 1 where there are any, to rows (B, columns) and to means with their shares (B, means).

        The mean of the training stands for what is missing.
        """
        x = torch.where(valid > 0, x, self.mean[: x.shape[2]])
        for first, second in self.pairs:
            a, b = x[..., first], x[..., second]
            both = (valid[..., first] * valid[..., second] * ((a + b).abs() > LEAST))[..., None]
            index = ((a - b) / torch.where((a + b).abs() > LEAST, a + b, 1.0)).clamp(-1, 1)[..., None]
            x, valid = torch.cat((x, torch.where(both > 0, index, 0.0)), 2), torch.cat((valid, both), 2)
        z = ((x - self.mean) / self.std).clamp(-FARTHEST, FARTHEST)
        means, share = pooled(self.windows, z, valid)
        steps = x.flatten(1)
        rows = steps if x.shape[1] == 1 else torch.cat((steps, means.flatten(1)), dim=1)
        return rows, torch.cat((means, share), dim=2).flatten(1)


class Layers(nn.Module):
    """Several networks of one hidden layer side by side; new ones say nothing where that is asked for.

    Sums of products stand for products of matrices by members: runtimes take the members for a batch.
    """

    def __init__(self, features: int, outputs: int, architecture: TableArchitecture, *, corrects: bool = False) -> None:
        """Build with random weights; those that correct what others say hear that, too, and begin with 0."""
        super().__init__()
        members, width = architecture.members, architecture.width
        self.drop, self.drop_hidden = nn.Dropout(architecture.dropout), nn.Dropout(architecture.dropout)
        self.hidden = nn.Parameter(torch.randn(features, members * width) / features**0.5)
        self.bias = nn.Parameter(torch.randn(members, width) / 4)
        self.heard = nn.Parameter(torch.randn(members, outputs, width)) if corrects else None
        self.out = nn.Parameter(torch.randn(members, width, outputs) / width**0.5 * (not corrects))
        self.level = nn.Parameter(torch.zeros(members, outputs))

    def forward(self, rows: Tensor, said: Tensor | None = None) -> Tensor:
        """Rows (B, F), and what is to be corrected (E, B, K), to what each says (E, B, K)."""
        hidden = (self.drop(rows) @ self.hidden).reshape(-1, *self.bias.shape) + self.bias  # (B, E, D)
        if said is not None and self.heard is not None:
            hidden = hidden + (said.transpose(0, 1)[..., None] * self.heard).sum(2)
        active = self.drop_hidden(nn.functional.gelu(hidden))
        out: Tensor = (active[..., None] * self.out).sum(2) + self.level
        return out.transpose(0, 1)


class TableNetwork(nn.Module):
    """Values or classes of samples, by forests and by layers; see `forward` and `finish`.

    Attributes:
        share: weight of the forests; the layers have the rest.
        gate: how much of what the weather adds counts, see `fusion.FusedNetwork`.
    """

    target_mean: Tensor
    target_std: Tensor

    def __init__(self, spec: Spec, architecture: TableArchitecture) -> None:
        """Build with random weights, and forests without trees; see `training.forests`."""
        super().__init__()
        self.spec, self.share, self.gate = spec, architecture.share, architecture.gate
        self.backbone = nn.Identity()  # there is none to be frozen
        rows = {name: Rows(series) for name, series in spec.series.items()}
        self.rows, self.columns = nn.ModuleDict(rows), {name: of.columns for name, of in rows.items()}
        outputs = spec.answer.channels
        means = {part: sum(rows[n].means for n in self.inputs_of(part)) for part in HEARD}
        self.parts = [part for part in HEARD if part != "plain" or CONTEXT in spec.inputs]  # else that of the season
        self.forests = Forests(sum(self.columns.values()), outputs, parts=len(self.parts))
        self.imagery = Layers(means["season"], outputs, architecture)
        self.correction = Layers(means["every"], outputs, architecture, corrects=True)
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
        trees = self._trees(rows)
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

    def by_kind(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """The answers (B, K) of the layers and of the forests, with the gate closed."""
        layers, trees = self._physical(output[:2])
        return layers, trees

    def columns_of(self, part: str) -> list[int]:
        """Where in a row of all inputs the numbers lie that a part hears."""
        ends = pairwise(accumulate(self.columns.values(), initial=0))
        spans = dict(zip(self.columns, ends, strict=True))
        return [column for name in self.inputs_of(part) for column in range(*spans[name])]

    def row(self, rows: Mapping[str, tuple[Tensor, Tensor]]) -> Tensor:
        """What trees ask about, of all inputs (B, F)."""
        return torch.cat([steps for steps, _ in rows.values()], dim=1)

    def inputs_of(self, part: str) -> list[str]:
        """The inputs that a part hears, of those that there are."""
        return [name for name in HEARD[part] if name in self.spec.inputs]

    def _layers(self, rows: Mapping[str, tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
        """What each network of the layers says of the imagery, of that with the weather, and without (E, B, K)."""
        season, every, without = (
            torch.cat([rows[name][1] for name in self.inputs_of(part)], dim=1) for part in ("season", "every", "alone")
        )
        plain = self.imagery(season)
        known = plain.detach()
        return plain, known + self.correction(every, known), self.alone(without)

    def _trees(self, rows: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        """What each forest says (B, K), as the layers do."""
        said = self.forests(self.row(rows))
        said = said.clamp(min=LEAST).log() if isinstance(self.spec.answer, Classes) else said
        return dict(zip(self.parts, said.unbind(1), strict=True))

    def _mean(self, output: Tensor) -> Tensor:
        """The answer (B, K) of layers and forests (2, B, K), by their weights."""
        layers, trees = self._physical(output)
        said: Tensor = layers + self.share * (trees - layers)
        return said

    def _physical(self, output: Tensor) -> Tensor:
        """Probabilities, or values in the target's unit."""
        if isinstance(self.spec.answer, Classes):
            return output.float().softmax(dim=2)
        return output.float() * self.target_std + self.target_mean


def known_indices(channels: Sequence[str]) -> list[tuple[str, str]]:
    """The pairs of bands whose normalised difference is an index, of those that there are."""
    return [pair for pair in INDICES.values() if set(pair) <= set(channels)]
