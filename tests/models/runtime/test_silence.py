"""Nothing asks the network, or leaves a file in the home folder, but what a person asked for."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runs import BANDS, make_chip, write

ROOT = Path(__file__).parents[3]
GUARD = """
import os, socket
def told(what, real):
    def asked(*args, **kwargs):
        address = args[1] if what == "connect" else args[0]
        address = address[0] if isinstance(address, tuple) else address
        if str(address) not in ("None", "localhost", "127.0.0.1", "::1", "") and not str(address).startswith("/"):
            with open(os.environ["ASKED"], "a") as file:
                file.write(f"{what} {address}\\n")
            raise OSError("no network")
        return real(*args, **kwargs)
    return asked
socket.getaddrinfo = told("getaddrinfo", socket.getaddrinfo)
socket.gethostbyname = told("gethostbyname", socket.gethostbyname)
for name in ("connect", "connect_ex", "sendto"):
    setattr(socket.socket, name, told("connect", getattr(socket.socket, name)))
"""


@pytest.fixture
def guarded(tmp_path):
    """A function that runs Python under a guard that child processes have too; gives what was asked, and left."""
    (tmp_path / "guard").mkdir()
    (tmp_path / "guard" / "sitecustomize.py").write_text(GUARD)
    (tmp_path / "home").mkdir()
    switches = r"TELEMETRY|TRACK|USAGE_STATS|UPDATE|VERSION_CHECK|WANDB|HF_|XDG_|^CI$"
    environment = {k: v for k, v in os.environ.items() if not re.search(switches, k)} | {
        "PYTHONPATH": f"{tmp_path / 'guard'}{os.pathsep}{ROOT}",
        "HOME": str(tmp_path / "home"),
        "ASKED": str(tmp_path / "asked"),
        "EARTHTUNE_CACHE": str(tmp_path / "cache"),
    }
    # Where the system allows it there is no network at all, for code that is not Python's either.
    alone = ["unshare", "-rn"]
    try:
        alone = alone if subprocess.run([*alone, "true"], capture_output=True).returncode == 0 else []
    except OSError:
        alone = []

    def run(*words):
        done = subprocess.run(
            [*alone, sys.executable, *map(str, words)], capture_output=True, text=True, env=environment, cwd=tmp_path
        )
        asked = (tmp_path / "asked").read_text() if (tmp_path / "asked").exists() else ""
        files = [path.relative_to(tmp_path / "home") for path in (tmp_path / "home").rglob("*") if path.is_file()]
        left = [str(path) for path in files if path.parts[:2] != (".cache", "matplotlib")]  # its list of fonts
        return done, asked, left

    return run


def test_the_guard_sees_what_is_asked(guarded):
    script = (
        "import socket, subprocess, sys\ntry: socket.create_connection(('example.org', 80))\nexcept OSError: pass\n"
    )
    script += "subprocess.run([sys.executable, '-c', 'import urllib.request as u; u.urlopen(\"http://192.0.2.1/\")'])"
    _, asked, _ = guarded("-c", script)
    assert asked == "getaddrinfo example.org\ngetaddrinfo 192.0.2.1\n"


@pytest.mark.parametrize("command", ["score", "embed"])
def test_commands_ask_nobody_and_leave_nothing(guarded, run, tmp_path, command):
    scenes = [
        write(tmp_path / f"{i}.tif", make_chip(i)[0], names=BANDS, tags={"ACQUISITION_DATE": "2021-01-01"})
        for i in (1, 2)
    ]
    words = {
        "score": ["score", run, *scenes, "--out", "maps", "--workers", "2", "--runtime", "openvino"],
        "embed": ["embed", run, scenes[0], "--out", "tokens.tif", "--tile", "32"],
    }
    done, asked, left = guarded("-m", "pipelines.cli", *words[command])
    assert (done.returncode, asked, left) == (0, "", []), done.stderr


def test_whoever_imports_a_library_that_reports_silences_it_first():
    libraries = r"(openvino|huggingface_hub|terratorch|ray)\b"
    for path in [p for folder in ("models", "pipelines") for p in (ROOT / folder).rglob("*.py")]:
        text = path.read_text()
        if path.name != "silence.py" and re.search(
            rf"^ *(from|import) {libraries}|import_module\(.{libraries}", text, re.M
        ):
            assert re.search(r"import silence|from models\.(runtime\.compiled|backbones\.hub) import", text), path


def test_what_a_person_set_stays(guarded):
    script = "import os; os.environ['HF_HUB_DISABLE_TELEMETRY'] = '0'; from models.runtime import silence; "
    script += "print(os.environ['HF_HUB_DISABLE_TELEMETRY'], os.environ['DO_NOT_TRACK'])"
    assert guarded("-c", script)[0].stdout == "0 1\n"
