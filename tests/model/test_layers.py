"""Written-out gradients are those of automatic differentiation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobilebert_jax.model.layers import LAYER_NORM_EPSILON, matmul, normalize


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("outputs", [4, 9])  # which of the two is narrower matters
@pytest.mark.parametrize("shape", [(7,), (5, 7), (3, 5, 7)])
def test_gradient_of_a_matmul(shape, outputs, dtype):
    x, kernel, loss = drawn(shape, outputs, dtype)
    assert jnp.array_equal(matmul(x, kernel), x @ kernel)
    ours = jax.grad(loss, argnums=(1, 2))(matmul, x, kernel)
    theirs = jax.grad(loss, argnums=(1, 2))(jnp.matmul, x, kernel)
    tolerance = 1e-6 if dtype == "float32" else 2e-2
    assert_close(ours, theirs, tolerance)


def drawn(shape, outputs, dtype):
    """Returns an input, a kernel and a loss of some way of multiplying them."""
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], shape, dtype)
    kernel = jax.random.normal(keys[1], (shape[-1], outputs), dtype)
    wanted = jax.random.normal(keys[2], (*shape[:-1], outputs), dtype)
    return x, kernel, lambda multiply, x, kernel: jnp.sum(multiply(x, kernel) * wanted)


def assert_close(ours, theirs, tolerance):
    for one, other in zip(ours, theirs, strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        np.testing.assert_allclose(
            one.astype("float32"), other.astype("float32"), rtol=tolerance, atol=tolerance
        )


def standardized(x):
    wide = x.astype(jnp.float32)
    centred = wide - jnp.mean(wide, -1, keepdims=True)
    return centred / jnp.sqrt(jnp.mean(centred**2, -1, keepdims=True) + LAYER_NORM_EPSILON)


@pytest.mark.parametrize(("dtype", "offset"), [("float32", 100.0), ("bfloat16", 3.0)])
def test_layer_norm_and_its_gradient(dtype, offset):
    keys = jax.random.split(jax.random.key(1), 2)
    x = (offset + jax.random.normal(keys[0], (3, 5, 64))).astype(dtype)
    wanted = jax.random.normal(keys[1], x.shape)
    ours, theirs = (
        jax.value_and_grad(lambda x, f=f: jnp.sum(f(x) * wanted))(x)
        for f in (normalize, standardized)
    )
    # bfloat16 itself is rounded to 4e-3; its statistics are taken in float32.
    tolerance = 1e-4 if dtype == "float32" else 1e-2
    assert normalize(x).dtype == jnp.float32 and ours[1].dtype == x.dtype
    np.testing.assert_allclose(normalize(x), standardized(x), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-3, atol=1e-3)
    one, other = (gradient.astype("float32") for gradient in (ours[1], theirs[1]))
    np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)
