"""What a plan tells beside what a step really holds."""

import dataclasses

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.data import DataLoader

from models.errors import InputError
from models.training.settings import Architecture, Lora, Training
from pipelines.commands.plan import told
from pipelines.records.energy import Account
from pipelines.runs.plan import plan, shaped
from pipelines.runs.training import build, learned_of, module_of, wants_full
from pipelines.samples.sets import ItemSet, Loaders
from pipelines.tasks.task import task_named
from tests.runs import TINY, make_chips, tiny_recipe

PLAIN = Architecture(TINY, decoder="linear", channels=8, detail=0, statistics=0)
SHORT = Training(epochs=3, batch=4, lr=1e-3, precision="32-true")


@pytest.fixture(scope="module")
def chips(made_once):
    return made_once("chips", make_chips)


def planned(recipe, **given):
    how = {"devices": 1, "nodes": 1, "steps": 0, "account": Account(), "trust": False, "say": lambda line: None}
    return plan(recipe, **how | given)


def real(recipe, out):
    """The batch of a step, bytes that its forward pass keeps, the network and its optimiser after the step."""
    task = task_named(recipe.task)
    samples = task.prepare(recipe)
    batch = next(iter(DataLoader(ItemSet(samples, samples.of("train"), seed=0), batch_size=recipe.training.batch)))
    network, _, _ = build(recipe, samples.spec)
    module = module_of(task, recipe, network, samples, samples.of("train"), out)
    kept = {}

    def pack(x):
        if not isinstance(x, torch.nn.Parameter):
            kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with saved_tensors_hooks(pack, lambda x: x):
        loss = network.train().members(batch).square().mean()
    loss.backward()
    optimiser = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad])
    optimiser.step()
    return module, samples, batch, sum(kept.values()), network, optimiser


@pytest.mark.parametrize("mode", ["full", "lora"])
def test_memory_is_that_of_a_step(chips, tmp_path, mode):
    model = {"model": PLAIN} if mode == "lora" else {}
    recipe = tiny_recipe(chips, training=SHORT, mode=mode, lora=Lora(4), **model)
    _, samples, batch, kept, network, optimiser = real(recipe, tmp_path)
    memory, found = shaped(recipe, samples.spec, batch, world=1, recompute=False)
    again, _ = shaped(recipe, samples.spec, batch, world=1, recompute=True)
    assert found["parameters"] == sum(p.numel() for p in network.parameters())
    assert memory.weights == sum(p.nbytes for p in network.parameters())
    moments = [s for state in optimiser.state.values() for s in state.values() if s.ndim]
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    assert memory.optimiser == pytest.approx(sum(t.nbytes for t in (*moments, *gradients)), rel=0.02)
    assert memory.activations == pytest.approx(kept, rel=0.05)
    assert again.activations < memory.activations and again.weights == memory.weights


def test_devices_share_the_batch_and_steps_are_those_of_the_training(chips, tmp_path):
    recipe = tiny_recipe(chips, training=SHORT)
    one, two = planned(recipe), planned(recipe, devices=2)
    assert two["memory"]["activations"] < 0.6 * one["memory"]["activations"]
    assert (one["steps"], two["steps"]) == (1, 1) and one["epochs"] == 3  # of six samples, in whole batches of four
    _, samples, *_, network, _ = real(recipe, tmp_path)
    items = learned_of(samples, samples.of("train"), seed=0)
    loaders = Loaders(items, items, SHORT, seed=0, full=wants_full(network))
    assert len(loaders.train_dataloader()) == one["steps"]
    plain = dataclasses.replace(recipe, model=PLAIN)
    assert planned(dataclasses.replace(plain, folds=3))["trainings"] == 3
    assert planned(dataclasses.replace(plain, refit=True))["trainings"] == 2
    assert list(tmp_path.iterdir()) == []


def test_time_and_energy_grow_with_the_epochs(chips):
    short, long = (
        planned(tiny_recipe(chips, model=PLAIN, training=dataclasses.replace(SHORT, epochs=e)), steps=1)
        for e in (3, 3000)
    )
    assert 100 < long["training_s"] / short["training_s"] < 10_000
    assert 100 < long["label"]["wh"].mid / short["label"]["wh"].mid < 10_000
    text = told(long, {}).text
    assert "fits here" in text and "a step" in text and "estimated" in text
    assert "not measured: --steps 0" in told(planned(tiny_recipe(chips, model=PLAIN, training=SHORT)), {}).text


def test_what_cannot_be_planned_is_refused(chips):
    with pytest.raises(InputError, match="multiple of the 3 devices"):
        planned(tiny_recipe(chips, training=SHORT), devices=3)
