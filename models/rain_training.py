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
LOSSES = ("pinball", "mse")


class RainTraining(SeededTraining):
    """Trains a rain network by the losses of each member: pinball, and if asked for the squared error of the mean.

    A batch is a dict as `wxc_inputs.make_batch` builds it, with `y` (B, H, W), rain in mm/h, NaN where not known.
    """

    network: RainNetwork

    def __init__(
        self, network: RainNetwork, training: Training, *, mode: str, seed: int, log: Path | None = None
    ) -> None:
        """Wrap a network; in mode "frozen" its encoder learns nothing."""
        super().__init__(training, seed=seed, log=log)
        self.network, self.mode = network, mode
        if mode == "frozen":
            network.backbone.requires_grad_(False)
        self.weights = dict(training.loss) or {"pinball": 1.0}  # of LOSSES
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
        """The pinball loss, and the squared error of the mean, in scales of the training rain."""
        spec, known = self.network.spec, y.isfinite()
        loss = self.weights.get("pinball", 0.0) * pinball_loss(quantiles, y, spec.levels) / spec.scale
        if "mse" in self.weights:
            error = (expectation(quantiles, spec.levels) - y)[known] / spec.scale
            loss = loss + self.weights["mse"] * error.square().mean()
        return loss
