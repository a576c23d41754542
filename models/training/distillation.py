"""What a student makes small: the labels' loss, its distance to a teacher's answers, and to the teacher's maps.

Answers as soft targets: Hinton et al. 2015, arXiv:1503.02531.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.networks.network import Network
from models.training.objectives import Labelled
from models.training.processes import mean_of_all, sum_of_all
from models.training.pruning import Chosen


class Distilled(nn.Module):
    """The objective of a student of a network: `Labelled`, and the teacher's answers also where nothing is labelled.

    Attributes: see `Labelled`.
    """

    def __init__(self, plain: Labelled, teacher: Network, kept: Chosen, *, share: float, features: float) -> None:
        """Make an objective of a student's own.

        Args:
            plain: the student's own objective.
            teacher: in eval mode; it learns nothing.
            kept: channels of the teacher's residual stream that the student was made of.
            share: weight of the teacher's answers; the labels have the rest.
            features: weight of the distance between the maps of both backbones, on the channels that stayed.
        """
        super().__init__()
        self.plain, self.teacher, self.kept = plain, [teacher.requires_grad_(False)], kept
        self.share, self.features = share, features
        self.monitor, self.scores, self.weight = plain.monitor, plain.scores, plain.weight

    def begin(self, items: Any, *, seed: int) -> str:
        """See `Labelled.begin`."""
        return self.plain.begin(items, seed=seed)

    def validate(self, batch: Mapping[str, Any]) -> Tensor:
        """See `Labelled.validate`."""
        return self.plain.validate(batch)

    def loss(self, batch: Mapping[str, Any]) -> Tensor:
        """The three losses, added up."""
        student, teacher = self.plain.network[0], self.teacher[0].to(batch["y"].device)
        with torch.no_grad():
            theirs = teacher.features(batch)
            answer = teacher.finish(teacher.members(batch, features=theirs)).float()  # not what weather adds
        maps = student.features(batch)
        output = student.members(batch, features=maps)
        total = (1 - self.share) * self.plain.of_output(output, batch) + self.share * self._apart(output, answer)
        for ours, other in zip(maps, theirs, strict=True):
            total = total + self.features / len(maps) * self._away(ours, other)
        return total

    def _apart(self, output: Tensor, answer: Tensor) -> Tensor:
        """Distance of outputs (M, B, K, ...) from the teacher's probabilities or values (B, K, ...)."""
        student = self.plain.network[0]
        if self.plain.classes:
            return -mean_of_all((answer * output.float().log_softmax(2)).sum(2))
        wanted = (answer - student.target_mean) / student.target_std
        return mean_of_all(functional.huber_loss(output.float(), wanted.expand_as(output), reduction="none"))

    def _away(self, ours: Tensor, theirs: Tensor) -> Tensor:
        """Mean squared distance of maps (B, T*E, h, w) on the channels that stayed, as a share of their variance."""
        parts = theirs.chunk(self.plain.network[0].spec.imagery.times, dim=1)  # of each frame
        stayed = torch.cat([part[:, self.kept.to(theirs.device)] for part in parts], dim=1).float()
        count = sum_of_all(stayed.new_tensor(stayed.numel()))
        spread = sum_of_all((stayed - sum_of_all(stayed.sum()) / count).square().sum()) / (count - 1)
        return mean_of_all((ours.float() - stayed).square()) / spread.clamp(min=1e-6)
