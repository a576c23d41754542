"""A site of the shared run, a scene that is awkward in all that matters, and what `score` makes of it."""

from __future__ import annotations

import dataclasses
import functools
import shutil
import threading
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import rasterio

from models.bundle import read_bundle, write_bundle
from pipelines.commands.score import score
from pipelines.scoring.jobs import Engine
from pipelines.scoring.plan import Maps
from tests.runs import BANDS, SPECTRA, write

HEIGHT, WIDTH = 75, 109  # no multiples of a tile of 32, nor of what it leaves beside the overlap


def make_scene(path, **changes):
    """Patches of the three classes, counts with a scale; holes, a corner of fill that nothing declares, and some.

    Bands come in another order than the model's, with one more among them.
    """
    rng = np.random.default_rng(3)
    index = np.kron(rng.integers(0, 3, (10, 14)), np.ones((8, 8), int))[:HEIGHT, :WIDTH]
    bands = SPECTRA[index].transpose(2, 0, 1) + rng.normal(0, 150, (6, HEIGHT, WIDTH))
    counts = np.round((bands.clip(0) + 2000) / 0.5).astype(np.uint16)  # reflectance = counts * 0.00005 - 0.2
    counts[:, :, :40][:, 50:60] = 65000  # declared
    counts[:, 70:, 90:] = counts[:, 20:23, 20:30] = 0  # fill at the edge, and a value inside
    counts[:, 60:70, 90:100] = 65000  # leads inwards from it
    counts[:, 55:60, 95:99] = 0
    stack = np.concatenate((counts[::-1], np.full((1, HEIGHT, WIDTH), 7, np.uint16)))
    names = (*BANDS[::-1], "nothing we know")
    given = {"names": names, "nodata": 65000, "tags": {"ACQUISITION_DATE": "2021-06-15"}, "size": 30.0} | changes
    write(path, stack, **given)
    with rasterio.open(path, "r+") as made:
        made.scales, made.offsets = [0.00005] * 7, [-0.2] * 7
    return path


def cropped(scene, path, rows):
    """The first rows of a scene, fewer than a tile has."""
    with rasterio.open(scene) as source, rasterio.open(path, "w", **source.profile | {"height": rows}) as made:
        made.write(source.read(window=((0, rows), (0, source.width))))
        made.descriptions, made.scales, made.offsets = source.descriptions, source.scales, source.offsets
        made.update_tags(**source.tags())
    return path


def tempered(run, folder):
    """A copy of a run with a temperature."""
    shutil.copytree(run, folder)
    bundle = read_bundle(folder)
    write_bundle(folder, dataclasses.replace(bundle, confidence={**bundle.confidence, "temperature": 1.7}))
    return folder


def scored(run, scene, out, *, classes=True):
    """The maps that `score` makes of a scene, by kind."""
    maps = Maps(confidence=classes, unfamiliar=True)
    (result,) = score(run, [str(scene)], out=out, maps=maps, engine=Engine("openvino", "f32"))
    assert result["status"] == "done", result
    return {kind: read(path) for kind, path in result["maps"].items()}


def read(path):
    with rasterio.open(path) as made:
        return made.read(1)


@contextmanager
def served(folder):
    """The address of a plain static server of a folder."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
