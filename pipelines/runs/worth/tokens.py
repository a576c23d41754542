"""What the backbone's tokens are worth: the model's scores as it is, without them, and with those of another sample.

A head that sees the bands, too, can do without the backbone, and no score of the whole tells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from models.networks.assembly import AnyNetwork, predict_by
from models.spec import Spec
from pipelines.reports.measures import named, number, with_unit
from pipelines.samples.sets import Samples, evenly, key_of
from pipelines.tasks.task import Judgement, Task, Teller

MOST = 200  # samples that are asked about: the model runs three times more over each
AS_IS, ZEROED, SWAPPED = "model", "tokens at zero", "tokens of another sample"
TELLERS = (AS_IS, ZEROED, SWAPPED)

Maps = list[Tensor]


def names(spec: Spec) -> tuple[str, ...]:
    """What is asked of a model with such inputs."""
    return TELLERS[:1] if spec.over_tables else TELLERS


def tellers(task: Task, network: AnyNetwork) -> Mapping[str, Teller]:
    """The model as it is, with tokens at zero, and with those of samples of other groups."""
    ask = task.teller(predict_by(network))
    if network.spec.over_tables:
        return {AS_IS: ask}

    def zeroed(samples: Samples, chosen: Sequence[Any]) -> Any:
        with _tokens(network, lambda maps: [torch.zeros_like(m) for m in maps]):
            return ask(samples, chosen)

    def swapped(samples: Samples, chosen: Sequence[Any]) -> Any:
        kept: list[Maps] = []

        def keep(maps: Maps) -> Maps:
            kept.append(maps)
            return maps

        with _tokens(network, keep):
            ask(samples, others(samples, chosen))
        theirs = iter(kept)  # in the same batches
        with _tokens(network, lambda maps: next(theirs)):
            return ask(samples, chosen)

    return {AS_IS: ask, ZEROED: zeroed, SWAPPED: swapped}


def worth(
    task: Task, samples: Samples, chosen: Sequence[Any], asked: Mapping[str, Teller], *, batch: int = 8
) -> dict[str, Any] | None:
    """Scores with tokens as they are, at zero and of other samples, on held-out samples.

    Returns:
        "score", the leading one; "scores" of the three by name; "compared", how the model as it is does beside the
        other two; "told", what that means, in words. None of a model without a backbone.
    """
    if ZEROED not in asked:
        return None
    found, result = differences(task, samples, chosen, {name: asked[name] for name in TELLERS}, batch=batch)
    lead, unit, without = found.shown.said[0], found.shown.unit, found.compare(AS_IS, ZEROED)
    gain = with_unit(lead, number(lead, without.gain, sign="+"), unit)
    if without.interval is None:
        said = f"Tokens: {gain} over the same model without them; {without.told(unit)}"
    else:
        low, high = (number(lead, end, sign="+") for end in without.interval)
        worth_it = "" if without.verdict == "ahead" else " They are worth nothing that could be told from chance."
        many = f"{without.groups} {without.counted}s"
        said = f"Tokens: {gain} over the same model without them ({low} to {high} with 95 %, {many}).{worth_it}"
    return {**result, "told": said}


def differences(
    task: Task, samples: Samples, chosen: Sequence[Any], asked: Mapping[str, Teller], *, batch: int, most: int = MOST
) -> tuple[Judgement, dict[str, Any]]:
    """How the model as it is, the first of those asked, does beside each of the others, on some of the samples."""
    some = [chosen[i] for i in evenly(len(chosen), most)]
    found = task.judge(samples, some, asked, batch=batch)
    lead, (first, *others) = found.shown.said[0], asked
    compared = {name: found.compare(first, name).to_json() for name in others}
    scores = {name: found.scores[name].get(lead) for name in asked}
    return found, {"score": lead, "samples": len(some), "scores": scores, "compared": compared}


def view(found: Mapping[str, Any] | None, unit: str) -> dict[str, Any] | None:
    """What the report shows of it: a sentence, and a row for each."""
    if found is None:
        return None
    lead, compared = found["score"], found["compared"]
    rows = []
    for name, score in found["scores"].items():
        ends = compared.get(name, {}).get("interval")
        gain = number(lead, compared[name]["gain"], sign="+") if name in compared else ""
        interval = f" ({number(lead, ends[0], sign='+')} to {number(lead, ends[1], sign='+')})" if ends else ""
        rows.append({"name": name, "score": with_unit(lead, number(lead, score), unit), "gain": gain + interval})
    return {"told": found["told"], "score": named(lead), "samples": found["samples"], "rows": rows}


@contextmanager
def _tokens(network: AnyNetwork, change: Callable[[Maps], Maps]) -> Iterator[None]:
    """A network whose backbone's maps are changed."""
    handle = network.backbone.register_forward_hook(lambda module, given, maps: change(maps))
    try:
        yield
    finally:
        handle.remove()


def others(samples: Samples, chosen: Sequence[Any]) -> list[Any]:
    """For each sample one of another group, or the one half-way around where all are of one group."""
    every = samples.samples
    place = {key_of(samples, sample): i for i, sample in enumerate(every)}
    groups = [samples.group(sample) for sample in every]
    count = len(every)

    def other(at: int) -> int:
        around = [(at + count // 2 + step) % count for step in range(count)]
        return next((i for i in around if groups[i] != groups[at]), around[0])

    return [every[other(place[key_of(samples, sample)])] for sample in chosen]
