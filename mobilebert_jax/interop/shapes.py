"""What a network's tensors must be like, and the comparison of a file's with that."""

import functools
from collections.abc import Mapping
from pathlib import Path

import flax.linen as nn
import flax.traverse_util
import jax
import numpy as np

from mobilebert_jax.config.schema import InputError, nearest
from mobilebert_jax.interop import parameter_names
from mobilebert_jax.interop.huggingface import safetensors as safetensors_files
from mobilebert_jax.interop.model import Kind
from mobilebert_jax.model import encoder
from mobilebert_jax.model.layers import Network
from mobilebert_jax.model.sizes import ModelConfig

Shape = tuple[int, ...]

_SHOWN = 3


def ours(config: ModelConfig, kind: Kind, outputs: int) -> dict[str, Shape]:
    """Returns the shape of every parameter by its path, those of the blocks stacked.

    `outputs` are those of the task's layer, for the kinds that have one.
    """
    known = _parameters(config) | {
        "task/dense/kernel": (config.hidden_size, outputs),
        "task/dense/bias": (outputs,),
    }
    return {tensor.path: known[tensor.path] for tensor in parameter_names.table(config, kind)}


@functools.cache  # building the network, even abstractly, takes a good part of a second
def _parameters(config: ModelConfig) -> dict[str, Shape]:
    tree = nn.unbox(jax.eval_shape(lambda: encoder.init(Network(config), jax.random.key(0))))
    flat = flax.traverse_util.flatten_dict(tree, sep="/")
    return {path: leaf.shape for path, leaf in flat.items()}


def theirs(
    config: ModelConfig, kind: Kind, outputs: int, naming: parameter_names.Naming
) -> dict[str, Shape]:
    """Returns the shape of every tensor by its name in the other naming, those of blocks apart."""
    known = ours(config, kind, outputs)
    found: dict[str, Shape] = {}
    for tensor in parameter_names.table(config, kind):
        shape = known[tensor.path][1:] if tensor.stacked else known[tensor.path]
        for layer in range(config.num_hidden_layers if tensor.stacked else 1):
            name = getattr(tensor, naming).replace(parameter_names.LAYER, str(layer))
            found[name] = tensor.shape_in(naming, shape)
    return found


def fit(
    tensors: Mapping[str, np.ndarray], expected: Mapping[str, Shape], where: Path
) -> dict[str, np.ndarray]:
    """Returns the expected tensors in float32; those beyond them are left out.

    Raises InputError naming what is missing, misshapen, of another type, or not finite.
    """
    missing = [name for name in expected if name not in tensors]
    if missing:
        listed = ", ".join(missing[:_SHOWN]) + (", ..." if len(missing) > _SHOWN else "")
        close = f"nearest there: {nearest(missing[0], tensors)}" if tensors else "it holds none"
        raise InputError(
            f"{where}: {len(missing)} of {len(expected)} tensors are missing: {listed} ({close})"
        )
    for name, shape in expected.items():
        if tensors[name].shape != shape:
            raise InputError(
                f"{where}: tensor {name} has the shape {list(tensors[name].shape)}; by the "
                f"settings beside it, it must be {list(shape)}"
            )
    return {name: safetensors_files.as_float32(name, tensors[name], where) for name in expected}
