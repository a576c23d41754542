"""The model card: what a run eats and says, learned from, is worth beside baselines, and where not to trust it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from models.bundle import Bundle
from models.runtime import silence as silence  # before the hub client is imported
from models.spec import Cells, Classes, Input, Pixels, Quantiles, Series
from pipelines.publishing import licences
from pipelines.publishing.files import PICTURE
from pipelines.records.label import line
from pipelines.reports.measures import NAMES, Shown, kind_of, table

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

LONGEST = 20  # names that are written out
_TAGS = {"pixel": "image-segmentation", "tile": "image-classification", "sample": "tabular-classification"}


@dataclass(frozen=True)
class Facts:
    """What a card is written from.

    Attributes:
        repo: where it is published.
        bundle: the run.
        licence: its licence.
        metrics: what metrics.json tells of the run's own test; empty where it does not.
        label: the energy that was recorded; empty where none was.
        groups: names of the groups or samples that were left out.
        data: what a person says of the training data and its licence.
        adapters: only the adapters and the head are published.
    """

    repo: str
    bundle: Bundle
    licence: str
    metrics: Mapping[str, Any]
    label: Mapping[str, Any]
    groups: Sequence[str] = ()
    data: str = ""
    adapters: bool = False


def card(facts: Facts) -> str:
    """README.md, as the hub client reads it."""
    from huggingface_hub import ModelCardData

    bundle, base = facts.bundle, facts.bundle.base
    beside: dict[str, Any] = {}  # what the client has no argument for
    if base.repo:
        relation = "adapter" if facts.adapters else "finetune"
        beside = {"base_model_relation": relation, "base_model_revision": base.revision}
    if facts.label:
        beside["co2_eq_emissions"] = dict(facts.label["co2_eq_emissions"])
    tags = ["prithvi", "geospatial", "earth-observation", bundle.spec.task, *(["lora"] if facts.adapters else [])]
    title = _title(bundle)
    results = _results(facts)
    about = ModelCardData(
        model_name=title if results else None,
        license=facts.licence,
        library_name="earthtune",
        pipeline_tag=_pipeline(bundle),
        tags=tags,
        metrics=sorted({result.metric_type for result in results}) or None,
        eval_results=results or None,
        base_model=base.repo,
        **beside,
    )
    return f"---\n{about.to_yaml()}\n---\n\n{_page(facts, title)}"


def _title(bundle: Bundle) -> str:
    recipe = str(bundle.training.get("recipe") or "").rpartition("/")[2].removesuffix(".yaml")
    return f"{recipe or bundle.spec.task}, a fine-tuned {bundle.backbone}"


def _pipeline(bundle: Bundle) -> str | None:
    """What the Hub calls such a model; it has no word for maps of values."""
    answer = bundle.spec.answer
    if answer.support == "sample":
        return "tabular-classification" if answer.classes else "tabular-regression"
    return _TAGS[answer.support] if answer.classes else None


def _results(facts: Facts) -> list[EvalResult]:
    """The scores of the test as the Hub lists them."""
    from huggingface_hub import EvalResult

    scores, spec = facts.bundle.scores, facts.bundle.spec
    numbers = {key: value for key, value in scores.items() if isinstance(value, int | float) and math.isfinite(value)}
    known = {key: value for key, value in numbers.items() if kind_of(key) in NAMES}
    return [
        EvalResult(
            task_type=_pipeline(facts.bundle) or "other",
            task_name=spec.task,
            dataset_type="held-out",
            dataset_name=facts.data or "samples that were left out of the training",
            dataset_split="test",
            metric_type=key,
            metric_name=NAMES[kind_of(key)] if key in NAMES else key,
            metric_value=float(f"{value:.6g}"),
        )
        for key, value in known.items()
    ]


def _page(facts: Facts, title: str) -> str:
    """What people read."""
    from jinja2 import Environment, StrictUndefined

    bundle, metrics = facts.bundle, facts.metrics
    spec, answer = bundle.spec, bundle.spec.answer
    scores = metrics.get("model") or bundle.scores
    shown = Shown(said=(), tiles=(), unit=answer.unit)
    template = resources.files("pipelines.publishing").joinpath("card.md.j2").read_text(encoding="utf-8")
    words = {
        "title": title,
        "repo": facts.repo,
        "summary": _summary(bundle),
        "example": "table.csv" if spec.over_tables else "weather.nc" if spec.over_weather else "scene.tif",
        "adapters": facts.adapters,
        "onnx": bool(bundle.graph) and not facts.adapters,
        "base": str(bundle.base),
        "inputs": [_input(name, given) for name, given in spec.inputs.items()],
        "answer": _answer(bundle),
        "classes": [{"code": c.code, "name": _cell(c.name), "colour": c.colour} for c in answer.classes],
        "training": _training(facts),
        "headline": metrics.get("headline") or "Scores on samples that were left out of the training.",
        "table": table(shown, scores, bundle.baselines) if scores else {"rows": []},
        "picture": PICTURE,
        "worth": [metrics[key]["told"] for key in ("tokens", "inputs") if (metrics.get(key) or {}).get("told")],
        "limits": _limits(facts),
        "energy": line(facts.label) if facts.label else "Nothing was recorded.",
        "licence": licences.told(facts.licence, bundle) + (f" Training data: {facts.data}." if facts.data else ""),
    }
    made = Environment(undefined=StrictUndefined, keep_trailing_newline=True, trim_blocks=True)
    return made.from_string(template).render(words)


def _cell(text: str) -> str:
    """A text that breaks no table."""
    return " ".join(text.replace("|", "\\|").split())


def _summary(bundle: Bundle) -> str:
    """The model in two sentences."""
    start = f"from {bundle.base}" if bundle.base.source != "random" else "from random weights, without pretraining"
    made = f"Fine-tuned ({bundle.mode}) by earthtune {version('earthtune')} {start}."
    return f"A {bundle.backbone} for {bundle.spec.task}: {_says(bundle)}. {made}"


def _says(bundle: Bundle) -> str:
    answer = bundle.spec.answer
    what = f"one of {len(answer.classes)} classes" if isinstance(answer, Classes) else f"{answer.name} in {answer.unit}"
    return f"{what if answer.classes or answer.unit else answer.name} for each {answer.support}"


def _input(name: str, given: Input) -> dict[str, str]:
    """A row of the table of inputs."""
    if isinstance(given, Pixels):
        size = f", pixels of {given.pixel:g} m" if given.pixel else ""
        dates = "1 date" if given.times == 1 else f"{given.times} dates"
        beside = [*(["day and year"] if given.uses_time else []), *(["place"] if given.uses_location else [])]
        shape = f"{dates}, tiles of {given.tile} x {given.tile}{size}" + (
            f"; with {', '.join(beside)}" if beside else ""
        )
        return {"name": name, "channels": ", ".join(map(_cell, given.channels)), "unit": given.unit, "shape": shape}
    units = [unit or "no unit" for unit in given.units]
    told = ", ".join(f"{_cell(c)} ({_cell(u)})" for c, u in zip(given.channels, units, strict=True))
    return {"name": name, "channels": told, "unit": "as told", "shape": _steps(given)}


def _steps(given: Cells | Series) -> str:
    """Times and cells."""
    times = f"{given.times} steps of {given.step:g} h" if given.times > 1 else "1 time"
    if isinstance(given, Series) or not given.size:
        return times
    return f"{times}, cells of {given.size[0]:g} x {given.size[1]:g} degrees in the training"


def _answer(bundle: Bundle) -> str:
    """What comes out, with its unit."""
    answer = bundle.spec.answer
    if isinstance(answer, Classes):
        return f"Probabilities of {len(answer.classes)} classes for each {answer.support}; a map holds the codes."
    unit = f" in {answer.unit}" if answer.unit else ""
    kind = f"{len(answer.levels)} quantiles" if isinstance(answer, Quantiles) else "a value"
    return f"{kind[0].upper()}{kind[1:]} of {answer.name}{unit} for each {answer.support}."


def _training(facts: Facts) -> list[tuple[str, str]]:
    """Data, split and settings."""
    bundle, groups = facts.bundle, facts.groups
    more = f" and {len(groups) - LONGEST} more" if len(groups) > LONGEST else ""
    training = bundle.training
    told = {
        "training data": facts.data or "not told; its licence neither. Ask the one who published it",
        "split": training.get("divided"),
        "left out for the test": f"{', '.join(groups[:LONGEST])}{more}",
        "kept": "trained anew on all samples after the scores" if training.get("refit") else "",
        "recipe": f"{training.get('recipe') or 'recipe'} (sha256 {training.get('sha256', 'unknown')}), in recipe.yaml",
        "base": f"{bundle.base}, mode {bundle.mode}",
        "epochs and seed": f"{training.get('epochs', 'unknown')}, {training.get('seed', 'unknown')}",
        "notes": " ".join(map(str, training.get("notes") or ())),
    }
    return [(name, _cell(str(text))) for name, text in told.items() if text]


def _limits(facts: Facts) -> list[str]:
    """Calibration, ground that it does not know, and what no score says."""
    bundle, metrics = facts.bundle, facts.metrics
    told = list((metrics.get("confidence") or {}).get("told") or ())
    told = told or [str(bundle.confidence.get("said") or "Confidence is not calibrated.")]
    if bundle.familiar and not bundle.spec.over_tables:
        told.append(
            "What is unlike the training's ground is told: `inspect --for` and `score --unfamiliar` measure it, and "
            "answers there are guesses, however sure."
        )
    elif not bundle.spec.over_tables:
        told.append("The run keeps no training pixels, so that it cannot tell what ground is unlike its training's.")
    if bundle.base.source == "random":
        told.append("The backbone was not pretrained: nothing here speaks for what Prithvi's weights are worth.")
    told.append("Scores are of places and dates like those that were left out; elsewhere nobody measured it.")
    told += [f"{note}" for note in metrics.get("notes") or ()]
    return [" ".join(text.split()) for text in told]
