"""Ratios of scoring: against the usual way and the model alone; memory; what kills cost. Prints; asserts no times.

Each side runs in a process of its own, so that peak memory (VmHWM) is its own; 100M means Prithvi EO 2.0 100M with
UperNet, 10 classes, random weights, on a scene of 4096 x 4096 pixels and six bands.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from pipelines.records.attempts import DIFFERS

ROOT = Path(__file__).resolve().parents[2]
BANDS = ("BLUE", "GREEN", "RED", "NIR_NARROW", "SWIR_1", "SWIR_2")
MEANS = np.array([1087, 1342, 1433, 2734, 1958, 1363.0])
SIDE = int(os.environ.get("EARTHTUNE_BENCH_SIDE", "4096"))
OVERLAP = 32  # terratorch's stride of 192


def write_scene(path: Path, height: int, width: int) -> Path:
    """Waves with noise around the means of the bands, in a tiled and compressed GeoTIFF."""
    rng = np.random.default_rng(0)
    profile = {"driver": "GTiff", "height": height, "width": width, "count": 6, "dtype": "int16", "nodata": -9999}
    profile |= {"crs": "EPSG:32632", "transform": from_origin(5e5, 5e6, 30, 30), "compress": "deflate", "predictor": 2}
    with rasterio.open(path, "w", tiled=True, blockxsize=512, blockysize=512, **profile) as file:
        file.descriptions = BANDS
        file.update_tags(ACQUISITION_DATE="2021-06-15")
        for row in range(0, height, 512):
            rows, cols = np.mgrid[row : min(row + 512, height), 0:width]
            wave = 0.25 * (np.sin(rows / 37) + np.cos(cols / 53)) * np.array([1, 1, 1, -1, -1, -1]).reshape(6, 1, 1)
            block = MEANS.reshape(6, 1, 1) * (1 + wave + rng.normal(0, 0.05, rows.shape))
            file.write(block.astype("int16"), window=((row, row + len(rows)), (0, width)))
    return path


def build_run(folder: Path, backbone: str) -> Path:
    """A run with random weights; how it bears rounding is measured as at the end of a training."""
    import torch

    from models.backbones import prithvi_eo
    from models.bundle import Bundle, write_bundle, write_weights
    from models.networks.network import Network
    from models.runtime.engines import load_runtime
    from models.runtime.export import export_onnx
    from models.runtime.rounding import rounding
    from models.spec import ClassDef, Classes, Pixels, Spec
    from models.training.settings import Architecture

    known = prithvi_eo.pretrained_statistics(backbone)
    mean, std = (tuple(known[band][i] for band in BANDS) for i in (0, 1))
    classes = tuple(ClassDef(10 * (i + 1), f"class {i}", f"#{i * 1677721:06x}") for i in range(10))
    pixels = Pixels(BANDS, mean, std, uses_time=True, uses_location=True)
    spec = Spec("segmentation", {"imagery": pixels}, {"class": Classes(classes)})
    architecture = Architecture(detail=0)
    torch.manual_seed(0)
    network = Network(spec, backbone, architecture).eval()
    folder.mkdir()
    write_weights(folder, network, whole=True)
    export_onnx(network, folder / "model.onnx")
    bundle = Bundle(spec, backbone, architecture)
    write_bundle(folder, bundle)
    exact = load_runtime(folder, runtime="openvino", precision="f32")
    rng = np.random.default_rng(1)
    shape = MEANS.reshape(1, 6, 1, 1, 1)
    wave = np.sin(np.arange(224).reshape(224, 1) / 37) + np.cos(np.arange(224) / 53)
    x = shape * (1 + 0.25 * wave + rng.normal(0, 0.05, (4, 6, 1, 224, 224)))
    time_, place = np.full((4, 1, 2), (2021, 165), "float32"), np.full((4, 2), (45, 9), "float32")
    inputs = {"imagery": x.astype("float32"), "time": time_, "location": place}
    known = rounding(folder, spec.answer, inputs, exact=exact)
    write_bundle(folder, dataclasses.replace(bundle, rounding=known))
    return folder


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("scoring")


@pytest.fixture(scope="session")
def scene(place):
    return write_scene(place / "scene.tif", SIDE, SIDE)


@pytest.fixture(scope="session")
def runs(place):
    return {name: build_run(place / name, f"prithvi_eo_v2_{name}_tl") for name in ("100", "tiny")}


MEASURED = """
def told(**facts):
    import json
    peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
    print(json.dumps(facts | {"peak": peak * 1024}))
"""

OURS = """
import sys, time
begun = time.perf_counter()
from pathlib import Path
from pipelines.commands.score import score
run, scene, out, overlap, *small = sys.argv[1:]
if small:  # the model is loaded before the clock starts, as it is on the other side
    score(Path(run), small, out=Path(out) / "small", overlap=int(overlap))
    begun = time.perf_counter()
(result,) = score(Path(run), [scene], out=Path(out), overlap=int(overlap))
assert result["status"] == "done", result
told(seconds=time.perf_counter() - begun)
"""

THEIRS = """
import sys, time, warnings
warnings.filterwarnings("ignore")
import rioxarray, torch, rasterio
from terratorch.models import EncoderDecoderFactory
from terratorch.tasks.tiled_inference import tiled_inference
backbone, scene, out = sys.argv[1:]
model = EncoderDecoderFactory().build_model(
    task="segmentation", backbone=backbone, backbone_pretrained=False, decoder="UperNetDecoder", decoder_channels=128,
    num_classes=10, rescale=True,
    necks=[{"name": "SelectIndices", "indices": [2, 5, 8, 11]}, {"name": "ReshapeTokensToImage"},
           {"name": "LearnedInterpolateToPyramidal"}],
).eval()
mean = torch.tensor([1087.0, 1342, 1433, 2734, 1958, 1363]).reshape(1, 6, 1, 1)
std = torch.tensor([2248.0, 2179, 2178, 1850, 1242, 1049]).reshape(1, 6, 1, 1)
begun = time.perf_counter()  # imports and building are not counted on this side
x = torch.from_numpy(rioxarray.open_rasterio(scene, masked=True).values).float()[None]
x = (x - mean) / std
with torch.no_grad():
    y = tiled_inference(lambda tile, **_: model(tile).output, x, 10, h_crop=224, w_crop=224, h_stride=192, w_stride=192)
codes = y.argmax(1)[0].numpy().astype("int16")
with rasterio.open(scene) as given:
    profile = given.meta | {"count": 1, "dtype": "int16", "nodata": -1, "compress": "lzw"}
with rasterio.open(out, "w", **profile) as file:
    file.write(codes, 1)
told(seconds=time.perf_counter() - begun)
"""

RAW = """
import sys, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import numpy as np
from models.runtime.engines import load_runtimes
run, count = Path(sys.argv[1]), int(sys.argv[2])
runtime = load_runtimes([run])
rng = np.random.default_rng(0)
tiles = [rng.normal(1600, 500, (1, 6, 1, 224, 224)).astype("float32") for _ in range(8)]
time_, place = np.array([[[2021, 165]]], "float32"), np.array([[45, 9]], "float32")
def one(i): runtime.run({"imagery": tiles[i % 8], "time": time_, "location": place})
with ThreadPoolExecutor(runtime.lanes) as pool:
    list(pool.map(one, range(8)))
    begun = time.perf_counter()
    list(pool.map(one, range(count)))
told(seconds=time.perf_counter() - begun)
"""


def measured(script: str, *arguments: object) -> dict[str, float]:
    """Seconds and peak bytes that a script tells."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURED + script, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", ["100", "tiny"])
def test_against_the_usual_way(runs, scene, place, name):
    ours = measured(OURS, runs[name], scene, place / f"ours-{name}", OVERLAP)
    theirs = measured(THEIRS, f"prithvi_eo_v2_{name}_tl", scene, place / f"theirs-{name}.tif")
    print(
        f"\n{name}: terratorch / earthtune, {SIDE} x {SIDE}: time {theirs['seconds'] / ours['seconds']:.2f} "
        f"({theirs['seconds']:.1f} s, {ours['seconds']:.1f} s), peak memory {theirs['peak'] / ours['peak']:.2f} "
        f"({theirs['peak'] / 2**20:.0f} MiB, {ours['peak'] / 2**20:.0f} MiB)"
    )


@pytest.mark.parametrize("name", ["100", "tiny"])
def test_throughput_beside_the_model_alone(runs, scene, place, name):
    from pipelines.grids.windows import Tiles

    count, small = len(Tiles((SIDE, SIDE), 224, OVERLAP)), write_scene(place / f"small-{name}.tif", 224, 224)
    for what, warm in (("with the start of the process and loading", []), ("with the model loaded", [small])):
        ratios = []
        for i in range(3):
            whole = measured(OURS, runs[name], scene, place / f"whole-{name}-{i}-{len(warm)}", OVERLAP, *warm)
            raw = measured(RAW, runs[name], count)
            ratios.append(raw["seconds"] / whole["seconds"])
        print(
            f"\n{name}: scoring / model alone on tiles in memory, {count} tiles, {what}: "
            f"{statistics.median(ratios):.3f} ({', '.join(f'{r:.3f}' for r in ratios)})"
        )


def test_memory_by_height(runs, place):
    peaks = {}
    for height in (SIDE, 2 * SIDE, 4 * SIDE):
        path = write_scene(place / f"tall-{height}.tif", height, SIDE)
        peaks[height] = measured(OURS, runs["tiny"], path, place / f"tall-{height}", 0)["peak"]
        path.unlink()
    words = ", ".join(f"{height}: {peak / 2**20:.0f} MiB" for height, peak in peaks.items())
    spread = max(peaks.values()) / min(peaks.values())
    print(f"\npeak memory by height, {SIDE} wide, tiny: {words} (most / least {spread:.3f})")


def test_small_jobs(runs, place):
    path = write_scene(place / "small.tif", 224, 224)
    command = [str(Path(sys.executable).parent / "earthtune")]
    for words, arguments in (
        (
            "score one 224 x 224 scene, tiny",
            ["score", str(runs["tiny"]), str(path), "--overwrite", "--out", str(place / "s")],
        ),
        ("--help", ["--help"]),
    ):
        seconds = []
        for _ in range(5):
            begun = time.perf_counter()
            subprocess.run(command + arguments, check=True, capture_output=True)
            seconds.append(time.perf_counter() - begun)
        print(f"\n{words}: median {statistics.median(seconds):.2f} s ({min(seconds):.2f} to {max(seconds):.2f})")


def test_thirty_kills(runs, place):
    path = write_scene(place / "killed.tif", 1500, 700)
    command = [str(Path(sys.executable).parent / "earthtune"), "score", str(runs["tiny"]), str(path), "--out"]

    def files(folder):
        return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.name not in DIFFERS}

    begun = time.perf_counter()
    subprocess.run([*command, str(place / "whole")], check=True, capture_output=True)
    took, rng, same = time.perf_counter() - begun, random.Random(0), 0
    for i in range(30):
        out = place / f"killed-{i}"
        process = subprocess.Popen([*command, str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(rng.uniform(0.1, took))
        process.send_signal(signal.SIGKILL)
        process.wait()
        subprocess.run([*command, str(out)], check=True, capture_output=True)
        same += files(out) == files(place / "whole")
    print(f"\nkilled at 30 random moments and called again: {same} of 30 give the same files")
