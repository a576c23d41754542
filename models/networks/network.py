"""The whole network: physical units in, normalisation by the Spec, backbone, head; probabilities or values out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.backbones.prithvi_eo import PrithviEO
from models.errors import InputError
from models.networks.decoders import DenseHead, SceneHead
from models.spec import Spec
from models.training.settings import Architecture


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
        self.spec = spec
        self.backbone = PrithviEO(
            backbone,
            bands=spec.bands,
            frames=spec.frames,
            tile=spec.tile,
            blocks=architecture.blocks or None,
            overrides=architecture.overrides,
            drop_path=architecture.drop_path,
        )
        if self.backbone.patch[-1] != spec.patch:
            raise InputError(
                f"patch {spec.patch} in the Spec: {backbone} has patches of {self.backbone.patch[-1]} pixels"
            )
        dims = [self.backbone.dim * spec.frames] * len(self.backbone.blocks)
        head = SceneHead if spec.task == "classification" else DenseHead
        self.head: nn.Module = head(spec, architecture, dims=dims)
        shape = (len(spec.bands), 1, 1, 1)
        self.register_buffer("mean", torch.tensor(spec.mean).reshape(shape), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).reshape(shape), persistent=False)
        self.register_buffer("target_mean", torch.zeros(()))
        self.register_buffer("target_std", torch.ones(()))

    def features(self, x: Tensor, time: Tensor | None = None, location: Tensor | None = None) -> list[Tensor]:
        """The backbone's feature maps of physical input (B, C, T, H, W); see `PrithviEO.forward`."""
        maps: list[Tensor] = self.backbone(self._normalise(x), time, location)
        return maps

    def forward(
        self,
        x: Tensor,
        time: Tensor | None = None,
        location: Tensor | None = None,
        *,
        features: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """Logits, or values in standard deviations of the training target.

        Args:
            x: (B, C, T, H, W) in the Spec's unit.
            time: (B, T, 2) year and day of year.
            location: (B, 2) latitude and longitude in degrees.
            features: what `features` gave for this input, where it is known already.

        Returns:
            (B, K, H, W), (B, 1, H, W) for regression, (B, K) for scene classes.
        """
        maps = self.features(x, time, location) if features is None else features
        out: Tensor = self.head(self._normalise(x).flatten(1, 2), maps)
        return out

    def predict(self, x: Tensor, time: Tensor | None = None, location: Tensor | None = None) -> Tensor:
        """Probabilities, or values in the target's unit; arguments and shapes as in `forward`."""
        return self.finish(self(x, time, location))

    def finish(self, output: Tensor) -> Tensor:
        """Probabilities or physical values from what `forward` gave."""
        if self.spec.task == "regression":
            return output.float() * self.target_std + self.target_mean
        return output.float().softmax(dim=1)

    def _normalise(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std
