"""What other programs may call: all of it is there, told of, and enough for the notebooks."""

from __future__ import annotations

import re
import subprocess
import sys
from inspect import getdoc, isfunction, signature
from pathlib import Path

import pytest

from pipelines import api

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", api.__all__)
def test_every_name_is_there_and_told_of(name):
    found = getattr(api, name)
    assert getdoc(found)
    if isfunction(found):
        positional = [p for p in signature(found).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
        assert len(positional) <= 4, "what comes after is given by name"
        told = getdoc(found) or ""
        missing = [n for n in signature(found).parameters if "Args:" in told and f"{n}:" not in told]
        assert missing == []


def test_what_is_not_named_is_refused():
    with pytest.raises(AttributeError, match="pipelines.api has no 'secrets'"):
        _ = api.secrets


def test_notebooks_call_nothing_else():
    for path in sorted((ROOT / "notebooks").glob("0*.py")):
        text = path.read_text()
        assert re.findall(r"^from ((?:pipelines|models)[.\w]*) import", text, re.MULTILINE) in ([], ["pipelines.api"])
        assert not re.search(r"^import (pipelines|models)", text, re.MULTILINE)


def test_a_program_starts_with_what_it_uses():
    code = "import sys, pipelines.api; print(sys.modules.keys() & {'numpy', 'torch', 'rasterio', 'matplotlib'})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "set()"
