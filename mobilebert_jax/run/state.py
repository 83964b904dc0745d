"""The training state, `{params, opt_state, step}` and nothing else.

Batch and random key are functions of the step, so the state needs neither; the teacher is an
argument of the step and never part of it.
"""

import hashlib
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mobilebert_jax.model import encoder
from mobilebert_jax.model.layers import Network
from mobilebert_jax.optimizer.update import Moments, Optimizer
from mobilebert_jax.partition import rules

Params = dict[str, Any]


class State(NamedTuple):
    """`step` counts the steps taken; step `step` is the next one."""

    params: Params
    opt_state: Moments
    step: jax.Array


def abstract_params(network: Network, mesh: jax.sharding.Mesh) -> Params:
    """Returns the shapes, types and shardings of a network's parameters, computing nothing."""
    boxed = jax.eval_shape(lambda: encoder.init(network, jax.random.key(0)))
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        nn.unbox(boxed),
        rules.parameter_shardings(boxed, mesh),
    )


def abstract_state(network: Network, mesh: jax.sharding.Mesh) -> State:
    """Returns the shapes, types and shardings of a training state, computing nothing."""
    params = abstract_params(network, mesh)
    step: Any = jax.ShapeDtypeStruct((), jnp.int32, sharding=rules.replicated(mesh))
    return State(params, Moments(params, params), step)


def init_params(network: Network, mesh: jax.sharding.Mesh, seed: int, stream: int) -> Params:
    """Returns fresh parameters on the mesh; `stream` separates networks of one seed."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_params(network, mesh))
    key = jax.random.fold_in(jax.random.key(seed), stream)
    return jax.jit(lambda: nn.unbox(encoder.init(network, key)), out_shardings=shardings)()


def start(params: Params, optimizer: Optimizer, mesh: jax.sharding.Mesh) -> State:
    """Returns the state before the first step; moments are sharded like their parameters."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, params)
    moments = jax.jit(optimizer.init, out_shardings=Moments(shardings, shardings))(params)
    return State(params, moments, jax.device_put(jnp.int32(0), rules.replicated(mesh)))


def params_digest(params: Params) -> str:
    """Returns the SHA-256 of all parameters' names, shapes and bytes."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name = "/".join(key.key for key in path)
        digest.update(f"{name} {leaf.shape} {leaf.dtype}".encode())
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()
