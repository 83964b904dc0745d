"""Products of rounded numbers are those of the numbers rounded first, forward and backward."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobilebert_jax.model.attention import rounded_weighted_values, weighted_values
from mobilebert_jax.model.bfloat16_matmul import (
    bits,
    rounded_einsum,
    rounded_matmul,
    rounded_scores,
    widened,
)

HEADS = "bt...c,bs...c->b...ts"


def drawn(*shapes):
    keys = jax.random.split(jax.random.key(0), len(shapes))
    return [jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True)]


def rounded(x):
    return x.astype(jnp.bfloat16).astype(jnp.float32)


def assert_close(ours, theirs, tolerance):
    for one, other in zip(ours, theirs, strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * np.abs(other).max())


def test_bits_are_those_of_bfloat16():
    (x,) = drawn((50,))
    assert bits(x).dtype == jnp.uint16
    assert jnp.array_equal(widened(bits(x)), rounded(x))


@pytest.mark.parametrize(
    ("multiply", "subscripts", "left", "right"),
    [  # which factor of a gradient is turned round depends on their sizes
        (rounded_matmul, "...i,io->...o", (3, 5, 7), (7, 4)),
        (rounded_matmul, "...i,io->...o", (9, 9, 30), (30, 4)),
        (rounded_scores, "...i,oi->...o", (3, 5, 7), (11, 7)),
        (rounded_scores, "...i,oi->...o", (9, 9, 4), (30, 4)),
        (functools.partial(rounded_einsum, HEADS), HEADS, (2, 5, 3, 4), (2, 6, 3, 4)),
    ],
)
def test_all_that_is_multiplied_is_rounded_and_nothing_else(multiply, subscripts, left, right):
    left, right = drawn(left, right)
    exact = functools.partial(jnp.einsum, subscripts)
    ours, back = jax.vjp(multiply, left, right)
    theirs, exact_back = jax.vjp(exact, rounded(left), rounded(right))
    (gradient,) = drawn(theirs.shape)
    assert_close([ours], [theirs], 1e-6)
    assert not np.allclose(ours, exact(left, right), rtol=1e-5)
    assert_close(back(gradient), exact_back(rounded(gradient)), 1e-6)


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_attention_of_rounded_numbers(dropout):
    scores, value, gradient = drawn((2, 3, 5, 6), (2, 6, 3, 4), (2, 5, 3, 4))
    kept = jax.random.bernoulli(jax.random.key(1), 1 - dropout, scores.shape) if dropout else None
    results = []
    for weigh in (rounded_weighted_values, weighted_values):
        context, back = jax.vjp(lambda s, v, weigh=weigh: weigh(dropout, s, v, kept), scores, value)
        results.append((context, *back(gradient)))
    assert_close(*results, 1e-2)
    assert not np.allclose(results[0][0], results[1][0], rtol=1e-5)
    # What adds the same to all scores of a query changes nothing, and must be taught nothing.
    into_scores = results[0][1]
    assert np.abs(into_scores.sum(-1)).max() < 1e-6 * np.abs(into_scores).max()
