"""Ranges of quantisation-aware training, which are averages over batches and are not optimised.

The model hands on, in the place of a range's gradient, its distance from what the batch showed
(`model.quantization`). It has no part in norm, moments and learning rate.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from mobilebert_jax.model.quantization import RANGE_DECAY
from mobilebert_jax.optimizer.masks import is_range

Tree = Any


def without_ranges(tree: Tree) -> Tree:
    """Returns `tree` with 0 in the place of every range's distance."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.zeros_like(leaf) if is_range(path) else leaf, tree
    )


def average_ranges(
    inner: optax.GradientTransformationExtraArgs,
) -> optax.GradientTransformationExtraArgs:
    """Moves ranges towards what the batch showed; `inner` updates everything else."""

    def update(
        updates: Tree, state: Any, params: Tree | None = None, **extra: Any
    ) -> tuple[Tree, Any]:
        distances = updates
        updates, state = inner.update(without_ranges(updates), state, params, **extra)

        def moved(path: Any, update: jax.Array, distance: jax.Array) -> jax.Array:
            return -(1.0 - RANGE_DECAY) * distance if is_range(path) else update

        return jax.tree_util.tree_map_with_path(moved, updates, distances), state

    return optax.GradientTransformationExtraArgs(inner.init, update)
