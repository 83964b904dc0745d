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

from mobilebert_jax import config as config_lib
from mobilebert_jax.optimizer.masks import decays, is_stacked, per_layer
from mobilebert_jax.optimizer.rates import Multiplier, Multipliers

Tree = Any


class Moments(NamedTuple):
    """First and second moments of the gradient, each shaped like the parameters."""

    first: Tree
    second: Tree


class Optimizer(NamedTuple):
    """`init(params) -> Moments` and `update(gradients, moments, params, step)`.

    `update` returns the updates to add to the parameters, the new moments, and the figures
    `gradient_norm` (before clipping) and `learning_rate` (of the fastest parameters).
    """

    config: config_lib.Optimizer
    base: optax.Schedule
    multipliers: Multipliers
    restart_every: int = 0
    """Steps between the restarts that the multipliers cause by being 0 (0 never); bias correction
    counts from the last."""

    def init(self, params: Tree) -> Moments:
        return Moments(optax.tree.zeros_like(params), optax.tree.zeros_like(params))

    def update(
        self, gradients: Tree, moments: Moments, params: Tree, step: jax.Array
    ) -> tuple[Tree, Moments, dict[str, jax.Array]]:
        config = self.config
        norm = optax.tree.norm(gradients)
        scale = jnp.minimum(1.0, config.clip_norm / jnp.maximum(norm, 1e-30))
        gradients = jax.tree.map(lambda g: g * scale, gradients)
        moments = Moments(
            optax.tree.update_moment(gradients, moments.first, config.beta1, 1),
            optax.tree.update_moment(gradients, moments.second, config.beta2, 2),
        )
        rate = self.base(step)
        multiplier = self.multipliers(step)
        directions = self._directions(moments, params, step)
        updates = _by_layer(lambda d, m: -rate * m * d, directions, multiplier)
        restart = Multiplier(*(jnp.asarray(m != 0, jnp.float32) for m in multiplier))
        moments = Moments(*(_by_layer(lambda x, keep: x * keep, t, restart) for t in moments))
        fastest = jnp.maximum(jnp.max(multiplier.blocks_N), multiplier.others)
        return updates, moments, {"gradient_norm": norm, "learning_rate": rate * fastest}

    def _directions(self, moments: Moments, params: Tree, step: jax.Array) -> Tree:
        first, second = moments
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
            return u * trust_ratio(w, u, is_stacked(path)) if self.config.kind == "lamb" else u

        return jax.tree_util.tree_map_with_path(direction, first, second, params)


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
