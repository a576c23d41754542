"""The page in docs/ is what `earthtune edge` writes today, whole, and tells nothing of the machine that made it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from pipelines.edge.site import _copy_page

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "page"


def test_every_file_is_as_its_checksum_says():
    told = dict(line.split("  ")[::-1] for line in (PAGE / "checksums.txt").read_text().splitlines())
    assert {*told} == {path.name for path in PAGE.iterdir()} - {"checksums.txt"}
    for name, digest in told.items():
        assert hashlib.sha256((PAGE / name).read_bytes()).hexdigest() == digest, name


def test_its_code_is_that_of_the_package(tmp_path):
    _copy_page(tmp_path)
    code = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    code["run_edge.py"] = (ROOT / "pipelines" / "edge" / "run_edge.py").read_bytes()
    assert {"tiles.js", "index.html"} < {*code}
    stale = [name for name, content in code.items() if (PAGE / name).read_bytes() != content]
    assert stale == [], "write docs/page anew: earthtune edge RUN --out docs/page --overwrite"


@pytest.mark.parametrize("word", ["/tmp", "/home", "/work", "/root"])
def test_it_names_no_place_of_a_machine(word):
    about = json.loads((PAGE / "site.json").read_text())
    assert {entry["file"] for entry in about["models"]} == {"model.onnx", "model-int8.onnx"}
    for name in ("site.json", "model.onnx", "model-int8.onnx", "unfamiliar.onnx", "sample.tif"):
        assert word.encode() not in (PAGE / name).read_bytes(), name
