"""earthtune changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.changes.changes import changes as changes
from pipelines.changes.report import kind_words
from pipelines.commands.outcome import Outcome


def told(result: Mapping[str, Any], options: Mapping[str, Any]) -> Outcome:
    """How many dates, which alerts, what changed as a whole, and where it is written."""
    dates = result["dates"]
    lines = [f"{dates['history']} dates of history, {dates['watched']} watched, {dates['new']} of them new"]
    alerts = ", ".join(f"{count} {name}" for name, count in result["alerts"].items()) or "none"
    lines.append(f"alerts: {alerts}; {result['hectares']:g} ha stand")
    lines += [f"changed as a whole: {kind_words(kind)}" for kind in result["kinds"]]
    files = result["files"]
    lines.append(f"map: {files['map']}, outlines: {files['alerts']}, report: {files['report']}")
    return Outcome(result, "\n".join(lines))
