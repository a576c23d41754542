"""The repository: packages, documents and their promises."""

from __future__ import annotations

import ast
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


def modules():
    return [path for folder in PACKAGES for path in sorted((ROOT / folder).rglob("*.py"))]


def test_architecture_names_every_folder_and_what_it_names_is_there():
    text = (ROOT / "ARCHITECTURE.md").read_text()
    folders = {path.parent.relative_to(ROOT).as_posix() + "/" for path in modules()}
    rows = re.findall(r"^\| `((?:models|pipelines)/[\w/]*)` \| (.*) \|$", text, re.MULTILINE)
    assert {folder for folder, _ in rows} == folders - {"pipelines/", "pipelines/weather/formats/"}
    for folder, told in rows:
        for name in re.findall(r"`(\w+)`", told):
            assert (ROOT / folder / f"{name}.py").is_file(), f"{folder}{name}.py"


def test_where_to_change_what_names_files_that_are_there():
    text = (ROOT / "ARCHITECTURE.md").read_text()
    table = text[text.index("## Where to change what") : text.index("## Reasons")]
    named = re.findall(r"`((?:models|pipelines)/[\w/.]+)`", table)
    assert len(named) > 20 and [name for name in named if not (ROOT / name).exists()] == []
    assert all(1 <= len(re.findall(r"`[^`]+`", row)) <= 3 for row in table.splitlines() if row.startswith("| a "))


def test_rooms_are_small():
    long = [p.name for p in modules() if len(p.read_text().splitlines()) > 450]
    functions = [
        (f"{path.name}: {node.name}", (node.end_lineno or 0) - node.lineno, ast.get_docstring(node) or "")
        for path in modules()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
    ]
    assert (long, [name for name, lines, told in functions if lines - len(told.splitlines()) >= 60]) == ([], [])
    crowded = {
        folder: len(files)
        for folder in {path.parent for path in modules()} - {ROOT / "pipelines" / "commands"}  # one verb a file
        if len(files := [p for p in folder.glob("*.py") if p.stem[:2] != "__"]) > 14
    }
    assert crowded == {}
    assert len(list((ROOT / "models").glob("*.py"))) <= 6 and len(list((ROOT / "pipelines").glob("*.py"))) <= 2


def test_only_tasks_ask_which_task_it_is():
    asked = re.compile(r"\btask\b[\w.\]\)]* *(==|!=|not in|in) |[\"'](segmentation|downscale)[\"'] *(==|!=|in)")
    found = [
        f"{path.name}: {line.strip()}"
        for path in modules()
        if path.parent.name != "tasks"
        for line in path.read_text().splitlines()
        if asked.search(line) and not re.search(r"for \w+ in|\"\"\"|#", line)
    ]
    assert found == []


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
