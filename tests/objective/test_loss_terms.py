"""Cross-entropy and its gradient, and what counts as predicted."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobilebert_jax.objective.loss_terms import cross_entropy, is_predicted


def plain(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Cross-entropy as it is usually written, for automatic differentiation."""
    log_probabilities = jax.nn.log_softmax(logits.astype(jnp.float32))
    return -jnp.take_along_axis(log_probabilities, labels[..., None], axis=-1)[..., 0]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("shape", [(7,), (3, 5, 11)])
def test_cross_entropy_and_its_gradient_are_those_of_log_softmax(
    shape: tuple[int, ...], dtype: Any
) -> None:
    generator = np.random.default_rng(0)
    logits = jnp.asarray(generator.normal(0, 4, shape), dtype)
    labels = jnp.asarray(generator.integers(0, shape[-1], shape[:-1]))
    weights = jnp.asarray(generator.normal(size=shape[:-1]), jnp.float32)

    def total(of: Any) -> Any:
        return jax.value_and_grad(lambda x: jnp.sum(weights * of(x, labels)))(logits)

    (value, gradient), (expected, expected_gradient) = total(cross_entropy), total(plain)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert gradient.dtype == logits.dtype
    tolerance = 1e-6 if dtype == "float32" else 1e-2
    np.testing.assert_allclose(
        gradient.astype(jnp.float32), expected_gradient.astype(jnp.float32), atol=tolerance
    )


def test_logits_far_apart_give_a_finite_loss_and_gradient() -> None:
    logits, label = jnp.asarray([1e9, -1e9, 0.0]), jnp.asarray(1)
    value, gradient = jax.value_and_grad(cross_entropy)(logits, label)
    assert float(value) == 2e9
    np.testing.assert_array_equal(gradient, [1.0, -1.0, 0.0])


def test_a_label_is_predicted_where_no_class_has_a_larger_logit() -> None:
    logits = jnp.asarray([[0.0, 2.0, 1.0], [3.0, 2.0, 1.0], [1.0, 1.0, 0.0], [0.0, jnp.nan, 1.0]])
    found = is_predicted(logits, jnp.asarray([1, 2, 1, 1]))
    np.testing.assert_array_equal(found, [True, False, True, False])
