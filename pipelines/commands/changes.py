"""earthtune changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.changes.changes import changes as changes
from pipelines.commands.outcome import Outcome


def told(result: Mapping[str, Any], options: Mapping[str, Any]) -> Outcome:
    """How many dates, which alerts, what changed as a whole, and where it is written."""
    dates = result["dates"]
    lines = [f"{dates['history']} dates of history, {dates['watched']} watched, {dates['new']} of them new"]
    alerts = ", ".join(f"{count} {name}" for name, count in result["alerts"].items()) or "none"
    lines.append(f"alerts: {alerts}; {result['hectares']:g} ha stand")
    lines += [_kind(kind) for kind in result["kinds"]]
    lines.append(f"map: {result['files']['map']}, outlines: {result['files']['alerts']}")
    return Outcome(result, "\n".join(lines))


def _kind(kind: Mapping[str, Any]) -> str:
    """A kind of ground that changed as a whole."""
    sizes = " and ".join(f"{name} by {size:+.2f}" for name, size in kind["sizes"].items())
    return f"kind {kind['kind']}, {kind['share']:.0%} of the ground, changed as a whole since {kind['since']}: {sizes}"
