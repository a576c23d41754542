"""What a person may choose of a model and of its training. Plain data, standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from models.errors import InputError

MODES = ("frozen", "lora", "full")


@dataclass(frozen=True)
class Architecture:
    """What, beside the Spec and the name of the backbone, builds a network again.

    Attributes:
        overrides: fields of the backbone's configuration that differ from the published ones, such as depth: 4.
        blocks: blocks whose tokens the head reads, counted from 0; four evenly spaced ones when empty.
        decoder: linear, fcn, unet or upernet; not used for scene classes.
        channels: width of the decoder, or of the hidden layer for scene classes.
        detail: width of the full-resolution path over the bands; 0 leaves it out.
        pixel: widths of the two layers over single pixels that it begins with.
        statistics: width of the member that hears the statistics of each pixel's neighbourhoods alone; its answers
            are averaged with those of the tokens. 0 leaves it out.
        share: weight of the member of statistics in the average, 0 to 1; the tokens' has the rest. With folds it
            is learned from the groups that these leave out.
        gate: how much of what the weather adds to the imagery's answer counts, 0 to 1; learned from the groups that
            folds, or else the validation split, leave out.
        dropout: share of features dropped in the head while training.
        drop_path: share of samples that skip a block of the backbone while training.
    """

    overrides: Mapping[str, Any] = field(default_factory=dict)
    blocks: tuple[int, ...] = ()
    decoder: str = "upernet"
    channels: int = 128
    detail: int = 16
    pixel: tuple[int, int] = (96, 64)
    statistics: int = 128
    share: float = 0.5
    gate: float = 1.0
    dropout: float = 0.1
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        """Refuse shares that are none."""
        for key in ("share", "gate"):
            if not 0 <= getattr(self, key) <= 1:
                raise InputError(f"model.{key} {getattr(self, key):g}: wanted 0 to 1")


@dataclass(frozen=True)
class TerratorchArchitecture(Architecture):
    """A neck, a decoder and a head of terratorch's own, of a model that was trained there.

    Attributes:
        decoder: terratorch's class of it, see `networks.terratorch_head.DECODERS`.
        detail: none.
        statistics: none.
        dropout: as in `Architecture`.
        arguments: of the decoder.
        neck: name and arguments of what makes a pyramid of the maps; nothing where they come as they are.
        widths: of the convolutions between the decoder and the last one.
    """

    decoder: str = "UperNetDecoder"
    detail: int = 0
    statistics: int = 0
    dropout: float = 0.0
    arguments: Mapping[str, Any] = field(default_factory=dict)
    neck: Mapping[str, Any] = field(default_factory=dict)
    widths: tuple[int, ...] = ()


@dataclass(frozen=True)
class WeatherArchitecture:
    """What, beside the Spec and the name of the backbone, builds a network again.

    Attributes:
        overrides: fields of the encoder's configuration (`WxCConfig`) that differ from its own, such as embed_dim: 64.
        channels: features that the tokens become at the resolution of the fields.
        detail: width of the convolutions beside the tokens.
        members: networks over the one encoder whose answers are averaged.
        dropout: share of feature maps dropped while training.
        token_dropout: share of samples that train without the tokens.
        rounds: of boosted trees over each cell's surroundings, for rain; 0 leaves them out.
        share: their weight in the mean, 0 to 1; the networks have the rest.
    """

    overrides: Mapping[str, Any] = field(default_factory=dict)
    channels: int = 16
    detail: int = 48
    members: int = 1
    dropout: float = 0.15
    token_dropout: float = 0.3
    rounds: int = 0
    share: float = 0.5

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        for key in ("channels", "detail", "members"):
            if getattr(self, key) < 1:
                raise InputError(f"model.{key} {getattr(self, key)}: wanted 1 or more")
        for key in ("dropout", "token_dropout"):
            if not 0 <= getattr(self, key) < 1:
                raise InputError(f"model.{key} {getattr(self, key)}: wanted 0 or more, below 1")
        for key, most in {"rounds": 1000, "share": 1}.items():
            if not 0 <= getattr(self, key) <= most:
                raise InputError(f"model.{key} {getattr(self, key):g}: wanted 0 to {most}")


@dataclass(frozen=True)
class TableArchitecture:
    """What, beside the Spec, builds a network over tables again.

    Attributes:
        trees: of each of its forests.
        leaf: samples in a leaf at least.
        members: networks of the layers whose answers are averaged.
        width: of their hidden layer.
        dropout: share of what they hear, and of the hidden layer, that is dropped while training.
        share: weight of the forests in the average, 0 to 1; the layers have the rest. With folds it is learned from the
            groups that these leave out.
        gate: see `Architecture`.
    """

    trees: int = 200
    leaf: int = 2
    members: int = 8
    width: int = 48
    dropout: float = 0.2
    share: float = 0.5
    gate: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        most = {"trees": 1000, "leaf": 1000, "members": 64, "width": 1024}
        for key, high in most.items():
            if not 1 <= getattr(self, key) <= high:
                raise InputError(f"model.{key} {getattr(self, key)}: wanted 1 to {high}")
        for key in ("dropout", "share", "gate"):
            if not 0 <= getattr(self, key) <= (0.99 if key == "dropout" else 1):
                raise InputError(f"model.{key} {getattr(self, key):g}: wanted 0 to 1")


AnyArchitecture = Architecture | WeatherArchitecture | TableArchitecture


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters, for mode lora.

    Attributes:
        rank: columns of the low-rank factors.
        alpha: scale of their product, divided by the rank.
    """

    rank: int = 8
    alpha: float = 16.0


@dataclass(frozen=True)
class Training:
    """How a model is trained.

    Attributes:
        epochs: passes over the training samples.
        batch: samples in a batch.
        lr: highest learning rate of the head (AdamW, warm-up, then cosine to zero).
        backbone_lr: the backbone's share of that rate, at its last block.
        layer_decay: factor on the rate from each block of the backbone to the one below it.
        weight_decay: AdamW's weight decay, not applied to biases and norms.
        warmup: share of all steps over which the rate rises.
        clip: largest norm of the gradient; 0 leaves it alone.
        accumulate: batches whose gradients are added up before a step.
        patience: epochs without a better validation score before training stops; 0 trains them all.
        ema: decay of the moving average of the weights that is validated and kept; 0 keeps the weights themselves.
        loss: weights of the losses that are added up: ce, dice, focal; mse, mae, huber; pinball and mse
            for rain. Empty takes ce; huber for values, mse for downscaling; pinball.
        smoothing: label smoothing of the cross-entropy.
        class_weights: exponent w of a class's weight, share ** -w, by its share of the training labels: 0 weighs all
            pixels alike, 1 all classes.
        flips: turn and mirror samples (the eight symmetries of the square).
        gain: spread of the random factor on all bands and of that on each band, 0.05 for about five per cent each.
        offset: spread of the random offset on each band, in standard deviations.
        freeze_norm: share of the epochs after which batch norms keep their statistics; 1 never.
        keep: best keeps the epoch with the best validation score, last the last one.
        precision: auto, 32-true or bf16-mixed; auto takes bf16 where the machine has it.
        recompute: forget the activations of the backbone's blocks and compute them again, for a third more time and a
            part of the memory.
        workers: processes that read samples; 0 reads in the main one.
    """

    epochs: int = 50
    batch: int = 8
    lr: float = 1e-3
    backbone_lr: float = 0.1
    layer_decay: float = 0.85
    weight_decay: float = 0.05
    warmup: float = 0.1
    clip: float = 1.0
    accumulate: int = 1
    patience: int = 0
    ema: float = 0.0
    loss: Mapping[str, float] = field(default_factory=dict)
    smoothing: float = 0.0
    class_weights: float = 0.0
    flips: bool = True
    gain: float = 0.0
    offset: float = 0.0
    freeze_norm: float = 1.0
    keep: str = "best"
    precision: str = "auto"
    recompute: bool = False
    workers: int = 0


@dataclass(frozen=True)
class Augmentation:
    """What another day may differ in.

    Attributes:
        offset: spread of the random offset on each field of a sample, in its standard deviations.
        gain: spread of the random factor on each field's deviations.
        shift: degrees by which a sample's latitudes and longitudes are moved at most, so that places are not learned.
        turns: turn samples by 180 degrees (the equations of motion stay as they are on an f-plane) and mirror them from
            north to south with their latitudes, as in the other hemisphere; wind changes its sign.
    """

    offset: float = 0.0
    gain: float = 0.0
    shift: float = 0.0
    turns: bool = False

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        for key, most in (("offset", 10.0), ("gain", 10.0), ("shift", 180.0)):
            if not 0 <= getattr(self, key) <= most:
                raise InputError(f"augment.{key} {getattr(self, key)}: wanted 0 to {most:g}")
