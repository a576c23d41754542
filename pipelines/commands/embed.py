"""earthtune embed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.commands.outcome import Outcome
from pipelines.embeddings.embed import embed as embed


def told(results: Sequence[Mapping[str, Any]], options: Mapping[str, Any]) -> Outcome:
    """What became of the scenes: how many tokens, and how much they jump where tiles meet."""
    return Outcome(results, "\n".join(map(_line, results)), max((r.get("exit_code", 0) for r in results), default=0))


def _line(result: Mapping[str, Any]) -> str:
    if result["status"] == "failed":
        return f"failed   {result['error']}"
    rows, columns = result["tokens"]
    seam = result["seam_ratio"]
    edges = "" if seam is None else f"; at edges of tiles they jump {seam:.2f} times as much as elsewhere"
    many = f"{rows} x {columns} tokens of {result['features']} features"
    return f"{result['status']:<8} {result['file']}: {many}{edges}"
