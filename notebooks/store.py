"""Execute the notebooks and store them with their outputs.

Usage: ``python notebooks/store.py [NAME ...]``, such as ``01_scene_and_tokens``; all of them without names. A notebook
is written as NAME.py (jupytext's percent format); NAME.ipynb is made from it.
"""

from __future__ import annotations

import base64
import io
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from jupyter_client import AsyncKernelManager
from nbclient import NotebookClient
from PIL import Image

HERE = Path(__file__).parent
NAMES = sorted(path.stem for path in HERE.glob("[0-9]*.py"))
LIMIT = 600  # seconds that a cell may take; on two quiet cores no whole notebook takes more than a few dozen
LARGE = 350_000  # characters of a picture


def workplace(folder: Path) -> Path:
    """A folder for kernels to work in, with what the notebooks read, so that the project's own stays as it is."""
    place = folder / "notebooks"
    place.mkdir()
    for recipe in HERE.glob("*.yaml"):
        shutil.copy(recipe, place)
    (folder / "sample_data").symlink_to(HERE.parent / "sample_data", target_is_directory=True)
    return place


def executed(path: Path, folder: Path, *, command: Sequence[str] = ()) -> Any:
    """Run a notebook in percent format from top to bottom in a new kernel.

    Args:
        path: the .py file.
        folder: where the kernel works.
        command: what starts a kernel, without the connection file at its end; ipykernel's own when not given.

    Returns:
        The notebook with its outputs, without what differs from run to run and tells a reader nothing.
    """
    notebook = jupytext.read(path)
    with tempfile.TemporaryDirectory() as sockets:
        kernel = AsyncKernelManager(transport="ipc", ip=f"{sockets}/kernel")  # files: no port is opened
        client = NotebookClient(notebook, kernel, timeout=LIMIT, resources={"metadata": {"path": str(folder)}})
        if command:
            kernel.kernel_spec.argv = [*command, "{connection_file}"]
        client.execute(cleanup_kc=True)
    for number, cell in enumerate(notebook.cells):
        cell.metadata.pop("execution", None)
        cell.id = f"cell-{number:02d}"
        if cell.cell_type == "code":
            cell.outputs = _joined([_tidy(output) for output in cell.outputs if output.get("name") != "stderr"])
    notebook.metadata.pop("widgets", None)
    notebook.metadata["language_info"] = {"name": "python"}
    return notebook


def _joined(outputs: list[Any]) -> list[Any]:
    """Outputs with printed lines that follow each other as one, however they came."""
    joined: list[Any] = []
    for output in outputs:
        if joined and output.output_type == joined[-1].output_type == "stream":
            joined[-1].text += output.text
        else:
            joined.append(output)
    return joined


def _tidy(output: Any) -> Any:
    """An output without addresses in memory, and with 256 colours in large pictures: a third of their size.

    Of a widget its picture stays: its model ended with the kernel, and editors would show an error in its place.
    """
    data = output.get("data", {})
    data.pop("application/vnd.jupyter.widget-view+json", None)
    for kind, content in data.items():
        if kind == "image/png":
            data[kind] = _palette(content) if len(content) > LARGE else content
        elif isinstance(content, str):
            data[kind] = re.sub(r"0x[0-9a-f]{8,}", "0x0", content)
    return output


def _palette(png: str) -> str:
    """A picture in base64 with at most 256 colours."""
    buffer = io.BytesIO()
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    small = picture.quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)  # rare colours, too
    small.save(buffer, format="PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def main(names: list[str]) -> None:
    """Execute notebooks, each in a new folder, and store them in theirs."""
    for name in names or NAMES:
        print(name, flush=True)
        with tempfile.TemporaryDirectory() as folder:
            notebook = executed(HERE / f"{name}.py", workplace(Path(folder)))
        nbformat.write(notebook, HERE / f"{name}.ipynb")


if __name__ == "__main__":
    main([Path(argument).stem for argument in sys.argv[1:]])
