"""Pretraining distillation: the teacher's word distribution beside the true words.

L = alpha L_MLM + (1 - alpha) L_KD + L_NSP with L_KD the cross-entropy to the teacher's distribution
at temperature T, times T^2 so that its gradient keeps its size. Source: paper section 3.4, eq. 5.

Shapes: B batch, P predicted positions, V vocabulary.
"""

import jax
import jax.numpy as jnp

from mobilebert_jax.config import schema
from mobilebert_jax.model import encoder
from mobilebert_jax.model.encoder import Predictions
from mobilebert_jax.model.layers import Network
from mobilebert_jax.objective import pretrain, transfer
from mobilebert_jax.objective.loss_terms import (
    Batch,
    Measured,
    Objective,
    Params,
    Term,
    add,
    weighted,
)


def objective(student: Network, teacher: Network, config: schema.Distill) -> Objective:
    """Returns the distillation objective; both networks run without dropout.

    Where alpha is 1 the teacher has no share of the loss, and does not run.
    """
    if not config.asks_teacher:
        return pretrain.objective(student, dropout=False)

    def measure(params: Params, teacher_params: Params, batch: Batch, key: jax.Array) -> Measured:
        taught_BTD = encoder.encode(student, params, batch).hidden_BTD
        depth = teacher.config.num_hidden_layers
        wanted_BTD = encoder.encode(teacher, teacher_params, batch, freeze_below=depth).hidden_BTD
        taught = encoder.predict(student, params, taught_BTD, batch)
        wanted = encoder.predict(teacher, teacher_params, wanted_BTD, batch)
        return word_losses(taught, wanted, batch, config)

    return measure


def auxiliary_objective(
    student: Network,
    teacher: Network,
    config: schema.Distill,
    transfer_config: schema.Transfer,
) -> Objective:
    """Returns the distillation objective with the transfer losses of all layers added to it.

    Source: paper section 3.5, strategy "AKT".
    """

    def measure(params: Params, teacher_params: Params, batch: Batch, key: jax.Array) -> Measured:
        layers, both = transfer.every_layer(
            student, teacher, transfer_config, params, teacher_params, batch
        )
        taught = encoder.predict(student, params, both.taught_BTD, batch)
        wanted = encoder.predict(teacher, teacher_params, both.wanted_BTD, batch)
        return add(word_losses(taught, wanted, batch, config), layers)

    return measure


def word_losses(
    taught: Predictions, wanted: Predictions, batch: Batch, config: schema.Distill
) -> Measured:
    """Returns the losses of the student's predictions beside the teacher's."""
    measured = pretrain.hard_labels(taught, batch, config.alpha)
    soft_BP = soft_cross_entropy(taught.masked_lm_BPV, wanted.masked_lm_BPV, config.temperature)
    soft = Term(weighted(soft_BP, batch["masked_lm_weights"]), 1.0 - config.alpha)
    return Measured({**measured.terms, "distillation_loss": soft}, measured.metrics)


def soft_cross_entropy(logits_s: jax.Array, logits_t: jax.Array, temperature: float) -> jax.Array:
    """Returns -T^2 sum_v softmax(logits_t / T)_v log softmax(logits_s / T)_v."""
    target = jax.nn.softmax(jax.lax.stop_gradient(logits_t).astype(jnp.float32) / temperature)
    log_s = jax.nn.log_softmax(logits_s.astype(jnp.float32) / temperature)
    return -(temperature**2) * jnp.sum(target * log_s, axis=-1)
