"""Chips as another place or day might have brought them: turned, brighter, or without some of their dates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.spec import IMAGERY
from models.training.settings import Training
from models.types import Array, Mask

_TAKEN = 0.5  # share of the samples that dates are taken from


def augment(item: dict[str, Any], std: Sequence[float], training: Training, rng: np.random.Generator) -> dict[str, Any]:
    """One of the eight symmetries of the square, and a random gain and offset of each band.

    Bands, labels and feature maps turn together. The maps of a frozen backbone are those of the upright chip, laid
    out anew: an approximation that costs no forward pass.
    """
    turns, mirror = (int(rng.integers(4)), bool(rng.integers(2))) if training.flips else (0, False)

    def turned(a: NDArray[Any]) -> NDArray[Any]:
        a = np.rot90(a, turns, axes=(-2, -1))
        return np.ascontiguousarray(a[..., ::-1] if mirror else a)

    maps = [name for name in (IMAGERY, "y", "counts", "features") if name in item and item[name].ndim > 1]
    out = item | {name: turned(item[name]) for name in maps}
    if training.gain or training.offset:
        shape = (len(std), 1, 1, 1)
        gain = np.exp(training.gain * (rng.normal() + rng.normal(size=shape)))
        shift = rng.normal(0, training.offset, shape) * np.reshape(std, shape)
        out[IMAGERY] = (out[IMAGERY] * gain + shift).astype(np.float32)
    return out


@dataclass(frozen=True)
class Dates:
    """What training does to the dates of items.

    Attributes:
        same: share of the items that show one date as all.
        missing: dates that may be taken away.
        gain: see `unchanged`.
        mean: of each band.
    """

    same: float
    missing: int
    gain: float
    mean: Sequence[float]

    @property
    def any(self) -> bool:
        """Whether it does anything; maps of a frozen backbone know nothing of it."""
        return bool(self.same or self.missing)

    def at_times(self, item: dict[str, Any], found: Array, rng: np.random.Generator) -> dict[str, Any]:
        """An item and its truth, at times with other dates; `found` are its bands as read: what is missing."""
        shown = self._same(item, found, rng) if self.same and rng.random() < self.same else item
        return self._without(shown, found, rng, _TAKEN)

    def always(self, item: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """An item and its truth with one date as all, or without some."""
        shown = self._same(item, item[IMAGERY], rng) if self.same else item
        return self._without(shown, item[IMAGERY], rng, 1.0)

    def _same(self, item: dict[str, Any], found: Array, rng: np.random.Generator) -> dict[str, Any]:
        """One of the dates that are not missing, as all."""
        there = np.flatnonzero(~missing_frames(found, self.mean)) if self.missing else np.arange(found.shape[1])
        return unchanged(item, int(rng.choice(there)), self.gain, rng)

    def _without(self, item: dict[str, Any], found: Array, rng: np.random.Generator, share: float) -> dict[str, Any]:
        if not self.missing:
            return item
        return item | {IMAGERY: without_frames(item[IMAGERY], found, self.mean, self.missing, rng, share=share)}


def unchanged(item: dict[str, Any], date: int, gain: float, rng: np.random.Generator) -> dict[str, Any]:
    """A pair without a change: one of an item's dates as all of them, each a little brighter or darker by itself.

    What is labelled is of the first class, so that bare ground teaches no loss by itself: it may have been bare before.
    """
    x = item[IMAGERY]  # (C, T, H, W)
    gains = np.exp(rng.normal(0, gain, (len(x), x.shape[1], 1, 1)))
    again = np.repeat(x[:, date : date + 1], x.shape[1], axis=1) * gains
    out = item | {IMAGERY: again.astype(np.float32), "y": np.where(item["y"] > 0, 0, item["y"])}
    return (
        out | {"time": np.repeat(item["time"][date : date + 1], len(item["time"]), axis=0)} if "time" in item else out
    )


def missing_frames(x: Array, mean: Sequence[float]) -> Mask:
    """Which dates of bands (C, T, H, W) hold the mean of each band alone, as `Scene.read` gives missing ones: (T,)."""
    return np.asarray(np.isclose(x, np.reshape(mean, (-1, 1, 1, 1)), rtol=1e-5).all(axis=(0, 2, 3)))


def without_frames(
    x: Array, found: Array, mean: Sequence[float], most: int, rng: np.random.Generator, *, share: float = _TAKEN
) -> Array:
    """A copy of bands (C, T, H, W) whose missing dates, by `found`, and at times more, hold the mean of each band."""
    gone = more_missing(missing_frames(found, mean), most, rng, share=share)
    absent = np.reshape(mean, (-1, 1, 1, 1)).astype(np.float32)
    return np.where(gone[:, None, None], absent, x)


def more_missing(gone: Mask, most: int, rng: np.random.Generator, *, share: float = _TAKEN) -> Mask:
    """At times more dates than are missing (T,), so that a model learns to do without; at most `most`, never all."""
    there = np.flatnonzero(~gone)
    spare = min(most - int(gone.sum()), len(there) - 1)
    if spare < 1 or rng.random() >= share:
        return gone
    out = gone.copy()
    out[rng.permutation(there)[: rng.integers(1, spare + 1)]] = True
    return out
