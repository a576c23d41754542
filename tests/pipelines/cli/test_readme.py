"""Every command of the README is run: on small files under the names that it uses, with tiny weights.

Of the commands in docs/ the options are read.
"""

from __future__ import annotations

import glob
import io
import json
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import numpy as np
import pyogrio
import pytest

from docs.reference import KINDS
from models.errors import InputError
from pipelines.access.catalogues import CATALOGUES, Catalogue
from pipelines.cli.main import main
from pipelines.cli.options import FILLED, call_of, options_of, recipe_path, respelled
from pipelines.cli.parser import FLAGS, make_parser
from pipelines.cli.table import COMMANDS
from pipelines.recipes.reading import RECIPES
from pipelines.tasks.task import task_named
from tests.catalogue_server import publish_s2, serving_catalogue
from tests.downscale_files import coarsened
from tests.pipelines.forecasts.test_forecast import hours, write_analyses
from tests.pipelines.forecasts.test_seasonal import world
from tests.pipelines.scenes.test_scene import stac_item
from tests.rain_files import make_day
from tests.runs import BANDS, TINY, TINY_MAE, make_chip, make_points, make_series, write

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text()
FLAGS_OF_ALL = ("help", "print_config", *(flag[2:] for flag in FLAGS))
DOCS = sorted((ROOT / "docs").rglob("*.md"))


def lines_of(page: str) -> list[str]:
    """The lines of a page's blocks of code, without comments; those that end in a backslash go on."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    plain = "\n".join(block for language, block in blocks if not language).replace("\\\n", " ")
    return [re.sub(r"\s+#.*", "", line) for line in plain.splitlines()]


def inline_of(page: str) -> list[str]:
    """The commands that its text names with what comes after them."""
    return [text for text in re.findall(r"`(earthtune [^`\s]+ [^`]*)`", page) if text != "earthtune COMMAND --help"]


LINES, INLINE = lines_of(README), inline_of(README)

# What is run in place of what takes the published sizes; all else is run as it stands.
INSTEAD = {
    "embed prithvi_eo_v2_300_tl": "embed runs/landuse",  # 300M on a machine of any size
    "prithvi_wxc_2300m_rollout": "prithvi_wxc_tiny --weights random",  # 2300M; by name in test_forecast.py
    "encode prithvi_wxc_2300m": "encode prithvi_wxc_tiny --weights random",  # the same, in test_encode.py
    "--steps 8": "--steps 1",
}
# Options that make a fine-tuning small. The hub of the tests serves weights of this size under the published name.
SMALL = f"--training.epochs 1 --model.overrides '{json.dumps(TINY)}' --model.blocks [0,1] --model.statistics 8"
# Recipes are trained in test_recipe.py and test_..._run.py, on data of their own; here their options are read.
OPTIONS_ONLY = [*INLINE, *(line for line in LINES if re.match("earthtune finetune (rainfall|downscale)", line))]


def test_lines_of_the_readme_are_commands():
    assert {line.split()[0] for line in LINES if line} == {"earthtune", "hf"}
    named = {line.split()[1] for line in [*LINES, *INLINE] if line.startswith("earthtune")}
    assert named | {"demo"} == set(COMMANDS)  # `make demo` runs that
    assert set(re.findall(r"^    make (\w+)", README, re.MULTILINE)) == {"demo", "test"}


def test_every_recipe_has_a_row_with_its_command():
    command = r"`earthtune finetune (\w+) --data.root \w+`"
    rows = re.findall(rf"^\| [^|]+ \| `(\w+)` \|.*\| {command} \|$", README, re.MULTILINE)
    assert all(one == two for one, two in rows)
    assert {name for name, _ in rows} == {path.stem for path in RECIPES.glob("*.yaml")} - {"demo"}


@pytest.mark.skipif(shutil.which("make") is None, reason="no make on this machine")
@pytest.mark.parametrize(
    ("target", "last"), [("demo", "earthtune demo --out demo --overwrite"), ("test", "-m pytest -n 2 --dist loadfile")]
)
def test_make_has_the_two_targets(target, last):
    """The demo itself is run in test_silence.py."""
    told = subprocess.run(
        ["make", "--no-print-directory", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert told.splitlines()[-1].endswith(last)


def test_files_and_options_that_the_text_names_exist():
    named = re.findall(r"`((?:docs|pipelines)/[\w./]*)`|\((docs/[\w.]+)\)", README)
    assert named and all((ROOT / (one or two)).exists() for one, two in named)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(re.findall(r"the extra `(\w+)`", README)) == set(extras) - {"dev"}


@pytest.fixture
def desk(run, rain_run, fine_run, fine_day, tmp_path, monkeypatch):
    """A folder that holds what the commands name."""
    chips, groups = tmp_path / "chips", ["chip,group"]
    dated = {"names": BANDS, "tags": {"ACQUISITION_DATE": "2021-06-15"}, "nodata": -9999}
    for folder in (chips, tmp_path / "other_chips"):
        for i in range(12):
            bands, codes = make_chip(i)
            write(folder / f"c{i:02d}_hls.tif", bands, corner=(500000 + 5000 * i, 5000000), **dated)
            write(folder / f"c{i:02d}_worldcover.tif", codes, corner=(500000 + 5000 * i, 5000000), nodata=0)
            groups.append(f"c{i:02d},{i}")
        (folder / "chips.csv").write_text("\n".join(groups[:13]) + "\n")
    bands = make_chip(3)[0]
    for name in ("scene.tif", "new.tif", "scenes/a.tif", "scenes/b.tif", "folder/c.tif"):
        write(tmp_path / name, bands, **dated)
    make_points(tmp_path / "labels.csv", 3)
    make_series(tmp_path / "series")
    ring = [[8.9975, 45.1475], [9.0025, 45.1475], [9.0025, 45.1525], [8.9975, 45.1525], [8.9975, 45.1475]]
    (tmp_path / "county.geojson").write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    for code, band in zip((2, 3, 4, 5, 6, 7), bands, strict=True):
        raw = ((band / 1e4 + 0.2) / 0.0000275).astype(np.uint16)
        write(tmp_path / "LC08_folder" / f"LC08_L2SP_190030_20220705_20220708_02_T1_SR_B{code}.TIF", raw[None])
    assets = {}
    for key, band in zip(("blue", "green", "red", "nir08", "swir16", "swir22"), bands, strict=True):
        write(tmp_path / "item" / f"{key}.tif", band[None])
        assets[key] = {"href": f"./item/{key}.tif", "type": "image/tiff; application=geotiff"}
        assets[key]["eo:bands"] = [{"name": key, "common_name": key}]
    stac_item(tmp_path, assets=assets)
    for name, source in (("trees", run), ("rain", rain_run), ("fine", fine_run)):
        shutil.copytree(source, tmp_path / "runs" / name)
    coarsened(fine_day, tmp_path / "coarse.nc")
    make_day(tmp_path / "another_day", day="2020-04-02", seed=7)
    shutil.copy(next((tmp_path / "another_day").glob("*inst1*")), tmp_path / "weather.nc")
    for name, times in (("merra2", hours(12, 18)), ("later", hours(0, day="2020-03-31"))):
        (tmp_path / name).mkdir()
        write_analyses(tmp_path / name, times)
    world(tmp_path / "era5_monthly.nc")
    (tmp_path / "sample_data" / "fused").mkdir(parents=True)
    fused = ROOT / "sample_data" / "fused"
    for path in [*fused.glob("p0[0-5]*"), fused / "chips.csv", fused / "weather.nc"]:
        shutil.copy(path, tmp_path / "sample_data" / "fused")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def earth_search(monkeypatch):
    """A catalogue on the loopback interface in place of the one that is asked for Sentinel-2."""
    with serving_catalogue() as server:
        publish_s2(server, 1, metres=640)
        here = Catalogue(f"{server.url}/stac", CATALOGUES["earth_search"].collections)
        monkeypatch.setitem(CATALOGUES, "earth_search", here)
        yield


def published() -> bytes:
    """Weights of Prithvi EO in the published layout, tiny."""
    import torch
    from terratorch.models.backbones.prithvi_mae import PrithviMAE

    sizes = {"img_size": 32, "patch_size": [1, 16, 16], "decoder_embed_dim": 32, "decoder_depth": 1}
    coordinates = {"coords_encoding": ["time", "location"], "coords_scale_learn": True}
    mae, file = PrithviMAE(**TINY, **sizes, **coordinates, decoder_num_heads=2, num_frames=1, in_chans=6), io.BytesIO()
    torch.save(mae.state_dict(), file)
    return file.getvalue()


def label_points(path: Path) -> None:
    """Label each point of a sample as the map does, which is what somebody does in QGIS before `earthtune areas`."""
    key = pyogrio.read_dataframe(path, layer="sample_key").set_index("point")
    points = pyogrio.read_dataframe(path, layer="points")
    points["label"] = key.loc[points["point"], "code"].to_numpy()
    pyogrio.write_dataframe(points, path, layer="points", driver="GPKG")


def typed(line: str) -> list[str]:
    """The words of a command as a shell would pass them on, with what stands in for the published sizes."""
    line = re.sub(r" > \S+$", "", line)
    for text, other in INSTEAD.items():
        line = line.replace(text, other)
    line += f" {SMALL}" if re.match("earthtune (finetune|plan)", line) else ""
    line += f" --epochs 1 --overrides '{json.dumps(TINY_MAE)}'" if line.startswith("earthtune pretrain") else ""
    line += " --params 100000 --epochs 1 --compare false" if line.startswith("earthtune distil") else ""
    quoted = re.findall(r"'([^']*)'", line)
    words = [[word] if word in quoted or "*" not in word else sorted(glob.glob(word)) for word in shlex.split(line)]
    return [word for found in words for word in found][1:]


def understood(line: str) -> None:
    """Read the options of a line as the command does, and stop there."""
    name, *words = shlex.split(re.sub(r" (>|&).*", "", line[line.index("earthtune ") :]))[1:]
    call = call_of(COMMANDS[name], recipe_path(words) if COMMANDS[name].of_recipe else None)
    flags = (*FLAGS, *(["--print_config"] if call.recipe else []))
    typed = vars(make_parser(name, call).parse_args(respelled(words, call.options, flags)))
    said = {option.name: option.value(typed[option.name]) for option in call.options if option.name in typed}
    call.arguments(said | ({call.recipe: recipe_path(words)} if call.recipe else {}), dict.fromkeys(FILLED))


@pytest.mark.parametrize("page", DOCS, ids=lambda path: path.stem)
def test_commands_of_the_docs_take_their_options(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tried").mkdir()
    shutil.copy(RECIPES / "landuse.yaml", tmp_path / "tried" / "best.yaml")
    text = page.read_text()
    assert set(re.findall(r"`earthtune (\w+)", text)) <= set(COMMANDS)
    for line in [*lines_of(text), *inline_of(text)]:
        if re.search(r"(^|[ =])earthtune ", line):
            understood(line)


@pytest.mark.parametrize("page", [ROOT / "README.md", *DOCS], ids=lambda path: path.stem)
def test_options_and_keys_that_text_names_are_there(page):
    """Options of any command, keys of any kind of recipe."""
    options = {o.name for command in COMMANDS.values() for o in call_of(command).options}
    keys = {o.name for task in KINDS.values() for o in options_of(task_named(task).recipe, "recipe", required=False)}
    parts = {key.rpartition(".")[0] for key in keys}  # given as a whole
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    for code in re.findall(r"`([^`\n]+)`", text):
        if not re.match(r"python|run_edge|--without-terratorch", code):
            assert set(re.findall(r"--([a-z][\w.]*)", code)) <= options | keys | set(FLAGS_OF_ALL), code
        if key := re.match(r"(?:data|model|training|lora|distil)\.\w[\w.]*(?=[: ]|$)", code):
            assert key[0] in keys | parts or key[0].endswith((".safetensors", ".onnx")), code


def test_every_command_has_a_page_that_shows_it():
    shown = " ".join(line for page in DOCS for line in lines_of(page.read_text()))
    assert [name for name in COMMANDS if f"earthtune {name} " not in shown] == ["backbones", "demo", "completion"]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("earthtune score run a.tif --out maps --probabilites", "no such option"),
        ("earthtune score run a.tif", "--out"),
        ("earthtune score run a.tif --out maps --overlap wide", "wide"),
        ("srun earthtune finetune landus --data.root chips", "no such recipe"),
        ("A=1 earthtune finetune landuse --training.epochs x --out a > log", "--training.epochs"),
        ("earthtune search landuse --models.decoder fcn --out a &", "no such option"),
    ],
)
def test_what_a_line_gets_wrong_is_noticed(line, told):
    with pytest.raises(InputError, match=told):
        understood(line)


@pytest.mark.parametrize("line", OPTIONS_ONLY)
def test_recipes_of_the_readme_take_their_options(line, capsys):
    assert main([*shlex.split(line)[1:], "--print_config"]) == 0
    assert shlex.split(line)[4] in capsys.readouterr().out


def test_every_command_of_the_readme_runs(desk, hub, earth_search, capsys, torch_only):
    torch_only.add("landuse")  # later lines score with it
    repo, file = re.search(r"^hf download (\S+) (\S+)", README, re.MULTILINE).groups()  # its real hub is out of reach
    hub.publish(repo, {file: published()})
    (desk / file).write_bytes(published())
    for line in LINES:
        if line.startswith("earthtune areas"):
            label_points(desk / "points.gpkg")
        if line.startswith("earthtune") and line not in OPTIONS_ONLY:
            code = main(typed(line))
            out, err = capsys.readouterr()
            assert (code, bool(out)) == (0, True), f"{line}: {err}"
    assert any(path.startswith(f"/{repo}/resolve/") for _, path in hub.requests)
    made = {
        "runs/landuse/report.html",
        "maps/new_map.tif",
        "county_map.tif",
        "county.csv",
        "check.gpkg",
        "tokens.tif",
        "fc/forecast.nc",
        "tokens.nc",
        "winter/skill.json",
    }
    made |= {
        "many/a_map.tif",
        "sure/new_confidence.tif",
        "patches/new_map.tif",
        "p.gpkg",
        "a.csv",
        "points.csv",
        "areas.csv",
        "areas.png",
        "site/index.html",
        "maps/rain",
        "maps/fine",
    }
    assert not [name for name in made if not (desk / name).exists()]
