"""The commands as a person types them: exit codes, one-line errors, help."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from models.errors import InputError
from pipelines.cli.main import main
from pipelines.cli.options import call_of, recipe_path, respelled
from pipelines.cli.parser import make_parser
from pipelines.cli.table import COMMANDS
from pipelines.commands.finetune import told
from pipelines.commands.outcome import Outcome
from tests.runs import BANDS, make_chip, write

DATED = {"ACQUISITION_DATE": "2021-01-01"}

SAMPLES = str(Path(__file__).parents[3] / "sample_data" / "landuse")


def call(capsys, *arguments):
    code = main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def test_help_names_every_command_and_imports_nothing_heavy():
    script = "import sys; from pipelines.cli.main import main; main(['--help']); print(sorted(sys.modules))"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert all(f"\n  {command}" in out for command in COMMANDS)
    modules = out.rsplit("[", 1)[1].replace("'", "").split(", ")
    assert not {"numpy", "torch", "rasterio", "argparse", "yaml"} & set(modules)
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


def said(command, *words):
    """What a command is told by words, each option as its type asks for it."""
    call = call_of(COMMANDS[command], recipe_path(words) if COMMANDS[command].of_recipe else None)
    typed = vars(make_parser(command, call).parse_args(respelled(words, call.options, ["--json"])))
    return {option.name: option.value(typed[option.name]) for option in call.options if option.name in typed}


@pytest.mark.parametrize("command", COMMANDS)
def test_examples_of_the_help_are_understood(command):
    for example in COMMANDS[command].examples:
        name, *words = re.sub(" (>.*|--print_config)", "", example).split()
        assert name == command and (said(name, *(word.strip("'") for word in words)) or not words)


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
        "score r --mask_clouds t": 4,
    }
    tab = 'COMP_WORDS=(earthtune {}); COMP_CWORD={}; _shtab_earthtune; echo "${{COMPREPLY[*]}}"'
    lines = [f"source {tmp_path / 'script'}", *(tab.format(words, place) for words, place in typed.items())]
    found = subprocess.run(["bash", "-c", "\n".join(lines)], capture_output=True, text=True, check=True).stdout
    wanted = [
        "score search sample seasonal",
        "--probabilities",
        "landuse",
        "--augment.turns",
        "--data.coarse",
        "prithvi_eo_v1_100",
        "true",
    ]
    assert code == 0 and found.splitlines() == wanted


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["paint"], ["paint", "finetune"]),
        (["finetune"], ["recipe", "landuse"]),
        (["finetune", "nothing.yaml"], ["nothing.yaml", "landuse"]),
        (["finetune", "demo", "--training.epoch", "3"], ["did you mean --training.epochs?"]),
        (["finetune", "demo", "--mode", "half", "--data.root", SAMPLES], ["half", "frozen"]),
        (["finetune", "demo", "--data.root", "no/where", "--weights", "random"], ["no/where", "--data.root"]),
        (["evaluate", "no/run"], ["no/run", "earthtune finetune"]),
        (["score", "no/run", "a.tif", "--out", "maps"], ["no/run"]),
        (["score", "no/run"], ["SCENES", "--out"]),
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
    assert code == 0 and "a_map.tif" in out and "100.0%" in out
    assert err.startswith("energy: ") and err.count("\n") == 1
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
    code, out, _ = call(capsys, "finetune", "demo", "--training.epochs", "7", "--print_config")
    assert code == 0 and "epochs: 7" in out and "tree cover" in out


def test_finetune_tells_where_the_run_is():
    assert told({}, {}) == Outcome({}, "")  # another process of a distributed run
    ended = told({"model": {}, "run": "runs/x"}, {})  # resumed, and had ended already
    assert ended == Outcome({"model": {}}, "run: runs/x\nreport: runs/x/report.html")


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


def test_options_are_spelled_with_dashes_too_and_switches_may_stand_alone():
    words = ["run", "--min-area", "2", "--date", "2020-01-31", "--date=2021-01-31", "--mask-clouds", "a.tif"]
    found = said("score", *words, "--out", "maps", "--confidence", "false")
    assert found["min_area"] == 2.0 and found["mask_clouds"] is True and found["confidence"] is False
    assert found["dates"] == ["2020-01-31", "2021-01-31"] and found["scenes"] == ["a.tif"]
    assert said("finetune", "demo", "--training.flips", "false", "--data.mask_clouds")["training.flips"] is False
    with pytest.raises(InputError, match="--bundle: wanted a value"):
        said("score", "run", "a.tif", "--bundle")
    with pytest.raises(InputError, match=r"--confidenc: no such option; did you mean --confidence\?"):
        said("score", "run", "a.tif", "--confidenc")
    with pytest.raises(InputError, match="--min_area: wanted a number, came 'small'"):
        said("score", "run", "a.tif", "--out", "maps", "--min_area", "small")


@pytest.mark.parametrize(
    ("command", "words", "name", "value"),
    [
        *(("score", f"r a.tif --out m --bands {b}", "bands", ["BLUE", "RED"]) for b in ("BLUE,RED", "[BLUE,'RED']")),
        ("score", "r a.tif --out m --bands BLUE --bands RED", "bands", ["BLUE", "RED"]),
        ("score", "r --bundle a,b --bundle=c x.tif --out m", "bundle", [Path("a,b"), Path("c")]),
        ("evaluate", "r --codes 10,30", "codes", [10, 30]),
        ("evaluate", "r --codes 10 30", "codes", [10, 30]),
        ("finetune", "demo --data.fractions 0.5,0.2,0.3", "data.fractions", (0.5, 0.2, 0.3)),
        ("finetune", "demo --data.images [a_*.tif,b_*.tif]", "data.images", ["a_*.tif", "b_*.tif"]),
        (
            "finetune",
            "demo --data.label_nodata -9999,-1e4",
            "data.label_nodata",
            [-9999.0, -1e4],
        ),
        ("finetune", "demo --model.blocks 5,11", "model.blocks", (5, 11)),
        ("finetune", "demo --model.blocks []", "model.blocks", ()),
        ("finetune", "demo --training.loss {ce:1,dice:0.5}", "training.loss", {"ce": 1.0, "dice": 0.5}),
        ("finetune", "rainfall --data.leads 0,6", "data.leads", [0.0, 6.0]),
        ("finetune", "rainfall --data.window -1,1", "data.window", (-1.0, 1.0)),
        ("finetune", "downscale --data.coarse c*.nc --conserve false", "data.coarse", ["c*.nc"]),
        ("forecast", "b a.nc --out f --region -100 30 -70 45", "region", [-100.0, 30.0, -70.0, 45.0]),
        ("forecast", "b a.nc --out f --region -100,30,-70,45", "region", [-100.0, 30.0, -70.0, 45.0]),
        ("forecast", "b a.nc --verify c.nc d.nc --out f", "verify", ["c.nc", "d.nc"]),
    ],
)
def test_lists_take_commas_and_more_words(command, words, name, value):
    spaced = [word.replace(":", ": ") if word[0] == "{" else word for word in words.split()]
    assert said(command, *spaced)[name] == value


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--data.fractions 0.5,0.5", "--data.fractions: wanted 3 entries, came 2"),
        ("--model.blocks 5,x", r"--model.blocks\[1\]: wanted a whole number, came 'x'"),
        ("--training.loss.dice 1", "--training.loss.dice: no such option; did you mean"),
        ("--classes [{code:1}]", r"--classes"),
    ],
)
def test_values_of_another_type_are_refused_by_the_options_name(words, line):
    with pytest.raises(InputError, match=line):
        said("finetune", "demo", *words.split())


def test_debug_shows_where_an_error_came_from_and_only_the_unexpected_is_to_be_reported(capsys, monkeypatch):
    import pipelines.commands.backbones as home

    def broken():
        raise ValueError("what\nnobody expected")

    code, _, err = call(capsys, "inspect", "no/file.tif", "--debug")
    assert code == 2 and "Traceback" in err and err.endswith("\n") and "please report it" not in err
    monkeypatch.setattr(home, "cached", lambda *_: broken())
    code, _, err = call(capsys, "backbones")
    wanted = "earthtune: unexpected ValueError: what nobody expected; --debug shows where; please report it\n"
    assert (code, err) == (1, wanted)
    code, _, err = call(capsys, "backbones", "--debug")
    assert code == 1 and "in broken" in err and err.endswith(wanted)
    monkeypatch.setattr(home, "cached", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    assert call(capsys, "backbones")[::2] == (130, "earthtune: stopped\n")


def test_workers_show_where_an_error_came_from(run, tmp_path, capsys):
    scenes = [write(tmp_path / f"{i}.tif", make_chip(int(i))[0], names=BANDS, tags=DATED) for i in "12"]
    shutil.copytree(run, tmp_path / "run")
    for path in (tmp_path / "run").glob("model.*"):
        path.write_bytes(b"broken")
    words = ("score", tmp_path / "run", *scenes, "--out", tmp_path / "maps", "--workers", "2")
    assert "Traceback" not in call(capsys, *words)[2]
    err = call(capsys, *words, "--debug")[2]
    assert "in carry_out" in err and "RemoteTraceback" in err
