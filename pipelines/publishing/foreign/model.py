"""The network that a config of terratorch describes: plain data and names that are known; nothing is imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from models.backbones.prithvi_eo import config
from models.errors import InputError
from models.networks.terratorch_head import LARGEST, NECKS
from models.training.settings import TerratorchArchitecture
from models.types import convert, nearest

TASKS = ("SemanticSegmentationTask",)
FACTORIES = ("EncoderDecoderFactory", "PrithviModelFactory")
MOST = {"num_classes": 1000, "num_frames": 64, "img_size": 2048}
_OLD = {"prithvi_100": "prithvi_eo_v1_100", "prithvi_vit_100": "prithvi_eo_v1_100"}  # names before terratorch 1.0
_OTHER = ("peft_config", "image_size_out", "backbone_vit_adapter", "backbone_vpt")  # another network, if they say so
_WEIGHTS = ("pretrained", "ckpt_path", "pretrained_bands", "in_chans", "padding", "drop_path")  # all in the checkpoint
_SCHEDULE = ("backbone_pretrained_cfg_overlay", "in_channels", "task", "aux_decoders", "pretrained")


@dataclass(frozen=True)
class Model:
    """What a config says of its network.

    Attributes:
        backbone: its name in our catalogue.
        fields: its configuration, with what the config changes.
        bands: names of the bands that it was built for; empty where the config names none.
        frames: dated frames.
        tile: side of the images that its positions were made for.
        names: of the classes.
        architecture: what else builds it.
        neck: place of the neck with weights among the necks.
        ignored: what is left aside, by its key.
    """

    backbone: str
    fields: Mapping[str, Any]
    bands: tuple[str, ...]
    frames: int
    tile: int
    names: tuple[str, ...]
    architecture: TerratorchArchitecture
    neck: int | None
    ignored: tuple[str, ...]


def section(values: Mapping[str, Any], name: str) -> tuple[str, dict[str, Any]]:
    """The class that a section of a config names, without its package, and its arguments.

    Raises:
        InputError: no such section, or one of another make.
    """
    part = values.get(name)
    if not isinstance(part, Mapping) or not isinstance(part.get("class_path"), str):
        raise InputError(f"{name}: wanted class_path and init_args, as terratorch's configs have them; give such a one")
    arguments = convert(part.get("init_args") or {}, Mapping[str, Any], f"{name}.init_args")
    return part["class_path"].rpartition(".")[2], dict(arguments)


def read_model(values: Mapping[str, Any]) -> Model:
    """What a config says of its network.

    Raises:
        InputError: a task, factory, backbone, neck or decoder that is not known, or sizes that none has.
    """
    task, given = section(values, "model")
    _known("model", task, TASKS)
    _known("model_factory", str(given.get("model_factory")).rpartition(".")[2], FACTORIES)
    arguments = _unfolded(convert(given.get("model_args"), Mapping[str, Any], "model_args"))
    other = next((key for key in _OTHER if arguments.pop(key, None)), None)
    if other or arguments.pop("rescale", True) is not True:
        raise InputError(f"model_args: {other or 'rescale: false'} is not understood; a network without it is wanted")
    backbone = convert(arguments.pop("backbone", None), str, "backbone").removeprefix("terratorch_")
    backbone = _OLD.get(backbone, backbone)
    parts = {part: _taken(arguments, f"{part}_") for part in ("backbone", "decoder", "head")}
    encoder, frames = parts["backbone"], _number(parts["backbone"].pop("num_frames", None) or 1, "num_frames")
    bands = tuple(map(str, convert(encoder.pop("bands", None) or [], list[Any], "backbone_bands")))
    size, chosen = encoder.pop("img_size", None) or 224, encoder.pop("out_indices", None)
    overrides = {key: _bounded(key, value) for key, value in encoder.items() if key not in _WEIGHTS}
    fields = config(backbone, **overrides)
    count = _number(arguments.pop("num_classes", None), "num_classes")
    blocks, pyramid, place = _necks(arguments.pop("necks", None), fields["depth"], chosen, frames)
    decoder = convert(arguments.pop("decoder", None), str, "decoder").removeprefix("terratorch_")
    ignored = [f"model.{key}" for key in given if key not in ("model_args", "model_factory", "class_names")]
    ignored += [f"model_args.{key}" for key in _SCHEDULE if arguments.pop(key, None) not in (None, True)]
    if arguments:
        raise InputError(f"model_args: {min(arguments)} is not understood, and might change the network; leave it out")
    head = parts["head"]
    architecture = TerratorchArchitecture(
        overrides=overrides,
        blocks=blocks,
        decoder=decoder,
        dropout=convert(head.pop("dropout", None) or 0.0, float, "head_dropout"),
        arguments=parts["decoder"],
        neck=pyramid,
        widths=convert(head.pop("channel_list", None) or (), tuple[int, ...], "head_channel_list"),
    )
    if head:
        raise InputError(f"model_args: head_{min(head)} is not understood, and might change the network")
    names = _names(given.get("class_names"), count)
    return Model(backbone, fields, bands, frames, _side(size), names, architecture, place, tuple(ignored))


def _known(what: str, name: str, known: Sequence[str]) -> None:
    if name not in known:
        raise InputError(f"{what} {name}: not one that can be taken; {nearest(name, known)}")


def _unfolded(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of either factory by the names of the newer one."""
    made = dict(arguments)
    for part in ("backbone", "decoder", "head"):
        inner = convert(made.pop(f"{part}_kwargs", None) or {}, Mapping[str, Any], f"{part}_kwargs")
        made |= {f"{part}_{key}": value for key, value in inner.items()}
    for key in ("bands", "num_frames"):
        if key in made:
            made[f"backbone_{key}"] = made.pop(key)
    return made


def _taken(arguments: dict[str, Any], prefix: str) -> dict[str, Any]:
    """The arguments with a prefix, which are taken out, without it; those that say nothing are left out."""
    found = {key: arguments.pop(key) for key in [*arguments] if key.startswith(prefix)}
    return {key.removeprefix(prefix): value for key, value in found.items() if value is not None}


def _number(value: Any, key: str) -> int:
    """A count that a network may have."""
    number: int = convert(value, int, key)
    least = 2 if key == "num_classes" else 1
    if not least <= number <= MOST[key]:
        raise InputError(f"{key} {number}: wanted {least} to {MOST[key]}")
    return number


def _bounded(key: str, value: Any) -> Any:
    """A field of the backbone that no machine breaks down under."""
    numbers = value if isinstance(value, list) else [value]
    if len(numbers) > 16 or any(isinstance(n, int | float) and not 0 <= n <= LARGEST for n in numbers):
        raise InputError(f"backbone_{key} {str(value)[:60]}: wanted 0 to {LARGEST}")
    return value


def _side(size: Any) -> int:
    """The side of a square image."""
    sides = size if isinstance(size, list) else [size]
    if len(set(map(str, sides))) != 1:
        raise InputError(f"backbone_img_size {str(size)[:60]}: wanted a square")
    return _number(sides[0], "img_size")


def _names(given: Any, count: int) -> tuple[str, ...]:
    """A name for each class."""
    names = tuple(" ".join(str(name).split())[:80] for name in convert(given or [], list[Any], "class_names"))
    if names and len(names) != count:
        raise InputError(f"class_names: {len(names)} names, num_classes {count}; one each is wanted")
    return names or tuple(f"class {i}" for i in range(count))


def _necks(given: Any, depth: int, chosen: Any, frames: int) -> tuple[tuple[int, ...], dict[str, Any], int | None]:
    """The blocks whose maps the decoder gets, what makes a pyramid of them, and its place among the necks."""
    necks = convert(given or [], list[Mapping[str, Any]], "necks")
    blocks = _at(range(depth), chosen, "backbone_out_indices") if chosen is not None else tuple(range(depth))
    pyramid: dict[str, Any] = {}
    place, maps = None, not necks  # without necks terratorch lays tokens out as maps itself
    for i, neck in enumerate(necks):
        name = neck.get("name")
        if name == "SelectIndices" and not pyramid:
            blocks = _at(blocks, neck.get("indices"), "SelectIndices.indices")
        elif name == "ReshapeTokensToImage" and not maps:
            _check_reshape(neck, frames)
            maps = True
        elif name in NECKS and maps and not pyramid:
            pyramid, place = dict(neck), i
        else:
            raise InputError(f"necks: {name} is not understood in this place; wanted {_LAYOUT}")
    if not maps:
        raise InputError(f"necks: tokens would reach the decoder; wanted {_LAYOUT}")
    return blocks, pyramid, place


_LAYOUT = f"SelectIndices, ReshapeTokensToImage, then none or one of {', '.join(NECKS)}"


def _check_reshape(neck: Mapping[str, Any], frames: int) -> None:
    """Refuse tokens that are laid out in another way than frame beside frame."""
    usual = {"remove_cls_token": True, "effective_time_dim": 1, "h": None, "temporal_inputs": False}
    for key, value in ({**usual, **neck} | {"name": ""}).items():
        wanted = frames if key == "effective_time_dim" else usual.get(key, "")
        if value != wanted:
            raise InputError(f"necks: ReshapeTokensToImage with {key} {value}, wanted {wanted} with {frames} frames")


def _at(blocks: Sequence[int], indices: Any, key: str) -> tuple[int, ...]:
    """The blocks at some places, which may be counted from the end."""
    places: list[int] = convert(indices, list[int], key)
    wrong = next((place for place in places if not -len(blocks) <= place < len(blocks)), None)
    if wrong is not None or not 1 <= len(places) <= len(blocks):
        raise InputError(f"{key} {str(places)[:60]}: wanted some of {len(blocks)} blocks")
    return tuple(blocks[place] for place in places)
