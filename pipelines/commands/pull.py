"""earthtune pull."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipelines.commands.outcome import Outcome


def pull(
    source: str,
    *,
    out: Path,
    yaml: Path | None = None,
    scale: float | None = None,
    overwrite: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """A published run, or a model that others fine-tuned in terratorch, as a run folder.

    Of a run only its files are fetched, by name and of bounded size, and checked by their hashes. Of a model of
    terratorch the checkpoint and its YAML become a run; pulled.json tells what was understood, left aside and is
    missing. Nothing is run, and pickles are read as tensors alone. What is in the Hub's cache is not fetched again.

    Args:
        source: owner and name on the Hub, with @revision for a branch, tag or commit; or a checkpoint of terratorch
            (.ckpt, .pt, .safetensors) on this machine.
        out: the run folder.
        yaml: the YAML that the checkpoint was trained with; that of the repository when not given.
        scale: what a reflectance of 1 was of the values that the model was trained on, where its YAML does not tell.
        overwrite: replace a pulled run that is there.
        say: takes a line for the person who waits.

    Raises:
        InputError: no run, one whose files are not those of its hashes, a folder that holds other things, or a model
            that is not understood.
        RunError: the Hub cannot be reached, or broke off.
    """
    from pipelines.publishing.pull import pull as fetched

    return fetched(source, out=out, yaml=yaml, scale=scale, overwrite=overwrite, say=say)


def told(result: Mapping[str, Any], options: Mapping[str, Any]) -> Outcome:
    """Where it is, which commit, and what it is; of a model of others also what was understood."""
    size = f"{result['bytes'] / 1e6:.1f} MB"
    size = f"{len(result['files'])} files, {size}, checked" if "files" in result else size
    lines = [f"run: {result['run']} ({size})", f"{result['task']} by {result['backbone']} from {result['base']}"]
    lines += [f"{key}: {text}" for key, text in result.get("understood", {}).items()]
    lines += [f"left out: {name} ({why})" for name, why in result.get("tensors_left_out", {}).items()]
    lines += [f"ignored: {', '.join(result['ignored'])}"] if result.get("ignored") else []
    lines += [f"missing: {text}" for text in result.get("missing", ())] + list(result.get("notes", ()))
    return Outcome(dict(result), "\n".join([*lines, *([f"commit: {result['commit']}"] if result["commit"] else [])]))
