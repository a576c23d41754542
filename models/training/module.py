"""The Lightning module of a training: what is trained, at which rate, and what stays frozen."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torchmetrics
from lightning import LightningModule
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

from models.backbones.lora import add_lora
from models.errors import InputError
from models.files import replacing
from models.networks.assembly import AnyNetwork
from models.networks.network import Network
from models.training.distillation import Distilled
from models.training.field_students import DistilledFields
from models.training.objectives import Ensemble, Labelled
from models.training.pretraining import MaskedAutoencoder, Reconstruction
from models.training.processes import as_one, rank_of_all, sum_of_all
from models.training.settings import MODES, Lora, Training


def apply_mode(network: AnyNetwork, mode: str, lora: Lora) -> None:
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


class FineTuning(LightningModule):
    """Trains a network by an objective, a task's or that of pretraining.

    Seeds by epoch, curves that travel with the checkpoints, the rates' schedule.

    Attributes:
        curves: the figures of each epoch so far.
    """

    def __init__(
        self,
        network: AnyNetwork | MaskedAutoencoder,
        objective: Labelled | Ensemble | Distilled | DistilledFields | Reconstruction,
        training: Training,
        *,
        mode: str,
        seed: int,
        log: Path | None = None,
    ) -> None:
        """Wrap a network whose mode was applied.

        Args:
            network: the network; trained in place.
            objective: what is made small.
            training: the settings.
            mode: see `apply_mode`.
            seed: seeds dropout, anew at each epoch so that a resumed run draws what an uninterrupted one draws.
            log: CSV file that holds the curves after each epoch.
        """
        super().__init__()
        self.network, self.objective, self.settings = network, objective, training
        self.mode, self.seed, self.log_file = mode, seed, log
        self.curves: list[dict[str, float]] = []
        self.val_loss = torchmetrics.MeanMetric()

    def divide(self) -> None:
        """Divide the weights among the devices, each block of a backbone by itself: `configure_model` of strategy fsdp.

        It is no override of that, for Lightning warns of a moving average over any model that has one.
        """
        mesh = self.device_mesh
        if mesh is None or isinstance(self.network, FSDPModule):
            return
        lists = [module for module in self.network.backbone.modules() if isinstance(module, nn.ModuleList)]
        for part in (*(block for blocks in lists for block in blocks), self.network):
            fully_shard(part, mesh=mesh["data_parallel"])
        for called in ("members", "features"):  # beside `forward`
            if isinstance(self.network, Network):
                register_fsdp_forward_method(self.network, called)

    def on_train_epoch_start(self) -> None:
        """Seed the epoch; keep a frozen backbone, and late batch norms, in eval mode."""
        torch.manual_seed(self.seed * 1_000_003 + self.current_epoch + rank_of_all()[0] * 500_009)
        if self.mode == "frozen":
            self.network.backbone.eval()
        if self.current_epoch >= self.settings.freeze_norm * self.settings.epochs:
            for module in self.network.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()

    def training_step(self, batch: Mapping[str, Any], _: int) -> Tensor:
        """Loss of a batch."""
        with as_one():
            loss = self.objective.loss(batch)
            samples = int(sum_of_all(loss.new_tensor(len(batch["y"]))))
        if not torch.isfinite(loss):
            raise InputError(
                f"the loss is {loss.item()} in epoch {self.current_epoch}: lower the learning rate, or look for "
                "non-finite or unscaled values with `earthtune inspect`"
            )
        self.log("train_loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=samples, sync_dist=True)
        return loss * self.objective.weight

    def validation_step(self, batch: Mapping[str, Any], _: int) -> None:
        """Loss and scores of a batch."""
        self.val_loss.update(self.objective.validate(batch), len(batch["y"]))

    def on_validation_epoch_end(self) -> None:
        """Log the loss and the scores of the epoch, of all processes."""
        self.log("val_loss", self.val_loss.compute(), prog_bar=True, sync_dist=True)
        self.val_loss.reset()
        for name, metric in self.objective.scores.items():
            if metric.update_called:
                self.log(f"val_{name}", metric.compute(), prog_bar=name in ("mean_iou", "rmse"), sync_dist=True)
        self.objective.scores.reset()

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
        optimiser = torch.optim.AdamW(list(parameter_groups(self.network, self.settings)), lr=self.settings.lr)
        total = max(int(self.trainer.estimated_stepping_batches), 1)
        warm = max(round(self.settings.warmup * total), 1)

        def share(step: int) -> float:
            if step < warm:
                return (step + 1) / warm
            return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(total - warm, 1)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, share)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


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


def parameter_groups(network: AnyNetwork | MaskedAutoencoder, training: Training) -> Iterable[dict[str, Any]]:
    """Optimiser groups of the trained weights: by learning rate, and with or without weight decay.

    Raises:
        InputError: every weight is frozen.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            decay = training.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((rate(name, network, training), decay), []).append(parameter)
    if not groups:
        raise InputError("nothing is left to train: every weight is frozen")
    for (speed, decay), parameters in groups.items():
        yield {"params": parameters, "lr": speed, "weight_decay": decay}


def rate(name: str, network: AnyNetwork | MaskedAutoencoder, training: Training) -> float:
    """Learning rate of a parameter by its place in the network; adapters learn at the head's rate.

    Layer-wise decay as in BEiT (Bao et al. 2021, arXiv:2106.08254): each block of a Prithvi EO learns more slowly than
    the one above it; Prithvi WxC learns at one rate, and so does all that is pretrained.
    """
    if not name.startswith("backbone.") or name.endswith((".down", ".up")):
        return training.lr
    if not isinstance(network, Network):
        return training.lr * training.backbone_lr
    depth = len(network.backbone.vit.blocks)
    parts = name.split(".")
    block = int(parts[3]) if parts[2] == "blocks" else depth - 1 if parts[2] == "norm" else -1
    return training.lr * training.backbone_lr * training.layer_decay ** (depth - 1 - block)
