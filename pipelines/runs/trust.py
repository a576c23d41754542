"""How far a run's answers are to be trusted: calibration, sets and what is unfamiliar, learned and measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models.bundle import write_familiar
from models.confidence import familiar, intervals
from models.confidence.calibration import FOLDS, Judged, calibrate, measures, words
from models.spec import IMAGERY, WEATHER, Classes, valid_of
from models.types import Array
from pipelines.reports.confidence import view as view
from pipelines.runs.answers import Answers
from pipelines.samples.sets import Samples, evenly

PIXELS = 40_000  # or cells, of all samples together, that what is familiar is learned from
FOREIGN = 4_000  # pixels, of all samples together, that are changed to see whether that is told


def confidence(samples: Samples, answers: Answers | None) -> dict[str, Any] | None:
    """What answers about left-out groups say of how sure the model is.

    Returns:
        "calibration", as bundle.json keeps it; "measures", see `calibration.measures`, or for quantities
        `intervals.learn`; "told", sentences. None where nothing was kept.
    """
    spec = samples.spec
    if answers is None or not answers.rows:
        return None
    if isinstance(spec.answer, Classes):
        found = Judged.of(*answers.joined())
        learned = calibrate(found)
        told = measures(found, learned)
        said = [learned.said, *words(told, spec.answer.channels)]
        return {"calibration": learned.to_json(), "measures": told, "told": said}
    said_of, truth, group = answers.joined()
    positive = spec.answer.positive or _never_negative(samples, truth)
    kept, told = intervals.learn(intervals.Told.of(said_of, truth, group, positive=positive), spec.answer.levels)
    over, place = ("day", "cell") if spec.over_weather else ("place", "pixel")
    said = [kept.said, *intervals.words(told, unit=spec.answer.unit, over=over, place=place)]
    return {"calibration": kept.to_json(), "measures": told, "told": said}


def _never_negative(samples: Samples, truth: Array) -> bool:
    """Whether nothing that was measured on scenes is below 0: in the training, nor where the model is asked."""
    return IMAGERY in samples.spec.inputs and not any(
        bool((values < 0).any()) for values in (truth, *(samples.truth(sample) for sample in samples.of("train")))
    )


def familiar_ground(out: Path, samples: Samples, chosen: Sequence[Any], seed: int) -> dict[str, Any] | None:
    """Write training pixels or cells, and the weather before them, into a run folder; tell what left-out groups show.

    By cross-fitting within cross-fitting, so that who is asked about has no part in the scale.

    Returns:
        "limit", the share outside that 95 of 100 groups stay below; "flagged", its mean over groups; "weather", the
        share of groups whose weather counts as unlike the others'; "groups". None where there is neither.
    """
    spec = samples.spec
    some = [chosen[i] for i in evenly(len(chosen), PIXELS)]
    groups = np.unique([samples.group(sample) for sample in some], return_inverse=True)[1]
    enough, told = groups.max() >= 2 * FOLDS, dict[str, Any](groups=int(groups.max()) + 1)
    ground = weather = None
    if not spec.over_tables:
        rows = _pixels(samples, some, seed)
        number = np.repeat(groups, [len(found) for found in rows])
        features = np.concatenate(rows)
        ground = familiar.fit(features, number, seed=seed)
        shares = familiar.flagged(features, number, seed=seed) if enough else np.ones(1)
        told |= {"limit": float(np.quantile(shares, 0.95)), "flagged": float(shares.mean())}
    if WEATHER in spec.series and len(some) > 1:
        items = [samples.item(sample) for sample in some]
        values, there = (np.stack([item[name] for item in items]) for name in (WEATHER, valid_of(WEATHER)))
        before = familiar.features_of_series(values, there, spec.series[WEATHER])
        weather = familiar.fit(before, groups, seed=seed)
        told |= {"weather": float(familiar.flagged(before, groups, seed=seed).mean())} if enough else {}
    if not (ground or weather):
        return None
    write_familiar(out, ground, weather)
    return told


def foreign_ground(samples: Samples, chosen: Sequence[Any], seed: int) -> dict[str, Any]:
    """How well what is unfamiliar tells imagery that is read wrongly from the training's, each group by the others.

    Returns:
        "auroc", mean over kinds of wrong input; "least" of them, and which "kind" that is; "kinds", how many; or
        "why" there is nothing of it.
    """
    if IMAGERY not in samples.spec.inputs:
        return {"why": "what is unfamiliar is held against changed bands, and there are none"}
    some = [chosen[i] for i in evenly(len(chosen), FOREIGN)]
    groups = np.unique([samples.group(sample) for sample in some], return_inverse=True)[1]
    if groups.max() < 2 * FOLDS:
        return {"why": f"{groups.max() + 1} groups are too few for it, {2 * FOLDS + 1} are wanted"}
    values = []
    for number, sample in enumerate(some):
        x = samples.item(sample)[IMAGERY]
        x = x.reshape(*x.shape[:2], -1)
        order = np.random.default_rng((seed, number)).permutation(x.shape[2])
        values.append(x[:, :, order[: max(FOREIGN // len(some), 1)]])
    group = np.repeat(groups, [x.shape[2] for x in values])
    channels = samples.spec.imagery.channels
    found = familiar.told_apart(np.concatenate(values, axis=2)[..., None], group, channels, seed=seed)
    kind = min(found, key=lambda kind: found[kind])
    return {"auroc": float(np.mean([*found.values()])), "least": found[kind], "kind": kind, "kinds": len(found)}


def _pixels(samples: Samples, some: Sequence[Any], seed: int) -> list[Array]:
    """Features of some pixels or cells of each sample, (N, F) each."""
    spec, rows = samples.spec, []
    for number, sample in enumerate(some):
        item = samples.item(sample)
        if IMAGERY in spec.inputs:
            found = familiar.features_of(item[IMAGERY][None], spec.imagery.channels)[0]
        else:
            found = familiar.features_of_fields(item[WEATHER])
        order = np.random.default_rng((seed, number)).permutation(len(found))
        rows.append(found[order[: max(PIXELS // len(some), 1)]])
    return rows


def kept(found: Mapping[str, Any] | None, ground: Mapping[str, Any] | None) -> dict[str, Any]:
    """What bundle.json keeps of both."""
    return {**(found["calibration"] if found else {}), **({"unfamiliar": dict(ground)} if ground else {})}
