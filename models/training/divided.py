"""A training whose weights, gradients and optimiser are divided among the devices, with checkpoints as any other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.optim import Optimizer


class Divided(ModelParallelStrategy):
    """Lightning's strategy of torch's `fully_shard`; a checkpoint is whole, and another strategy goes on from it.

    Lightning numbers the parameters of an optimiser as the network lists them. An optimiser, and so the checkpoint of
    one process, numbers those that it trains, group by group.
    """

    def __init__(self, world: int) -> None:
        """Args: world: how many processes there are."""
        super().__init__(world, tensor_parallel_size=1, save_distributed_checkpoint=False)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """What a plain optimiser's `state_dict` is, in the first process; of all processes' parts."""
        optimizer = getattr(optimizer, "_optimizer", optimizer)  # Lightning's wrapper
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        named = get_optimizer_state_dict(self._whole, optimizer, options=options)
        return _renamed(named, {name: i for i, name in enumerate(_names(named))}) if self.is_global_zero else {}

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Take a whole checkpoint's weights and optimiser; each process keeps its part."""
        checkpoint: dict[str, Any] = torch.load(
            Path(self.broadcast(checkpoint_path)), mmap=True, map_location="cpu", weights_only=True
        )
        options, network = StateDictOptions(full_state_dict=True), self._whole
        set_model_state_dict(network, checkpoint["state_dict"], options=options)
        names = {parameter: name for name, parameter in network.named_parameters()}
        for optimizer, numbered in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            trained = (names[parameter] for group in optimizer.param_groups for parameter in group["params"])
            set_optimizer_state_dict(network, optimizer, _renamed(numbered, dict(enumerate(trained))), options=options)
        return checkpoint

    @property
    def _whole(self) -> torch.nn.Module:
        assert self.model is not None  # Lightning sets it before it asks
        return self.model


def _names(state: Mapping[str, Any]) -> Iterator[Any]:
    """The parameters of an optimiser's state, group by group."""
    return (name for group in state["param_groups"] for name in group["params"])


def _renamed(state: Mapping[str, Any], names: Mapping[Any, Any]) -> dict[str, Any]:
    """An optimiser's state with other names for its parameters."""
    groups = [group | {"params": [names[name] for name in group["params"]]} for group in state["param_groups"]]
    return {"state": {names[name]: value for name, value in state["state"].items()}, "param_groups": groups}
