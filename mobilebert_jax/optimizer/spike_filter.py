"""The gate that leaves out steps whose gradient is far larger than those of the steps before.

One broken document or one bad moment of the optimiser can undo days of training; the gradient norm
shows it before the parameters do. The norms seen last are part of the optimiser's state, so that a
resumed run decides as an unbroken one.
"""

import jax
import jax.numpy as jnp

WINDOW = 64
"""Norms that the running median is taken of; none is judged before half of them were seen."""


def no_norms() -> jax.Array:
    """Returns the memory before the first step, [WINDOW], not a number where nothing was seen."""
    return jnp.full(WINDOW, jnp.nan, jnp.float32)


def is_spike(
    recent_norms: jax.Array, norm: jax.Array, skip_gradient_norm_ratio: float
) -> jax.Array:
    """Returns whether `norm` is above `skip_gradient_norm_ratio` times the recent median."""
    enough = jnp.sum(~jnp.isnan(recent_norms)) >= WINDOW // 2
    return enough & (norm > skip_gradient_norm_ratio * jnp.nanmedian(recent_norms))


def remember(recent_norms: jax.Array, norm: jax.Array) -> jax.Array:
    """Returns the memory with `norm` added, unless it is not finite.

    The norm of a step that was left out is remembered too: where gradients have become larger for
    good the median follows, and training goes on.
    """
    added = jnp.roll(recent_norms, 1).at[0].set(norm)
    return jnp.where(jnp.isfinite(norm), added, recent_norms)
