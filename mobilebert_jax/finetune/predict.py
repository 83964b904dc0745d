"""What a fine-tuned network says of rows, in the order of the rows.

Shapes: N rows, F tokens of all rows together, B rows of a batch, T positions, C outputs.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from mobilebert_jax.finetune.batching import ScoringBatches
from mobilebert_jax.finetune.features import FILLER, Rows
from mobilebert_jax.model import encoder
from mobilebert_jax.model.layers import Network
from mobilebert_jax.objective.loss_terms import Batch, Params
from mobilebert_jax.sharding import rules
from mobilebert_jax.sharding.global_batch import to_devices
from mobilebert_jax.training.state import Layout

Predictor = Callable[[Params, Rows], NDArray[np.float32]]
ByBatch = Callable[[Params, Rows], Iterator[tuple[NDArray[np.int64], Any]]]


def by_batch(
    function: Callable[[Params, Batch], Any],
    layout: Layout,
    *,
    batch_size: int,
    length: int,
    pad: int,
) -> ByBatch:
    """Returns a function that applies `function` to all rows, short ones with short ones.

    It yields, batch after batch, the numbers of the rows in it and what `function` makes of it:
    numpy arrays with leading axis B, of which those behind the last row are fillers.
    """
    mesh = layout.mesh

    def outputs(params: Params, batch: Batch) -> Any:
        with rules.on(mesh):
            return function(params, batch)

    # Whole on every process, which all write down the same scores.
    compiled = jax.jit(outputs, out_shardings=rules.replicated(mesh))

    def apply(params: Params, rows: Rows) -> Iterator[tuple[NDArray[np.int64], Any]]:
        feed = ScoringBatches(
            rows,
            batch_size=batch_size,
            length=length,
            pad=pad,
            rows_of_process=rules.rows_of_process(mesh, batch_size),
        )
        for step, batch in enumerate(feed.iterate(0, len(feed), prefetch=2)):
            made = jax.tree.map(np.asarray, compiled(params, to_devices(feed, batch, mesh)))
            chosen = feed.plan.rows[step]
            yield chosen[chosen != FILLER], made

    return apply


def predictor(
    network: Network, layout: Layout, *, batch_size: int, length: int, pad: int
) -> Predictor:
    """Returns a function from parameters and rows to the task layer's outputs, without dropout.

    They are [N, C] where the task reads the first position, else [F, C], those of padding left out.
    """

    def outputs(params: Params, batch: Batch) -> jax.Array:
        return encoder.task_outputs(network, params, batch)

    apply = by_batch(outputs, layout, batch_size=batch_size, length=length, pad=pad)

    def predict(params: Params, rows: Rows) -> NDArray[np.float32]:
        found: NDArray[np.float32] | None = None
        for chosen, made in apply(params, rows):
            if found is None:
                every = network.task is not None and network.task.reads == "every"
                size = len(rows.ids_F) if every else len(rows)
                found = np.zeros((size, made.shape[-1]), np.float32)
            _put(found, rows, chosen, made)
        if found is None:
            raise ValueError("there are no rows to predict")
        return found

    return predict


def _put(
    found: NDArray[np.float32], rows: Rows, chosen: NDArray[np.int64], made: NDArray[np.float32]
) -> None:
    """Puts a batch's outputs, [B, C] or [B, T, C], where its rows `chosen` have them."""
    if made.ndim == 2:
        found[chosen] = made[: len(chosen)]
        return
    for row, outputs_TC in zip(chosen, made, strict=False):
        start, stop = rows.starts[row], rows.starts[row + 1]
        found[start:stop] = outputs_TC[: stop - start]
