"""The checksum manifest of a folder: its files with sizes and SHA-256, written last."""

import hashlib
import json
from pathlib import Path
from typing import Any

from mobilebert_jax import storage

NAME = "checksums.json"
CHUNK_BYTES = 1 << 22


def write(folder: Path) -> None:
    """Writes the manifest of `folder`; raises FileNotFoundError when the folder is not there."""
    files = {
        name: [size, _digest(folder / name)]
        for name, size in storage.files(folder).items()
        if Path(name).name != NAME
    }
    storage.write(folder / NAME, _text(files))


def problems(folder: Path) -> list[str]:
    """Returns what in `folder` does not agree with its checksums; empty when everything does."""
    path = folder / NAME
    if not path.is_file():
        return ["it was not complete (it has no checksums)"]
    try:
        text = path.read_text()
        files = json.loads(text)["files"]
        if _text(files) != text:
            return [f"its {NAME} is damaged"]
        found = storage.files(folder)
        checked = (_problem(folder, name, found, *told) for name, told in files.items())
        return [problem for problem in checked if problem]
    except (ValueError, TypeError, KeyError, AttributeError):
        return [f"its {NAME} is damaged"]


def _text(files: dict[str, list[Any]]) -> str:
    return json.dumps({"files": files}, indent=1) + "\n"


def _problem(folder: Path, name: str, found: dict[str, int], size: int, digest: str) -> str | None:
    path = folder / name
    if name not in found:
        return f"its file {path.name} is missing"
    if found[name] != size:
        return f"its file {path.name} has {found[name]} bytes instead of {size}"
    if _digest(path) != digest:
        return f"its file {path.name} has other content than was saved"
    return None


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
