"""Backbone features of a scene as a raster on the token grid."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from odc.geo.geobox import GeoBox

from models.backbones.catalogue import variant
from models.bundle import Bundle, load_network, read_bundle
from models.errors import InputError
from models.types import Array, Progress, Say
from pipelines.grids.areas import pixel_side
from pipelines.grids.mosaic import Prediction, blend, fill_invalid, pad_tile
from pipelines.grids.positions import coarser
from pipelines.grids.rasters import trusting
from pipelines.grids.tokens import Tokens
from pipelines.grids.windows import Tiles, Window, enlarged
from pipelines.outputs.geotiff import write_rows
from pipelines.outputs.layout import Layout, check_memory
from pipelines.records.attempts import page_of
from pipelines.records.energy import START, TILES, Account
from pipelines.scenes.physical import unit_notes
from pipelines.scenes.pixel_size import at_size
from pipelines.scenes.reading import Reading
from pipelines.scenes.scene import Scene, open_told

if TYPE_CHECKING:
    from models.backbones.prithvi_eo import PrithviEO


def embed(
    backbone: str,
    scene: str,
    *,
    out: Path,
    weights: str = "hub",
    block: int = -1,
    tile: int = 224,
    overlap: int = 0,
    reading: Reading = Reading(),
    account: Account = Account(),
    overwrite: bool = False,
    trust: bool = False,
    progress: Progress | None = None,
    say: Say = lambda line: None,
) -> dict[str, Any]:
    """Write the patch tokens of a scene as a raster: one pixel per token, one band per feature.

    Tokens see all of their tile, so neighbouring tiles differ a little; an overlap blends them.

    Args:
        backbone: a name that `earthtune backbones` lists, or a run folder for its fine-tuned backbone.
        scene: raster, folder of band files or STAC item; frames are joined by commas.
        out: the GeoTIFF to write (float32, nodata NaN).
        weights: hub for the published ones, random (the same ones each time), or a weight file.
        block: the block whose tokens are written, counted from 0; -1 is the last.
        tile: side of a tile in pixels, a multiple of the patch.
        overlap: pixels that neighbouring tiles share, a multiple of the patch.
        reading: what the files do not say themselves.
        account: on whose account the energy goes, see NAME.energy.json beside the file.
        overwrite: replace a file that exists.
        trust: let virtual rasters (.vrt) read whatever they ask for: addresses, archives, formulas; for those you know.
        progress: wraps the tiles to show progress.
        say: takes a line for the person who waits.

    Returns:
        {"file", "tokens": [rows, columns], "features"}.

    Raises:
        InputError: unknown backbone or block, a tile or overlap that patches do not divide, a scene without the bands.
    """
    meter = account.begun("embed", say)
    with trusting(trust):
        encoding = _encoding(backbone, scene, weights, block, tile, overlap, reading, say)
        if out.resolve() in encoding.scene.files:
            raise InputError(f"{out}: is the scene itself; --out wants another file")
        frames, (height, width) = encoding.scene.frames, (int(side) for side in encoding.geobox.shape)
        names = [f"frame {t} feature {i}" for t in range(frames) for i in range(encoding.encoder.dim)]
        tags = {"EARTHTUNE_BACKBONE": backbone, "EARTHTUNE_WEIGHTS": weights, "EARTHTUNE_BLOCK": str(block)}
        layout = Layout.of_fields(encoding.geobox, names, tags=tags)
        check_memory(scene, [layout], strip=4 * encoding.features * tile // encoding.encoder.patch[1] * width)
        meter.lap(START)
        shown = (lambda windows: progress(windows, out.name)) if progress else iter
        write_rows(out, encoding.rows(shown), layout, overwrite=overwrite)
        side = pixel_side(encoding.geobox) or 0.0
        meter.made(km2=height * width * (side / 1000) ** 2, samples=len(encoding.windows))
        meter.lap(TILES)
        meter.close(page_of(out))
        return {"file": str(out), "tokens": [height, width], "features": encoding.features}


def read_tokens(
    backbone: str,
    scene: str,
    *,
    weights: str = "hub",
    block: int = -1,
    tile: int = 224,
    overlap: int = 0,
    reading: Reading = Reading(),
    say: Say = lambda line: None,
) -> Tokens:
    """The patch tokens of a scene in memory; arguments and errors as of `embed`."""
    encoding = _encoding(backbone, scene, weights, block, tile, overlap, reading, say)
    return Tokens(np.concatenate([tokens for _, tokens in encoding.rows(iter)], axis=1), encoding.geobox)


@dataclass(frozen=True)
class _Encoding:
    """A scene and the encoder that looks at it.

    Attributes:
        scene: the frames.
        encoder: one block's features.
        statistics: mean and deviation of its bands, (C, 1, 1, 1).
        tile: side of a tile in pixels.
        windows: of tokens.
        geobox: the grid of the tokens.
    """

    scene: Scene
    encoder: PrithviEO
    statistics: tuple[Any, Any]
    tile: int
    windows: Tiles
    geobox: GeoBox

    @property
    def features(self) -> int:
        """Features of a token, those of all frames side by side."""
        return int(self.encoder.dim * self.scene.frames)

    def rows(self, shown: Callable[[Iterable[Window]], Iterable[Window]]) -> Iterator[tuple[int, Array]]:
        """Finished rows: the first row, and tokens (features, rows, columns), NaN where no pixel was seen."""
        import torch

        with torch.inference_mode():
            tiles = _token_tiles(self.scene, self.encoder, self.statistics, shown(self.windows), tile=self.tile)
            for row, tokens, seen in blend(tiles, self.windows, channels=self.features):
                yield row, np.where(seen, tokens, np.float32(np.nan))


def _encoding(
    backbone: str, scene: str, weights: str, block: int, tile: int, overlap: int, reading: Reading, say: Say
) -> _Encoding:
    """Load the encoder and open the scene for it."""
    run = read_bundle(Path(backbone)) if (Path(backbone) / "bundle.json").is_file() else None
    frames = run.spec.imagery.times if run else scene.count(",") + 1
    encoder, statistics, lines = _encoder(backbone, weights, frames=frames, tile=tile, block=block)
    for line in lines:
        say(line)
    patch = encoder.patch[1]
    if overlap % patch or not 0 <= overlap < tile:
        raise InputError(f"overlap {overlap}: wanted a multiple of the patch ({patch}) below the tile ({tile})")
    opened = _open(scene, encoder, run, reading, frames=frames, say=say)
    geobox = coarser(opened.geobox, patch)
    height, width = (int(side) for side in geobox.shape)
    windows = Tiles((height, width), tile // patch, overlap // patch)
    return _Encoding(opened, encoder, statistics, tile, windows, geobox)


def _open(scene: str, encoder: PrithviEO, run: Bundle | None, reading: Reading, *, frames: int, say: Say) -> Scene:
    """Open the frames as the encoder wants them; tell what a person should know."""
    opened = open_told(scene.split(","), encoder.bands, reading, times=frames, like=run.data if run else None)
    if opened.frames != frames:
        raise InputError(f"{scene}: wanted {frames} frames, came {opened.frames}; join one file per date by commas")
    opened = at_size(opened, run.spec.imagery.pixel if run else None, reading.resample)
    undated = encoder.uses_time and not all(opened.dates)
    if undated and run and run.spec.imagery.uses_time:
        opened.time()  # says which frame has no date
    if undated:
        say("time encoding off: a frame has no date (--dates gives one)")
    for note in (*opened.remarks, *unit_notes(opened, as_is=reading.as_is)):
        say(f"{opened.name}: {note}")
    return opened


def _encoder(
    backbone: str, weights: str, *, frames: int, tile: int, block: int
) -> tuple[PrithviEO, tuple[Any, Any], list[str]]:
    """The encoder, its bands' mean and deviation (C, 1, 1, 1), and the patch-embedding report."""
    import torch

    from models.backbones import prithvi_eo
    from models.backbones.hub import locate, read_state_dict
    from models.networks.network import Network

    if (Path(backbone) / "bundle.json").is_file():
        network = load_network(Path(backbone), weights=Path(weights) if weights not in ("hub", "random") else None)
        if not isinstance(network, Network):
            raise InputError(f"{backbone}: a run over weather, wanted one over scenes or the name of a Prithvi EO")
        encoder = network.backbone
        encoder.blocks = (_block(block, len(encoder.vit.blocks)),)
        return encoder, (network.mean, network.std), []
    depth = int(prithvi_eo.config(backbone)["depth"])
    with torch.random.fork_rng():
        torch.manual_seed(0)  # what keeps random weights is the same each time
        encoder = prithvi_eo.PrithviEO(backbone, frames=frames, tile=tile, blocks=(_block(block, depth),)).eval()
    lines = []
    if weights != "random":
        published = variant(backbone)
        if weights == "hub" and (published.repo is None or published.file is None):
            raise InputError(f"{backbone}: no weights were published; give a file of them, or a run as the backbone")
        path = locate(published.repo or "", published.file or "").path if weights == "hub" else Path(weights)
        lines = prithvi_eo.load_pretrained(encoder, read_state_dict(path), source=str(path)).lines()
    pairs = prithvi_eo.pretrained_statistics(backbone)
    mean, std = (torch.tensor([pairs[b][i] for b in encoder.bands]).reshape(-1, 1, 1, 1) for i in (0, 1))
    return encoder, (mean, std), lines


def _block(block: int, depth: int) -> int:
    if not -depth <= block < depth:
        raise InputError(f"block {block}: wanted 0 to {depth - 1}, or -1 for the last")
    return block % depth


def _token_tiles(
    scene: Scene, encoder: PrithviEO, statistics: tuple[Any, Any], windows: Iterable[Window], *, tile: int
) -> Iterator[Prediction]:
    """Features of each window of tokens, and which tokens saw a valid pixel."""
    import torch

    patch = encoder.patch[1]
    mean, std = statistics
    for window in windows:
        pixels = enlarged(window, patch, scene.shape)
        height, width = (side.stop - side.start for side in window)
        x, valid = scene.read(pixels)
        if not valid.any():
            yield window, None, np.zeros((height, width), bool)
            continue
        x, valid = pad_tile(fill_invalid(x, valid), valid, tile)
        location = scene.location(pixels) if encoder.uses_location and scene.geobox.crs is not None else None
        time = scene.time() if encoder.uses_time and all(scene.dates) else None
        coordinates = [None if a is None else torch.from_numpy(a)[None] for a in (time, location)]
        maps = encoder((torch.from_numpy(x)[None] - mean) / std, *coordinates)[0][0].numpy()  # (T*E, h, w)
        seen = np.any(valid.reshape(tile // patch, patch, tile // patch, patch), axis=(1, 3))
        yield window, maps[:, :height, :width], seen[:height, :width]
