"""The Lightning module of a rain run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torchmetrics
from torch import Tensor

from models.quantiles import expectation, pinball_loss
from models.rain import RainNetwork
from models.settings import Training
from models.training import SeededTraining

MONITOR = ("val_loss", "min")


class RainTraining(SeededTraining):
    """Trains a rain network by the pinball loss of each member.

    A batch is a dict as `wxc_inputs.make_batch` builds it, with `y` (B, H, W), rain in mm/h, NaN where not known.
    """

    network: RainNetwork

    def __init__(
        self, network: RainNetwork, training: Training, *, mode: str, seed: int, log: Path | None = None
    ) -> None:
        """Wrap a network; in mode "frozen" its encoder learns nothing."""
        super().__init__(training, seed=seed, log=log)
        self.network, self.mode = network, mode
        network.backbone.requires_grad_(mode != "frozen")
        network.backbone.net.mask_token.requires_grad_(False)
        self.rmse = torchmetrics.MeanSquaredError(squared=False)

    def on_train_epoch_start(self) -> None:
        """Seed the epoch; keep a frozen encoder in eval mode."""
        super().on_train_epoch_start()
        if self.mode == "frozen":
            self.network.backbone.eval()

    def training_step(self, batch: Mapping[str, Tensor], _: int) -> Tensor:
        """Loss of a batch, the members' added up."""
        quantiles, y = self._run(batch)
        loss = self.checked(self._loss(quantiles.flatten(0, 1), y.repeat(len(quantiles), 1, 1)))
        self.log("train_loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(y))
        return loss * len(quantiles)

    def validation_step(self, batch: Mapping[str, Tensor], _: int) -> None:
        """Loss and error of the averaged quantiles."""
        quantiles, y = self._run(batch)
        mean = quantiles.mean(dim=0)
        known = y.isfinite()
        self.rmse.update(expectation(mean, self.network.spec.levels)[known], y[known])
        self.log("val_loss", self._loss(mean, y), batch_size=len(y), prog_bar=True, sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        """Log the error of the epoch."""
        self.log("val_rmse", self.rmse.compute(), prog_bar=True)
        self.rmse.reset()

    def rate(self, name: str) -> float:
        """Learning rate of a weight: the encoder's share of it, or all of it."""
        return self.settings.lr * (self.settings.backbone_lr if name.startswith("backbone.") else 1.0)

    def _run(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        fields = {key: value for key, value in batch.items() if key != "y"}
        return self.network(fields), batch["y"]

    def _loss(self, quantiles: Tensor, y: Tensor) -> Tensor:
        return pinball_loss(quantiles, y, self.network.spec.levels) / self.network.spec.scale
