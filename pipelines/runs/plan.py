"""What a training will take, before it is begun: memory from shapes alone, time and energy from a few steps.

For memory the network is built and run without storage (torch's `FakeTensorMode`), so that what does not fit this
machine is planned on it, too.
"""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from models.errors import InputError
from models.networks.assembly import AnyNetwork
from models.networks.network import Network
from models.networks.tables import TableNetwork
from models.spec import Spec
from models.training.module import apply_mode, parameter_groups
from models.training.settings import Lora
from pipelines.grids.rasters import trusting
from pipelines.recipes.onto import settled
from pipelines.recipes.recipe import Recipe
from pipelines.records.energy import EPOCHS, START, Account
from pipelines.records.label import summed
from pipelines.runs.check import check
from pipelines.runs.folder import precision_of
from pipelines.runs.training import build, learned_of, module_of, wants_full
from pipelines.samples.sets import EpochSampler, Samples, divided
from pipelines.tasks.task import task_named

NUMBER, MOMENTS = 4, 2  # bytes of a weight, and numbers that AdamW keeps of each that is trained
ROOM = 1.2  # memory that has to be free for steps to be measured, of what they take

Batch = Mapping[str, Tensor]


@dataclass(frozen=True)
class Memory:
    """Bytes that one process of a training holds at its peak, without the libraries' own.

    Attributes:
        weights: of the network, in float32, and their moving average.
        optimiser: gradients, what AdamW remembers, and with several processes the gradients on their way.
        activations: what the forward pass of a batch keeps for the backward pass.
        inputs: the batch.
    """

    weights: int
    optimiser: int
    activations: int
    inputs: int

    @property
    def all(self) -> int:
        """Their sum."""
        return self.weights + self.optimiser + self.activations + self.inputs


def plan(
    recipe: Recipe, *, devices: int, nodes: int, steps: int, account: Account, trust: bool, say: Callable[[str], None]
) -> dict[str, Any]:
    """Tell what a training of a recipe takes; nothing is written, and no weights are fetched.

    Args:
        recipe: the recipe, whose data are there.
        devices: on each node.
        nodes: how many.
        steps: training steps that are measured; 0 measures none.
        account: for whom energy is booked.
        trust: see `Launch`.
        say: takes a line for the person who waits.

    Raises:
        InputError: whatever `finetune` would refuse before its first step.
    """
    task, training, world = task_named(recipe.task), recipe.training, devices * nodes
    check(task, recipe)
    recipe = settled(recipe)
    if training.batch % world:
        raise InputError(f"training.batch {training.batch}: wanted a multiple of the {world} devices, which share it")
    with trusting(trust):
        samples = task.prepare(dataclasses.replace(recipe, weights="random"))
        learned, watched = samples.of("train"), samples.of("val")
        items = learned_of(samples, learned, seed=recipe.seed)
        batch = next(iter(DataLoader(items, batch_size=min(training.batch // world, len(items)))))
    told: dict[str, Any] = {"samples": divided(samples, recipe.folds), "described": samples.described}
    memory = {}
    for again in (False, True):
        memory[again], found = shaped(recipe, samples.spec, batch, world=world, recompute=again)
        told |= found if again == training.recompute else {}
    epoch = EpochSampler(len(items), seed=recipe.seed, batch=training.batch, full=told.pop("full"))
    told |= {
        "processes": world,
        "batch": training.batch,
        "steps": math.ceil(len(epoch) / training.batch),
        "trainings": recipe.folds or 1 + bool(recipe.refit),
        "epochs": training.epochs,
        "patience": training.patience,
        "memory": dataclasses.asdict(memory[training.recompute]) | {"all": memory[training.recompute].all},
        "memory_recomputed": memory[True].all,
        "memory_kept": memory[False].all,
        "memory_here": free_memory(),
    }
    checks = math.ceil(len(watched) / training.batch / world)
    return told | _timed(recipe, samples, batch, told, checks=checks, steps=steps, account=account, say=say)


def shaped(recipe: Recipe, spec: Spec, batch: Batch, *, world: int, recompute: bool) -> tuple[Memory, dict[str, Any]]:
    """What one process holds for a batch, and how much there is to learn and to compute.

    Raises:
        InputError: a network over tables, or one that cannot be built.
    """
    kept: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        if not isinstance(x, torch.nn.Parameter):
            kept[x.untyped_storage()._cdata] = x.untyped_storage().nbytes()
        return x

    with FakeTensorMode(allow_non_fake_inputs=True) as fake:
        network, _, _ = build(dataclasses.replace(recipe, weights="random"), spec)
        if isinstance(network, TableNetwork):
            raise InputError(f"task {recipe.task}: learns from rows in seconds to minutes; there is nothing to plan")
        apply_mode(network, recipe.mode, getattr(recipe, "lora", Lora()))
        network.backbone.recompute = recompute
        shapes = {name: fake.from_tensor(values) for name, values in batch.items()}
        count = FlopCounterMode(display=False)
        with count, _rounded(recipe, "cpu"):
            features = _features(network.train(), shapes) if recipe.mode == "frozen" else None
            with saved_tensors_hooks(pack, lambda x: x):
                output = network.members(shapes, features=features) if isinstance(network, Network) else network(shapes)
                output.float().square().mean().backward()
    every = sum(p.numel() for p in network.parameters())
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    per = 1 + MOMENTS + (world > 1)
    weights = NUMBER * (every * (2 if recipe.training.ema else 1))
    inputs = sum(values.nbytes for values in batch.values())
    memory = Memory(weights, NUMBER * trained * per, sum(kept.values()), inputs)
    found = {"parameters": every, "trained": trained, "flop": count.get_total_flops()}
    return memory, found | {"full": wants_full(network)}


def _features(network: AnyNetwork, batch: Batch) -> Any:
    """The maps of a frozen backbone over imagery, which are computed once; over weather the network asks each time."""
    if not isinstance(network, Network):
        return None
    with torch.no_grad():
        return network.features(batch)


def _rounded(recipe: Recipe, device: str) -> AbstractContextManager[Any]:
    """The precision that a training computes in."""
    half = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(precision_of(recipe.training.precision))
    return torch.autocast(device, half) if half else nullcontext()


def free_memory() -> int:
    """Bytes of memory that are free on this machine's graphics card, or else on the machine."""
    if torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[0])
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _timed(
    recipe: Recipe,
    samples: Samples,
    batch: Batch,
    told: Mapping[str, Any],
    *,
    checks: int,
    steps: int,
    account: Account,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Seconds of a step and of a whole training, and its energy label; None of what was not measured."""
    needed = ROOM * told["memory"]["all"]
    if not steps or needed > told["memory_here"]:
        free = f"{told['memory_here'] / 1e9:.2g} GB are free, {needed / 1e9:.2g} wanted"
        return {"step_s": None, "training_s": None, "label": None, "unmeasured": free if steps else "--steps 0"}
    say(f"measuring {steps} steps")
    step, check = _worker(recipe, samples, batch)
    step()
    meter = account.begun("finetune", say)
    meter.lap(START)
    took = min(_seconds(step) for _ in range(steps))
    meter.lap(EPOCHS)
    record = meter.record()
    checked = _seconds(check) if checks else 0.0
    epochs = told["trainings"] * told["epochs"]
    whole = epochs * (told["steps"] * took + checks * checked)
    share = whole / max(record["phases"][EPOCHS]["wall"], 1e-9) * told["processes"]
    grown = {key: record["phases"][EPOCHS][key] * share for key in ("wall", "cpu", "measured", "joules", "device")}
    record["phases"] = {EPOCHS: record["phases"][EPOCHS] | grown}
    return {"step_s": took, "training_s": whole, "label": summed([record]), "unmeasured": ""}


def _seconds(work: Callable[[], Any]) -> float:
    """Wall seconds of some work, that of a graphics card included."""
    begun = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def _worker(recipe: Recipe, samples: Samples, batch: Batch) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """A step of the training, and a batch of its validation, with random weights."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    task, plain = task_named(recipe.task), dataclasses.replace(recipe, weights="random")
    network, _, _ = build(plain, samples.spec)
    module = module_of(task, plain, network, samples, samples.of("train"), Path()).to(device)
    given = {name: values.to(device) for name, values in batch.items()}
    if recipe.mode == "frozen" and (features := _features(network, given)) is not None:
        given["features"] = torch.stack(list(features), dim=1)
    optimiser = torch.optim.AdamW(list(parameter_groups(network, recipe.training)))

    def step() -> None:
        with _rounded(recipe, device):
            loss = module.objective.loss(given)
        loss.backward()  # type: ignore[no-untyped-call] # torch's own
        optimiser.step()
        optimiser.zero_grad()

    def check() -> None:
        with _rounded(recipe, device), torch.inference_mode():
            module.objective.validate(given)

    return step, check
