"""Low-rank adapters in the layout of peft: `PeftModel.from_pretrained(vit, folder)` puts them onto the base's ViT."""

from __future__ import annotations

import json
from pathlib import Path

from models.backbones.catalogue import VARIANTS
from models.backbones.hub import read_state_dict
from models.backbones.lora import TARGETS
from models.bundle import FILES, Bundle, check_file, write_state
from models.errors import InputError
from pipelines.publishing.files import ADAPTER

_WITHIN = "backbone.vit."  # the ViT in our network, which has the published names
_PARTS = {"down": "lora_A", "up": "lora_B"}


def check_adapters(run: Path, bundle: Bundle) -> None:
    """Refuse a run that holds no adapters of their own.

    Raises:
        InputError: another mode, or a base that nobody else has.
    """
    if bundle.mode != "lora":
        raise InputError(f"{run}: --adapter_only wants a run of --mode lora, came {bundle.mode}; publish it whole")
    if bundle.whole:
        why = "its adapters were merged into random weights, which nobody else has"
        raise InputError(f"{run}: {why}; publish it whole, or train on published weights")


def write_adapters(run: Path, bundle: Bundle, folder: Path) -> int:
    """Write adapter_config.json and adapter_model.safetensors; how many layers have an adapter."""
    source = run / FILES["sha256"]
    check_file(source, bundle.sha256)
    state = {}
    for name, tensor in read_state_dict(source).items():
        layer, _, part = name.removeprefix(_WITHIN).rpartition(".")
        if name.startswith(_WITHIN) and part in _PARTS:
            state[f"base_model.model.{layer}.{_PARTS[part]}.weight"] = tensor
    base = bundle.base
    published = VARIANTS.get(bundle.backbone)
    config = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": base.repo or (published.repo if published else None),
        "revision": base.revision,
        "r": bundle.lora.rank,
        "lora_alpha": bundle.lora.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "target_modules": [*TARGETS],
    }
    (folder / ADAPTER[0]).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    write_state(folder / ADAPTER[1], state)
    return len(state) // len(_PARTS)
