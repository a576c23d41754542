"""The STAC item beside a raster of tokens, by the `emb:` proposal v0.0.1.

https://github.com/geo-embeddings/embeddings-stac-specification. What an encoder spent (`emb:energy`) differs from run
to run, and so lies in the record of energy, not here.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipelines.embeddings.encoding import Encoding
from pipelines.outputs.item import item_of, named, undated
from pipelines.outputs.item_assets import asset


def tokens_item(encoding: Encoding, file: Path, seam: float | None, weights: str) -> dict[str, Any]:
    """Describe a finished raster of tokens.

    Args:
        encoding: the scene and its encoder.
        file: the raster; the item will lie beside it.
        seam: see `seam.seam_ratio`.
        weights: of the encoder, as a person said them.
    """
    encoder, scene = encoding.encoder, encoding.scene
    name = Path(encoder.name).name
    run = {
        **{"backbone": name, "weights": Path(weights).name, "block": encoder.block, "bands": list(scene.bands)},
        **{"chip_size": encoder.tile, "stride": encoder.tile - encoder.overlap, "patch": encoder.patch},
        **({} if seam is None else {"seam_ratio": seam}),
    }
    embeddings = asset("embeddings", file, file.parent)
    properties = {
        "title": f"patch tokens of {scene.name}",
        "description": f"Tokens of block {encoder.block} of {name}, one for each patch.{undated(scene)}",
        "processing:level": "L4",
        "processing:lineage": f"{name} applied to {named(scene)}",
        "processing:software": {"earthtune": version("earthtune")},
        "emb:runtime_parameters": run,
    }
    if embeddings["data_type"] == "int8":
        how = {"method": "linear, by band", "original_dtype": "float32", "quantized_dtype": "int8"}
        scales = {"scale": [band.get("raster:scale", 1.0) for band in embeddings["bands"]]}
        scales["offset"] = [band.get("raster:offset", 0.0) for band in embeddings["bands"]]
        properties["emb:quantization"] = how | scales
    ground, rel = encoding.geobox, "emb:source-data"
    assets = {"embeddings": embeddings}
    return item_of(scene, assets, properties, name=file.stem, folder=file.parent, geobox=ground, rel=rel)
