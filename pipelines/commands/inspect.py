"""earthtune inspect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.commands.outcome import Outcome
from pipelines.inspection.findings import Inspection
from pipelines.inspection.inspect import format_text
from pipelines.inspection.inspect import inspect as inspect


def told(result: Inspection, options: Mapping[str, Any]) -> Outcome:
    """What is in the file; exit code 2 where a run cannot eat it."""
    return Outcome(result.to_json(), format_text(result), 0 if result.ok else 2)
