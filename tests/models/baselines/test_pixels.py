import numpy as np
import pytest
from sklearn.linear_model import RidgeCV

from models.baselines.pixels import fit_baselines

LEVELS = np.array([[500, 2000], [1500, 1000], [2500, 3000]])  # (classes, bands)


@pytest.fixture
def answer(make_spec):
    return lambda task: make_spec(task).answer


def told(predict, x):
    """What a baseline says of bands (B, C, T, H, W)."""
    return predict({"imagery": x})


def chip(rng, index, *, noise=80.0):
    """Bands (2, 1, H, W) that tell the classes of `index` (H, W) apart."""
    x = LEVELS[index].transpose(2, 0, 1)[:, None] + rng.normal(0, noise, (2, 1, *index.shape))
    return x.astype(np.float32)


def segmentation(count=4, *, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(count):
        index = rng.integers(0, classes, (16, 16))
        truth = np.where(rng.random((16, 16)) < 0.2, -1, index)
        pairs.append((chip(rng, index), truth))
    return pairs


def test_majority_answers_the_share_of_each_class_everywhere(answer):
    pairs = segmentation()
    predict = fit_baselines(answer("segmentation"), pairs, count=len(pairs))["majority"]
    labels = np.concatenate([y[y >= 0] for _, y in pairs])
    share = np.array([(labels == k).mean() for k in range(3)])
    y = told(predict, np.zeros((2, 2, 1, 8, 24), np.float32))
    assert y.shape == (2, 3, 8, 24) and y.dtype == np.float32
    np.testing.assert_allclose(y, np.broadcast_to(share[:, None, None], y.shape), rtol=1e-6)


def test_a_forest_beats_the_majority_where_bands_tell_classes_apart(answer):
    train, test = segmentation(), segmentation(seed=9)
    fitted = fit_baselines(answer("segmentation"), train, count=len(train))
    x, truth = (np.stack([pair[i] for pair in test]) for i in (0, 1))
    known = truth >= 0
    right = {name: (told(predict, x).argmax(1) == truth)[known].mean() for name, predict in fitted.items()}
    assert right["pixel forest"] > 0.97
    assert right["majority"] < 0.5
    np.testing.assert_allclose(told(fitted["pixel forest"], x).sum(1), 1, rtol=1e-5)


def test_pixels_without_a_label_are_left_out(answer):
    pairs = segmentation()
    wild = [(np.where(y < 0, 1e6, x[:, 0])[:, None].astype(np.float32), y) for x, y in pairs]
    x = np.stack([x for x, _ in segmentation(seed=9)])
    plain, other = (fit_baselines(answer("segmentation"), p, count=4, seed=3) for p in (pairs, wild))
    for name in plain:
        np.testing.assert_array_equal(told(plain[name], x), told(other[name], x))


def test_a_class_never_seen_has_probability_zero(answer):
    pairs = segmentation(classes=2)
    x = np.stack([x for x, _ in segmentation(seed=9)])
    for predict in fit_baselines(answer("segmentation"), pairs, count=4).values():
        y = told(predict, x)
        assert y.shape[1] == 3
        assert (y[:, 2] == 0).all()
        np.testing.assert_allclose(y.sum(1), 1, rtol=1e-5)


def values(seed, count=3):
    """A quantity that is linear in the bands, with noise; a fifth not known."""
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(count):
        x = rng.uniform(0, 3000, (2, 1, 16, 16)).astype(np.float32)
        y = 0.02 * x[0, 0] - 0.01 * x[1, 0] + 7 + rng.normal(0, 0.5, (16, 16))
        y[rng.random((16, 16)) < 0.2] = np.nan
        pairs.append((x, y.astype(np.float32)))
    return pairs


def test_the_mean_is_that_of_the_known_values(answer):
    pairs = values(0)
    predict = fit_baselines(answer("regression"), pairs, count=3)["mean"]
    known = np.concatenate([y[np.isfinite(y)] for _, y in pairs])
    y = told(predict, np.zeros((2, 2, 1, 4, 5), np.float32))
    assert y.shape == (2, 1, 4, 5)
    np.testing.assert_allclose(y, known.mean(dtype=np.float64), rtol=1e-5)


def test_ridge_is_scikit_learns_on_standardised_bands(answer):
    pairs = values(0)
    rows = np.concatenate([x[:, 0][:, np.isfinite(y)].T for x, y in pairs]).astype(np.float64)
    known = np.concatenate([y[np.isfinite(y)] for _, y in pairs])
    mean, std = rows.mean(0), rows.std(0)
    oracle = RidgeCV(np.logspace(-3, 3, 7)).fit((rows - mean) / std, known)
    x = np.stack([x for x, _ in values(5)])
    got = told(fit_baselines(answer("regression"), pairs, count=3)["ridge"], x)
    wanted = oracle.predict((x[:, :, 0].transpose(0, 2, 3, 1).reshape(-1, 2) - mean) / std)
    np.testing.assert_allclose(got.ravel(), wanted, rtol=1e-3, atol=1e-2)
    truth = np.stack([y for _, y in values(5)])
    assert np.nanstd(got[:, 0] - truth) < 0.6


def test_frames_are_features_of_their_own(answer):
    """The class is which of two frames is the brighter: no single frame tells."""
    rng = np.random.default_rng(0)
    pairs = []
    for _ in range(3):
        x = rng.uniform(0, 1000, (1, 2, 16, 16)).astype(np.float32)
        pairs.append((x, (x[0, 0] > x[0, 1]).astype(np.int64)))
    x, y = pairs.pop()
    forest = fit_baselines(answer("segmentation"), pairs, count=2)["pixel forest"]
    assert (told(forest, x[None]).argmax(1)[0] == y).mean() > 0.9


def test_scenes_are_told_by_their_bands_statistics(answer):
    rng = np.random.default_rng(0)
    pairs = [(chip(rng, np.full((16, 16), k)), np.int64(k)) for k in (0, 1, 2, 0, 1, 0)]
    fitted = fit_baselines(answer("classification"), pairs, count=len(pairs))
    x = np.stack([chip(rng, np.full((16, 16), k)) for k in (2, 1, 0)])
    np.testing.assert_allclose(told(fitted["majority"], x), np.broadcast_to([3 / 6, 2 / 6, 1 / 6], (3, 3)), rtol=1e-6)
    forest = told(fitted["forest on band statistics"], x)
    assert forest.argmax(1).tolist() == [2, 1, 0]
    np.testing.assert_allclose(forest.sum(1), 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("task", "names"),
    [
        ("segmentation", ["majority", "pixel forest"]),
        ("regression", ["mean", "ridge"]),
        ("classification", ["majority", "forest on band statistics"]),
    ],
)
def test_the_simplest_comes_first_and_seeds_repeat(answer, task, names):
    if task == "classification":
        pairs = [(x, y.max()) for x, y in segmentation()]
    else:
        pairs = segmentation() if task == "segmentation" else values(0)
    first, again = (fit_baselines(answer(task), pairs, count=len(pairs), seed=4) for _ in range(2))
    assert list(first) == names
    x = np.stack([x for x, _ in pairs])
    for name in first:
        np.testing.assert_array_equal(told(first[name], x), told(again[name], x))


def test_no_more_pixels_are_drawn_than_allowed_and_from_every_sample(answer, monkeypatch):
    from models.baselines import pixels as baselines

    monkeypatch.setattr(baselines, "PIXELS", 30)
    pairs = [(np.full((2, 1, 16, 16), i, np.float32), np.full((16, 16), i)) for i in range(3)]
    predict = fit_baselines(answer("segmentation"), pairs, count=3)["majority"]
    np.testing.assert_allclose(told(predict, pairs[0][0][None])[0, :, 0, 0], [1 / 3] * 3, rtol=1e-6)
