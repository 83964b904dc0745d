"""What differs between layers: learning rates, and state that restarts while a layer is frozen."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from mobilebert_jax.optimizer.masks import is_stacked, per_layer
from mobilebert_jax.optimizer.schedules import Multipliers
from mobilebert_jax.optimizer.stacked import StackedState
from mobilebert_jax.optimizer.trainable import EVERYTHING, Part

Tree = Any


def scale_by_learning_rates(
    base: optax.Schedule, multipliers: Multipliers
) -> optax.GradientTransformationExtraArgs:
    """Turns directions of ascent into updates: each times minus its layer's learning rate.

    The extra argument `step` is the step of the training state. A count of its own would stay
    behind when a step is left out.
    """

    def update(
        updates: Tree,
        state: Any,
        params: Tree | None = None,
        *,
        step: jax.Array,
        part: Part = EVERYTHING,
        **extra: Any,
    ) -> tuple[Tree, Any]:
        rate, multiplier = base(step), part.of_multiplier(multipliers(step))

        def scaled(path: Any, leaf: jax.Array) -> jax.Array:
            factor = multiplier.others
            if is_stacked(path):
                factor = per_layer(multiplier.blocks_N, leaf.ndim)
            return -rate * factor * leaf

        return jax.tree_util.tree_map_with_path(scaled, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def restart_where_frozen(
    inner: optax.GradientTransformationExtraArgs, multipliers: Multipliers
) -> optax.GradientTransformationExtraArgs:
    """Restarts the state of every layer, and of the other parameters, whose multiplier is 0.

    `inner` must be `stacked`. What is frozen remembers nothing, and a layer begins its turn of
    progressive transfer with fresh moments; bias correction counts from there.
    """

    def update(
        updates: Tree,
        state: StackedState,
        params: Tree | None = None,
        *,
        step: jax.Array,
        part: Part = EVERYTHING,
        **extra: Any,
    ) -> tuple[Tree, StackedState]:
        updates, new = inner.update(updates, state, params, step=step, part=part, **extra)
        fresh = inner.init(params)
        multiplier = part.of_multiplier(multipliers(step))
        moving_N, moving = multiplier.blocks_N != 0, multiplier.others != 0
        blocks = jax.tree.map(
            lambda now, start: jnp.where(per_layer(moving_N, now.ndim), now, start),
            new.blocks,
            fresh.blocks,
        )
        if part.blocks is not None:
            return updates, new._replace(blocks=blocks)
        others = jax.tree.map(
            lambda now, start: jnp.where(moving, now, start), new.others, fresh.others
        )
        return updates, StackedState(blocks, others)

    return optax.GradientTransformationExtraArgs(inner.init, update)
