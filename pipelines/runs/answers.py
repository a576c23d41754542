"""Answers about what the model never saw, as they are given: kept for calibration, and in the run folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.baselines.fields import Forecast
from models.files import replacing
from pipelines.samples.sets import Samples, evenly, key_of
from pipelines.tasks.task import Teller

KEPT = "left_out.npz"
PLACES = 4_000_000  # pixels or cells that are kept, over all samples


class Answers:
    """What a model, or those of the folds, say where the truth is known: what confidence is calibrated on."""

    def __init__(self, samples: int, fold_of: Mapping[tuple[str, ...], int] | None = None) -> None:
        """Keep places of so many samples, by their folds where there are some; evenly of each, `PLACES` in all."""
        self.fold_of, self.most = fold_of or {}, max(PLACES // max(samples, 1), 1)
        self.rows: list[tuple[NDArray[Any], NDArray[Any], str, int]] = []

    def kept(self, tell: Teller) -> Teller:
        """A teller whose answers are kept."""

        def told(samples: Samples, chosen: Sequence[Any]) -> Any:
            found = tell(samples, chosen)
            answers = found
            if isinstance(found, Forecast):
                answers = found.quantiles if found.quantiles.shape[1] else found.mean[:, None]
            for sample, answer in zip(chosen, answers, strict=True):
                self._keep(samples, sample, answer)
            return found

        return told

    def _keep(self, samples: Samples, sample: Any, answer: NDArray[Any]) -> None:
        truth = np.atleast_1d(samples.truth(sample)).ravel()
        known = np.flatnonzero(np.isfinite(truth) & ((truth >= 0) | (truth.dtype.kind == "f")))
        some = known[evenly(len(known), self.most)] if len(known) else known
        rows = answer.reshape(len(answer), -1).T[some]
        fold = self.fold_of.get(key_of(samples, sample), 0)
        exact = truth.dtype.kind == "f"  # half precision knows probabilities to a thousandth, but 290 K to a quarter
        self.rows.append((rows.astype(np.float32 if exact else np.float16), truth[some], samples.group(sample), fold))

    def joined(self) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Answers (N, K), truth (N,) and the group of each (N,)."""
        answers, truth, groups, _ = zip(*self.rows, strict=True)
        of_each = np.repeat(np.array(groups, str), [len(t) for t in truth])
        return np.concatenate(answers), np.concatenate(truth), of_each

    def write(self, path: Path) -> None:
        """Write answers (N, K), float16 of classes, truth (N,), and the sample of each; of samples group and fold."""
        answers, truth, groups, folds = zip(*self.rows, strict=True)
        with replacing(path) as draft, draft.open("wb") as file:
            np.savez_compressed(
                file,
                answers=np.concatenate(answers),
                truth=np.concatenate(truth),
                sample=np.repeat(np.arange(len(truth)), [len(t) for t in truth]),
                group=np.array(groups, str),
                fold=np.array(folds),
            )
