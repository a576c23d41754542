"""A fine-tuned model on disk: bundle.json and model.safetensors, with model.onnx beside them. No pickles."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.errors import InputError, RunError
from models.files import replacing
from models.runtime.hashes import sha256
from models.spec import WEATHER, Spec
from models.training.settings import (
    AnyArchitecture,
    Architecture,
    Lora,
    TableArchitecture,
    TerratorchArchitecture,
    WeatherArchitecture,
)
from models.types import convert

if TYPE_CHECKING:
    from torch import Tensor, nn

    from models.confidence.familiar import Familiar
    from models.networks.assembly import AnyNetwork

FORMAT = 4
FILES = {  # and which fields hold their hashes
    "sha256": "model.safetensors",
    "graph": "model.onnx",
    "int8": "model.int8.onnx",
    "familiar": "familiar.safetensors",
}
SAME_LABELS, SAME_ANSWERS = 0.99, 0.02  # what answers alike have in common at least, and differ by at most


@dataclass(frozen=True)
class Base:
    """The backbone weights that a model started from.

    Attributes:
        source: "random", "file", "hub", or "run" for the backbone of another run, which may have learned.
        repo: Hugging Face repository, if from the Hub; of a run's backbone where that began.
        revision: its commit.
        file: the file's name, or the run's.
        sha256: the file's hash, or that of the run's model.safetensors.
        pretrained_bands: bands of its patch embedding, in order.
    """

    source: str = "random"
    repo: str | None = None
    revision: str | None = None
    file: str | None = None
    sha256: str | None = None
    pretrained_bands: tuple[str, ...] = ()

    def __str__(self) -> str:
        """The base in words."""
        if self.source == "random":
            return "random weights"
        file = f"{self.file} (sha256 {(self.sha256 or '')[:12]})"
        published = f"{self.repo}@{self.revision}" if self.repo else ""
        if self.source == "run":
            return f"the backbone of {file}{published and f', from {published}'}"
        return published or file


@dataclass(frozen=True)
class Bundle:
    """What bundle.json says of a run.

    Attributes:
        spec: what the model eats and says.
        backbone: a name of `catalogue.VARIANTS` or `catalogue.WXC_VARIANTS`.
        architecture: what, beside these two, builds the network.
        base: where the backbone's weights came from.
        mode: "frozen", "lora" or "full".
        whole: model.safetensors holds every weight; otherwise those beside the backbone only, and the base is needed
            to build the torch model. model.onnx is always whole.
        sha256: hash of model.safetensors, as it lay in the folder when bundle.json was written.
        graph: the same of model.onnx; empty where there is none.
        int8: the same of model.int8.onnx, the model in bytes; empty where nobody asked for it, see `int8`.
        familiar: the same of familiar.safetensors, the training's pixels and weather that others are compared with.
        data: the recipe's data: where the training files were and how they were read, the default for files alike.
        training: what a person needs to know of the run: recipe, seed, versions, split sizes.
        scores: scores on the test split.
        baselines: the same of each baseline.
        lora: size of the adapters, in mode "lora".
        rounding: for each reduced precision of the runtime, how its answers compare with those in float32 on held-out
            samples: "equal", the share of pixels of the same class (not for values); "difference", which 99.9 % of the
            pixels stay below: of probabilities, or of values in standard deviations of the answers; and "samples".
            Of "int8" also the leading score "before" and "after".
        confidence: how far answers are to be trusted: what `calibration.Calibration` holds, and under "unfamiliar" the
            share of a scene outside that 95 of 100 left-out groups stay below ("limit").
    """

    spec: Spec
    backbone: str
    architecture: AnyArchitecture
    base: Base = field(default_factory=Base)
    mode: str = "full"
    whole: bool = True
    sha256: str = ""
    graph: str = ""
    int8: str = ""
    familiar: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, Any] = field(default_factory=dict)
    baselines: Mapping[str, Any] = field(default_factory=dict)
    lora: Lora = field(default_factory=Lora)
    rounding: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    confidence: Mapping[str, Any] = field(default_factory=dict)

    def bears(self, precision: str) -> bool:
        """Whether the model is known to answer alike in a reduced precision."""
        known = self.rounding.get(precision, {})
        return known.get("equal", 1.0) >= SAME_LABELS and known.get("difference", 1.0) <= SAME_ANSWERS


def write_bundle(folder: Path, bundle: Bundle) -> None:
    """Write bundle.json for the model files that lie in the folder, by their hashes: no other will be taken for them.

    A reader sees the old file or the new one, never half of one.
    """
    hashes = {key: sha256(folder / name) if (folder / name).is_file() else "" for key, name in FILES.items()}
    content = {"format": FORMAT, **dataclasses.asdict(bundle), **hashes, "spec": bundle.spec.to_json()}
    with replacing(folder / "bundle.json") as draft:
        draft.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read_bundle(folder: Path) -> Bundle:
    """Read bundle.json.

    Raises:
        InputError: no run folder, a run that has not ended, another format, or a damaged file.
    """
    path = folder / "bundle.json"
    if not folder.is_dir():
        raise InputError(f"{folder}: no such run folder; `earthtune finetune` makes one")
    if not path.is_file():
        begun = (folder / "checkpoints").is_dir()
        hint = "the run has not ended; --resume continues it" if begun else "not a run folder"
        raise InputError(f"{folder}: holds no bundle.json: {hint}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        made_in = content.pop("format")
        if made_in == FORMAT:
            return _from_json(content)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, InputError) as error:
        raise InputError(f"{path}: damaged ({error}); train again or copy the run again") from error
    raise InputError(
        f"{path}: wanted format {FORMAT}, came {made_in}, of another version of earthtune; train it again: "
        f"earthtune finetune {folder / 'recipe.yaml'} --out ANOTHER"
    )


def check_file(path: Path, wanted: str) -> None:
    """Refuse a file of a run that is not the one which its bundle.json was written for.

    Args:
        path: the file.
        wanted: its hash by bundle.json.

    Raises:
        InputError: it is another, or bundle.json tells of none.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; copy the whole run folder again")
    if sha256(path) != wanted:
        told = "its sha256 differs" if wanted else "it tells of none"
        raise InputError(
            f"{path}: not the file that bundle.json was written for ({told}); copy the whole run folder again"
        )


def bundle_id(folder: Path) -> str:
    """What tells a bundle from any other: the hash of what bundle.json says, and so of its model files.

    The folder of the training data counts for nothing: a published run is the run that it was.
    """
    content = json.loads((folder / "bundle.json").read_bytes())
    data = {key: value for key, value in content.get("data", {}).items() if key != "root"}
    return hashlib.sha256(json.dumps({**content, "data": data}, sort_keys=True).encode()).hexdigest()


def _from_json(content: dict[str, Any]) -> Bundle:
    """A bundle from what `write_bundle` wrote, each value of the type that it has to be."""
    spec = Spec.from_json(content.pop("spec"))
    kind: type[AnyArchitecture] = WeatherArchitecture if spec.over_weather else Architecture
    kind = TableArchitecture if spec.over_tables else kind
    stored = content.pop("architecture")
    kind = TerratorchArchitecture if kind is Architecture and "neck" in stored else kind
    architecture = convert(stored, kind, "architecture")
    hints: dict[str, Any] = {
        **{"base": Base, "lora": Lora, "whole": bool, "rounding": Mapping[str, Mapping[str, float]]},
        **dict.fromkeys(("backbone", "mode", *FILES), str),
    }
    fields = {key: convert(value, hints.get(key, Mapping[str, Any]), key) for key, value in content.items()}
    if fields.get("confidence"):
        from models.confidence import kept

        kept.check(fields["confidence"], spec.answer)
    return Bundle(spec, architecture=architecture, **fields)


def stored_whole(base: Base, mode: str) -> bool:
    """Whether a bundle must hold the backbone: not where it stayed as its base file has it."""
    return mode == "full" or base.source in ("random", "run")


def write_weights(folder: Path, network: nn.Module, *, whole: bool) -> None:
    """Write model.safetensors: every weight, or without those of the untouched backbone."""
    state = {key: value for key, value in network.state_dict().items() if whole or _own(key)}
    write_state(folder / "model.safetensors", state)


def write_state(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write tensors by name as a safetensors file.

    Raises:
        RunError: the disk does not take them.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        with replacing(path) as draft:
            save_file({key: value.contiguous().clone() for key, value in state.items()}, draft)
    except SafetensorError as error:
        raise RunError(f"{path.parent}: cannot write {path.name} ({error}); make space, then --resume") from error


def write_familiar(folder: Path, ground: Familiar | None, weather: Familiar | None = None) -> None:
    """Write familiar.safetensors: of pixels or cells, and of the weather before a day.

    Raises:
        RunError: the disk does not take it.
    """
    from torch import from_numpy

    parts = [("", ground), (f"{WEATHER}.", weather)]
    arrays = {f"{of}{name}": a for of, part in parts if part for name, a in part.arrays().items()}
    write_state(folder / FILES["familiar"], {name: from_numpy(a) for name, a in arrays.items()})


def load_familiar(folder: Path, bundle: Bundle, *, weather: bool = False) -> Familiar | None:
    """The training pixels or cells that a run keeps, or the weather before its days; None where it keeps none.

    Raises:
        InputError: the file is not there, is another, or damaged.
    """
    spec = bundle.spec
    if not bundle.familiar or (WEATHER not in spec.series if weather else spec.over_tables):
        return None
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    from models.confidence.familiar import Familiar, wide_of

    path = folder / FILES["familiar"]
    check_file(path, bundle.familiar)
    try:
        found, of = load_file(path), f"{WEATHER}." if weather else ""
        if weather and f"{of}mean" not in found:  # of a run from before it was kept
            return None
        some = {key.removeprefix(of): array for key, array in found.items() if key.startswith(of)}
        return Familiar.of_arrays(some, wide_of(spec, weather=weather))
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path}: damaged ({error}); copy the whole run folder again") from error


def _own(key: str) -> bool:
    """Whether a weight belongs to the run rather than to the base: the head's, or an adapter's."""
    return not key.startswith("backbone.") or key.endswith((".down", ".up"))


def load_network(folder: Path, *, weights: Path | None = None) -> AnyNetwork:
    """Build the torch model of a run, in eval mode, adapters merged.

    Args:
        folder: the run.
        weights: the base file, for a bundle that stores the head only and whose base came from a file.

    Raises:
        InputError: not a run, damaged weights, or a base that is not there or is another file than the one recorded.
    """
    from models.backbones.hub import read_state_dict
    from models.backbones.lora import add_lora, merge_lora
    from models.networks.assembly import assemble, load_backbone

    bundle = read_bundle(folder)
    base, pretrained = bundle.base, bundle.base.source != "random"
    network = assemble(bundle.spec, bundle.backbone, bundle.architecture, pretrained=pretrained)
    if not bundle.whole:
        if weights is None and not base.repo:
            raise InputError(f"{folder}: holds the head only; its backbone is {base}: give that file with --weights")
        bands, source = base.pretrained_bands, str(weights or "hub")
        load_backbone(network, bundle.backbone, source, revision=base.revision, bands=bands, wanted=base)
        if bundle.mode == "lora":
            add_lora(network.backbone, rank=bundle.lora.rank, alpha=bundle.lora.alpha)
    path = folder / FILES["sha256"]
    check_file(path, bundle.sha256)
    fill(network, read_state_dict(path), path, whole=bundle.whole)
    merge_lora(network)
    return network.eval()


def fill(network: nn.Module, state: Mapping[str, Tensor], path: Path, *, whole: bool) -> None:
    """Load a bundle's weights into its network.

    Raises:
        InputError: they are not those of this network, or no numbers.
    """
    from models.networks.forest import make_room

    make_room(network, state)
    wanted = {key: value for key, value in network.state_dict().items() if whole or _own(key)}
    wrong = set(wanted) ^ set(state) or {key for key in wanted if wanted[key].shape != state[key].shape}
    if wrong:
        raise InputError(f"{path}: does not fit its bundle.json (tensor {min(wrong)}); copy the whole run folder again")
    broken = next((key for key, value in state.items() if bool(value.isnan().any())), None)
    if broken:
        raise InputError(f"{path}: tensor {broken} holds NaN, so that any answer would; train the run again")
    network.load_state_dict(state, strict=False)
