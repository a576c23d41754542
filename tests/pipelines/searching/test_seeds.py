"""Better, or luck: the interval is that of other seeds and other groups."""

import numpy as np
import pytest

from pipelines.searching.seeds import Seeds, compared
from pipelines.searching.trial import COMPLETE, Told


def pairs_of(gains, *, score="mean_iou", base=0.5):
    """Two for each seed, whose groups differ by these gains (seeds, groups)."""
    groups = [base + 0.04 * g for g in range(np.shape(gains)[1])]

    def told(row):
        fold = {f"g{g}": float(value + gain) for g, (value, gain) in enumerate(zip(groups, row, strict=True))}
        return Told({}, COMPLETE, score, folds=(fold,))

    return {seed: (told(row), told(np.zeros_like(row))) for seed, row in enumerate(np.asarray(gains, float), 1)}


def test_a_gain_in_each_group_and_seed_is_better():
    pairs = pairs_of(np.full((3, 8), 0.1) + 0.01 * np.arange(8))
    found = Seeds(4, pairs, compared(list(pairs.values())))
    assert found.compared.gain == pytest.approx(0.135) and found.verdict == "better"
    assert found.told.startswith("With 3 other seeds: Trial 5 is ahead by 0.135 (0.1")
    low, high = found.compared.interval
    assert 0.1 <= low < 0.135 < high <= 0.17
    assert found.to_json()["means"]["1"] == [pytest.approx(0.775), pytest.approx(0.64)]


def test_the_interval_is_that_of_means_over_resampled_groups_where_seeds_agree():
    gains = np.random.default_rng(0).normal(0.05, 0.1, 30)
    low, high = compared(list(pairs_of(np.tile(gains, (2, 1))).values())).interval
    spread = 1.96 * gains.std() / np.sqrt(30)
    assert (low, high) == (
        pytest.approx(gains.mean() - spread, abs=0.006),
        pytest.approx(gains.mean() + spread, abs=0.006),
    )


def test_what_another_seed_would_have_turned_around_is_noise():
    """All groups agree, seeds do not: groups alone would be sure of it."""
    pairs = pairs_of([[0.2] * 10, [-0.1] * 10, [-0.02] * 10])
    found = Seeds(0, pairs, compared(list(pairs.values())))
    assert found.compared.gain == pytest.approx(0.08 / 3) and found.verdict == "noise"
    assert found.told.endswith("The difference is noise.")


def test_of_errors_less_is_better_and_few_groups_say_nothing():
    worse = pairs_of(np.full((2, 7), 0.1), score="rmse")
    found = Seeds(0, worse, compared(list(worse.values())))
    assert found.verdict == "worse" and found.told.startswith(
        "With 2 other seeds: The recipe as it came is ahead by 0.1"
    )
    few = pairs_of(np.full((2, 5), 0.1))
    assert Seeds(0, few, compared(list(few.values()))).verdict == "unclear"


def test_a_group_that_one_of_them_has_no_score_for_counts_for_none():
    pairs = pairs_of(np.full((2, 8), 0.1))
    pairs[2][1].folds[0]["g3"] = None
    assert compared(list(pairs.values())).groups == 7
