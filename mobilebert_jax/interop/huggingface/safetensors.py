"""Files of named tensors: safetensors, whole or in shards, and PyTorch's pickles.

Source: the safetensors format; names of files as `transformers` writes them.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from mobilebert_jax.config.schema import InputError
from mobilebert_jax.interop.huggingface import torch_pickle

SAFETENSORS = "model.safetensors"
PICKLE = "pytorch_model.bin"
INDEX_SUFFIX = ".index.json"
WRAPPER = "module."
"""Begins every name that PyTorch's DataParallel saves."""

FLOATS = tuple(map(np.dtype, (np.float32, np.float16, ml_dtypes.bfloat16)))
"""Types of numbers that float32 holds exactly."""


def read_folder(folder: Path) -> tuple[dict[str, np.ndarray], Path]:
    """Returns all tensors of a folder and the file that named them, safetensors before pickles.

    Raises InputError if there is no such file, if one cannot be read, or if a shard is missing.
    """
    for name in (SAFETENSORS, PICKLE):
        if (folder / name).is_file():
            return _without_wrapper(read(folder / name)), folder / name
        index = folder / f"{name}{INDEX_SUFFIX}"
        if index.is_file():
            return _without_wrapper(_read_shards(index)), index
    present = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
    raise InputError(
        f"{folder}: there is no {SAFETENSORS} (or {SAFETENSORS}{INDEX_SUFFIX}, {PICKLE}, "
        f"{PICKLE}{INDEX_SUFFIX}) with the network's tensors; it holds {present}"
        f"{_converted(folder)}"
    )


def read(path: Path) -> dict[str, np.ndarray]:
    """Returns the tensors of one file as they are in it; raises InputError if it is not whole."""
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    return torch_pickle.read(path) if path.suffix == ".bin" else _read_safetensors(path)


def write(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Writes a safetensors file; arrays need not lie in memory in their order."""
    ordered = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    safetensors.numpy.save_file(ordered, path, metadata=dict(metadata))


def as_float32(name: str, array: np.ndarray, where: Path) -> np.ndarray:
    """Returns the same numbers in float32; raises InputError for types that would be rounded, for
    whole numbers, and where a number is not finite."""
    if array.dtype not in FLOATS:
        raise InputError(
            f"{where}: tensor {name} has the type {array.dtype}; allowed are "
            f"{', '.join(map(str, FLOATS))}, so convert it to float32"
        )
    widened = array.astype(np.float32)
    if not np.isfinite(widened).all():
        raise InputError(f"{where}: tensor {name} holds numbers that are infinite or none (NaN)")
    return widened


def read_json(path: Path, kind: type = dict) -> Any:
    """Returns the object, or the list, of a JSON file; raises InputError if it holds none."""
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}: line {error.lineno}, column {error.colno}: not JSON ({error.msg})"
        ) from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: JSON that cannot be read ({error})") from None
    try:
        json.dumps(content, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise InputError(f"{path}: holds half of a surrogate pair, which is no text") from None
    if not isinstance(content, kind):
        wanted = "a JSON object in braces" if kind is dict else "a JSON list in brackets"
        raise InputError(f"{path}: must be {wanted}, not {type(content).__name__}")
    return content


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes JSON with sorted keys, characters of every script as they are."""
    text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    try:
        return safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, TypeError, AttributeError, OSError) as error:
        raise InputError(
            f"{path}: not a whole safetensors file ({error}; {path.stat().st_size:,} bytes); "
            "fetch or copy it again"
        ) from None


def _converted(folder: Path) -> str:
    """Returns how weights for other libraries become ones that are read."""
    for name, (library, flag) in {
        "tf_model.h5": ("Keras", "from_tf"),
        "flax_model.msgpack": ("Flax", "from_flax"),
    }.items():
        if (folder / name).is_file():
            return (
                f". {name} holds the weights for {library}: open the folder in transformers 4 with "
                f"`{flag}=True` and save it again with `save_pretrained`"
            )
    return ""


def _without_wrapper(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the tensors under the network's own names, where it was saved inside DataParallel."""
    if tensors and all(name.startswith(WRAPPER) for name in tensors):
        return {name.removeprefix(WRAPPER): array for name, array in tensors.items()}
    return tensors


def _read_shards(index: Path) -> dict[str, np.ndarray]:
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(f, str) for f in places.values()):
        raise InputError(f'{index}: has no "weight_map" of tensor names and the files they are in')
    tensors: dict[str, np.ndarray] = {}
    for shard in sorted(set(places.values())):
        # A path would let the index reach for files outside its folder.
        if shard in ("", ".", "..") or Path(shard).name != shard:
            raise InputError(f"{index}: {shard!r} must be the name of a file in the same folder")
        if not (index.parent / shard).is_file():
            raise InputError(f"{index}: the shard {shard} is missing beside it")
        tensors.update(read(index.parent / shard))
    lost = sorted(set(places) - set(tensors))
    if lost:
        raise InputError(
            f"{index}: {len(lost)} tensors are in no shard, the first being {lost[0]}, which "
            f"{places[lost[0]]} should hold"
        )
    return tensors
