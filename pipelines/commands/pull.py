"""earthtune pull."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipelines.commands.outcome import Outcome


def pull(
    repo: str, *, out: Path, overwrite: bool = False, say: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """A published run as a run folder, which `score`, `evaluate`, `embed` and `distil` take.

    Only the files of a run are fetched, by name and of bounded size, and checked by their hashes; nothing is run, and
    pickles are not touched. What is in the Hub's cache is not fetched again. Commands that read a run also take
    hf://org/name@revision in its place.

    Args:
        repo: owner and name on the Hub, with @revision for a branch, tag or commit.
        out: the run folder.
        overwrite: replace a pulled run that is there.
        say: takes a line for the person who waits.

    Raises:
        InputError: no such run, one whose files are not those of its hashes, or a folder that holds other things.
        RunError: the Hub cannot be reached, or broke off.
    """
    from pipelines.publishing.pull import pull as fetched

    return fetched(repo, out=out, overwrite=overwrite, say=say)


def told(result: Mapping[str, Any], options: Mapping[str, Any]) -> Outcome:
    """Where it is, which commit, and what it is."""
    size = f"{len(result['files'])} files, {result['bytes'] / 1e6:.1f} MB, checked"
    line = f"run: {result['run']} ({size})\n{result['task']} by {result['backbone']} from {result['base']}"
    return Outcome(dict(result), f"{line}\ncommit: {result['commit']}")
