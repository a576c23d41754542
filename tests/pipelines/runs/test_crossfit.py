"""Cross-fitting: whoever tells of a group has never seen it; and what the tokens are worth."""

import csv
import dataclasses
import json

import numpy as np
import pytest
import torch

from models.bundle import load_network, read_bundle
from models.errors import InputError
from models.networks.assembly import predict_by
from pipelines.commands.evaluate import evaluate
from pipelines.runs import answers, crossfit, training
from pipelines.runs import finetune as runs
from pipelines.runs.finetune import finetune
from pipelines.runs.folder import Launch
from pipelines.runs.worth import tokens
from pipelines.samples.sets import inputs_of, key_of
from pipelines.tasks.task import prepare, task_named
from tests.rain_files import rain_recipe
from tests.runs import make_chips, tiny_recipe
from tests.unexported import unexported, unrendered, unrounded

FOLDS = 3
pytestmark = pytest.mark.usefixtures("unrendered")


@pytest.fixture(scope="session")
def grouped(made_once):
    """Chips of which two share a place, and another two."""

    def fill(root):
        make_chips(root, 9)
        groups = [0, 0, 1, 1, 2, 3, 4, 5, 6]
        (root / "groups.csv").write_text("chip,group\n" + "".join(f"c{i:02d}_hls,p{g}\n" for i, g in enumerate(groups)))

    return made_once("grouped_chips", fill)


def recipe_of(root, **changes):
    recipe = tiny_recipe(root, folds=FOLDS, **changes)
    training = dataclasses.replace(recipe.training, epochs=2, keep="best")
    return dataclasses.replace(recipe, training=training, data=dataclasses.replace(recipe.data, groups="groups.csv"))


@pytest.fixture(scope="session")
def crossed(grouped, made_once):
    """A run with folds, not to be changed: its folder, its result, and the samples that each training learned from."""

    def fill(out):
        seen, real = [], crossfit.train

        def watched(module, recipe, samples, chosen, *rest):
            seen.append(sorted(sample.name for sample in chosen))
            real(module, recipe, samples, chosen, *rest)

        with pytest.MonkeyPatch.context() as patch:
            for module in (crossfit, runs):
                patch.setattr(module, "train", watched)
            patch.setattr(runs, "write_graph", unexported)
            patch.setattr(runs, "rounding", unrounded)
            patch.setattr("pipelines.reports.report._rendered", unrendered)
            result = finetune(recipe_of(grouped), out / "run")
        (out / "seen.json").write_text(json.dumps({"result": result, "seen": seen}))

    out = made_once("crossed", fill)
    told = json.loads((out / "seen.json").read_text())
    return out / "run", told["result"], [set(names) for names in told["seen"]]


def shares_by_hand(out, recipe, samples, left):
    """The weight of the member of statistics that loses least on average over groups: of all, and without each fold."""
    losses = {}
    for fold, names in enumerate(left):
        network = training.trained(recipe, read_bundle(out).spec, out / "folds" / str(fold + 1))
        for chip in (c for c in samples.samples if c.name in names):
            with torch.no_grad():
                inputs = {key: torch.as_tensor(value)[None] for key, value in samples.item(chip).items()}
                tokens, statistics = network(inputs).softmax(2)[:, 0].numpy()
            truth = samples.truth(chip)[None]
            right = [np.take_along_axis(p, truth, 0)[0] for p in (tokens, statistics)]
            row = [-np.log((1 - s) * right[0] + s * right[1]).mean() for s in np.arange(11) / 10]
            losses.setdefault((fold, chip.group), []).append(row)

    def best(without):
        rows = [np.mean(found, 0) for (fold, _), found in losses.items() if fold != without]
        return float(np.mean(rows, 0).argmin() / 10)

    return {fold: best(fold) for fold in (None, *range(len(left)))}


def test_each_sample_is_told_of_by_a_model_that_never_saw_its_group(crossed, grouped):
    """Asked of the folds' own weights: each sample's kept answers are those of the network that left it out."""
    out, result, seen = crossed
    names = {f"c{i:02d}_hls" for i in range(9)}
    assert seen[-1] == names and len(seen) == FOLDS + 1  # the model of the folder learned from all
    left = [names - trained for trained in seen[:FOLDS]]
    assert set.union(*left) == names and sum(map(len, left)) == 9
    assert all(
        pair <= one or not pair & one for one in left for pair in ({"c00_hls", "c01_hls"}, {"c02_hls", "c03_hls"})
    )
    assert result["samples"] == 9 and result["model"]["n"] == 9 * 32 * 32
    found = np.load(out / answers.KEPT)
    samples = prepare(recipe_of(grouped))
    spec, recipe = read_bundle(out).spec, recipe_of(grouped)
    shares = shares_by_hand(out, recipe, samples, left)
    assert read_bundle(out).architecture.share == shares[None]
    for fold, names in enumerate(left):
        network = training.trained(recipe, spec, out / "folds" / str(fold + 1))
        network.share = shares[fold]
        places = np.flatnonzero(found["fold"] == fold)
        chips = sorted(names)
        assert len(places) == len(chips)
        for place, name in zip(places, chips, strict=True):
            chip = next(c for c in samples.samples if c.name == name)
            assert found["group"][place] == chip.group
            item = samples.item(chip)
            batch = {key: np.asarray(value)[None] for key, value in item.items()}
            answer = predict_by(network)(batch)[0]
            rows = found["sample"] == place
            np.testing.assert_allclose(found["answers"][rows], answer.reshape(3, -1).T, atol=2e-3)
            np.testing.assert_array_equal(found["truth"][rows], samples.truth(chip).ravel())


def test_the_scores_are_those_of_all_that_was_left_out(crossed):
    out, result, _ = crossed
    found = np.load(out / answers.KEPT)
    right = (found["answers"].argmax(1) == found["truth"]).mean()
    assert result["model"]["accuracy"] == pytest.approx(right, abs=2e-3)  # kept in half precision
    by_group = {}
    for name in set(found["group"]):
        rows = np.isin(found["sample"], np.flatnonzero(found["group"] == name))
        answer, truth = found["answers"][rows].argmax(1), found["truth"][rows]
        ious = [((answer == k) & (truth == k)).sum() / ((answer == k) | (truth == k)).sum() for k in set(truth)]
        by_group[str(name)] = np.mean(ious)
    compared = result["compared"]
    assert compared["groups"] == 7 and compared["score"] == "mean_iou" and compared["beside"] in result["baselines"]
    assert -1 <= compared["interval"][0] <= compared["gain"] <= compared["interval"][1] <= 1
    # Of the model at least the group's own scores are told again by the kept answers.
    assert np.mean(list(by_group.values())) - 1 <= compared["gain"] + 2e-3


def test_the_folder_holds_a_model_of_all_samples_and_says_so(crossed, tmp_path):
    out, _, _ = crossed
    bundle = read_bundle(out)
    assert bundle.training["divided"] == "9 samples (7 groups) in 3 folds"
    assert any("each asked about groups that it never saw" in note for note in bundle.training["notes"])
    with (out / "split.csv").open() as file:
        assert {row["split"] for row in csv.DictReader(file)} == {"train"}
    assert "9 samples (7 groups) in 3 folds" in (out / "report.html").read_text()
    assert not list(out.glob("folds/*/checkpoints"))
    load_network(out)
    again = evaluate(out, runtime="torch", out=tmp_path)
    assert again["samples"] == 9 and any("trained anew on all samples" in note for note in again["notes"])


def test_a_fold_that_was_trained_is_not_trained_again(grouped, crossed, torch_only, tmp_path, monkeypatch):
    """Cut off in the second fold, the run goes on there and ends as one that was never cut off."""
    recipe, whole = recipe_of(grouped), crossed[0]
    real, calls = crossfit.train, []

    def cut(*args):
        calls.append(args[4].name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        real(*args)

    monkeypatch.setattr(crossfit, "train", cut)
    with pytest.raises(KeyboardInterrupt):
        finetune(recipe, tmp_path / "cut")
    finetune(recipe, tmp_path / "cut", launch=Launch(resume=True))
    assert calls == ["1", "2", "2", "3"]
    for name in ("metrics.json", "folds/2/model.safetensors", "model.safetensors", "split.csv"):
        assert (tmp_path / "cut" / name).read_bytes() == (whole / name).read_bytes()
    result = finetune(recipe, tmp_path / "cut", launch=Launch(resume=True))  # has ended
    assert result["model"]["n"] == 9 * 32 * 32 and len(calls) == 4


def test_more_folds_than_groups_and_one_fold_are_refused_before_anything_is_made(grouped, tmp_path):
    with pytest.raises(InputError, match="folds 8: wanted 2 to 7, as many as there are groups"):
        finetune(dataclasses.replace(recipe_of(grouped), folds=8), tmp_path / "run")
    with pytest.raises(InputError, match="folds 1: wanted 2 or more"):
        finetune(dataclasses.replace(recipe_of(grouped), folds=1), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_weather_leaves_blocks_of_time_out_with_a_gap_on_either_side(rain_day):
    recipe = rain_recipe(rain_day)
    recipe = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, gap=2.0))
    samples = prepare(recipe)
    every = [samples.time(s) for s in samples.samples]
    told = []
    for index in range(3):
        samples.fold(3, index, seed=0)
        left, learned = ([samples.time(s) for s in samples.of(name)] for name in ("test", "train"))
        told += left
        assert left == sorted(left) and len(left) == pytest.approx(len(every) / 3, abs=1)
        # A sample at t tells of (t, t + 1 h]: two hours of gap leave three between the times.
        assert min(abs(a - b) for a in left for b in learned) == np.timedelta64(3, "h")
        assert len(left) + len(learned) + len(samples.of("")) == len(every)
    assert sorted(told) == sorted(every)
    samples.fold(3, None, seed=0)
    assert len(samples.of("train")) == len(every)
    with pytest.raises(InputError, match="as many as there are times"):
        samples.fold(1000, 0, seed=0)


def test_rain_is_cross_fitted_too(rain_day, torch_only, tmp_path):
    recipe = rain_recipe(rain_day)
    training = dataclasses.replace(recipe.training, epochs=1)
    result = finetune(dataclasses.replace(recipe, training=training, folds=2, refit=False), tmp_path / "run")
    found = np.load(tmp_path / "run" / answers.KEPT)
    levels = read_bundle(tmp_path / "run").spec.field.levels
    assert found["answers"].shape == (len(found["truth"]), len(levels)) and set(found["fold"]) == {0, 1}
    assert found["answers"].dtype == np.float32 and (np.diff(found["answers"], axis=1) >= 0).all()
    assert result["compared"]["groups"] == 1 and result["compared"]["verdict"] == "unclear"
    assert result["tokens"]["score"] == "rmse"


def test_tokens_at_zero_are_the_network_with_zeros_for_maps(run, chips):
    bundle = read_bundle(run)
    task = task_named("segmentation")
    samples = task.reopen(bundle.spec, tiny_recipe(chips).data)
    network = load_network(run)
    asked = tokens.tellers(task, network)
    chosen = samples.samples[:3]
    inputs = {name: torch.from_numpy(a) for name, a in inputs_of(samples, chosen).items()}
    with torch.no_grad():
        maps = network.features(inputs)
        zero = network.finish(network(inputs, features=[torch.zeros_like(m) for m in maps])).numpy()
        plain = network.finish(network(inputs)).numpy()
    np.testing.assert_allclose(asked[tokens.ZEROED](samples, chosen), zero, atol=1e-6)
    np.testing.assert_allclose(asked[tokens.AS_IS](samples, chosen), plain, atol=1e-6)  # nothing stays behind
    others = tokens.others(samples, chosen)
    assert all(samples.group(a) != samples.group(b) for a, b in zip(chosen, others, strict=True))
    swapped = asked[tokens.SWAPPED](samples, chosen)
    with torch.no_grad():
        borrowed = network.features({name: torch.from_numpy(a) for name, a in inputs_of(samples, others).items()})
        wanted = network.finish(network(inputs, features=borrowed)).numpy()
    np.testing.assert_allclose(swapped, wanted, atol=1e-6)
    assert np.abs(swapped - plain).max() > 1e-4
    assert len({key_of(samples, s) for s in others}) == 3


def test_a_report_says_what_the_tokens_are_worth(run):
    metrics = json.loads((run / "metrics.json").read_text())
    worth = metrics["tokens"]
    assert set(worth["scores"]) == set(tokens.TELLERS) and worth["scores"][tokens.AS_IS] is not None
    gain = worth["compared"][tokens.ZEROED]["gain"]
    assert f"{abs(gain):.3f}" in worth["told"] and worth["told"].startswith("Tokens: ")
    assert worth["told"] in (run / "report.html").read_text()
