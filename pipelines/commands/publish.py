"""earthtune publish."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipelines.commands.outcome import Outcome


def publish(
    run: Path,
    repo: str,
    *,
    adapter_only: bool = False,
    dry_run: bool = False,
    out: Path | None = None,
    licence: str | None = None,
    data: str = "",
    private: bool = False,
    revision: str | None = None,
    allow: list[str] | None = None,
    overwrite: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """A run on the Hugging Face Hub: model card, weights, ONNX, STAC item, licence and hashes, in one commit.

    Paths of this machine become names of files; a folder in which any is left, or a token, or the user's or the
    machine's name, is refused. Scores, baselines and what it cost are those of the run's own files.

    Args:
        run: the run folder.
        repo: owner and name on the Hub; made where it is not there.
        adapter_only: of a run with adapters these, in peft's layout, and the head; not the graph.
        dry_run: write the folder, and ask nothing of the network.
        out: folder that is kept of what is sent; with --dry_run the repository's name when not given.
        licence: as SPDX names it; that of the base's weights when not given.
        data: the training data and its licence, for the card.
        private: make the repository private, where it is made.
        revision: a branch to send it to; made where it is not there.
        allow: words that may go out, though they are the user's or the machine's name.
        overwrite: replace what an earlier call wrote to the folder.
        say: takes a line for the person who waits.
    """
    from pipelines.publishing.package import Wish
    from pipelines.publishing.publish import publish as sent

    wish = Wish(repo, licence, data, adapter_only, tuple(allow or ()))
    how: dict[str, Any] = {"dry_run": dry_run, "private": private, "revision": revision, "overwrite": overwrite}
    return sent(run, wish, out=out, say=say, **how)


def told(result: Mapping[str, Any], options: Mapping[str, Any]) -> Outcome:
    """What it is, where it went, and how it is taken."""
    lines = [f"{len(result['files'])} files, {result['bytes'] / 1e6:.1f} MB, {result['licence']}"]
    lines += [f"folder: {result['folder']}"] if result["folder"] else []
    lines += [f"published: {result['address']}"] if result.get("address") else ["nothing was sent"]
    return Outcome(dict(result), "\n".join(lines))
