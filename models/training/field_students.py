"""A smaller network over weather fields out of a trained one, and what it learns from that beside the labels.

The encoder is built anew, narrower and shallower: its code of places is a function of its width, so that no channel of
it can be left out. Of each member of the ensemble those channels stay that are active most, and of the members some.
"""

from __future__ import annotations

import dataclasses
import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from models.errors import InputError
from models.networks.downscale import Member as FineMember
from models.networks.weather import WeatherNetwork, encoder_config
from models.spec import Spec
from models.training.objectives import Ensemble
from models.training.pruning import LEAST, Chosen, largest, parameters, take
from models.training.settings import WeatherArchitecture


def smaller_fields(spec: Spec, backbone: str, architecture: WeatherArchitecture, most: int) -> WeatherArchitecture:
    """The settings of the largest network with at most so many parameters: fewer members, all widths by one factor.

    Of the members there are as many as the share of parameters leaves, one at least; of the encoder's pairs of
    attention the third root of that share.

    Raises:
        InputError: no network is as small as that, or the one that is given is.
    """
    whole = parameters(spec, backbone, architecture)
    if most >= whole:
        raise InputError(f"--params {most:,}: the run has {whole:,} parameters; wanted fewer")
    config = encoder_config(backbone, architecture)
    share, step = most / whole, math.lcm(4, config.heads)
    members = max(round(architecture.members * share), 1)
    blocks = max(round(config.encoder_blocks * share ** (1 / 3)), min(config.encoder_blocks, 1))

    def built(detail: int) -> WeatherArchitecture:
        factor = detail / architecture.detail
        dim = step * max(int(config.embed_dim * factor) // step, 1)
        return dataclasses.replace(
            architecture,
            overrides=dict(architecture.overrides) | {"embed_dim": dim, "encoder_blocks": blocks},
            channels=max(round(architecture.channels * factor), 1),
            detail=detail,
            members=members,
        )

    def count(one: WeatherArchitecture) -> int:
        return parameters(spec, backbone, one)

    widths = [built(detail) for detail in range(min(LEAST, architecture.detail), architecture.detail + 1)]
    if fitting := bisect_right(widths, most, key=count):
        return widths[fitting - 1]
    least = count(widths[0])
    raise InputError(f"--params {most:,}: the smallest of this run has {least:,} parameters; wanted at least that many")


def prune_fields(teacher: WeatherNetwork, student: WeatherNetwork, batches: Iterable[Mapping[str, Tensor]]) -> None:
    """Give the members of a narrower network the weights of a trained one, chosen by what is active on samples.

    What hears the tokens is learned anew, as the encoder is.

    Args:
        teacher: in eval mode.
        student: of the settings of `smaller_fields`; changed in place.
        batches: inputs that channels are judged on.
    """
    pairs = list(zip(student.members, teacher.members, strict=False))  # the student has fewer
    active = _activity(teacher, [theirs for _, theirs in pairs], batches)
    with torch.no_grad():
        for number, (mine, theirs) in enumerate(pairs):
            _member(mine, theirs, active[number])


def _activity(
    teacher: WeatherNetwork, members: list[Any], batches: Iterable[Mapping[str, Tensor]]
) -> list[dict[str, Tensor]]:
    """Mean magnitude of each channel (n,) that the layers of members give, by the layer's name."""
    sums: list[dict[str, Tensor]] = [{} for _ in members]
    handles = []
    for found, member in zip(sums, members, strict=True):
        for name, layer in member.named_modules():
            if name in _LAYERS:

                def add(_: Any, __: Any, x: Tensor, found: dict[str, Tensor] = found, name: str = name) -> None:
                    found[name] = found.get(name, 0.0) + x.detach().abs().mean((0, 2, 3))

                handles.append(layer.register_forward_hook(add))
    try:
        with torch.inference_mode():
            for batch in batches:
                teacher(batch)
    finally:
        for handle in handles:
            handle.remove()
    return [{name: x.clone() for name, x in found.items()} for found in sums]  # no inference tensors


_LAYERS = ("before.0", "before.1", "after.0", "after.1", "finer", "decoder.0", "decoder.1")


def _member(mine: Any, theirs: Any, active: Mapping[str, Tensor]) -> None:
    """A member: each layer's most active channels, and of the next one's inputs the same."""
    width = mine.lead.out_features
    stay = {name: largest(x, width) for name, x in active.items() if name != "finer"}
    take(mine.before[0][0], theirs.before[0][0], stay["before.0"])
    take(mine.before[1][0], theirs.before[1][0], stay["before.1"], stay["before.0"])
    take(mine.lead, theirs.lead, stay["before.1"])
    joined, whole = mine.after[0][0], theirs.after[0][0]
    joined.weight[:, :width] = whole.weight[stay["after.0"]][:, stay["before.1"]]  # the rest hears the tokens
    joined.bias.copy_(whole.bias[stay["after.0"]])
    take(mine.after[1][0], theirs.after[1][0], stay["after.1"], stay["after.0"])
    if isinstance(theirs, FineMember):
        _finer(mine, theirs, stay, largest(active["finer"], mine.decoder[0][0].in_channels - _known(theirs)))
    else:
        take(mine.head, theirs.head, None, stay["after.1"])
        mine.shape.load_state_dict(theirs.shape.state_dict())


def _known(member: Any) -> int:
    """Channels of what is known of fine cells, which a decoder hears beside the features."""
    return int(member.decoder[0][0].in_channels - member.finer[0].out_channels // member.finer[1].upscale_factor ** 2)


def _finer(mine: Any, theirs: Any, stay: Mapping[str, Chosen], up: Chosen) -> None:
    """The layers over fine cells, of which the features `up` stay, and all that is known of the cells."""
    parts = theirs.finer[1].upscale_factor ** 2
    rows = (up[:, None] * parts + torch.arange(parts)).flatten()  # as they are shuffled
    take(mine.finer[0], theirs.finer[0], rows, stay["after.1"])
    wide = theirs.finer[0].out_channels // parts
    columns = torch.cat((up, wide + torch.arange(_known(theirs))))
    take(mine.decoder[0][0], theirs.decoder[0][0], stay["decoder.0"], columns)
    take(mine.decoder[1][0], theirs.decoder[1][0], stay["decoder.1"], stay["decoder.0"])
    take(mine.head, theirs.head, None, stay["decoder.1"])


class DistilledFields(nn.Module):
    """The objective of a student over weather fields: `Ensemble`, and what the teacher's members say together.

    Trees are no part of it: the student's own are grown on the labels.

    Attributes: see `Ensemble`.
    """

    def __init__(self, plain: Ensemble, teacher: WeatherNetwork, *, share: float) -> None:
        """Make an objective of a student's own.

        Args:
            plain: the student's own objective.
            teacher: in eval mode; it learns nothing.
            share: weight of the teacher's answers; the labels have the rest.
        """
        super().__init__()
        self.plain, self.teacher, self.share = plain, [teacher.requires_grad_(False)], share
        self.monitor, self.scores, self.weight = plain.monitor, plain.scores, plain.weight

    def begin(self, items: Any, *, seed: int) -> str:
        """See `Ensemble.begin`."""
        return self.plain.begin(items, seed=seed)

    def validate(self, batch: Mapping[str, Any]) -> Tensor:
        """See `Ensemble.validate`."""
        return self.plain.validate(batch)

    def loss(self, batch: Mapping[str, Any]) -> Tensor:
        """The two losses, added up."""
        student, teacher = self.plain.network[0], self.teacher[0].to(batch["y"].device)
        with torch.no_grad():
            wanted = teacher.averaged(teacher(batch))
        output = student(batch)  # (M, B, ...)
        away = student.apart(output.flatten(0, 1), wanted.repeat(len(output), *[1] * (wanted.ndim - 1)))
        return (1 - self.share) * self.plain.of_output(output, batch) + self.share * away
