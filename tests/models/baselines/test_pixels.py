from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import RidgeCV

from models.baselines import pixels as baselines
from tests import small

CHANNELS = ("RED", "NIR_NARROW", "BLUE")
LEVELS = np.array([[500, 2000], [1500, 1000], [2500, 3000]])  # (classes, bands)


@pytest.fixture(autouse=True)
def whole(monkeypatch):
    """Models of their own size, none of them fitted before."""
    for name, value in small.WHOLE[baselines].items():
        monkeypatch.setattr(baselines, name, value)
    baselines._kept.clear()


@pytest.fixture
def fit(make_spec):
    """Fit the baselines of a task on pairs of bands (C, T, H, W) and truth."""

    def fitted(task, pairs, *, seed=0):
        spec = make_spec(task)
        samples = (({"imagery": x}, y) for x, y in pairs)
        count = len(pairs[0][0])
        pixels = replace(spec.imagery, channels=CHANNELS[:count], mean=(0.0,) * count, std=(1.0,) * count)
        return baselines.fit_baselines(spec.answer, pixels, samples, count=len(pairs), seed=seed)

    return fitted


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


def test_majority_answers_the_share_of_each_class_everywhere(fit):
    pairs = segmentation()
    predict = fit("segmentation", pairs)["majority"]
    labels = np.concatenate([y[y >= 0] for _, y in pairs])
    share = np.array([(labels == k).mean() for k in range(3)])
    y = told(predict, np.zeros((2, 2, 1, 8, 24), np.float32))
    assert y.shape == (2, 3, 8, 24) and y.dtype == np.float32
    np.testing.assert_allclose(y, np.broadcast_to(share[:, None, None], y.shape), rtol=1e-6)


def test_a_forest_beats_the_majority_where_bands_tell_classes_apart(fit):
    train, test = segmentation(), segmentation(seed=9)
    fitted = fit("segmentation", train)
    x, truth = (np.stack([pair[i] for pair in test]) for i in (0, 1))
    known = truth >= 0
    right = {name: (told(predict, x).argmax(1) == truth)[known].mean() for name, predict in fitted.items()}
    assert right["pixel forest"] > 0.97
    assert right["majority"] < 0.5
    np.testing.assert_allclose(told(fitted["pixel forest"], x).sum(1), 1, rtol=1e-5)


def test_pixels_without_a_label_are_left_out(fit):
    pairs = segmentation()
    wild = [(np.where(y < 0, 1e6, x[:, 0])[:, None].astype(np.float32), y) for x, y in pairs]
    x = np.stack([x for x, _ in segmentation(seed=9)])
    plain, other = (fit("segmentation", p, seed=3) for p in (pairs, wild))
    for name in ("majority", "pixel forest"):  # what surrounds a pixel is seen whether it is labelled or not
        np.testing.assert_array_equal(told(plain[name], x), told(other[name], x))


def test_a_class_never_seen_has_probability_zero(fit):
    pairs = segmentation(classes=2)
    x = np.stack([x for x, _ in segmentation(seed=9)])
    for predict in fit("segmentation", pairs).values():
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


def test_the_mean_is_that_of_the_known_values(fit):
    pairs = values(0)
    predict = fit("regression", pairs)["mean"]
    known = np.concatenate([y[np.isfinite(y)] for _, y in pairs])
    y = told(predict, np.zeros((2, 2, 1, 4, 5), np.float32))
    assert y.shape == (2, 1, 4, 5)
    np.testing.assert_allclose(y, known.mean(dtype=np.float64), rtol=1e-5)


def test_ridge_is_scikit_learns_on_standardised_bands(fit):
    pairs = values(0)
    rows = np.concatenate([x[:, 0][:, np.isfinite(y)].T for x, y in pairs]).astype(np.float64)
    known = np.concatenate([y[np.isfinite(y)] for _, y in pairs])
    mean, std = rows.mean(0), rows.std(0)
    oracle = RidgeCV(np.logspace(-3, 3, 7)).fit((rows - mean) / std, known)
    x = np.stack([x for x, _ in values(5)])
    got = told(fit("regression", pairs)["ridge"], x)
    wanted = oracle.predict((x[:, :, 0].transpose(0, 2, 3, 1).reshape(-1, 2) - mean) / std)
    np.testing.assert_allclose(got.ravel(), wanted, rtol=1e-3, atol=1e-2)
    truth = np.stack([y for _, y in values(5)])
    assert np.nanstd(got[:, 0] - truth) < 0.6


def test_frames_are_features_of_their_own(fit):
    """The class is which of two frames is the brighter: no single frame tells."""
    rng = np.random.default_rng(0)
    pairs = []
    for _ in range(3):
        x = rng.uniform(0, 1000, (1, 2, 16, 16)).astype(np.float32)
        pairs.append((x, (x[0, 0] > x[0, 1]).astype(np.int64)))
    x, y = pairs.pop()
    forest = fit("segmentation", pairs)["pixel forest"]
    assert (told(forest, x[None]).argmax(1)[0] == y).mean() > 0.9


def test_scenes_are_told_by_their_bands_statistics(fit):
    rng = np.random.default_rng(0)
    pairs = [(chip(rng, np.full((16, 16), k)), np.int64(k)) for k in (0, 1, 2, 0, 1, 0)]
    fitted = fit("classification", pairs)
    x = np.stack([chip(rng, np.full((16, 16), k)) for k in (2, 1, 0)])
    np.testing.assert_allclose(told(fitted["majority"], x), np.broadcast_to([3 / 6, 2 / 6, 1 / 6], (3, 3)), rtol=1e-6)
    forest = told(fitted["forest on band statistics"], x)
    assert forest.argmax(1).tolist() == [2, 1, 0]
    np.testing.assert_allclose(forest.sum(1), 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("task", "names"),
    [
        ("segmentation", ["majority", "pixel forest", "boosting on neighbourhoods"]),
        ("regression", ["mean", "ridge", "boosting on neighbourhoods"]),
        (
            "classification",
            ["majority", "forest on band statistics", "logistic regression on statistics", "boosting on statistics"],
        ),
    ],
)
def test_the_simplest_comes_first_and_seeds_repeat(fit, task, names):
    if task == "classification":
        pairs = [(x, np.int64(i % 3)) for i, (x, _) in enumerate(segmentation())]
    else:
        pairs = segmentation() if task == "segmentation" else values(0)
    first, again = (fit(task, pairs, seed=4) for _ in range(2))
    assert list(first) == names
    x = np.stack([x for x, _ in pairs])
    for name in first:
        one = told(first[name], x)
        baselines._kept.clear()
        np.testing.assert_array_equal(one, told(again[name], x))


def test_the_same_samples_are_learned_from_once_and_others_anew(fit, monkeypatch):
    fits, real = [], baselines._forest
    monkeypatch.setattr(baselines, "_forest", lambda *given: fits.append(1) or real(*given))
    pairs, name = segmentation(), "pixel forest"
    x = np.stack([x for x, _ in pairs])
    one = told(fit("segmentation", pairs)[name], x)
    again = fit("segmentation", segmentation())
    np.testing.assert_array_equal(told(again[name], x), one)
    told(again["boosting on neighbourhoods"], x)  # which is another model
    assert len(fits) == 1
    other = [(x, np.where(y < 0, y, 2 - y)) for x, y in pairs]  # the same bands
    moved = [(x + 1, y) for x, y in pairs]
    told(fit("segmentation", pairs, seed=1)[name], x)
    told(fit("segmentation", moved)[name], x)
    np.testing.assert_allclose(told(fit("segmentation", other)[name], x)[:, ::-1], one, atol=0.2)
    assert len(fits) == 4
    assert len(baselines._kept) == baselines.KEPT
    told(again[name], x)  # whoever has a model keeps it
    assert len(fits) == 4
    told(fit("segmentation", pairs)[name], x)  # no longer among the last
    assert len(fits) == 5


def test_no_more_pixels_are_drawn_than_allowed_and_from_every_sample(fit, monkeypatch):
    monkeypatch.setattr(baselines, "PIXELS", 30)
    pairs = [(np.full((2, 1, 16, 16), i, np.float32), np.full((16, 16), i)) for i in range(3)]
    predict = fit("segmentation", pairs)["majority"]
    np.testing.assert_allclose(told(predict, pairs[0][0][None])[0, :, 0, 0], [1 / 3] * 3, rtol=1e-6)


def test_boosting_tells_by_the_neighbourhood_what_no_pixel_tells(fit):
    """Left half smooth, right half rough, with the same mean; which half is which changes from chip to chip."""
    rng = np.random.default_rng(0)

    def halves(swap):
        rough = np.zeros((48, 48), bool)
        rough[:, 24:] = True
        rough = rough ^ swap
        x = 1500 + rng.normal(0, 1, (2, 1, 48, 48)) * np.where(rough, 400, 100)
        return x.astype(np.float32), rough.astype(np.int64)

    fitted = fit("segmentation", [halves(i % 2 == 1) for i in range(2)])
    x, y = halves(True)
    right = {name: float((told(predict, x[None]).argmax(1)[0] == y).mean()) for name, predict in fitted.items()}
    assert right["boosting on neighbourhoods"] > 0.95
    assert right["pixel forest"] < 0.9


@pytest.mark.parametrize("task", ["regression", "classification"])
def test_the_day_of_year_is_known_where_dates_are(make_spec, task):
    """Bands say nothing, and the day all."""
    rng, spec, samples = np.random.default_rng(0), make_spec(task), []
    for day in (15, 196, 20, 190, 5, 200) * 4:
        x, late = rng.normal(1500, 100, (3, 1, 16, 16)).astype(np.float32), day > 100
        y = np.int64(late) if task == "classification" else np.full((16, 16), 10.0 * late, np.float32)
        samples.append(({"imagery": x, "time": np.array([[2020, day]], np.float32)}, y))
    fitted = baselines.fit_baselines(spec.answer, spec.imagery, samples, count=24)
    x = rng.normal(1500, 100, (2, 3, 1, 16, 16)).astype(np.float32)
    for name in list(fitted)[1:-1]:  # boosting wants more samples
        answers = fitted[name]({"imagery": x, "time": np.array([[[2021, 10]], [[2021, 195]]], np.float32)})
        early, late = answers[:, 1] if task == "classification" else answers.mean((1, 2, 3))
        assert late - early > (0.15 if task == "classification" else 7)


def test_where_one_class_is_all_there_is_it_is_the_answer(fit):
    pairs = [(x, np.where(y < 0, -1, 1)) for x, y in segmentation(2)]
    for predict in fit("segmentation", pairs).values():
        assert (told(predict, pairs[0][0][None]).argmax(1) == 1).all()
    scenes = [(x, np.int64(2)) for x, _ in pairs]
    for predict in fit("classification", scenes).values():
        np.testing.assert_array_equal(told(predict, pairs[0][0][None]), [[0, 0, 1]])
