"""Prithvi WxC 2300M, encoder only, random weights in bfloat16: loading and a forward. Prints; asserts no times."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import save_file

from models.backbones.prithvi_wxc import WxCEncoder
from models.backbones.wxc_weights import fill_random

ROOT = Path(__file__).parents[2]
NEEDED = 10 * 2**30

MEASURE = """
import sys, time
from pathlib import Path

import torch
import PrithviWxC.model
from models.backbones.prithvi_wxc import WxCEncoder, load_pretrained
from models.backbones.wxc_files import WxCFiles

def peak():
    # Not getrusage: a child's largest resident size starts at that of its parent.
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024

before, start = peak(), time.perf_counter()
with torch.device("meta"):
    encoder = WxCEncoder().eval()
load_pretrained(encoder, WxCFiles(Path(sys.argv[1])))
mapped = time.perf_counter() - start
total = sum(float(p.view(torch.uint8).max()) for p in encoder.parameters())  # reads every page
read, held = time.perf_counter() - start, peak() - before
size = sum(p.nbytes for p in encoder.parameters())
print(f"weights {size / 2**30:.2f} GiB; ready after {mapped:.1f} s, every page read after {read:.1f} s")
print(f"peak memory of building and loading: {held / size:.3f} times the weights")
height, width = 60, 96
static = torch.zeros(1, 10, height, width)
static[:, 0], static[:, 1] = torch.linspace(0.5, 1, height)[:, None], torch.linspace(-1, 0, width)
hours = torch.full((1,), 6.0)
batch = {"x": torch.randn(1, 2, 160, height, width), "static": static, "climate": torch.randn(1, 160, height, width)}
batch |= {"input_time": hours, "lead_time": hours}
with torch.inference_mode():
    for turn in range(3):
        start = time.perf_counter()
        (features,) = encoder(batch)
        print(f"forward {turn + 1} of {height} x {width}: {time.perf_counter() - start:.1f} s, {tuple(features.shape)}")
print(f"finite: {bool(features.isfinite().all())}; peak memory with the forward: {(peak() - before) / size:.3f} times")
"""


def test_the_encoder_of_2300m(tmp_path):
    free = psutil.virtual_memory().available
    if free < NEEDED:
        pytest.skip(f"{free / 2**30:.0f} GiB of memory are free, {NEEDED / 2**30:.0f} are needed")
    with torch.device("meta"):
        encoder = WxCEncoder()
    fill_random(encoder, dtype=torch.bfloat16)
    # An encoder's file lacks a decoder; its scalers come with it.
    save_file(dict(encoder.net.state_dict()), tmp_path / "encoder.safetensors")
    del encoder
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "encoder.safetensors")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    print(f"\n{torch.get_num_threads()} threads\n{done.stdout}")
    assert done.returncode == 0, done.stderr
