"""Kernels for notebooks that are forked from a process which has imported what is heavy: seconds less for each.

`forked.py serve SOCKET` is that process; `forked.py SOCKET CONNECTION_FILE` is what a kernel manager starts, and lives
as long as the kernel that it asked for.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def forking(path: Path, environment: dict[str, str]) -> Iterator[list[str]]:
    """Kernels may be forked here, in this environment: the command of one, to be followed by its connection file."""
    words = [sys.executable, __file__]
    server = subprocess.Popen([*words, "serve", str(path)], env=environment)
    try:
        while not path.exists():
            assert server.poll() is None
            time.sleep(0.05)
        yield [*words, str(path)]
    finally:
        server.kill()
        server.wait()


def _serve(path: str) -> None:
    """Fork a kernel for each who asks, until this process is killed."""
    import ipykernel.kernelapp
    import terratorch  # noqa: F401 - imported for those who are forked

    import pipelines.reports.report
    import pipelines.runs.finetune  # noqa: F401

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # kernels that ended are gone
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{path}.made")
    listener.listen()
    os.rename(f"{path}.made", path)
    while True:
        asked, _ = listener.accept()
        if not os.fork():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            folder, file, *words = json.loads(asked.recv(4096))
            os.chdir(folder)
            ipykernel.kernelapp.launch_new_instance(argv=["-f", file, *words])
            os._exit(0)  # `asked` is open until here
        asked.close()


def _ask(path: str, *words: str) -> None:
    """Have a kernel forked that works in this folder, and wait for its end."""
    with socket.socket(socket.AF_UNIX) as kernel:
        kernel.connect(path)
        kernel.sendall(json.dumps([os.getcwd(), *words]).encode())
        kernel.recv(1)


if __name__ == "__main__":
    _serve(sys.argv[2]) if sys.argv[1] == "serve" else _ask(*sys.argv[1:])
