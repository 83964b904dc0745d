"""The checksum manifest of a folder: its files with sizes and SHA-256, written last."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mobilebert_jax import storage

NAME = "checksums.json"

Listing = Mapping[str, tuple[int, str] | list[Any]]
"""Size and SHA-256 of each file, by its path in the folder; no SHA-256 where the size is enough."""


def listing(
    folder: Path,
    kept: Callable[[str], bool] = lambda name: True,
    hashed: Callable[[str], bool] = lambda name: True,
) -> dict[str, list[Any]]:
    """Returns sizes of the files that are `kept`, with the SHA-256 of those that are `hashed`."""
    return {
        name: [size, _digest(folder / name) if hashed(name) else ""]
        for name, size in storage.files(folder).items()
        if kept(name)
    }


def differences(folder: Path, files: Listing) -> list[str]:
    """Returns what in `folder` is not as `files` say, a sentence each."""
    found = storage.files(folder)
    checked = (_problem(folder, name, found, *entry) for name, entry in files.items())
    return [problem for problem in checked if problem]


def write(folder: Path) -> None:
    """Writes the manifest of `folder`; raises FileNotFoundError when the folder is not there."""
    storage.write(folder / NAME, _text(listing(folder, lambda name: Path(name).name != NAME)))


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
        return differences(folder, files)
    except (ValueError, TypeError, KeyError, AttributeError):
        return [f"its {NAME} is damaged"]


def _text(files: dict[str, list[Any]]) -> str:
    return json.dumps({"files": files}, indent=1) + "\n"


def _problem(folder: Path, name: str, found: dict[str, int], size: int, digest: str) -> str | None:
    if name not in found:
        return f"its file {name} is missing"
    if found[name] != size:
        return f"its file {name} has {found[name]} bytes instead of {size}"
    if digest and _digest(folder / name) != digest:
        return f"its file {name} has other content than was saved"
    return None


def _digest(path: Path) -> str:
    with storage.open_bytes(os.fspath(path)) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
