"""Sections about the card and the networks alone: parity, and tiles per second with tiles on the device."""

from __future__ import annotations

import contextlib
import copy
import importlib
import importlib.metadata
import platform
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gpu.measuring import (
    Bench,
    Facts,
    Inputs,
    Rows,
    best_batch,
    flops_of,
    joules_by_nvml,
    prepared,
    sizes_from,
    timed,
    with_energy,
)
from gpu.project import import_all, inputs_of, labels_of, network_of, on_host, openvino_of, run_of, stand_in, stepper

# Ways to run a network, in words: bf16 is autocast, channels_last turns its Conv2d, half computes all of its blocks
# (residuals and norms too) in bf16, compile compiles blocks and head.
FASTEST = "bf16 channels_last half compile"
PARITY = {
    "tiny": ("f32", "bf16", "bf16 channels_last", "bf16 half", "f32 compile", "bf16 compile"),
    "100M": ("f32", "bf16", "bf16 channels_last", "bf16 half", FASTEST),
}
FORWARD = {
    "300M": ("f32", "bf16", "bf16 channels_last", "bf16 compile", FASTEST),
    "100M": ("f32", "bf16", "bf16 channels_last", "bf16 compile"),
    "tiny": ("f32", "bf16", "bf16 compile"),
    "300M detail 16": ("bf16 channels_last",),
}

SECTIONS = ("device", "forward", "parity")


def device(bench: Bench) -> Rows:
    """The card, its idle power, its peak in bf16, copies to and from it."""
    yield from ((name, partial(row, bench)) for name, row in DEVICE.items())


def _card(bench: Bench) -> Facts:
    known = {"torch": torch.__version__, "python": platform.python_version(), "cpu_threads": torch.get_num_threads()}
    if bench.device.type != "cuda":
        return {"name": platform.processor() or platform.machine()} | known
    facts = torch.cuda.get_device_properties(0)
    return {"name": facts.name, "memory_gib": facts.total_memory / 2**30, "cuda": torch.version.cuda} | known


def _packages(bench: Bench) -> Facts:
    begun = time.perf_counter()
    if bench.alone:
        stand_in()
    import_all()
    told: Facts = {"import_s": time.perf_counter() - begun}
    for name in ("terratorch", "segmentation_models_pytorch", "timm", "numpy", "triton", "rasterio", "PrithviWxC"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            told[name] = importlib.metadata.version(name)
    return told


def _idle(bench: Bench) -> Facts:
    bench.meter = joules_by_nvml()
    bench.wait()
    before, begun = bench.meter(), time.perf_counter()
    time.sleep(bench.seconds)
    return {"watts": (bench.meter() - before) / (time.perf_counter() - begun)}


def _peak(bench: Bench) -> Facts:
    side = 256 if bench.small else 8192
    a, b = (torch.randn(side, side, device=bench.device, dtype=torch.bfloat16) for _ in range(2))
    bench.peak = 2 * side**3 / timed(bench, lambda: a @ b)
    return {"side": side, "tflops": bench.peak / 1e12}


def _copies(bench: Bench) -> Facts:
    host = torch.zeros((2 if bench.small else 256) * 2**20, dtype=torch.uint8)
    far, pinned = host.to(bench.device, copy=True), host.pin_memory() if bench.device.type == "cuda" else host
    rates = {
        "pinned_to_device": lambda: far.copy_(pinned),
        "pageable_to_device": lambda: far.copy_(host),
        "to_pinned": lambda: pinned.copy_(far),
        "to_pageable": lambda: host.copy_(far),
    }
    return {f"{key}_gb_s": len(host) / timed(bench, call, bench.seconds / 4) / 1e9 for key, call in rates.items()}


DEVICE = {"packages": _packages, "card": _card, "idle": _idle, "bf16 product": _peak, "copies": _copies}


def parity(bench: Bench) -> Rows:
    """Answers beside those of the CPU in float32, of networks that a few steps of training have made decided."""
    for name, tile, batch in (("tiny", 64, 16), ("100M", bench.tile, 4)):
        network, inputs = network_of(bench, name, tile=tile), inputs_of(bench, batch, tile=tile)
        wanted: list[Tensor] = []
        yield f"{name} settled", partial(_settled, bench, network, inputs, wanted)
        for words in PARITY[name]:
            yield f"{name} {words}", partial(_like, network, inputs, wanted, words)
        for precision in ("f32", "bf16"):
            run = partial(run_of, bench, f"{name} settled", network)
            yield f"{name} openvino {precision}", partial(_openvino, run, network, inputs, wanted, precision)


def _settled(bench: Bench, network: Any, inputs: Inputs, wanted: list[Tensor]) -> Facts:
    """Train a little, and put the CPU's answer into `wanted`."""
    step, labels = stepper(network, "full"), labels_of(inputs)
    losses = [float(step(inputs, labels).detach()) for _ in range(3 if bench.small else 40)]
    network.eval()
    with torch.inference_mode():
        wanted.append(copy.deepcopy(network).cpu().predict(on_host(inputs)))
    return {"first_loss": losses[0], "last_loss": losses[-1], "confidence": float(wanted[0].amax(1).mean())}


def _like(network: Any, inputs: Inputs, wanted: list[Tensor], words: str) -> Facts:
    return compared(prepared(network, words)(inputs), wanted[0])


def _openvino(run: Callable[[], Path], network: Any, inputs: Inputs, wanted: list[Tensor], precision: str) -> Facts:
    importlib.import_module("openvino")
    runtime = openvino_of(run(), network, precision)
    (came,) = runtime.run({name: a.numpy() for name, a in on_host(inputs).items()})
    return compared(torch.from_numpy(came), wanted[0]) | {"runtime": runtime.name}


def compared(came: Tensor, wanted: Tensor) -> Facts:
    """Share of pixels of the same class, and the largest difference of a probability."""
    came = came.float().cpu()
    same = (came.argmax(1) == wanted.argmax(1)).float().mean()
    return {"equal": float(same), "max_difference": float((came - wanted).abs().max())}


def forward(bench: Bench) -> Rows:
    """Tiles per second of `Network.predict` with tiles on the device, at the best batch size; energy."""
    for name, ways in FORWARD.items():
        network = network_of(bench, name)
        flops = flops_of(partial(prepared(network, "f32"), inputs_of(bench, 1)))
        for words in ways:
            yield f"{name} {words}", partial(_forward, bench, name, network, words, flops)


def _forward(bench: Bench, name: str, network: Any, words: str, flops: float) -> Facts:
    predict = prepared(network, words)

    def call_of(batch: int) -> Callable[[], Any]:
        return partial(predict, inputs_of(bench, batch))

    if "compile" in words:
        batch = bench.batch.get(name, 2 if bench.small else 64)
    else:
        batch = best_batch(bench, call_of, sizes_from(bench, 8, 128 if "f32" in words else 512))
    begun, call = time.perf_counter(), call_of(batch)
    call()
    told = {"compile_s": time.perf_counter() - begun} if "compile" in words else {}
    told = with_energy(bench, call, batch) | told
    if "bf16" in words:
        bench.batch[name] = batch
        bench.rate[name] = max(bench.rate.get(name, 0.0), told["tiles_per_s"])
    return told | bench.share(flops * batch, batch / told["tiles_per_s"]) | {"gflop_per_tile": flops / 1e9}
