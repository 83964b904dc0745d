"""Dropout: the share it leaves, its dependence on key and place, and its gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobilebert_jax.model.dropout import Dropout, examples_of_batch, keep_mask

SHAPE = (8, 64, 256)


def masks(rate: float, count: int = 8) -> np.ndarray:
    keys = jax.random.split(jax.random.key(0), count)
    return np.asarray(jax.vmap(lambda key: keep_mask(key, SHAPE, rate))(keys))


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_the_share_that_falls_out(rate: float) -> None:
    dropped = ~masks(rate)
    # Four standard deviations of the mean of independent draws, over all, rows and columns.
    for axes in ((1, 2, 3), (0, 2, 3), (0, 1, 3), (0, 1, 2)):
        shares = dropped.mean(axis=axes)
        deviation = np.sqrt(rate * (1 - rate) / (dropped.size / shares.size))
        assert np.abs(shares - rate).max() < 4.5 * deviation


def test_neighbours_and_keys_are_independent() -> None:
    dropped = (~masks(0.5)).astype(float) - 0.5
    flat = dropped.reshape(len(dropped), -1)
    limit = 5 * 0.25 / np.sqrt(flat.size)
    for distance in (1, 2, 16, 64, 256, 257, 4096):
        assert abs((flat[:, distance:] * flat[:, :-distance]).mean()) < limit
    pairs = [(a, b) for a in range(len(flat)) for b in range(a)]
    products = [(flat[a] * flat[b]).mean() for a, b in pairs]
    assert np.abs(products).max() < 5 * 0.25 / np.sqrt(flat.shape[1])


def test_the_same_key_gives_the_same_mask_on_any_mesh() -> None:
    mesh = jax.make_mesh((4, 2), ("rows", "columns"))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("rows", "columns"))
    make = jax.jit(lambda key: keep_mask(key, SHAPE, 0.1))
    cut = jax.jit(lambda key: keep_mask(key, SHAPE, 0.1), out_shardings=sharding)
    np.testing.assert_array_equal(cut(jax.random.key(3)), make(jax.random.key(3)))


def test_an_example_has_its_mask_in_every_part_of_its_batch() -> None:
    whole = keep_mask(jax.random.key(3), SHAPE, 0.1)
    for first in range(4):
        with examples_of_batch(jnp.int32(first), 4):
            part = keep_mask(jax.random.key(3), (2, *SHAPE[1:]), 0.1)
        np.testing.assert_array_equal(part, whole[first::4])
    np.testing.assert_array_equal(keep_mask(jax.random.key(3), SHAPE, 0.1), whole)


def test_what_stays_is_scaled_and_passes_the_gradient() -> None:
    x = 1.0 + jax.random.uniform(jax.random.key(1), SHAPE)

    def drop(x: jax.Array) -> jax.Array:
        rngs = {"dropout": jax.random.key(2)}
        out: jax.Array = Dropout(0.1).apply({}, x, deterministic=False, rngs=rngs)
        return out

    out, gradient = drop(x), jax.grad(lambda x: drop(x).sum())(x)
    kept = out != 0
    assert 0.88 < kept.mean() < 0.92
    np.testing.assert_allclose(out, jnp.where(kept, x / 0.9, 0.0), rtol=1e-6)
    np.testing.assert_allclose(gradient, jnp.where(kept, 1 / 0.9, 0.0), rtol=1e-6)


def test_without_randomness_nothing_falls_out() -> None:
    x = jnp.ones((3, 4))
    assert Dropout(0.1).apply({}, x, deterministic=True) is x
    assert Dropout(0.0).apply({}, x, deterministic=False) is x
