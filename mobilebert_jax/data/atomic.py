"""Files that are there whole or not at all, whatever kills the process or the machine."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

SUFFIX = ".tmp"
"""Ends the names of files under way; those a killed process left can be deleted."""


def temporary(path: Path) -> Path:
    """Returns the name under which this process alone writes what becomes `path`: a worker that
    outlives a killed parent cannot touch the files of the next run."""
    return path.with_name(f"{path.name}.{os.getpid()}{SUFFIX}")


def publish(path: Path) -> None:
    """Gives the finished `temporary(path)` its name once its bytes are on disk, so that a crash of
    the machine cannot leave the name without the bytes."""
    with temporary(path).open("rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary(path), path)


def write_bytes(path: Path, content: bytes) -> None:
    """Writes `content` to `path`."""
    temporary(path).write_bytes(content)
    publish(path)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes `content` to `path` as JSON with sorted keys."""
    write_bytes(path, (json.dumps(content, indent=1, sort_keys=True) + "\n").encode())


def read_json(path: Path) -> dict[str, Any] | None:
    """Returns what `write_json` wrote, or None if there is no such file."""
    return json.loads(path.read_text()) if path.exists() else None


def write_array(path: Path, array: np.ndarray) -> None:
    """Writes `array` to `path` in NumPy's format."""
    with temporary(path).open("wb") as file:
        np.save(file, array)
    publish(path)
