"""Seals: the list of a folder's files with sizes and digests, written when they are all there."""

import hashlib
import json
from pathlib import Path

NAME = "seal.json"
CHUNK_BYTES = 1 << 22


def write(folder: Path) -> None:
    """Seals the files in `folder`; raises FileNotFoundError when the folder is not there."""
    files = {
        str(path.relative_to(folder)): [path.stat().st_size, _digest(path)]
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != NAME
    }
    temporary = folder / f"{NAME}.tmp"
    temporary.write_text(json.dumps({"files": files}, indent=1) + "\n")
    temporary.replace(folder / NAME)


def problems(folder: Path) -> list[str]:
    """Returns what in `folder` does not agree with its seal; empty when everything does."""
    path = folder / NAME
    if not path.is_file():
        return ["it was not complete (it has no seal)"]
    try:
        files = json.loads(path.read_text())["files"].items()
        return [text for name, told in files if (text := _problem(folder / name, *told))]
    except (ValueError, TypeError, KeyError, AttributeError):
        return [f"its {NAME} is damaged"]


def _problem(path: Path, size: int, digest: str) -> str | None:
    if not path.is_file():
        return f"its file {path.name} is missing"
    if path.stat().st_size != size:
        return f"its file {path.name} has {path.stat().st_size} bytes instead of {size}"
    if _digest(path) != digest:
        return f"its file {path.name} has other content than was saved"
    return None


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
