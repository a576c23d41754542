"""Each trial is one process's, whoever else searches in the folder, and whatever was killed before."""

import json
import warnings
from contextlib import ExitStack

import pytest

from models.errors import InputError
from pipelines.searching.space import Range
from pipelines.searching.study import JOURNAL, Study, best_of, importances
from pipelines.searching.trial import COMPLETE, FAILED, PRUNED, Told, write_told

SPACE = {
    "training.lr": Range(1e-4, 1e-1, log=True),
    "model.channels": Range(2, 9),
    "mode": ("frozen", "full"),
    "model.blocks": ([0, 1], [2], None),
}
FIRST = {"training.lr": 0.01, "mode": "full", "model.blocks": [2]}


def opened(out, **changes):
    out.mkdir(parents=True, exist_ok=True)
    return Study(out, SPACE, **{"name": "a search", "storage": "", "seed": 3, "first": FIRST, **changes})


def told_of(params, *scores, state=COMPLETE, name="mean_iou"):
    """Scores of groups, all of one fold."""
    return Told(params, state, name, folds=({f"g{i}": score for i, score in enumerate(scores)},))


def tried(study, total, *, state=COMPLETE, scores=(0.5, 0.6)):
    """Do a trial; its number and what it tried."""
    with study.claim(total) as trial:
        if trial is None:
            return None
        params = study.suggested(trial)
        told = told_of(params, *scores, state=state)
        write_told(study.folder(trial.number), told)
        study.tell(trial, told)
        return trial.number, params


def test_the_first_trial_is_the_recipe_as_it_came(tmp_path):
    _, params = tried(opened(tmp_path), 1)
    assert {key: params[key] for key in FIRST} == FIRST and 2 <= params["model.channels"] <= 9
    assert isinstance(params["model.channels"], int)


def test_processes_share_trials_and_the_number_wanted(tmp_path):
    """Two at once, each with a view of its own, as two processes have it."""
    one, two = (opened(tmp_path / "out") for _ in range(2))
    with ExitStack() as held:
        trials = [held.enter_context(study.claim(3)) for study in (one, two, one, two)]
        assert [trial and trial.number for trial in trials] == [0, 1, 2, None]
        drawn = [study.suggested(trial) for study, trial in zip((one, two, one), trials, strict=False)]
        assert len({json.dumps(params) for params in drawn}) == 3
        one.tell(trials[0], told_of(drawn[0], 0.5))
        with two.claim(3) as other:
            assert other is None  # those under way are counted, and held
    # The other two were left without an end.
    assert sorted(tried(study, 3)[0] for study in (two, one)) == [1, 2]
    assert tried(one, 3) is None and tried(two, 4)[0] == 3
    assert sorted(two.known()) == [0, 1, 2, 3]


def test_trials_in_a_database_are_claimed_alike(tmp_path):
    study = opened(tmp_path / "out", storage=f"sqlite:///{tmp_path}/study.db")
    with study.claim(2) as one, study.claim(2) as two, study.claim(2) as three:
        assert (one.number, two.number, three) == (0, 1, None)
        study.tell(two, told_of(study.suggested(two), 0.5))
    with study.claim(2) as again:
        assert again.number == 0
    assert not (tmp_path / "out" / JOURNAL).exists()


def test_a_trial_that_was_cut_off_is_gone_on_with(tmp_path):
    with opened(tmp_path).claim(5) as trial:
        asked = opened(tmp_path)  # nothing is suggested yet: it was killed at once
    with asked.claim(5) as trial:
        drawn = asked.suggested(trial)
        write_told(asked.folder(0), told_of(drawn, 0.4, 0.2, state="running"))
        asked.hopeless(trial, told_of(drawn, 0.4, state="running"))  # of the second group Optuna never heard
    again = opened(tmp_path)
    with again.claim(5) as trial:
        assert trial.number == 0 and again.suggested(trial) == drawn
        again.tell(trial, told_of(drawn, 0.4, 0.2))
    (frozen,) = again.study.get_trials(states=None)
    assert frozen.value == pytest.approx(0.3) and frozen.intermediate_values == {0: 0.4, 1: 0.2}
    with again.claim(5) as trial:
        assert trial.number == 1


def test_what_is_tried_follows_from_seed_number_and_history(tmp_path):
    a, b = ([tried(opened(tmp_path / name), 6)[1] for _ in range(6)] for name in "ab")
    c = [tried(opened(tmp_path / "c", seed=4), 6)[1] for _ in range(6)]
    assert a == b and a[1:] != c[1:] and len({json.dumps(params) for params in a}) == 6


def test_who_is_worse_by_groups_is_stopped_and_who_is_not_goes_on(tmp_path):
    study = opened(tmp_path)
    tried(study, 9, scores=[0.5, 0.9, 0.1, 0.7, 0.3, 0.6])
    with study.claim(9) as trial:
        params = study.suggested(trial)
        worse = told_of(params, 0.4, 0.85, 0.05, 0.5)  # in each group, though groups differ far more
        assert study.hopeless(trial, worse)
        study.tell(trial, Told(params, PRUNED, "mean_iou", folds=worse.folds))
    with study.claim(9) as trial:
        assert not study.hopeless(trial, told_of(study.suggested(trial), 0.4, 0.95, 0.2, 0.6))
        study.tell(trial, Told({}, FAILED, error="no memory"))
    assert [frozen.state.name for frozen in study.study.get_trials()] == ["COMPLETE", "PRUNED", "FAIL"]


def test_of_errors_less_is_better(tmp_path):
    known = {n: told_of({}, score, name="rmse") for n, score in enumerate((2.0, 1.0, 3.0))}
    assert best_of(known) == 1 and best_of({0: Told({})}) is None
    assert best_of({**known, 3: told_of({}, 0.1, state=PRUNED, name="rmse")}) == 1
    study = opened(tmp_path)
    with study.claim(2) as trial:
        study.tell(trial, told_of(study.suggested(trial), 2.0, 4.0, name="rmse"))
    assert study.study.best_value == -3.0


def test_groups_without_a_score_leave_the_others_where_they_are():
    one = Told({}, folds=({"a": 0.5, "b": None}, {"a": 0.25, "c": float("nan"), "d": 1.0}), score="mean_iou")
    assert one.ranks == {0: 0.5, 2: 0.25, 4: 1.0}
    assert one.groups == {"a": 0.5, "a, fold 2": 0.25, "d": 1.0} and one.mean == pytest.approx(1.75 / 3)


def test_a_line_that_was_cut_off_in_the_journal_is_taken_off(tmp_path):
    study = opened(tmp_path)
    tried(study, 2)
    whole = (tmp_path / JOURNAL).read_bytes()
    (tmp_path / JOURNAL).write_bytes(whole + b'{"op_code":4,"stu')
    assert tried(opened(tmp_path), 2)[0] == 1
    assert (tmp_path / JOURNAL).read_bytes().startswith(whole + b'{"op_code":') and sorted(study.known()) == [0, 1]
    (tmp_path / JOURNAL).write_bytes(b"not a journal\n")
    with pytest.raises(InputError, match="damaged"):
        opened(tmp_path)


def test_a_database_that_is_none_is_one_line(tmp_path):
    for url in ("nowhere", "sqlite:////no/such/folder/study.db", "postgresql://me:secret@127.0.0.1:1/x"):
        with pytest.raises(InputError, match="--storage") as error:
            opened(tmp_path, storage=url)
        assert "secret" not in str(error.value)


def test_what_mattered_is_the_setting_that_moves_the_score(tmp_path):
    study = opened(tmp_path)
    for number in range(10):
        assert number > 7 or importances(study.study) == {}
        with study.claim(10) as trial:
            params = study.suggested(trial)
            study.tell(trial, told_of(params, 0.1 * params["model.channels"]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = importances(study.study)
    assert max(found, key=found.get) == "model.channels" and sum(found.values()) == pytest.approx(1)
