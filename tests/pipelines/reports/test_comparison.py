import numpy as np
import pytest

from models.baselines.fields import Forecast
from pipelines.reports.comparison import Comparison, over_groups
from pipelines.reports.weather_scores import compared

NAMES = [f"place {i}" for i in range(12)]


def scores(values):
    return dict(zip(NAMES, values, strict=False))


def test_the_gain_is_the_mean_over_groups_and_the_interval_that_of_the_paired_differences():
    """By scipy's bootstrap of the mean of the same differences."""
    from scipy.stats import bootstrap

    rng = np.random.default_rng(0)
    theirs = rng.uniform(0.4, 0.8, 12)
    gains = rng.normal(0.02, 0.02, 12)
    found = over_groups("accuracy", "forest", scores(theirs + gains), scores(theirs))
    assert found.gain == pytest.approx(gains.mean())
    wanted = bootstrap((gains,), np.mean, method="percentile", n_resamples=9999, random_state=1).confidence_interval
    assert found.interval == pytest.approx(tuple(wanted), abs=0.001)


def test_pairs_tell_what_means_alone_do_not():
    """Places differ by far more than the two models, one of which is a little better at each of them."""
    theirs = np.linspace(0.2, 0.9, 12)
    assert over_groups("mean_iou", "x", scores(theirs + 0.01), scores(theirs)).verdict == "ahead"
    assert over_groups("mean_iou", "x", scores(theirs), scores(theirs + 0.01)).verdict == "behind"
    mixed = theirs + 0.01 * np.tile([1, -1], 6)
    assert over_groups("mean_iou", "x", scores(mixed), scores(theirs)).verdict == "level"


def test_of_errors_less_is_better_and_of_a_bias_its_size():
    theirs = np.full(8, 2.0)
    assert over_groups("rmse", "x", scores(theirs - 0.5), scores(theirs)).gain == pytest.approx(0.5)
    assert over_groups("bias", "x", scores(-theirs), scores(theirs)).gain == pytest.approx(0.0)


def test_few_groups_say_nothing_however_clear_they_are():
    five, six = (over_groups("accuracy", "x", scores([0.9] * n), scores([0.1] * n)) for n in (5, 6))
    assert (five.verdict, five.interval) == ("unclear", None)
    assert five.told() == "5 groups are too few to say which is ahead."
    assert six.verdict == "ahead"
    assert Comparison("rmse", "x", 1.0, None, 1, "day").told("K") == "1 day is too few to say which is ahead."


def test_a_group_that_one_of_them_has_no_score_in_counts_for_neither():
    ours, theirs = scores([0.5] * 7 + [None]), scores([0.4] * 7 + [0.9])
    found = over_groups("accuracy", "x", ours, theirs)
    assert found.groups == 7 and found.gain == pytest.approx(0.1)
    assert over_groups("accuracy", "x", scores([None]), scores([None])).verdict == "unclear"


def test_verdicts_are_said_with_their_ends_and_units():
    ahead = Comparison("rmse", "ridge", 0.25, (0.1, 0.4), 8)
    assert ahead.told("mm/h") == "The model is ahead by 0.250 mm/h (0.100 to 0.400 with 95 %, 8 groups)."
    behind = Comparison("accuracy", "forest", -0.25, (-0.4, -0.1), 8)
    assert behind.told() == "The baseline is ahead by 0.250 (0.100 to 0.400 with 95 %, 8 groups)."
    level = Comparison("accuracy", "forest", 0.01, (-0.02, 0.04), 8)
    assert level.told() == "They are level (−0.020 to +0.040 with 95 %, 8 groups)."
    assert level.to_json()["verdict"] == "level"


def weather(days, gain, *, seed=0):
    """Truth, and two forecasts with errors of the same storms, of three hours a day."""
    rng = np.random.default_rng(seed)
    truth = rng.gamma(0.5, 2.0, (3 * days, 4, 5)).astype(np.float32)
    error = rng.normal(0, 1, truth.shape) * np.repeat(rng.gamma(2, 1, days), 3)[:, None, None]
    times = np.datetime64("2020-01-01T00", "s") + np.arange(3 * days) * np.timedelta64(8 * 3600, "s")
    ours, theirs = (Forecast.sure((truth + error * factor).astype(np.float32)) for factor in (1 - gain, 1.0))
    return ours, theirs, truth, np.ones((4, 5)), times


def test_a_forecast_is_compared_by_the_error_over_all_and_by_days():
    ours, theirs, truth, area, times = weather(30, 0.05)
    found = compared("ridge", ours, theirs, truth, area, times=times)
    wanted = [np.sqrt(((f.mean - truth) ** 2).mean()) for f in (theirs, ours)]
    assert found.gain == pytest.approx(wanted[0] - wanted[1], rel=1e-5)
    assert (found.verdict, found.groups, found.counted) == ("ahead", 30, "day")
    same = compared("ridge", theirs, theirs, truth, area, times=times)
    assert same.verdict == "level" and same.interval == pytest.approx((0, 0), abs=1e-12)
    assert compared("ridge", *weather(5, 0.5)[:4], times=weather(5, 0.5)[4]).verdict == "unclear"


def test_where_one_forecast_says_nothing_neither_is_asked():
    ours, theirs, truth, area, times = weather(8, 0.1)
    ours.mean[:12] = np.nan
    found = compared("ridge", ours, theirs, truth, area, times=times)
    assert found.groups == 4 and found.verdict == "unclear"
    ours.mean[:] = np.nan
    assert compared("ridge", ours, theirs, truth, area, times=times).groups == 0
