"""The documentation: links lead somewhere, the reference is that of the code, and the site asks nobody anything."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from markdown.extensions.toc import slugify

from docs import reference
from pipelines import api
from pipelines.cli.options import call_of, options_of
from pipelines.cli.table import COMMANDS
from pipelines.recipes.reading import RECIPES
from pipelines.tasks.task import task_named

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


def prose(text):
    return re.sub(r"^```.*?^```$|`[^`\n]*`", "", text, flags=re.DOTALL | re.MULTILINE)


def links(text):
    """Where links and pictures lead, but for those to the network."""
    found = re.findall(r"\]\(([^)\s]+)\)", prose(text))
    return [link for link in found if not re.match(r"https?://", link)]


def anchors(text):
    without_code = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    titles = re.findall(r"^#+ (.+)$", without_code, re.MULTILINE)
    return {slugify(title.replace("`", ""), "-") for title in titles}


def broken(page, text):
    """Links of a page that lead nowhere; pages of the reference are there once the site is built."""
    for link in links(text):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        make = reference.PAGES.get(target.relative_to(DOCS).as_posix()) if DOCS in target.parents else None
        if not (make or target.exists()) or (anchor and anchor not in anchors(make() if make else target.read_text())):
            yield link


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_links_lead_somewhere(page):
    assert list(broken(page, page.read_text())) == []
    if page.parent != ROOT:  # the site has nothing from outside of docs/
        assert all(DOCS in (page.parent / link).resolve().parents for link in links(page.read_text()) if link[0] != "#")


def test_what_leads_nowhere_is_found():
    text = "[a](nowhere.md) [b](limits.md#nothing) [c](#no) `[d](code.md)` [e](gpu.md#measured) ![f](demo.png)"
    text += " [g](https://example.org) [h](reference/recipes.md#rain) [i](reference/recipes.md#hail)\n# Yes\n"
    found = list(broken(DOCS / "index.md", text))
    assert found == ["nowhere.md", "limits.md#nothing", "#no", "reference/recipes.md#hail"]


def test_every_page_is_in_the_navigation_once():
    def pages(entry):
        inner = entry.values() if isinstance(entry, dict) else entry
        return [entry] if isinstance(entry, str) else [page for one in inner for page in pages(one)]

    there = [path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")]
    assert sorted(pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])) == sorted([*there, *reference.PAGES])


def test_a_command_is_told_with_its_options_and_examples():
    section = reference.command_section("label")
    named = re.findall(r"^`(?:--)?([\w.]+)`\n:   ", section, re.MULTILINE)
    assert sorted(map(str.lower, named)) == sorted(option.name for option in call_of(COMMANDS["label"]).options)
    assert all(f"earthtune {line}\n" in section for line in COMMANDS["label"].examples)
    assert "`PATHS`" in section and "--PATHS" not in section


def test_keys_of_a_recipe_are_left_to_their_page():
    section = reference.command_section("finetune")
    assert "`RECIPE`" in section and "`--out`" in section and "data.root`\n" not in section and "recipes.md" in section


def test_every_key_and_recipe_is_told_once():
    page = reference.recipes()
    told = re.findall(r"^`([\w.]+)`\n:   (.*)", page, re.MULTILINE)
    scenes = [option.name for option in options_of(task_named("segmentation").recipe, "recipe", required=False)]
    assert [name for name, _ in told[: len(scenes)]] == scenes and len(told) == len(set(told))
    for task in reference.KINDS.values():
        assert {o.name for o in options_of(task_named(task).recipe, "recipe", required=False)} <= {n for n, _ in told}
    assert {path.stem for path in RECIPES.glob("*.yaml")} <= set(re.findall(r"^### (\w+)$", page, re.MULTILINE))


def test_every_name_for_programs_has_its_place():
    page = reference.programs()
    assert re.findall(r"heading: (\w+)$", page, re.MULTILINE) == list(api.__all__)
    assert "::: pipelines.commands.score.score\n" in page and "::: pipelines.reports.plots\n" in page


def test_words_of_docstrings_stay_as_they_are():
    assert reference.plain("a_b *c* [d] <e> `f_g*`") == r"a\_b \*c\* \[d\] \<e\> `f_g*`"


@pytest.mark.skipif(find_spec("mkdocs") is None, reason="the extra docs is not installed")
def test_the_site_is_built_whole_and_names_no_other_place(tmp_path):
    """Without the page for programs, which takes most of the time; `make docs` builds that, too."""
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    config |= {"docs_dir": str(DOCS), "hooks": [], "plugins": ["search", "offline"], "nav": None, "strict": False}
    (tmp_path / "mkdocs.yml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path / "site")]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    pages = [path for path in (tmp_path / "site").rglob("*.html") if path.parent.name != "page"]
    assert {path.stem for path in pages} >= {path.stem for path in DOCS.rglob("*.md")}
    for path in pages:
        assert re.findall(r"<(?:link|script|img|iframe)[^>]+(?:src|href)=.?https?://[^ >]+", path.read_text()) == []
    assert not (tmp_path / "site" / "reference.py").exists() and (tmp_path / "site" / "page" / "model.onnx").exists()
