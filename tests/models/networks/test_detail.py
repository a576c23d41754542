import numpy as np
import pytest
import torch
from scipy import ndimage

from models.backbones.catalogue import BANDS
from models.networks.detail import INDICES, BandFeatures, DetailPath
from models.spec import Pixels


def imagery(bands=BANDS, frames=1):
    means = tuple(800.0 + 100 * i for i in range(len(bands)))
    return Pixels(bands, means, (400.0,) * len(bands), times=frames)


def reflectance(given, *, side=24, seed=0):
    """Physical bands (2, C, T, side, side) and the same normalised and laid out as the head gets them."""
    generator = torch.Generator().manual_seed(seed)
    x = 3000 * torch.rand(2, len(given.channels), given.times, side, side, generator=generator)
    mean, std = (torch.tensor(v).reshape(-1, 1, 1, 1) for v in (given.mean, given.std))
    return x, ((x - mean) / std).flatten(1, 2)


def raw_features(given, bands):
    """Features before their batch norm, by group."""
    module = BandFeatures(given).eval()
    seen = []
    module.norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.inference_mode():
        assert module(bands).shape[1] == module.channels
    count, pairs = bands.shape[1], len(module.pairs)
    sizes = (count, pairs, count + pairs, count, count, count + pairs, count)
    names = ("bands", "indices", "box", "spread5", "spread15", "tile_mean", "tile_std")
    return dict(zip(names, seen[0].split(sizes, dim=1), strict=True))


@pytest.mark.parametrize("frames", [1, 3])
def test_indices_are_normalised_differences_of_reflectances(frames):
    chosen = imagery(frames=frames)
    x, bands = reflectance(chosen)
    got = raw_features(chosen, bands)["indices"].reshape(2, len(INDICES), frames, 24, 24)
    for i, (first, second) in enumerate(INDICES.values()):
        a, b = x[:, BANDS.index(first)] / 1e4, x[:, BANDS.index(second)] / 1e4
        torch.testing.assert_close(got[:, i], 2 * (a - b) / (a + b + 0.02), rtol=1e-3, atol=1e-3)


def test_neighbourhoods_are_those_of_scipy():
    chosen = imagery()
    features = raw_features(chosen, reflectance(chosen)[1])
    values = np.concatenate((features["bands"], features["indices"]), axis=1).astype(np.float64)
    box = ndimage.uniform_filter(values, (0, 0, 9, 9), mode="nearest")
    np.testing.assert_allclose(features["box"], box, atol=1e-4)
    bands = features["bands"].numpy().astype(np.float64)
    for size in (5, 15):
        sizes = (0, 0, size, size)
        mean = ndimage.uniform_filter(bands, sizes, mode="nearest")
        square = ndimage.uniform_filter(bands**2, sizes, mode="nearest")
        np.testing.assert_allclose(features[f"spread{size}"], np.sqrt(square - mean**2), atol=2e-2)
    np.testing.assert_allclose(features["tile_mean"][..., 3, 5], values.mean((2, 3)), atol=1e-4)
    np.testing.assert_allclose(features["tile_std"][..., 3, 5], bands.std((2, 3), ddof=1), atol=1e-4)


@pytest.mark.parametrize(("bands", "count"), [(("VV", "VH"), 0), (("RED", "NIR_NARROW", "VV"), 1), (BANDS, 6)])
def test_indices_come_with_the_bands_that_they_want(bands, count):
    assert len(BandFeatures(imagery(bands)).pairs) == count


def test_dark_and_flat_tiles_give_finite_features():
    chosen = imagery()
    for value in (0.0, -500.0, 20000.0):
        bands = (value - torch.tensor(chosen.mean).reshape(1, -1, 1, 1)) / 400
        features = raw_features(chosen, bands.expand(1, -1, 24, 24).contiguous())
        assert all(f.isfinite().all() for f in features.values())


def test_branches_are_left_out_while_training_only():
    chosen = imagery()
    torch.manual_seed(0)
    path = DetailPath(chosen, joined=4, outputs=2, width=4, dropout=0.0, branch_dropout=0.5)
    bands, tokens = reflectance(chosen)[1], torch.randn(2, 4, 3, 3)
    path.eval()
    with torch.inference_mode():
        assert torch.equal(path(bands, tokens), path(bands, tokens))
        ones = torch.ones(2000, 1, 1, 1)
        assert torch.equal(path._dropped(ones), ones)
        dropped = path.train()._dropped(ones)
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    assert dropped.mean().item() == pytest.approx(1, abs=0.1)  # as with dropout, the mean stays


@pytest.mark.parametrize("side", [(24, 24), (17, 30), (48, 32)])
def test_sides_of_any_length_come_back(side):
    chosen = imagery(frames=2)
    path = DetailPath(chosen, joined=4, outputs=3, width=4, dropout=0.1).eval()
    bands = torch.randn(1, 12, *side)
    with torch.inference_mode():
        assert path(bands, torch.randn(1, 4, 2, 2)).shape == (1, 3, *side)
