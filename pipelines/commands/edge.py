"""earthtune edge."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipelines.commands.outcome import Outcome
from pipelines.scenes.reading import Reading


def edge(
    run: Path,
    *,
    out: Path,
    scene: str | None = None,
    reading: Reading = Reading(),
    overlap: int | None = None,
    overwrite: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """A run as a folder that maps in a browser, with the network off, and on small machines.

    Any static server serves it (`python -m http.server --directory SITE`): a person drops a GeoTIFF on the page, sees
    map, confidence and what is unlike the training, and downloads the map; nothing leaves the browser. Beside it lies
    run_edge.py, which maps with onnxruntime, numpy and rasterio alone. Maps are those of `score` (--runtime openvino
    --precision f32) but for rounding. For classes or values per pixel, of images of one date.

    Args:
        run: the run folder.
        out: folder of the site.
        scene: a scene as `score` takes it, of whose middle a sample is put on the site; it can be seen by all who can
            open the page.
        reading: how the scene is read.
        overlap: pixels that neighbouring tiles share; a quarter of a tile when not given.
        overwrite: replace a site that exists.
        say: takes a line for the person who waits.

    Returns:
        The folder, its models and its bytes.

    Raises:
        InputError: no run, one that a site cannot do, a folder that is not empty, or a scene that does not fit.
        RunError: the disk does not take the files.
    """
    from pipelines.edge.site import write_site

    return write_site(run, out, scene=scene, reading=reading, overlap=overlap, overwrite=overwrite, say=say)


def told(result: Mapping[str, Any], options: Mapping[str, Any]) -> Outcome:
    """Where it is, how large, and how it is opened."""
    size = f"{result['bytes'] / 1e6:.1f} MB, {' and '.join(result['models'])}"
    site = result["site"]
    return Outcome(result, f"{site} ({size})\nopen it: python3 -m http.server --bind 127.0.0.1 --directory {site}")
