"""earthtune plan: what a training will take."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pipelines.commands.outcome import Outcome
from pipelines.recipes.recipe import Recipe
from pipelines.records.energy import Account


def plan(
    recipe: Recipe,
    *,
    devices: int = 1,
    nodes: int = 1,
    steps: int = 3,
    account: Account = Account(),
    trust: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Tell what a training takes before it is begun: memory of a device, time, energy; nothing is written or fetched.

    Memory follows from the shapes, also of what does not fit this machine; time and energy from steps that are
    measured here, with random weights. Each key of a recipe is an option, too.

    Args:
        recipe: a YAML file, or the name of a recipe that comes with earthtune; its data are there.
        devices: on each node; they share the batch out.
        nodes: how many.
        steps: training steps that are measured; 0 measures none.
        account: for whom energy is booked.
        trust: let virtual rasters (.vrt) read whatever they ask for: addresses, archives, formulas; for those you know.
        say: takes a line for the person who waits.
    """
    from pipelines.recipes.recipe import check_ranges

    check_ranges({"devices": (devices, 1, 1e5), "nodes": (nodes, 1, 1e5), "steps": (steps, 0, 1000)})
    from pipelines.runs.plan import plan as planned  # torch, terratorch: not for the help

    return planned(recipe, devices=devices, nodes=nodes, steps=steps, account=account, trust=trust, say=say)


def told(result: Mapping[str, Any], options: Mapping[str, Any]) -> Outcome:
    """A line for each thing that a training takes."""
    from pipelines.records.label import line
    from pipelines.reports.cost import columns, seconds

    memory, gb = result["memory"], {key: f"{size / 1e9:.2g} GB" for key, size in result["memory"].items()}
    parts = ", ".join(f"{key} {gb[key]}" for key in ("weights", "optimiser", "activations"))
    kept, again = (f"{result[f'memory_{key}'] / 1e9:.2g} GB" for key in ("kept", "recomputed"))
    here = "fits" if memory["all"] <= result["memory_here"] else "does not fit"
    count = result["epochs"] * result["steps"] * result["trainings"]
    table = [
        ("samples", f"{result['described']}: {result['samples']}"),
        ("parameters", f"{result['parameters'] / 1e6:,.1f} M, of which {result['trained'] / 1e6:,.1f} M are trained"),
        ("memory", f"{gb['all']} a device, {here} here ({result['memory_here'] / 1e9:.2g} GB free): {parts}"),
        ("", f"{kept}; with training.recompute {again}; the libraries' own comes on top"),
        ("arithmetic", f"{result['flop'] * result['processes'] / 1e12:.3g} TFLOP a step of all devices"),
        ("steps", f"{count}: {result['trainings']} x {result['epochs']} epochs of {result['steps']}"),
    ]
    if result["label"]:
        most = "at most " * bool(result["patience"])
        whole = seconds(result["training_s"])
        table.append(("time", f"{seconds(result['step_s'])} a step, {most}{whole} in all, on devices like this one"))
        table.append(("", "without what comes before the first epoch, and reports"))
        table.append(("energy", line(result["label"]).removeprefix("energy: ")))
    else:
        table.append(("time", f"not measured: {result['unmeasured']}"))
    return Outcome(dict(result), "\n".join(columns(table)))
