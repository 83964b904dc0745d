"""Fine-tuning: classes, a number, tags of words, or a span, from labelled examples.

Rows that only fill a batch have weight 0. A span's distribution is over real positions alone, so
that the loss does not depend on how far a row is padded.

Shapes: B batch, T positions, C classes or tags.
Source: BERT (Devlin et al., 2019), section 4; paper section 4.4.
"""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from mobilebert_jax.model import encoder
from mobilebert_jax.model.layers import Network
from mobilebert_jax.objective.loss_terms import (
    Batch,
    Measured,
    Objective,
    Params,
    Term,
    cross_entropy,
    is_predicted,
    weighted,
)

Kind = Literal["classes", "number", "tags", "span"]

HIDDEN_LOGIT = -1e9
"""Of positions that cannot begin or end a span."""


def objective(kind: Kind, network: Network) -> Objective:
    """Returns the objective of a task of `kind`, with dropout; `network` has the task's head.

    A batch holds `row_weights` [B] and: `labels` [B], int32 for classes and float32 for a number;
    `labels` and `label_weights` [B, T] for tags; `starts` and `ends` [B] for a span.
    """
    measure_outputs = MEASURES[kind]

    def measure(params: Params, teacher: Any, batch: Batch, key: jax.Array) -> Measured:
        outputs = encoder.task_outputs(network, params, batch, dropout_key=key)
        return measure_outputs(outputs, batch)

    return measure


def classes(logits_BC: jax.Array, batch: Batch) -> Measured:
    """Measures cross-entropy and accuracy."""
    labels_B, weights_B = batch["labels"], batch["row_weights"]
    return Measured(
        {"task_loss": Term(weighted(cross_entropy(logits_BC, labels_B), weights_B), 1.0)},
        {"accuracy": weighted(is_predicted(logits_BC, labels_B), weights_B)},
    )


def number(outputs_B1: jax.Array, batch: Batch) -> Measured:
    """Measures the squared error."""
    error_B = jnp.square(outputs_B1[:, 0] - batch["labels"])
    return Measured({"task_loss": Term(weighted(error_B, batch["row_weights"]), 1.0)}, {})


def tags(logits_BTC: jax.Array, batch: Batch) -> Measured:
    """Measures cross-entropy and accuracy over the first pieces of words."""
    labels_BT = batch["labels"]
    weights_BT = batch["label_weights"] * batch["row_weights"][:, None]
    return Measured(
        {"task_loss": Term(weighted(cross_entropy(logits_BTC, labels_BT), weights_BT), 1.0)},
        {"accuracy": weighted(is_predicted(logits_BTC, labels_BT), weights_BT)},
    )


def span(outputs_BT2: jax.Array, batch: Batch) -> Measured:
    """Measures the mean of the cross-entropies of start and end, and the share found exactly."""
    weights_B = batch["row_weights"]
    hidden_BT = jnp.where(batch["input_mask"] > 0, 0.0, HIDDEN_LOGIT)
    start_BT, end_BT = (outputs_BT2[..., i] + hidden_BT for i in range(2))
    starts_B, ends_B = batch["starts"], batch["ends"]
    loss_B = (cross_entropy(start_BT, starts_B) + cross_entropy(end_BT, ends_B)) / 2
    exact_B = is_predicted(start_BT, starts_B) & is_predicted(end_BT, ends_B)
    return Measured(
        {"task_loss": Term(weighted(loss_B, weights_B), 1.0)},
        {"exact": weighted(exact_B, weights_B)},
    )


MEASURES: dict[Kind, Callable[[jax.Array, Batch], Measured]] = {
    "classes": classes,
    "number": number,
    "tags": tags,
    "span": span,
}
