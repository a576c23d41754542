"""What a training makes small, and which validation scores it tells: for labelled imagery, and for weather."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
import torchmetrics
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from models.networks.decoders import SceneHead
from models.networks.detail import StatisticsVote
from models.networks.network import Network
from models.networks.rain import RainNetwork
from models.networks.tables import TableNetwork
from models.networks.weather import WeatherNetwork
from models.spec import Classes
from models.training.forests import plant_boosting, plant_forests
from models.training.losses import weighted_sum
from models.training.settings import TableArchitecture, Training
from models.training.statistics import fit_logistic, fit_statistics

Batch = Mapping[str, Any]


class Labelled(nn.Module):
    """Classes or values of imagery.

    A batch is what the network eats, with `y` (B, H, W) class indices or values, or (B,) for classes of tiles, and
    where a frozen backbone's maps are known, `features` (B, L, D, h, w); where pixels count unevenly, `counts` (B, H,
    W).

    Attributes:
        monitor: the validation score that picks the best epoch, and "min" or "max".
        scores: validation scores by name, updated by `validate`.
    """

    weight = 1.0  # of the loss in a step
    class_weights: Tensor | None

    def __init__(self, network: Network, training: Training, *, class_weights: Tensor | None = None) -> None:
        """Make an objective of a network.

        Args:
            network: the network.
            training: losses and smoothing.
            class_weights: (K,) weight of each class in the loss.

        Raises:
            InputError: a loss that the answer does not know.
        """
        super().__init__()
        answer = network.spec.answer
        self.network = [network]  # not a part of this module
        self.classes = isinstance(answer, Classes)
        # Scene sets are often so small that accuracy ties between epochs; their loss does not.
        picks = {"tile": ("val_loss", "min"), "sample": ("val_loss", "min"), "pixel": ("val_mean_iou", "max")}
        self.monitor = picks[answer.support] if self.classes else ("val_rmse", "min")
        self.epochs = training.epochs
        self.total = weighted_sum(answer, training.loss, smoothing=training.smoothing)
        self.register_buffer("class_weights", class_weights, persistent=False)
        self.scores = self._scores(answer.channels, mean_iou=answer.support == "pixel")

    def loss(self, batch: Batch) -> Tensor:
        """The losses over labelled pixels, added up; of the members that are trained, their mean."""
        return self.of_output(self._run(batch), batch)

    def begin(self, items: Dataset[Any], *, seed: int) -> str:
        """Train what learns apart from all else, on the items as they are; what was done, in words."""
        head = self.network[0].head
        if isinstance(head, SceneHead):
            return fit_logistic(self.network[0], head, items)
        vote = getattr(head, "statistics", None)
        if not isinstance(vote, StatisticsVote):
            return ""
        learned = self.network[0], vote, items, self.total, self.class_weights
        return fit_statistics(*learned, epochs=self.epochs, seed=seed)

    def validate(self, batch: Batch) -> Tensor:
        """The loss; accuracy, mean IoU or RMSE in the target's unit of the averaged answers are added."""
        output, truth = self._run(batch), batch["y"]
        answer = self.network[0].finish(output)  # (B, K, ...)
        known = torch.isfinite(truth)
        told, true = (answer.argmax(1), truth) if self.classes else (answer[:, 0][known], truth[known])
        if true.numel():
            self.scores.update(told, true)
        return self.of_output(output, batch)

    def _run(self, batch: Batch) -> Tensor:
        """The members' outputs, (M, B, K, ...)."""
        features = batch["features"].unbind(1) if "features" in batch else None  # L maps (B, D, h, w)
        output: Tensor = self.network[0].members(batch, features=features)
        return output

    def of_output(self, output: Tensor, batch: Batch) -> Tensor:
        """The losses of the members' outputs (M, B, K, ...), see `loss`."""
        network, every = self.network[0], output.flatten(0, 1)  # (M * B, K, ...)
        many = [len(output), *[1] * (batch["y"].ndim - 1)]
        truth = batch["y"].repeat(many)
        if self.classes:
            counts = batch["counts"].repeat(many) if "counts" in batch else None
            return self.total(every, truth, self.class_weights, counts)
        return self.total(every[:, 0], (truth - network.target_mean) / network.target_std)

    def _scores(self, channels: int, *, mean_iou: bool) -> torchmetrics.MetricCollection:
        if not self.classes:
            return torchmetrics.MetricCollection({"rmse": torchmetrics.MeanSquaredError(squared=False)})
        accuracy = MulticlassAccuracy(channels, average="micro", ignore_index=-1)
        metrics: dict[str, torchmetrics.Metric | torchmetrics.MetricCollection] = {"accuracy": accuracy}
        if mean_iou:
            metrics["mean_iou"] = MulticlassJaccardIndex(channels, average="macro", ignore_index=-1)
        return torchmetrics.MetricCollection(metrics, compute_groups=False)


class Ensemble(nn.Module):
    """Fields by an ensemble: each member by the losses of its own.

    A batch is what the network eats, with `y` (B, H, W), NaN where not known.
    """

    monitor = ("val_loss", "min")

    def __init__(self, network: WeatherNetwork, training: Training) -> None:
        """Make an objective of a network."""
        super().__init__()
        self.network = [network]
        self.weight = float(len(network.members))  # so that each learns as fast as it would alone
        self.weights = dict(training.loss) or {network.losses[0]: 1.0}
        self.scores = torchmetrics.MetricCollection({"rmse": torchmetrics.MeanSquaredError(squared=False)})

    def begin(self, items: Dataset[Any], *, seed: int) -> str:
        """Let the network learn what comes before the training."""
        network, count = self.network[0], len(cast("Any", items))
        network.begin(items[i] for i in range(count))
        if isinstance(network, RainNetwork) and network.trees is not None:
            return plant_boosting(network, items, network.trees.rounds, seed=seed)
        return ""

    def loss(self, batch: Batch) -> Tensor:
        """The mean of the members' losses."""
        return self.of_output(self.network[0](batch), batch)

    def of_output(self, output: Tensor, batch: Batch) -> Tensor:
        """The mean of the losses of the members' answers (M, B, ...)."""
        y = batch["y"].repeat(len(output), 1, 1)
        return self.network[0].loss(output.flatten(0, 1), y, self.weights)

    def validate(self, batch: Batch) -> Tensor:
        """Loss of the averaged answers; their error is added."""
        network, y = self.network[0], batch["y"]
        mean, known = network.averaged(network(batch)), y.isfinite()
        self.scores.update(network.expected(mean)[known], y[known])
        return network.loss(mean, y, self.weights)


class Tabled(Labelled):
    """Classes or values of samples of tables, see `Labelled`; forests are grown before the layers are trained."""

    def __init__(
        self,
        network: TableNetwork,
        training: Training,
        architecture: TableArchitecture,
        *,
        class_weights: Tensor | None = None,
    ) -> None:
        """Make an objective of a network; see `Labelled`."""
        super().__init__(cast("Any", network), training, class_weights=class_weights)
        self.architecture = architecture

    def begin(self, items: Dataset[Any], *, seed: int) -> str:
        """Grow the forests; what they learned from, in words."""
        return plant_forests(cast("Any", self.network[0]), items, self.class_weights, self.architecture, seed=seed)

    def _run(self, batch: Batch) -> Tensor:
        """What each of the layers says, (3 E, B, K), or after the training all parts, (5, B, K)."""
        output: Tensor = self.network[0](batch)
        return output
