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


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns -log softmax(logits)[label] along the last axis, in float32."""
    log_probabilities = jax.nn.log_softmax(logits.astype(jnp.float32))
    return -jnp.take_along_axis(log_probabilities, labels[..., None], axis=-1)[..., 0]


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
