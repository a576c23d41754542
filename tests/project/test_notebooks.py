"""The notebooks: they run from a clean kernel without network.

What is stored of them is what they make: as many outputs, of the same kinds, with the same words. Numbers, pictures and
tables differ a little from machine to machine and are not compared; nor is the progress of a training.
"""

from __future__ import annotations

import os
import re

import jupytext
import nbformat
import pytest

from notebooks.store import HERE, NAMES, executed, workplace
from tests.forked import forking

NO_NETWORK = """\
import socket

def refuse(self, address, _connect=socket.socket.connect):
    if self.family != socket.AF_UNIX:
        raise OSError(f"no network in the tests: {address}")
    return _connect(self, address)

socket.socket.connect = refuse

from tests import unexported

unexported.everywhere()  # no notebook shows a report, and what a runtime answers is tried elsewhere
"""
# Lines of a training: here a later notebook finds the run of an earlier one, and trains nothing.
TRAINING = re.compile(r"^(samples of .* train|statistics of |runs/\w+: |epoch \d|exporting ).*$", re.MULTILINE)
# Comparisons of numbers: which baseline is the best, and who is ahead.
HELP = r"It helps|It does harm|Whether it helps cannot be told from chance"
VERDICT = re.compile(
    rf"the [\w, ]+ on the same samples|(The (model|baseline) is ahead by |They are level )[^)]*\)\.|{HELP}"
)
MACHINE = re.compile(r"/(work|tmp|home|root|Users|opt|var)/|[A-Z]:\\\\|site-packages")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Where the kernels work: one folder for all, so that a later notebook finds the run that an earlier one made.

    Trainings and statistics are cut to a sixth: numbers are not compared, and `make notebooks` trains in full.
    """
    folder = workplace(tmp_path_factory.mktemp("place"))
    for recipe in folder.glob("*.yaml"):
        cut = re.sub(r"(epochs|statistics): (\d+)", lambda f: f"{f[1]}: {int(f[2]) // 6}", recipe.read_text())
        recipe.write_text(cut)
    return folder


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    """The command of a kernel that has this project's packages, and no connection but to the one who started it."""
    folder = tmp_path_factory.mktemp("no_network")
    (folder / "sitecustomize.py").write_text(NO_NETWORK)
    inline = "module://matplotlib_inline.backend_inline"  # a kernel sets it too late for what is imported before it
    paths = os.pathsep.join((str(folder), str(HERE.parent)))
    with forking(folder / "kernels", os.environ | {"PYTHONPATH": paths, "MPLBACKEND": inline}) as command:
        yield command


def stored(name):
    return nbformat.read(HERE / f"{name}.ipynb", as_version=4)


def shown(notebook):
    """What each code cell shows, by kind: words of text, and that there are pictures and tables."""
    return [[kinds(output) for output in cell.outputs] for cell in notebook.cells if cell.cell_type == "code"]


def kinds(output):
    """An output by its kinds; text without numbers, the width of columns and what is told of a training."""
    data = output.get("data", {output.output_type: output.get("text", "")})
    return {kind: words(text) if kind in ("stream", "text/plain") else "" for kind, text in data.items()}


def words(text):
    told = VERDICT.sub("#", TRAINING.sub("", text))
    return " ".join(re.sub(r"[-+]?\d+([.,]\d+)*(e[-+]?\d+)?", "#", told).split())


def texts(notebook):
    """All that the outputs say, without pictures."""
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            parts = [output.get("text", ""), *(text for kind, text in data.items() if kind.startswith("text/"))]
            yield from (re.sub(r"data:image/png;base64,[\w+/=]+", "", part) for part in parts)


def test_there_are_nine():
    assert [name[:2] for name in NAMES] == [f"0{n}" for n in range(1, 10)]
    assert [path.stem for path in sorted(HERE.glob("*.ipynb"))] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_runs_from_a_clean_kernel_and_shows_what_is_stored(name, place, kernel):
    assert shown(executed(HERE / f"{name}.py", place, command=kernel)) == shown(stored(name))


def test_other_words_are_told_and_other_numbers_are_not():
    def page(text):
        return nbformat.from_dict({"cells": [{"cell_type": "code", "outputs": [text]}]})

    first, same, other = (
        page({"output_type": "stream", "text": text})
        for text in ("rmse 0.31, -2 kB\n", "rmse  1.2e-05, 14 kB\n", "bias 0.31, -2 kB\n")
    )
    assert shown(first) == shown(same) != shown(other)


@pytest.mark.parametrize("name", NAMES)
def test_the_pair_says_the_same(name):
    pair = [
        [(cell.cell_type, cell.source) for cell in n.cells] for n in (jupytext.read(HERE / f"{name}.py"), stored(name))
    ]
    assert pair[0] == pair[1]


@pytest.mark.parametrize("name", NAMES)
def test_stored_notebook_is_small_and_shown_whole(name):
    notebook = stored(name)
    assert (HERE / f"{name}.ipynb").stat().st_size < 2_000_000
    assert any("image/png" in output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", ()))
    assert notebook.cells[0].source.startswith(f"# {int(name[:2])}. ")
    assert notebook.cells[-1].cell_type == "markdown"


@pytest.mark.parametrize("name", NAMES)
def test_outputs_name_no_machine_and_fetch_nothing(name):
    for text in texts(stored(name)):
        assert not MACHINE.search(text), MACHINE.search(text)
        assert "Error in callback" not in text  # a picture that could not be drawn
        assert not re.search(r"(src|href)=(&quot;|\")https?://[^\"&]*\.(js|css|png)", text)


@pytest.mark.parametrize("name", NAMES)
def test_notebooks_define_nothing_that_the_packages_should_own(name):
    assert not re.search(r"^\s*(def|class) ", (HERE / f"{name}.py").read_text(), re.MULTILINE)
