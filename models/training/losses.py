"""Losses over labelled pixels only: a class below 0 and a value that is not finite are left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from models.errors import InputError
from models.spec import Answer, Classes
from models.training.processes import share, sum_of_all

Loss = Callable[..., Tensor]


def cross_entropy(
    logits: Tensor,
    truth: Tensor,
    *,
    weights: Tensor | None = None,
    smoothing: float = 0.0,
    counts: Tensor | None = None,
) -> Tensor:
    """Mean cross-entropy of the labelled pixels; 0 where none is labelled.

    Args:
        logits: (B, K, ...).
        truth: (B, ...) class indices, below 0 where not labelled.
        weights: (K,) weight of each class.
        smoothing: label smoothing, 0..1 (Szegedy et al. 2016, arXiv:1512.00567).
        counts: (B, ...) how many times each pixel counts; once when None.
    """
    target = torch.where(truth < 0, -100, truth)
    how: dict[str, Any] = {"weight": weights, "ignore_index": -100, "label_smoothing": smoothing}
    labelled = truth >= 0
    if counts is not None:
        errors = functional.cross_entropy(logits.float(), target, reduction="none", **how)
        often = labelled * counts * (1.0 if weights is None else weights[truth.clamp(min=0)])
        return (errors * counts).sum() / share(often.sum()).clamp(min=1e-6)
    summed = functional.cross_entropy(logits.float(), target, reduction="sum", **how)
    count = labelled.sum() if weights is None else weights[truth.clamp(min=0)][labelled].sum()
    return summed / share(count).clamp(min=1e-6)


def dice(
    logits: Tensor,
    truth: Tensor,
    *,
    weights: Tensor | None = None,
    smoothing: float = 0.0,
    counts: Tensor | None = None,
) -> Tensor:
    """One minus the mean soft Dice coefficient over the classes that occur in the batch (Milletari, arXiv:1606.04797).

    Shapes as in `cross_entropy`; `smoothing` is not used.
    """
    labelled = (truth >= 0).unsqueeze(1)
    often = labelled if counts is None else labelled * counts.unsqueeze(1)
    probability = logits.float().softmax(1) * often
    target = functional.one_hot(truth.clamp(min=0), logits.shape[1]).movedim(-1, 1) * labelled
    axes = [0, *range(2, logits.ndim)]
    overlap = sum_of_all((probability * target).sum(axes))  # (K,)
    mass = sum_of_all((probability + target * often).sum(axes))
    score = (2 * overlap + 1) / (mass + 1)
    counted = (sum_of_all(target.sum(axes)) > 0) * (1.0 if weights is None else weights)
    return 1 - (score * counted).sum() / counted.sum().clamp(min=1e-6)


def focal(
    logits: Tensor,
    truth: Tensor,
    *,
    weights: Tensor | None = None,
    smoothing: float = 0.0,
    counts: Tensor | None = None,
    gamma: float = 2.0,
) -> Tensor:
    """Mean focal loss of the labelled pixels (Lin et al. 2017, arXiv:1708.02002); shapes as in `cross_entropy`."""
    target = truth.clamp(min=0)
    log_p = logits.float().log_softmax(1).gather(1, target.unsqueeze(1)).squeeze(1)
    often = (truth >= 0) * (1.0 if weights is None else weights[target]) * (1.0 if counts is None else counts)
    return -(often * (1 - log_p.exp()) ** gamma * log_p).sum() / share(often.sum()).clamp(min=1e-6)


def _masked(pixel_loss: Callable[..., Tensor], values: Tensor, truth: Tensor) -> Tensor:
    """Mean of a pixel loss where the truth is finite; 0 where it nowhere is."""
    known = torch.isfinite(truth)
    errors = pixel_loss(values.float(), torch.where(known, truth, 0.0), reduction="none")
    return (errors * known).sum() / share(known.sum()).clamp(min=1)


CLASS_LOSSES: Mapping[str, Callable[..., Tensor]] = {"ce": cross_entropy, "dice": dice, "focal": focal}
VALUE_LOSSES: Mapping[str, Callable[..., Tensor]] = {
    "huber": partial(_masked, functional.huber_loss),
    "mse": partial(_masked, functional.mse_loss),
    "mae": partial(_masked, functional.l1_loss),
}


def known_losses(answer: Answer) -> Mapping[str, Callable[..., Tensor]]:
    """The losses that an answer may be learned by; the first that is named here is taken where none is chosen."""
    return CLASS_LOSSES if isinstance(answer, Classes) else VALUE_LOSSES


def weighted_sum(answer: Answer, shares: Mapping[str, float], *, smoothing: float = 0.0) -> Loss:
    """The loss of a run: a weighted sum of named losses, such as {"ce": 1.0, "dice": 0.5}.

    Args:
        answer: what is learned.
        shares: weight of each loss; the first of `known_losses` alone when empty.
        smoothing: label smoothing, of classes.

    Returns:
        A function of output, truth and, for classes, the weight of each class (K,) or None, and how many times each
        pixel counts (B, ...) or None.

    Raises:
        InputError: a loss that the answer does not know.
    """
    known = known_losses(answer)
    check_losses(shares, tuple(known))
    chosen = {known[name]: share for name, share in (shares or {next(iter(known)): 1.0}).items()}

    def loss(output: Tensor, truth: Tensor, weights: Tensor | None = None, counts: Tensor | None = None) -> Tensor:
        given = {"weights": weights, "smoothing": smoothing, "counts": counts} if isinstance(answer, Classes) else {}
        return torch.stack([share * function(output, truth, **given) for function, share in chosen.items()]).sum()

    return loss


def check_losses(shares: Mapping[str, float], known: Sequence[str]) -> None:
    """Refuse losses that are not known.

    Raises:
        InputError: names them, and what is known.
    """
    wrong = [name for name in shares if name not in known]
    if wrong:
        raise InputError(f"training.loss {', '.join(wrong)}: wanted weights of {', '.join(known)}")
