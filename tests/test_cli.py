"""The commands as a person types them: exit codes, one-line errors, help."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from models.errors import InputError
from pipelines import cli
from pipelines.cli import COMMANDS, main
from tests.runs import BANDS, make_chip, write


def call(capsys, *arguments):
    code = main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def test_help_names_every_command_and_imports_nothing_heavy():
    script = "import sys; from pipelines.cli import main; main(['--help']); print(sorted(sys.modules))"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert all(f"\n  {command}" in out for command in COMMANDS)
    assert not {"numpy", "torch", "rasterio", "jsonargparse"} & set(out.rsplit("[", 1)[1].replace("'", "").split(", "))


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    out = capsys.readouterr().out
    assert stop.value.code == 0
    assert out.startswith(f"usage: earthtune {command}") and "Args:" not in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["paint"], ["paint", "finetune"]),
        (["finetune", "nothing.yaml"], ["nothing.yaml", "landuse"]),
        (["finetune", "demo", "--training.epoch", "3"], ["epoch"]),
        (["finetune", "demo", "--mode", "half"], ["half", "frozen"]),
        (["finetune", "demo", "--data.root", "no/where", "--weights", "random"], ["no/where", "--data.root"]),
        (["evaluate", "no/run"], ["no/run", "earthtune finetune"]),
        (["score", "no/run", "a.tif", "--out", "maps"], ["no/run"]),
        (["score", "no/run"], ["scenes"]),
        (["inspect", "no/file.tif"], ["no/file.tif"]),
        (["embed", "vit", "a.tif", "--out", "x.tif"], ["vit", "prithvi_eo_v2_300"]),
    ],
)
def test_mistakes_are_one_line_and_exit_2(arguments, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = call(capsys, *arguments)
    assert code == 2 and out == ""
    assert err.startswith("earthtune: ") and err.count("\n") == 1
    assert all(word in err for word in words)
    assert not list(tmp_path.iterdir())


def test_no_command_is_a_mistake(capsys):
    assert call(capsys)[0] == 2


def test_score_prints_the_map_and_json_on_request(run, tmp_path, capsys):
    scene = write(tmp_path / "a.tif", make_chip(1)[0], names=BANDS, tags={"ACQUISITION_DATE": "2021-01-01"})
    code, out, err = call(capsys, "score", run, scene, "--out", tmp_path / "maps")
    assert code == 0 and "a_map.tif" in out and "100.0%" in out and err == ""
    code, out, _ = call(capsys, "score", run, scene, "--out", tmp_path / "maps", "--overwrite", "--json")
    assert code == 0 and json.loads(out)[0]["valid"] == 1


def test_inspect_says_whether_a_run_can_eat_a_file(run, tmp_path, capsys):
    good = write(tmp_path / "a.tif", make_chip(1)[0], names=BANDS, tags={"ACQUISITION_DATE": "2021-01-01"})
    few = write(tmp_path / "b.tif", make_chip(1)[0][:2], names=BANDS[:2])
    assert call(capsys, "inspect", good, "--for", run)[0] == 0
    code, out, _ = call(capsys, "inspect", few, "--for", run)
    assert code == 2 and "NIR_NARROW" in out


def test_evaluate_takes_another_folder(run, chips, tmp_path, capsys):
    code, out, _ = call(capsys, "evaluate", run, "--data.root", chips, "--out", tmp_path, "--codes", "[10,80]")
    assert code == 0 and "report.html" in out


def test_print_config_shows_the_recipe(capsys):
    with pytest.raises(SystemExit):
        main(["finetune", "demo", "--training.epochs", "7", "--print_config"])
    out = capsys.readouterr().out
    assert "epochs: 7" in out and "tree cover" in out


def test_backbones_lists_them(capsys):
    code, out, _ = call(capsys, "backbones", "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert code == 0 and rows["prithvi_eo_v2_600_tl"]["repository"].endswith("Prithvi-EO-2.0-600M-TL")
    assert rows["prithvi_wxc_2300m"]["licence"] == "CDLA-Permissive-2.0"


def test_broken_files_are_one_line(run, tmp_path, capsys):
    text, cut = tmp_path / "text.tif", tmp_path / "cut.tif"
    text.write_text("no raster")
    whole = write(tmp_path / "whole.tif", make_chip(1)[0], names=BANDS, tags={"ACQUISITION_DATE": "2021-01-01"})
    cut.write_bytes(whole.read_bytes()[:-4000])
    for path in (text, cut):
        code, _, err = call(capsys, "score", run, path, "--out", tmp_path / "maps")
        assert code in (1, 2) and err.count("\n") == 1 and path.name in err
        assert not (tmp_path / "maps").exists() or not list((tmp_path / "maps").iterdir())


def test_options_are_spelled_with_dashes_too_and_lists_may_be_given_piece_by_piece():
    spelled = cli._switches(["--min-area", "2", "--date", "2020-01-31", "--date=2021-01-31", "--mask-clouds", "a.tif"])
    assert spelled == ["--min_area", "2", "--mask_clouds=true", "a.tif", '--dates=["2020-01-31", "2021-01-31"]']
    for bands in ("BLUE,RED", "[BLUE, RED]", '["BLUE", "RED"]'):
        assert cli._switches(["--bands", bands]) == ['--bands=["BLUE", "RED"]']
    assert cli._switches(["--bundle", "a,b", "--bundle=c"]) == ['--bundle=["a,b", "c"]']
    with pytest.raises(InputError, match="--bundle: wanted a value"):
        cli._switches(["--bundle"])
