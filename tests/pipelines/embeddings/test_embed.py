"""Backbone features as a raster on the token grid."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
import torch

from models.bundle import load_network
from models.errors import InputError
from pipelines.embeddings.embed import embed
from pipelines.embeddings.encoding import read_tokens
from pipelines.scenes.reading import Reading
from tests.runs import BANDS, make_chip, write


def test_tokens_of_a_run_are_those_of_its_backbone(run, tmp_path):
    bands, _ = make_chip(3)
    path = write(tmp_path / "a.tif", bands, names=BANDS, tags={"ACQUISITION_DATE": "2021-06-15"})
    (result,) = embed(str(run), [str(path)], out=tmp_path / "tokens.tif", tile=32)
    network = load_network(run)
    with torch.inference_mode():
        time, place = torch.tensor([[[2021.0, 165.0]]]), torch.tensor([[45.1477, 9.0061]])
        image = torch.from_numpy(bands.astype(np.float32))[None, :, None]
        maps = network.features({"imagery": image, "time": time, "location": place})
    with rasterio.open(tmp_path / "tokens.tif") as made, rasterio.open(path) as given:
        assert result["tokens"] == [2, 2] and made.shape == (2, 2) and made.res == (480.0, 480.0)
        assert made.bounds == given.bounds
        np.testing.assert_allclose(made.read(), maps[-1][0].numpy(), atol=2e-3)


def test_edges_and_holes(run, tmp_path):
    bands = np.concatenate([make_chip(i)[0] for i in range(3)], axis=2)[:, :30, :90].copy()
    bands[:, :, :32] = -9999
    tags = {"ACQUISITION_DATE": "2021-06-15"}
    path = write(tmp_path / "a.tif", bands, names=BANDS, tags=tags, nodata=-9999)
    embed(str(run), [str(path)], out=tmp_path / "tokens.tif", tile=32, overlap=16)
    with rasterio.open(tmp_path / "tokens.tif") as made:
        tokens = made.read()
    assert tokens.shape == (32, 2, 6)
    assert np.isnan(tokens[:, :, :2]).all() and np.isfinite(tokens[:, :, 2:]).all()


def test_a_backbone_by_name_with_random_weights(tmp_path):
    path = write(tmp_path / "a.tif", make_chip(1)[0], names=BANDS)
    (result,) = embed("prithvi_eo_tiny", [str(path)], out=tmp_path / "t.tif", weights="random", tile=32, block=0)
    assert result["features"] == 256


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backbone": "vit"}, "wanted one of"),
        ({"block": 4}, "block 4"),
        ({"overlap": 8}, "multiple of the patch"),
        ({"tile": 33}, "multiple"),
        ({"weights": "hub"}, "no weights were published"),
    ],
)
def test_what_cannot_be_embedded(tmp_path, change, message):
    path = write(tmp_path / "a.tif", make_chip(1)[0], names=BANDS)
    options = {"backbone": "prithvi_eo_tiny", "weights": "random", "tile": 32} | change
    with pytest.raises(InputError, match=message):
        embed(options.pop("backbone"), [str(path)], out=tmp_path / "t.tif", **options)
    assert not (tmp_path / "t.tif").exists()


def test_tokens_in_memory_are_those_of_the_file(run, tmp_path):
    bands = np.concatenate([make_chip(i)[0] for i in range(2)], axis=2)
    tags = {"ACQUISITION_DATE": "2021-06-15"}
    path = write(tmp_path / "a.tif", bands, names=BANDS, tags=tags)
    embed(str(run), [str(path)], out=tmp_path / "tokens.tif", tile=32, overlap=16)
    tokens = read_tokens(str(run), str(path), tile=32, overlap=16)
    with rasterio.open(tmp_path / "tokens.tif") as made:
        np.testing.assert_array_equal(tokens.values, made.read())
        assert tokens.geobox.affine == made.transform


def test_random_weights_are_the_same_each_time_and_clouds_can_be_masked(tmp_path):
    bands, _ = make_chip(1)
    path = write(tmp_path / "a_hls.tif", bands, names=BANDS, tags={"ACQUISITION_DATE": "2021-06-15"})
    clouds = np.zeros((1, 32, 32), np.uint8)
    clouds[:, :16, :16] = 2
    write(tmp_path / "a_fmask.tif", clouds)
    state = torch.random.get_rng_state()
    one, two = (
        read_tokens("prithvi_eo_v2_tiny_tl", str(path), weights="random", tile=32, reading=Reading(mask_clouds=m))
        for m in (None, True)
    )
    assert torch.equal(state, torch.random.get_rng_state())  # of those who drew before
    again = read_tokens("prithvi_eo_v2_tiny_tl", str(path), weights="random", tile=32)
    np.testing.assert_array_equal(one.values, again.values)
    assert one.known.all() and two.known.tolist() == [[False, True], [True, True]]
