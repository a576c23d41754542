"""earthtune backbones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from models.backbones.catalogue import VARIANTS, WXC_VARIANTS
from models.backbones.hub import cached
from pipelines.commands.outcome import Outcome


def backbones() -> list[dict[str, Any]]:
    """List the backbones: name, parameters, where the weights are published, and what is in the cache."""
    rows = []
    for name, variant in {**VARIANTS, **WXC_VARIANTS}.items():
        path = cached(variant.repo, variant.file) if variant.repo and variant.file else None
        rows.append(
            {
                "name": name,
                "million_parameters": variant.parameters,
                "repository": variant.repo,
                "licence": variant.licence,
                "cached": str(path) if path else None,
            }
        )
    return rows


def told(rows: Sequence[Mapping[str, Any]], options: Mapping[str, Any]) -> Outcome:
    """A line for each."""
    lines = [f"{'name':<26}{'parameters':>11}  {'licence':<20}{'in cache':<9} weights"]
    lines += [
        f"{r['name']:<26}{r['million_parameters']:>9.1f} M  {r['licence'] or '-':<20}"
        f"{'yes' if r['cached'] else 'no':<9} {r['repository'] or 'none published (--weights random)'}"
        for r in rows
    ]
    return Outcome(rows, "\n".join(lines))
