"""Run bundles: OpenVINO on CPU, torch on CUDA; one function of tiles. Neither imports the other's library."""

from __future__ import annotations

import contextlib
import functools
import os
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.bundle import FILES, Bundle, check_file, load_network, read_bundle
from models.errors import InputError, RunError
from models.runtime.compiled import Parts, compiled
from models.spec import WEATHER
from models.types import Array, Inputs, Predict

RUNTIMES = ("auto", "openvino", "torch")
PRECISIONS = ("auto", "f32", "bf16", "i8", "int8")
CUDA_BATCH = 64  # docs/gpu.md: one H100 gains little beyond


@dataclass(frozen=True)
class Runtime:
    """Bundles as one function of tiles.

    A tile's answer does not depend on how many lanes there are, nor, with `batch` 1, on the tiles beside it.

    Attributes:
        run: takes the inputs of the Spec by name, such as `imagery` (B, C, T, H, W) in its unit, float32; gives the
            answer of each bundle: (B, K, H, W), or (B, K) for classes of tiles, float32. May be called from several
            threads.
        lanes: how many calls at once keep the device busy.
        batch: tiles that a call should hold.
        name: library, device and precision.
    """

    run: Callable[[Inputs], list[Array]]
    lanes: int
    batch: int
    name: str


def load_runtime(
    folder: Path, *, runtime: str = "auto", precision: str = "auto", weights: Path | None = None
) -> Predict:
    """Load a bundle as a function of tiles: what `Runtime.run` gives for it. Arguments as of `load_runtimes`."""
    loaded = load_runtimes([folder], runtime=runtime, precision=precision, weights=weights)
    return lambda inputs: loaded.run(inputs)[0]


def load_runtimes(
    folders: Sequence[Path],
    *,
    runtime: str = "auto",
    precision: str = "auto",
    weights: Path | None = None,
    threads: int | None = None,
    keep: bool = False,
) -> Runtime:
    """Load bundles of the same inputs; a frozen base that they share runs once for each tile.

    Args:
        folders: the runs.
        runtime: "openvino" runs model.onnx on the CPU; "torch" runs model.safetensors on CUDA where there is one, else
            on the CPU; "auto" takes torch where there is an NVIDIA device, else OpenVINO.
        precision: "f32"; "bf16"; "i8" for 8-bit products in large linear layers and the rest in the best of these
            two, OpenVINO only; "int8" for the bytes of model.int8.onnx, which `earthtune int8` makes, OpenVINO only;
            "auto" takes i8, and never int8, where the processor multiplies bytes faster than anything else and all
            bundles are known to answer alike in it (`Bundle.rounding`), else bf16 where the device computes in it.
            Coordinates and statistics of neighbourhoods are float32 in any case; over weather OpenVINO computes in
            f32 only, as bfloat16 knows 290 K to a kelvin.
        weights: the base file, for "torch" and a bundle that stores the head only.
        threads: threads on the CPU; as many as it has cores when None.
        keep: keep what OpenVINO compiled in the user's cache, for the next process.

    Raises:
        InputError: not a run, no such runtime or precision, or a file of the bundle is missing.
        RunError: model.onnx cannot be compiled.
    """
    for what, value, known in (("runtime", runtime, RUNTIMES), ("precision", precision, PRECISIONS)):
        if value not in known:
            raise InputError(f"{what} {value!r}: wanted one of {', '.join(known)}")
    bundles = [read_bundle(folder) for folder in folders]
    if runtime == "auto" and any(b.spec.over_weather or b.spec.over_tables or not b.graph for b in bundles):
        # Any grid, where model.onnx has that of the training; many rows of a table at once; adapters without a graph.
        runtime = "torch"
    # torch needs the base of a bundle that stores its head only
    ready = all(bundle.whole for bundle in bundles) or weights is not None
    if runtime == "torch" or (runtime == "auto" and ready and Path("/proc/driver/nvidia/version").exists() and _cuda()):
        return _torch(folders, bundles, weights, precision=precision, threads=threads)
    return _openvino(folders, bundles, precision=precision, threads=threads or cores(), keep=keep)


def cores() -> int:
    """Processors that this process may use: of the machine, or of its container where that is given less."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return max(min(count, int(quota) // int(period)), 1)
    except (OSError, ValueError):  # no such file, or "max"
        return count


def multiplies_bytes() -> bool:
    """Whether this processor has dot products of bytes, and no matrix unit (AMX) that makes bf16 faster than these."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("flags")[2].partition("\n")[0].split())
    except OSError:  # not Linux
        return False
    return bool(flags & {"avx512_vnni", "avx_vnni"}) and "amx_tile" not in flags


def _cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def _openvino(
    folders: Sequence[Path], bundles: Sequence[Bundle], *, precision: str, threads: int, keep: bool
) -> Runtime:
    """Compile model.onnx for single tiles, one thread each: what gets most tiles through a CPU."""
    cells = bundles[0].spec.over_weather
    exact = cells or bundles[0].spec.over_tables  # trees compare numbers
    if exact and precision not in ("auto", "f32"):
        raise InputError(f"precision {precision}: OpenVINO runs this in f32 only; leave it out, or --runtime torch")
    field = "int8" if precision == "int8" else "graph"
    files, hashes = [folder / FILES[field] for folder in folders], [str(getattr(one, field)) for one in bundles]
    for file, known in zip(files, hashes, strict=True):
        if field == "int8" and not known:
            raise InputError(f"{file.parent}: has no model in bytes; `earthtune int8 {file.parent}` makes one")
        if not file.is_file():
            raise InputError(f"{file}: missing; use --runtime torch, or copy the whole run folder again")
    for file, known in zip(files, hashes, strict=True):
        check_file(file, known)
    if precision == "i8" and not multiplies_bytes():
        raise InputError("precision i8: this processor has no dot products of bytes that are worth it; use auto")
    if precision == "auto" and multiplies_bytes() and all(bundle.bears("i8") for bundle in bundles):
        precision = "i8"
    precision = "f32" if exact else precision
    asked = {"precision": precision, "threads": str(threads)}
    try:
        prepare = functools.partial(_prepared, files, precision=precision, threads=threads)
        parts, name = compiled(hashes, asked, prepare, keep=keep)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise RunError(f"{', '.join(map(str, files))}: OpenVINO cannot compile it ({reason})") from error
    lanes: queue.SimpleQueue[_Lane] = queue.SimpleQueue()
    for _ in range(threads):
        lanes.put(_Lane(parts))

    def one(inputs: Inputs) -> list[Array]:
        lane = lanes.get()
        try:
            return lane(inputs)
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"{files[0]}: does not fit its bundle.json; copy the whole run folder again") from error
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise RunError(f"{files[0]}: OpenVINO failed on a tile ({reason}); is there memory left?") from error
        finally:
            lanes.put(lane)

    shapes = {_name(port): tuple(port.shape) for part in parts for port in part.inputs}

    def run(inputs: Inputs) -> list[Array]:
        if cells:
            _check_grid(files[0], shapes[WEATHER][-2:], inputs[WEATHER].shape[-2:])
        count = len(next(iter(inputs.values())))
        if count == 1:
            return one(inputs)
        tiles = [{name: a[i : i + 1] for name, a in inputs.items()} for i in range(count)]
        with ThreadPoolExecutor(threads) as pool:
            answers = list(pool.map(one, tiles))
        return [np.concatenate(parts) for parts in zip(*answers, strict=True)]

    return Runtime(run, threads, 1, f"OpenVINO CPU {name}")


def _check_grid(file: Path, wanted: Sequence[int], came: Sequence[int]) -> None:
    """Refuse fields of other rows and columns than those of the training."""
    if tuple(came) != tuple(wanted):
        told = [f"{rows} x {columns}" for rows, columns in (wanted, came)]
        raise InputError(
            f"{file}: wanted {told[0]} cells as in training, came {told[1]}; --runtime torch takes any grid"
        )


def _prepared(files: Sequence[Path], *, precision: str, threads: int) -> tuple[Parts, str]:
    """The exact part of some graphs if there is one, and the rest, with options; the rest's precision."""
    import openvino

    from models.runtime import graphs

    floating = "bf16" if "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "f32"
    precision = floating if precision == "auto" else precision
    model = graphs.read(files, fold=precision != "int8")
    exact, rest = (None, model) if precision in ("f32", "int8") else graphs.split(model, half=floating == "bf16")
    if precision == "i8" and not graphs.quantise(rest):
        precision = floating  # no layer is large enough
    if precision == "int8" or (precision != "f32" and floating == "bf16"):
        graphs.lighten(rest)
    options = {"NUM_STREAMS": str(threads), "INFERENCE_NUM_THREADS": str(threads)}
    # What int8 leaves in floats stays float32: bfloat16 would want it cut in two, which costs more than it gains.
    kind = {"INFERENCE_PRECISION_HINT": {"i8": floating, "int8": "f32"}.get(precision, precision)}
    groups = {"DYNAMIC_QUANTIZATION_GROUP_SIZE": str(graphs.GROUP)} if precision == "i8" else {}
    parts = [(exact, options | {"INFERENCE_PRECISION_HINT": "f32"})] if exact else []
    return [*parts, (rest, options | kind | groups)], precision


def _name(port: Any) -> str:
    """What an input is called; a tensor may bear names of others, too, which were the same as it."""
    return str(port.get_node().get_friendly_name())


class _Lane:
    """A request to each part of a compiled model; the exact part's answers are the rest's first inputs.

    Its tensors are made here, by the thread that loads the model: OpenVINO's conversion of arrays deadlocks when two
    threads are the first to use it.
    """

    def __init__(self, parts: Sequence[Any]) -> None:
        self.requests = [part.create_infer_request() for part in parts]
        rest = parts[-1]
        handed = [self.requests[0].get_output_tensor(i) for i in range(len(parts[0].outputs))] if len(parts) > 1 else []
        self.given: list[tuple[str, Array]] = []
        for part, request in zip(parts, self.requests, strict=True):
            for i, port in enumerate(part.inputs):
                if part is rest and i < len(handed):
                    request.set_input_tensor(i, handed[i])  # shared, not copied
                else:
                    self.given.append((_name(port), request.get_input_tensor(i).data))
        self.answers: list[Array] = [self.requests[-1].get_output_tensor(i).data for i in range(len(rest.outputs))]

    def __call__(self, given: Inputs) -> list[Array]:
        for name, buffer in self.given:
            array = given[name]
            if array.shape != buffer.shape:
                raise ValueError(f"{name}: wanted {buffer.shape}")
            buffer[...] = array
        for request in self.requests:
            request.infer(share_outputs=True)
        return [answer.copy() for answer in self.answers]


def _torch(
    folders: Sequence[Path], bundles: Sequence[Bundle], weights: Path | None, *, precision: str, threads: int | None
) -> Runtime:
    """Run model.safetensors; on CUDA in batches, and in two lanes so that copies overlap with work."""
    import torch

    from models.networks.network import Network

    if precision in ("i8", "int8"):
        raise InputError(f"precision {precision}: OpenVINO only; give --runtime openvino")
    cuda = torch.cuda.is_available()
    if threads:
        torch.set_num_threads(threads)
    device = torch.device("cuda" if cuda else "cpu")
    half = precision == "bf16" or (precision == "auto" and cuda and torch.cuda.is_bf16_supported())
    half = half and not bundles[0].spec.over_tables
    networks = [load_network(folder, weights=weights).to(device) for folder in folders]
    for network in networks:
        for module in network.modules() if isinstance(network, Network) else ():
            if isinstance(module, torch.nn.Conv2d):
                module.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # torch has no overload for it

    served = _served(networks, bundles)
    own = threading.local()  # a stream for each lane

    def moved(array: Array) -> torch.Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        return tensor.pin_memory().to(device, non_blocking=True) if cuda else tensor

    def back(answers: Sequence[torch.Tensor]) -> list[Array]:
        if not cuda:
            return [answer.numpy() for answer in answers]
        # Pinned memory, which torch keeps for the next batch: copies into fresh pages take longer than the network.
        pinned = [torch.empty(answer.shape, dtype=answer.dtype, pin_memory=True) for answer in answers]
        for here, answer in zip(pinned, answers, strict=True):
            here.copy_(answer, non_blocking=True)
        own.stream.synchronize()
        return [here.numpy() for here in pinned]

    def run(inputs: Inputs) -> list[Array]:
        if cuda and not hasattr(own, "stream"):
            own.stream = torch.cuda.Stream()  # type: ignore[no-untyped-call] # torch leaves it untyped
        stream = torch.cuda.stream(own.stream) if cuda else contextlib.nullcontext()
        with stream, torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=half):
            tensors = {name: moved(array) for name, array in inputs.items()}
            bases: dict[int, list[torch.Tensor]] = {}
            answers = []
            for network, first in zip(networks, served, strict=True):
                if not isinstance(network, Network):
                    answers.append(network.predict(tensors))
                    continue
                if first not in bases:
                    bases[first] = network.features(tensors)
                answers.append(network.finish(network(tensors, features=bases[first])))
            return back(answers)

    return Runtime(run, 2 if cuda else 1, CUDA_BATCH if cuda else 1, f"torch {device.type} {'bf16' if half else 'f32'}")


def _served(networks: Sequence[Any], bundles: Sequence[Bundle]) -> list[int]:
    """For each network, the number of the first one whose backbone says the same of a tile."""
    pairs = [*zip(networks, bundles, strict=True)]
    return [next(j for j, other in enumerate(pairs) if _alike(pair, other)) for pair in pairs]


def _alike(one: tuple[Any, Bundle], other: tuple[Any, Bundle]) -> bool:
    """Whether the backbones of two networks are built alike, hold the same to the bit, and hear the same."""
    from torch import equal

    if one[0] is other[0]:
        return True
    built = [
        (of.backbone, of.spec.imagery, network.backbone.blocks, getattr(of.architecture, "overrides", {}))
        for network, of in (one, other)
    ]
    mine, theirs = (network.backbone.state_dict() for network, _ in (one, other))
    same = built[0] == built[1] and mine.keys() == theirs.keys()
    return same and all(equal(mine[key], theirs[key]) for key in mine)
