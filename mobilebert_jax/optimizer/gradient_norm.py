"""The norm of a step's gradient: measured over all parameters, and what is done where it is large.

Both transformations take it as the extra argument `gradient_norm`, because in a phase of transfer
they see the gradients of the phase's blocks alone, and the norm counts those of the frozen
embeddings too, as the authors' code does.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mobilebert_jax.optimizer.quantization_ranges import without_ranges
from mobilebert_jax.optimizer.trainable import Part

Tree = Any

WINDOW = 64
"""Norms that the running median is taken of; none is judged before half of them were seen."""


def gradient_norm(gradients: Tree, part: Part) -> jax.Array:
    """Returns the norm over all parameters but blocks outside `part` and ranges of quantisation."""
    return optax.tree.norm(part.seen(without_ranges(gradients)))


def clip_by_gradient_norm(most: float) -> optax.GradientTransformationExtraArgs:
    """Scales updates so that `gradient_norm` becomes at most `most`."""

    def update(
        updates: Tree,
        state: Any,
        params: Tree | None = None,
        *,
        gradient_norm: jax.Array,
        **extra: Any,
    ) -> tuple[Tree, Any]:
        scale = jnp.minimum(1.0, most / jnp.maximum(gradient_norm, 1e-30))
        return jax.tree.map(lambda g: g * scale, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


class SpikeState(NamedTuple):
    """`recent_norms` [WINDOW], not a number where none was seen; `spike` is 1 where the last step
    was left out; `inner` is the state of the wrapped transformation."""

    recent_norms: jax.Array
    spike: jax.Array
    inner: Any


def skip_spikes(
    inner: optax.GradientTransformationExtraArgs, ratio: float, forget_every: int = 0
) -> optax.GradientTransformationExtraArgs:
    """Leaves out steps whose gradient norm is above `ratio` times the median of those before.

    One broken document or one bad moment of the optimiser can undo days of training; the gradient
    norm shows it before the parameters do. The norm of a step that was left out is remembered too:
    where gradients have become larger for good the median follows, and training goes on. Every
    `forget_every` steps (0: never) the norms are forgotten: where another layer's turn begins,
    those of the turn before say nothing.
    """

    def init(params: Tree) -> SpikeState:
        return SpikeState(no_norms(), jnp.float32(0.0), inner.init(params))

    def update(
        updates: Tree,
        state: SpikeState,
        params: Tree | None = None,
        *,
        step: jax.Array,
        gradient_norm: jax.Array,
        **extra: Any,
    ) -> tuple[Tree, SpikeState]:
        spike = is_spike(state.recent_norms, gradient_norm, ratio)
        updates, new = inner.update(
            updates, state.inner, params, step=step, gradient_norm=gradient_norm, **extra
        )
        updates = jax.tree.map(lambda u: jnp.where(spike, 0.0, u), updates)
        new = jax.tree.map(lambda now, before: jnp.where(spike, before, now), new, state.inner)
        norms = remember(state.recent_norms, gradient_norm)
        if forget_every:
            norms = jnp.where(step % forget_every == 0, no_norms(), norms)
        return updates, SpikeState(norms, spike.astype(jnp.float32), new)

    return optax.GradientTransformationExtraArgs(init, update)


def no_norms() -> jax.Array:
    """Returns the norms seen before the first step."""
    return jnp.full(WINDOW, jnp.nan, jnp.float32)


def is_spike(recent_norms: jax.Array, norm: jax.Array, ratio: float) -> jax.Array:
    """Returns whether `norm` is above `ratio` times the median of the recent norms."""
    enough = jnp.sum(~jnp.isnan(recent_norms)) >= WINDOW // 2
    return enough & (norm > ratio * jnp.nanmedian(recent_norms))


def remember(recent_norms: jax.Array, norm: jax.Array) -> jax.Array:
    """Returns the norms with `norm` added, unless it is not finite."""
    added = jnp.roll(recent_norms, 1).at[0].set(norm)
    return jnp.where(jnp.isfinite(norm), added, recent_norms)
