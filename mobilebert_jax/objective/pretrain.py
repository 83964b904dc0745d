"""Masked-LM and next-sentence pretraining: how the teacher, and any network from scratch, learns.

Shapes: B batch, P predicted positions, V vocabulary.
Source: BERT (Devlin et al., 2019), section 3.1; paper section 4.2.
"""

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


def objective(network: Network, *, dropout: bool) -> Objective:
    """Returns the objective mean(masked-LM cross-entropy) + mean(next-sentence cross-entropy)."""

    def measure(params: Params, teacher: None, batch: Batch, key: jax.Array) -> Measured:
        dropout_key = key if dropout else None
        encoded = encoder.encode(network, params, batch, dropout_key=dropout_key)
        return hard_labels(encoder.predict(network, params, encoded.hidden_BTD, batch), batch, 1.0)

    return measure


def hard_labels(predictions: encoder.Predictions, batch: Batch, factor: float) -> Measured:
    """Measures predictions against true words (with `factor`) and true order of sentences."""
    logits_BPV, logits_B2 = predictions
    words_BP, weights_BP = batch["masked_lm_ids"], batch["masked_lm_weights"]
    order_B = batch["next_sentence_labels"]
    ones_B = jnp.ones(order_B.shape)
    return Measured(
        terms={
            "masked_lm_loss": Term(
                weighted(cross_entropy(logits_BPV, words_BP), weights_BP), factor
            ),
            "next_sentence_loss": Term(weighted(cross_entropy(logits_B2, order_B), ones_B), 1.0),
        },
        metrics={
            "masked_lm_accuracy": weighted(is_predicted(logits_BPV, words_BP), weights_BP),
            "next_sentence_accuracy": weighted(is_predicted(logits_B2, order_B), ones_B),
        },
    )
