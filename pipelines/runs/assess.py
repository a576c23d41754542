"""Score a model beside its baselines: metrics.json and report.html."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from models.bundle import Bundle, read_bundle
from models.errors import InputError
from models.runtime.engines import load_runtime
from models.types import Progress
from pipelines.reports.measures import best_baseline, headline
from pipelines.reports.report import write_report
from pipelines.runs.folder import read_curves, trained_on, write_result
from pipelines.samples.sets import Samples, key_of, read_split
from pipelines.tasks.task import Teller, data_for, task_named


def assess(
    folder: Path,
    bundle: Bundle,
    samples: Samples,
    chosen: Sequence[Any],
    models: Mapping[str, Teller],
    *,
    codes: Sequence[int] = (),
    curves: Sequence[Mapping[str, float]],
    notes: Sequence[str] = (),
    batch: int = 8,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Score a model, named "model", and its baselines on samples; write metrics.json and report.html into `folder`.

    Returns:
        {"headline", "data", "samples", "model": scores, "baselines": {name: scores}}, and for classes the model's
        "confusion": rows of true classes, columns of predicted ones.

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
    about = dict(task.facts(samples))
    result = {
        "headline": headline(found.shown, scores, baselines),
        "data": samples.name,
        "samples": len(chosen),
        "model": scores,
        "baselines": baselines,
    } | dict(found.more)
    write_result(folder, result)
    write_report(
        folder / "report.html",
        title=f"{bundle.training.get('recipe', 'run')}: {bundle.backbone}",
        shown=found.shown,
        facts={**about, "Evaluated on": f"{len(chosen)} samples of {about['Evaluated on']}", **trained_on(bundle)},
        scores=scores,
        baselines=baselines,
        curves=curves,
        parts=dict(found.parts(best)),
        notes=[*bundle.training.get("notes", ()), *notes],
    )
    return result


def evaluate(
    run: Path,
    *,
    data_root: Path | None = None,
    codes: list[int] | None = None,
    out: Path | None = None,
    runtime: str = "auto",
    precision: str = "auto",
    weights: Path | None = None,
    elevation: Path | None = None,
    batch: int = 8,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Score a run on its test split, or on all labelled files of another folder.

    Writes metrics.json and report.html, over those of the run unless --out names another folder; the run's own scores
    stay in bundle.json. The baselines are trained anew on the run's training split where that is still there.

    Args:
        run: the run folder.
        data_root: another folder with the same kind of files; all of them are scored.
        codes: class codes whose mean IoU is told beside the mean over all.
        out: folder for metrics.json and report.html; the run folder when not given.
        runtime: auto, openvino or torch.
        precision: auto, f32, bf16 or i8.
        weights: base weights, for --runtime torch and a bundle that stores its head only.
        elevation: elevation of another place, for a downscaling run; that of the training when not given.
        batch: tiles predicted at once.
        progress: wraps the samples to show progress.

    Returns:
        What metrics.json holds.

    Raises:
        InputError: not a run, or data that the run cannot eat.
    """
    bundle = read_bundle(run)
    task = task_named(bundle.spec.task)
    data = data_for(bundle)
    predict = load_runtime(run, runtime=runtime, precision=precision, weights=weights)
    own = data_root is None or data_root.resolve() == data.root.resolve()
    samples = task.reopen(bundle.spec, data_for(bundle, root=None if own else data_root, elevation=elevation))
    chosen, notes = _chosen(samples, read_split(run / "split.csv", samples.keys), own=own)
    if own and bundle.training.get("refit"):
        notes.append("This model was trained anew on all samples, these too: bundle.json holds the held-out scores.")
    try:
        trained = training_samples(run)
        baselines = task.baselines(*trained) if trained[1] else {}
    except InputError as error:
        notes.append(f"No baselines: the training data cannot be read any more ({error}).")
        baselines = {}
    models = {"model": task.teller(predict, batch), **baselines}
    curves = read_curves(run / "metrics.csv")
    how: dict[str, Any] = {"codes": codes or [], "batch": batch, "progress": progress}
    return assess(out or run, bundle, samples, chosen, models, curves=curves, notes=notes, **how)


def _chosen(samples: Samples, split: Mapping[tuple[str, ...], str], *, own: bool) -> tuple[list[Any], list[str]]:
    """The samples of the test split, or all of other data; and what a person should know of them."""
    known = [sample for sample in samples.samples if key_of(samples, sample) in split]
    if own:
        missing = len(samples.samples) - len(known)
        notes = [f"{missing} samples came after the training and are left out."] if missing else []
        return [sample for sample in known if split[key_of(samples, sample)] == "test"], notes
    notes = [f"{len(known)} samples bear names of the training data; if they are the same, the scores flatter."]
    return list(samples.samples), notes if known else []


def training_samples(run: Path) -> tuple[Samples, list[Any], int]:
    """The samples of a run's data, those of its training split, and the run's seed.

    Raises:
        InputError: the training data cannot be read any more.
    """
    bundle = read_bundle(run)
    samples = task_named(bundle.spec.task).reopen(bundle.spec, data_for(bundle))
    split = read_split(run / "split.csv", samples.keys)
    chosen = [sample for sample in samples.samples if split.get(key_of(samples, sample)) == "train"]
    return samples, chosen, int(bundle.training.get("seed", 0))
