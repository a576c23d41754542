"""Tokens as a Zarr store beside their raster, by the `geoemb:` convention (proposal, v1).

https://github.com/geo-embeddings/embeddings-zarr-convention. Its `proj:` and `spatial:` are those of
https://github.com/zarr-experimental/geo-proj and https://github.com/zarr-conventions/spatial.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from odc.geo.geobox import GeoBox

from models.backbones.catalogue import VARIANTS
from pipelines.embeddings.encoding import Encoding
from pipelines.grids.areas import pixel_side
from pipelines.outputs.item import address, projection
from pipelines.outputs.layout import Layout, Pixels
from pipelines.records.ledger import digest

METADATA = "zarr.json"
_COLUMNS = 512  # of a chunk
_NAMED = {
    "geoemb:": ("geo-embeddings/embeddings-zarr-convention", "61c12cc5-0e28-4056-999a-480cf3fb7e4c"),
    "proj:": ("zarr-experimental/geo-proj", "f17cb550-5864-4468-aeb7-f3180cfb622f"),
    "spatial:": ("zarr-conventions/spatial", "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4"),
}


def write_tokens(path: Path, encoding: Encoding, layout: Layout, rows: Iterable[tuple[int, Pixels]]) -> None:
    """Write a store of the array `embeddings` (band, y, x); it takes its name when it is whole.

    Bytes come with the arrays `scale` and `offset` along band: a value is stored * scale + offset.

    Args:
        path: the folder, in place of one that is there.
        encoding: the scene and its encoder.
        layout: how values are stored.
        rows: the first row, and rows (bands, n, width) as stored, in the parts of `outputs.parts`.
    """
    import zarr

    bands, height, width = layout.shape
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        store = Path(folder) / path.name
        group = zarr.create_group(store, attributes=_attributes(path, encoding, layout))
        shape, chunks = (bands, height, width), (bands, min(layout.side, height), min(_COLUMNS, width))
        void = {"_FillValue": int(layout.nodata or 0)} if layout.scaling else {}
        how: dict[str, Any] = {
            "dimension_names": ["band", "y", "x"],
            "attributes": {"grid_mapping": "spatial_ref"} | void,
        }
        array = group.create_array(
            "embeddings", shape=shape, chunks=chunks, dtype=layout.dtype, fill_value=layout.nodata, **how
        )
        for name, (dims, values, attributes) in _beside(encoding.geobox, layout).items():
            group.create_array(name, data=values, dimension_names=dims, attributes=attributes)
        for row, block in rows:
            array[:, row : row + block.shape[1]] = block
        shutil.rmtree(path, ignore_errors=True)
        os.rename(store, path)


def _beside(geobox: GeoBox, layout: Layout) -> dict[str, tuple[list[str], Any, dict[str, Any]]]:
    """The arrays beside the tokens: coordinates of their middles, the coordinate system, scale and offset of bytes."""
    a, _, c, _, e, f = tuple(geobox.affine)[:6]
    height, width = geobox.shape
    crs = geobox.crs.proj.to_cf() if geobox.crs else {}
    found: dict[str, tuple[list[str], Any, dict[str, Any]]] = {
        "x": (["x"], c + a * (np.arange(width) + 0.5), {"standard_name": "projection_x_coordinate"}),
        "y": (["y"], f + e * (np.arange(height) + 0.5), {"standard_name": "projection_y_coordinate"}),
        "spatial_ref": ([], np.array(0, np.int32), crs),
    }
    if layout.scaling:
        scale, offset = (np.array(column) for column in zip(*layout.scaling, strict=True))
        found |= {"scale": (["band"], scale, {}), "offset": (["band"], offset, {})}
    return found


def _attributes(path: Path, encoding: Encoding, layout: Layout) -> dict[str, Any]:
    """What the group says of itself."""
    encoder, geobox = encoding.encoder, encoding.geobox
    base = "https://github.com/{}/blob/v1/README.md", "https://raw.githubusercontent.com/{}/refs/tags/v1/schema.json"
    conventions = [
        {"name": name, "uuid": uuid, "spec_url": base[0].format(of), "schema_url": base[1].format(of)}
        for name, (of, uuid) in _NAMED.items()
    ]
    repository = VARIANTS[encoder.name].repo if encoder.name in VARIANTS else None
    model = f"https://huggingface.co/{repository}" if repository else f"urn:sha256:{digest(encoder.identity)}"
    sources = [address(source, path.parent) for source in encoding.scene.sources]
    box, side = geobox.boundingbox, encoder.patch
    told = {
        "zarr_conventions": conventions,
        "geoemb:type": "chip",
        "geoemb:dimensions": encoding.features,
        "geoemb:model": model,
        "geoemb:source_data": next((source for source in sources if source), "urn:earthtune:unknown"),
        "geoemb:data_type": layout.dtype,
        "geoemb:chip_layout": {"layout_type": "regular_grid", "chip_size": [side, side], "stride": [side, side]},
        **{key: value for key, value in projection(geobox).items() if value},
        "spatial:dimensions": ["y", "x"],
        "spatial:bbox": [box.left, box.bottom, box.right, box.top],
        "spatial:transform": [*tuple(geobox.affine)[:6]],
        "spatial:shape": [*encoding.shape],
    }
    ground = pixel_side(geobox)
    told |= {"geoemb:gsd": ground} if ground else {}
    if layout.scaling:
        how = {"method": "linear, by band: arrays scale and offset", "original_dtype": "float32"}
        told["geoemb:quantization"] = how | {"quantized_dtype": layout.dtype}
    return told
