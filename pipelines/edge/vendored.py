"""What others wrote and the page needs: onnxruntime-web and geotiff.js, as published, by their hashes."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from models.errors import RunError

LICENCES = "licences.txt"


def unpack(folder: Path) -> None:
    """Write their files and licences to a folder.

    Raises:
        RunError: a file is not the one that was published.
    """
    kept = resources.files("pipelines.edge").joinpath("vendor")
    table: Mapping[str, Mapping[str, str]] = json.loads(kept.joinpath("vendored.json").read_text(encoding="utf-8"))
    lines = []
    for name, about in table.items():
        content = gzip.decompress(kept.joinpath(f"{name}.gz").read_bytes())
        if hashlib.sha256(content).hexdigest() != about["sha256"]:
            raise RunError(f"{name}: not the file of {about['package']} {about['version']}; install earthtune again")
        (folder / name).write_bytes(content)
        published = f"{about['published_as']} of {about['package']} {about['version']}"
        lines.append(f"{name}: {published}, {about['licence']}\n    sha256 {about['sha256']}\n")
    texts = kept.joinpath("LICENSES.txt").read_text(encoding="utf-8")
    ours = "All else but the model and the sample: earthtune, Apache-2.0.\n"
    (folder / LICENCES).write_text("".join(lines) + ours + "\n\n" + texts, encoding="utf-8")
