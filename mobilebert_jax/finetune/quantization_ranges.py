"""The ranges of 8-bit activations before training with them begins.

Source: Jacob et al., 2018, section 3.1.
"""

import dataclasses
import itertools
from collections.abc import Iterable

import jax

from mobilebert_jax.model import encoder
from mobilebert_jax.model.layers import Network
from mobilebert_jax.objective.loss_terms import Batch, Params
from mobilebert_jax.optimizer.masks import is_range
from mobilebert_jax.sharding import rules
from mobilebert_jax.training.state import Layout


def calibrated(
    network: Network, params: Params, batches: Iterable[Batch], count: int, layout: Layout
) -> Params:
    """Returns `params` with each range the mean of those of `count` batches in full precision."""
    observing = dataclasses.replace(network, quantized="observed")

    def unused(params: Params, batch: Batch) -> jax.Array:
        return 0.0 * encoder.task_outputs(observing, params, batch).sum()

    def shown(params: Params, batch: Batch) -> Params:
        with rules.on(layout.mesh):
            distances = jax.grad(unused)(params, batch)
        return jax.tree_util.tree_map_with_path(
            lambda path, w, d: w - d if is_range(path) else w, params, distances
        )

    shardings = jax.tree.map(lambda leaf: leaf.sharding, params)
    observe = jax.jit(shown, out_shardings=shardings)
    found = [observe(params, batch) for batch in itertools.islice(batches, count)]
    return jax.tree_util.tree_map_with_path(
        lambda path, *leaves: sum(leaves) / len(leaves) if is_range(path) else leaves[0], *found
    )
