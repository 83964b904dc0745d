"""One block of any network of the family: bottleneck, attention, stacked feed-forwards, bottleneck.

Shapes: B batch, T positions, D hidden width (between blocks), K bottleneck width (inside).
Source: paper section 3.1, Figure 1 (a: BERT, b: IB-BERT, c: MobileBERT) and Table 1.
"""

from typing import NamedTuple

import flax.linen as nn
import jax

from mobilebert_jax.model.attention import Attention
from mobilebert_jax.model.layers import ACTIVATIONS, Dense, Network, Norm


class Captured(NamedTuple):
    """What knowledge transfer compares: a block's output and its scores before softmax."""

    features_BTD: jax.Array
    scores_BHTS: jax.Array


class Block(nn.Module):
    """[B, T, D] -> [B, T, D], and what was captured of it (None unless `capture`)."""

    network: Network
    capture: bool = False
    deterministic: bool = True

    @nn.compact
    def __call__(self, h_BTD: jax.Array, mask_BT: jax.Array) -> tuple[jax.Array, Captured | None]:
        config, dtype = self.network.config, self.network.dtype
        residual, query_input, value_input, axes = self._inputs(h_BTD)
        context, scores_BHTS = Attention(self.network, name="attention")(
            query_input, value_input, mask_BT, axes=axes, deterministic=self.deterministic
        )
        context = Dense(
            config, config.bottleneck, ("heads", "bottleneck"), dtype, name="attention_output"
        )(context)
        x = self._norm("attention_norm")(self._bert_dropout(context) + residual)
        for index in range(config.feedforwards):
            x = self._feedforward(x, index)
        if config.bottlenecks:
            x = Dense(config, config.hidden, ("bottleneck", "hidden"), dtype, name="output")(x)
            x = nn.Dropout(config.hidden_dropout)(x, deterministic=self.deterministic)
            x = Norm(config.norm, "hidden", dtype, name="output_norm")(x + h_BTD)
        return x, Captured(x, scores_BHTS) if self.capture else None

    def _inputs(self, h_BTD: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, tuple[str, str]]:
        """Returns the residual, what queries and keys read, what values read, and their axes."""
        config = self.network.config
        if not config.bottlenecks:
            return h_BTD, h_BTD, h_BTD, ("hidden", "hidden")
        x_BTK = self._bottleneck(h_BTD, "input")
        if config.query_key == "bottleneck_input":
            return x_BTK, x_BTK, x_BTK, ("bottleneck", "bottleneck")
        if config.query_key == "shared_bottleneck":
            return x_BTK, self._bottleneck(h_BTD, "query_key"), h_BTD, ("bottleneck", "hidden")
        return x_BTK, h_BTD, h_BTD, ("hidden", "hidden")

    def _bottleneck(self, h_BTD: jax.Array, name: str) -> jax.Array:
        config = self.network.config
        x = Dense(
            config, config.bottleneck, ("hidden", "bottleneck"), self.network.dtype, name=name
        )
        return self._norm(f"{name}_norm")(x(h_BTD))

    def _feedforward(self, x: jax.Array, index: int) -> jax.Array:
        config, dtype = self.network.config, self.network.dtype
        y = Dense(
            config,
            config.intermediate,
            ("bottleneck", "intermediate"),
            dtype,
            name=f"feedforward_{index}_in",
        )(x)
        y = Dense(
            config,
            config.bottleneck,
            ("intermediate", "bottleneck"),
            dtype,
            name=f"feedforward_{index}_out",
        )(ACTIVATIONS[config.activation](y))
        return self._norm(f"feedforward_{index}_norm")(self._bert_dropout(y) + x)

    def _norm(self, name: str) -> Norm:
        return Norm(self.network.config.norm, "bottleneck", self.network.dtype, name=name)

    def _bert_dropout(self, x: jax.Array) -> jax.Array:
        """Dropout before a residual addition, which only networks without bottlenecks have."""
        if self.network.config.bottlenecks:
            return x
        return nn.Dropout(self.network.config.hidden_dropout)(x, deterministic=self.deterministic)
