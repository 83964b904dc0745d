"""From the examples that each process holds to one batch over all devices."""

from typing import Any

import jax
import numpy as np

from mobilebert_jax.data.batches import Batches
from mobilebert_jax.sharding import rules


def to_devices(
    feed: Batches, rows: dict[str, np.ndarray], mesh: jax.sharding.Mesh
) -> dict[str, jax.Array]:
    """Returns the global batch of `feed`, of which `rows` are those that this process holds."""
    sharding = rules.batch_sharding(mesh)
    position = {row: index for index, row in enumerate(feed.rows)}

    def place(array: np.ndarray) -> jax.Array:
        def shard(index: Any) -> np.ndarray:
            first, stop, _ = index[0].indices(feed.batch_size)
            return array[position[first] : position[stop - 1] + 1]

        shape = (feed.batch_size, *array.shape[1:])
        return jax.make_array_from_callback(shape, sharding, shard)

    return {name: place(array) for name, array in rows.items()}
