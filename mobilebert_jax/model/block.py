"""One block of any network of the family: bottleneck, attention, stacked feed-forwards, bottleneck.

Shapes: B batch, T positions, D hidden width (between blocks), K bottleneck width (inside).
Source: paper section 3.1, Figure 1 (a: BERT, b: IB-BERT, c: MobileBERT) and Table 1.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
from jax.ad_checkpoint import checkpoint_name

from mobilebert_jax.model.attention import Attention
from mobilebert_jax.model.dropout import Dropout
from mobilebert_jax.model.layers import Dense, Network, Norm, activate, block_dense

FEEDFORWARD = "feedforward"
"""Name of both matmuls of a feed-forward network, for rematerialisation."""


class Captured(NamedTuple):
    """What knowledge transfer compares: a block's output and its scores before softmax."""

    features_BTD: jax.Array
    scores_BHTS: jax.Array


class Block(nn.Module):
    """[B, T, D] -> [B, T, D], and what was captured of it (None unless `capture`)."""

    network: Network
    capture: bool = False
    deterministic: bool = True
    frozen: bool = False
    """No gradient is taken."""

    @nn.compact
    def __call__(self, h_BTD: jax.Array, mask_BT: jax.Array) -> tuple[jax.Array, Captured | None]:
        config = self.network.config
        residual, query_input, value_input, axes = self._inputs(h_BTD)
        context, scores_BHTS = Attention(self.network, self.capture, name="attention")(
            query_input, value_input, mask_BT, axes=axes, deterministic=self.deterministic
        )
        groups = config.post_attention_groups
        context = self._dense(
            config.intra_bottleneck_size, ("heads", "bottleneck"), "attention_output", groups
        )(context)
        x = self._norm("attention_norm")(self._bert_dropout(context) + residual)
        for index in range(config.num_feedforward_networks):
            x = self._feedforward(x, index)
        if config.use_bottleneck:
            x = self._dense(config.hidden_size, ("bottleneck", "hidden"), "output")(x)
            x = Dropout(config.hidden_dropout_prob)(x, deterministic=self.deterministic)
            x = self._norm("output_norm", "hidden")(x + h_BTD)
        return x, None if scores_BHTS is None else Captured(x, scores_BHTS)

    def _inputs(self, h_BTD: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, tuple[str, str]]:
        """Returns the residual, what queries and keys read, what values read, and their axes."""
        config = self.network.config
        if not config.use_bottleneck:
            return h_BTD, h_BTD, h_BTD, ("hidden", "hidden")
        x_BTK = self._bottleneck(h_BTD, "input")
        if config.query_key == "bottleneck_input":
            return x_BTK, x_BTK, x_BTK, ("bottleneck", "bottleneck")
        if config.query_key == "shared_bottleneck":
            return x_BTK, self._bottleneck(h_BTD, "query_key"), h_BTD, ("bottleneck", "hidden")
        return x_BTK, h_BTD, h_BTD, ("hidden", "hidden")

    def _bottleneck(self, h_BTD: jax.Array, name: str) -> jax.Array:
        x = self._dense(self.network.config.intra_bottleneck_size, ("hidden", "bottleneck"), name)(
            h_BTD
        )
        return self._norm(f"{name}_norm")(x)

    def _feedforward(self, x: jax.Array, index: int) -> jax.Array:
        config, name = self.network.config, f"feedforward_{index}"
        inner, outer = config.intermediate_groups, config.output_groups
        y = self._dense(
            config.intermediate_size, ("bottleneck", "intermediate"), f"{name}_in", inner
        )(x)
        y = checkpoint_name(y, FEEDFORWARD)
        if self.network.wide and self.frozen:
            # A TPU's compiler would make one fusion of both matmuls, which takes a tenth longer.
            # Of a network that is trained the first is wanted again, and it makes two by itself.
            y = jax.lax.optimization_barrier(y)
        y = activate(config, y, named=self.network.named_operations)
        y = self._dense(
            config.intra_bottleneck_size, ("intermediate", "bottleneck"), f"{name}_out", outer
        )(y)
        y = checkpoint_name(y, FEEDFORWARD)
        return self._norm(f"{name}_norm")(self._bert_dropout(y) + x)

    def _dense(self, features: int, axes: tuple[str, str], name: str, groups: int = 1) -> Dense:
        return block_dense(self.network, features, axes, name, groups)

    def _norm(self, name: str, axis: str = "bottleneck") -> Norm:
        network = self.network
        return Norm(
            network.config.normalization_type, axis, network.dtype, network.quantized, name=name
        )

    def _bert_dropout(self, x: jax.Array) -> jax.Array:
        """Dropout before a residual addition, which only networks without bottlenecks have."""
        if self.network.config.use_bottleneck:
            return x
        return Dropout(self.network.config.hidden_dropout_prob)(x, deterministic=self.deterministic)
