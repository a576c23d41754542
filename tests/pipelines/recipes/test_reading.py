"""Recipes are plain data: no value of one runs code, unfolds or hangs; what is wrong is one line."""

from __future__ import annotations

import dataclasses
import sys

import pytest

from models.errors import InputError
from pipelines.cli.main import main
from pipelines.recipes.reading import BYTES, RECIPES, dump, parse, read_recipe, read_values
from pipelines.tasks.task import load_recipe, recipe_kind

NESTED = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "\n".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
TAGS = (
    "!!python/object:evilmod.A {}",
    "!!python/object/apply:os.system [x]",
    "!!python/name:evilmod.A",
    "!x y",
    "!!str 3",
)


@pytest.fixture
def evil(tmp_path, monkeypatch):
    """A folder on the path with a module; whether it was imported."""
    (tmp_path / "evilmod.py").write_text("class A:\n  pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert "evilmod" not in sys.modules


@pytest.mark.parametrize(
    "part", ["model", "data", "training", "lora", "target", "classes", "model.overrides.x", "training.loss", "seed"]
)
@pytest.mark.parametrize("value", ["evilmod.A", "{class_path: evilmod.A}", "{class_path: evilmod.A, init_args: {}}"])
def test_no_value_names_code(part, value, evil, capsys):
    *parents, last = part.split(".")
    text = "".join(f"{'  ' * i}{name}:\n" for i, name in enumerate(parents)) + f"{'  ' * len(parents)}{last}: {value}"
    (evil / "r.yaml").write_text(f"task: segmentation\n{text}\n")
    code = main(["finetune", "r.yaml", "--data.root", ".", "--weights", "random", "--out", "o"])
    err = capsys.readouterr().err
    assert code == 2 and err.count("\n") == 1 and not (evil / "o").exists()
    code = main(["finetune", "demo", f"--{part}", value, "--out", "o"])
    assert code == 2 and capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("value", TAGS)
def test_tags_are_refused(value, evil):
    for text in (f"task: {value}", f"{value}", f"a: [{value}]", f"? {value}\n: b"):
        with pytest.raises(InputError, match="r.yaml: line 1: .*(the tag|no text|a mapping)"):
            parse(text.encode(), "r.yaml")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (f"{NESTED}\nmodel: *i", "line 1: .* aliases .* write the values out"),
        ("task: segmentation\nmodel: &a {x: *a}", "line 2: .* aliases"),
        ("base: &b {epochs: 1}\ntraining:\n  <<: *b", "line 1: .* aliases"),
        ("training:\n  <<: {epochs: 1}", "line 2: .*the key << is not taken"),
        ("seed: 1\ntask: x\nseed: 2", "line 3: .*the key seed comes twice"),
        ("[a, b]: 1", "line 1: .*a key that is no text"),
        ("[" * 20000, "line 1: .*nested deeper than 20"),
        ("a: " + "{b: " * 21 + "1" + "}" * 21, "line 1: .*nested deeper than 20"),
        ("- " * 1000, "nested deeper than 20"),
        ("a: 1\n---\nb: 2", "line 2: .*another document"),
        ("a: [1, 2", "line 1: cannot be read: expected"),
        ("# nothing", "wanted keys and values, such as task: segmentation; came an empty file"),
        ("", "came an empty file"),
        ("- task", "came a list"),
        ("task", "came a str"),
        ("a: 1\n" * BYTES, f"longer than {BYTES} bytes"),
        ("a: \x00", "cannot be read: .*special characters"),
        ("a: é".encode("latin-1"), "wanted text in UTF-8"),
        ("task: x".encode("utf-16"), "wanted text in UTF-8"),
        ("task: x".encode("utf-32"), "wanted text in UTF-8|special characters"),
        (" " * (BYTES - 6) + "a: *b", "aliases"),
        ("a: [" + "x," * (BYTES // 2 - 6) + "&a b]", "anchors"),
        ("\n".join(f"k{i}: {{v: {i}}}" for i in range(1500)) + "\nk1: 2", "the key k1 comes twice"),
    ],
)
def test_what_is_more_than_plain_data_is_one_line(text, line, tmp_path):
    path = tmp_path / "r.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=f"r.yaml: (?s:.)*({line})") as caught:
        read_values(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("classes: [{code: 1, name: no, colour: '#000000'}]", r'classes\[0\].name: wanted text, came false; .* "no"'),
        (
            "classes: [{code: 1, name: 7, colour: '#000000'}]",
            r'.*name: wanted text, came 7; put .* quotes: "7"',
        ),
        ("classes: [{code: 1, name: x}]", r"classes\[0\].colour: is wanted, and not there"),
        ("classes: {code: 1}", "classes: wanted a list, came {'code': 1}"),
        (
            "training: {epochs: null}",
            r"training.epochs: wanted a whole number, came nothing \(null\); leave the key out",
        ),
        ("training:", r"training: wanted a mapping of keys to values, came nothing \(null\)"),
        ("training: {epochs: '20'}", "training.epochs: wanted a whole number, came '20'; leave the quotes out"),
        ("training: {epochs: 1.5}", "training.epochs: wanted a whole number, came 1.5"),
        ("training: {epochs: yes}", "training.epochs: wanted a whole number, came True"),
        ("training: {flips: 1}", "training.flips: wanted true or false, came 1"),
        ("training: {loss: {ce: much}}", "training.loss.ce: wanted a number, came 'much'"),
        ("training: {epoch: 3}", r"training.epoch: no such key; did you mean epochs\?"),
        ("trainings: {epochs: 3}", r"trainings: no such key; did you mean training\?"),
        ("model: {zzz: 1}", "model.zzz: no such key; wanted one of overrides, blocks, decoder"),
        ("data: {fractions: [1, 2]}", "data.fractions: wanted 3 entries, came 2"),
        ("data: {root: 3}", "data.root: wanted a path, came 3"),
        ("data: {ignore: [0, x]}", r"data.ignore\[1\]: wanted a whole number, came 'x'"),
        ("data: 3", "data: wanted a mapping of keys to values, came 3"),
    ],
)
def test_values_of_another_type_are_refused_by_their_key(text, line, tmp_path):
    (tmp_path / "r.yaml").write_text(f"task: segmentation\n{text}\n")
    with pytest.raises(InputError, match=rf"r\.yaml: {line}"):
        load_recipe(tmp_path / "r.yaml")


def test_a_recipe_wants_its_task(tmp_path):
    (tmp_path / "r.yaml").write_text("seed: 3\n")
    with pytest.raises(InputError, match="task: is wanted, and not there"):
        load_recipe(tmp_path / "r.yaml")
    assert load_recipe(tmp_path / "r.yaml", task="regression").seed == 3


def test_plain_values_are_what_they_look_like():
    text = "a: 1e-3\nb: 2020-01-31\nc: on\nd:\ne: -5\nf: .5\ng: '3'\nh: 010\ni: 1.\nj: 1:30\nk: -.inf\nl: 5.0e-2"
    found = parse(text.encode("utf-8-sig"), "r.yaml")
    assert found == {
        **{"a": 0.001, "b": "2020-01-31", "c": True, "d": None, "e": -5, "f": 0.5, "g": "3", "h": "010", "i": 1.0},
        **{"j": "1:30", "k": float("-inf"), "l": 0.05},
    }


@pytest.mark.parametrize("text", ["12e4567", "1e-3", "yes", "~", "", "2020-01-31", "1:30", "007"])
def test_text_that_looks_like_something_else_is_printed_as_text(text):
    path = RECIPES / "demo.yaml"
    recipe = dataclasses.replace(read_recipe(path, recipe_kind(path), {}), revision=text)
    assert parse(dump(recipe).encode(), "dumped")["revision"] == text


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_what_print_config_prints_reads_as_the_same_recipe(path, tmp_path, capsys):
    recipe = read_recipe(path, recipe_kind(path), {"training.lr": 1e-5})
    (tmp_path / "again.yaml").write_text(dump(recipe))
    assert read_recipe(tmp_path / "again.yaml", type(recipe), {}) == recipe
    assert main(["finetune", str(path), "--training.lr", "1e-5", "--print_config"]) == 0
    assert capsys.readouterr().out == dump(recipe)
