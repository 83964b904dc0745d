"""LAMB and AdamW with a rate per layer, for parameters that are stacked over layers.

optax has both rules, but its trust ratio takes one norm over a stacked parameter where LAMB means
one a layer and skips biases and norms, and its moments cannot restart when a layer's turn comes.
Where neither matters the updates equal `optax.lamb` and `optax.adamw` (tested).

Source: LAMB (You et al., 2020), the authors' optimiser; AdamW (Loshchilov and Hutter, 2019).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mobilebert_jax.config import schema
from mobilebert_jax.model.quantization import RANGE_DECAY
from mobilebert_jax.optimizer import spike_filter
from mobilebert_jax.optimizer.masks import decays, is_range, is_stacked, per_layer
from mobilebert_jax.optimizer.schedules import Multiplier, Multipliers
from mobilebert_jax.optimizer.trainable import EVERYTHING, Part

Tree = Any


class Moments(NamedTuple):
    """First and second moments of the gradient, each shaped like the parameters.

    `recent_norms` are the gradient norms that the gate against spikes compares with.
    """

    first: Tree
    second: Tree
    recent_norms: jax.Array


class Optimizer(NamedTuple):
    """`init(params) -> Moments` and `update(gradients, moments, params, step, part)`.

    `update` returns the updates to add to the parameters, the new moments, both of `part` alone
    (outside of which multipliers must be 0), and the figures
    `gradient_norm` (before clipping), `learning_rate` (of the fastest parameters) and, with a gate
    against spikes, `spike`: 1 where the step must not be applied.
    """

    config: schema.Optimizer
    base: optax.Schedule
    multipliers: Multipliers
    restart_every: int = 0
    """Steps between the restarts that the multipliers cause by being 0 (0 never); bias correction
    counts from the last."""

    def init(self, params: Tree) -> Moments:
        zeros = optax.tree.zeros_like
        return Moments(zeros(params), zeros(params), spike_filter.no_norms())

    def update(
        self,
        gradients: Tree,
        moments: Moments,
        params: Tree,
        step: jax.Array,
        part: Part = EVERYTHING,
    ) -> tuple[Tree, Moments, dict[str, jax.Array]]:
        config = self.config
        # What a range's gradient says is no gradient: it has no part in norm, moments and rate.
        distances, gradients = gradients, _without_ranges(gradients)
        # Clipping sees all gradients, those of frozen embeddings too, as the authors' does.
        norm = optax.tree.norm(part.seen(gradients))
        scale = jnp.minimum(1.0, config.clip_norm / jnp.maximum(norm, 1e-30))
        gradients = jax.tree.map(lambda g: g * scale, part.of(gradients))
        first = optax.tree.update_moment(gradients, part.of(moments.first), config.beta1, 1)
        second = optax.tree.update_moment(gradients, part.of(moments.second), config.beta2, 2)
        rate, every = self.base(step), self.multipliers(step)
        multiplier = part.of_multiplier(every)
        directions = self._directions(first, second, part.of(params), step)
        updates = _by_layer(lambda d, m: -rate * m * d, directions, multiplier)
        updates = _averaged_ranges(updates, part.of(distances))
        restart = Multiplier(*(jnp.asarray(m != 0, jnp.float32) for m in multiplier))
        first, second = (
            _by_layer(lambda x, keep: x * keep, tree, restart) for tree in (first, second)
        )
        moments = Moments(first, second, moments.recent_norms)
        fastest = jnp.maximum(jnp.max(every.blocks_N), every.others)
        figures = {"gradient_norm": norm, "learning_rate": rate * fastest}
        if config.skip_gradient_norm_ratio:
            spike = spike_filter.is_spike(
                moments.recent_norms, norm, config.skip_gradient_norm_ratio
            )
            figures["spike"] = spike.astype(jnp.float32)
        return updates, moments, figures

    def remember(self, moments: Moments, norm: jax.Array, step: jax.Array) -> Moments:
        """Returns `moments` with the gradient norm of `step` seen, whether it was applied or not.

        Where another layer's turn begins, gradients of the turn before say nothing.
        """
        if not self.config.skip_gradient_norm_ratio:
            return moments
        norms = spike_filter.remember(moments.recent_norms, norm)
        if self.restart_every:
            norms = jnp.where(step % self.restart_every == 0, spike_filter.no_norms(), norms)
        return moments._replace(recent_norms=norms)

    def _directions(self, first: Tree, second: Tree, params: Tree, step: jax.Array) -> Tree:
        if self.config.bias_correction:
            age = step % self.restart_every if self.restart_every else step + 1
            age = jnp.maximum(age, 1)
            first = optax.tree.bias_correction(first, self.config.beta1, age)
            second = optax.tree.bias_correction(second, self.config.beta2, age)

        def direction(path: Any, m: jax.Array, v: jax.Array, w: jax.Array) -> jax.Array:
            u = m / (jnp.sqrt(v) + self.config.epsilon)
            if not decays(path):
                return u
            u = u + self.config.weight_decay * w
            return u * trust_ratio(w, u, is_stacked(path)) if self.config.name == "lamb" else u

        return jax.tree_util.tree_map_with_path(direction, first, second, params)


def _without_ranges(tree: Tree) -> Tree:
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.zeros_like(leaf) if is_range(path) else leaf, tree
    )


def _averaged_ranges(updates: Tree, distances: Tree) -> Tree:
    """Moves ranges towards what the batch showed (`model.quantization`)."""
    return jax.tree_util.tree_map_with_path(
        lambda path, update, d: -(1.0 - RANGE_DECAY) * d if is_range(path) else update,
        updates,
        distances,
    )


def trust_ratio(weight: jax.Array, update: jax.Array, stacked: bool) -> jax.Array:
    """Returns |weight| / |update|, 1 where either is 0; one ratio a layer if stacked."""
    axes = tuple(range(1 if stacked else 0, weight.ndim))

    def norm(x: jax.Array) -> jax.Array:
        return jnp.sqrt(jnp.sum(jnp.square(x), axis=axes, keepdims=True))

    weight_norm, update_norm = norm(weight), norm(update)
    usable = (weight_norm > 0) & (update_norm > 0)
    return jnp.where(usable, weight_norm / jnp.where(usable, update_norm, 1.0), 1.0)


def _by_layer(function: Any, tree: Tree, multiplier: Multiplier) -> Tree:
    """Applies `function(leaf, factor)`, the factor being that of the leaf's layer."""

    def apply(path: Any, leaf: jax.Array) -> jax.Array:
        stacked = is_stacked(path)
        factor = per_layer(multiplier.blocks_N, leaf.ndim) if stacked else multiplier.others
        return function(leaf, factor)

    return jax.tree_util.tree_map_with_path(apply, tree)
