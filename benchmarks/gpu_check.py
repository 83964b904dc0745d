"""Does cuDNN's fused attention compute on this GPU what the written-out form does?"""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.kept_rows import KeptRows, Row, why
from mobilebert_jax.model.fused_attention import fused_attention
from mobilebert_jax.training.state import Layout

TABLE = "cudnn"
SHAPES = ((4, 32, 128), (4, 32, 512), (4, 256, 128))
"""Heads, size of each, length: the student's, and the teacher's."""

Implementation = Literal["xla", "cudnn"]
Outputs = Callable[[jax.Array, jax.Array, jax.Array], tuple[Any, tuple[jax.Array, ...]]]


def check_cudnn(kept: KeptRows, layout: Layout) -> None:
    """Compares both on random numbers, padding and all, once; does nothing without a GPU."""
    on_gpu = layout.mesh.devices.flat[0].platform == "gpu"
    if not on_gpu or kept.rows(TABLE) or kept.is_given_up(TABLE):
        return
    kept.begin([TABLE])
    for heads, size, length in SHAPES:
        key = f"{heads} heads of {size}, length {length}"
        try:
            found: Row = {"largest_difference": largest_differences(heads, size, length)}
        except Exception as error:  # of XLA or of cuDNN, which have many
            found = why(error)
        kept.keep(TABLE, key, found)
        print(f"cuDNN against written-out attention, {key}: {found}", flush=True)


def largest_differences(
    heads: int, size: int, length: int, own: Implementation = "cudnn"
) -> dict[str, float]:
    """Returns by how much context and gradients differ, relative to the largest of each.

    Of five rows one has no padding, one a single real token, and one nothing else but padding,
    whose gradients of queries and keys mean nothing and are left out. NaN where one has NaN.
    """
    real_B = np.array([length, length // 2, length - 1, 1, 0])
    mask_BS = jnp.asarray(np.arange(length) < real_B[:, None], jnp.float32)
    shape = (4, len(real_B), length, heads, size)
    query, key, value, weights = jax.random.normal(jax.random.key(1), shape, jnp.bfloat16)

    def outputs(implementation: Implementation) -> Outputs:
        def total(q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array]:
            context = fused_attention(q, k, v, mask_BS, implementation)
            return jnp.sum((context * weights).astype(jnp.float32)), context

        return jax.jit(jax.value_and_grad(total, (0, 1, 2), has_aux=True))

    (_, context), gradients = outputs(own)(query, key, value)
    (_, wanted), wanted_gradients = outputs("xla")(query, key, value)
    found = {"context": (context, wanted), "value": (gradients[2], wanted_gradients[2])}
    for index, name in enumerate(("query", "key")):
        found[name] = gradients[index][:-1], wanted_gradients[index][:-1]
    return {name: _difference(*pair) for name, pair in found.items()}


def _difference(found: jax.Array, wanted: jax.Array) -> float:
    found, wanted = found.astype(jnp.float32), wanted.astype(jnp.float32)
    return float(jnp.max(jnp.abs(found - wanted)) / jnp.max(jnp.abs(wanted)))
