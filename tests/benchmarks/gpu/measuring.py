"""Time, operations, energy and limits of memory on one device."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

Facts = dict[str, Any]
Inputs = Mapping[str, Any]  # a batch by name, as networks and runtimes take it
Rows = Iterator[tuple[str, Callable[[], Facts]]]


@dataclass
class Bench:
    """What sections share: the device, sizes, and what earlier sections found out."""

    device: Any
    small: bool
    seconds: float
    folder: Path
    alone: bool = False  # terratorch's networks are imported alone
    peak: float = 0.0  # FLOP/s of a large bf16 product
    meter: Any = None  # joules so far, where the device tells
    batch: dict[str, int] = field(default_factory=dict)  # by network, the best in bf16
    rate: dict[str, float] = field(default_factory=dict)  # by network, the most tiles per second

    @classmethod
    def on(cls, cpu: bool, **given: Any) -> Bench:
        """A bench on the GPU where there is one, and none was refused."""
        return cls(torch.device("cuda" if torch.cuda.is_available() and not cpu else "cpu"), **given)

    @property
    def tile(self) -> int:
        """Side of a tile."""
        return 64 if self.small else 224

    def wait(self) -> None:
        """Until the device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def free(self) -> None:
        """Give cached memory back and forget the peak."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def held(self) -> Facts:
        """The peak of memory since `free`; nothing where the device does not tell."""
        return {"peak_gib": torch.cuda.max_memory_allocated() / 2**30} if self.device.type == "cuda" else {}

    def share(self, flops: float, seconds: float) -> Facts:
        """TFLOP/s, and their share of the peak where it is known."""
        told = {"tflops": flops / seconds / 1e12}
        return told | ({"of_peak": flops / seconds / self.peak} if self.peak else {})


def timed(bench: Bench, call: Callable[[], Any], seconds: float | None = None) -> float:
    """Seconds of a call, the mean of as many as fit into the time, after two that do not count."""
    for _ in range(2):
        call()
        bench.wait()
    begun = time.perf_counter()
    call()
    bench.wait()
    count = max(int((seconds or bench.seconds) / (time.perf_counter() - begun)), 1)
    begun = time.perf_counter()
    for _ in range(count):
        call()
    bench.wait()
    return (time.perf_counter() - begun) / count


def best_batch(bench: Bench, call_of: Callable[[int], Callable[[], Any]], sizes: Sequence[int]) -> int:
    """The batch size, out of sizes that double, after which it gets no faster or memory is out."""
    best, most = 0, 0.0
    for batch in sizes:
        try:
            rate = batch / timed(bench, call_of(batch), bench.seconds / 4)
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
            break
        if rate < 1.02 * most:
            break
        best, most = batch, rate
    if not best:
        raise MemoryError(f"a batch of {sizes[0]} does not fit")
    return best


def sizes_from(bench: Bench, first: int, last: int) -> list[int]:
    """first, 2 * first, ... last; two small ones with --small."""
    return [2, 4] if bench.small else [first * 2**i for i in range((last // first).bit_length())]


def flops_of(call: Callable[[], Any]) -> float:
    """Floating point operations of a call, a multiplication and its addition counted as two."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # products are counted on any device
        call()
    return float(counter.get_total_flops())


def prepared(network: Any, words: str) -> Callable[..., Any]:
    """`Network.predict` of a copy of a network, run as the words say (see networks.FASTEST)."""
    network, asked = copy.deepcopy(network), words.split()
    kind = next(network.parameters()).device.type
    if "channels_last" in asked:
        for module in network.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.to(memory_format=torch.channels_last)
    blocks = network.backbone.vit.blocks
    if "compile" in asked:
        torch._dynamo.reset()
        network.head.compile()
        for block in blocks:  # one graph serves all blocks
            block.compile()
    if "half" in asked:
        blocks.to(torch.bfloat16)
        for i, block in enumerate(blocks):
            blocks[i] = Half(block)

    def predict(inputs: Inputs) -> Any:
        with torch.inference_mode(), torch.autocast(kind, torch.bfloat16, enabled="bf16" in asked):
            return network.predict(inputs)

    return predict


class Half(torch.nn.Module):
    """A block of bf16 weights that computes in bf16 throughout, whatever autocast says."""

    def __init__(self, block: torch.nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: torch.Tensor) -> Any:
        """Tokens (B, N, E) of any kind to bf16."""
        with torch.autocast(x.device.type, enabled=False):
            return self.block(x.to(torch.bfloat16))


def joules_by_nvml() -> Callable[[], float]:
    """A function that tells the joules that GPU 0 has taken: by its counter, else by its power, sampled."""
    import pynvml

    pynvml.nvmlInit()
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    try:
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        return lambda: float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1e3
    except pynvml.NVMLError:
        total = [0.0]

        def sample() -> None:
            before = time.perf_counter()
            while True:
                time.sleep(0.02)
                now = time.perf_counter()
                total[0] += pynvml.nvmlDeviceGetPowerUsage(handle) / 1e3 * (now - before)
                before = now

        threading.Thread(target=sample, daemon=True).start()
        return lambda: total[0]


def with_energy(bench: Bench, call: Callable[[], Any], batch: int) -> Facts:
    """Tiles per second and, where the device tells, watts and joules per tile, over twice the usual time."""
    begun, before = time.perf_counter(), bench.meter() if bench.meter else 0.0
    each = timed(bench, call, 2 * bench.seconds)
    told: Facts = {"tiles_per_s": batch / each, "batch": batch}
    if bench.meter and bench.seconds >= 0.5:  # the counter moves some ten times a second
        watts = (bench.meter() - before) / (time.perf_counter() - begun)
        told |= {"watts": watts, "joules_per_tile": watts * each / batch}
    return told
