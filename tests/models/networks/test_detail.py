import numpy as np
import pytest
import torch
from scipy import ndimage

from models.backbones.catalogue import BANDS
from models.networks.detail import (
    BandFeatures,
    BandsAndIndices,
    DetailPath,
    SceneStatistics,
)
from models.networks.indices import INDICES, PERCENTILES, SIDES, TEXTURES
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
    """Features by group."""
    module = BandFeatures(given).eval()
    with torch.inference_mode():
        found = module(bands)
    assert found.shape[1] == module.channels
    count, pairs = bands.shape[1], len(module.values.pairs)
    moments = [f"{kind}{side}" for side in SIDES for kind in ("mean", "std")]
    names = ("bands", "indices", *moments, "tile_mean", "tile_std")
    sizes = (count, pairs, *[count + pairs] * (2 * len(SIDES) + 2))
    return dict(zip(names, found.split(sizes, dim=1), strict=True))


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
    for side in SIDES:
        sizes = (0, 0, side, side)
        mean = ndimage.uniform_filter(values, sizes, mode="nearest")
        square = ndimage.uniform_filter(values**2, sizes, mode="nearest")
        np.testing.assert_allclose(features[f"mean{side}"], mean, atol=1e-3)
        spread = np.sqrt((square - mean**2).clip(min=0))
        np.testing.assert_allclose(features[f"std{side}"], spread, atol=2e-2)
    np.testing.assert_allclose(features["tile_mean"][..., 3, 5], values.mean((2, 3)), atol=1e-4)
    np.testing.assert_allclose(features["tile_std"][..., 3, 5], values.std((2, 3), ddof=1), atol=1e-4)


@pytest.mark.parametrize(("bands", "count"), [(("VV", "VH"), 0), (("RED", "NIR_NARROW", "VV"), 1), (BANDS, 6)])
def test_indices_come_with_the_bands_that_they_want(bands, count):
    assert len(BandsAndIndices(imagery(bands)).pairs) == count


def test_dark_and_flat_tiles_give_finite_features():
    chosen = imagery()
    for value in (0.0, -500.0, 20000.0):
        bands = (value - torch.tensor(chosen.mean).reshape(1, -1, 1, 1)) / 400
        features = raw_features(chosen, bands.expand(1, -1, 24, 24).contiguous())
        assert all(f.isfinite().all() for f in features.values())


def test_branches_are_left_out_while_training_only():
    chosen = imagery()
    torch.manual_seed(0)
    features = BandFeatures(chosen).eval()
    path = DetailPath(features.channels, joined=4, outputs=2, width=4, pixel=(12, 8), dropout=0.0, branch_dropout=0.5)
    bands, tokens = features(reflectance(chosen)[1]), torch.randn(2, 4, 3, 3)
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
    features = BandFeatures(chosen).eval()
    path = DetailPath(features.channels, joined=4, outputs=3, width=4, pixel=(12, 8), dropout=0.1).eval()
    bands = torch.randn(1, 12, *side)
    with torch.inference_mode():
        assert path(features(bands), torch.randn(1, 4, 2, 2)).shape == (1, 3, *side)


def test_a_scene_is_told_by_moments_percentiles_and_textures():
    """As the baselines' own numbers have it, from scipy and numpy: another code, another unit of the bands."""
    from models.baselines import statistics

    chosen = imagery()
    x, bands = reflectance(chosen, side=48)
    module = SceneStatistics(chosen).eval()
    with torch.inference_mode():
        told = module(bands).numpy()
    assert told.shape == (2, module.channels)
    moments, percentiles = np.split(told, [(2 + 2 * len(TEXTURES)) * 12], axis=1)
    got = moments.reshape(2, 1 + len(TEXTURES), 2, 12)
    values = statistics.with_indices(x.numpy(), BANDS)
    values[:, :6] = bands.numpy()  # normalised
    values[:, 6:] *= 2
    np.testing.assert_allclose(got[:, 0, 0], values.mean((2, 3)), atol=1e-4)
    wanted = np.percentile(values, PERCENTILES, axis=(2, 3)).transpose(1, 0, 2).reshape(2, -1)
    np.testing.assert_allclose(percentiles, wanted, atol=1e-4)
    for i, side in enumerate(TEXTURES, 1):
        spread = statistics._near(values, side)[1][:, :, 12:-12, 12:-12]  # far from the edge both are the same
        assert np.corrcoef(got[:, i, 0].ravel(), spread.mean((2, 3)).ravel())[0, 1] > 0.999


def test_statistics_are_told_about_those_of_the_training():
    chosen = imagery()
    _, bands = reflectance(chosen, side=48)
    module = SceneStatistics(chosen).eval()
    with torch.inference_mode():
        plain = module.plain(bands)
        module.standardise(plain)
        told = module(bands)
    moving = plain.std(0, unbiased=False) > 1e-3  # where rounding is not what moves
    torch.testing.assert_close(told[:, moving].mean(0), torch.zeros(int(moving.sum())), atol=1e-3, rtol=0)
    torch.testing.assert_close(told[:, moving].std(0, unbiased=False), torch.ones(int(moving.sum())), atol=1e-2, rtol=0)
