"""Python under a guard, which its child processes have too: nothing is asked of the network, nothing left at home."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
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


def run_guarded(folder: Path, *words: object) -> tuple[subprocess.CompletedProcess[str], str, list[str]]:
    """Run Python with these words in a folder; what came of it, what was asked, and the files left at home."""
    (folder / "guard").mkdir()
    (folder / "guard" / "sitecustomize.py").write_text(GUARD)
    (folder / "home").mkdir()
    switches = r"TELEMETRY|TRACK|USAGE_STATS|UPDATE|VERSION_CHECK|WANDB|HF_|XDG_|^CI$"
    environment = {k: v for k, v in os.environ.items() if not re.search(switches, k)} | {
        "PYTHONPATH": f"{folder / 'guard'}{os.pathsep}{ROOT}",
        "HOME": str(folder / "home"),
        "ASKED": str(folder / "asked"),
        "EARTHTUNE_CACHE": str(folder / "cache"),
    }
    # Where the system allows it there is no network at all, for code that is not Python's either.
    alone = ["unshare", "-rn"]
    try:
        alone = alone if subprocess.run([*alone, "true"], capture_output=True).returncode == 0 else []
    except OSError:
        alone = []
    done = subprocess.run(
        [*alone, sys.executable, *map(str, words)], capture_output=True, text=True, env=environment, cwd=folder
    )
    asked = (folder / "asked").read_text() if (folder / "asked").exists() else ""
    files = [path.relative_to(folder / "home") for path in (folder / "home").rglob("*") if path.is_file()]
    left = [str(path) for path in files if path.parts[:2] != (".cache", "matplotlib")]  # its list of fonts
    return done, asked, left
