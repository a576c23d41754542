"""Low-rank adapters on linear layers (Hu et al. 2021, arXiv:2106.09685): the backbone's weights stay untouched."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.errors import InputError

TARGETS = ("attn.qkv", "attn.proj")


class LoraLinear(nn.Module):
    """A frozen linear layer plus a trainable low-rank product: y = W x + b + (alpha / rank) B A x."""

    def __init__(self, base: nn.Linear, *, rank: int, alpha: float) -> None:
        """Wrap `base`; the product starts at zero, so the output does not change at first."""
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Parameter(torch.empty(rank, base.in_features))
        self.up = nn.Parameter(torch.zeros(base.out_features, rank))
        self.scale = alpha / rank
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) to (..., out_features)."""
        y: Tensor = self.base(x) + (x @ self.down.T) @ self.up.T * self.scale
        return y

    def merged(self) -> nn.Linear:
        """One linear layer that computes the same."""
        with torch.no_grad():
            self.base.weight += self.scale * self.up @ self.down
        return self.base


def add_lora(module: nn.Module, *, rank: int = 8, alpha: float = 16.0, targets: Sequence[str] = TARGETS) -> int:
    """Freeze a module and put adapters on its linear layers whose names end with one of `targets`.

    Returns:
        How many layers got an adapter.

    Raises:
        InputError: no layer has such a name, or the rank is below 1.
    """
    if rank < 1:
        raise InputError(f"LoRA rank {rank}: wanted at least 1")
    module.requires_grad_(False)
    found = [n for n, m in module.named_modules() if isinstance(m, nn.Linear) and n.endswith(tuple(targets))]
    if not found:
        raise InputError(f"LoRA: no linear layer is named ...{', ...'.join(targets)}")
    for name in found:
        layer = module.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        _replace(module, name, LoraLinear(layer, rank=rank, alpha=alpha))
    return len(found)


def merge_lora(module: nn.Module) -> int:
    """Fold every adapter into its layer, in place; the outputs stay the same to rounding.

    Returns:
        How many adapters were folded.
    """
    found = [(name, m) for name, m in module.named_modules() if isinstance(m, LoraLinear)]
    for name, layer in found:
        _replace(module, name, layer.merged())
    return len(found)


def _replace(module: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(module.get_submodule(parent), child, layer)
