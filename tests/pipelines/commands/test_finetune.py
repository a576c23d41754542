"""A whole run: what it writes, that it repeats, that it survives being killed, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from models.bundle import load_network, read_bundle
from models.errors import InputError
from models.spec import ClassDef
from models.training.module import FineTuning
from models.training.settings import Architecture, Training
from pipelines.commands.evaluate import evaluate
from pipelines.records.attempts import read_records
from pipelines.records.label import summed
from pipelines.runs import finetune as module
from pipelines.runs import training
from pipelines.runs.finetune import finetune
from pipelines.runs.folder import Launch, read_curves
from tests.runs import TINY, make_chip, make_chips, tiny_recipe, write

ROOT = Path(__file__).parents[3]
SHORT = Training(epochs=1, batch=4, lr=1e-3, precision="32-true")
pytestmark = pytest.mark.usefixtures("unrendered")


def test_run_folder_holds_what_the_design_says(run):
    names = {path.name for path in run.iterdir()}
    files = "bundle.json model.safetensors model.onnx recipe.yaml metrics.csv metrics.json report.html checkpoints"
    assert set(files.split()) <= names
    assert not [name for name in names if name.startswith(".")]
    bundle = read_bundle(run)
    assert bundle.base.source == "random" and bundle.whole
    assert bundle.spec.imagery.uses_time and bundle.spec.imagery.uses_location and bundle.spec.imagery.pixel == 30.0
    assert bundle.scores["accuracy"] > 0.9 > bundle.baselines["majority"]["accuracy"]
    assert len((run / "metrics.csv").read_text().splitlines()) == 1 + 12


def test_the_bar_counts_epochs_as_the_log_does_and_tells_no_version():
    from types import SimpleNamespace

    from pipelines.runs.folder import _progress_bar

    bar = _progress_bar()
    bar._trainer = SimpleNamespace(max_epochs=7)
    assert bar._get_train_description(0) == "epoch 1 of 7"
    trainer = SimpleNamespace(loggers=[SimpleNamespace(version=3)], progress_bar_metrics={"train_loss": 0.5})
    assert bar.get_metrics(trainer, None) == {"train_loss": 0.5}


def test_recipe_of_a_run_is_a_recipe(run):
    from pipelines.tasks.task import load_recipe

    recipe = load_recipe(run / "recipe.yaml")
    assert recipe.to_json() == yaml.safe_load((run / "recipe.yaml").read_text())


@pytest.mark.usefixtures("torch_only")
def test_same_seed_gives_the_same_bundle_and_another_seed_does_not(chips, tmp_path):
    for name in ("a", "b"):
        finetune(tiny_recipe(chips, training=SHORT, seed=3), tmp_path / name)
    for file in ("model.safetensors", "bundle.json", "metrics.csv"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    one, other = (module.build(tiny_recipe(chips, seed=seed), read_bundle(tmp_path / "a").spec)[0] for seed in (3, 4))
    assert not torch.equal(one.head.decoder.body.conv.weight, other.head.decoder.body.conv.weight)


@pytest.mark.usefixtures("torch_only")
def test_killed_run_resumes_to_the_same_end(chips, tmp_path):
    training = dataclasses.replace(SHORT, epochs=12, ema=0.9, keep="last")
    recipe = tiny_recipe(chips, training=training)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe.to_json()))
    command = [sys.executable, "-m", "tests.small", "finetune", tmp_path / "recipe.yaml", "--out", tmp_path / "cut"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)
    log, limit = tmp_path / "cut" / "metrics.csv", time.monotonic() + 120
    while not (log.is_file() and len(log.read_text().splitlines()) > 4):
        assert process.poll() is None and time.monotonic() < limit, "ended before it could be killed"
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "cut" / "bundle.json").exists()
    with pytest.raises(InputError, match="exists already; --resume"):
        finetune(recipe, tmp_path / "cut")
    with pytest.raises(InputError, match="another training"):
        finetune(dataclasses.replace(recipe, training=SHORT), tmp_path / "cut", launch=Launch(resume=True))
    split = (tmp_path / "cut" / "split.csv").read_text()
    (tmp_path / "cut" / "split.csv").write_text(split.replace(",test", ",train"))
    with pytest.raises(InputError, match="others than when the run was begun"):
        finetune(recipe, tmp_path / "cut", launch=Launch(resume=True))
    (tmp_path / "cut" / "split.csv").write_text(split)
    finetune(recipe, tmp_path / "cut", launch=Launch(resume=True), name="recipe")
    finetune(recipe, tmp_path / "whole", name="recipe")
    cut, whole = (load_file(tmp_path / name / "model.safetensors") for name in ("cut", "whole"))
    assert all(torch.equal(cut[key], whole[key]) for key in whole)
    curves = [read_curves(tmp_path / name / "metrics.csv") for name in ("cut", "whole")]
    assert len(curves[0]) == 12 and all(a == pytest.approx(b, rel=1e-5) for a, b in zip(*curves, strict=True))
    attempts = read_records(tmp_path / "cut")
    label = summed(attempts)
    assert label["attempts"] == 2 and all(record["whole"]["cpu"] > 0.5 for record in attempts)
    assert label["phases"]["epochs"]["cpu_s"] > 0 and label["samples"] > 6
    assert sum(p["cpu_s"] for p in label["phases"].values()) == pytest.approx(label["cpu_s"], rel=0.01)
    assert "What it cost" in (tmp_path / "cut" / "report.html").read_text()
    said: list[str] = []
    finetune(recipe, tmp_path / "cut", launch=Launch(resume=True, say=said.append))
    assert "ended already" in said[0] and read_records(tmp_path / "cut") == attempts


@pytest.mark.usefixtures("torch_only")
def test_a_run_killed_while_it_is_trained_anew_resumes_to_the_same_end(chips, tmp_path, monkeypatch):
    import lightning

    from pipelines.runs import assess

    told: list[str] = []
    monkeypatch.setattr(assess, "write_report", lambda *_, notes, **__: told.extend(notes))
    recipe = tiny_recipe(chips, training=dataclasses.replace(SHORT, epochs=2), refit=True)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    finetune(recipe, whole)

    class Cut(lightning.Callback):
        def on_train_epoch_start(self, trainer, _):
            if trainer.current_epoch == 1 and trainer.default_root_dir == str(cut / "refit"):
                raise InputError("cut off")

    start = lightning.Trainer.fit
    with monkeypatch.context() as patch:
        patch.setattr(
            lightning.Trainer, "fit", lambda self, *a, **k: (self.callbacks.append(Cut()), start(self, *a, **k))
        )
        with pytest.raises(InputError, match="cut off"):
            finetune(recipe, cut)
    held_out = read_bundle(cut)
    assert not held_out.training["refit"] and not held_out.scores
    finetune(recipe, cut, launch=Launch(resume=True, say=told.append))
    assert f"going on from {cut / 'refit' / 'checkpoints' / 'last.ckpt'}" in told
    for file in ("model.safetensors", "bundle.json", "metrics.json"):
        assert (cut / file).read_bytes() == (whole / file).read_bytes()
    bundle = read_bundle(cut)
    assert bundle.training["refit"] and bundle.sha256 != held_out.sha256
    assert bundle.scores == json.loads((cut / "metrics.json").read_text())["model"]
    finetune(recipe, cut, launch=Launch(resume=True, say=told.append))
    assert "ended already" in told[-1]
    result = evaluate(cut, out=tmp_path / "scores", runtime="torch")
    assert "trained anew on all samples, these too" in told[-1]
    assert result["samples"] == bundle.training["split"]["test"]


@pytest.mark.parametrize("refit", [False, True])
def test_another_process_takes_its_share_of_each_training_and_writes_nothing(chips, tmp_path, monkeypatch, refit):
    from types import SimpleNamespace

    shares: list[int] = []
    monkeypatch.setattr(module, "train", lambda _, __, ___, chosen, *____: shares.append(len(chosen)))
    monkeypatch.setattr(training.FineTuning, "trainer", SimpleNamespace(is_global_zero=False))
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert finetune(tiny_recipe(chips, training=SHORT, refit=refit), tmp_path / "run") == {}
    assert shares == [6, 12][: 1 + refit] and not (tmp_path / "run").exists()


@pytest.mark.usefixtures("torch_only")
def test_frozen_mode_leaves_the_backbone_and_runs_it_once_per_chip(chips, tmp_path, monkeypatch):
    from models.networks.network import Network

    seen, forward = [], Network.features

    def counted(self, inputs):
        if type(count := inputs["imagery"].shape[0]) is int:  # a symbol while the model is exported
            seen.append(count)
        return forward(self, inputs)

    monkeypatch.setattr(Network, "features", counted)
    recipe = tiny_recipe(chips, mode="frozen", training=dataclasses.replace(SHORT, epochs=5))
    finetune(recipe, tmp_path / "frozen")
    trained = seen[: next(i for i, total in enumerate(np.cumsum(seen)) if total >= 9) + 1]
    assert sum(trained) == 6 + 3  # each training and validation chip once, not once an epoch
    torch.manual_seed(recipe.seed)
    fresh = Network(read_bundle(tmp_path / "frozen").spec, recipe.backbone, recipe.model).backbone.state_dict()
    kept = load_network(tmp_path / "frozen").backbone.state_dict()
    assert all(torch.equal(fresh[key], kept[key]) for key in fresh)


@pytest.mark.usefixtures("torch_only")
def test_lora_run_merges_into_plain_layers(chips, tmp_path):
    finetune(tiny_recipe(chips, mode="lora", training=SHORT), tmp_path / "lora")
    state = load_file(tmp_path / "lora" / "model.safetensors")
    assert not [key for key in state if key.endswith((".up", ".down"))]


@pytest.mark.usefixtures("torch_only")
def test_options_of_training_run(chips, tmp_path):
    training = dataclasses.replace(
        SHORT, epochs=3, accumulate=2, patience=1, class_weights=1.0, loss={"ce": 1.0, "dice": 1.0, "focal": 1.0}
    )
    finetune(tiny_recipe(chips, training=training), tmp_path / "run")
    assert read_bundle(tmp_path / "run").training["epochs"] <= 3


def _with(recipe, part, **changes):
    return dataclasses.replace(recipe, **{part: dataclasses.replace(getattr(recipe, part), **changes)})


REFUSED = {
    "no such folder": lambda r, tmp: _with(r, "data", root=tmp / "nowhere"),
    "wanted one of segmentation": lambda r, tmp: dataclasses.replace(r, task="maps"),
    "wanted one of frozen": lambda r, tmp: dataclasses.replace(r, mode="half"),
    "wanted one of prithvi_eo": lambda r, tmp: dataclasses.replace(r, backbone="prithvi"),
    "wanted one of linear": lambda r, tmp: _with(r, "model", decoder="transformer"),
    "loss lpips": lambda r, tmp: _with(r, "training", loss={"lpips": 1.0}),
    "no such file; wanted hub": lambda r, tmp: dataclasses.replace(r, weights=str(tmp / "none.pt")),
    "band VIOLET|VIOLET": lambda r, tmp: dataclasses.replace(r, bands=["BLUE", "VIOLET"]),
    "code": lambda r, tmp: dataclasses.replace(r, classes=r.classes[:2]),
    "at least two classes": lambda r, tmp: dataclasses.replace(r, classes=r.classes[:1]),
    "multiple of": lambda r, tmp: _with(r, "data", tile=20),
    "labels": lambda r, tmp: _with(r, "data", labels="*_nothing.tif"),
    "fractions": lambda r, tmp: _with(r, "data", fractions=(0.9, 0.1, 0.0)),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_cannot_work_is_refused_and_leaves_nothing(chips, tmp_path, message):
    with pytest.raises(InputError, match=message) as caught:
        finetune(REFUSED[message](tiny_recipe(chips), tmp_path), tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_labels_of_one_class_are_refused(tmp_path):
    for i in range(6):
        bands, codes = make_chip(i)
        write(tmp_path / f"c{i}_hls.tif", bands, names=("BLUE", "GREEN", "RED", "NIR_NARROW", "SWIR_1", "SWIR_2"))
        write(tmp_path / f"c{i}_lc.tif", np.full_like(codes, 10))
    with pytest.raises(InputError, match="one class"):
        finetune(tiny_recipe(tmp_path), tmp_path / "out")


def test_missing_label_is_refused(tmp_path):
    make_chips(tmp_path, 4)
    (tmp_path / "c02_lc.tif").unlink()
    with pytest.raises(InputError, match="c02"):
        finetune(tiny_recipe(tmp_path), tmp_path / "out")


def test_overwrite_deletes_runs_only(chips, tmp_path):
    precious = tmp_path / "thesis"
    precious.mkdir()
    (precious / "chapter.txt").write_text("do not lose me")
    with pytest.raises(InputError, match="not a run folder|no run folder"):
        finetune(tiny_recipe(chips, training=SHORT), precious, launch=Launch(overwrite=True))
    assert (precious / "chapter.txt").is_file()


@pytest.mark.usefixtures("torch_only")
def test_bands_beyond_the_pretrained_are_measured(tmp_path):
    names = ("BLUE", "GREEN", "RED", "NIR_NARROW", "SWIR_1", "SWIR_2", "VV")
    for i in range(6):
        bands, codes = make_chip(i)
        radar = np.full((1, 32, 32), 100 + i, np.int16)
        write(tmp_path / f"c{i}_hls.tif", np.concatenate((bands, radar)), names=names)
        write(tmp_path / f"c{i}_lc.tif", codes)
    finetune(tiny_recipe(tmp_path, bands=list(names), training=SHORT), tmp_path / "out")
    spec = read_bundle(tmp_path / "out").spec.imagery
    assert 100 <= spec.mean[6] <= 105 and spec.std[6] < 3
    assert spec.mean[:6] == (1087.0, 1342.0, 1433.0, 2734.0, 1958.0, 1363.0)


def test_class_names_are_kept(run):
    content = json.loads((run / "bundle.json").read_text())
    stored = content["spec"]["answers"]["class"]["classes"]
    assert ClassDef(**stored[0]) == ClassDef(10, "tree", "#006400")
    assert content["architecture"]["overrides"] == TINY


@pytest.mark.usefixtures("torch_only")
def test_a_damaged_checkpoint_is_named(chips, tmp_path):
    recipe, out = tiny_recipe(chips, training=SHORT), tmp_path / "run"
    finetune(recipe, out)
    for file in ("bundle.json", "metrics.json"):
        (out / file).unlink()
    last = out / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:1000])
    with pytest.raises(InputError, match="last.ckpt: damaged"):
        finetune(recipe, out, launch=Launch(resume=True))


@pytest.mark.usefixtures("torch_only")
def test_a_run_that_fails_leaves_the_one_it_was_to_replace(chips, tmp_path, monkeypatch):
    recipe, out = tiny_recipe(chips, training=SHORT), tmp_path / "run"
    finetune(recipe, out)
    before = (out / "model.safetensors").read_bytes()

    def broken(*_, **__):
        raise InputError("the loss is nan")

    monkeypatch.setattr(module, "train", broken)
    with pytest.raises(InputError, match="nan"):
        finetune(recipe, out, launch=Launch(overwrite=True))
    assert (out / "model.safetensors").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.usefixtures("torch_only")
def test_two_processes_go_on_with_what_one_began_and_train_as_one(chips, tmp_path, monkeypatch):
    """Of which one alone writes; exporting, which it does after the training, is left out.

    With the weights divided, which is the harder way: whole in each they learn in test_processes.py.
    """
    plain = Architecture(TINY, decoder="fcn", channels=8, detail=0, statistics=0, dropout=0.0)  # nothing is drawn
    recipe = tiny_recipe(chips, model=plain, training=dataclasses.replace(SHORT, batch=2, epochs=2))
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe.to_json()))
    finetune(recipe, tmp_path / "alone")

    def stopped(self) -> None:
        if self.current_epoch == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(FineTuning, "on_train_epoch_start", stopped)
    with pytest.raises(KeyboardInterrupt):
        finetune(recipe, tmp_path / "run")
    command = [
        sys.executable,
        "-m",
        "tests.unexported",
        "finetune",
        tmp_path / "recipe.yaml",
        "--out",
        tmp_path / "run",
    ]
    options = ["--devices", "2", "--strategy", "fsdp", "--resume"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=240, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("report:") == done.stderr.count("going on from") == 1
    ours, theirs = (read_curves(tmp_path / name / "metrics.csv") for name in ("run", "alone"))
    assert len(ours) == 2 and ours == [pytest.approx(row, rel=1e-3) for row in theirs]
    ours, theirs = (
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)["optimizer_states"][0]
        for name in ("run", "alone")
    )
    assert [group["params"] for group in ours["param_groups"]] == [group["params"] for group in theirs["param_groups"]]
    assert ours["state"].keys() == theirs["state"].keys()
    for number, state in theirs["state"].items():
        torch.testing.assert_close(ours["state"][number], state, rtol=0.02, atol=1e-5)


@pytest.mark.usefixtures("torch_only")  # test_readme.py exports one
def test_frozen_run_from_the_hub_stores_the_head_and_names_its_base(chips, tmp_path, hub):
    """The published name and layout, served on loopback; the bundle comes back with the base it names."""
    import io

    from terratorch.models.backbones.prithvi_mae import PrithviMAE

    sizes = {"img_size": 32, "patch_size": [1, 16, 16], "decoder_embed_dim": 32, "decoder_depth": 1}
    coordinates = {"coords_encoding": ["time", "location"], "coords_scale_learn": True}
    mae = PrithviMAE(**TINY, **sizes, **coordinates, decoder_num_heads=2, num_frames=1, in_chans=6)
    file = io.BytesIO()
    torch.save(mae.state_dict(), file)
    repo = "ibm-nasa-geospatial/Prithvi-EO-2.0-tiny-TL"
    commit = hub.publish(repo, {"Prithvi_EO_V2_tiny_TL.pt": file.getvalue()})
    recipe, out = tiny_recipe(chips, weights="hub", mode="frozen", training=SHORT), tmp_path / "run"
    said: list[str] = []
    finetune(recipe, out, launch=Launch(say=said.append))
    bundle = read_bundle(out)
    assert (bundle.base.repo, bundle.base.revision, bundle.whole) == (repo, commit, False)
    assert any(line.split() == ["BLUE", "loaded", "from", "BLUE"] for line in said)
    assert not [key for key in load_file(out / "model.safetensors") if key.startswith("backbone.")]
    kept, published = load_network(out).backbone.vit.state_dict(), mae.encoder.state_dict()
    assert all(torch.equal(kept[key], published[key]) for key in kept if key != "pos_embed")
