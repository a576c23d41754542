"""Nothing asks the network, or leaves a file in the home folder, but what a person asked for."""

import json
import re
import shutil
from pathlib import Path

import rasterio
import yaml
from PIL import Image

from models.backbones.prithvi_eo import config
from pipelines.cli.table import COMMANDS
from pipelines.commands.demo import RECIPE, SAMPLES
from pipelines.commands.sample import sample
from pipelines.tasks.task import load_recipe
from tests.pipelines.forecasts.test_forecast import hours, write_analyses
from tests.pipelines.forecasts.test_seasonal import world
from tests.pipelines.surveys.test_survey import ground, label, scene
from tests.rain_files import rain_recipe
from tests.runs import BANDS, TINY_MAE, make_chip, make_points, make_series, tiny_recipe, write

ROOT = Path(__file__).parents[3]


def test_the_guard_sees_what_is_asked(guarded):
    script = (
        "import socket, subprocess, sys\ntry: socket.create_connection(('example.org', 80))\nexcept OSError: pass\n"
    )
    script += "subprocess.run([sys.executable, '-c', 'import urllib.request as u; u.urlopen(\"http://192.0.2.1/\")'])"
    _, asked, _ = guarded("-c", script)
    assert asked == "getaddrinfo example.org\ngetaddrinfo 192.0.2.1\n"


ALL = """
import json, sys
from pathlib import Path
from tests.unexported import everywhere
from pipelines.cli.main import main
from pipelines.commands import demo
from pipelines.runs import int8
demo.RECIPE = Path("demo.yaml")
int8.SAME_LABELS, int8.LOST = 0.0, 1.0  # how well bytes do on a small run differs from one processor to another
for words in json.loads(sys.argv[1]):
    if words[0] != "demo":
        everywhere()  # exporting takes most of the time, and the demo does it
    if code := main(words):
        sys.exit(f"{words}: {code}")
"""


def test_commands_ask_nobody_and_leave_nothing(guarded, run, rain_run, chips, rain_day, tmp_path):
    """All in one process, as each would import torch. The demo is the only one that exports, and tells of itself first.

    `fetch` and `pull` ask whom they are told to, see test_fetch.py and test_pull.py.
    """
    for name, recipe in (("scenes", tiny_recipe(chips)), ("rain", rain_recipe(rain_day))):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(recipe.to_json()))
    dated = {"names": BANDS, "tags": {"ACQUISITION_DATE": "2021-01-01"}}
    one, two = (write(tmp_path / f"{i}.tif", make_chip(i)[0], **dated) for i in (1, 2))
    make_points(tmp_path / "few.csv", 1)
    series = make_series(tmp_path / "series")
    weather = next(rain_day.glob("*inst1*"))
    truth, codes, _ = ground()
    sample([scene(tmp_path, codes)], out=tmp_path / "labelled.gpkg", n=60)
    label(tmp_path / "labelled.gpkg", truth)
    surface, deep = write_analyses(tmp_path, hours(0, 6))
    shutil.copytree(run, tmp_path / "bytes")
    small = json.dumps(TINY_MAE, separators=(",", ":"))
    short = RECIPE.read_text().replace("blocks: [5, 11]", "blocks: [0, 1], overrides: {depth: 2}")
    (tmp_path / "demo.yaml").write_text(short)
    commands = [
        "demo --epochs 1 --json",
        "completion bash",
        "backbones",
        f"inspect {one} --for {run}",
        "plan scenes.yaml --steps 0",
        "finetune scenes.yaml --training.epochs 1 --out trees",
        "finetune rain.yaml --training.epochs 1 --out wet",
        "search rain.yaml --training.epochs 1 --folds 2 --trials 1 --out tried",
        f"pretrain {one} {two} --weights random --epochs 1 --overrides {small} --out own",
        "distil trees --params 100000 --epochs 1 --compare false --out student",
        f"evaluate {run} --out elsewhere",
        f"score {run} {one} {two} --out maps --confidence --workers 2 --runtime openvino --mosaic all_map.tif",
        f"composite {one} {two} --mask_clouds false --out months",
        f"changes {series} --since 2022-06-01 --out watched",
        "mosaic maps --out joined.tif --pixel 60",
        f"score {rain_run} {weather} --out rain",
        f"embed {run} {one} --out tokens.tif --tile 32",
        f"points {one} few.csv --tokens tokens.tif --out few.tif",
        "review maps/1_map.tif --no_page",
        f"publish {run} org/trees --dry_run --licence mit --out gone",
        f"edge {run} --out site --scene {one}",
        "int8 bytes",
        "sample maps/1_map.tif --n 30 --out points.gpkg",
        "areas labelled.gpkg",
        f"forecast prithvi_wxc_tiny {surface} {deep} --weights random --steps 1 --out fc",
        f"encode prithvi_wxc_tiny {surface} {deep} --weights random --every 6 --components 2 --out wxc.nc",
        f"seasonal {world(tmp_path / 'years.nc')} --target pr --season DJF --out winter",
        "label trees maps rain tokens.tif fc winter --country FRA",
    ]
    done, asked, left = guarded("-c", ALL, json.dumps([command.split() for command in commands]))
    assert (done.returncode, asked, left) == (0, "", []), done.stderr
    assert {command.split()[0] for command in commands} | {"fetch", "pull"} == set(COMMANDS)
    check_demo(tmp_path, json.JSONDecoder().raw_decode(done.stdout)[0])


def check_demo(folder, result):
    """The demo wrote what it says, and its map lies on the scene."""
    assert set(result["accuracy"]) == {"model", "majority", "pixel forest", "boosting on neighbourhoods"}
    scene = SAMPLES / "new_scene" / "new_scene_hls.tif"
    with rasterio.open(folder / result["map"]) as made, rasterio.open(scene) as given:
        assert made.transform == given.transform and made.crs == given.crs
        assert set(made.read(1).ravel()) <= {0, 10, 30, 40, 50, 80}
    assert (folder / result["picture"]).stat().st_size > 50_000
    with Image.open(folder / result["picture"]) as picture:  # its text is black, and so would a page behind it be
        assert picture.convert("RGBA").getextrema()[3] == (255, 255)
    assert result["report"] == "demo/run/report.html" and (folder / result["report"]).is_file()


def test_the_demo_s_own_network_has_the_blocks_that_are_asked_for():
    """The one that is trained above is cut to two."""
    recipe = load_recipe(RECIPE)
    assert recipe.model.blocks[-1] == config(recipe.backbone)["depth"] - 1 and not recipe.model.overrides


def test_whoever_imports_a_library_that_reports_silences_it_first():
    libraries = r"(openvino|onnxruntime|huggingface_hub|terratorch|ray)\b"
    for path in [p for folder in ("models", "pipelines") for p in (ROOT / folder).rglob("*.py")]:
        text = path.read_text()
        if path.name not in ("silence.py", "run_edge.py") and re.search(
            rf"^ *(from|import) {libraries}|import_module\(.{libraries}", text, re.M
        ):
            assert re.search(r"import silence|from models\.(runtime\.compiled|backbones\.hub) import", text), path


def test_what_a_person_set_stays(guarded):
    script = "import os; os.environ['HF_HUB_DISABLE_TELEMETRY'] = '0'; from models.runtime import silence; "
    script += "print(os.environ['HF_HUB_DISABLE_TELEMETRY'], os.environ['DO_NOT_TRACK'])"
    assert guarded("-c", script)[0].stdout == "0 1\n"
