"""Backbone features of scenes as rasters on the token grid, one after the other, through the ledger of the folder."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from models.errors import EarthtuneError, InputError
from models.files import stamp
from models.types import Array, Progress, Say
from pipelines.embeddings.encoding import Encoder, Encoding, encode, frames_of, load_encoder
from pipelines.embeddings.geozarr import METADATA, write_tokens
from pipelines.embeddings.item import tokens_item
from pipelines.embeddings.seam import seam_ratio
from pipelines.embeddings.vectors import check_vectors, write_vectors
from pipelines.grids.areas import pixel_side
from pipelines.grids.rasters import trusting
from pipelines.outputs.geotiff import join, write_rows
from pipelines.outputs.item import write_stac_item
from pipelines.outputs.layout import Layout, Regroup, check_memory, check_target
from pipelines.outputs.parts import drop_damaged, errors_named, missing, read_parts, write_part
from pipelines.records.attempts import PAGE, page_of
from pipelines.records.energy import START, TILES, Account, Meter
from pipelines.records.ledger import Entry, digest, fingerprint
from pipelines.scenes.find import find_scenes
from pipelines.scenes.reading import Reading
from pipelines.scoring.jobs import failure
from pipelines.scoring.names import by_name

Stored = Literal["float32", "int8"]
VOID, MOST = -128, 127  # int8: no data, and the largest value
_SUFFIXES = (".tif", ".tiff")


def embed(
    backbone: str,
    scenes: Sequence[str],
    *,
    out: Path,
    weights: str = "hub",
    block: int = -1,
    tile: int = 224,
    overlap: int | None = None,
    dtype: Stored = "float32",
    zarr: bool = False,
    vectors: Path | None = None,
    places: Path | None = None,
    reading: Reading = Reading(),
    account: Account = Account(),
    overwrite: bool = False,
    trust: bool = False,
    progress: Progress | None = None,
    say: Say = lambda line: None,
    debug: bool = False,
) -> list[dict[str, Any]]:
    """Write the patch tokens of scenes as rasters: one pixel per token, one band per feature, a STAC item beside.

    Tokens see all of their tile, so neighbouring tiles differ; the overlap blends them. How much tokens still jump at
    the edges of tiles is told as the seam ratio: 1 is no more than elsewhere. A scene that fails leaves nothing and
    does not stop the others; the same command again skips what is done and goes on where it was stopped.

    Args:
        backbone: a name that `earthtune backbones` lists, or a run folder for its fine-tuned backbone.
        scenes: rasters, folders of band files, STAC items, patterns such as 'b/*.tif', or folders of many scenes;
            frames are joined by commas: a.tif,b.tif.
        out: folder for <scene>_tokens.tif; or, of one scene, the GeoTIFF to write.
        weights: hub for the published ones, random (the same ones each time), or a weight file.
        block: the block whose tokens are written, counted from 0; -1 is the last.
        tile: side of a tile in pixels, a multiple of the patch.
        overlap: pixels that neighbouring tiles share, a multiple of the patch; half a tile when not given.
        dtype: float32 (nodata NaN), or int8 with a scale and an offset for each band, a quarter of it (nodata -128).
        zarr: also write <scene>_tokens.zarr, with `geoemb:` metadata.
        vectors: also write one vector a scene, the mean of its tokens: .csv, .gpkg or .parquet (GeoParquet).
        places: polygons, each of which gets a vector instead of the scene.
        reading: what the files do not say themselves.
        account: on whose account the energy goes, see energy.json in the folder or NAME.energy.json beside the file.
        overwrite: replace files that exist.
        trust: let virtual rasters (.vrt) read whatever they ask for: addresses, archives, formulas; for those you know.
        progress: wraps the tiles to show progress.
        say: takes a line for the person who waits.
        debug: raise what a scene fails of, where the others would go on.

    Returns:
        For each scene: scene, status (done, kept from before, or failed), and file, item, tokens [rows, columns],
        features, seam_ratio (None where there is one tile), with `zarr` the store; or error and exit_code.

    Raises:
        InputError: unknown backbone or block, a tile or overlap that patches do not divide, or outputs that clash.
    """
    check_vectors(vectors, places, overwrite=overwrite)
    sources = find_scenes(scenes)
    single = out.suffix.lower() in _SUFFIXES
    if single and len(sources) != 1:
        raise InputError(f"{out}: is one file, and {len(sources)} scenes are given; --out wants a folder for them")
    if not single and out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; --out wants a folder, or a name that ends in .tif")
    options = {"backbone": backbone, "weights": weights, "block": block, "tile": tile, "overlap": overlap}
    how: dict[str, Any] = {"progress": progress, "say": say, "sources": tuple(sources)}
    plan = _Plan(out, options, dtype, reading, overwrite=overwrite, zarr=zarr, **how)
    with account.booked("embed", say) as meter, trusting(trust):
        meter.bind(page_of(out) if single else out / PAGE, parts=not single)
        if single:
            results = [_in_file(plan, sources[0], meter)]
        else:
            results = _in_folder(plan, sources, meter, debug=debug or len(sources) == 1)
        meter.done = any(result["status"] == "done" for result in results)
        if vectors:
            write_vectors(vectors, results, places, overwrite=overwrite, say=say)
        return results


@dataclass
class _Plan:
    """What is the same for all scenes of a call; the encoder is loaded once for all that have as many frames."""

    out: Path
    options: Mapping[str, Any]
    dtype: Stored
    reading: Reading
    overwrite: bool
    progress: Progress | None
    say: Say
    sources: tuple[str, ...]
    zarr: bool = False
    _loaded: dict[int, Encoder] = field(default_factory=dict)

    def encoding(self, source: str) -> Encoding:
        """A scene, opened for the encoder."""
        frames = frames_of(source)
        if frames not in self._loaded:
            self._loaded[frames] = load_encoder(**self.options, frames=frames, say=self.say)
        encoding = encode(self._loaded[frames], source, self.reading, self.say)
        layout = Layout.of_fields(encoding.geobox, encoding.names, tags={})
        encoder, width = encoding.encoder, layout.shape[2]
        check_memory(source, [layout], strip=4 * encoding.features * encoder.tile // encoder.patch * width)
        return encoding

    def files(self, file: Path) -> list[Path]:
        """All that is written for a raster: that, its item, and the metadata of the store beside it."""
        return [file, file.with_suffix(".json"), *([file.with_suffix(".zarr") / METADATA] if self.zarr else [])]

    def check(self, encoding: Encoding, file: Path, *, overwrite: bool) -> None:
        """Refuse to replace what is to be read, and files without leave."""
        for path in self.files(file):
            if path.name == METADATA:
                path = path.parent
            if path.resolve() in encoding.scene.files:
                raise InputError(f"{path}: is the scene itself; --out wants another name")
            if (path.is_dir() and path.suffix != ".zarr") or (path.exists() and not overwrite):
                raise InputError(f"{path}: exists already; give another name, or --overwrite to replace it")
        check_target(file, Layout.of_fields(encoding.geobox, encoding.names, tags={}), overwrite=overwrite)


def _in_file(plan: _Plan, source: str, meter: Meter) -> dict[str, Any]:
    """One scene to the file that was named."""
    encoding = plan.encoding(source)
    plan.check(encoding, plan.out, overwrite=plan.overwrite)
    meter.lap(START)
    with errors_named(plan.out):
        plan.out.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(dir=plan.out.parent, prefix=f".{plan.out.name}.")
    with folder as parts:
        return {"scene": source, "status": "done"} | _written(plan, encoding, Path(parts), plan.out, meter)


def _in_folder(plan: _Plan, sources: Sequence[str], meter: Meter, *, debug: bool) -> list[dict[str, Any]]:
    """Many scenes to a folder; one that fails stops no other, but where `debug` raises what it fails of."""
    results, taken = [], dict[str, str]()
    refused = by_name(sources, "tokens")
    for count, source in enumerate(sources, 1):
        try:
            if source in refused:
                raise refused[source]
            result = _one(plan, source, taken, meter)
        except (EarthtuneError, OSError) as error:
            if debug:
                raise
            result = {"scene": source, "status": "failed"} | failure(source, error)
        if len(sources) > 1:
            plan.say(f"{count} of {len(sources)}: {source}: {result.get('error', result['status'])}")
        results.append(result)
    return results


def _one(plan: _Plan, source: str, taken: dict[str, str], meter: Meter) -> dict[str, Any]:
    """One scene to its file in the folder, unless the ledger says that it is there."""
    encoding = plan.encoding(source)
    stem = f"{encoding.scene.name}_tokens"
    if (other := taken.setdefault(stem, source)) != source:
        raise InputError(f"{source}: would be written as {stem}.tif, as {other} is; take two folders")
    entry, file = Entry(plan.out, stem, digest(_content(plan, encoding))), plan.out / f"{stem}.tif"
    about = {"scene": source, "file": str(file), "item": str(file.with_suffix(".json"))}
    with entry.claim(wait=True):
        done = None if plan.overwrite else entry.done()
        if done is not None:
            return about | done | {"status": "kept"}
        begun = entry.parts / "begun"  # the file that is there is ours, and half of a pair
        plan.check(encoding, file, overwrite=plan.overwrite or begun.exists())
        entry.forget()
        meter.lap(START)
        entry.parts.mkdir(parents=True, exist_ok=True)
        made = _written(plan, encoding, entry.parts, file, meter, begun)
        known: dict[str, Any] = {key: made[key] for key in ("tokens", "features", "seam_ratio", "zarr") if key in made}
        entry.finish(known, plan.files(file))
    return about | made | {"status": "done"}


def _content(plan: _Plan, encoding: Encoding) -> dict[str, Any]:
    """All that decides what the raster holds."""
    encoder, scene = encoding.encoder, encoding.scene
    paths = {layer.path for frame in scene.stack for layer in frame.every}
    return {
        "software": version("earthtune"),
        "encoder": [encoder.name, encoder.identity, encoder.block, encoder.tile, encoder.overlap],
        "source": [
            *map(fingerprint, sorted(path for path in scene.files if not str(path).endswith((".aux.xml", ".ovr")))),
            *sorted(path for path in paths if not Path(path).is_file()),
        ],
        "reading": dataclasses.asdict(plan.reading),
        "layers": [[la.name, la.index, la.units, la.nodata, la.alpha] for frame in scene.stack for la in frame.every],
        "dtype": plan.dtype,
    } | ({"zarr": True} if plan.zarr else {})


def _written(
    plan: _Plan, encoding: Encoding, parts: Path, file: Path, meter: Meter, begun: Path | None = None
) -> dict[str, Any]:
    """Encode the rows that are not there yet, and put raster and item in place."""
    encoder, scene = encoding.encoder, encoding.scene
    tags = {
        "TIFFTAG_SOFTWARE": f"earthtune {version('earthtune')}",
        "EARTHTUNE_BACKBONE": Path(encoder.name).name,
        "EARTHTUNE_WEIGHTS": Path(str(plan.options["weights"])).name,
        "EARTHTUNE_BLOCK": str(encoder.block),
        "EARTHTUNE_TILE": str(encoder.tile),
        "EARTHTUNE_OVERLAP": str(encoder.overlap),
        "ACQUISITION_DATE": ",".join(date.isoformat() for date in scene.dates if date),
    }
    layout = Layout.of_fields(encoding.geobox, encoding.names, tags={name: text for name, text in tags.items() if text})
    _encode(plan, encoding, parts, layout, file, meter)
    seam = seam_ratio(read_parts(parts), encoding.windows())
    if seam is not None:
        layout = dataclasses.replace(layout, tags={**layout.tags, "EARTHTUNE_SEAM_RATIO": f"{seam:g}"})
    item = file.with_suffix(".json")
    bytes_ = plan.dtype == "int8"
    small = _small(layout, parts) if bytes_ else layout

    def rows() -> Iterator[tuple[int, NDArray[Any]]]:
        return ((row, _stored(block, small) if bytes_ else block) for row, block in read_parts(parts))

    with _whole(plan.files(file), begun):
        if bytes_:
            write_rows(file, rows(), small, overwrite=True)
        else:
            join(parts, file, layout)
        if plan.zarr:
            with errors_named(file.with_suffix(".zarr")):
                write_tokens(file.with_suffix(".zarr"), encoding, small, rows())
        with errors_named(item):
            write_stac_item(item, tokens_item(encoding, file, seam, str(plan.options["weights"])))
    meter.lap(TILES)
    told = {"tokens": [*encoding.shape], "features": encoding.features, "seam_ratio": seam}
    told |= {"zarr": str(file.with_suffix(".zarr"))} if plan.zarr else {}
    return {"file": str(file), "item": str(item), **told}


def _encode(plan: _Plan, encoding: Encoding, parts: Path, layout: Layout, file: Path, meter: Meter) -> None:
    """Encode the rows whose parts are not there yet, or are damaged."""
    drop_damaged(parts, layout)
    height, width = encoding.shape
    for gap in missing(parts, layout, (0, height)):
        regroup = Regroup(layout, what=str(file), within=gap)
        shown = _shown(plan.progress, encoding.scene.name)
        for first, rows in encoding.rows(shown, gap):
            for row, block in regroup.add(first, rows):
                write_part(parts, row, block, layout, file)
            meter.tick(TILES)
        regroup.finish()
        side = pixel_side(encoding.geobox) or 0.0
        meter.made(km2=(gap[1] - gap[0]) * width * (side / 1000) ** 2, samples=len(encoding.windows(gap)))


def _shown(progress: Progress | None, name: str) -> Callable[[Any], Any]:
    return (lambda windows: progress(windows, name)) if progress else iter


@contextmanager
def _whole(files: Sequence[Path], begun: Path | None) -> Iterator[None]:
    """What belongs together and is made in the block: after an error nothing is left that was not there before."""
    before = {path: stamp(path) for path in files}
    if begun:
        begun.touch()
    try:
        yield
    except BaseException:
        for path, known in before.items():
            if stamp(path) != known and path.name == METADATA:
                shutil.rmtree(path.parent, ignore_errors=True)
            elif stamp(path) != known:
                path.unlink(missing_ok=True)
        raise


def _small(layout: Layout, parts: Path) -> Layout:
    """The layout in int8: each band from its least to its largest value in 254 even steps."""
    least, most = np.full(layout.bands, np.inf), np.full(layout.bands, -np.inf)
    for _, block in read_parts(parts):
        least = np.fmin(least, np.fmin.reduce(block, axis=(1, 2)).astype(float))
        most = np.fmax(most, np.fmax.reduce(block, axis=(1, 2)).astype(float))
    known = np.isfinite(least) & np.isfinite(most)
    middle, span = np.where(known, (least + most) / 2, 0.0), np.where(known, most - least, 0.0)
    scale = np.where(span > 0, span / (2 * MOST), 1.0)
    scaling = [(float(one), float(offset)) for one, offset in zip(scale, middle, strict=True)]
    return dataclasses.replace(layout, dtype="int8", nodata=VOID, scaling=scaling)


def _stored(block: Array, layout: Layout) -> NDArray[np.int8]:
    """Values as they are stored; half a step off at most."""
    scale, offset = (np.array(column)[:, None, None] for column in zip(*layout.scaling, strict=True))
    steps = np.rint((block - offset) / scale).clip(-MOST, MOST)
    return np.where(np.isfinite(block), steps, VOID).astype(np.int8)
