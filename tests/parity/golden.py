"""The golden files: one compressed `.npz` for each narrow case, with flat names for nested arrays.

Weights are kept in float16, which holds them exactly (see `cases.random_params`), so that they
depend on no random number generator.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import flax.traverse_util
import numpy as np

from mobilebert_jax.model.sizes import ModelConfig
from tests.parity.cases import Results

FOLDER = Path(__file__).parent / "golden"


class Golden(NamedTuple):
    """What another implementation computed, and everything it was computed from."""

    config: ModelConfig
    params: dict[str, Any]
    batch: dict[str, np.ndarray]
    results: Results


def write(path: Path, golden: Golden) -> None:
    """Writes one golden file.

    Raises:
      ValueError: a weight is not exact in float16.
    """
    arrays: dict[str, np.ndarray] = {
        "config": np.array(json.dumps(dataclasses.asdict(golden.config)))
    }
    for name, weight in _flatten("params", golden.params).items():
        arrays[name] = weight.astype(np.float16)
        if not np.array_equal(arrays[name].astype(np.float32), weight):
            raise ValueError(f"{name} is not exact in float16")
    arrays |= _flatten("batch", golden.batch) | _flatten("results", golden.results._asdict())
    np.savez_compressed(path, **arrays)


def read(path: Path) -> Golden:
    """Reads one golden file."""
    with np.load(path, allow_pickle=False) as arrays:
        config = ModelConfig(**json.loads(str(arrays["config"])))
        nested = flax.traverse_util.unflatten_dict(
            {name: arrays[name] for name in arrays.files if name != "config"}, sep="/"
        )
    params = _as_float32(nested["params"])
    return Golden(config, params, nested["batch"], Results(**nested["results"]))


def _flatten(prefix: str, tree: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return flax.traverse_util.flatten_dict({prefix: dict(tree)}, sep="/")


def _as_float32(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {name: _as_float32(branch) for name, branch in tree.items()}
    return tree.astype(np.float32)
