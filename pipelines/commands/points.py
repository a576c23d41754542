"""earthtune points."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.commands.outcome import Outcome
from pipelines.points.points import points as points
from pipelines.reports.comparison import GROUPS


def told(result: Mapping[str, Any], options: Mapping[str, Any]) -> Outcome:
    """What the head is worth beside others, whether tokens help, and where the map is."""
    groups, scores = result["groups"], result["scores"]
    by = "as the file names them" if result["groups_by"] == "column" else "of labels near each other"
    lines = [f"balanced accuracy on {groups} groups left out, {by}:"]
    lines += [f"  {name:<22} {_score(score)}" for name, score in scores.items()]
    if groups < GROUPS:
        lines.append(f"  (of fewer than {GROUPS} groups such a score may be anything: label more places)")
    lines += [result["tokens_help"], result["calibration"]["said"]]
    labels = ", ".join(f"{count} {name}" for name, count in result["labels"].items())
    lines.append(f"labels: {labels}; drawn by {result['chosen']}")
    lines.append(f"map: {result['map']}  ({result['valid']:.1%} of the pixels mapped)")
    if result["asked"]:
        lines.append(f"label these {result['asked']} next: {result['next']}")
    return Outcome(result, "\n".join(lines))


def _score(score: Mapping[str, Any]) -> str:
    """A score with its interval."""
    if score["balanced_accuracy"] is None:
        return "cannot be told: one group"
    interval = "" if not score["interval"] else " ({:.3f} to {:.3f} with 95 %)".format(*score["interval"])
    return f"{score['balanced_accuracy']:.3f}{interval}"
