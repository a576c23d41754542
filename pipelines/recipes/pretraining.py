"""What decides how a pretraining goes on. Plain data, standard library only."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models.errors import InputError
from models.training.settings import Training
from pipelines.recipes.recipe import check_ranges

FROM_NOTHING, ONWARDS = 3e-4, 1e-4  # highest learning rates from random weights, and from pretrained ones


@dataclass(frozen=True)
class Pretraining:
    """How a backbone is pretrained; the same settings and scenes give the same weights on the same machine.

    Attributes:
        backbone: a Prithvi EO that `earthtune backbones` lists.
        weights: where it goes on from: hub for the published ones, random for none, or a weight file.
        revision: commit, branch or tag of the published weights.
        frames: dates of a sample; a scene is one file per date, joined by commas, or a file of all.
        size: side of a sample in pixels, a multiple of the patch; 0 takes the smallest scene's side, at most 224.
        windows: windows that a scene gives in an epoch at most; 0 takes as many as fit beside each other.
        mask: share of the patches that is hidden and asked for.
        epochs: passes over the scenes.
        batch: samples in a batch.
        lr: highest learning rate (AdamW, warm-up, then cosine to zero); 0 takes 3e-4 from random weights, else 1e-4.
        precision: auto, 32-true or bf16-mixed; auto takes bf16 where the machine has it.
        seed: seeds the weights, the windows, what is hidden, and what is held out.
        recompute: forget the activations of blocks and compute them again, for more time and less memory.
        workers: processes that read samples; 0 reads in the main one.
        overrides: fields of the backbone's configuration that differ from the published ones, such as depth: 4.
    """

    backbone: str = "prithvi_eo_v2_tiny_tl"
    weights: str = "hub"
    revision: str | None = None
    frames: int = 1
    size: int = 0
    windows: int = 0
    mask: float = 0.75
    epochs: int = 100
    batch: int = 16
    lr: float = 0.0
    precision: str = "auto"
    seed: int = 0
    recompute: bool = False
    workers: int = 0
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what no training takes, before any file is opened."""
        if self.precision not in (known := ("auto", "32-true", "bf16-mixed")):
            raise InputError(f"precision {self.precision!r}: wanted one of {', '.join(known)}")
        if self.weights not in ("hub", "random") and not Path(self.weights).is_file():
            raise InputError(f"weights {self.weights}: no such file; wanted hub, random or a weight file")
        check_ranges(
            {
                "frames": (self.frames, 1, 1024),
                "size": (self.size, 0, 8192),
                "windows": (self.windows, 0, 1e6),
                "mask": (self.mask, 0.05, 0.95),
                "epochs": (self.epochs, 1, 1e6),
                "batch": (self.batch, 1, 65536),
                "lr": (self.lr, 0.0, 10.0),
                "seed": (self.seed, 0, 2**32 - 1),
                "workers": (self.workers, 0, 1024),
            }
        )

    @property
    def training(self) -> Training:
        """The settings of the training; nothing is picked by the held-out windows, which are only told of."""
        rate = self.lr or (FROM_NOTHING if self.weights == "random" else ONWARDS)
        how: dict[str, Any] = {"precision": self.precision, "workers": self.workers, "keep": "last"}
        return Training(epochs=self.epochs, batch=self.batch, lr=rate, backbone_lr=1.0, **how)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self), default=str))
        return values
