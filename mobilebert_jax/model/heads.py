"""Pooler, the two pretraining heads and the output layer of tasks, computed in float32.

Shapes: B batch, T positions, P predicted positions, D hidden, E embedding width, V vocabulary.
Source: paper section 3.1 (embedding factorisation); BERT (Devlin et al., 2019), section 3.1.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mobilebert_jax.model.bfloat16_matmul import rounded_scores
from mobilebert_jax.model.dropout import Dropout
from mobilebert_jax.model.layers import Dense, Norm, TaskHead, activate, parameter, weight_init
from mobilebert_jax.model.sizes import ModelConfig
from mobilebert_jax.sharding.rules import keep_rows


class Pooler(nn.Module):
    """Dense + tanh on the first position, [B, D] -> [B, D]; only in networks that have one."""

    config: ModelConfig

    @nn.compact
    def __call__(self, first_BD: jax.Array) -> jax.Array:
        return jnp.tanh(
            Dense(self.config, self.config.hidden_size, ("hidden", "pooled"), name="dense")(
                first_BD
            )
        )


class MaskedLM(nn.Module):
    """Vocabulary logits [B, P, V] at gathered features [B, P, D].

    The output matrix is the word table [V, E] continued by its own [V, D - E] columns, so that a
    narrow word table still meets features of full width.
    """

    config: ModelConfig
    named_operations: bool = False
    rounded: bool = False
    """Round what the vocabulary is multiplied with (`Network.bfloat16_matmuls`)."""

    @nn.compact
    def __call__(self, features_BPD: jax.Array, word_VE: jax.Array) -> jax.Array:
        config = self.config
        scores = rounded_scores if self.rounded else exact_scores
        x = Dense(config, config.hidden_size, ("hidden", "transform"), name="transform")(
            features_BPD
        )
        x = activate(config, x, named=self.named_operations)
        x = Norm("layer_norm", "transform", name="norm")(x)
        bias_V = parameter(self, "bias", nn.initializers.zeros, (config.vocab_size,), ("vocab",))
        logits_BPV = keep_rows(scores(x[..., : config.embedding_size], word_VE)) + bias_V
        if config.hidden_size > config.embedding_size:
            extra_VX = parameter(
                self,
                "extra",
                weight_init(config),
                (config.vocab_size, config.hidden_size - config.embedding_size),
                ("vocab", "embed"),
            )
            logits_BPV = logits_BPV + keep_rows(scores(x[..., config.embedding_size :], extra_VX))
        return logits_BPV


def exact_scores(x: jax.Array, table: jax.Array) -> jax.Array:
    """Returns `x @ table.T`, [..., in] and [entries, in] to [..., entries]."""
    return x @ table.T


class NextSentence(nn.Module):
    """Two logits from the pooled output [B, D]: class 0 is the real next segment."""

    config: ModelConfig

    @nn.compact
    def __call__(self, pooled_BD: jax.Array) -> jax.Array:
        return Dense(self.config, 2, ("hidden", "classes"), name="dense")(pooled_BD)


class TaskOutput(nn.Module):
    """Outputs of a task from features, [..., D] -> [..., outputs], after dropout."""

    config: ModelConfig
    head: TaskHead

    @nn.compact
    def __call__(self, features: jax.Array, *, deterministic: bool = True) -> jax.Array:
        kept = Dropout(self.head.dropout)(features, deterministic=deterministic)
        return Dense(self.config, self.head.outputs, ("hidden", "classes"), name="dense")(kept)


def gather_positions(features_BTD: jax.Array, positions_BP: jax.Array) -> jax.Array:
    """Returns the float32 features at `positions_BP`, [B, P, D]."""
    gathered = jnp.take_along_axis(features_BTD, positions_BP[..., None], axis=1)
    return keep_rows(gathered).astype(jnp.float32)
