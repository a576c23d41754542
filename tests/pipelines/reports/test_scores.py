"""Scores against scikit-learn and numpy, and the promise that batches do not matter."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle

from models.errors import InputError, RunError
from models.spec import ClassDef
from pipelines.reports.scores import (
    ValueSums,
    area_rmse,
    class_scores,
    confusion_matrix,
    mean_iou_of,
    value_scores,
    value_sums,
)

CLASSES = tuple(
    ClassDef(code, name, "#102030") for code, name in ((10, "tree"), (20, "shrub"), (30, "grass"), (80, "water"))
)
K = len(CLASSES)
PAIRS = st.lists(st.tuples(st.integers(-1, K - 1), st.integers(0, K - 1)), min_size=1, max_size=60).map(
    lambda rows: np.array(rows, dtype=np.int64)
)
VALUES = st.lists(
    st.tuples(st.one_of(st.just(float("nan")), st.floats(-100, 100)), st.floats(-100, 100)), min_size=1, max_size=60
).map(lambda rows: np.array(rows, dtype=np.float64))


def approx(value):
    return pytest.approx(value, rel=1e-9, abs=1e-9)


@given(PAIRS)
def test_confusion_matrix_is_sklearns(pairs):
    kept = pairs[pairs[:, 0] >= 0]
    got = confusion_matrix(pairs[:, 0], pairs[:, 1], classes=K)
    if len(kept):
        np.testing.assert_array_equal(got, oracle.confusion_matrix(kept[:, 0], kept[:, 1], labels=range(K)))
    assert got.dtype == np.int64
    assert got.sum() == len(kept)


@given(PAIRS, st.integers(0, 60))
def test_confusion_of_batches_adds_up(pairs, cut):
    whole = confusion_matrix(pairs[:, 0], pairs[:, 1], classes=K)
    parts = [confusion_matrix(part[:, 0], part[:, 1], classes=K) for part in (pairs[:cut], pairs[cut:])]
    np.testing.assert_array_equal(whole, parts[0] + parts[1])


@settings(deadline=None)
@given(PAIRS.filter(lambda pairs: (pairs[:, 0] >= 0).any()))
def test_class_scores_are_sklearns(pairs):
    truth, predicted = pairs[pairs[:, 0] >= 0].T
    present = np.unique(truth)
    got = class_scores(confusion_matrix(truth, predicted, classes=K), CLASSES)
    assert got["n"] == truth.size
    assert got["accuracy"] == approx(oracle.accuracy_score(truth, predicted))
    mean = {"labels": present, "average": "macro", "zero_division": 0}
    assert got["mean_iou"] == approx(oracle.jaccard_score(truth, predicted, **mean))
    assert got["macro_f1"] == approx(oracle.f1_score(truth, predicted, **mean))
    assert got["balanced_accuracy"] == approx(oracle.recall_score(truth, predicted, **mean))
    for index, row in enumerate(got["per_class"]):
        assert row["support"] == (truth == index).sum()
        for name, score in (
            ("iou", oracle.jaccard_score),
            ("f1", oracle.f1_score),
            ("precision", oracle.precision_score),
            ("recall", oracle.recall_score),
        ):
            if row[name] is not None:
                assert row[name] == approx(score(truth == index, predicted == index, zero_division=0))
        assert (row["precision"] is None) == (not (predicted == index).any())
        assert (row["recall"] is None) == (not (truth == index).any())
        assert (row["iou"] is None) == (index not in truth and index not in predicted)


@given(PAIRS.filter(lambda pairs: len(set(pairs[pairs[:, 0] >= 0, 0])) > 1))
def test_kappa_is_sklearns(pairs):
    truth, predicted = pairs[pairs[:, 0] >= 0].T
    got = class_scores(confusion_matrix(truth, predicted, classes=K), CLASSES)["kappa"]
    assert got == approx(oracle.cohen_kappa_score(truth, predicted))


def test_kappa_of_a_country_does_not_overflow():
    confusion = np.diag([4_000_000_000, 1_000_000_000]).astype(np.int64)
    confusion[0, 1] = 1_000_000_000
    # By hand: accuracy 5/6; e = (5 * 4 + 1 * 2) / 36 = 22/36; kappa = (30 - 22) / (36 - 22) = 4/7.
    assert class_scores(confusion, CLASSES[:2])["kappa"] == approx(4 / 7)


def test_scores_of_nothing_are_none_and_json():
    got = class_scores(np.zeros((K, K), dtype=np.int64), CLASSES)
    assert got["n"] == 0
    assert [got[key] for key in ("accuracy", "mean_iou", "balanced_accuracy", "macro_f1", "kappa")] == [None] * 5
    assert json.loads(json.dumps(got, allow_nan=False)) == got


def test_class_scores_are_json():
    got = class_scores(np.arange(K * K, dtype=np.int64).reshape(K, K), CLASSES)
    assert json.loads(json.dumps(got, allow_nan=False)) == got
    assert [(row["code"], row["name"]) for row in got["per_class"]] == [(c.code, c.name) for c in CLASSES]


def test_mean_iou_of_some_codes_keeps_the_others_as_errors():
    confusion = np.array([[6, 2, 0, 0], [2, 4, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]])
    # By hand: tree 6 / 10; shrub 4 / 9, for the grass pixel taken for shrub still counts.
    assert mean_iou_of(confusion, CLASSES, [10, 20]) == approx((6 / 10 + 4 / 9) / 2)
    assert mean_iou_of(confusion, CLASSES, [20, 80]) == approx(4 / 9)
    assert mean_iou_of(confusion, CLASSES, [80]) is None
    assert mean_iou_of(confusion, CLASSES, [c.code for c in CLASSES]) == class_scores(confusion, CLASSES)["mean_iou"]
    alarm = np.array([[6, 0, 0, 2], [0, 4, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])  # water, where there is none
    assert mean_iou_of(alarm, CLASSES, [10, 80]) == approx(6 / 8) and mean_iou_of(alarm, CLASSES, [80]) is None
    with pytest.raises(InputError, match=r"\[7\].*\[10, 20, 30, 80\]"):
        mean_iou_of(confusion, CLASSES, [10, 7])


def test_confusion_refuses_label_codes_and_shapes():
    with pytest.raises(InputError, match=r"truth holds class indices 10\.\.20, wanted 0\.\.3"):
        confusion_matrix(np.array([10, 20]), np.array([0, 1]), classes=K)
    with pytest.raises(InputError, match="predicted holds class indices -1"):
        confusion_matrix(np.array([0, 1]), np.array([-1, 1]), classes=K)
    with pytest.raises(InputError, match=r"\(2,\).*\(3,\)"):
        confusion_matrix(np.zeros(2, int), np.zeros(3, int), classes=K)
    with pytest.raises(InputError, match=r"\(2, 2\) came, \(4, 4\)"):
        class_scores(np.zeros((2, 2), dtype=np.int64), CLASSES)


def test_confusion_of_bytes_does_not_wrap():
    """uint8 labels times the number of classes would wrap at 256."""
    truth = np.full((3, 5), 17, dtype=np.uint8)
    assert confusion_matrix(truth, truth, classes=20)[17, 17] == 15


@given(VALUES.filter(lambda rows: (~np.isnan(rows[:, 0])).any()))
def test_value_scores_are_sklearns(rows):
    truth, predicted = rows[~np.isnan(rows[:, 0])].T
    got = value_scores(value_sums(rows[:, 0], rows[:, 1]))
    assert got["n"] == truth.size
    assert got["rmse"] == approx(oracle.root_mean_squared_error(truth, predicted))
    assert got["mae"] == approx(oracle.mean_absolute_error(truth, predicted))
    assert got["bias"] == approx(np.mean(predicted - truth))
    if np.std(truth) > 1e-3:
        assert got["r2"] == approx(oracle.r2_score(truth, predicted))
        if np.std(predicted) > 1e-3:
            assert got["pearson_r"] == pytest.approx(np.corrcoef(truth, predicted)[0, 1], abs=1e-6)


@given(VALUES, st.integers(0, 60), st.integers(0, 60))
def test_value_sums_of_batches_add_up(rows, first, second):
    low, high = sorted((first, second))
    whole = value_scores(value_sums(rows[:, 0], rows[:, 1]))
    total = ValueSums()
    for part in (rows[:low], rows[low:high], rows[high:]):
        total += value_sums(part[:, 0], part[:, 1])
    got = value_scores(total)
    for key in ("n", "rmse", "mae", "bias"):
        assert got[key] == (None if whole[key] is None else approx(whole[key]))
    if whole["n"] and np.nanstd(rows[:, 0]) > 1e-3:
        assert got["r2"] == pytest.approx(whole["r2"], rel=1e-6, abs=1e-6)


def test_a_large_offset_does_not_eat_the_digits():
    rng = np.random.default_rng(0)
    truth = 1e8 + rng.normal(size=4000)
    predicted = truth + rng.normal(scale=0.5, size=4000)
    batches = zip(np.split(truth, 40), np.split(predicted, 40), strict=True)
    got = value_scores(sum((value_sums(t, p) for t, p in batches), ValueSums()))
    assert got["r2"] == pytest.approx(oracle.r2_score(truth, predicted), abs=1e-6)
    assert got["pearson_r"] == pytest.approx(np.corrcoef(truth, predicted)[0, 1], abs=1e-6)


def test_float32_is_summed_in_float64():
    truth, predicted = np.zeros((400, 500), np.float32), np.full((400, 500), 0.1, np.float32)
    assert value_scores(value_sums(truth, predicted))["mae"] == pytest.approx(float(np.float32(0.1)), rel=1e-12)


def test_undefined_value_scores_are_none():
    assert value_sums(np.array([np.nan]), np.array([1.0])) == ValueSums(*[0] * 9) == ValueSums()
    empty = value_scores(value_sums(np.array([np.nan]), np.array([1.0])))
    assert empty == {"n": 0, "rmse": None, "mae": None, "bias": None, "r2": None, "pearson_r": None}
    flat = value_scores(value_sums(np.array([3.0, 3.0]), np.array([4.0, 2.0])))
    assert (flat["rmse"], flat["r2"], flat["pearson_r"]) == (1.0, None, None)
    assert json.loads(json.dumps(flat, allow_nan=False)) == flat


@pytest.mark.parametrize("value", [0.1, 1 / 3, 273.15])
def test_equal_values_have_no_variance_whatever_the_rounding(value):
    total = ValueSums()
    for n in (3, 7, 11):
        total += value_sums(np.full(n, value), np.linspace(0, 1, n))
    assert (value_scores(total)["r2"], value_scores(total)["pearson_r"]) == (None, None)


def test_value_sums_refuse_holes():
    with pytest.raises(RunError, match="1 of 2 predicted values are not finite"):
        value_sums(np.array([1.0, 2.0, np.nan]), np.array([np.nan, 2.0, np.nan]))
    with pytest.raises(InputError, match="1 true values are infinite"):
        value_sums(np.array([np.inf, 2.0]), np.array([1.0, 2.0]))
    with pytest.raises(InputError, match="same shape"):
        value_sums(np.zeros(2), np.zeros(3))


def test_cells_count_by_their_area():
    truth = np.array([[1.0, 2.0], [3.0, np.nan]])
    predicted = np.array([[2.0, 2.0], [6.0, 5.0]])
    # By hand: (1 * 1 + 1 * 0 + 2 * 9) / (1 + 1 + 2), the cell without truth left out.
    assert area_rmse(predicted, truth, np.array([1.0, 2.0])) == approx((19 / 4) ** 0.5)
    assert area_rmse(predicted, truth + 1, np.array([1.0, 0.0])) == approx((1 / 2) ** 0.5)
    assert np.isnan(area_rmse(predicted, np.full((2, 2), np.nan), np.array([1.0, 2.0])))


def test_rounding_makes_no_correlation_beyond_one_and_small_variance_beside_a_large_mean_counts():
    for sign in (1, -1):
        beyond = ValueSums(n=2, truth_moment=2.0, predicted_moment=2.0, joint_moment=sign * 2.000001)
        assert value_scores(beyond)["pearson_r"] == sign
    # 10,000 values near 1e8 that differ by 1e-4: what is rounding there is 1e-5.
    small = ValueSums(n=10_000, truth_mean=1e8, truth_moment=1e-4, square_sum=5e-5)
    assert value_scores(small)["r2"] == approx(0.5)
