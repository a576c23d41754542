"""Score a model beside its baselines: metrics.json and report.html."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from models.bundle import Bundle, read_bundle
from models.errors import InputError
from models.types import Predict, Progress
from pipelines.records.energy import ASSESS, Meter
from pipelines.reports import cost, groups
from pipelines.reports.measures import best_baseline, headline
from pipelines.reports.report import write_report
from pipelines.runs import trust
from pipelines.runs.answers import Answers
from pipelines.runs.folder import trained_on, write_result
from pipelines.runs.worth import inputs, students, tokens
from pipelines.samples.sets import Samples, key_of, read_split
from pipelines.tasks.imagery import cheap_models
from pipelines.tasks.task import Judgement, Teller, data_for, task_named


def assess(
    folder: Path,
    bundle: Bundle,
    samples: Samples,
    chosen: Sequence[Any],
    models: Mapping[str, Teller],
    *,
    asked: Mapping[str, Teller] | None = None,
    codes: Sequence[int] = (),
    curves: Sequence[Mapping[str, float]],
    answers: Answers | None = None,
    ground: Mapping[str, Any] | None = None,
    corrections: Mapping[str, Any] | None = None,
    student: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
    batch: int = 8,
    progress: Progress | None = None,
    meter: Meter | None = None,
) -> dict[str, Any]:
    """Score a model, named "model", and its baselines on samples; write metrics.json and report.html into `folder`.

    Args:
        folder: where to write.
        bundle: the run.
        samples: where the samples come from.
        chosen: those that are asked about.
        models: the model and its baselines.
        asked: the model with other tokens and inputs, see `tokens.tellers` and `inputs.tellers`; what they are worth is
            told where it is given.
        codes: class codes whose mean IoU is told, too.
        curves: the training log.
        answers: what the model says of groups that it never saw, kept while it is asked; confidence is learned of it.
        ground: what of left-out groups is unlike the training's ground, see `trust.familiar_ground`.
        corrections: what those of reviewers changed, see `corrections.changed`.
        student: how it does beside its teacher, see `students.compared`.
        notes: what limits the numbers, a sentence each.
        batch: samples asked about at once.
        progress: wraps them to show progress.
        meter: books what it costs.

    Returns:
        {"headline", "data", "samples", "model": scores, "baselines": {name: scores}, "compared", "groups": {group:
        {"model": leading score, and that of the best baseline}}, "tokens", "inputs",
        "confidence", see `trust.confidence`, "unfamiliar", "corrections", "student",
        "notes"},
        and for classes the model's "confusion": rows of true classes, columns of predicted ones.

    Raises:
        InputError: no samples, or nothing of them is known.
    """
    if batch < 1:
        raise InputError(f"batch {batch}: wanted at least 1")
    if not chosen:
        raise InputError(f"{samples.name}: no sample to evaluate; --data.root names another folder")
    task = task_named(bundle.spec.task)
    found = task.judge(samples, chosen, models, codes=codes, batch=batch, progress=progress)
    scores, baselines = found.scores["model"], {name: s for name, s in found.scores.items() if name != "model"}
    if not scores["n"]:
        raise InputError(f"{samples.name}: nothing is known of the {len(chosen)} samples; nothing to score")
    best = best_baseline(found.shown.said[0], baselines)
    compared = found.compare("model", best) if best else None
    about = dict(task.facts(samples))
    worth = tokens.worth(task, samples, chosen, asked, batch=batch) if asked else None
    weather = inputs.worth(
        task, samples, chosen, asked or {}, gate=getattr(bundle.architecture, "gate", 1.0), batch=batch
    )
    sure = trust.confidence(samples, answers)
    by_group = _by_group(found, best)
    result = {
        "headline": headline(found.shown, scores, baselines, compared.told(found.shown.unit) if compared else ""),
        "data": samples.name,
        "samples": len(chosen),
        "model": scores,
        "baselines": baselines,
        "compared": compared and compared.to_json(),
        "groups": by_group,
        "tokens": worth,
        "inputs": weather,
        "confidence": sure,
        "unfamiliar": ground,
        "corrections": corrections,
        "student": student,
        "notes": list(notes),
    } | dict(found.more)
    write_result(folder, result)
    parts = {**found.parts(best), **_views(found, best, result, folder)}
    _report(folder, bundle, found, result, curves, about, parts, meter)
    return result


def _views(found: Judgement, best: str | None, result: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """What the report shows of a result beside what the task shows of itself."""
    unit, compared, corrections = found.shown.unit, result["compared"], result["corrections"]
    return {
        "tokens": tokens.view(result["tokens"], unit),
        "inputs": tokens.view(result["inputs"], unit),
        "confidence": trust.view(result["confidence"], result["unfamiliar"]),
        "groups": groups.view(
            result["groups"], found.shown, best, counted=compared["counted"] if compared else "group"
        ),
        "corrections": corrections["told"] if corrections else [],
        "student": students.view(result["student"], unit, folder),
    }


def _by_group(found: Judgement, best: str | None) -> dict[str, dict[str, float | None]]:
    """The leading score of each group, the model's and that of the best baseline."""
    names = ("model", *([best] if best else []))
    return {group: {name: found.groups[name].get(group) for name in names} for group in found.groups["model"]}


def _report(
    folder: Path,
    bundle: Bundle,
    found: Judgement,
    result: Mapping[str, Any],
    curves: Sequence[Mapping[str, float]],
    about: Mapping[str, str],
    parts: Mapping[str, Any],
    meter: Meter | None,
) -> None:
    """Write report.html of what `assess` found, with what was booked until now."""
    if meter:
        meter.lap(ASSESS)
        meter.keep()
    on = f"{result['samples']} samples of {about['Evaluated on']}"
    write_report(
        folder / "report.html",
        title=f"{bundle.training.get('recipe', 'run')}: {bundle.backbone}",
        shown=found.shown,
        facts={**about, "Evaluated on": on, **trained_on(bundle)},
        headline=str(result["headline"]),
        scores=result["model"],
        baselines=result["baselines"],
        curves=curves,
        parts={**parts, "cost": cost.view(folder)},
        notes=[*bundle.training.get("notes", ()), *result["notes"]],
    )
    if meter:
        meter.lap(ASSESS)


def tested(samples: Samples, split: Mapping[tuple[str, ...], str], *, own: bool) -> tuple[list[Any], list[str]]:
    """The samples that judge a run, test, else val, else all, or all of other data; and what a person should know."""
    known = [sample for sample in samples.samples if key_of(samples, sample) in split]
    if own:
        missing = len(samples.samples) - len(known)
        notes = [f"{missing} samples came after the training and are left out."] if missing else []
        judging = next((name for name in ("test", "val") if name in split.values()), "train")
        return [sample for sample in known if split[key_of(samples, sample)] == judging], notes
    notes = [f"{len(known)} samples bear names of the training data; if they are the same, the scores flatter."]
    return list(samples.samples), notes if known else []


def training_samples(run: Path) -> tuple[Any, list[Any], int]:
    """The samples of a run's data, those of its training split, and the run's seed.

    Raises:
        InputError: the training data cannot be read any more.
    """
    bundle = read_bundle(run)
    samples = task_named(bundle.spec.task).reopen(bundle.spec, data_for(bundle))
    split = read_split(run / "split.csv", samples.keys)
    chosen = [sample for sample in samples.samples if split.get(key_of(samples, sample)) == "train"]
    return samples, chosen, int(bundle.training.get("seed", 0))


def baselines_of(run: Path) -> Mapping[str, Predict]:
    """The baselines of a run over scenes, trained anew on its training split; each is called as a runtime is.

    Raises:
        InputError: the training data cannot be read any more.
    """
    return cheap_models(*training_samples(run))
