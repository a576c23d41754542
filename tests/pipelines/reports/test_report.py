"""The report: it says the numbers, stands alone, and takes no text for markup."""

import base64
import io
import os
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.image import imread

from models.errors import InputError, RunError
from models.spec import ClassDef, Target
from pipelines.reports.measures import best_baseline, headline, table
from pipelines.reports.report import write_report
from pipelines.reports.scores import class_scores, confusion_matrix, value_scores, value_sums
from pipelines.reports.tiles import Example, shown_of, tile_parts
from tests.specs import scene_spec

BANDS = ("BLUE", "GREEN", "RED")
CLASSES = (ClassDef(10, "tree", "#006400"), ClassDef(30, "grass", "#ffff4c"), ClassDef(80, "water", "#0064c8"))
CURVES = [{"epoch": 0, "train_loss": 1.0}, {"epoch": 1, "train_loss": 0.7, "val_loss": 0.8, "val_accuracy": 0.6}]
VOID = {"meta", "source", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Text, tags and attributes of a page; `faults` names every tag that is not closed in order."""

    def __init__(self, source):
        super().__init__(convert_charrefs=True)
        self.open, self.faults, self.tags, self.attributes, self.words = [], [], [], [], []
        self.feed(source)
        self.close()
        self.faults += self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"/{tag}")

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.words))


def spec_of(task, classes=CLASSES):
    kind = {"target": Target("biomass", "Mg/ha")} if task == "regression" else {"classes": classes}
    return scene_spec(task, BANDS, (0.0,) * 3, (1.0,) * 3, **kind).answer


def example(task, number, side=16):
    rng = np.random.default_rng(number)
    image = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
    shape = (1, 1) if task == "classification" else (side, side)
    if task == "regression":
        truth = rng.uniform(0, 100, shape)
        truth[0, 0] = np.nan
        maps = [truth, np.nan_to_num(truth) + 1, np.full(shape, 50.0)]
    else:
        maps = [rng.integers(0, 3, shape) for _ in range(3)]
    valid = np.ones((side, side), bool)
    valid[:2] = False
    return Example(f"chip-{number:03d}", image, maps[0], maps[1], valid, maps[2])


def write(path, task="segmentation", **changes):
    rng = np.random.default_rng(1)
    if task == "regression":
        truth = rng.uniform(0, 100, 500)
        ours, mean = value_sums(truth, truth + rng.normal(0, 5, 500)), value_sums(truth, np.full(500, 50.0))
        arguments = {"scores": value_scores(ours), "baselines": {"mean": value_scores(mean)}, "confusion": None}
    else:
        truth = rng.integers(0, 3, 900)
        confusions = [
            confusion_matrix(truth, np.where(rng.random(900) < p, truth, 0), classes=3) for p in (0.8, 0.6, 0)
        ]
        ours, forest, majority = (class_scores(c, CLASSES) for c in confusions)
        baselines = {"majority": majority, "pixel forest": forest}
        arguments = {"scores": ours, "baselines": baselines, "confusion": confusions[0]}
    arguments |= {"title": "Land cover", "answer": spec_of(task), "facts": {"Backbone": "prithvi_eo_v2_100"}}
    arguments |= {"headline": "They are level."}
    arguments |= {"curves": CURVES, "examples": [example(task, n) for n in range(6)], "notes": ["One country only."]}
    arguments |= changes
    own = {key: value for key, value in arguments.items() if key not in ("answer", "confusion", "examples")}
    answer, baselines = arguments["answer"], arguments["baselines"]
    best = best_baseline(shown_of(answer).said[0], baselines)
    pair = (best, baselines[best]) if best else None
    parts = tile_parts(answer, arguments["scores"], pair, arguments["confusion"], arguments["examples"])
    write_report(path, shown=shown_of(answer), parts=parts, **own)
    return Page(path.read_text(encoding="utf-8")), arguments


@pytest.mark.parametrize("task", ["segmentation", "classification", "regression"])
def test_report_is_well_formed_and_stands_alone(tmp_path, task):
    page, arguments = write(tmp_path / "report.html", task)
    assert page.faults == []
    assert page.tags.count("h1") == 1
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    addresses = [value for _, name, value in page.attributes if name in ("src", "srcset", "href")]
    assert addresses and all(value.startswith("data:image/png;base64,") for value in addresses)
    source = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?://|url\(|@import", source)
    assert [e.name for e in arguments["examples"] if e.name not in page.text] == []
    assert all(words in page.text for words in ("Land cover", "Backbone", "prithvi_eo_v2_100", "One country only."))
    images = page.tags.count("img")
    assert page.tags.count("article") == 6
    assert len([1 for tag, name, value in page.attributes if tag == "img" and name == "alt" and value]) == images


def test_report_says_the_scores_of_every_class_and_baseline(tmp_path):
    page, arguments = write(tmp_path / "report.html")
    for scores in (arguments["scores"], *arguments["baselines"].values()):
        for key in ("accuracy", "mean_iou", "macro_f1", "balanced_accuracy", "kappa"):
            assert f"{scores[key]:.3f}" in page.text
    forest = arguments["baselines"]["pixel forest"]["per_class"]
    for ours, theirs in zip(arguments["scores"]["per_class"], forest, strict=True):
        assert ours["name"] in page.text
        for number in (ours["iou"], ours["recall"], ours["precision"], ours["f1"], theirs["iou"]):
            assert f"{number:.3f}" in page.text
        assert f"{ours['iou'] - theirs['iou']:+.3f}" in page.text


def test_example_pictures_are_the_maps_pixel_for_pixel(tmp_path):
    shown = example("segmentation", 0)
    page, _ = write(tmp_path / "report.html", examples=[shown])
    uris = {}
    images = iter([pair for pair in page.attributes if pair[0] == "img" and pair[1] in ("src", "alt")])
    for (_, _, first), (_, _, second) in zip(images, images, strict=True):
        uri, alt = (first, second) if first.startswith("data:") else (second, first)
        uris[alt] = uri
    picture = base64.b64decode(uris["truth of chip-000"].split(",")[1])
    pixels = np.rint(imread(io.BytesIO(picture)) * 255).astype(int)
    table = np.array([(*c.rgb, 255) for c in CLASSES])
    np.testing.assert_array_equal(pixels[2:], table[shown.truth[2:]])
    assert (pixels[:2, :, 3] == 0).all()
    assert {"model of chip-000", "pixel forest of chip-000", "Satellite image of chip-000"} <= set(uris)


def test_example_says_how_much_is_right(tmp_path):
    truth = np.zeros((4, 4), int)
    truth[0] = -1
    predicted = truth.copy()
    predicted[1, :3] = 2
    shown = Example("c", np.zeros((4, 4, 3), np.uint8), truth, predicted, np.ones((4, 4), bool))
    page, _ = write(tmp_path / "report.html", examples=[shown])
    assert "75 % of labelled pixels right" in page.text


def test_classification_examples_name_both_labels(tmp_path):
    tile = np.zeros((8, 8, 4), np.uint8)
    shown = Example("t", tile, np.array([[0]]), np.array([[2]]), np.ones((8, 8), bool), np.array([[0]]))
    page, _ = write(tmp_path / "report.html", "classification", examples=[shown])
    assert re.search(r"truth tree model water ✗ pixel forest tree\b", page.text)


def test_regression_has_unit_and_no_classes(tmp_path):
    page, arguments = write(tmp_path / "report.html", "regression")
    assert f"RMSE {arguments['scores']['rmse']:.2f} Mg/ha" in page.text
    assert "RMSE 1.00 Mg/ha" in page.text  # every example is one too high
    assert "Class by class" not in page.text and "What is taken for what" not in page.text


def test_headline_is_plain_words():
    spec = shown_of(spec_of("classification"))
    baselines = {"majority": {"accuracy": 0.3}, "pixel forest": {"accuracy": 0.70}}
    assert headline(spec, {"accuracy": 0.73}, baselines, "They are level.") == (
        "Accuracy 0.730; the pixel forest on the same samples: 0.700. They are level."
    )
    assert headline(spec, {"accuracy": 0.7001}, {}, "") == "Accuracy 0.700; no baseline was scored on the same samples."
    assert headline(spec, {"accuracy": None}, baselines, "").startswith("Accuracy –;")


def test_a_table_says_why_there_is_no_interval():
    spec, baselines = shown_of(spec_of("regression")), {"ridge": {"rmse": 4.0}}
    one = {"rmse": 3.0, "intervals": {}, "no_intervals": "one day: no interval can be given"}
    made = table(spec, one, baselines)
    assert made["note"] == "One day: no interval can be given." and made["columns"][0] == "model"
    assert table(spec, {"rmse": 3.0}, baselines)["note"] == ""


def test_lower_errors_are_better():
    baselines = {"mean": {"rmse": 9.0}, "ridge": {"rmse": 4.0}, "broken": {"rmse": None}}
    assert best_baseline("rmse", baselines) == "ridge"
    assert headline(shown_of(spec_of("regression")), {"rmse": 3.0}, baselines, "") == (
        "RMSE 3.00 Mg/ha; the ridge on the same samples: 4.00."
    )
    assert best_baseline("rmse", {"broken": {"rmse": None}}) is None


def test_names_in_any_script_report(tmp_path):
    classes = (ClassDef(10, "森林と低木の混ざった広い土地の名前", "#006400"), ClassDef(20, "M" * 60, "#ffff4c"))
    spec, confusion = spec_of("segmentation", classes), np.diag([5, 6])
    tile = example("segmentation", 0)
    shown = Example("c", tile.image, tile.truth % 2, tile.predicted % 2, tile.valid)
    scores = class_scores(confusion, classes)
    page, _ = write(
        tmp_path / "report.html", answer=spec, scores=scores, baselines={}, confusion=confusion, examples=[shown]
    )
    assert all(definition.name in page.text for definition in classes)


def test_hostile_text_stays_text(tmp_path):
    evil = '<script>alert("x")</script>'
    classes = (ClassDef(10, evil, "#006400"), *CLASSES[1:])
    spec = spec_of("segmentation", classes)
    confusion = np.diag([5, 6, 7])
    tile = example("segmentation", 0)
    named = Example(f'"><img src=x>{evil}', tile.image, tile.truth, tile.predicted, tile.valid, tile.baseline)
    page, _ = write(
        tmp_path / "report.html",
        answer=spec,
        title=evil,
        facts={evil: evil},
        notes=[evil],
        scores=class_scores(confusion, classes),
        baselines={evil: class_scores(confusion, classes)},
        confusion=confusion,
        examples=[named],
        curves=[{"epoch": 0, f"val_{evil}": 1.0}],
    )
    assert page.faults == []
    assert "script" not in page.tags
    assert evil in page.text
    assert ("img", "src", "x") not in page.attributes


@pytest.mark.parametrize("task", ["segmentation", "classification", "regression"])
def test_a_bare_run_still_reports(tmp_path, task):
    page, _ = write(
        tmp_path / "report.html", task, baselines={}, confusion=None, curves=[], examples=[], notes=[], facts={}
    )
    assert page.faults == []


def test_scores_of_an_empty_split_report(tmp_path):
    nothing = np.zeros((3, 3), dtype=np.int64)
    scores = class_scores(nothing, CLASSES)
    page, _ = write(tmp_path / "report.html", scores=scores, baselines={"majority": scores}, confusion=nothing)
    assert page.faults == []
    assert "Mean IoU –" in page.text


def test_missing_curve_columns_draw(tmp_path):
    rows = [{"epoch": 0.0, "train_loss": float("nan")}, {"val_rmse": 3.0, "val_r2": None}]
    page, _ = write(tmp_path / "report.html", "regression", curves=rows)
    alts = [value for _, name, value in page.attributes if name == "alt"]
    assert {"train_loss by epoch", "val_rmse by epoch", "val_r2 by epoch"} <= set(alts)


def test_report_replaces_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("old")

    def broken(source, target):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(RunError, match=r"report\.html: the report cannot be written \(disk full\)"):
        write(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(RunError, match="cannot be written"):
        write(tmp_path / "absent" / "report.html")


def test_example_refuses_arrays_off_its_grid():
    image, valid, indices = np.zeros((4, 4, 3), np.uint8), np.ones((4, 4), bool), np.zeros((4, 4), int)
    with pytest.raises(InputError, match=r"example a: .*\(4, 5\)"):
        Example("a", image, indices, np.zeros((4, 5), int), valid)
    with pytest.raises(InputError, match="example b"):
        Example("b", image[..., :2], indices, indices, valid)
    with pytest.raises(InputError, match="example c"):
        Example("c", image, indices, indices, valid[:2])


def test_report_refuses_a_foreign_confusion_matrix(tmp_path):
    with pytest.raises(InputError, match=r"\(2, 2\) does not fit 3 classes"):
        write(tmp_path / "report.html", confusion=np.eye(2, dtype=int))
    assert not list(tmp_path.iterdir())
