"""What is told of the cost of runs and maps."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from models.errors import InputError
from pipelines.cli.main import main
from pipelines.commands.label import label
from pipelines.records.attempts import PAGE, fold
from pipelines.records.energy import Phase


def record(name, *, cpu, command="finetune", country="FRA", joules=0.0, km2=0.0, samples=0.0):
    """An hour of work by one thread, of which a tenth was reading."""
    phases = {
        "read": vars(Phase(wall=cpu / 5, cpu=cpu / 10)),
        "epochs": vars(Phase(wall=9 * cpu / 5, cpu=9 * cpu / 10, measured=0.9 * cpu * bool(joules), joules=joules)),
    }
    whole = {"wall": 2 * cpu, "cpu": cpu}
    about = {"command": command, "country": country, "part_of": "", "began": "2026-01-01T00:00:00+00:00"}
    told = {"memory_measured": False, "unread": [], "made": {"km2": km2, "samples": samples}}
    return {"id": name, **about, "whole": whole, "phases": phases, **told}


@pytest.fixture
def places(tmp_path):
    """Two runs with a score, and maps."""
    for name, cpu, value in (("large", 3600.0, 0.5), ("small", 360.0, 0.4)):
        (tmp_path / name).mkdir()
        fold(tmp_path / name / PAGE, record(name, cpu=cpu, samples=2000), parts=False)
        metrics = {"compared": {"score": "mean_iou"}, "model": {"mean_iou": value}, "samples": 9}
        (tmp_path / name / "metrics.json").write_text(json.dumps(metrics))
    (tmp_path / "maps").mkdir()
    fold(tmp_path / "maps" / PAGE, record("maps", cpu=36.0, command="score", km2=500), parts=False)
    return tmp_path


def test_one_place_by_phase(places, capsys):
    assert main(["label", str(places / "large")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["phase", "read", "epochs"]
    assert "0.1 to 0.4 Wh" in lines[1] or "100 to 400 mWh" in lines[1]
    text = "\n".join(lines)
    assert "1 to 4 Wh" in text and "56 to 224 mg (power of France, 2022-2023)" in text  # an hour of 1 to 4 W, 56 g/kWh
    assert "0.5 to 2 Wh" in text  # for 1,000 of its 2,000 samples
    assert "estimated: " in text and "Country unknown" not in text


def test_several_places_side_by_side_with_their_scores(places, capsys):
    paths = [str(places / name) for name in ("large", "small", "maps")]
    assert main(["label", *paths, "--country", "IND", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["total"]["wh"] == pytest.approx([1.11, 2.22, 4.44])
    assert result["total"]["g_co2e"][2] == pytest.approx(4.44 * 0.713)
    assert result["total"]["co2_eq_emissions"]["emissions"] == pytest.approx(2.22 * 0.713, rel=0.01)
    assert result["total"]["co2_eq_emissions"]["training_type"] == "fine-tuning"
    assert [place["score"] and place["score"]["value"] for place in result["places"]] == [0.5, 0.4, None]
    assert result["places"][2]["wh_per_1000_km2"] == pytest.approx([0.02, 0.04, 0.08])
    assert result["total"]["wh_per_1000_km2"] == result["places"][2]["wh_per_1000_km2"]  # trainings make no maps
    assert main(["label", *paths]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "mean_iou 0.5" in lines[1] and "mean_iou 0.4" in lines[2] and lines[3].endswith("-")


def test_a_place_that_is_named_twice_counts_once(places):
    once, twice = label([places / "maps"]), label([places / "maps", places / "maps", places / "maps" / PAGE])
    assert once["total"] == twice["total"]


def test_a_picture_of_score_against_energy(places, tmp_path):
    picture = tmp_path / "worth.png"
    label([places / "large", places / "small"], picture=picture)
    with Image.open(picture) as image:
        assert image.size[0] > 400
    with pytest.raises(InputError, match="--overwrite"):
        label([places / "large", places / "small"], picture=picture)
    with pytest.raises(InputError, match="two runs or more"):
        label([places / "large", places / "maps"], picture=tmp_path / "other.png")
    assert not (tmp_path / "other.png").exists()


def test_what_was_measured_and_what_was_not(tmp_path):
    kinds = {}
    for name, share in (("none", 0.0), ("most", 1.0)):
        made = record(name, cpu=3600.0, joules=7200.0 * share)
        kinds[name] = label([_place(tmp_path / name, made)])["total"]["kind"]
    assert kinds == {"none": "estimated", "most": "mixed"}  # reading was not measured
    made = record("all", cpu=3600.0, joules=7200.0)
    made["phases"].pop("read")
    whole = label([_place(tmp_path / "all", made)])["total"]
    assert whole["kind"] == "measured" and whole["wh"] == (2, 2, 2)


def _place(folder, made):
    folder.mkdir()
    fold(folder / PAGE, made, parts=False)
    return folder


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["{}/nowhere"], "no such file"),
        (["{}"], "nothing was recorded"),
        (["{}/maps", "--country", "Frnce"], "did you mean France"),
        (["{}/maps", "--picture", "{}/p.jpg"], ".png"),
    ],
)
def test_mistakes_are_one_line(places, capsys, words, named):
    assert main(["label", *(word.format(places) for word in words)]) == 2
    error = capsys.readouterr().err
    assert named in error and error.count("\n") == 1
