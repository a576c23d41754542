"""The card by the hub client's own reading, the item by pystac's, licences by what they say."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import shutil

import pytest
from huggingface_hub import ModelCard
from PIL import Image
from pystac.extensions.mlm import MLMExtension

from models.bundle import Base, Bundle, read_bundle
from models.errors import InputError
from models.training.settings import Architecture
from pipelines.publishing import licences
from pipelines.publishing.card import Facts, card
from pipelines.publishing.item import model_item
from tests.models.test_bundle import RAIN

HUB = Base("hub", "ibm-nasa-geospatial/Prithvi-EO-2.0-300M-TL", "c0ffee" * 6 + "abcd", "w.pt", "1" * 64)


@pytest.fixture
def published(make_spec):
    """A bundle over published weights."""
    scores = {"n": 9, "mean_iou": 0.5, "accuracy": 0.75, "intervals": {"accuracy": [0.5, 0.875]}}
    baselines = {"majority": {"n": 9, "mean_iou": 0.25, "accuracy": 0.8}}
    told = {"base": HUB, "mode": "lora", "whole": False, "scores": scores, "baselines": baselines}
    return Bundle(make_spec(), "prithvi_eo_v2_300_tl", Architecture(), **told)


def test_the_card_reads_as_the_hub_reads_it(files, run):
    read, bundle = ModelCard(files["README.md"].decode()), read_bundle(run)
    energy = json.loads((run / "energy.json").read_text())
    about = read.data.to_dict()
    assert (about["license"], about["library_name"]) == ("apache-2.0", "earthtune")
    assert about["pipeline_tag"] == "image-segmentation" and "segmentation" in about["tags"]
    assert about["co2_eq_emissions"] == energy["co2_eq_emissions"] and "base_model" not in about
    told = {one.metric_type: one.metric_value for one in read.data.eval_results}
    assert told == pytest.approx({name: bundle.scores[name] for name in told}, rel=1e-5)
    assert {"mean_iou", "accuracy"} <= set(told)


def test_the_card_tells_what_people_ask(files, run):
    text, metrics = ModelCard(files["README.md"].decode()).text, json.loads((run / "metrics.json").read_text())
    wanted = [metrics["headline"], metrics["tokens"]["told"], *metrics["confidence"]["told"], "Chips (CC BY 4.0)"]
    wanted += ["| 30 | grass | #ffff4c |", "reflectance x10000", "c02_hls, c04_hls, c06_hls", "(scores.png)"]
    wanted += ["6 train (6 groups), 3 val (3 groups), 3 test (3 groups)", "was not pretrained", "pixels of 30 m"]
    assert [line for line in wanted if line not in text] == []
    row = next(line for line in text.splitlines() if line.startswith("| Mean IoU |"))
    assert row.startswith(f"| Mean IoU | {metrics['model']['mean_iou']:.3f} |")
    best = max(one["mean_iou"] for one in json.loads(files["bundle.json"])["baselines"].values())
    assert f"**{best:.3f}**" in row


def test_a_card_of_published_weights_names_them(published):
    read = ModelCard(card(Facts("org/x", published, "apache-2.0", {}, {}, adapters=True)))
    about = read.data.to_dict()
    assert (about["base_model"], about["base_model_revision"]) == (HUB.repo, HUB.revision)
    assert about["base_model_relation"] == "adapter" and "lora" in about["tags"]
    assert f"made from {HUB.repo}@{HUB.revision}, licensed under apache-2.0" in read.text
    assert "| Accuracy | 0.750 (0.500 to 0.875) | **0.800** |" in read.text
    assert "PeftModel.from_pretrained" in read.text and "not told" in read.text


def test_names_cannot_break_the_card(published):
    spec = published.spec
    first, *others = spec.answer.classes
    classes = (dataclasses.replace(first, name="a|b\n---\nx: y"), *others)
    answer = dataclasses.replace(spec.answer, classes=classes)
    bundle = dataclasses.replace(published, spec=dataclasses.replace(spec, answers={"class": answer}))
    text = card(Facts("org/x", bundle, "apache-2.0", {}, {}, data="---\nlicense: mit"))
    assert "| a\\|b --- x: y |" in text
    assert ModelCard(text).data.license == "apache-2.0"


def test_a_card_of_rain(tmp_path):
    bundle = dataclasses.replace(RAIN, scores={"rmse": 1.25, "csi_0.1": 0.5, "mae": math.nan})
    read = ModelCard(card(Facts("org/rain", bundle, "mit", {}, {})))
    assert "TQV (kg m-2), T2M (K)" in read.text and "quantiles of PRECTOT in mm/h for each cell" in read.text
    assert {one.metric_type for one in read.data.eval_results} == {"rmse", "csi_0.1"}
    assert "| RMSE (mm/h) |" in read.text and "pipeline_tag" not in read.data.to_dict()


def test_scores_of_other_data_are_not_the_runs(run, tmp_path, told):
    copy = shutil.copytree(run, tmp_path / "copy")
    metrics = json.loads((copy / "metrics.json").read_text())
    metrics["model"]["mean_iou"] = 0.123
    (copy / "metrics.json").write_text(json.dumps(metrics | {"headline": "Of another place."}))
    told("publish", copy, "org/x", "--dry_run", "--licence", "mit", "--out", tmp_path / "out")
    assert not (tmp_path / "out" / "metrics.json").exists()
    text = (tmp_path / "out" / "README.md").read_text()
    assert "Of another place" not in text and "0.958" in text


def test_the_item_is_valid_and_of_these_files(package, valid):
    item = valid(json.loads((package / "item.json").read_text()))
    mlm = MLMExtension.ext(item)
    assert mlm.pretrained is False and item.properties["mlm:tasks"] == ["semantic-segmentation"]
    assert item.geometry is None and item.datetime is None
    for held in item.assets.values():
        content = (package / held.href).read_bytes()
        assert held.extra_fields["file:checksum"] == "1220" + hashlib.sha256(content).hexdigest()
    assert [key for key, held in item.assets.items() if "mlm:model" in held.roles] == ["onnx", "weights"]


@pytest.mark.parametrize("task", ["regression", "classification", "rain"])
def test_items_of_other_tasks_are_valid(make_spec, valid, tmp_path, task):
    bundle = RAIN if task == "rain" else Bundle(make_spec(task), "prithvi_eo_v2_300_tl", Architecture())
    for name in ("model.safetensors", "bundle.json", "scores.png"):
        (tmp_path / name).write_bytes(b"x")
    item = valid(model_item(bundle, tmp_path, name="x", licence="mit"))
    shape = item.properties["mlm:output"][0]["result"]["shape"]
    assert shape == {"regression": [-1, 1, 32, 32], "classification": [-1, 3], "rain": [-1, 13, -1, -1]}[task]


def test_the_picture_is_a_picture_and_checksums_are_those_of_all_files(package):
    with Image.open(package / "scores.png") as image:
        assert image.format == "PNG" and image.width > 600 and "Software" not in image.info
    lines = dict(reversed(line.split("  ")) for line in (package / "checksums.txt").read_text().splitlines())
    held = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in package.iterdir()}
    assert lines == {name: digest for name, digest in held.items() if name != "checksums.txt"}


ALLOWED = [None, "Apache-2.0", "MIT", "CC-BY-NC-4.0", "GPL-3.0-only", "GPL-2.0-or-later", "openrail"]


@pytest.mark.parametrize("asked", ALLOWED)
def test_licences_that_the_base_allows(published, asked):
    assert licences.chosen(asked, published) == (asked or "apache-2.0").lower()


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ("CC0-1.0", "waives what apache-2.0"),
        ("unlicense", "a copy of its licence"),
        ("GPL-2.0-only", "forbid those on patents"),
        ("gpl-2.0", "forbid those on patents"),
        ("my own", "as SPDX has it"),
        ("a\nb: c", "as SPDX has it"),
    ],
)
def test_licences_that_it_does_not(published, asked, why):
    with pytest.raises(InputError, match=why):
        licences.chosen(asked, published)


def test_licences_of_weights_that_nobody_published(published):
    random = dataclasses.replace(published, base=Base())
    assert licences.chosen("cc0-1.0", random) == "cc0-1.0"
    with pytest.raises(InputError, match="choose one: --licence"):
        licences.chosen(None, random)
    wxc = dataclasses.replace(published, backbone="prithvi_wxc_2300m")
    assert licences.chosen(None, wxc) == "cdla-permissive-2.0"
    with pytest.raises(InputError, match="the text of its agreement"):
        licences.chosen("cc0-1.0", wxc)


def test_the_licence_file_has_the_terms_of_the_base(published):
    text = licences.text("mit", published)
    assert text.startswith("This model is licensed under mit") and HUB.repo in text
    assert "TERMS AND CONDITIONS FOR USE, REPRODUCTION, AND DISTRIBUTION" in text
    assert "TERMS AND CONDITIONS" not in licences.text("mit", dataclasses.replace(published, base=Base()))
