"""A whole pretraining: what it writes, that a fine-tuning takes it, that it survives being cut off, what it refuses."""

from __future__ import annotations

import json

import lightning
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from models.errors import InputError
from pipelines.cli.main import main
from pipelines.recipes.pretraining import Pretraining
from pipelines.runs.folder import Launch, read_curves
from pipelines.runs.pretrain import build, pretrain
from pipelines.runs.training import build as build_for_task
from pipelines.scenes.reading import Reading
from pipelines.tasks.task import task_named
from tests.runs import BANDS, TINY_MAE, make_chip, tiny_recipe, write

SHORT = Pretraining(weights="random", epochs=3, batch=4, precision="32-true", overrides=TINY_MAE, size=32)


def run(sources, out, settings=SHORT, **launch):
    return pretrain([str(source) for source in sources], settings, out, reading=Reading(), launch=Launch(**launch))


@pytest.fixture(scope="module")
def pretrained(chips, made_once):
    """A pretraining on chips; not to be changed."""
    return made_once("pretrained", lambda out: run([chips / "*_hls.tif"], out))


def test_folder_holds_what_is_told(pretrained):
    names = {path.name for path in pretrained.iterdir()}
    files = "weights.safetensors pretraining.json reconstructions.png metrics.csv recipe.yaml checkpoints"
    assert set(files.split()) <= names and not [name for name in names if name.startswith(".")]
    summary = json.loads((pretrained / "pretraining.json").read_text())
    assert summary["base"]["source"] == "random" and len(summary["scenes"]) == 12 and summary["epochs"] == 3
    assert summary["coordinates"] == {"time": True, "location": True}
    assert "1 of 12 scenes held out (windows: 1)" in summary["samples"] and summary["held_out"]["neighbours"] > 0
    assert summary["held_out"]["rmse"] == pytest.approx(read_curves(pretrained / "metrics.csv")[-1]["val_rmse"], 1e-4)
    assert [set(row) for row in read_curves(pretrained / "metrics.csv")] == [
        {"epoch", "train_loss", "val_loss", "val_rmse"}
    ] * 3
    with Image.open(pretrained / "reconstructions.png") as picture:
        assert picture.width > 500


def test_fine_tuning_takes_every_weight(pretrained, chips):
    file = pretrained / "weights.safetensors"
    recipe = tiny_recipe(chips, weights=str(file))
    network, base, report = build_for_task(recipe, task_named("segmentation").prepare(recipe).spec)
    assert report.bands == {band: f"loaded from {band}" for band in BANDS} and report.notes == ()
    assert base.sha256 == json.loads((pretrained / "pretraining.json").read_text())["sha256"]
    state = load_file(file)
    for key, value in network.backbone.vit.state_dict().items():
        assert torch.equal(value, state[f"encoder.{key}"]), key
    again, _, lines = build(Pretraining(weights=str(file), overrides=TINY_MAE), size=32)
    assert all(torch.equal(value, state[key]) for key, value in again.published().items())
    assert lines[-1] == "the decoder of the file"


def test_a_run_that_was_cut_off_resumes_to_the_same_bytes(pretrained, chips, tmp_path, monkeypatch):
    class Cut(lightning.Callback):
        def on_train_batch_start(self, trainer, *_):
            if trainer.current_epoch == 2:
                raise InputError("cut off")

    sources, start = [chips / "*_hls.tif"], lightning.Trainer.fit
    with monkeypatch.context() as patch:
        patch.setattr(
            lightning.Trainer, "fit", lambda self, *a, **k: (self.callbacks.append(Cut()), start(self, *a, **k))
        )
        with pytest.raises(InputError, match="cut off"):
            run(sources, tmp_path / "cut")
    assert not (tmp_path / "cut" / "weights.safetensors").exists()
    with pytest.raises(InputError, match="exists already; --resume"):
        run(sources, tmp_path / "cut")
    with pytest.raises(InputError, match="another mask"):
        run(sources, tmp_path / "cut", Pretraining(**vars(SHORT) | {"mask": 0.5}), resume=True)
    with pytest.raises(InputError, match="another scenes"):
        run([chips / "c0*_hls.tif"], tmp_path / "cut", resume=True)
    run(sources, tmp_path / "cut", resume=True)
    for file in ("weights.safetensors", "metrics.csv", "pretraining.json", "recipe.yaml"):
        assert (tmp_path / "cut" / file).read_bytes() == (pretrained / file).read_bytes(), file
    said: list[str] = []
    assert run(sources, tmp_path / "cut", resume=True, say=said.append)["epochs"] == 3
    assert said == [f"{tmp_path / 'cut'}: this run has ended already"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--mask", "2"], "mask 2.0: wanted 0.05 to 0.95"),
        (["--weights", "none.pt"], "weights none.pt: no such file"),
        (["--backbone", "vit"], "backbone 'vit': wanted one of prithvi_eo_tiny"),
        (["--size", "40"], "size 40: prithvi_eo_v2_tiny_tl wants a multiple of its patch"),
        (["--precision", "int8"], "precision 'int8'"),
        (["--frames", "3"], "frames"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(words, told, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scenes = [str(write(tmp_path / f"{i}.tif", make_chip(i)[0], names=BANDS)) for i in range(2)]
    code = main(["pretrain", *scenes, "--weights", "random", "--quiet", "--out", "out", *words])
    out, err = capsys.readouterr()
    assert (code, out, err.count("\n")) == (2, "", 1) and told in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.tif", "1.tif"]


def test_command_tells_what_comes_next(chips, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = f"pretrain {chips}/c00_hls.tif {chips}/c01_hls.tif --weights random --epochs 1 --quiet --out own".split()
    assert main([*words, "--overrides", json.dumps(TINY_MAE)]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    file = "own/weights.safetensors"
    assert last == f"next: earthtune finetune RECIPE --backbone prithvi_eo_v2_tiny_tl --weights {file}"
