"""The repository: packages, documents and their promises."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]


def test_no_other_distribution_provides_our_packages():
    providers = importlib.metadata.packages_distributions()
    found = {name for package in ("models", "pipelines") for name in providers.get(package, ())}
    assert found <= {"earthtune"}  # an editable install may not be listed


def test_not_to_be_uploaded_by_accident():
    assert "Private :: Do Not Upload" in importlib.metadata.metadata("earthtune").get_all("Classifier")


def test_architecture_names_every_module():
    text = (ROOT / "ARCHITECTURE.md").read_text()
    modules = [p for folder in ("models", "pipelines") for p in (ROOT / folder).glob("*.py") if p.stem != "__init__"]
    assert [p.name for p in modules if p.name not in text] == []


def test_package_inits_hold_a_docstring_only():
    for folder in ("models", "pipelines"):
        assert re.fullmatch(r'""".*"""\n', (ROOT / folder / "__init__.py").read_text(), re.DOTALL)


def test_constraints_hold_versions_only():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.\[\]-]+==[\w.+!-]+", line) for line in lines)


def test_every_recipe_says_first_what_it_is_for():
    for path in (ROOT / "pipelines" / "recipes").glob("*.yaml"):
        assert path.read_text().startswith("# "), path.name
        assert {"task", "data"} <= set(yaml.safe_load(path.read_text()))
