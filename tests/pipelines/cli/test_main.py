"""The commands as a person types them: exit codes, one-line errors, help."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys

import pytest

from models.errors import InputError
from pipelines.cli import main as cli
from pipelines.cli import options
from pipelines.cli.main import COMMANDS, main
from tests.runs import BANDS, make_chip, write


def call(capsys, *arguments):
    code = main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def test_help_names_every_command_and_imports_nothing_heavy():
    script = "import sys; from pipelines.cli.main import main; main(['--help']); print(sorted(sys.modules))"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert all(f"\n  {command}" in out for command in COMMANDS)
    modules = out.rsplit("[", 1)[1].replace("'", "").split(", ")
    assert not {"numpy", "torch", "rasterio", "jsonargparse"} & set(modules)
    assert len(modules) < 150  # 0.03 s


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    out = capsys.readouterr().out
    assert stop.value.code == 0
    assert out.startswith(f"usage: earthtune {command}") and "Args:" not in out
    usage, summary, *_ = out.split("\n\n")
    assert usage.count("\n") == 0 and summary.count("\n") <= 2 and summary.endswith(".")
    assert max(map(len, out.splitlines())) <= 80
    assert "\nevery command:\n  -h, --help" in out and re.search(rf"\nexamples?:\n  earthtune {command}", out)
    assert not re.search(r"BANDS\+|CONFIG|null|\[=flags\]|\.help", out)


def test_help_stands_under_headings(capsys):
    with pytest.raises(SystemExit):
        main(["finetune", "--help"])
    parts = capsys.readouterr().out.split("\n\n")
    found = {part.split("\n")[0]: part for part in parts if part.split("\n")[0].endswith(":")}
    assert list(found)[:4] == ["arguments:", "options:", "what is written:", "how it runs:"]
    assert "landuse" in found["arguments:"] and "--bands" in found["options:"]
    assert "--data.bands" in found["--data: the images, their labels and the split:"]
    assert "--resume  " in found["what is written:"] and "{true,false}" in found[next(k for k in found if "rates" in k)]


@pytest.mark.parametrize("command", options.USAGE)
def test_examples_of_the_help_are_understood(command):
    for example in options.USAGE[command][1]:
        name, *words = re.sub(" (>.*|--print_config)", "", example).split()
        words = cli._recipe_first(words) if name == "finetune" else words
        cli.parser_of(name, words)[0].parse_args(options.switches([word.strip("'") for word in words]))


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash on this machine")
def test_bash_completes_commands_options_and_recipes(tmp_path, capsys):
    code, text, _ = call(capsys, "completion", "bash")
    (tmp_path / "script").write_text(text)
    typed = {
        "s": 1,
        "score --prob": 2,
        "finetune land": 2,
        "finetune x --augment.tu": 3,
        "finetune x --data.coa": 3,
        "embed prithvi_eo_v1": 2,
    }
    tab = 'COMP_WORDS=(earthtune {}); COMP_CWORD={}; _earthtune; echo "${{COMPREPLY[*]}}"'
    lines = [f"source {tmp_path / 'script'}", *(tab.format(words, place) for words, place in typed.items())]
    found = subprocess.run(["bash", "-c", "\n".join(lines)], capture_output=True, text=True, check=True).stdout
    wanted = ["score seasonal", "--probabilities", "landuse", "--augment.turns", "--data.coarse", "prithvi_eo_v1_100"]
    assert code == 0 and found.splitlines() == wanted


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["paint"], ["paint", "finetune"]),
        (["finetune"], ["recipe", "landuse"]),
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
    spelled = options.switches(
        ["--min-area", "2", "--date", "2020-01-31", "--date=2021-01-31", "--mask-clouds", "a.tif"]
    )
    assert spelled == ["--min_area", "2", "--mask_clouds=true", "a.tif", '--dates=["2020-01-31", "2021-01-31"]']
    for bands in ("BLUE,RED", "[BLUE, RED]", '["BLUE", "RED"]'):
        assert options.switches(["--bands", bands]) == ['--bands=["BLUE", "RED"]']
    assert options.switches(["--data.coarse", "c*.nc"]) == ['--data.coarse=["c*.nc"]']
    assert options.switches(["--data.leads", "0,6"]) == ["--data.leads=[0.0, 6.0]"]
    assert options.switches(["--bundle", "a,b", "--bundle=c"]) == ['--bundle=["a,b", "c"]']
    with pytest.raises(InputError, match="--bundle: wanted a value"):
        options.switches(["--bundle"])
