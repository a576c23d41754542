"""What one NVIDIA GPU makes of the project: tiles per second, training steps, Prithvi WxC, parity, energy.

    python tests/benchmarks/device.py --out device.json

A script of a few minutes that needs the checkout and the packages that `--list` names, and no network: all weights are
random. It prints a table and writes JSON; it asserts nothing. What fails or is not there is told in its row, and the
others go on. `--small` runs the whole course in tiny sizes, on a CPU too. docs/gpu.md says what the figures mean.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {
    "torch torchvision numpy einops timm huggingface_hub safetensors sklearn tqdm": "everything",
    "terratorch segmentation_models_pytorch": "everything but wxc",
    "lightning torchmetrics": "train, and the networks of parity, which are trained a little",
    "rasterio odc.geo pyproj shapely affine antimeridian xarray matplotlib PIL": "scene; told as absent without",
    "PrithviWxC h5py pandas yaml": "wxc; told as absent without",
    "pynvml": "energy; told as absent without (pip calls it nvidia-ml-py)",
    "openvino onnx onnxscript": "OpenVINO in parity; told as absent without",
}
# The sections in their order, and the seconds that each may take. Device imports everything, which is slow at the first
# time and must not be interrupted; parity, which compiles much, takes what is left.
SECONDS = {"device": 90, "forward": 130, "runtime": 35, "scene": 50, "train": 45, "wxc": 30, "parity": 75}
TOTAL = 345  # seconds of all sections together, at most
Facts = dict[str, Any]


class OverTimeError(Exception):
    """A section's time is over."""


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise OverTimeError after some seconds."""

    def over(*_: object) -> None:
        raise OverTimeError("the section's time is over")

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.01))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def rows_of(section: Callable[[Any], Any], bench: Any, end: float) -> Iterator[tuple[str, Facts]]:
    """The rows of a section; what fails is told by one line, and when time is over, that the rest was left out."""
    rows = section(bench)
    while True:
        row = None
        try:
            with limited(end - time.perf_counter()):
                row, measure = next(rows)
                facts = measure()
        except StopIteration:
            return
        except Exception as error:  # told in its row; the next one may well work
            facts = {"error": f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:160]}"}
        with contextlib.suppress(Exception):  # a GPU that failed for good; the next row tells so
            bench.free()
        yield row or "(section)", facts
        if row is None:
            return
        if time.perf_counter() > end:
            yield "(the rest)", {"error": "left out, the section's time is over"}
            return


def words_of(facts: Facts) -> str:
    """Facts in a cell of the table."""
    shown = {key: f"{value:.4g}" if isinstance(value, float) else value for key, value in facts.items()}
    return ", ".join(f"{key} {value}" for key, value in shown.items()).replace("|", "/")


def arguments() -> argparse.Namespace:
    """What was asked for on the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--list", action="store_true", help="name the packages that it imports, and end")
    parser.add_argument("--out", type=Path, help="JSON file to write, anew after each row")
    parser.add_argument("--only", default="", help=f"some of the sections {','.join(SECONDS)}; device always runs")
    parser.add_argument("--seconds", type=float, default=1.5, help="time of a measurement")
    parser.add_argument("--patience", type=float, default=1.0, help="factor on the time that sections may take")
    parser.add_argument("--small", action="store_true", help="tiny sizes, to try it out")
    parser.add_argument("--cpu", action="store_true", help="leave a GPU alone")
    parser.add_argument(
        "--without-terratorch-extras",
        action="store_true",
        help="import terratorch's networks without what its data sets and tasks need",
    )
    asked = parser.parse_args()
    asked.sections = [name for name in SECONDS if name == "device" or not asked.only or name in asked.only.split(",")]
    wrong = set(filter(None, asked.only.split(","))) - set(SECONDS)
    if wrong:
        parser.error(f"no section {', '.join(sorted(wrong))}: wanted some of {', '.join(SECONDS)}")
    return asked


def main() -> None:
    """Run the sections, print the table, write JSON."""
    begun, asked = time.perf_counter(), arguments()
    if asked.list:
        print("\n".join(f"{names}: {what}" for names, what in PACKAGES.items()))
        return
    warnings.simplefilter("ignore")
    sys.path.insert(0, str(ROOT))
    from gpu import networks, project, scoring, training
    from gpu.measuring import Bench

    rows: list[Facts] = []
    print("| section | what | figures |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        given = {"small": asked.small, "seconds": asked.seconds, "alone": asked.without_terratorch_extras}
        bench = Bench.on(asked.cpu, folder=Path(folder), **given)
        project.earthtune_metadata(bench.folder)
        known = {name: getattr(part, name) for part in (networks, scoring, training) for name in part.SECTIONS}
        for name in asked.sections:
            end = min(time.perf_counter() + asked.patience * SECONDS[name], begun + asked.patience * TOTAL)
            for row, facts in rows_of(known[name], bench, end):
                print(f"| {name} | {row} | {words_of(facts)} |", flush=True)
                rows.append({"section": name, "what": row, "at_s": round(time.perf_counter() - begun, 1)} | facts)
                if asked.out:
                    asked.out.write_text(json.dumps({"rows": rows}, indent=1) + "\n", encoding="utf-8")
    print(f"\n{time.perf_counter() - begun:.0f} s in all")


if __name__ == "__main__":
    main()
