"""Weight files: a name becomes a local file (explicit path, then cache, then Hub), read without executing anything."""

from __future__ import annotations

import hashlib
import pickle
import re
import socket
import threading
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass
from zipfile import BadZipFile

from models.errors import InputError
from models.runtime import silence as silence  # before the hub client is imported

if TYPE_CHECKING:
    from torch import Tensor

PROBE_SECONDS = 0.6  # a server that takes longer to answer a TCP handshake is treated as out of reach


@dataclass(frozen=True)
class WeightFile:
    """A weight file on this machine and where it came from.

    Attributes:
        path: the file.
        repo: Hugging Face repository, None for a file given by path.
        revision: the commit of that repository, None for a file given by path.
    """

    path: Path
    repo: str | None = None
    revision: str | None = None

    def sha256(self) -> str:
        """SHA-256 of the file's bytes, in hex."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def locate(repo: str, filename: str, *, revision: str | None = None, online: bool | None = None) -> WeightFile:
    """Find a file of a Hugging Face repository: in the local cache, else download it.

    The commit that answered is returned, so that it can be recorded and asked for again. With no revision asked for
    the Hub is asked for the newest where it can be reached, and the cache answers where it cannot.

    Args:
        repo: the repository.
        filename: the file in it.
        revision: commit, tag or branch.
        online: whether the Hub is `reachable`, for who asks for many files; found out when None.

    Raises:
        InputError: not in the cache and the Hub cannot be reached, or the repository, revision or file is not there.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HTTPError, LocalEntryNotFoundError  # type: ignore[attr-defined] # not in its __all__

    # HTTPError is that of the HTTP library which the hub client uses: httpx in hub 1, httpx2 in hub 2.

    online = reachable() if online is None else online
    try:
        path = hf_hub_download(repo, filename, revision=revision, local_files_only=not online)
    except LocalEntryNotFoundError as error:
        state = "did not serve it" if online else "cannot be reached"
        raise InputError(
            f"{repo}/{filename} is not in the local cache and the Hub {state}. Three ways out: --weights FILE with a "
            f"copy of it; `hf download {repo} {filename}` on a machine with network and HF_HOME pointing at its cache; "
            "or, to train without pretraining, finetune with --weights random"
        ) from error
    except (HTTPError, OSError, ValueError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = " ".join(lines[:2]) or type(error).__name__  # the status, then what is not there
        raise InputError(f"{repo}/{filename} at {revision or 'main'}: cannot be downloaded: {reason}") from error
    parts = Path(path).parts  # .../snapshots/<commit>/<file>
    commit = parts[len(parts) - parts[::-1].index("snapshots")] if "snapshots" in parts else None
    return WeightFile(Path(path), repo, commit)


def cached(repo: str, filename: str) -> Path | None:
    """The file in the local Hugging Face cache, or None; never touches the network."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repo, filename)
    return Path(found) if isinstance(found, str) else None


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a `.safetensors` or PyTorch file; code inside a file is never executed.

    Wrappers (`state_dict`, `model`, `model_state`) are taken off. PyTorch zip files are memory-mapped.

    Raises:
        InputError: no such file, not a weight file, or a pickle that asks for anything but tensors.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such weight file")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    return _only_tensors(path, content)


def _read_safetensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise InputError(f"{path}: not a safetensors file ({error})") from error


def _read_torch(path: Path) -> Any:
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of pickles that it then refuses
            return torch.load(path, map_location="cpu", weights_only=True, mmap=_is_plain_zip(path))
    except pickle.UnpicklingError as error:
        if "Unsupported operand" in str(error):  # torch has met no foreign object, only bytes it cannot read
            raise InputError(f"{path}: not a PyTorch weight file (no tensors, or an unusual pickle)") from error
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        more = f"more than tensors ({found[1]})" if found else "more than tensors"
        raise InputError(
            f"{path}: refused: the file holds {more}, and loading it could execute code; ask "
            "its author for a safetensors file or a plain state_dict"
        ) from error
    except (RuntimeError, EOFError, OSError, LookupError, ValueError, AttributeError, TypeError, BadZipFile) as error:
        raise InputError(f"{path}: not a PyTorch weight file ({type(error).__name__})") from error


def _is_plain_zip(path: Path) -> bool:
    """Whether a file is a zip as PyTorch writes them, uncompressed; a small compressed one could fill the memory."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise InputError(f"{path}: refused: a compressed archive; PyTorch writes uncompressed ones")
    return True


def _only_tensors(path: Path, content: Any) -> dict[str, Tensor]:
    import torch

    for wrapper in ("state_dict", "model_state", "model"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict):
        raise InputError(f"{path}: wanted a dictionary of tensors, found {type(content).__name__}")
    tensors = {str(key): value for key, value in content.items() if isinstance(value, torch.Tensor)}
    if not tensors:
        raise InputError(f"{path}: holds no tensors")
    for key, value in tensors.items():
        if value.is_meta or value.layout is not torch.strided:
            raise InputError(f"{path}: tensor {key} has no plain values ({value.device}, {value.layout})")
    return tensors


def reachable() -> bool:
    """Whether the Hub's host accepts a connection at once; hub clients alone would retry for half a minute."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    endpoint = urlsplit(constants.ENDPOINT)
    direct = endpoint.hostname in ("127.0.0.1", "localhost") or bool(proxy_bypass(endpoint.hostname or ""))
    via = None if direct else urlsplit(getproxies().get(endpoint.scheme, ""))
    target = via if via and via.hostname else endpoint
    port = target.port or (443 if target.scheme == "https" else 80)
    answers: SimpleQueue[bool] = SimpleQueue()

    def connect() -> None:
        try:
            socket.create_connection((target.hostname or "", port), timeout=PROBE_SECONDS).close()
        except OSError:
            answers.put(False)
        else:
            answers.put(True)

    # In a thread of its own: a name server that never answers cannot be timed out otherwise.
    threading.Thread(target=connect, daemon=True).start()
    try:
        return answers.get(timeout=PROBE_SECONDS)
    except Empty:
        return False
