"""What a search tries: names and values that the recipe's own reader takes, and nothing that changes the question."""

import dataclasses

import pytest

from models.errors import InputError
from models.spec import Target
from models.training.settings import Architecture, Training
from pipelines.recipes.fused import Before, FusedData, FusedRecipe
from pipelines.recipes.recipe import Data, SceneRecipe
from pipelines.recipes.tables import TableData, TableRecipe
from pipelines.runs.check import check
from pipelines.searching.space import Range, changed, default_space, read_space, settled, value_of
from pipelines.tasks.rain import RainData, RainRecipe
from pipelines.tasks.task import task_named
from tests.runs import CLASSES


def scenes(**changes):
    recipe = SceneRecipe("segmentation", Data(), classes=CLASSES, backbone="prithvi_eo_v2_tiny_tl", weights="random")
    return dataclasses.replace(recipe, **changes)


def of_text(tmp_path, text, recipe=None):
    path = tmp_path / "space.yaml"
    path.write_text(text)
    recipe = recipe or scenes()
    return settled(read_space(path), task_named(recipe.task), recipe)


def test_a_space_is_ranges_and_choices(tmp_path):
    text = "training.lr: {low: 1e-5, high: 1e-3, log: true}\nmodel.decoder: [upernet, fcn]\n"
    text += "model.channels: {low: 3.2, high: 9}\n"
    text += "model.blocks: [[0, 1], [2]]\ntraining.loss: [{ce: 1}, {ce: 1, dice: 1}]\n"
    found = of_text(tmp_path, text)
    assert found["training.lr"] == Range(1e-5, 1e-3, log=True) and found["model.decoder"] == ("upernet", "fcn")
    assert (found["model.channels"].low, found["model.channels"].high) == (4, 9)
    assert isinstance(found["model.channels"].low, int) and isinstance(found["training.lr"].low, float)
    made = changed(scenes(), {"model.blocks": [0, 1], "training.loss": {"ce": 1, "dice": 1}, "model.channels": 4})
    assert made.model.blocks == (0, 1) and made.training.loss == {"ce": 1.0, "dice": 1.0} and made.model.channels == 4
    assert value_of(made, "model.blocks") == [0, 1] and value_of(made, "training.loss.mse") is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("training.rate: {low: 1, high: 2}", "training.rate: no such key"),
        ("model.head: [upernet, fcn]", "model.head: no such key"),
        ("training.lr: {low: 1e-5, high: 20}", "training.lr 20.0: wanted 1e-12 to 10"),
        ("training.lr: {low: 1, high: 0.1}", "low below high, came 1 and 0.1"),
        ("training.lr: {low: 0, high: 0.1, log: true}", "low 0 has no logarithm"),
        ("training.lr: {low: 0.1, high: .inf}", "low below high"),
        ("training.lr: {low: 0.1}", "high: is wanted"),
        ("training.lr: {low: 0.1, high: 0.2, class_path: os.system}", "class_path: no such key"),
        ("training.lr: 0.1", "wanted a range such as"),
        ("training.flips: {low: 0, high: 1}", "training.flips: wanted true or false"),
        ("training.flips: [true]", "wanted 2 to 100 choices, came 1"),
        ("model.decoder: [fcn, fcn]", "a choice comes twice"),
        ("mode: [frozen, half]", "mode 'half': wanted one of frozen, lora, full"),
        ("data.root: [a, b]", "data.root: is not searched: it decides what is scored"),
        ("seed: [1, 2]", "seed: is not searched: the best seed is luck; --seeds"),
        ("folds: [2, 3]", "the search divides the groups itself"),
        ("target: [{name: a}, {name: b}]", "it decides what is scored"),
        ("model.gate: {low: 0, high: 1}", "model.gate: task segmentation does not use it"),
        ("{}", "the space is empty"),
        ("training.lr: !!python/object:os.system [1, 2]", "the tag"),
    ],
)
def test_what_the_recipe_does_not_take_is_told_before_any_work(tmp_path, text, said):
    with pytest.raises(InputError) as error:
        of_text(tmp_path, text)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_there_are_bounds(tmp_path):
    with pytest.raises(InputError, match="51 names: wanted 50 at most"):
        of_text(tmp_path, "".join(f"model.a{i}: [1, 2]\n" for i in range(51)))
    with pytest.raises(InputError, match="2 to 100 choices, came 101"):
        of_text(tmp_path, f"training.batch: {list(range(2, 103))}")


FUSED = FusedData(weather=Before(("w.nc",)))
RECIPES = {
    "random": scenes(),
    "published": scenes(weights="hub", mode="frozen", model=Architecture(blocks=(5, 11))),
    "tiles": scenes(task="classification", weights="hub"),
    "fused": FusedRecipe("fused", FUSED, classes=CLASSES, backbone="prithvi_eo_v2_300_tl"),
    "rain": RainRecipe("rain", RainData(), mode="full"),
    "table": TableRecipe("table", TableData(answer="y", imagery=["a"]), target=Target("y", "%")),
}


@pytest.mark.parametrize("kind", RECIPES)
def test_what_is_built_in_is_taken_by_the_recipes(kind):
    recipe, task = RECIPES[kind], task_named(RECIPES[kind].task)
    found = settled(default_space(task, recipe), task, recipe)
    for end in ("low", "high"):
        values = {name: getattr(d, end) if isinstance(d, Range) else d[0] for name, d in found.items()}
        check(task, changed(recipe, values))
    assert 5 <= len(found) <= 14 and "training.lr" in found
    assert ("mode" in found) == (kind in ("published", "tiles", "fused"))
    assert ("training.backbone_lr" in found) == (recipe.mode != "frozen")
    assert ("model.decoder" in found) == (kind in ("random", "published", "fused"))
    if kind == "published":
        assert found["model.decoder"] == ("linear", "fcn")  # the others want four blocks


def test_rates_lie_around_the_recipes_own():
    found = default_space(task_named("segmentation"), scenes(training=Training(lr=0.5)))
    assert found["training.lr"] == Range(0.05, 1.0, log=True)
    assert found["model.channels"] == (64, 128, 256)
