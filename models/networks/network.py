"""The whole network: physical units in, normalisation by the Spec, backbone, head; probabilities or values out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from models.backbones.prithvi_eo import PrithviEO
from models.errors import InputError
from models.networks.decoders import DenseHead, SceneHead
from models.networks.terratorch_head import TerratorchHead
from models.spec import IMAGERY, Classes, Spec
from models.training.settings import Architecture, TerratorchArchitecture


class Network(nn.Module):
    """Normalisation, backbone and head as one module over physical units."""

    mean: Tensor
    std: Tensor
    target_mean: Tensor
    target_std: Tensor

    def __init__(self, spec: Spec, backbone: str, architecture: Architecture) -> None:
        """Build with random weights; see `prithvi_eo.load_pretrained` and `bundle.load_network`.

        Raises:
            InputError: names or sizes that do not exist or do not fit each other.
        """
        super().__init__()
        self.spec, imagery = spec, spec.imagery
        self.backbone = PrithviEO(
            backbone,
            bands=imagery.channels,
            frames=imagery.times,
            tile=imagery.tile,
            blocks=architecture.blocks or None,
            overrides=architecture.overrides,
            drop_path=architecture.drop_path,
        )
        if self.backbone.patch[-1] != imagery.patch:
            raise InputError(
                f"patch {imagery.patch} in the Spec: {backbone} has patches of {self.backbone.patch[-1]} pixels"
            )
        dims = [self.backbone.dim * imagery.times] * len(self.backbone.blocks)
        if isinstance(architecture, TerratorchArchitecture):
            self.head: nn.Module = TerratorchHead(spec, architecture, dims=dims)
        else:
            head = SceneHead if spec.answer.support == "tile" else DenseHead
            self.head = head(spec, architecture, dims=dims)
        shape = (len(imagery.channels), 1, 1, 1)
        self.register_buffer("mean", torch.tensor(imagery.mean).reshape(shape), persistent=False)
        self.register_buffer("std", torch.tensor(imagery.std).reshape(shape), persistent=False)
        self.share = architecture.share
        self.register_buffer("target_mean", torch.zeros(()))
        self.register_buffer("target_std", torch.ones(()))

    def features(self, inputs: Mapping[str, Tensor]) -> list[Tensor]:
        """The backbone's feature maps of physical inputs; see `forward` and `PrithviEO.forward`."""
        x, time, location = inputs[IMAGERY], inputs.get("time"), inputs.get("location")
        maps: list[Tensor] = self.backbone(self._normalise(x), time, location)
        return maps

    def forward(self, inputs: Mapping[str, Tensor], *, features: Sequence[Tensor] | None = None) -> Tensor:
        """What `members` gives."""
        return self.members(inputs, features=features)

    def members(self, inputs: Mapping[str, Tensor], *, features: Sequence[Tensor] | None = None) -> Tensor:
        """Logits, or values in standard deviations of the training target, of each member.

        Args:
            inputs: `imagery` (B, C, T, H, W) in the Spec's unit; `time` (B, T, 2), year and day of year, and
                `location` (B, 2), latitude and longitude in degrees, where the Spec says so.
            features: what `features` gave for this input, where it is known already.

        Returns:
            (M, B, K, H, W), (M, B, 1, H, W) for values, (M, B, K) for classes of tiles; see `finish`.
        """
        maps = self.features(inputs) if features is None else features
        out: Tensor = self.head(self.normalised(inputs), maps)
        return out

    def normalised(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """The bands as the head gets them, (B, C*T, H, W)."""
        return self._normalise(inputs[IMAGERY]).flatten(1, 2)

    def predict(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Probabilities, or values in the target's unit, of the members by their weights; inputs as in `forward`."""
        return self.finish(self(inputs))

    def finish(self, output: Tensor) -> Tensor:
        """Mean probabilities (B, K, ...) or physical values of the members (M, B, K, ...) that `forward` gave."""
        if isinstance(self.spec.answer, Classes):
            return self._averaged(output.float().softmax(dim=2))
        return self._averaged(output.float()) * self.target_std + self.target_mean

    def _averaged(self, members: Tensor) -> Tensor:
        """The members (M, B, ...) as one (B, ...), by their weights."""
        if len(members) == 1:
            return members[0]
        return (1 - self.share) * members[0] + self.share * members[1]

    def _normalise(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std
