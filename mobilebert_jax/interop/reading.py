"""Imports a network: which of the known formats a path holds, and the network in it."""

import json
import re
from pathlib import Path

from mobilebert_jax.config.schema import InputError
from mobilebert_jax.interop import own_format
from mobilebert_jax.interop.huggingface import model as huggingface
from mobilebert_jax.interop.model import Model
from mobilebert_jax.interop.tensorflow import model as tensorflow_checkpoint

FORMATS = (
    "a folder of Hugging Face (config.json, model.safetensors), a folder of this project's "
    "safetensors format, or a TensorFlow checkpoint of the authors (its folder, its prefix or its "
    ".index file, with bert_config.json beside it)"
)


def is_there(path: Path) -> bool:
    """Whether `path` holds a network in a format that `read` knows."""
    return (path / "config.json").is_file() or _is_tensorflow(path)


def read(path: Path) -> tuple[Model, list[str]]:
    """Returns the network at `path`, and what there is to say about how it was read.

    Raises InputError where there is none, or what is there is damaged or not to be expressed here.
    """
    if (path / "config.json").is_file():
        if _is_own(path / "config.json"):
            return own_format.read(path), []
        return huggingface.read(path), []
    if _is_tensorflow(path):
        model, report = tensorflow_checkpoint.read(path)
        return model, report.lines()
    raise InputError(f"{path} holds no network; it should be {FORMATS}{hint(path)}")


def hint(path: Path | str) -> str:
    """Returns what a path that holds no network may have meant, as the end of a message."""
    name = str(path)
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not Path(name).parent.exists():
        return (
            f". If {name} is a model on Hugging Face's hub, download it first, for example with "
            f"`hf download {name} --local-dir {name.split('/')[1]}`, and name that folder"
        )
    return ""


def _is_own(path: Path) -> bool:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return False  # the reader of that format says what is wrong
    return isinstance(found, dict) and found.get("format") == own_format.FORMAT


def _is_tensorflow(path: Path) -> bool:
    if path.is_dir():
        return any(path.glob("*.index"))
    return path.is_file() or path.with_name(f"{path.name}.index").is_file()
