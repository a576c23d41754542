"""Made records of seasons: slow changes that target and predictors share, noise that they do not, and planted skill."""

from __future__ import annotations

import numpy as np

from models.baselines.seasons import Years, cross_validate, is_skill, skill

SHAPES = ("linear", "kink", "step", "two steps", "autoregressive", "white")


def shape(kind: str, count: int, rng: np.random.Generator) -> np.ndarray:
    """A change of 0.9 K in all, by year."""
    t = np.arange(count)
    if kind == "linear":
        return 0.9 * t / (count - 1)
    if kind == "kink":
        at = rng.integers(count // 4, 3 * count // 4)
        return 0.9 * np.clip(t - at, 0, None) / (count - 1 - at)
    if kind == "step":
        return 0.9 * (t >= rng.integers(count // 5, 4 * count // 5))
    if kind == "two steps":
        return 0.45 * (t[:, None] >= rng.choice(np.arange(5, count - 5), 2, replace=False)).sum(axis=1)
    return np.zeros(count)


def noise(count: int, cells: int, memory: float, rng: np.random.Generator) -> np.ndarray:
    """Autoregressive noise of the first order (count, cells), half of it in three patterns."""
    parts = rng.normal(size=(count + 50, cells + 3))
    for i in range(1, len(parts)):
        parts[i] += memory * parts[i - 1]
    parts = parts[50:] * np.sqrt(1 - memory**2)
    return 0.5 * parts[:, 3:] + 0.5 * parts[:, :3] @ rng.normal(size=(3, cells))


def record(kind: str, seed: int, *, count: int = 70, size: float = 0.1, signal: float = 0.0) -> Years:
    """Years of 12 cells and 24 predictors; `signal` times the noise's size comes of a mode that all predictors see."""
    rng = np.random.default_rng([seed, *kind.encode()])
    change, memory = shape(kind, count, rng)[:, None], 0.7 if kind == "autoregressive" else 0.0
    mode = rng.normal(size=(count, 1))

    def field(cells: int, share: float) -> np.ndarray:
        own = change * rng.uniform(0.7, 1.3, cells) + size * noise(count, cells, memory, rng)
        return own + share * size * mode * rng.normal(size=cells)

    target, before, predictors = field(12, signal), field(12, 0.0), field(24, 1.0)
    return Years(1950 + np.arange(count), 10 + target, before, predictors, np.ones(12), np.full(24, 24**-0.5))


def claims(data: Years) -> dict[str, bool]:
    """By method, whether it is called better than climatology."""
    hindcasts = cross_validate(data)
    found = {method: skill(hindcasts, method) for method in ("persistence", "ridge")}
    return {method: is_skill(scores["rpss"], len(data.years)) for method, scores in found.items() if scores}
