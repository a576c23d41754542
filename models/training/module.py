"""The Lightning module of a fine-tuning run: loss, metrics, optimiser, what is trained and what stays frozen."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torchmetrics
from lightning import LightningModule
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from models.backbones.lora import add_lora
from models.errors import InputError
from models.files import replacing
from models.networks.network import Network
from models.training.losses import weighted_sum
from models.training.settings import MODES, Lora, Training

DEFAULT_LOSS = {"segmentation": "ce", "classification": "ce", "regression": "huber"}
# The validation score that picks the best epoch, and whether more is better. Scene sets are often so small that
# accuracy ties between epochs; their loss does not.
MONITOR = {
    "segmentation": ("val_mean_iou", "max"),
    "classification": ("val_loss", "min"),
    "regression": ("val_rmse", "min"),
}


def apply_mode(network: Network, mode: str, lora: Lora) -> None:
    """Choose what is trained: "frozen" the head, "lora" the head and adapters, "full" everything.

    Raises:
        InputError: no such mode.
    """
    if mode not in MODES:
        raise InputError(f"mode {mode!r}: wanted one of {', '.join(MODES)}")
    if mode == "frozen":
        network.backbone.requires_grad_(False)
    elif mode == "lora":
        add_lora(network.backbone, rank=lora.rank, alpha=lora.alpha)


class SeededTraining(LightningModule):
    """What every training shares: seeds by epoch, curves that travel with the checkpoints, the optimiser's schedule.

    Attributes:
        curves: the figures of each epoch so far.
    """

    network: nn.Module

    def __init__(self, settings: Training, *, seed: int, log: Path | None = None) -> None:
        """Start without curves.

        Args:
            settings: the settings.
            seed: seeds dropout, anew at each epoch so that a resumed run draws what an uninterrupted one draws.
            log: CSV file that holds the curves after each epoch.
        """
        super().__init__()
        self.settings, self.seed, self.log_file = settings, seed, log
        self.curves: list[dict[str, float]] = []

    def rate(self, name: str) -> float:
        """Learning rate of a weight by its name."""
        return self.settings.lr

    def on_train_epoch_start(self) -> None:
        """Seed the epoch."""
        torch.manual_seed(self.seed * 1_000_003 + self.current_epoch)

    def checked(self, loss: Tensor) -> Tensor:
        """The loss.

        Raises:
            InputError: it is not finite.
        """
        if not torch.isfinite(loss):
            raise InputError(
                f"the loss is {loss.item()} in epoch {self.current_epoch}: lower training.lr, or look for "
                "non-finite or unscaled values with `earthtune inspect`"
            )
        return loss

    def on_train_epoch_end(self) -> None:
        """Keep the epoch's figures; they travel with the checkpoint, so a resumed run has the whole curve."""
        figures = {key: float(value) for key, value in self.trainer.callback_metrics.items() if key != "epoch"}
        self.curves.append({"epoch": self.current_epoch, **figures})
        if self.log_file is not None and self.trainer.is_global_zero:
            write_curves(self.log_file, self.curves)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the curves."""
        checkpoint["curves"] = self.curves

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the curves back."""
        self.curves = list(checkpoint["curves"])

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW over the trained weights; the rate warms up, then falls along a cosine."""
        optimiser = torch.optim.AdamW(
            list(parameter_groups(self.network, self.settings, self.rate)), lr=self.settings.lr
        )
        total = max(int(self.trainer.estimated_stepping_batches), 1)
        warm = max(round(self.settings.warmup * total), 1)

        def share(step: int) -> float:
            if step < warm:
                return (step + 1) / warm
            return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(total - warm, 1)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, share)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class FineTuning(SeededTraining):
    """Trains a network on batches of chips.

    A batch is a dict: `x` (B, C, T, H, W), `y` (B, H, W) class indices or values, or (B,) for scene classes, and
    optionally `time` (B, T, 2), `location` (B, 2) and `features` (B, L, D, h, w), the frozen backbone's maps of x.
    """

    network: Network
    class_weights: Tensor | None

    def __init__(
        self,
        network: Network,
        training: Training,
        *,
        mode: str,
        seed: int,
        class_weights: Tensor | None = None,
        log: Path | None = None,
    ) -> None:
        """Wrap a network whose mode was applied.

        Args:
            network: the network; trained in place.
            training: the settings.
            mode: see `apply_mode`.
            seed: seeds dropout, anew at each epoch so that a resumed run draws what an uninterrupted one draws.
            class_weights: (K,) weight of each class in the loss.
            log: CSV file that holds the curves after each epoch.

        Raises:
            InputError: a loss that the task does not know.
        """
        super().__init__(training, seed=seed, log=log)
        self.network, self.mode = network, mode
        task = network.spec.task
        loss = training.loss or {DEFAULT_LOSS[task]: 1.0}
        self.weighted_sum = weighted_sum(task, loss, smoothing=training.smoothing)
        self.register_buffer("class_weights", class_weights, persistent=False)
        self.scores = _scores(task, network.spec.outputs)

    def on_train_epoch_start(self) -> None:
        """Seed the epoch; keep a frozen backbone, and late batch norms, in eval mode."""
        super().on_train_epoch_start()
        if self.mode == "frozen":
            self.network.backbone.eval()
        if self.current_epoch >= self.settings.freeze_norm * self.settings.epochs:
            for module in self.network.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()

    def training_step(self, batch: Mapping[str, Any], _: int) -> Tensor:
        """Loss of a batch."""
        output, truth = self._run(batch)
        loss = self.checked(self._loss(output, truth))
        self.log("train_loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(truth))
        return loss

    def validation_step(self, batch: Mapping[str, Any], _: int) -> None:
        """Loss and scores of a batch."""
        output, truth = self._run(batch)
        self.log("val_loss", self._loss(output, truth), batch_size=len(truth), prog_bar=True, sync_dist=True)
        if self.network.spec.task == "regression":
            known = torch.isfinite(truth)
            output, truth = output[known] * self.network.target_std, truth[known] * self.network.target_std
        if truth.numel():
            self.scores.update(output if output.shape == truth.shape else output.argmax(1), truth)

    def on_validation_epoch_end(self) -> None:
        """Log the scores of the epoch."""
        for name, metric in self.scores.items():
            if metric.update_called:
                self.log(f"val_{name}", metric.compute(), prog_bar=name in ("mean_iou", "rmse"))
        self.scores.reset()

    def rate(self, name: str) -> float:
        """Learning rate of a weight by its name, see `backbone_rate`."""
        return backbone_rate(name, self.network, self.settings)

    def _loss(self, output: Tensor, truth: Tensor) -> Tensor:
        return self.weighted_sum(output, truth, self.class_weights)

    def _run(self, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """Output and truth of a batch; values in standard deviations of the training target."""
        network = self.network
        features = batch["features"].unbind(1) if "features" in batch else None  # L maps (B, D, h, w)
        output = network(batch["x"], batch.get("time"), batch.get("location"), features=features)
        truth = batch["y"]
        if network.spec.task == "regression":
            return output[:, 0], (truth - network.target_mean) / network.target_std
        return output, truth


class WholeCheckpoints(TorchCheckpointIO):
    """Checkpoints that are written beside their place and renamed: a full disk or a kill leaves the last good one."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write a checkpoint."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with replacing(Path(path)) as draft:
            super().save_checkpoint(checkpoint, draft, storage_options)


def write_curves(path: Path, curves: Sequence[Mapping[str, float]]) -> None:
    """Write the figures of each epoch as CSV, one row an epoch; a reader sees the old file or the new one."""
    columns = list(dict.fromkeys(key for row in curves for key in row))
    with replacing(path) as draft, draft.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, columns)
        table.writeheader()
        table.writerows(curves)


def _scores(task: str, outputs: int) -> torchmetrics.MetricCollection:
    """Validation scores by name."""
    if task == "regression":
        return torchmetrics.MetricCollection({"rmse": torchmetrics.MeanSquaredError(squared=False)})
    accuracy = MulticlassAccuracy(outputs, average="micro", ignore_index=-1)
    metrics: dict[str, torchmetrics.Metric | torchmetrics.MetricCollection] = {"accuracy": accuracy}
    if task == "segmentation":
        metrics["mean_iou"] = MulticlassJaccardIndex(outputs, average="macro", ignore_index=-1)
    return torchmetrics.MetricCollection(metrics, compute_groups=False)


def parameter_groups(network: nn.Module, training: Training, rate: Callable[[str], float]) -> Iterable[dict[str, Any]]:
    """Optimiser groups of the trained weights: by learning rate, and with or without weight decay.

    Raises:
        InputError: every weight is frozen.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            decay = training.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((rate(name), decay), []).append(parameter)
    if not groups:
        raise InputError("nothing is left to train: every weight is frozen")
    for (speed, decay), parameters in groups.items():
        yield {"params": parameters, "lr": speed, "weight_decay": decay}


def backbone_rate(name: str, network: Network, training: Training) -> float:
    """Learning rate of a parameter by its place in the network; adapters learn at the head's rate.

    Layer-wise decay as in BEiT (Bao et al. 2021, arXiv:2106.08254): each block of the backbone learns more slowly than
    the one above it.
    """
    if not name.startswith("backbone.") or name.endswith((".down", ".up")):
        return training.lr
    depth = len(network.backbone.vit.blocks)
    parts = name.split(".")
    block = int(parts[3]) if parts[2] == "blocks" else depth - 1 if parts[2] == "norm" else -1
    return training.lr * training.backbone_lr * training.layer_decay ** (depth - 1 - block)
