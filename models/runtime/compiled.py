"""What OpenVINO compiled, kept in the user's cache for the next process.

Never in a run folder: a compiled model is trusted as code is, and runs come from strangers.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from models.runtime import silence as silence  # before OpenVINO is imported

MOST = 2 << 30  # bytes that are kept; what was used longest ago goes first
GRAPHS = 2  # to be raised with each change to what `graphs` makes of a model
STALE = 3600.0  # seconds after which a draft is that of a process that was killed
Options = dict[str, str]
Parts = list[tuple[Any, Options]]


def compiled(
    contents: Sequence[str], asked: Mapping[str, str], prepare: Callable[[], tuple[Parts, str]], *, keep: bool
) -> tuple[list[Any], str]:
    """Compile graphs, or take up what an earlier process compiled.

    Args:
        contents: hashes of what the graphs are read from, wherever it lies.
        asked: what else decides what `prepare` gives.
        prepare: gives `openvino.Model`s, each with its options for the compiler, and a name.
        keep: look for them in the cache and leave them there.

    Returns:
        A compiled model for each, and the name.

    Raises:
        RuntimeError: they cannot be compiled.
    """
    import openvino

    core = openvino.Core()
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RuntimeError):  # not there, or damaged
        if keep:
            return _read(core, cache() / _key(core, contents, asked))
    parts, name = prepare()
    models = [core.compile_model(model, "CPU", options) for model, options in parts]
    with contextlib.suppress(OSError, RuntimeError):  # no room, or no home: they are compiled again next time
        if keep:
            facts = {"name": name, "options": [options for _, options in parts]}
            _write(cache() / _key(core, contents, asked), models, facts)
    return models, name


def cache() -> Path:
    """The folder of this user's compiled models; EARTHTUNE_CACHE names another place for it."""
    named = os.environ.get("EARTHTUNE_CACHE")
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "earthtune"
    return (Path(named) if named else home) / "compiled"


def is_own(*paths: Path) -> bool:
    """Whether files and folders belong to this user, where the system knows users."""
    return not hasattr(os, "getuid") or {path.stat().st_uid for path in paths} == {os.getuid()}


def _key(core: Any, contents: Sequence[str], asked: Mapping[str, str]) -> str:
    from openvino import __version__

    device = core.get_property("CPU", "FULL_DEVICE_NAME")
    facts: list[object] = [GRAPHS, __version__, device, sorted(asked.items()), list(contents)]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:32]


def _read(core: Any, folder: Path) -> tuple[list[Any], str]:
    if not is_own(folder, folder.parent):
        raise PermissionError(f"{folder}: another user's")
    facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    # Without its options an imported model computes in others than it was compiled for.
    models = [
        core.import_model((folder / f"{i}.blob").read_bytes(), "CPU", options)
        for i, options in enumerate(facts["options"])
    ]
    folder.touch()
    return models, str(facts["name"])


def _write(folder: Path, models: Sequence[Any], facts: Mapping[str, Any]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(prefix=".draft-", dir=folder.parent) as place:
        draft = Path(place) / "model"
        draft.mkdir()
        for i, model in enumerate(models):
            (draft / f"{i}.blob").write_bytes(model.export_model().getbuffer())
        (draft / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)  # damaged, or another process was quicker
        os.rename(draft, folder)
    _make_room(folder.parent)


def _make_room(place: Path) -> None:
    """Remove what was used longest ago until the rest is small enough, and what killed processes left."""
    total, now = 0, time.time()
    for path in sorted(place.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True):
        draft = path.name.startswith(".")
        total += 0 if draft else sum(file.stat().st_size for file in path.iterdir())
        if now - path.stat().st_mtime > STALE if draft else total > MOST:
            shutil.rmtree(path, ignore_errors=True)
