"""earthtune embed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.commands.outcome import Outcome
from pipelines.embeddings.embed import embed as embed


def told(result: Mapping[str, Any], options: Mapping[str, Any]) -> Outcome:
    """The file, and how many tokens it holds."""
    rows, columns = result["tokens"]
    return Outcome(result, f"{result['file']}: {rows} x {columns} tokens of {result['features']} features")
