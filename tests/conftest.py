"""Fixtures that more than one test file needs. Heavy libraries are imported by those who ask for them."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import settings

from models.spec import ClassDef
from models.training.settings import Architecture
from tests.guard import run_guarded
from tests.hub_server import serving
from tests.specs import scene_spec

# Threads that wait without spinning: where others use the cores too, tiny networks train ten times faster.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if (
    "PYTEST_XDIST_WORKER" in os.environ
):  # one thread each, read when torch is first imported: others have the other cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")
# A busy machine is no failure, and what is tried is the same each time.
settings.register_profile("earthtune", deadline=None, derandomize=True)
settings.load_profile("earthtune")

# Begun first, so that none of them is left to one process when all else is done.
_FIRST = "notebooks readme silence rain_run finetune"
LONG = tuple(f"test_{name}.py" for name in _FIRST.split())

TINY = {"embed_dim": 32, "depth": 2, "num_heads": 2}
CLASSES = (ClassDef(3, "water", "#0000ff"), ClassDef(7, "crops", "#00ff00"), ClassDef(9, "forest", "#004400"))


def pytest_configure(config):
    config.option.loadscopereorder = False  # xdist would begin with the files of many tests, and end with one long one


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """Compiled models of the tests, and of processes that these start, stay out of the user's cache."""
    os.environ["EARTHTUNE_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub on the loopback interface and an empty cache, for this process and those it starts."""
    from huggingface_hub import constants

    cache = tmp_path / "hub-cache"
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with serving() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_HUB_CACHE", str(cache))
        for name in ("HF_HUB_OFFLINE", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")  # a protocol of its own; the client then speaks LFS
        # The client reads its environment when it is imported, which may have happened already.
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        yield server


@pytest.fixture(scope="session")
def validator():
    """pystac's, with the extensions' schemas at hand; another schema would be fetched, and fails."""
    from pystac.validation.stac_validator import JsonSchemaSTACValidator

    made = JsonSchemaSTACValidator()
    folder = Path(__file__).parent / "pipelines" / "outputs" / "schemas"
    schemas = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    made.schema_cache |= {schema["$id"]: schema for schema in schemas}
    return made


@pytest.fixture
def valid(validator, monkeypatch):
    """A function that validates an item, as read from its JSON by pystac, and returns pystac's Item."""
    import pystac

    def refused(self, source, *args, **kwargs):
        raise AssertionError(f"{source}: tests fetch nothing")

    monkeypatch.setattr(pystac.StacIO.default(), "read_text", refused, raising=False)

    def check(item):
        read = pystac.Item.from_dict(json.loads(json.dumps(item, allow_nan=False)))
        uris = read.validate(validator=validator)
        assert uris[1:] == item["stac_extensions"]
        return read

    return check


@pytest.fixture
def guarded(tmp_path):
    """A function that runs Python once under a guard; what came of it, what was asked of the network, and left."""
    return functools.partial(run_guarded, tmp_path)


@pytest.fixture(scope="session")
def make_spec():
    """A function of a task and of fields of the Spec that differ from a small one."""

    def make(task="segmentation", **changes):
        fields = {
            "bands": ("BLUE", "RED", "NIR_NARROW"),
            "mean": (1000.0, 1500.0, 2500.0),
            "std": (400.0, 500.0, 900.0),
            "tile": 32,
            "classes": () if task == "regression" else CLASSES,
        }
        return scene_spec(task, **fields | changes)

    return make


@pytest.fixture(scope="session")
def make_network(make_spec):
    """A function that builds a tiny network in eval mode; random weights, the same for the same seed."""

    def make(task="segmentation", *, backbone="prithvi_eo_v2_300_tl", seed=0, architecture=None, **spec):
        import torch

        from models.networks.network import Network

        chosen = {"overrides": TINY, "decoder": "fcn", "channels": 8, "detail": 4} | (architecture or {})
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return Network(make_spec(task, **spec), backbone, Architecture(**chosen)).eval()

    return make


RUNS = {
    "segmentation": {
        "frames": 2,
        "uses_time": True,
        "uses_location": True,
    },
    "regression": {
        "backbone": "prithvi_eo_v1_100",
        "architecture": {"decoder": "unet", "blocks": (0, 0, 1, 1), "detail": 0},
    },
    "classification": {"backbone": "prithvi_eo_v2_300"},
}


@pytest.fixture(scope="session")
def exported(make_network, made_once, worker_id):
    """For each task a network and its run folder: bundle.json, model.safetensors, model.onnx. Not to be written to."""
    import torch

    from models.bundle import Bundle, write_bundle, write_weights
    from models.runtime.export import export_onnx

    runs = {}
    for task in sorted(RUNS, reverse=worker_id == "gw1"):  # none waits for what the other is at
        options = RUNS[task]
        network = make_network(task, **options)
        if task == "regression":
            network.target_mean.fill_(40.0)
            network.target_std.copy_(torch.tensor(7.5))
        chosen = {"overrides": TINY, "decoder": "fcn", "channels": 8, "detail": 4} | options.get("architecture", {})
        bundle = Bundle(network.spec, options.get("backbone", "prithvi_eo_v2_300_tl"), Architecture(**chosen))

        def fill(folder, network=network, bundle=bundle):
            folder.mkdir()
            write_weights(folder, network, whole=True)
            export_onnx(network, folder / "model.onnx")
            write_bundle(folder, bundle)

        runs[task] = (network, made_once(f"exported_{task}", fill))
    return runs


@pytest.fixture
def run_copy(exported, tmp_path):
    """A function that copies a task's run to a folder that may be written to."""
    return lambda task: shutil.copytree(exported[task][1], tmp_path / f"run-{task}")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 512 kB, where the one who runs the tests may mount one."""
    folder = tmp_path / "small"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a file system wants root")
    command = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
