"""The repository: packages, documents and their promises."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
PACKAGES = ("models", "pipelines")


def test_no_other_distribution_provides_our_packages():
    providers = importlib.metadata.packages_distributions()
    found = {name for package in ("models", "pipelines") for name in providers.get(package, ())}
    assert found <= {"earthtune"}  # an editable install may not be listed


def test_not_to_be_uploaded_by_accident():
    assert "Private :: Do Not Upload" in importlib.metadata.metadata("earthtune").get_all("Classifier")


def test_architecture_names_every_module():
    text = (ROOT / "ARCHITECTURE.md").read_text()
    modules = [p for folder in PACKAGES for p in (ROOT / folder).rglob("*.py") if p.stem[:2] != "__"]
    assert [p.name for p in modules if p.name not in text] == []


def test_package_inits_hold_a_docstring_only():
    inits = [path for folder in PACKAGES for path in (ROOT / folder).rglob("__init__.py")]
    folders = {path.parent for folder in PACKAGES for path in (ROOT / folder).rglob("*.py")}
    assert {path.parent for path in inits} == folders
    assert all(re.fullmatch(r'""".*"""\n', path.read_text(), re.DOTALL) for path in inits)


def test_constraints_hold_versions_only():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.\[\]-]+==[\w.+!-]+", line) for line in lines)


def test_every_recipe_says_first_what_it_is_for():
    for path in (ROOT / "pipelines" / "recipes").glob("*.yaml"):
        assert path.read_text().startswith("# "), path.name
        assert {"task", "data"} <= set(yaml.safe_load(path.read_text()))
