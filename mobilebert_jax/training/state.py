"""The training state, `{params, opt_state, step}` and nothing else.

Batch and random key are functions of the step, so the state needs neither; the teacher is an
argument of the step and never part of it.
"""

import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import multihost_utils

from mobilebert_jax.model import encoder
from mobilebert_jax.model.layers import Network
from mobilebert_jax.optimizer.build import Optimizer
from mobilebert_jax.optimizer.masks import is_stacked
from mobilebert_jax.sharding import rules

Params = dict[str, Any]


class State(NamedTuple):
    """`step` counts the steps taken; step `step` is the next one."""

    params: Params
    opt_state: optax.OptState
    step: jax.Array


class Layout(NamedTuple):
    """The devices, and what their axis `fsdp` shards (`execution.fsdp_shard`)."""

    mesh: jax.sharding.Mesh
    fsdp_shard: str = "params_and_optimizer"


def abstract_params(network: Network, layout: Layout) -> Params:
    """Returns the shapes, types and shardings of a network's parameters, computing nothing."""
    return _abstract(network, layout.mesh, cut_fsdp=layout.fsdp_shard != "optimizer_only")


def abstract_teacher(network: Network, layout: Layout) -> Params:
    """Returns `abstract_params` of a network that is never trained.

    The kernels of its blocks have the type in which blocks compute. That changes no number and
    spares every step to read them all in float32 and to write them in bfloat16. (Products that a
    CPU rounds leave them float32: of a stack in bfloat16 its compiler makes one in float32 first.)
    They are cut over `fsdp` only where every block gathers its own.
    """

    multiplied = jnp.dtype(network.dtype)

    def as_read(path: Any, leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        if not (is_stacked(path) and path[-1].key == "kernel"):
            return leaf
        return jax.ShapeDtypeStruct(leaf.shape, multiplied, sharding=leaf.sharding)

    held = _abstract(network, layout.mesh, cut_fsdp=layout.fsdp_shard == "params_and_optimizer")
    read: Params = jax.tree_util.tree_map_with_path(as_read, held)
    return read


def gathering(network: Network, layout: Layout) -> Callable[[Params], Params]:
    """Returns what makes of a state's parameters those that a step computes with.

    With `fsdp_shard="params_gathered_once"` they are gathered whole, once a step and in the type of
    their matrix multiplications, so that no step reads or copies all of them in float32; otherwise
    they are taken as they are.
    """
    if layout.fsdp_shard != "params_gathered_once":
        return lambda params: params
    read = abstract_teacher(network, layout)

    def gathered(params: Params) -> Params:
        return jax.tree.map(
            lambda leaf, like: jax.lax.with_sharding_constraint(
                leaf.astype(like.dtype), like.sharding
            ),
            params,
            read,
        )

    return gathered


def _abstract(network: Network, mesh: jax.sharding.Mesh, cut_fsdp: bool) -> Params:
    boxed = jax.eval_shape(lambda: encoder.init(network, jax.random.key(0)))
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        nn.unbox(boxed),
        rules.parameter_shardings(boxed, mesh, cut_fsdp=cut_fsdp),
    )


def abstract_state(network: Network, optimizer: Optimizer, layout: Layout) -> State:
    """Returns the shapes, types and shardings of a training state, computing nothing.

    What the optimiser keeps in the shape of a parameter is sharded like it; all else is replicated.
    """
    whole = rules.replicated(layout.mesh)
    like = flax.traverse_util.flatten_dict(abstract_moment(network, layout))

    def placed(path: Any, leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        param = like.get(_parameter_name(path))
        sharding = param.sharding if param and param.shape == leaf.shape else whole
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    params = abstract_params(network, layout)
    opt_state = jax.tree_util.tree_map_with_path(placed, jax.eval_shape(optimizer.init, params))
    step: Any = jax.ShapeDtypeStruct((), jnp.int32, sharding=whole)
    return State(params, opt_state, step)


def abstract_moment(network: Network, layout: Layout) -> Params:
    """Returns shapes and shardings of what an optimiser keeps in the shape of the parameters."""
    return _abstract(network, layout.mesh, cut_fsdp=True)


def _parameter_name(path: Any) -> tuple[str, ...]:
    """Returns the name of the parameter that a leaf of the optimiser's state belongs to."""
    names: list[str] = []
    for key in reversed(path):
        if not isinstance(key, jax.tree_util.DictKey):
            break
        names.insert(0, key.key)
    stacked = jax.tree_util.GetAttrKey("blocks") in path
    return ("blocks", *names) if stacked else tuple(names)


def init_params(network: Network, layout: Layout, seed: int, stream: int) -> Params:
    """Returns fresh parameters on the mesh; `stream` separates networks of one seed."""
    shardings = shardings_of(abstract_params(network, layout))
    key = jax.random.fold_in(jax.random.key(seed), stream)
    return jax.jit(lambda: nn.unbox(encoder.init(network, key)), out_shardings=shardings)()


def start(params: Params, network: Network, optimizer: Optimizer, layout: Layout) -> State:
    """Returns the state before the first step, sharded as `abstract_state` says."""
    abstract = abstract_state(network, optimizer, layout)
    moments = jax.jit(optimizer.init, out_shardings=shardings_of(abstract.opt_state))(params)
    step = jax.jit(lambda: jnp.int32(0), out_shardings=abstract.step.sharding)()
    return State(params, moments, step)


def shardings_of(tree: Any) -> Any:
    """Returns the sharding of every leaf."""
    return jax.tree.map(lambda leaf: leaf.sharding, tree)


def params_digest(params: Params) -> str:
    """Returns the SHA-256 of all parameters' names, shapes and bytes."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name = "/".join(key.key for key in path)
        digest.update(f"{name} {leaf.shape} {leaf.dtype}".encode())
        digest.update(whole(leaf).tobytes())
    return digest.hexdigest()


def whole(leaf: jax.Array) -> np.ndarray:
    """Returns an array of which other processes may hold parts; all processes must ask for it."""
    if not leaf.is_fully_addressable and not leaf.is_fully_replicated:
        leaf = multihost_utils.process_allgather(leaf, tiled=True)
    return np.asarray(leaf)
