"""A checkpoint of terratorch and its config become a run folder, with a report of what was understood."""

from __future__ import annotations

import colorsys
import dataclasses
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from models.backbones.hub import read_state_dict
from models.bundle import FILES, Base, Bundle, write_bundle, write_weights
from models.errors import InputError, RunError
from models.files import draft_folder
from models.runtime.hashes import sha256
from models.spec import IMAGERY, ClassDef, Classes, Pixels, Spec
from pipelines.publishing.files import ADAPTER, MADE, PICKLES, PULLED, ROOT, TEXT, WEIGHTS, check_replaced, check_sizes
from pipelines.publishing.foreign.data import Eaten, read_data
from pipelines.publishing.foreign.model import Model, read_model
from pipelines.recipes.reading import read_values
from pipelines.recipes.recipe import Data, data_of

CHECKPOINTS = (*PICKLES[:4], ".safetensors")
MISSING = (
    "scores, baselines and calibration: nothing is known of how right it is; `evaluate` with --data.root measures it",
    "what ground is unlike its training: the training pixels are not here",
)


def bring(
    checkpoint: Path,
    config: Path,
    *,
    out: Path,
    scale: float | None,
    base: Base,
    overwrite: bool,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Make the run folder, whole or not at all; what was understood.

    Raises:
        InputError: a config or a checkpoint that is not understood, not safe, or that do not fit each other.
        RunError: the disk does not take it.
    """
    check_replaced(out, overwrite=overwrite)
    try:
        values = read_values(config)
        model = read_model(values)
        eaten = read_data(values, model.bands, model.frames, scale)
        bundle = _bundle(model, eaten, base, config.name)
    except InputError as error:
        known = str(error).startswith(str(config))
        raise InputError(str(error) if known else f"{config}: {error}") from error
    network, left = _network(checkpoint, model, bundle)
    bundle = dataclasses.replace(bundle, base=dataclasses.replace(base, sha256=sha256(checkpoint)))
    report = _report(values, model, eaten, bundle, left)
    with draft_folder(out, replaces="bundle.json", also=MADE) as folder:
        write_weights(folder, network, whole=True)
        (folder / "split.csv").write_text("split\n", encoding="utf-8")  # no sample of the training is known
        say("exporting and checking model.onnx")
        report["notes"] = _export(folder, bundle, network)
        (folder / PULLED).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    size = sum(path.stat().st_size for path in out.iterdir())
    told = {"run": str(out), "commit": base.revision, "bytes": size, **report}
    return {**told, "task": bundle.spec.task, "backbone": bundle.backbone, "base": str(bundle.base)}


def bring_files(checkpoint: Path, config: Path | None, **how: Any) -> dict[str, Any]:
    """As `bring`, of files on this machine."""
    if config is None:
        raise InputError(f"{checkpoint}: tells no bands, units and classes; --yaml names the YAML of its training")
    if not checkpoint.is_file():
        raise InputError(f"{checkpoint}: no such checkpoint; give a file of this machine, or org/name of the Hub")
    base = Base("file", file=checkpoint.name)
    return bring(checkpoint, config, base=base, **how)


def chosen(sizes: Mapping[str, int], where: object) -> list[str]:
    """The files to fetch of a repository: those of a run, or a checkpoint of terratorch and its config.

    Raises:
        InputError: neither, or several that could be meant.
    """
    ours = ("recipe.yaml", FILES["familiar"], *ADAPTER)
    plain = [name for name in sorted(sizes) if name not in ours and re.fullmatch(r"[\w-][\w.-]*", name, re.ASCII)]
    configs = [name for name in plain if name.lower().endswith((".yaml", ".yml"))]
    checkpoints = [name for name in plain if is_checkpoint(name)]
    if "bundle.json" in sizes or not (configs and checkpoints):
        return check_sizes(sizes, where)
    several = next((names for names in (checkpoints, configs) if len(names) > 1), None)
    if several:
        advice = "fetch them yourself (`hf download`), and pull the checkpoint with --yaml"
        raise InputError(f"{where}: which of {', '.join(several[:5])} is not told; {advice}")
    if sizes[checkpoints[0]] > WEIGHTS or sizes[configs[0]] > TEXT:
        raise InputError(f"{where}: {checkpoints[0]} or {configs[0]} is larger than any that is known; not fetched")
    return [*checkpoints, *configs]


def is_checkpoint(source: str) -> bool:
    """Whether a source is a file on this machine rather than a name on the Hub."""
    return Path(source).suffix.lower() in CHECKPOINTS


def _bundle(model: Model, eaten: Eaten, base: Base, config: str) -> Bundle:
    """What bundle.json is to hold."""
    coded = model.fields["coords_encoding"] or ()
    pixels = Pixels(
        eaten.bands,
        eaten.mean,
        eaten.std,
        model.frames,
        model.tile,
        int(model.fields["patch_size"][-1]),
        eaten.metadata and "time" in coded,
        eaten.metadata and "location" in coded,
    )
    if model.tile % (2 * pixels.patch):
        raise InputError(f"img_size {model.tile}: wanted a multiple of {2 * pixels.patch}, so that nothing is padded")
    classes = tuple(ClassDef(eaten.first + i, name, _colour(i, len(model.names))) for i, name in enumerate(model.names))
    spec = Spec("segmentation", {IMAGERY: pixels}, {"class": Classes(classes)})
    training = {"recipe": config, "divided": "not known", "notes": ["Trained by others, in terratorch."]}
    made = Bundle(spec, model.backbone, model.architecture, base, data={"root": ROOT, **eaten.data}, training=training)
    data_of(made, Data)
    return made


def _colour(i: int, count: int) -> str:
    """A colour of a class that differs from its neighbours'."""
    red, green, blue = colorsys.hsv_to_rgb(i / count, 0.45 + 0.3 * (i % 2), 0.85 - 0.25 * (i % 3 == 2))
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"


def _network(checkpoint: Path, model: Model, bundle: Bundle) -> tuple[Any, dict[str, str]]:
    """The network with the checkpoint's weights, and why other tensors are left out.

    It is first made without storage: what does not fit the checkpoint takes no memory.
    """
    import torch

    from models.networks.network import Network
    from models.networks.terratorch_head import check_fit, own_names, take

    state, left = own_names(read_state_dict(checkpoint), model.neck)
    source = str(checkpoint)
    _check_size(state, model, source)
    with torch.device("meta"):
        shapes = Network(bundle.spec, bundle.backbone, model.architecture).state_dict()
    check_fit({name: tensor.shape for name, tensor in shapes.items()}, state, source)
    network = Network(bundle.spec, bundle.backbone, model.architecture)
    take(network, state, source)
    return network.eval(), left


def _check_size(state: Mapping[str, Any], model: Model, source: str) -> None:
    """Refuse a backbone of another depth, width or grid before any of it is made."""
    kernel = state.get("backbone.vit.patch_embed.proj.weight")
    if kernel is None:
        raise InputError(f"{source}: no Prithvi encoder of terratorch in it; give its checkpoint of a fine-tuned model")
    blocks = {name.split(".")[3] for name in state if name.startswith("backbone.vit.blocks.")}
    patch = int(model.fields["patch_size"][-1])
    wanted = {"depth": model.fields["depth"], "embed_dim": model.fields["embed_dim"]}
    came = {"depth": len(blocks), "embed_dim": len(kernel)}
    if "backbone.vit.pos_embed" in state:
        wanted["tokens"] = 1 + model.frames * (model.tile // patch) ** 2
        came["tokens"] = int(state["backbone.vit.pos_embed"].shape[1])
    if wanted != came:
        raise InputError(f"{source}: the config wants {_listed(wanted)}, the checkpoint has {_listed(came)}")


def _listed(numbers: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {number}" for name, number in numbers.items())


def _export(folder: Path, bundle: Bundle, network: Any) -> list[str]:
    """Write model.onnx, where it can be and answers as the network does, and bundle.json; why there is none."""
    from torch.onnx.errors import OnnxExporterError

    from models.runtime.agreement import write_graph

    try:
        write_graph(folder, bundle, network)
    except (OnnxExporterError, RunError) as error:
        (folder / FILES["graph"]).unlink(missing_ok=True)
        write_bundle(folder, bundle)
        return [f"No model.onnx: {str(error).strip().splitlines()[0][:200]}; the run is scored with torch."]
    return []


def _report(
    values: Mapping[str, Any], model: Model, eaten: Eaten, bundle: Bundle, left: Mapping[str, str]
) -> dict[str, Any]:
    """What was understood, what was left aside, and what is missing, for people and as JSON."""
    pixels, built = bundle.spec.imagery, model.architecture
    neck = f", {built.neck['name']}" if built.neck else ""
    beside = [*(["day"] if pixels.uses_time else []), *(["place"] if pixels.uses_location else [])]
    understood = {
        "backbone": f"{model.backbone}, blocks {', '.join(map(str, built.blocks))}",
        "decoder": f"{built.decoder}{neck}",
        "input": f"{', '.join(pixels.channels)}; {pixels.times} frames of {pixels.tile} x {pixels.tile}"
        + (f", with {' and '.join(beside)}" if beside else ""),
        "units": eaten.told,
        "classes": ", ".join(f"{c.code} {c.name}" for c in bundle.spec.answer.classes),
    }
    ignored = [*(key for key in values if key not in ("model", "data")), *model.ignored, *eaten.ignored]
    return {"understood": understood, "ignored": ignored, "tensors_left_out": dict(left), "missing": list(MISSING)}
