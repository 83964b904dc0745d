"""The form every loss takes: a sum and a weight, divided once per global step.

A mean over a device or a micro-batch is wrong as soon as parts hold different numbers of real
tokens, so objectives never divide. The loss is `sum_i factor_i * sum_i / weight_i` over its terms.

Shapes: B batch, T positions, P predicted positions, V vocabulary.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Params = dict[str, Any]
Batch = dict[str, jax.Array]


class Mean(NamedTuple):
    """A mean that has not been divided yet."""

    total: jax.Array
    weight: jax.Array

    def value(self) -> jax.Array:
        """Returns total / weight, 0 where the weight is 0 (then the total is 0 too)."""
        return self.total / jnp.maximum(self.weight, 1e-9)


class Term(NamedTuple):
    """One summand of the loss: an undivided mean and its factor."""

    mean: Mean
    factor: float


class Measured(NamedTuple):
    """What an objective returns: the terms of the loss, and metrics that are only reported."""

    terms: dict[str, Term]
    metrics: dict[str, Mean]


Objective = Callable[[Params, Any, Batch, jax.Array], Measured]
"""(student parameters, teacher parameters or None, batch, random key) -> Measured."""


@jax.custom_vjp
def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns -log softmax(logits)[label] along the last axis, in float32.

    The gradient is written out, softmax minus one at the label. Automatic differentiation adds two
    arrays as large as the logits, one of them zeros into which the label's part is scattered.
    """
    return _cross_entropy_forward(logits, labels)[0]


def _cross_entropy_forward(
    logits: jax.Array, labels: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array, jax.Array]]:
    log_sum = jax.nn.logsumexp(logits.astype(jnp.float32), axis=-1)
    return log_sum - at_label(logits, labels), (logits, labels, log_sum)


def _cross_entropy_backward(
    kept: tuple[jax.Array, jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, None]:
    logits, labels, log_sum = kept
    probabilities = jnp.exp(logits.astype(jnp.float32) - log_sum[..., None])
    at = jnp.arange(logits.shape[-1]) == labels[..., None]
    return (gradient[..., None] * (probabilities - at)).astype(logits.dtype), None


cross_entropy.defvjp(_cross_entropy_forward, _cross_entropy_backward)


def at_label(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns logits[label] along the last axis, in float32."""
    return jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0].astype(jnp.float32)


def is_predicted(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns whether no class has a larger logit than the label, along the last axis.

    `argmax` has to carry indices along: on a CPU it takes ten times as long as this maximum, a
    twentieth of a narrow network's training step.
    """
    return at_label(logits, labels) >= jnp.max(logits, axis=-1).astype(jnp.float32)


def weighted(values: jax.Array, weights: jax.Array) -> Mean:
    """Returns the undivided weighted mean of `values`."""
    weights = weights.astype(jnp.float32)
    return Mean(jnp.sum(values.astype(jnp.float32) * weights), jnp.sum(weights))


def add(*parts: Measured) -> Measured:
    """Returns the sum of objectives, whose terms and metrics must have different names."""
    terms = [name for part in parts for name in part.terms]
    if len(set(terms)) != len(terms):
        raise ValueError(f"objectives share a term: {sorted(terms)}")
    return Measured(
        {k: v for part in parts for k, v in part.terms.items()},
        {k: v for part in parts for k, v in part.metrics.items()},
    )
