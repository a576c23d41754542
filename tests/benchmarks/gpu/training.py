"""Sections about training steps and Prithvi WxC."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from gpu.measuring import Bench, Facts, Rows, best_batch, flops_of, prepared, sizes_from, timed
from gpu.project import inputs_of, labels_of, network_of, stepper

SECTIONS = ("train", "wxc")


def train(bench: Bench) -> Rows:
    """Steps of training 300M in bf16: samples per second and memory, at the best of the batch sizes 8 to 64."""
    for mode in ("full", "lora", "frozen"):
        yield f"300M {mode}", partial(_trained, bench, mode)


def _trained(bench: Bench, mode: str) -> Facts:
    network = network_of(bench, "300M")
    flops = flops_of(partial(prepared(network, "f32"), inputs_of(bench, 1)))
    step = stepper(network, mode)

    def call_of(batch: int) -> Callable[[], Any]:
        inputs = inputs_of(bench, batch)
        labels = labels_of(inputs)
        return lambda: step(inputs, labels)

    batch = best_batch(bench, call_of, sizes_from(bench, 8, 64))
    bench.free()
    each = timed(bench, call_of(batch))
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad) / 1e6
    share = bench.share(3 * flops * batch, each) if mode == "full" else {}
    return {"samples_per_s": batch / each, "batch": batch, "trained_millions": trained} | bench.held() | share


def wxc(bench: Bench) -> Rows:
    """Prithvi WxC's encoder in bf16: a region and the globe of MERRA-2."""
    importlib.import_module("PrithviWxC")
    from models.backbones.prithvi_wxc import WxCEncoder
    from models.backbones.wxc_files import published_config

    size, grids = ("tiny", [(32, 32)]) if bench.small else ("2300m", [(60, 96), (360, 576)])
    built: list[Any] = []

    def build() -> Facts:
        begun = time.perf_counter()
        with torch.device("meta"):
            built.append(WxCEncoder(published_config(f"prithvi_wxc_{size}")).eval())
        for module in built[0].modules():
            for name, weight in module.named_parameters(recurse=False):
                values = torch.empty(weight.shape, dtype=torch.bfloat16, device=bench.device)
                is_norm = isinstance(module, torch.nn.LayerNorm)
                values = values.fill_(float(name == "weight")) if is_norm else values.normal_(std=0.02)
                setattr(module, name, torch.nn.Parameter(values, requires_grad=False))
        built[0].to(bench.device)
        bench.wait()
        count = sum(p.numel() for p in built[0].parameters())
        return {"millions": count / 1e6, "gib": 2 * count / 2**30, "seconds": time.perf_counter() - begun}

    def encode(height: int, width: int) -> Facts:
        batch = weather_of(bench, built[0], height, width)
        bench.free()
        with torch.inference_mode():
            each = timed(bench, lambda: built[0](batch))
            (features,) = built[0](batch)
            held = bench.held()
            share = bench.share(flops_of(lambda: built[0](batch)), each)
        return {"seconds": each, "finite": bool(features.isfinite().all())} | held | share

    yield f"{size} built", build
    for grid in grids:
        yield f"{size} {grid[0]} x {grid[1]}", partial(encode, *grid)


def weather_of(bench: Bench, encoder: Any, height: int, width: int) -> dict[str, Any]:
    """A batch of noise that an encoder takes, on the device."""
    channels, hours = len(encoder.inputs.channels), torch.full((1,), 6.0)
    static = torch.zeros(1, 2 + len(encoder.inputs.static_names) - channels, height, width)
    static[:, 0], static[:, 1] = torch.linspace(0.5, 1, height)[:, None], torch.linspace(-1, 0, width)
    batch = {"static": static, "input_time": hours, "lead_time": hours}
    batch |= {"x": torch.randn(1, 2, channels, height, width), "climate": torch.randn(1, channels, height, width)}
    return {key: value.to(bench.device) for key, value in batch.items()}
