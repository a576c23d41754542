"""The Lightning module of a run over weather fields."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torchmetrics
from torch import Tensor

from models.networks.weather import WeatherNetwork
from models.training.module import SeededTraining
from models.training.settings import Training

MONITOR = ("val_loss", "min")


class WeatherTraining(SeededTraining):
    """Trains an ensemble by the losses of each of its members.

    A batch is a dict that the network eats, with `y` (B, H, W), NaN where not known.
    """

    network: WeatherNetwork

    def __init__(
        self, network: WeatherNetwork, training: Training, *, mode: str, seed: int, log: Path | None = None
    ) -> None:
        """Wrap a network; in mode "frozen" its encoder learns nothing."""
        super().__init__(training, seed=seed, log=log)
        self.network, self.mode = network, mode
        if mode == "frozen":
            network.backbone.requires_grad_(False)
        self.weights = dict(training.loss) or {network.losses[0]: 1.0}
        self.rmse = torchmetrics.MeanSquaredError(squared=False)

    def on_train_epoch_start(self) -> None:
        """Seed the epoch; keep a frozen encoder in eval mode."""
        super().on_train_epoch_start()
        if self.mode == "frozen":
            self.network.backbone.eval()

    def training_step(self, batch: Mapping[str, Tensor], _: int) -> Tensor:
        """Loss of a batch, the members' added up."""
        answers, y = self._run(batch)
        loss = self.checked(self.network.loss(answers.flatten(0, 1), y.repeat(len(answers), 1, 1), self.weights))
        self.log("train_loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(y))
        return loss * len(answers)

    def validation_step(self, batch: Mapping[str, Tensor], _: int) -> None:
        """Loss and error of the averaged answers."""
        answers, y = self._run(batch)
        mean, known = answers.mean(dim=0), y.isfinite()
        self.rmse.update(self.network.expected(mean)[known], y[known])
        self.log("val_loss", self.network.loss(mean, y, self.weights), batch_size=len(y), prog_bar=True, sync_dist=True)

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
