"""Written-out gradients are those of automatic differentiation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobilebert_jax.model.layers import product


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("shape", [(7,), (5, 7), (3, 5, 7)])
def test_gradient_of_a_product(shape, dtype):
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], shape, dtype)
    kernel = jax.random.normal(keys[1], (7, 4), dtype)
    wanted = jax.random.normal(keys[2], (*shape[:-1], 4), dtype)

    def loss(multiply, x, kernel):
        return jnp.sum(multiply(x, kernel) * wanted)

    assert jnp.array_equal(product(x, kernel), x @ kernel)
    ours = jax.grad(loss, argnums=(1, 2))(product, x, kernel)
    theirs = jax.grad(loss, argnums=(1, 2))(jnp.matmul, x, kernel)
    tolerance = 1e-6 if dtype == "float32" else 2e-2
    for one, other in zip(ours, theirs, strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        np.testing.assert_allclose(
            one.astype("float32"), other.astype("float32"), rtol=tolerance, atol=tolerance
        )
