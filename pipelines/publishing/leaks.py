"""What nobody wants to give away with a model: paths of his machine, names, tokens; found in all that goes out.

Paths that a run is known to hold become names of files (`plain`); what is found after that is refused (`check`).
"""

from __future__ import annotations

import getpass
import json
import os
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from models.errors import InputError
from models.runtime import silence as silence  # before the hub client is imported
from pipelines.recipes.reading import parse

# Folders at the root of machines; a pattern of any path would find units, and names of a graph's nodes.
_ROOTS = (
    "home|Users|root|mnt|media|tmp|var|opt|srv|usr|etc|private|Volumes|data|datasets?|work|workspace|scratch|project"
    "|projects|export|gpfs|lustre|nfs|storage|cluster|cephfs|beegfs|kaggle|content|dbfs|app"
)
_END = r"""[^\s"'<>|,;:)\]}]*"""
_PATH = re.compile(
    rf"(?:file://|(?<![\w.:/~*-]))/(?:{_ROOTS})/{_END}"  # /home/ann/x
    rf"|(?<![\w.])~[\w.-]*/{_END}"  # ~/x, ~ann/x
    rf"|(?<![A-Za-z0-9])[A-Za-z]:(?:\\+|/(?!/)){_END}"  # C:\Users\ann
    rf"|(?<![\w\\])\\\\+[\w.$-]+\\+{_END}"  # \\server\share
)
_SECRETS: Mapping[str, re.Pattern[str]] = {
    "a token of Hugging Face": re.compile(r"\b(?:hf|api_org)_[A-Za-z0-9]{16,}"),
    "a token, such as one of Earthdata": re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}"),  # JSON web tokens
    "a key of AWS": re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
    "a token": re.compile(r"\b(?:gh[pousr]_|github_pat_|glpat-|sk-|xox[abpr]-)[\w-]{16,}"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "a signed address": re.compile(
        r"[?&](?:sig|se|sv|signature|x-amz-\w+|x-amz-[\w-]+|x-goog-[\w-]+|key-pair-id|(?:access_?|api_?|auth_?)?(?:token|key))="
        r"[^\s\"'&]+",
        re.IGNORECASE,
    ),
    "a name and password in an address": re.compile(r"""[a-z][\w+.-]*://[^\s/:@"'<>]+:[^\s/@"'<>]+@""", re.IGNORECASE),
    "a password or token": re.compile(
        r"\bbearer +[\w.+/=~-]{16,}|\b(?:password|passwd|earthdata_token|hf_token|aws_secret_access_key)"
        r"""["']? *[:=] *["']?(?!null\b)[^\s"',}]{6,}""",
        re.IGNORECASE,
    ),
}
_SECRET_NAMES = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|ACCESS_?KEY", re.IGNORECASE)
# Users and hosts of machines that nobody is known by.
_NOBODY = (
    *("root", "user", "users", "admin", "ubuntu", "debian", "runner", "jovyan", "docker", "build", "worker", "test"),
    *("data", "home", "local", "localhost"),
)
_LEAST = 3  # letters of a name that are looked for
_SHOWN = 40  # letters of what is found
MOST_HEADER = 100 << 20  # bytes, as safetensors itself has it


def plain(value: Any) -> Any:
    """Plain data with the last part of each path of this machine in its place, also inside of sentences."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return _PATH.sub(_last, _whole(value)) if isinstance(value, str) else value


def _whole(text: str) -> str:
    """The last part of a text that is a path from the root as a whole, whatever folder that begins with."""
    rooted = text.startswith("/") and text.count("/") > 1 and not re.search(r"\s", text)
    return text.rstrip("/").rpartition("/")[2] if rooted else text


def _last(found: re.Match[str]) -> str:
    return re.split(r"[\\/]+", found[0].rstrip("\\/"))[-1]


def check(folder: Path, *, allowed: Sequence[str] = ()) -> None:
    """Refuse a folder that gives away what nobody wants to.

    Args:
        folder: all of it goes out.
        allowed: words that may, though they are the user's or the machine's name.

    Raises:
        InputError: the files and what was found in them, tokens cut off.
    """
    found = [
        f"{path.name}: {what} ({shown})"
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        for what, shown in _found(path, allowed)
    ]
    if found:
        more = f"; and {len(found) - 3} more" if len(found) > 3 else ""
        advice = "take it out of the recipe or the run's files and publish again; --allow WORD lets a name pass"
        raise InputError(f"not published, it would give away: {'; '.join(found[:3])}{more}. {advice}")


def _found(path: Path, allowed: Sequence[str]) -> Iterator[tuple[str, str]]:
    """What is found in a file, each kind once."""
    text = "\n".join(texts(path))
    secrets = _known_secrets()
    for what, pattern in _SECRETS.items():
        if match := pattern.search(text):
            yield what, f"{match[0][:8]}..."
    for name, secret in secrets.items():
        if secret in text:
            yield f"the value of {name}", f"{secret[:3]}..."
    if match := _PATH.search(text):
        yield "a path of a machine", match[0][:_SHOWN]
    for what, name in _names().items():
        if name.casefold() in {word.casefold() for word in allowed}:
            continue
        if re.search(rf"(?<![^\W_]){re.escape(name)}(?![^\W_])", text, re.IGNORECASE):
            yield what, name


def _known_secrets() -> dict[str, str]:
    """Values of the environment that are secrets by their names, and the token of the Hub."""
    from huggingface_hub import get_token

    found = {name: value for name, value in os.environ.items() if _SECRET_NAMES.search(name)}
    found["the Hub's token"] = get_token() or ""
    return {name: value for name, value in found.items() if len(value) >= 8 and "/" not in value}


def _names() -> dict[str, str]:
    """The home folder, and the names of the user and of the machine; none that anybody has."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user without a name
        user = ""
    host = socket.gethostname().partition(".")[0]
    known = {"your user name": user, "this machine's name": host, "your home folder": os.path.expanduser("~")}
    return {
        what: name for what, name in known.items() if len(name) >= _LEAST and name.strip("/").casefold() not in _NOBODY
    }


def texts(path: Path) -> Iterator[str]:
    """All text in a file that is not its numbers."""
    if path.suffix == ".safetensors":
        yield from _strings(_header(path))
    elif path.suffix == ".onnx":
        yield _graph(path)
    elif path.suffix.lower() in (".png", ".jpg", ".jpeg", ".tif", ".tiff"):
        yield from _tags(path)
    else:
        text = path.read_text(encoding="utf-8", errors="replace")
        yield text
        if path.suffix == ".json":
            yield from _strings(json.loads(text))
        elif path.suffix == ".yaml":
            yield from _strings(parse(text.encode(), path.name))


def _strings(value: Any) -> Iterator[str]:
    """All text in plain data, as it was before it was escaped."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for item in [*value, *value.values()] if isinstance(value, Mapping) else value:
            yield from _strings(item)


def _header(path: Path) -> Any:
    """The header of a safetensors file: names of tensors, and metadata."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        return json.loads(file.read(min(size, MOST_HEADER)))


def _graph(path: Path) -> str:
    """All text of an ONNX file, of whatever field, without the numbers of its tensors."""
    import onnx
    from google.protobuf import text_format

    model = onnx.load_model(path, load_external_data=False)
    constants = (attribute.t for node in model.graph.node for attribute in node.attribute)
    for tensor in (*model.graph.initializer, *constants):
        for field in ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
            tensor.ClearField(field)
    return str(text_format.MessageToString(model, as_utf8=True))


def _tags(path: Path) -> Iterator[str]:
    """Text beside the pixels of a picture: chunks of PNG, tags of TIFF and EXIF, with those of GDAL."""
    from PIL import Image

    with Image.open(path) as image:
        image.load()
        yield from (_decoded(value) for value in image.info.values())
        tags = dict(image.getexif()) | dict(getattr(image, "tag_v2", {}))
        yield from (_decoded(value) for value in tags.values())


def _decoded(value: Any) -> str:
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value)
